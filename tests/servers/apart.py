"""Playwright in a thread of its own: its loop would count as running in the thread of the tests, who have their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, cast

T = TypeVar("T")
_LONGEST_S = 90
"""For one thing asked of it. Playwright bounds what it waits for, but not what a page is told to evaluate."""


class Apart:
    """The thread. What `call` gives back is Playwright's, but does what it does there."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._ident = pool.submit(threading.get_ident).result()

    def call(self, do: Callable[..., T], *args: Any, **named: Any) -> T:
        """Do it there, and wait. Playwright's own callbacks are there already."""
        args, named = self._near(args), self._near(named)
        if threading.get_ident() == self._ident:
            return do(*args, **named)
        return cast("T", self._far(self._pool.submit(do, *args, **named).result(_LONGEST_S)))

    def _far(self, found: Any) -> Any:
        if isinstance(found, list | tuple):
            return type(found)(self._far(one) for one in found)
        return Far(self, found) if _is_of_playwright(found) else found

    def _near(self, given: Any) -> Any:
        if isinstance(given, list | tuple):
            return type(given)(self._near(one) for one in given)
        if isinstance(given, dict):
            return {name: self._near(one) for name, one in given.items()}
        return object.__getattribute__(given, "_it") if type(given) is Far else given


class Far:
    """A thing of Playwright's, seen from another thread: every look at it, and every call of it, happens there."""

    def __init__(self, apart: Apart, it: Any) -> None:
        object.__setattr__(self, "_apart", apart)
        object.__setattr__(self, "_it", it)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Far  # so that Playwright's own `expect` refuses it, which would wait here, for ever
        return _there(self, getattr, name)

    def __setattr__(self, name: str, value: object) -> None:
        _there(self, setattr, name, value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return _there(self, lambda it, *args, **named: it(*args, **named), *args, **named)

    def __enter__(self) -> Any:
        return _there(self, lambda it: it.__enter__())

    def __exit__(self, *error: object) -> Any:
        return _there(self, lambda it: it.__exit__(*error))

    def __eq__(self, other: object) -> bool:
        return bool(_there(self, lambda it, other: it == other, other))

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_it"))

    def __repr__(self) -> str:
        return repr(object.__getattribute__(self, "_it"))


def _there(far: Far, do: Callable[..., Any], *args: Any, **named: Any) -> Any:
    apart: Apart = object.__getattribute__(far, "_apart")
    return apart.call(do, far, *args, **named)


def _is_of_playwright(found: object) -> bool:
    """Its objects and their methods; not its errors, which are raised here as they are."""
    kind = type(getattr(found, "__self__", found))
    return kind.__module__.startswith("playwright.") and not isinstance(found, BaseException | str | dict)


def at_home(far: object) -> Apart:
    """The thread that a thing of Playwright's lives in."""
    assert type(far) is Far, f"{far!r} is not of the browser's thread"
    return cast("Apart", object.__getattribute__(far, "_apart"))


@contextmanager
def thread() -> Iterator[Apart]:
    """It ends with the block."""
    with ThreadPoolExecutor(1, thread_name_prefix="playwright") as pool:
        yield Apart(pool)
