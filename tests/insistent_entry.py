"""`ostiary serve` that tries another key after a connection broke: the product itself gives up on what may be billed.

Run by `tests/acceptance/test_extended_holds.py` as `python -m tests.insistent_entry --port N`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import uvloop

from ostiary import app
from ostiary.errors import CannotStart
from ostiary.providers import connection, verdict
from ostiary.settings import Settings


def main() -> None:
    """What `ostiary serve` does, but for what comes after an attempt that broke off."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    spent = verdict.judge(None, connection.TransportError("broken", sent=True, text="it broke"), None)
    assert spent.billed
    verdict._FAILURES = {**verdict._FAILURES, ("broken", True): replace(spent, next="next_key")}  # type: ignore[misc]
    try:
        uvloop.run(app.serve(Settings.load(port=given.port)))
    except CannotStart as refused:
        print(f"ostiary: {refused}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
