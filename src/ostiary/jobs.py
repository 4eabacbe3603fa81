"""What runs by the clock: a table of jobs, and the loop that sees to it that one gateway at a time runs each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ostiary.clock import SECOND_MS, Clock
from ostiary.db import jobs as turns
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.logs import get, redact

_LEASE_S: Final = 60
"""After so long without a sign of life another gateway takes a job over."""
_EXTEND_S: Final = 20
_LONGEST_NAP_S: Final = 60.0
"""A sleeper does not notice that the clock was set, nor that another gateway's run has failed."""
_SHORTEST_NAP_S: Final = 0.2
_RETRY_S: Final = 60
"""After a failure; sooner when the job runs more often than that."""
_BACK_OFF_S: Final = 5.0
_LAST_WORDS_S: Final = 5.0
_LONGEST_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every so often. `run` is given the time, and may fail: it is tried again.

    A run can be cut off anywhere and be repeated by another gateway: let it work in short transactions that each leave
    things whole. A stop gives it five seconds to end by itself.
    """

    name: str
    every_s: int
    run: Callable[[int], Awaitable[object]]
    is_everywhere: bool = False
    """Each gateway runs it for itself, whatever the others do; the database need not be there."""


class Jobs:
    """The jobs of this gateway, each in a loop of its own: a long one holds no other up."""

    def __init__(self, database: Database, owner: str, clock: Clock, jobs: Sequence[Job]) -> None:
        """`owner` is this process's own name: leases tell by it who holds them."""
        self._database = database
        self._owner = owner
        self._clock = clock
        self._jobs = jobs
        self._errors: dict[str, str] = {}
        self._waiting: set[str] = set()
        self._log = get("jobs")
        if len({job.name for job in jobs}) < len(jobs):
            raise ValueError("two jobs of one name would keep each other from running")

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for job in self._jobs:
                tasks.create_task(self._keep(job))

    async def _keep(self, job: Job) -> None:
        turn = self._run_here if job.is_everywhere else self._take_turn
        while True:
            try:
                nap = await turn(job)
                self._say_up(job)
            except Refusal as refusal:  # of the database: a job's own never come here
                self._say_down(job, refusal)
                nap = _BACK_OFF_S
            await self._clock.sleep(min(max(nap, _SHORTEST_NAP_S), _LONGEST_NAP_S))

    async def _run_here(self, job: Job) -> float:
        run = asyncio.get_running_loop().create_task(_run(job, self._clock.now()))
        await self._watch(run, None)
        return _pause_s(job, self._judge(job, run))

    async def _take_turn(self, job: Job) -> float:
        """Run the job if it is its time and nobody else does; the answer is in how many seconds to look again."""
        async with self._database.read() as tx:
            turn = await turns.find_turn(tx, job.name)
        at = self._clock.now()
        every_ms, lease_ms = job.every_s * SECOND_MS, _LEASE_S * SECOND_MS
        if turn is not None and at < turn.next_at <= at + every_ms:
            return (turn.next_at - at) / SECOND_MS
        if not await self._database.to_the_end(self._claim(job, at, every_ms, lease_ms, is_new=turn is None)):
            return min(job.every_s, _EXTEND_S)  # somebody is at it
        lease = _Lease(self._database, self._clock, job.name, self._owner)
        run = asyncio.get_running_loop().create_task(_run(job, at))
        try:
            await self._watch(run, lease)
        except asyncio.CancelledError:
            if not run.cancelled():  # it ended by itself: nobody need wait for our lease to do it again
                with suppress(Refusal):
                    await self._note_end(job, run, at)
            raise
        pause_s = await self._note_end(job, run, at)
        return at / SECOND_MS + pause_s - self._clock.now() / SECOND_MS

    async def _note_end(self, job: Job, run: asyncio.Task[None], at: int) -> float:
        failed = self._judge(job, run)
        pause_s = _pause_s(job, failed)
        await self._database.to_the_end(self._end(job, at, at + int(pause_s * SECOND_MS), failed))
        return pause_s

    async def _claim(self, job: Job, at: int, every_ms: int, lease_ms: int, *, is_new: bool) -> bool:
        async with self._database.transaction() as tx:
            if is_new:
                await turns.add_turn(tx, job.name, at)
            return await turns.claim_turn(tx, job.name, self._owner, at, every_ms=every_ms, lease_ms=lease_ms)

    async def _end(self, job: Job, ran_at: int, next_at: int, error: str | None) -> None:
        async with self._database.transaction() as tx:
            await turns.end_turn(tx, job.name, self._owner, ran_at=ran_at, next_at=next_at, error=error)

    async def _watch(self, task: asyncio.Task[None], lease: _Lease | None) -> None:
        """Wait for a run to end, and keep its lease meanwhile."""
        try:
            while not (await asyncio.wait({task}, timeout=_EXTEND_S))[0]:
                if lease is not None and not await lease.extend():
                    await _cut_off(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=_LAST_WORDS_S)
            await _cut_off(task)
            raise

    def _judge(self, job: Job, task: asyncio.Task[None]) -> str | None:
        """Why a run failed, None if it did not; said when it is news."""
        if task.cancelled():
            error: BaseException | None = TimeoutError("another gateway took it over")
        else:
            error = task.exception()
        if error is None:
            if self._errors.pop(job.name, None) is not None:
                self._log.warning("job.works", job=job.name)
            return None
        said = redact(error.message if isinstance(error, Refusal) else f"{type(error).__name__}: {error}")
        if job.name not in self._errors:
            trace = None if isinstance(error, Refusal | OSError) else error
            self._log.error("job.failed", job=job.name, reason=said[:_LONGEST_ERROR], exc_info=trace)
        self._errors[job.name] = said
        return said[:_LONGEST_ERROR]

    def _say_down(self, job: Job, refusal: Refusal) -> None:
        if not self._waiting:
            self._log.error("jobs.down", reason=str(refusal.__cause__ or refusal))
        self._waiting.add(job.name)

    def _say_up(self, job: Job) -> None:
        if job.name in self._waiting:
            self._waiting.remove(job.name)
            if not self._waiting:
                self._log.warning("jobs.up")


@dataclass(slots=True)
class _Lease:
    """The right to run a job now. It ends when another has it, or when we could not say for long that we live."""

    database: Database
    clock: Clock
    name: str
    owner: str
    extended: float = 0.0

    def __post_init__(self) -> None:
        self.extended = self.clock.monotonic()

    async def extend(self) -> bool:
        """Whether we still have it."""
        try:
            held = await self.database.to_the_end(self._extend())
        except Refusal:
            return self.clock.monotonic() - self.extended < _LEASE_S - _EXTEND_S
        self.extended = self.clock.monotonic()
        return held

    async def _extend(self) -> bool:
        until = self.clock.now() + _LEASE_S * SECOND_MS
        async with self.database.transaction() as tx:
            return await turns.extend_turn(tx, self.name, self.owner, until)


def _pause_s(job: Job, failed: str | None) -> float:
    return job.every_s if failed is None else min(job.every_s, _RETRY_S)


async def _run(job: Job, at: int) -> None:
    await job.run(at)


async def _cut_off(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
