"""Files of framed records: what was appended before kill -9 is read again, and damage is told from a torn end."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

STATE, HOLD, SETTLEMENT = 1, 2, 3
_KINDS: Final = (STATE, HOLD, SETTLEMENT)
_HEAD: Final = struct.Struct("<IBQI")
"""Bytes of the payload, kind, number, and the CRC-32 of all of that and the payload."""
_FACTS: Final = struct.Struct("<IBQ")
_LONGEST: Final = 64 * 1024 * 1024


class Record(NamedTuple):
    """One record: its kind, its number, what it carries."""

    kind: int
    number: int
    payload: bytes


def frame(kind: int, number: int, payload: bytes) -> bytes:
    """A record as it stands in the file."""
    facts = _FACTS.pack(len(payload), kind, number)
    return b"%b%b%b" % (facts, zlib.crc32(payload, zlib.crc32(facts)).to_bytes(4, "little"), payload)


class Segment:
    """One file that is being appended to. What `append` returned from survives the death of the process."""

    def __init__(self, path: Path) -> None:
        """Makes a new file, for its owner's eyes only."""
        self.path = path
        self.size = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, frames: bytes) -> None:
        """Write whole frames; raises OSError with the file as it was when they don't fit on the disk."""
        try:
            written = os.write(self._file, frames)
        except OSError:
            self._cut_back()
            raise
        if written != len(frames):
            self._cut_back()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def sync(self) -> None:
        """Wait until the disk has it."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Append no more: the number may be another file's by the time that somebody tries."""
        os.close(self._file)
        self._file = -1

    def _cut_back(self) -> None:
        """A half frame in the middle would hide what comes after it."""
        os.ftruncate(self._file, self.size)


@dataclass(slots=True)
class Reading:
    """What a file yielded: every record that can be read, and whether any cannot."""

    records: list[Record] = field(default_factory=list)
    is_damaged: bool = False


def read(path: Path) -> Reading:
    """Read a file back. A torn end is no damage: whoever wrote it was never told that it stands."""
    data = path.read_bytes()
    reading = Reading()
    start = 0
    while True:
        found = _frame_at(data, start)
        if found is not None:
            reading.records.append(found)
            start += _HEAD.size + len(found.payload)
            continue
        again = next((at for at in range(start + 1, len(data) - _HEAD.size) if _frame_at(data, at)), None)
        if again is None:
            reading.is_damaged |= _is_spoilt(data, start)
            return reading
        reading.is_damaged = True
        start = again


def _frame_at(data: bytes, start: int) -> Record | None:
    payload_at = start + _HEAD.size
    if payload_at > len(data):
        return None
    length, kind, number, crc = _HEAD.unpack_from(data, start)
    if kind not in _KINDS or length > min(len(data) - payload_at, _LONGEST):
        return None
    payload = data[payload_at : payload_at + length]
    facts = data[start : start + _FACTS.size]
    return Record(kind, number, payload) if zlib.crc32(payload, zlib.crc32(facts)) == crc else None


def _is_spoilt(data: bytes, start: int) -> bool:
    """Whether the end of a file is not merely torn: it is all there and wrong, or the file never was a journal.

    A write that was cut off is the last there is, and its frame says that it is longer than what is left.
    """
    left = len(data) - start - _HEAD.size
    if left < 0:
        return False
    length, kind, _, _ = _HEAD.unpack_from(data, start)
    return start == 0 or (kind in _KINDS and length <= left)
