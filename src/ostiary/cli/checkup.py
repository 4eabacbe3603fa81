"""What the doctor looks at in an instance at work: gateways, their clocks, jobs, and who is told of what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal

from ostiary.cli import show
from ostiary.clock import SECOND_MS
from ostiary.db import versions
from ostiary.ground import Ground
from ostiary.ledger import gateways, operation_store
from ostiary.ledger.gateways import Gateway

Verdict = Literal["ok", "warning", "failed"]

_LOOK_S: Final = 0.5
_LOOKS: Final = 13
"""A little longer than a heartbeat."""
_MOST_SKEW_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and how it is."""

    name: str
    status: Verdict
    message: str


async def examine_instance(base: Ground) -> AsyncIterator[Check]:
    """Everything that no single setting is to blame for."""
    async with base.database.read() as tx:
        found = await gateways.look(tx, base.clock.now())
    for check in _examine_gateways(found):
        yield check
    for check in _examine_sqlite(base, found):
        yield check
    async for check in _examine_clocks(base, found):
        yield check
    async for check in _examine_jobs(base):
        yield check
    async for check in _examine_notifications(base):
        yield check


def _examine_gateways(found: list[Gateway]) -> list[Check]:
    live = [one for one in found if one.state == "live"]
    checks = [
        Check(
            "gateways",
            "warning",
            f"{one.name} was lost with {show.dollars(one.leased_nano)} of budgets. Start it again on its data folder; "
            f"if its spool is gone for good, 'ostiary gateways retire {one.id}' counts that as spent.",
        )
        for one in found
        if one.state == "lost" and one.leased_nano
    ]
    kinds = sorted({one.version for one in live})
    if len(kinds) > 1:
        checks.append(Check("gateways", "warning", f"Different versions serve: {', '.join(kinds)}. Upgrade them all."))
    return checks or [Check("gateways", "ok", f"{len(live)} {'is' if len(live) == 1 else 'are'} live.")]


def _examine_sqlite(base: Ground, found: list[Gateway]) -> list[Check]:
    version = versions.sqlite_version(base.database)
    if version is None:
        return []
    warning = versions.warning(base.database)
    live = sum(one.state == "live" for one in found)
    if warning is not None and live > 1:
        warning = f"{live} gateways share one file. {warning}"
    if warning is not None:
        return [Check("SQLite", "warning", warning)]
    return [Check("SQLite", "ok", f"Version {'.'.join(map(str, version))}.")]


async def _examine_clocks(base: Ground, found: list[Gateway]) -> AsyncIterator[Check]:
    if base.database.is_sqlite or not found:
        return  # then all of them are on this machine, and have its clock
    skews, silent = await _listen(base, found)
    wrong = {name: skew for name, skew in skews.items() if abs(skew) > _MOST_SKEW_MS}
    for name, skew in sorted(wrong.items()):
        way = "ahead of" if skew > 0 else "behind"
        yield Check(
            "clocks",
            "warning",
            f"The clock of {name} is {abs(skew) / SECOND_MS:.1f} s {way} this machine's. Let NTP set both: budgets end "
            "and keys expire by it.",
        )
    for name in silent:
        said = f"{name} counts as live, but was not heard for {_LOOKS * _LOOK_S:g} s: how its clock is, is not known."
        yield Check("clocks", "warning", said)
    if skews and not wrong:
        yield Check("clocks", "ok", f"Of {len(skews)} that were heard, all agree with this machine's.")


async def _listen(base: Ground, found: list[Gateway]) -> tuple[dict[str, int], list[str]]:
    """By how much each clock is ahead, and whose heartbeat was not heard all the while.

    When a heartbeat moves between two looks, it was written between them: so we know what its clock said then.
    """
    beats = {one.id: one.heartbeat_at for one in found}
    expected = {one.id for one in found if one.state == "live"}
    skews: dict[str, int] = {}
    for _ in range(_LOOKS):
        earlier = base.clock.now()
        await base.clock.sleep(_LOOK_S)
        async with base.database.read() as tx:
            found = await gateways.look(tx, base.clock.now())
        now = base.clock.now()
        for one in found:
            if one.heartbeat_at != beats.get(one.id, one.heartbeat_at):
                skews[one.name] = max(one.heartbeat_at - now, 0) + min(one.heartbeat_at - earlier, 0)
        beats = {one.id: one.heartbeat_at for one in found if one.name not in skews}
        if not beats:
            break
    return skews, sorted({one.name for one in found if one.id in expected & beats.keys()})


async def _examine_jobs(base: Ground) -> AsyncIterator[Check]:
    async with base.database.read() as tx:
        jobs = await operation_store.list_jobs(tx)
    failing = [job for job in jobs if job.error]
    for job in failing:
        yield Check("jobs", "warning", f"'{job.name}' failed at {show.when(job.ran_at)}: {job.error}")
    if jobs and not failing:
        yield Check("jobs", "ok", f"{len(jobs)}, none of which failed the last time.")


async def _examine_notifications(base: Ground) -> AsyncIterator[Check]:
    async with base.database.read() as tx:
        undelivered = await operation_store.count_undelivered(tx)
        budgets = await operation_store.count_watched_budgets(tx)
        hears = base.settings.smtp_url is not None or await operation_store.has_webhooks(tx)
    if undelivered.given_up:
        yield Check("notifications", "warning", f"{undelivered.given_up} could not be delivered and were given up.")
    if undelivered.waiting:
        yield Check("notifications", "warning", f"{undelivered.waiting} failed and are tried again.")
    if budgets and not hears:
        yield Check(
            "notifications",
            "warning",
            f"Nobody is told when a budget runs out, and there are {budgets}: set OSTIARY_SMTP_URL, or make a webhook.",
        )
