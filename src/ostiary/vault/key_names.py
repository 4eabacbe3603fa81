"""What a master key is called where it is spoken of: a name that tells nothing of the key (pure)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final

from ostiary.secret import Secret
from ostiary.vault.seal import MasterKeys, Undecryptable

_DIGITS: Final = 12


def names(list_text: Secret) -> tuple[str, ...]:
    """The name of each key of a list, in its order: `mk_` and 12 digits of a keyed digest of its 256 random bits."""
    return tuple(_name(text) for text in _texts(list_text))


def names_in_use(list_text: Secret, wrapped: Iterable[tuple[str, int, str]]) -> tuple[str, ...]:
    """Those keys of a list without which some of these data keys (organization, version, wrapping) stay closed."""
    keys = [(_name(text), MasterKeys.parse(Secret(text))) for text in _texts(list_text)]
    found = set()
    for organization_id, version, wrapping in wrapped:
        found |= {name for name, key in keys if _opens(key, organization_id, version, wrapping)}
    return tuple(sorted(found))


def _opens(key: MasterKeys, organization_id: str, version: int, wrapping: str) -> bool:
    try:
        key.unwrap(organization_id, version, wrapping)
    except Undecryptable:
        return False
    return True


def _texts(list_text: Secret) -> list[str]:
    return [text for text in re.split(r"[,\s]+", list_text.reveal()) if text]


def _name(text: str) -> str:
    return "mk_" + hmac.new(text.encode(), b"the name of a master key", hashlib.sha256).hexdigest()[:_DIGITS]
