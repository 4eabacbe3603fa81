"""`ostiary serve` on a machine whose wall clock is set while it runs: calendar time jumps, measured time goes on.

Run by `tests.acceptance.cluster` as `python -m tests.jumpy_entry --port N`; CLOCK_FILE says by how many seconds the
calendar is ahead of the machine's. `tests.clock_entry` is for waiting in no time; this one is for being set.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import uvloop

from ostiary.app import serve
from ostiary.clock import SystemClock
from ostiary.settings import Settings


class JumpyClock(SystemClock):
    """The machine's clock but for the date, which a file moves to and fro."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> int:
        """Milliseconds since the epoch, UTC."""
        return super().now() + int(float(self._file.read_text()) * 1000)


def main() -> None:
    """What `ostiary serve` does, but for the clock."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    uvloop.run(serve(Settings.load(port=given.port), JumpyClock(Path(os.environ["CLOCK_FILE"]))))


if __name__ == "__main__":
    main()
