"""`ostiary serve` in which something beside the calls fails once a file is there, as by a fault of the product's own.

Run by `tests/acceptance/test_drain.py` as `python -m tests.failing_entry --port N`; FAIL_FILE names the file.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from ostiary.gateway.marks import Marks
from tests.serving import serve


async def _fail(self: Marks) -> None:
    del self
    file = Path(os.environ["FAIL_FILE"])
    while not file.exists():  # noqa: ASYNC110, ASYNC240 - the test makes it
        await asyncio.sleep(0.05)
    raise RuntimeError("a keeper has failed")


def main() -> None:
    """What `ostiary serve` does, until then."""
    Marks.run = _fail  # type: ignore[method-assign]
    serve()


if __name__ == "__main__":
    main()
