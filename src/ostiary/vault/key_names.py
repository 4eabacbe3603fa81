"""What a master key is called where it is spoken of: a name that tells nothing of the key (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.secret import Secret
from ostiary.vault.seal import MasterKeys, Undecryptable, name_of, split


def names(list_text: Secret) -> tuple[str, ...]:
    """The name of each key of a list, in its order."""
    return tuple(name_of(text) for text in split(list_text))


def names_in_use(list_text: Secret, wrapped: Iterable[tuple[str, int, str]]) -> tuple[str, ...]:
    """Those keys of a list without which some of these data keys (organization, version, wrapping) stay closed."""
    keys = MasterKeys.parse(list_text)
    alone = {name: keys.only(name) for name in keys.names}
    found = set()
    for organization_id, version, wrapping in wrapped:
        found |= {name for name, key in alone.items() if _opens(key, organization_id, version, wrapping)}
    return tuple(sorted(found))


def _opens(key: MasterKeys, organization_id: str, version: int, wrapping: str) -> bool:
    try:
        key.unwrap(organization_id, version, wrapping)
    except Undecryptable:
        return False
    return True
