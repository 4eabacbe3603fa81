"""`ostiary serve` that tries another key after a connection broke: the product itself gives up on what may be billed.

Run by `tests/acceptance/test_extended_holds.py` as `python -m tests.insistent_entry --port N`.
"""

from __future__ import annotations

from dataclasses import replace

from ostiary.providers import connection, verdict
from tests.serving import serve


def main() -> None:
    """What `ostiary serve` does, but for what comes after an attempt that broke off."""
    spent = verdict.judge(None, connection.TransportError("broken", sent=True, text="it broke"), None)
    assert spent.billed
    verdict._FAILURES = {**verdict._FAILURES, ("broken", True): replace(spent, next="next_key")}  # type: ignore[misc]
    serve()


if __name__ == "__main__":
    main()
