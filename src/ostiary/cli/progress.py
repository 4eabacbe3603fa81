"""A bar on the terminal while something long goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ostiary.db.backup_file import Progress


@contextmanager
def bar(*, hidden: bool = False) -> Iterator[Progress]:
    """What to tell of the work, from any thread. Nothing is shown where nobody looks: beside JSON, or in a pipe."""
    if hidden or not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 - a twentieth of a second that a pipe need not pay
    from rich.progress import Progress as Bars  # noqa: PLC0415 - as above

    with Bars(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total or None)

        yield tell
