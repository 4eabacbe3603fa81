"""`ostiary serve` on a machine whose boots a test counts: the kernel's own name for a boot cannot be changed.

Run by `tests/acceptance/test_kill.py` as `python -m tests.rebooted_entry --port N`; BOOT_FILE names the file that says
which boot this is.
"""

from __future__ import annotations

import os
from pathlib import Path

from ostiary.ledger import spool
from tests.serving import serve


def main() -> None:
    """What `ostiary serve` does, but for where it reads which boot this is."""
    spool._BOOT_ID = Path(os.environ["BOOT_FILE"])
    serve()


if __name__ == "__main__":
    main()
