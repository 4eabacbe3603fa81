"""A local file that knows of every call before it is made, so that none is lost to kill -9."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import msgspec

from ostiary.errors import Refusal
from ostiary.ledger.events import Event, pack, unpack

Sync = Literal["normal", "full"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (id INTEGER PRIMARY KEY, event BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS settlements (seq INTEGER PRIMARY KEY, event BLOB NOT NULL);
"""
_KEEP = 20_000
"""Sent settlements that stay in the file: whoever adopts it sends them again, and so mends a database that a failover
had made forget its newest commits."""
_PRUNE = 2_000
"""How many old ones go at a time: more than the writer sends in a batch, or the file would grow under load."""
_CHECKPOINT_S = 1.0
_MANY_OPEN = 8
_VERY_MANY_OPEN = 32
_GATHER_S = 0.002
_MOST_UNSENT = 200_000
"""Settlements the main database has not taken yet; beyond, new calls are refused rather than memory filled."""
_DAMAGED = "damaged"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class _Op:
    """One change to the file: a hold to add, a hold to end, a settlement to add."""

    hold_id: int
    hold: bytes | None
    settlement: bytes | None
    event: Event | None
    done: asyncio.Future[None] | None


_Work = list[_Op] | Callable[[sqlite3.Connection], object]


class SpoolFull(Refusal):
    """The hold can't be kept, so the call is not made: 503."""

    def __init__(self) -> None:
        super().__init__("service_unavailable", "The call could not be written down, so it was not made. Try again.")


class Spool:
    """The file of this process; whatever gathers in one turn of the loop is one commit.

    With `normal`, a commit is a write to the page cache and is made on the loop itself: handing it to a thread costs
    more than making it. With `full`, it waits for the disk, so a thread makes it. Checkpoints are always the thread's.
    """

    def __init__(self, folder: Path, owner: str, sync: Sync) -> None:
        """Opens `folder/owner.spool` under a lock that lives as long as the process."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.owner = owner
        self.path = folder / f"{owner}.spool"
        self.unsent: deque[tuple[int, Event]] = deque()
        self._lock = _lock(self.path)
        self._db = _connect(self.path, sync)
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT INTO state VALUES ('boot', ?), ('sync', ?)", (boot_id(), sync))
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._seq = 0
        self._open = 0
        self._gathered: list[_Op] = []
        self._late: list[_Op] = []
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._is_threaded = sync == "full"
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    # ---- the loop's side -------------------------------------------------------------------------------------

    def hold(self, event: Event) -> tuple[int, asyncio.Future[None]]:
        """Have a hold committed; await the future before the upstream call: it raises SpoolFull if it can't be kept.

        The id is good at once, so that whoever is cancelled while waiting can still settle.
        """
        hold_id = next(self._ids)
        if len(self.unsent) >= _MOST_UNSENT:
            full = self._loop.create_future()
            full.set_exception(SpoolFull())
            return hold_id, full
        self._open += 1
        return hold_id, self._put(_Op(hold_id, pack(event), None, None, None))

    def settle(self, hold_id: int, event: Event) -> asyncio.Future[None]:
        """Have a settlement committed; await the future before the last byte of the answer.

        It is under way when this returns, whatever becomes of the caller. When the file takes nothing now (full disk)
        the durable hold stands, and the settlement is tried again by `retry_late`: the answer need not fail for it.
        """
        self._open -= 1
        return self._put(_Op(hold_id, None, pack(event), event, None))

    def retry_late(self) -> int:
        """Hand over again what could not be committed; the answer is how many there were."""
        late, self._late = self._late, []
        for op in late:
            op.done = None
            self._gather(op)
        return len(late)

    async def commit_late(self) -> bool:
        """Try once more what could not be committed; False when the file still takes nothing."""
        late, self._late = self._late, []
        if late:
            await asyncio.wait([self._put(op) for op in late])
        return not self._late

    def mark_sent(self, seq: int) -> None:
        """The main database has every settlement up to `seq`; old ones are pruned now and then."""

        def mark(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO state VALUES ('sent', ?)", (str(seq),))
            db.execute(
                "DELETE FROM settlements WHERE seq <= ? AND seq IN (SELECT seq FROM settlements ORDER BY seq LIMIT ?)",
                (seq - _KEEP, _PRUNE),
            )

        if self._is_threaded:
            self._queue.put(mark)
        else:
            self._quietly(mark)

    async def close(self, *, remove: bool) -> None:
        """Commit the rest and finish; `remove` deletes the file when everything in it has been sent."""
        self.retry_late()
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._db.close()
        if remove:
            _delete(self.path)
        self._lock.close()

    def _put(self, op: _Op) -> asyncio.Future[None]:
        op.done = self._loop.create_future()
        self._gather(op)
        return op.done

    def _gather(self, op: _Op) -> None:
        """A commit costs nearly the same for one change as for twenty: with many calls open, wait for the next ones."""
        if not self._gathered:
            if self._open < _MANY_OPEN:
                self._loop.call_soon(self._hand_over)
            else:
                self._loop.call_later(_GATHER_S if self._open < _VERY_MANY_OPEN else 2 * _GATHER_S, self._hand_over)
        self._gathered.append(op)

    def _hand_over(self) -> None:
        batch, self._gathered = self._gathered, []
        if not batch:
            return
        if self._is_threaded:
            self._queue.put(batch)
        else:
            self._committed(batch, self._commit(batch))

    def _committed(self, batch: list[_Op], error: sqlite3.Error | None) -> None:
        for op in batch:
            if error is None and op.event is not None:
                self._seq += 1
                self.unsent.append((self._seq, op.event))
            if error is not None and op.event is not None:
                self._late.append(op)
            if error is not None and op.event is None:
                self._open -= 1
            if op.done is None or op.done.done():
                continue
            if error is not None and op.event is None:
                op.done.set_exception(SpoolFull())
            else:
                op.done.set_result(None)

    def _commit(self, batch: list[_Op]) -> sqlite3.Error | None:
        db = self._db
        ended = [op for op in batch if op.settlement is not None]
        try:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT INTO holds VALUES (?, ?)", [(op.hold_id, op.hold) for op in batch if op.hold is not None]
            )
            if ended:
                db.executemany("INSERT INTO settlements (event) VALUES (?)", [(op.settlement,) for op in ended])
                db.executemany("DELETE FROM holds WHERE id = ?", [(op.hold_id,) for op in ended])
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                self._quietly(lambda broken: broken.execute("ROLLBACK"))
            return error
        return None

    def _quietly(self, deed: Callable[[sqlite3.Connection], object]) -> None:
        """House-keeping that may fail on a full disk and is tried again with the next."""
        try:
            deed(self._db)
        except sqlite3.Error:
            return

    # ---- the thread's side -----------------------------------------------------------------------------------

    def _work(self) -> None:
        """Commit what is handed over, if anything is, and keep the write-ahead log short; until told to stop."""
        with closing(_connect(self.path, "normal")) as checkpoints:
            while True:
                try:
                    work = self._queue.get(timeout=_CHECKPOINT_S)
                except queue.Empty:
                    self._quietly(lambda _: checkpoints.execute("PRAGMA wal_checkpoint(PASSIVE)"))
                    continue
                if work is None:
                    return
                self._do(work)

    def _do(self, work: _Work) -> None:
        """Take all that has gathered since the last commit into one."""
        batch: list[_Op] = []
        while True:
            if callable(work):
                self._quietly(work)
            else:
                batch += work
            if self._queue.empty():
                break
            more = self._queue.get()
            if more is None:
                self._queue.put(None)  # the last word: heard again when this is done
                break
            work = more
        if batch:
            error = self._commit(batch)
            self._loop.call_soon_threadsafe(self._committed, batch, error)


# ---- what a dead process left ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leftover:
    """The spool of a process that is no more: what it settled, what it still held, and whether it may be whole."""

    owner: str
    settled: list[Event]
    held: list[Event]
    damaged: int
    lost_power: bool


class Orphan:
    """An unlocked spool, now locked by us; `finish` deletes it once the ledger has everything."""

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        """Made by `find_orphans` only."""
        self._path = path
        self._lock = lock

    def read(self) -> Leftover:
        """Everything in the file. Rows that can't be read are counted, not guessed at."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            state = dict(_rows(db, "SELECT name, value FROM state"))
            settled, damaged = _events(_rows(db, "SELECT seq, event FROM settlements ORDER BY seq"))
            held, damaged_holds = _events(_rows(db, "SELECT id, event FROM holds ORDER BY id"))
        damaged += damaged_holds + (_DAMAGED in state)
        lost_power = state.get("sync") != "full" and state.get("boot") != boot_id()
        return Leftover(self._path.stem, settled, held, damaged, lost_power or bool(damaged))

    def finish(self) -> None:
        """Delete the file: the ledger has it."""
        _delete(self._path)

    def keep(self) -> None:
        """Leave a damaged file beside the others for a person to look at; it isn't adopted again."""
        self._path.rename(self._path.with_suffix(".damaged"))
        _delete(self._path)

    def unlock(self) -> None:
        """Done with it, or it is left for a later look because the ledger could not take it."""
        self._lock.close()


def find_orphans(folder: Path) -> list[Orphan]:
    """Every spool in the folder whose process is gone, locked now so that nobody else takes it."""
    orphans = []
    for path in sorted(folder.glob("*.spool")):
        try:
            lock = _lock(path)
        except BlockingIOError:
            continue  # its process lives
        if path.exists():
            orphans.append(Orphan(path, lock))
        else:  # somebody adopted it between our look and our lock
            _delete(path)
            lock.close()
    return orphans


def boot_id() -> str:
    """The kernel's name for this boot; empty where there is none, which counts as the same boot."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _connect(path: Path, sync: Sync) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    path.chmod(0o600)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={'FULL' if sync == 'full' else 'NORMAL'}")
    db.execute("PRAGMA wal_autocheckpoint=0")
    return db


def _rows(db: sqlite3.Connection, query: str) -> list[tuple[str, str]]:
    """What can be read of a table; a damaged file yields what lies before the damage."""
    rows: list[tuple[str, str]] = []
    try:
        rows.extend(db.execute(query))
    except sqlite3.DatabaseError:
        rows.append((_DAMAGED, ""))
    return rows


def _events(rows: list[tuple[str, str]]) -> tuple[list[Event], int]:
    events, damaged = [], 0
    for _, data in rows:
        try:
            events.append(unpack(data))  # type: ignore[arg-type]
        except (msgspec.DecodeError, TypeError):
            damaged += 1
    return events, damaged


def _lock(path: Path) -> IO[bytes]:
    """The lock beside a spool; raises BlockingIOError when its process lives."""
    file = path.with_suffix(".lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


def _delete(path: Path) -> None:
    for suffix in (".spool-wal", ".spool-shm", ".spool", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def free_name() -> str:
    """A random name for a spool that is about to start."""
    return f"spool_{os.urandom(10).hex()}"
