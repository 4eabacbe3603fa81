"""How many tokens of which kind a call used, and what else it used that is not counted in tokens."""

from __future__ import annotations

import msgspec


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Counted OpenAI's way: `input` includes the cached ones, `output` the reasoning, both the audio.

    A dialect whose provider counts otherwise adds up before it makes one of these. Beside the tokens stand images made,
    milliseconds of audio heard, characters spoken and searches of a rerank, for models that are paid by those.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio: int = 0
    images: int = 0
    audio_ms: int = 0
    characters: int = 0
    searches: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """What is counted in tokens, by name, as reports show it."""
        return {name: getattr(self, name) for name in _IN_TOKENS}


_IN_TOKENS = ("input", "output", "cache_read", "cache_write", "reasoning", "audio")
UNITS = ("images", "audio_ms", "characters", "searches")
"""What is not counted in tokens."""
