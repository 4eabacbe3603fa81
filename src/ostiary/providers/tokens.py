"""How many tokens of which kind a call used."""

from __future__ import annotations

import msgspec


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Counted OpenAI's way: `input` includes the cached ones, `output` the reasoning, both the audio.

    A dialect whose provider counts otherwise adds up before it makes one of these.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio: int = 0
