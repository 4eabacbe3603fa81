"""`ostiary serve` under a clock that tests move: the product itself has no setting for its time.

Run by `gateways(clock=True)` as `python -m tests.clock_entry --port N`; CLOCK_FILE names the file that says how many
seconds the clock is ahead of the machine's.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvloop

from ostiary.app import serve
from ostiary.clock import SystemClock
from ostiary.errors import CannotStart
from ostiary.settings import Settings

_LOOK_S = 0.05


class MovedClock:
    """The machine's clock, so far ahead as a file says; who sleeps on it wakes up when it is moved past their time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._machine = SystemClock()
        self._latest = 0.0

    def now(self) -> int:
        """Milliseconds since the epoch, UTC."""
        return self._machine.now() + int(self._ahead() * 1000)

    def monotonic(self) -> float:
        """Seconds that never run backwards, even when the clock is set back."""
        self._latest = max(self._latest, self._machine.monotonic() + self._ahead())
        return self._latest

    async def sleep(self, seconds: float) -> None:
        """Wait, looking again and again whether the clock was moved."""
        end = self.monotonic() + seconds
        while (left := end - self.monotonic()) > 0:
            await self._machine.sleep(min(left, _LOOK_S))
        if seconds <= 0:
            await self._machine.sleep(0)

    def _ahead(self) -> float:
        try:
            return float(self._file.read_text())
        except FileNotFoundError:
            return 0.0


def main() -> None:
    """What `ostiary serve` does, but for the clock."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--host")
    given = parser.parse_args()
    try:
        settings = Settings.load(port=given.port, host=given.host)
        uvloop.run(serve(settings, MovedClock(Path(os.environ["CLOCK_FILE"]))))
    except CannotStart as refused:
        print(f"ostiary: {refused}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
