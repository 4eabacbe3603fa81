"""`ostiary serve` where the extra that sends spans is not installed.

Run by `tests/acceptance/test_spans.py` as `python -m tests.unspanned_entry --port N`.
"""

from __future__ import annotations

import sys

from tests.serving import serve


def main() -> None:
    """What `ostiary serve` does, without OpenTelemetry's messages."""
    sys.modules["opentelemetry.proto"] = None  # type: ignore[assignment]
    serve()


if __name__ == "__main__":
    main()
