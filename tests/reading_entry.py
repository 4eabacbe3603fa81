"""`ostiary serve` that writes down what pages read of their address: the product itself keeps no such list.

Run by `tests/acceptance/test_bench_pages.py` as `python -m tests.reading_entry --port N`; READ_FILE names the file that
gets a line for each name that a page has looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ostiary.dashboard.forms import Form
from tests.serving import serve

_WAYS = ("text", "raw", "all", "has")
"""How a form or a query is read; other ways go through these."""


def _noted(way: Callable[..., Any], file: Path) -> Callable[..., Any]:
    @wraps(way)
    def read(form: Form, name: str, *more: Any) -> Any:
        with file.open("a") as out:
            out.write(f"{name}\n")
        return way(form, name, *more)

    return read


def main() -> None:
    """What `ostiary serve` does, and takes notes."""
    for name in _WAYS:
        setattr(Form, name, _noted(getattr(Form, name), Path(os.environ["READ_FILE"])))
    serve()


if __name__ == "__main__":
    main()
