"""`ostiary serve` where the extra that sends spans is not installed.

Run by `tests/acceptance/test_spans.py` as `python -m tests.unspanned_entry --port N`.
"""

from __future__ import annotations

import argparse
import sys

import uvloop

from ostiary import app
from ostiary.errors import CannotStart
from ostiary.settings import Settings


def main() -> None:
    """What `ostiary serve` does, without OpenTelemetry's messages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    sys.modules["opentelemetry.proto"] = None  # type: ignore[assignment]
    try:
        uvloop.run(app.serve(Settings.load(port=given.port)))
    except CannotStart as refused:
        print(f"ostiary: {refused}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
