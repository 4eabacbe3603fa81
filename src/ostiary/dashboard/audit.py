"""The audit log: who did what to what, what that changed, and the proof that nobody rewrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ostiary.dashboard import periods
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.audit_walks import walks_of
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.trace_filters import cursor_of, place_of
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import anchors, audit
from ostiary.ledger.audit import AuditRow, Filter
from ostiary.ledger.verify import Walk
from ostiary.orgs.roles import DEEDS
from ostiary.orgs.store import find_user

PERIODS: Final = ("24h", "7d", "30d", "90d", "all", "custom")
USUAL: Final = "all"
RESULTS: Final = ("ok", "denied")
_NAMES: Final = ("actor", "deed", "target", "result", "period", "since", "until")
_ROWS: Final = 50
_LONGEST: Final = 200
_PORTION_S: Final = 0.5


async def list_(visit: Visit) -> Answer:
    """A page of rows, the newest first."""
    rows: list[AuditRow] = []
    wrong = Wrong()
    try:
        period = periods.read(visit.query, visit.at, USUAL)
    except Refusal as refusal:
        wrong = visit.refused(refusal)
    else:
        after = _after(visit.query.text("cursor"))
        async with visit.reading() as tx:
            wanted = await _wanted(visit, tx, period)
            rows = await audit.list_(tx, visit.by, visit.home, wanted, after=after, limit=_ROWS + 1)
    page = rows[:_ROWS]
    known: dict[str, Any] = {
        "rows": page,
        "more": cursor_of(page[-1].at, page[-1].seq) if len(rows) > _ROWS else "",
        "kept": [(name, visit.query.text(name)) for name in _NAMES if visit.query.text(name)],
        "is_first": not visit.query.text("cursor"),
        "wrong": wrong,
    }
    if visit.is_partial:
        return visit.page("audit/rows.html", **known)
    choices: dict[str, Any] = {"periods": PERIODS, "period_words": periods.WORDS, "usual": USUAL, "results": RESULTS}
    return visit.page("audit/list.html", **known, **choices, deeds=sorted(DEEDS))


def _after(cursor: str) -> tuple[int, int] | None:
    match place_of(cursor, (int, int)):
        case (int() as at, int() as seq):
            return at, seq
        case _:
            return None


async def _wanted(visit: Visit, tx: Transaction, period: periods.Period) -> Filter:
    """People are asked for by their e-mail address, too: the log knows them by id."""
    actor, deed, target, result = (visit.query.text(name)[: _LONGEST + 1] for name in _NAMES[:4])
    if "@" in actor and (user := await find_user(tx, actor)) is not None:
        actor = user.id
    return Filter(
        actor or None,
        deed or None,
        target or None,
        result if result in RESULTS else None,
        period.since_at or None,
        period.until_at,
    )


# ---- one row ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """A field before and after; None where it was not there."""

    name: str
    before: str | None
    after: str | None

    @property
    def is_same(self) -> bool:
        """Whether the deed left it alone."""
        return self.before == self.after


async def show(visit: Visit) -> Answer:
    """One deed, with what it changed."""
    number = visit.names["seq"]
    async with visit.reading() as tx:
        visit.by.require("audit.show", visit.home)
        is_number = number.isascii() and number.isdigit() and len(number) < 19  # noqa: PLR2004 - digits of 64 bits
        row = await audit.find(tx, visit.by, visit.home, int(number)) if is_number else None
    if row is None:
        raise Refusal("not_found")
    return visit.page("audit/show.html", row=row, differences=differences(row.before, row.after))


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Difference]:
    """Every field that either knows, what was changed first."""
    old, new = before or {}, after or {}
    found = [Difference(name, _text(old, name), _text(new, name)) for name in {**old, **new}]
    return sorted(found, key=lambda one: one.is_same)


def _text(values: Mapping[str, Any], name: str) -> str | None:
    if name not in values:
        return None
    value = values[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---- the proof --------------------------------------------------------------------------------------------------


async def verify(visit: Visit) -> Answer:
    """Walk a portion of the log; the page asks for the next until the end is reached.

    A walk is in this process only: where another gateway answers, or this one was started anew, it begins again.
    """
    visit.by.require("audit.verify", visit.home)
    hall = visit.hall
    key = hall.database.chain_key
    if key is None:
        raise Refusal("sealed")
    walks = walks_of(hall.database)
    walk = walks.take(visit.form.text("walk"), visit.by.id)
    if walk is None:
        own = hall.settings.data_dir / anchors.FILE
        walk = Walk(key, [own] if own.exists() else [])
    until = hall.clock.monotonic() + _PORTION_S
    while not walk.is_over and hall.clock.monotonic() < until:
        await walk.go_on(hall.database)
    is_all = visit.by.organization_id is None  # how much is written of other organizations is not theirs to know
    if not walk.is_over:
        name = walks.keep(visit.by.id, walk, visit.at)
        per_cent = walk.rows * 100 // max(walk.total, 1)
        return visit.page("audit/verified.html", walk=name, per_cent=per_cent, report=None)
    report = walk.report()
    ours = [one for one in report.faults if is_all or one.chain in (None, visit.home)]
    elsewhere = len(report.faults) - len(ours)
    return visit.page("audit/verified.html", report=report, faults=ours, elsewhere=elsewhere, is_all=is_all)
