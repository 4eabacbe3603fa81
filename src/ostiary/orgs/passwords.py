"""Passwords: what may be one, and argon2id of it, off the loop and two at a time."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from ostiary.errors import Refusal
from ostiary.secret import Secret

T = TypeVar("T")

SHORTEST: Final = 12
LONGEST: Final = 200

_HASHER: Final = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_ROOM: Final = ThreadPoolExecutor(2, "password")
"""Each hash takes 64 MiB and up to four cores for a tenth of a second: two at a time, and only so many may wait."""
_PLACES: Final = [None] * 32
"""Who waits takes one out and puts it back: popping from a list is one step whichever loop does it."""
_NOBODYS: Final = "$argon2id$v=19$m=65536,t=3,p=4$KHGwgXDl5CEGpDGIhGOWIw$DEQFzvMFYZGu0LwQwMATy128BZSKYzGslAnPGjmbR0Q"
"""A hash with the same parameters, to compare with where there is none: it takes as long, and is never right."""


def check(password: Secret, *, unlike: Collection[str] = ()) -> None:
    """Refuse what is too short, too long, or one of the words that whoever guesses would try first."""
    text = _text(password)
    if not SHORTEST <= len(text) <= LONGEST:
        said = f"A password has {SHORTEST} to {LONGEST} characters; several words in a row make a good one."
        raise Refusal("invalid_field", said, param="password")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal("invalid_field", "The password holds half a character.", param="password") from None
    if text.casefold() in {unicodedata.normalize("NFC", one).strip().casefold() for one in unlike}:
        raise Refusal("invalid_field", "The password must not be the name or the e-mail address.", param="password")


async def hashed(password: Secret, *, unlike: Collection[str] = ()) -> str:
    """The password as it is stored; refuses with `invalid_field`. `unlike` are the name and the address of its user."""
    check(password, unlike=unlike)
    return await _apart(lambda: _HASHER.hash(_text(password)))


async def matches(hash: str | None, password: Secret) -> bool:  # noqa: A002 - what it is
    """Whether this is the password. Takes as long where there is no hash, and is false then."""
    right = await _apart(lambda: _verified(hash or _NOBODYS, _text(password)))
    return right and hash is not None


async def rehashed(hash: str, password: Secret) -> str | None:  # noqa: A002 - what it is
    """A password that was right just now, with today's parameters; None where it has them already."""
    return await _apart(lambda: _HASHER.hash(_text(password))) if needs_rehash(hash) else None


def needs_rehash(hash: str) -> bool:  # noqa: A002 - what it is
    """Whether it was made with other parameters than passwords are hashed with today."""
    return _HASHER.check_needs_rehash(hash)


def _verified(hash_: str, text: str) -> bool:
    try:
        return len(text) <= LONGEST and _HASHER.verify(hash_, text.encode("utf-8", "surrogatepass"))
    except (VerificationError, InvalidHashError):
        return False


def _text(password: Secret) -> str:
    """Composed, so that one keyboard's ü is another's, and without the spaces that people copy along."""
    return unicodedata.normalize("NFC", password.reveal()).strip()


async def _apart(work: Callable[[], T]) -> T:
    """In a thread of its own room, where no flood of sign-ins takes the threads of others."""
    try:
        place = _PLACES.pop()
    except IndexError:
        said = "Too many people sign in at this moment. Try again shortly."
        raise Refusal("service_unavailable", said, headers=((b"retry-after", b"2"),)) from None
    try:
        return await asyncio.get_running_loop().run_in_executor(_ROOM, work)
    finally:
        _PLACES.append(place)
