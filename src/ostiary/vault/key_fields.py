"""How a provider key may be set up beside where it goes: its turn, its limits, its account and its tags (pure)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ostiary.limits.budgets import Budget
from ostiary.limits.wishes import checked_budget, checked_count, is_whole
from ostiary.names import checked_name
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret
from ostiary.vault.fields import wrong

STRATEGIES: Final = ("rotate", "fill")
"""Take turns by weight, or use one up before the next."""
MAY_TRAIN: Final = "may-train-on-data"
"""The tag of keys whose provider says that it may train its models on what it is sent."""
MOST_PRIORITY: Final = 1_000
MOST_WEIGHT: Final = 1_000
MOST_TAGS: Final = 20
LONGEST_TAG: Final = 40
_LONGEST_ACTOR: Final = 320
_MASKS: Final = ("…", "•", "***")


def checked(wished: Mapping[str, object]) -> dict[str, object]:
    """The fields as they are stored; refuses with `invalid_field` and names the field."""
    values: dict[str, object] = {}
    for name, value in wished.items():
        if name not in _CHECKS:
            raise wrong(name, f"{name!r} is not a field of a provider key that can be set.")
        values[name] = _CHECKS[name](name, value)
    return values


def usual_strategy(*, free_tier: bool) -> str:
    """What costs nothing is used up first."""
    return "fill" if free_tier else "rotate"


def tags_at_first(provider: Provider, tags: object) -> object:
    """The tags of a new key: what was wished for, and the warning that the catalogue has for all keys of its provider.

    An edit may take the warning off: a paid account often comes with other terms.
    """
    if provider.trains_on_data is not True or not isinstance(tags, list | tuple) or MAY_TRAIN in tags:
        return tags
    return (*tags, MAY_TRAIN)


def require_no_mask(secret: Secret, old_preview: str) -> None:
    """Refuse what a form shows in the place of a secret: it would be sealed, and the real one would be gone."""
    text = secret.reveal().strip()
    if (text and text == old_preview) or any(mask in text for mask in _MASKS):
        message = "This is the masked form of a secret, not the secret. Leave it out to keep the one that is stored."
        raise wrong("secret", message)


def contributor(actor_name: str) -> str:
    """Who added a key, as it is kept."""
    return actor_name[:_LONGEST_ACTOR]


def _name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise wrong(name, f"{name} must be text.")
    return checked_name(value, name)


def _maybe_name(name: str, value: object) -> str | None:
    return None if value is None else _name(name, value)


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, f"{name} must be true or false.")
    return value


def _priority(name: str, value: object) -> int:
    if not is_whole(value) or not -MOST_PRIORITY <= value <= MOST_PRIORITY:
        raise wrong(name, f"{name} must be a whole number from -{MOST_PRIORITY} to {MOST_PRIORITY}; the highest first.")
    return value


def _weight(name: str, value: object) -> int:
    if not is_whole(value) or not 1 <= value <= MOST_WEIGHT:
        raise wrong(name, f"{name} must be a whole number from 1 to {MOST_WEIGHT}.")
    return value


def _strategy(name: str, value: object) -> str:
    if not isinstance(value, str) or value not in STRATEGIES:
        raise wrong(name, f"{name} is {' or '.join(STRATEGIES)}: take turns, or use this key up before the next.")
    return value


def _tags(name: str, value: object) -> tuple[str, ...]:
    """Each once, in the order they were given."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise wrong(name, f"{name} must be a list of texts.")
    tags = tuple(dict.fromkeys(_tag(name, one) for one in value))
    if len(tags) > MOST_TAGS:
        raise wrong(name, f"A provider key has {MOST_TAGS} tags at most.")
    return tags


def _tag(name: str, value: object) -> str:
    text = unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else ""
    if not text or len(text) > LONGEST_TAG or not text.isprintable():
        raise wrong(name, f"A tag is 1 to {LONGEST_TAG} visible characters.")
    return text


def _budget(name: str, value: object) -> Budget | None:
    return checked_budget(name, value, ("day", "month", "total"))


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = MappingProxyType(
    {
        "name": _name,
        "shared": _switch,
        "priority": _priority,
        "weight": _weight,
        "strategy": _strategy,
        "free_tier": _switch,
        "account": _maybe_name,
        "tags": _tags,
        **dict.fromkeys(("rpm", "rpd", "tpm", "parallel"), checked_count),
        "budget": _budget,
    }
)
