"""A body that is too large to hold: written once to where memory or disk keeps it, sent any number of times."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Final

IN_MEMORY: Final = 262_144
"""Bytes up to which there is no file."""


class Upload:
    """Bytes that come in a stream and are read again from any place.

    The file has no name from the moment it is made, so it is gone with this process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is where the file would be; it is made when it is needed."""
        self._folder = folder
        self._head = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add to the end. Raises OSError when the disk is full."""
        self.size += len(data)
        if self._file is None:
            if self.size <= IN_MEMORY:
                self._head += data
                return
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - closed by `close`
            self._write_out(self._head)
            self._head = bytearray()
        self._write_out(data)

    def read(self, start: int, count: int) -> bytes:
        """Bytes from a place; fewer at the end."""
        if self._file is None:
            return bytes(self._head[start : start + count])
        return os.pread(self._file.fileno(), count, start)

    @property
    def is_on_disk(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def close(self) -> None:
        """Forget it all. Can be said twice."""
        file, self._file = self._file, None
        self._head = bytearray()
        if file is not None:
            file.close()

    def _write_out(self, data: bytes | bytearray) -> None:
        file, left = self._file, memoryview(data)
        while left and file is not None:
            left = left[file.write(left) :]


class UploadedBody:
    """What is sent of an upload: all of it, with some bytes put in at one place."""

    def __init__(self, upload: Upload, at: int, put_in: bytes, content_type: str) -> None:
        self.content_type = content_type
        self._upload = upload
        self._at = at
        self._put_in = put_in

    def __len__(self) -> int:
        return self._upload.size + len(self._put_in)

    def reader(self) -> Reader:
        """Reads it from its beginning."""
        return Reader(self)

    def read(self, start: int, count: int) -> bytes:
        """Bytes from a place; at least one where there is one."""
        if start < self._at:
            return self._upload.read(start, min(count, self._at - start))
        behind = start - self._at - len(self._put_in)
        if behind < 0:
            return self._put_in[behind:][:count]
        return self._upload.read(self._at + behind, count)


class Reader:
    """One way through a body."""

    def __init__(self, body: UploadedBody) -> None:
        self._body = body
        self._place = 0

    @property
    def is_done(self) -> bool:
        """Whether all was taken."""
        return self._place >= len(self._body)

    def take(self, count: int) -> bytes:
        """The next bytes, at most so many."""
        piece = self._body.read(self._place, count)
        self._place = self._place + len(piece) if piece else len(self._body)
        return piece


Body = bytes | UploadedBody
"""What a request carries."""
