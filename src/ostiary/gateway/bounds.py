"""How long an answer may be where nobody published it: what providers said when they were asked for more."""

from __future__ import annotations

import re
from typing import Final

_MOST_KNOWN: Final = 10_000
_LEAST: Final = 64
_SHARE: Final = 4
_ABOUT_LENGTH: Final = re.compile(
    r"max_(?:completion_|output_)?tokens|context (?:length|window)|completion tokens|output tokens"
)
_CONTEXT: Final = re.compile(r"context(?: (?:length|window)\D{0,24}(?P<length>\d{3,7}))?")
_NUMBER: Final = re.compile(r"(?<![\d.])\d{2,7}(?![\d.])")


class Bounds:
    """The longest answers, by provider and model, as this process has learned them.

    A hard budget holds what a call can cost at most, so the provider must be told how long its answer may be. Where
    the model's own limit is not published a large one is asked for first; a provider that refuses names the real one.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def fit(self, provider_id: str, model: str, wanted: int) -> int:
        """What to ask for, knowing what was refused before."""
        return min(wanted, self._known.get((provider_id, model), wanted))

    def learn(self, provider_id: str, model: str, refused: int, message: str) -> int | None:
        """The next one to try after a refusal with this message; None when it is about something else."""
        text = message.lower()
        if refused <= _LEAST or not _ABOUT_LENGTH.search(text):
            return None
        context = _CONTEXT.search(text)
        if context is None:  # the most of an answer is named, and is just right
            best = max((n for n in _numbers(text) if _LEAST <= n < refused), default=refused // _SHARE)
        else:  # shared with the prompt: what the whole allows holds for all calls, what this prompt leaves for this one
            best = int(context["length"] or refused) // _SHARE
            if context["length"] is None or best >= refused:
                return max(min(best, refused // _SHARE), _LEAST)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[(provider_id, model)] = bound = max(best, _LEAST)
        return bound


def _numbers(text: str) -> list[int]:
    return [int(found) for found in _NUMBER.findall(text)]
