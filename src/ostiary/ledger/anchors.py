"""What the audit log was like an hour ago, in a file outside the database: who rewrites the one has not the other."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import msgspec

from ostiary.clock import Clock, iso
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import audit_store as store
from ostiary.ledger.audit_store import Last
from ostiary.ledger.chain import Key
from ostiary.logs import get

FILE: Final = "audit-anchors.jsonl"
"""In the data folder of each gateway."""

_MAC: Final = b',"mac":"'
_END: Final = b'"}'
_LONGEST_LINE: Final = 4_096
_SHRUNK: Final = "The audit log is shorter than when it was last anchored. 'ostiary audit verify' says more."


@dataclass(frozen=True, slots=True)
class Anchor:
    """The newest row of a chain at a time. Its number is also how many rows the chain had."""

    at: int
    gateway: str
    chain: str
    number: int
    seq: int
    hash: str


@dataclass(slots=True)
class Anchors:
    """What anchor files hold: for each chain the newest anchor of each file; older ones are bound by it."""

    newest: dict[str, list[tuple[Anchor, Path]]] = field(default_factory=lambda: defaultdict(list))
    lines: int = 0
    at: int | None = None
    faults: list[str] = field(default_factory=list)


async def anchor(database: Database, path: Path, gateway: str, at: int) -> int:
    """Append the end of every chain that has grown since this file's last line; the answer is how many.

    Raises Refusal when the log has become shorter, OSError when the file cannot be written.
    """
    if database.chain_key is None:
        raise RuntimeError("the vault is not open")
    key = Key(database.chain_key)
    last = await asyncio.to_thread(_last_line, path)
    async with database.read() as tx:
        grown = await store.list_last(tx, last.seq if last else 0)
        end = await store.find_end(tx)
    if last and (end.head is None or end.head.seq < last.seq):
        raise Refusal("conflict", _SHRUNK)
    if grown:
        await asyncio.to_thread(_append, path, key, gateway, at, grown)
    return len(grown)


async def at_stop(anchor: Callable[[int], Awaitable[int]], clock: Clock) -> None:
    """Anchor what was done since the last hour. Where that fails, the next start does it."""
    try:
        await anchor(clock.now())
    except (Refusal, OSError) as error:
        get("audit").warning("audit.not_anchored", reason=str(error))


def load(paths: Sequence[Path], key: Key) -> Anchors:
    """Read files line by line. What was not written by `anchor` under this key, or was taken out, is a fault."""
    found = Anchors()
    for path in paths:
        newest: dict[str, Anchor] = {}
        previous = ""
        for number, line in enumerate(_lines(path), 1):
            read = _parse(line)
            if read is None or key.anchor(previous, _body(line)) != (mac := _mac_of(line)):
                found.faults.append(f"line {number} of {path} was changed, or the one before it was taken out")
                previous = _mac_of(line)
                continue
            previous = mac
            found.lines += 1
            found.at = max(found.at or 0, read.at)
            if read.chain not in newest or newest[read.chain].number <= read.number:
                newest[read.chain] = read
        for chain, one in newest.items():
            found.newest[chain].append((one, path))
    return found


def set_aside(path: Path, at: int) -> Path | None:
    """Begin a new file, as after the restore of a backup: what was anchored since is no longer in the database."""
    if not path.exists():
        return None
    kept = path.with_name(f"{path.stem}.until-{iso(at).replace(':', '')}{path.suffix}")
    return path.rename(kept)


def _append(path: Path, key: Key, gateway: str, at: int, grown: Sequence[Last]) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # 'ostiary explain' ends as a gateway does, beside one that serves
        previous = _mac_of(_cut_to_last_line(file))
        for one in grown:
            made = Anchor(at, gateway, one.chain, one.number, one.seq, one.hash.hex())
            body = msgspec.json.encode(made)
            previous = key.anchor(previous, body)
            file.write(body[:-1] + _MAC + previous.encode() + _END + b"\n")
        file.flush()
        os.fsync(descriptor)
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _cut_to_last_line(file: IO[bytes]) -> bytes:
    """The last whole line; what stands behind it was cut off by a crash, and goes."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 2 * _LONGEST_LINE)
    file.seek(start)
    whole, _, _ = file.read().rpartition(b"\n")
    end = start + len(whole) + 1 if whole else 0
    file.truncate(end)
    file.seek(end)
    return whole.rpartition(b"\n")[2]


def _last_line(path: Path) -> Anchor | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * _LONGEST_LINE))
            whole, _, _ = file.read().rpartition(b"\n")
    except FileNotFoundError:
        return None
    return _parse(whole.rpartition(b"\n")[2])


def _lines(path: Path) -> Iterator[bytes]:
    """Whole lines; half a line at the end was never written to its end."""
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            if line.endswith(b"\n"):
                yield line[:-1]
            elif len(line) == _LONGEST_LINE:
                yield b""


def _body(line: bytes) -> bytes:
    return line.rpartition(_MAC)[0] + b"}"


def _mac_of(line: bytes) -> str:
    return line.rpartition(_MAC)[2].removesuffix(_END).decode("latin-1")


def _parse(line: bytes) -> Anchor | None:
    try:
        return msgspec.json.decode(_body(line), type=Anchor)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
