"""Which slot a call has: a conversation the same ever again, whatever is none the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from zlib import crc32

from ostiary.gateway.call import Call
from ostiary.gateway.slots import SLOTS

_SPREAD: Final = 157
"""Turns pass over all slots without going from neighbour to neighbour: a prime, and so none of the slots' number."""
_USER: Final = b'"user"'
_ROLE: Final = b'"role"'
_BETWEEN: Final = b" \t\r\n,{]["


def slot_of(call: Call, turns: Iterator[int]) -> int:
    """The slot of a conversation, so that it goes where its prompt is cached; the next one for what is none.

    A conversation is known by the cache key that the caller gives it, else by how it begins: everything up to the end
    of the first thing its user said. The same in every process.
    """
    fields = call.ask.fields
    named = fields.get("prompt_cache_key")
    if named is not None:
        return crc32(named) % SLOTS
    messages = fields.get("messages")
    if messages is None:
        return next(turns) * _SPREAD % SLOTS
    return crc32(_beginning(bytes(messages), call.ask.messages)) % SLOTS


def _beginning(messages: bytes, count: int) -> bytes:
    """Up to the end of the first message of the user, whatever comes after it; to find nothing after it takes long."""
    said = messages.find(_USER)
    is_cut = said >= 0 and messages.count(_ROLE, 0, said) != count
    ends = messages.find(_ROLE, said + len(_USER)) if is_cut else -1
    return (messages if ends < 0 else messages[:ends]).rstrip(_BETWEEN)
