"""What a spool keeps over kill -9, a full disk and damage, and how its leavings are adopted."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import reports
from ostiary.ledger.events import Event, pack
from ostiary.ledger.journal import SETTLEMENT, frame
from ostiary.ledger.spool import Spool, SpoolFull, Sync, find_orphans
from ostiary.ledger.writer import Writer, adopt
from ostiary.limits import store
from ostiary.limits.budgets import AccountKey, Budget
from ostiary.limits.charge_store import Cost, charge_all
from tests.fakes import SetClock
from tests.servers.waiting import until

pytestmark = pytest.mark.anyio
_ACCOUNT = AccountKey("agent_key", "key_1", "2026-11")


def _event(number: int, cost: int = 100) -> Event:
    return Event(
        f"r{number}", 1, "orgn_1", "key_1", "a", None, "chat", "p", "m", "m", "pkey", "pk", False,
        SetClock().now(), None, {}, 500, (_ACCOUNT,), "v", cost, "provider", "ok", 200,
    )  # fmt: skip


def _held(number: int) -> Event:
    held = _event(number, cost=500)
    held.status, held.usage_source, held.http_status = "unknown", "none", 0
    return held


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("spool_*")}


async def _leased(database: Database, owner: str, nano: int) -> None:
    clock = SetClock()
    async with database.transaction() as tx:
        await store.add_owner(tx, owner, owner, "test", clock.now())
        await store.change_budget(tx, "agent_key", "key_1", Budget("month", 10_000), clock.now())
        account = await store.lock_account(tx, _ACCOUNT)
        assert await store.change_lease(tx, owner, account, 0, nano)


async def _books(database: Database) -> tuple[int, int, list[tuple[str, str, int]]]:
    async with database.read() as tx:
        accounts = await store.list_accounts(tx, "agent_key", "key_1")
        traces = await reports.list_traces(tx, "orgn_1", limit=0)
    month = next(one for one in accounts if one.period_id == "2026-11")
    return month.spent_nano, month.leased_nano, sorted((one.request_id, one.status, one.cost_nano) for one in traces)


async def test_what_was_settled_is_sent_and_what_was_held_is_charged(database: Database, tmp_path: Path) -> None:
    """The process is a real one, and is killed."""
    program = (
        "import asyncio, sys; from pathlib import Path; from ostiary.ledger.spool import Spool\n"
        "from tests.contract.test_spool import _event, _held\n"
        "async def main():\n"
        "    spool = Spool(Path(sys.argv[1]), 'spool_dead', 'normal')\n"
        "    one, done = spool.hold(_held(1)); await done\n"
        "    two, done = spool.hold(_held(2)); await done\n"
        "    await spool.settle(one, _event(1))\n"
        "    print('ready', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout
    assert (await child.stdout.readline()).strip() == b"ready"
    await _leased(database, "spool_dead", 2_000)
    assert await adopt(database, tmp_path, SetClock()) == 0, "its process lives"
    child.send_signal(signal.SIGKILL)
    await child.wait()
    assert await adopt(database, tmp_path, SetClock()) == 1
    assert await _books(database) == (600, 0, [("r1", "ok", 100), ("r2", "unknown", 500)])
    assert _files(tmp_path) == set()
    assert await adopt(database, tmp_path, SetClock()) == 0


async def _abandoned(folder: Path, sync: Sync = "normal") -> Path:
    """A spool as a killed process leaves it: r1 and r2 settled, r3 held."""
    spool = Spool(folder, "spool_dead", sync)
    for number in (1, 2):
        hold, committed = spool.hold(_held(number))
        await committed
        await spool.settle(hold, _event(number))
    await spool.hold(_held(3))[1]
    await spool.close(remove=False)
    return folder / "spool_dead.000001.spool"


async def test_adopting_twice_counts_once(database: Database, tmp_path: Path) -> None:
    """The adopter dies between the commit and the deletion of the file."""
    path = await _abandoned(tmp_path)
    kept = path.read_bytes()
    await _leased(database, "spool_dead", 2_000)
    await adopt(database, tmp_path, SetClock())
    before = await _books(database)
    path.write_bytes(kept)
    await adopt(database, tmp_path, SetClock())
    assert await _books(database) == before
    assert before[:2] == (700, 0)


async def test_it_is_adopted_while_others_charge_the_same_accounts(database: Database, tmp_path: Path) -> None:
    """Who adopts has the accounts of what it sends, and those of other leases only after it has let go of them."""
    await _abandoned(tmp_path)
    await _leased(database, "spool_dead", 2_000)
    unused = AccountKey("agent_key", "key_2", "2026-11")
    async with database.transaction() as tx:
        assert await store.change_lease(tx, "spool_dead", await store.lock_account(tx, unused), 0, 500)
    async with database.transaction() as tx:
        await charge_all(tx, "spool_other", {unused: Cost(1)})
        adopting = asyncio.ensure_future(adopt(database, tmp_path, SetClock()))
        await asyncio.sleep(0.5)
        assert not adopting.done()
        await charge_all(tx, "spool_other", {AccountKey("organization", "orgn_1", "2026-11"): Cost(1)})
    assert await adopting == 1
    assert (await _books(database))[:2] == (700, 0)
    async with database.read() as tx:
        [left] = await store.list_accounts(tx, "agent_key", "key_2")
    assert (left.spent_nano, left.leased_nano) == (1, 0)


@pytest.mark.parametrize("tail", ["frame", "rubbish"])
async def test_a_torn_tail_loses_only_what_was_never_committed(database: Database, tmp_path: Path, tail: str) -> None:
    path = await _abandoned(tmp_path)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(frame(SETTLEMENT, 3, pack(_event(3)))[:-1] if tail == "frame" else os.urandom(4_096))
    assert path.read_bytes() != whole
    await _leased(database, "spool_dead", 2_000)
    await adopt(database, tmp_path, SetClock())
    assert (await _books(database))[0] == 700


async def test_a_damaged_file_charges_its_lease_and_is_kept(database: Database, tmp_path: Path) -> None:
    path = await _abandoned(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"r2") + 40] ^= 1
    path.write_bytes(data)
    await _leased(database, "spool_dead", 2_000)
    await adopt(database, tmp_path, SetClock())
    spent, leased, events = await _books(database)
    assert (spent, leased) == (2_000, 0)
    assert events == [("r1", "ok", 100), ("r2", "unknown", 500), ("r3", "unknown", 500)]
    assert path.with_suffix(".damaged").exists()
    assert find_orphans(tmp_path) == []


async def test_a_file_of_rubbish_is_survived(database: Database, tmp_path: Path) -> None:
    (tmp_path / "spool_dead.000001.spool").write_bytes(os.urandom(8_192))
    await _leased(database, "spool_dead", 2_000)
    assert await adopt(database, tmp_path, SetClock()) == 1
    assert (await _books(database))[:2] == (2_000, 0)


@pytest.mark.parametrize(("sync", "charged"), [("normal", 2_000), ("full", 700)])
async def test_after_a_power_loss_the_rest_of_the_lease_is_charged_unless_all_of_it_was_on_the_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Sync, charged: int
) -> None:
    await _abandoned(tmp_path, sync)
    await _leased(database, "spool_dead", 2_000)
    monkeypatch.setattr("ostiary.ledger.spool.boot_id", lambda: "another boot")
    await adopt(database, tmp_path, SetClock())
    assert (await _books(database))[:2] == (charged, 0)


@contextmanager
def _full_disk(spool: Spool, spare: int = 0) -> Iterator[None]:
    """No file may grow by more than `spare` bytes: the kernel then fails writes, as it does when the disk is full."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    signals = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    largest = max(path.stat().st_size for path in spool.folder.glob("*.spool"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + spare, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, signals)


@pytest.mark.parametrize("spare", [0, 1, 100])
@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_a_full_disk_refuses_holds_and_keeps_settlements_for_later(
    tmp_path: Path, sync: Sync, spare: int
) -> None:
    spool = Spool(tmp_path, "spool_full", sync)
    kept, committed = spool.hold(_held(1))
    await committed
    with _full_disk(spool, spare):
        with pytest.raises(SpoolFull) as refused:
            for number in range(2, 200):
                await spool.hold(_held(number))[1]
        await spool.settle(kept, _event(1))
        assert not spool.unsent
        assert spool.late == 1
        spool.retry_late()
        assert not await spool.commit_late()
    assert isinstance(refused.value, Refusal)
    assert refused.value.status == 503
    assert await spool.commit_late()
    assert [event.request_id for _, event in spool.unsent] == ["r1"]
    await spool.close(remove=False)
    (orphan,) = find_orphans(tmp_path)
    left = orphan.read()
    assert ([event.request_id for event in left.settled], left.held, left.damaged) == (["r1"], [], 0)
    orphan.unlock()


@pytest.mark.parametrize("room", [0, 20])
@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_a_file_that_cannot_be_begun_on_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Sync, room: int
) -> None:
    """Every call tries again: a file or a descriptor each time would in the end leave the process without any."""
    spool = Spool(tmp_path, "spool_full", sync)
    kept, committed = spool.hold(_held(1))
    await committed
    monkeypatch.setattr("ostiary.ledger.spool._SEGMENT_BYTES", 1)
    before = _files(tmp_path), spool.size, _descriptors(tmp_path)
    with _full_disk(spool, room - spool.size):
        for number in range(2, 30):
            with pytest.raises(SpoolFull):
                await spool.hold(_held(number))[1]
        await spool.settle(kept, _event(1))
        assert spool.late == 1
        assert (_files(tmp_path), spool.size, _descriptors(tmp_path)) == before
    assert await spool.commit_late()
    await spool.hold(_held(30))[1]
    assert len(_files(tmp_path)) == len(before[0]) + 2, "each record begins a file"
    await spool.close(remove=False)
    (orphan,) = find_orphans(tmp_path)
    left = orphan.read()
    assert [event.request_id for event in left.settled + left.held] == ["r1", "r30"]
    assert not left.damaged
    orphan.unlock()


def _descriptors(folder: Path) -> int:
    """How many of this process are open on files below: others come and go with what the collector finds."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(link.readlink()).startswith(str(folder))
    return found


async def test_an_answer_given_up_while_waiting_is_settled_all_the_same(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "spool_x", "normal")
    hold, committed = spool.hold(_held(1))
    await committed
    waiting = asyncio.ensure_future(spool.settle(hold, _event(1)))
    waiting.cancel()
    async with asyncio.timeout(20):
        while not spool.unsent:  # noqa: ASYNC110 - its thread says nothing to nobody
            await asyncio.sleep(0.01)
    assert len(spool.unsent) == 1
    await spool.close(remove=True)


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_the_writer_closes_with_everything_written_and_the_file_gone(
    database: Database, tmp_path: Path, sync: Sync
) -> None:
    spool = Spool(tmp_path, "spool_x", sync)
    await _leased(database, "spool_x", 5_000)
    writer = Writer(database, spool, SetClock())
    for number in range(600):
        hold, committed = spool.hold(_held(number))
        await committed
        await spool.settle(hold, _event(number, cost=1))
    await writer.close()
    spent, leased, events = await _books(database)
    assert (spent, leased, len(events)) == (600, 0, 600)
    assert _files(tmp_path) == set()


async def test_a_writer_that_is_stopped_in_the_middle_can_be_closed_at_once(database: Database, tmp_path: Path) -> None:
    spool = Spool(tmp_path, "spool_x", "normal")
    await _leased(database, "spool_x", 5_000)
    writer = Writer(database, spool, SetClock())
    for number in range(3_000):
        settled = spool.settle(spool.hold(_held(number))[0], _event(number, cost=1))
    await settled
    stopped = []
    for step in range(8):
        stopped.append(asyncio.ensure_future(writer.run()))
        await asyncio.sleep(step / 500)
        stopped[-1].cancel()
    await writer.close()
    assert (await _books(database))[0] == 3_000
    assert _files(tmp_path) == set()


async def test_captured_contents_are_written_few_at_a_time(database: Database, tmp_path: Path) -> None:
    """While a batch is written nobody else can write to SQLite."""
    spool = Spool(tmp_path, "spool_x", "normal")
    writer = Writer(database, spool, SetClock())
    for number in range(5):
        event = _event(number, cost=1)
        event.content = "x" * 7_000_000 if number else "x" * 20_000_000
        await spool.settle(spool.hold(_held(number))[0], event)
    assert [await writer.flush_once() for _ in range(4)] == [1, 2, 2, 0]
    assert len((await _books(database))[2]) == 5
    await writer.close()


async def test_a_long_load_leaves_few_files(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole batches one after another: what was sent goes as fast as it comes, but for the newest."""
    monkeypatch.setattr("ostiary.ledger.spool._KEEP", 100)
    monkeypatch.setattr("ostiary.ledger.spool._SEGMENT_BYTES", 50_000)
    spool = Spool(tmp_path, "spool_x", "normal")
    await _leased(database, "spool_x", 9_000)
    long_one, _ = spool.hold(_held(999_999))
    writer = Writer(database, spool, SetClock())
    for batch in range(4):
        for number in range(1_000):
            settled = spool.settle(spool.hold(_held(batch * 1_000 + number))[0], _event(batch * 1_000 + number, cost=1))
        await settled
        await writer.flush()
    assert spool.size < 4 * 50_000, "the newest hundred, and the file with the long call's hold"
    assert "spool_x.000001.spool" in _files(tmp_path)
    await spool.settle(long_one, _event(999_999, cost=1))
    await writer.close()
    assert (await _books(database))[0] == 4_001
    assert _files(tmp_path) == set()


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_a_settlement_the_disk_never_took_is_not_deleted_with_the_file(
    database: Database, tmp_path: Path, sync: Sync
) -> None:
    """Stopped while the disk is full: the hold stands in the file, and is charged by whoever adopts it."""
    spool = Spool(tmp_path, "spool_x", sync)
    await _leased(database, "spool_x", 5_000)
    hold, committed = spool.hold(_held(1))
    await committed
    with _full_disk(spool):
        await spool.settle(hold, _event(1))
        assert not await spool.commit_late()
        await spool.close(remove=False)
    await adopt(database, tmp_path, SetClock())
    assert await _books(database) == (500, 0, [("r1", "unknown", 500)])


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_a_call_that_is_open_when_the_writer_closes_is_not_deleted_with_the_file(
    database: Database, tmp_path: Path, sync: Sync
) -> None:
    """Its process ends before it does: it is charged by whoever adopts the file."""
    spool = Spool(tmp_path, "spool_x", sync)
    await _leased(database, "spool_x", 5_000)
    writer = Writer(database, spool, SetClock())
    held = [spool.hold(_held(number)) for number in (1, 2)]
    for _, committed in held:
        await committed
    await spool.settle(held[0][0], _event(1))
    await writer.close()
    assert await adopt(database, tmp_path, SetClock()) == 1
    assert await _books(database) == (600, 0, [("r1", "ok", 100), ("r2", "unknown", 500)])
    assert _files(tmp_path) == set()


async def test_a_file_with_what_the_loop_has_not_heard_of_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has gone on to the next file while the loop stood still: what it put into the last one counts."""
    monkeypatch.setattr("ostiary.ledger.spool._KEEP", 0)
    monkeypatch.setattr("ostiary.ledger.spool._SEGMENT_BYTES", 1)
    spool = Spool(tmp_path, "spool_x", "full")
    files = len(_files(tmp_path))

    def in_a_file_of_its_own(change: Awaitable[None]) -> Awaitable[None]:
        nonlocal files
        files += 1
        until(lambda: len(_files(tmp_path)) == files, "the thread to begin a file for it")
        return change

    holds = [in_a_file_of_its_own(spool.hold(_held(number))[1]) for number in (1, 2)]
    settled = [in_a_file_of_its_own(spool.settle(number, _event(number))) for number in (1, 2)]
    spool.mark_sent(0)
    await asyncio.gather(*holds, *settled)
    await spool.close(remove=False)
    (orphan,) = find_orphans(tmp_path)
    assert [event.request_id for event in orphan.read().settled] == ["r1", "r2"]
    orphan.unlock()


async def test_what_is_settled_after_the_end_is_written_to_no_other_file(tmp_path: Path) -> None:
    """The number of the file that was closed is the next one's that is opened."""
    spool = Spool(tmp_path, "spool_x", "normal")
    hold = spool.hold(_held(1))[0]
    await spool.close(remove=False)
    with (tmp_path / "other").open("wb"), (tmp_path / "another").open("wb"):
        await spool.settle(hold, _event(1))
        with pytest.raises(SpoolFull):
            spool.hold(_held(2))
    assert [(tmp_path / name).read_bytes() for name in ("other", "another")] == [b"", b""]


async def test_a_report_does_not_wait_for_calls_that_settle_meanwhile(database: Database, tmp_path: Path) -> None:
    spool = Spool(tmp_path, "spool_x", "normal")
    await _leased(database, "spool_x", 9_000)
    writer = Writer(database, spool, SetClock())
    numbers = iter(range(1_000_000))

    async def load() -> None:
        while True:
            number = next(numbers)
            await spool.settle(spool.hold(_held(number))[0], _event(number, cost=0))
            await asyncio.sleep(0)

    loading = asyncio.ensure_future(load())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        await writer.flush()
    loading.cancel()
    await asyncio.wait([loading])
    await writer.close()
