"""A local journal that knows of every call before it is made, so that none is lost to kill -9."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from ostiary.errors import Refusal
from ostiary.ledger import journal
from ostiary.ledger.events import Event, pack, unpack
from ostiary.ledger.journal import HOLD, SETTLEMENT, STATE, Segment, frame

Sync = Literal["normal", "full"]

_SUFFIX: Final = ".spool"
_KEEP = 20_000
"""Sent settlements that stay in the files: whoever adopts them sends them again, and so mends a database that a
failover had made forget its newest commits."""
_SEGMENT_BYTES = 8 * 1024 * 1024
_MOST_UNSENT = 200_000
"""Settlements the main database has not taken yet; beyond, new calls are refused rather than memory filled."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Done:
    """Awaited, it is over at once: what a commit that needs no waiting returns."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE: Final = _Done()


class SpoolFull(Refusal):
    """The hold can't be kept, so the call is not made: 503."""

    def __init__(self) -> None:
        super().__init__("service_unavailable", "The call could not be written down, so it was not made. Try again.")


@dataclass(slots=True, eq=False)
class _Chapter:
    """A file of the journal, with what decides when it may go: open holds and the last settlement in it."""

    segment: Segment
    open: int = 0
    last: int = 0
    written: int = 0
    """Batches that the thread has put into it, …"""
    known: int = 0
    """… and how many of them have come to be known on the loop: until then `open` and `last` do not count them."""


@dataclass(slots=True, eq=False)
class _Op:
    """One change on its way through the thread; `event` is a settlement's, None for a hold."""

    hold_id: int
    data: bytes
    event: Event | None
    done: asyncio.Future[None]


class Spool:
    """The journal of this process.

    With `normal` a record is a write to the page cache, made at once on the loop: it survives the death of the process
    and costs less than handing it to anybody. With `full` it waits for the disk, so a thread makes it, all that has
    gathered since the last in one go.
    """

    def __init__(self, folder: Path, owner: str, sync: Sync) -> None:
        """Opens the first file of `owner` under a lock that lives as long as the process."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.owner = owner
        self.unsent: deque[tuple[int, Event]] = deque()
        self._folder = folder
        self._sync = sync
        self._lock = _lock(folder, owner)
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._files = itertools.count(1)
        self._seq = 0
        self._late: list[tuple[int, Event]] = []
        self._retried: list[Awaitable[None]] = []
        self._holds: dict[int, _Chapter] = {}
        self._chapters: list[_Chapter] = []
        self._chapter = self._open_chapter()
        self._queue: queue.SimpleQueue[_Op | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True) if sync == "full" else None
        if self._thread is not None:
            self._thread.start()

    @property
    def folder(self) -> Path:
        """Where the spools of this data directory lie."""
        return self._folder

    @property
    def open_holds(self) -> int:
        """Calls that are held and not settled."""
        return len(self._holds)

    @property
    def settled(self) -> int:
        """Settlements until now, those included that the disk has not taken yet."""
        return self._seq + len(self._late)

    @property
    def late(self) -> int:
        """Settlements that the disk has not taken yet."""
        return len(self._late)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(chapter.segment.size for chapter in self._chapters)

    def hold(self, event: Event) -> tuple[int, Awaitable[None]]:
        """Have a hold committed; await it before the upstream call. Raises SpoolFull, at once or awaited.

        The id is good at once, so that whoever is cancelled while waiting can still settle.
        """
        hold_id = next(self._ids)
        if len(self.unsent) >= _MOST_UNSENT:
            raise SpoolFull
        data = frame(HOLD, hold_id, pack(event))
        if self._thread is not None:
            return hold_id, self._put(_Op(hold_id, data, None, self._loop.create_future()))
        try:
            chapter = self._append(data)
        except OSError:
            raise SpoolFull from None
        chapter.open += 1
        self._holds[hold_id] = chapter
        return hold_id, _DONE

    def settle(self, hold_id: int, event: Event) -> Awaitable[None]:
        """Have a settlement committed; await it before the last byte of the answer.

        It is under way when this returns, whatever becomes of the caller. When the disk takes nothing now (it is full)
        the durable hold stands, and the settlement is tried again by `retry_late`: the answer need not fail for it.
        """
        data = frame(SETTLEMENT, hold_id, pack(event))
        if self._thread is not None:
            return self._put(_Op(hold_id, data, event, self._loop.create_future()))
        try:
            chapter = self._append(data)
        except OSError:
            self._late.append((hold_id, event))
        else:
            self._settled(chapter, hold_id, event)
        return _DONE

    def retry_late(self) -> int:
        """Try again what could not be committed; the answer is how many there were."""
        late, self._late = self._late, []
        self._retried = [self.settle(hold_id, event) for hold_id, event in late]
        return len(late)

    async def commit_late(self) -> bool:
        """Try once more what could not be committed; False when the disk still takes nothing."""
        for retried in self._retried:
            await retried
        self.retry_late()
        for retried in self._retried:
            await retried
        return not self._late

    def mark_sent(self, seq: int) -> None:
        """The main database has every settlement up to `seq`: files that hold only older ones may go."""
        for chapter in self._chapters[:-1]:
            is_known = chapter.known == chapter.written
            if is_known and not chapter.open and chapter.last <= seq - _KEEP:
                chapter.segment.close()
                chapter.segment.path.unlink(missing_ok=True)
                self._chapters.remove(chapter)

    async def close(self, *, remove: bool) -> None:
        """Commit the rest and finish; `remove` deletes the files if everything in them has been sent by now."""
        self.retry_late()
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
        for chapter in self._chapters:
            chapter.segment.close()
        if remove and not self._holds and not self.unsent:
            _delete(self._folder, self.owner)
        self._lock.close()

    # ---- one file after another --------------------------------------------------------------------------------

    def _open_chapter(self) -> _Chapter:
        segment = Segment(self._folder / f"{self.owner}.{next(self._files):06}{_SUFFIX}")
        try:
            segment.append(frame(STATE, 0, msgspec.msgpack.encode((boot_id(), self._sync))))
        except OSError:
            segment.close()
            segment.path.unlink(missing_ok=True)
            raise
        chapter = _Chapter(segment)
        self._chapters.append(chapter)
        return chapter

    def _append(self, data: bytes) -> _Chapter:
        chapter = self._chapter
        if chapter.segment.size >= _SEGMENT_BYTES:
            chapter = self._chapter = self._open_chapter()
        chapter.segment.append(data)
        return chapter

    def _settled(self, chapter: _Chapter, hold_id: int, event: Event) -> None:
        self._seq += 1
        chapter.last = self._seq
        self.unsent.append((self._seq, event))
        held_in = self._holds.pop(hold_id, None)
        if held_in is not None:
            held_in.open -= 1

    # ---- with `full`: the thread -------------------------------------------------------------------------------

    def _put(self, op: _Op) -> asyncio.Future[None]:
        self._queue.put(op)
        return op.done

    def _work(self) -> None:
        """Commit all that has gathered since the last time; until told to stop."""
        is_over = False
        while not is_over:
            batch: list[_Op] = []
            op = self._queue.get()
            while op is not None:
                batch.append(op)
                if self._queue.empty():
                    break
                op = self._queue.get()
            is_over = op is None
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[_Op]) -> None:
        chapter: _Chapter | None = None
        try:
            chapter = self._append(b"".join([op.data for op in batch]))
            chapter.segment.sync()
            chapter.written += 1
        except OSError:
            chapter = None
        self._loop.call_soon_threadsafe(self._committed, batch, chapter)

    def _committed(self, batch: list[_Op], chapter: _Chapter | None) -> None:
        if chapter is not None:
            chapter.known += 1
        for op in batch:
            if op.event is None and chapter is not None:
                chapter.open += 1
                self._holds[op.hold_id] = chapter
            elif op.event is not None and chapter is not None:
                self._settled(chapter, op.hold_id, op.event)
            elif op.event is not None:
                self._late.append((op.hold_id, op.event))
            if op.done.done():
                continue
            if op.event is None and chapter is None:
                op.done.set_exception(SpoolFull())
            else:
                op.done.set_result(None)


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

    def __init__(self, folder: Path, owner: str, lock: IO[bytes]) -> None:
        """Made by `find_orphans` only."""
        self._folder = folder
        self._owner = owner
        self._lock = lock

    def read(self) -> Leftover:
        """Everything in the files. What can't be read is counted, not guessed at."""
        holds: dict[int, Event] = {}
        settled: list[Event] = []
        damaged = 0
        lost_power = False
        for path in _paths(self._folder, self._owner):
            reading = journal.read(path)
            damaged += reading.is_damaged
            for kind, number, payload in reading.records:
                try:
                    if kind == STATE:
                        boot, sync = msgspec.msgpack.decode(payload, type=tuple[str, str])
                        lost_power = lost_power or (sync != "full" and boot != boot_id())
                    elif kind == HOLD:
                        holds[number] = unpack(payload)
                    else:
                        settled.append(unpack(payload))
                        holds.pop(number, None)
                except msgspec.DecodeError:
                    damaged += 1
        return Leftover(self._owner, settled, list(holds.values()), damaged, lost_power or bool(damaged))

    def finish(self) -> None:
        """Delete the files: the ledger has them."""
        _delete(self._folder, self._owner)

    def keep(self) -> None:
        """Leave damaged files beside the others for a person to look at; they aren't adopted again."""
        for path in _paths(self._folder, self._owner):
            path.rename(path.with_suffix(".damaged"))
        _delete(self._folder, self._owner)

    def unlock(self) -> None:
        """Done with it, or it is left for a later look because the ledger could not take it."""
        self._lock.close()


def find_orphans(folder: Path) -> list[Orphan]:
    """Every spool in the folder whose process is gone, locked now so that nobody else takes it."""
    orphans = []
    for owner in sorted({path.name.partition(".")[0] for path in folder.glob(f"*{_SUFFIX}")}):
        try:
            lock = _lock(folder, owner)
        except BlockingIOError:
            continue  # its process lives
        if _paths(folder, owner):
            orphans.append(Orphan(folder, owner, lock))
        else:  # somebody adopted it between our look and our lock
            _delete(folder, owner)
            lock.close()
    return orphans


def boot_id() -> str:
    """The kernel's name for this boot; empty where there is none, which counts as the same boot."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _paths(folder: Path, owner: str) -> list[Path]:
    return sorted(folder.glob(f"{owner}.*{_SUFFIX}"))


def _lock(folder: Path, owner: str) -> IO[bytes]:
    """The lock of a spool; raises BlockingIOError when its process lives."""
    file = (folder / f"{owner}.lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


def _delete(folder: Path, owner: str) -> None:
    for path in _paths(folder, owner):
        path.unlink(missing_ok=True)
    (folder / f"{owner}.lock").unlink(missing_ok=True)


def free_name() -> str:
    """A random name for a spool that is about to start."""
    return f"spool_{os.urandom(10).hex()}"
