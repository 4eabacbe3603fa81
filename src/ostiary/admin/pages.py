"""Lists in pages: where a page ends is where the next begins, whatever was added meanwhile."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field

from ostiary.admin.shapes import Sought
from ostiary.errors import Refusal

T = TypeVar("T")

USUAL: Final = 50
LARGEST: Final = 200
_LONGEST_CURSOR: Final = 1_000

Cursor = Annotated[str, Field(description="Where to go on; null at the end.")]
Place = tuple[Any, ...]
"""The values a list is sorted by, of the last thing on a page."""


class Page(Sought):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=LARGEST)] = USUAL
    cursor: Annotated[
        str | None,
        Field(max_length=_LONGEST_CURSOR, description="`next_cursor` of the page before; sort and filters stay."),
    ] = None


def place_of(cursor: str | None, order: str, kinds: tuple[type, ...]) -> Place | None:
    """What a cursor stands for, None at the beginning; one that was not given out for this order is refused."""
    if cursor is None:
        return None
    try:
        said, *place = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=="))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _strange() from None
    fits = len(place) == len(kinds) and all(type(value) is kind for value, kind in zip(place, kinds, strict=True))
    if said != order or not fits:
        raise _strange()
    return tuple(place)


def cursor_of(order: str, place: Place) -> str:
    """What stands for the place behind which the next page begins."""
    said = json.dumps([order, *place], ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(said).rstrip(b"=").decode()


def cut(found: Iterable[T], limit: int, order: str, place: Callable[[T], Place]) -> tuple[list[T], str | None]:
    """A page out of one row more than it holds, and the cursor of the next."""
    rows = list(found)
    page = rows[:limit]
    return page, cursor_of(order, place(page[-1])) if len(rows) > limit else None


def go_on(rows: Sequence[T], limit: int, order: str, place: Callable[[T], Place]) -> str | None:
    """The cursor behind a page that came as it is; behind a full one there may be nothing more."""
    return cursor_of(order, place(rows[-1])) if len(rows) == limit else None


def turn(
    rows: Iterable[T], page: Page, order: str, place: Callable[[T], Place], *, descending: bool = False
) -> tuple[list[T], str | None]:
    """A page of rows that are all in memory, sorted by their place."""
    in_order = sorted(rows, key=place, reverse=descending)
    if in_order:
        after = place_of(page.cursor, order, tuple(type(value) for value in place(in_order[0])))
        if after is not None:
            in_order = [row for row in in_order if (place(row) < after if descending else place(row) > after)]
    return cut(in_order[: page.limit + 1], page.limit, order, place)


def _strange() -> Refusal:
    return Refusal("invalid_field", "This cursor was not given out for this list and order.", param="cursor")
