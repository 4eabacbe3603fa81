"""`ostiary serve` on a machine whose boots a test counts: the kernel's own name for a boot cannot be changed.

Run by `tests/acceptance/test_kill.py` as `python -m tests.rebooted_entry --port N`; BOOT_FILE names the file that says
which boot this is.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvloop

from ostiary import app
from ostiary.errors import CannotStart
from ostiary.ledger import spool
from ostiary.settings import Settings


def main() -> None:
    """What `ostiary serve` does, but for where it reads which boot this is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    spool._BOOT_ID = Path(os.environ["BOOT_FILE"])
    try:
        uvloop.run(app.serve(Settings.load(port=given.port)))
    except CannotStart as refused:
        print(f"ostiary: {refused}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
