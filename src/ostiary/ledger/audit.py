"""Who did what to what, written in the transaction of the deed itself, as a chain that shows what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ostiary.actor import Actor, Denied
from ostiary.db.database import Database, Transaction, chain_key_of
from ostiary.errors import Refusal
from ostiary.ledger import audit_store as store
from ostiary.ledger import chain
from ostiary.ledger.audit_store import AuditRow, Filter
from ostiary.ledger.chain import Head, Key

__all__ = ["AuditRow", "Filter", "begin", "denied", "list_", "write"]

MOST_ROWS: Final = 200
"""Of one page."""

_BATCH: Final = 1_000
_HOUR_MS: Final = 3_600_000
_MOST_BY_ONE: Final = 30
_MOST_DENIED: Final = 500
"""Notes of denials in an hour: by one actor, and in an organization."""
_LONGEST_ID, _LONGEST_KIND, _LONGEST_NAME = 64, 32, 200
_HEADLESS: Final = (
    "The end of the audit log was removed from the database, or changed: nothing is done that could not be proven. "
    "'ostiary audit verify' says more."
)


async def write(  # noqa: PLR0913 - one argument a column
    tx: Transaction,
    by: Actor,
    deed: str,
    target_kind: str,
    target_id: str,
    target_name: str,
    *,
    organization_id: str | None,
    at: int,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
    result: str = "ok",
) -> None:
    """Append one row. `before` and `after` hold the fields their caller picked by name, and never a secret.

    Raises TypeError on a value that is not plain data: a `Secret` or bytes cannot slip in.
    """
    row: dict[str, object] = {
        "at": at,
        "organization_id": organization_id,
        "actor_kind": by.kind,
        "actor_id": by.id,
        "actor_name": by.name,
        "deed": deed,
        "target_kind": target_kind,
        "target_id": target_id,
        "target_name": target_name,
        "before": _plain(before),
        "after": _plain(after),
        "origin": by.origin,
        "address": by.address,
        "result": result,
    }
    await _append(tx, row, organization_id, at)


async def _append(tx: Transaction, row: dict[str, object], organization_id: str | None, at: int) -> None:
    key = Key(chain_key_of(tx))
    found = await store.find_end(tx, lock=True)
    head = found.head or await _begin(tx, key, found, at)
    name = chain.chain_of(organization_id)
    last = await store.find_last(tx, name)
    # Behind a row that somebody put there, too: a forged row is to be found, not to stop the house.
    seq = max(head.seq, found.last_seq) + 1
    row |= {"seq": seq, "chain": name, "number": last.number + 1 if last else 1}
    hashed = row | {name: store.json_text(row[name]) for name in ("before", "after")}
    row["hash"] = hash_ = key.hash(last.hash if last else b"", chain.raw(hashed))
    await store.add_audit(tx, row)
    await store.change_head(tx, replace(head, seq=seq, link=key.link(head.link, hash_)))


# ---- what was denied --------------------------------------------------------------------------------------------


async def denied(
    database: Database,
    by: Actor,
    refusal: Refusal,
    *,
    at: int,
    deed: str | None = None,
    target: tuple[str, str, str] | None = None,
) -> bool:
    """Note what somebody tried and may not, in a transaction of its own; whether it was noted.

    A refusal for another reason is nothing to note, unless the door itself judged by permission and says by `deed`
    which. `target` is kind, id and name, as far as they are known. It goes to the log of the actor's own organization:
    the one that was tried may not exist. An actor who goes on and on fills no disk: so much is noted an hour, the last
    row says so. When the database is away nothing is noted, and the answer stays what it was.
    """
    tried = deed if deed is not None or not isinstance(refusal, Denied) else refusal.tried
    if tried is None:
        return False
    where = refusal.where if isinstance(refusal, Denied) else by.organization_id
    home = None if by.organization_id == chain.INSTANCE else by.organization_id
    kind, id_, name = target or (tried.partition(".")[0].removesuffix("s"), (where or chain.INSTANCE), "")
    try:
        async with database.read() as tx:
            recent = await store.list_denied(tx, home, at - _HOUR_MS, _MOST_DENIED)
        left = _MOST_BY_ONE - recent.count(by.id)
        if left <= 0 or len(recent) >= _MOST_DENIED:
            return False
        after = {"code": refusal.code, "organization_id": where and _clipped(where)}
        if left == 1 or len(recent) == _MOST_DENIED - 1:
            after["note"] = "no more is noted within the hour"
        async with database.transaction() as tx:
            await write(
                tx,
                by,
                _clipped(tried),
                kind[:_LONGEST_KIND],
                _clipped(id_),
                name[:_LONGEST_NAME],
                organization_id=home,
                at=at,
                after=after,
                result=store.DENIED,
            )
    except Refusal:
        return False
    return True


def _clipped(text: str) -> str:
    """What a caller gave, as a column of ids takes it."""
    return "".join(letter for letter in text if letter.isprintable())[:_LONGEST_ID]


# ---- what is told -----------------------------------------------------------------------------------------------


async def list_(
    tx: Transaction,
    by: Actor,
    organization_id: str | None,
    wanted: Filter | None = None,
    *,
    after: tuple[int, int] | None = None,
    limit: int = 100,
) -> list[AuditRow]:
    """A page, the newest first; `after` is `at` and `seq` of the last row of the page before.

    None for the organization gives the rows of all and of none; only the operator may ask for that.
    """
    by.require("audit.show", organization_id)
    if not 1 <= limit <= MOST_ROWS:
        raise Refusal("invalid_field", f"A page has 1 to {MOST_ROWS} rows.", param="limit")
    return await store.list_audit(tx, organization_id, limit, wanted or Filter(), after)


async def find(tx: Transaction, by: Actor, organization_id: str, seq: int) -> AuditRow | None:
    """One row of an organization, by its place in the log."""
    by.require("audit.show", organization_id)
    return await store.find_audit(tx, organization_id, seq)


# ---- the beginning ----------------------------------------------------------------------------------------------


async def begin(tx: Transaction, at: int) -> None:
    """Make a chain of what an older Ostiary has written, or of nothing; what is one already stays as it is."""
    if (await store.find_end(tx)).text is not None or await store.is_chained(tx):
        return
    found = await store.find_end(tx, lock=True)
    if found.text is None:
        await _begin(tx, Key(chain_key_of(tx)), found, at)


async def _begin(tx: Transaction, key: Key, found: store.Found, at: int) -> Head:
    """Rows that are older than the chain get their place in it as they are found: from now on they are proven too."""
    if found.text is not None or await store.is_chained(tx):
        raise Refusal("service_unavailable", _HEADLESS)
    head = Head(found.last_seq, key.begin(found.last_seq, at), found.last_seq, at)
    ends: dict[str, tuple[int, bytes]] = {}
    seq = None
    while rows := await store.list_raw(tx, seq, _BATCH):
        placed = []
        for row in rows:
            name = row["organization_id"].decode() if row["organization_id"] else chain.INSTANCE
            number, previous = ends.get(name, (0, b""))
            full = row | {"chain": name.encode(), "number": b"%d" % (number + 1)}
            hash_ = key.hash(previous, full)
            ends[name] = (number + 1, hash_)
            head = replace(head, link=key.link(head.link, hash_))
            placed.append({"row_seq": row["place"], "chain": name, "number": number + 1, "hash": hash_})
        await store.mark_chained(tx, placed)
        seq = rows[-1]["place"]
    await store.add_head(tx, head)
    return head


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON of any shape
    match value:
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case set() | frozenset():
            return sorted((_plain(item) for item in value), key=str)
        case _:
            raise TypeError(f"{type(value).__name__} does not belong in the audit log")
