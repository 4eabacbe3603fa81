"""`ostiary serve` that waits long for SQLite's one lock: a gateway that stands still in a write keeps all from it.

Run by `gateways(entry=PATIENT)` as `python -m tests.patient_entry --port N`, where none of many calls may be a 503.
"""

from __future__ import annotations

from ostiary.db import database
from tests.serving import serve


def main() -> None:
    """What `ostiary serve` does, but for how soon it gives that up."""
    database._BUSY_MS = 60_000
    serve()


if __name__ == "__main__":
    main()
