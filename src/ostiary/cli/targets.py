"""How the targets of endpoints and aliases are written on the command line, and read back (pure)."""

from __future__ import annotations

import re
from typing import Final

from ostiary.cli import words
from ostiary.vault.endpoints import EndpointTarget

_WEIGHT: Final = re.compile(r"(.+):weight=([0-9]{1,4})", re.DOTALL)
_MS: Final = re.compile(r"([0-9]{1,6})ms")
_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60_000


def target(text: str) -> EndpointTarget:
    """`PROVIDER/MODEL`, `PROVIDER@KEY/MODEL`, and `:weight=N` behind either.

    The key stands with the provider, whose id has neither `@` nor `/`, so that a model's name may hold both, and
    colons: `cloudflare@main/@cf/meta/llama-3.1-8b`. A key whose name has a slash goes by its id.
    """
    weighed = _WEIGHT.fullmatch(text.strip())
    place, weight = (weighed[1], int(weighed[2])) if weighed else (text.strip(), 1)
    whose, slash, model = place.partition("/")
    provider, at, key = whose.partition("@")
    if not slash or not provider or not model.strip() or (at and not key.strip()):
        raise ValueError(f"{text!r} is not a target such as openai/gpt-5-mini or openai@KEY/gpt-5-mini:weight=2")
    return EndpointTarget(provider.strip(), model.strip(), key.strip() or None, weight)


def written(one: EndpointTarget, key: str | None = None) -> str:
    """A target as `target` reads it; `key` is the name of its key where that is known and can be written."""
    named = key if key and "/" not in key else one.provider_key_id
    whose = f"{one.provider}@{named}" if named else one.provider
    return f"{whose}/{one.model}" + (f":weight={one.weight}" if one.weight != 1 else "")


def timeout(text: str) -> words.Given[int]:
    """Milliseconds of `500ms`, `30s` or `2m`, or `none`."""
    word = text.strip()
    if word == "none":
        return words.Given(None)
    found = _MS.fullmatch(word)
    return words.Given(int(found[1]) if found else words.duration(word))


def shown_timeout(ms: int | None) -> str | None:
    """The same, as people read it."""
    if ms is None:
        return None
    if ms % _MINUTE_MS == 0:
        return f"{ms // _MINUTE_MS}m"
    return f"{ms // _SECOND_MS}s" if ms % _SECOND_MS == 0 else f"{ms}ms"
