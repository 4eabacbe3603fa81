"""Standard output as commands write it, help pages too: where it takes nothing, one line says so."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

from ostiary.errors import CannotStart

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NUMBER: Final = 1
"""The descriptor of standard output."""


class Unwritten(CannotStart):
    """Nothing can be written to standard output."""


class _File(io.FileIO):
    """What takes nothing any more says so once; who reads no further hears nothing of it: typer sees to that."""

    def write(self, data: ReadableBuffer, /) -> int:
        if not data:  # as typer does to find out what it may write
            return 0
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # what is still in its buffer is not tried again when Python ends
            raise _unwritten(error.strerror) from None


class _Closed(io.RawIOBase):
    """In place of an output that there is none of."""

    def writable(self) -> bool:
        return True

    def write(self, _data: ReadableBuffer, /) -> int:
        raise _unwritten("it is closed")


def take_output() -> None:
    """Have standard output say where it takes nothing, and spell out letters that the terminal does not have."""
    stream: TextIO | None = sys.stdout
    if stream is None:
        sys.stdout = io.TextIOWrapper(_Closed(), "utf-8", "backslashreplace", write_through=True)
        return
    is_line_by_line, is_unbuffered = stream.isatty(), isinstance(stream.buffer, io.FileIO)
    stream.flush()
    raw = _File(_NUMBER, "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),
        stream.encoding,
        "backslashreplace",
        line_buffering=is_line_by_line,
        write_through=is_unbuffered,
    )


def _unwritten(why: str | None) -> Unwritten:
    return Unwritten(f"Nothing can be written to standard output: {why}.")
