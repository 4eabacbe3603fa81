"""Tokens of 256 random bits: made here, and known again by their digest alone (pure)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

from ostiary.secret import Secret

_BYTES: Final = 32
_SHAPE: Final = re.compile(r"[0-9A-Za-z_-]{43}", re.ASCII)


def mint() -> Secret:
    """A new one: 43 characters that may stand in a URL."""
    return Secret(secrets.token_urlsafe(_BYTES))


def digest(token: str) -> bytes | None:
    """What is stored of it and looked for; None when this is no token at all. As random as it is, no salt is needed."""
    return hashlib.sha256(token.encode()).digest() if _SHAPE.fullmatch(token) else None


def kept(token: Secret) -> bytes:
    """The digest of a token that was just made."""
    found = digest(token.reveal())
    if found is None:
        raise ValueError("not a token of ours")
    return found


def derived(token: str, purpose: str) -> str:
    """Another secret that only who has the token can know, and that does not tell it."""
    return hmac.new(token.encode(), purpose.encode(), hashlib.sha256).hexdigest()
