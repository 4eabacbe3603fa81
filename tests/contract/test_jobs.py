"""What runs by the clock: each run happens once, whoever is there to do it, and a failure is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from ostiary.db import jobs as turns
from ostiary.db.database import Database
from ostiary.db.jobs import Turn
from ostiary.errors import Refusal
from ostiary.jobs import Job, Jobs
from tests.fakes import SetClock
from tests.people import spoil

HOUR_S = 3_600


class Hasty(SetClock):
    """Its sleepers look again at once, so that loops see it moved."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


@asynccontextmanager
async def running(*loops: Jobs) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.get_running_loop().create_task(loop.run()) for loop in loops]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in done), done


async def eventually(is_so: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            found = is_so()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def turn_of(database: Database, name: str = "tidy") -> Turn:
    async with database.read() as tx:
        found = await turns.find_turn(tx, name)
    assert found
    return found


async def is_ended(database: Database, ran_at: int) -> bool:
    async with database.read() as tx:
        turn = await turns.find_turn(tx, "tidy")
    return turn is not None and turn.owner is None and turn.ran_at == ran_at


async def test_two_gateways_run_each_job_once_each_time(database: Database, database_url: str) -> None:
    clock, other = Hasty(), Database(database_url)
    runs: list[tuple[str, int]] = []

    def job(name: str, whose: str) -> Job:
        async def run(at: int) -> None:
            runs.append((name, at))
            await asyncio.sleep(0.05)
            by.add(whose)

        return Job(name, HOUR_S, run)

    by: set[str] = set()
    loops = [
        Jobs(each, whose, clock, [job("tidy", whose), job("count", whose)])
        for whose, each in (("a", database), ("b", other))
    ]
    expected: list[tuple[str, int]] = []
    async with running(*loops):
        for _ in range(20):
            at = clock.now()
            expected.extend([("tidy", at), ("count", at)])
            await eventually(lambda at=at: is_ended(database, at))  # type: ignore[misc]
            await eventually(lambda: len(runs) >= len(expected))
            await asyncio.sleep(0.05)
            assert sorted(runs) == sorted(expected)
            clock.move(HOUR_S)
    assert by
    await other.close()


async def test_of_many_who_claim_one_gets_it(database: Database) -> None:
    async with database.transaction() as tx:
        await turns.add_turn(tx, "tidy", 5)

    async def claim(owner: str, at: int) -> bool:
        async with database.transaction() as tx:
            return await turns.claim_turn(tx, "tidy", owner, at, every_ms=1_000, lease_ms=100)

    for at in (5, 106, 207):
        assert sorted(await asyncio.gather(*(claim(f"o{n}", at) for n in range(8)))) == [False] * 7 + [True]
        assert not await claim("late", at + 100 - 1)
    assert not await claim("early", 4)


async def test_a_run_in_progress_is_not_taken_and_an_abandoned_one_is(database: Database) -> None:
    clock, gate = Hasty(), asyncio.Event()
    runs: list[str] = []

    async def stuck(_at: int) -> None:
        runs.append("first")
        await gate.wait()

    async def quick(_at: int) -> None:
        runs.append("second")

    async with running(Jobs(database, "a", clock, [Job("tidy", 60, stuck)])):
        await eventually(lambda: bool(runs))
        async with running(Jobs(database, "b", clock, [Job("tidy", 60, quick)])):
            await asyncio.sleep(0.2)
            assert runs == ["first"]
            clock.move(61)  # "a" gave no sign of life for a minute
            await eventually(lambda: runs == ["first", "second"])
            await eventually(lambda: is_ended(database, clock.now()))
        gate.set()
        await asyncio.sleep(0.1)
        assert (await turn_of(database)).ran_at == clock.now()


async def test_a_long_run_keeps_its_lease(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.jobs._EXTEND_S", 0.02)
    clock, gate = Hasty(), asyncio.Event()
    runs: list[str] = []

    async def long(_at: int) -> None:
        runs.append("run")
        await gate.wait()

    async with running(*(Jobs(database, owner, clock, [Job("tidy", 60, long)]) for owner in "ab")):
        await eventually(lambda: bool(runs))
        for _ in range(10):
            until = clock.now() + 59_000

            async def is_extended(until: int = until) -> bool:
                return ((await turn_of(database)).leased_until or 0) > until

            await eventually(is_extended)
            clock.move(50)
        assert runs == ["run"]
        gate.set()


async def test_who_lost_the_lease_is_cut_off(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.jobs._EXTEND_S", 0.02)
    cut = asyncio.Event()

    async def long(_at: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    async with running(Jobs(database, "a", Hasty(), [Job("tidy", 60, long)])):
        await eventually(lambda: is_leased(database))
        await spoil(database, "UPDATE jobs SET owner = 'b'")
        async with asyncio.timeout(30):
            await cut.wait()
        await asyncio.sleep(0.05)
        assert (await turn_of(database)).owner == "b"


async def is_leased(database: Database) -> bool:
    async with database.read() as tx:
        turn = await turns.find_turn(tx, "tidy")
    return turn is not None and turn.owner is not None


async def test_a_failure_is_said_once_kept_and_tried_again(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Hasty()
    runs: list[int] = []

    async def fail(at: int) -> None:
        runs.append(at)
        if len(runs) <= 3:
            raise OSError("no route, Bearer sk-abcdefghijklmnop")

    async with running(Jobs(database, "a", clock, [Job("tidy", HOUR_S, fail)])):
        for n in range(1, 4):
            await eventually(lambda n=n: len(runs) == n)  # type: ignore[misc]
            await eventually(lambda: is_ended(database, clock.now()))
            turn = await turn_of(database)
            assert turn.error
            assert turn.error.startswith("OSError: no route")
            assert "abcdefgh" not in turn.error
            clock.move(61)
        await eventually(lambda: is_ended(database, clock.now()))
        turn = await turn_of(database)
        assert (turn.error, turn.next_at) == (None, clock.now() + HOUR_S * 1_000)
    said = capsys.readouterr()
    assert (said.out + said.err).count("job.failed") == 1
    assert (said.out + said.err).count("job.works") == 1


async def test_a_clock_set_back_does_not_stop_anything(database: Database) -> None:
    clock = Hasty()
    runs: list[int] = []

    async def run(at: int) -> None:
        runs.append(at)

    async with running(Jobs(database, "a", clock, [Job("tidy", 60, run)])):
        await eventually(lambda: is_ended(database, clock.now()))
        clock.at -= HOUR_S * 1_000
        await eventually(lambda: len(runs) == 2)


async def test_a_database_that_goes_away_is_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.jobs._BACK_OFF_S", 0.05)
    clock = Hasty()
    runs: list[int] = []
    own: list[int] = []

    async def run(at: int) -> None:
        runs.append(at)

    async def run_here(at: int) -> None:
        own.append(at)

    jobs = Jobs(database, "a", clock, [Job("tidy", 60, run), Job("own", 60, run_here, is_everywhere=True)])
    async with running(jobs):
        await eventually(lambda: is_ended(database, clock.now()))
        reads = database.read

        def gone() -> None:
            raise Refusal("service_unavailable")

        monkeypatch.setattr(database, "read", gone)
        await eventually(lambda: bool(jobs._waiting))
        seen = len(own)
        clock.move(61)
        await eventually(lambda: len(own) > seen)
        assert len(runs) == 1
        monkeypatch.setattr(database, "read", reads)
        await eventually(lambda: len(runs) == 2)
        await eventually(lambda: not jobs._waiting)


async def test_a_stop_lets_a_run_end_by_itself(database: Database) -> None:
    clock, begun = Hasty(), asyncio.Event()
    ended: list[int] = []

    async def run(at: int) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        ended.append(at)

    task = asyncio.get_running_loop().create_task(Jobs(database, "a", clock, [Job("tidy", 60, run)]).run())
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert ended
    assert await is_ended(database, ended[0]), "and gives its lease back, for which others would wait"


def test_two_jobs_of_one_name_are_a_mistake(tmp_path: object) -> None:
    async def run(_at: int) -> None: ...

    with pytest.raises(ValueError, match="one name"):
        Jobs(Database(f"sqlite:///{tmp_path}/x.db"), "a", Hasty(), [Job("x", 1, run), Job("x", 2, run)])
