"""Which slot a call has: a conversation the same ever again, whatever is none the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from zlib import crc32

import msgspec

from ostiary.gateway.call import Call
from ostiary.gateway.slots import SLOTS

_SPREAD: Final = 157
"""Turns pass over all slots without going from neighbour to neighbour: a prime, and so none of the slots' number."""
_PREFIX: Final = 4_096
"""Bytes of a text to be gone on with, by which it is known again once there is more of it."""
_USER: Final = b'"user"'
_ROLE: Final = b'"role"'
_BETWEEN: Final = b" \t\r\n,{]["
_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def slot_of(call: Call, turns: Iterator[int]) -> int:
    """The slot of a conversation, so that it goes where its prompt is cached; the next one for what is none.

    A conversation is known by the cache key that the caller gives it, else by how it begins: everything up to the end
    of the first thing its user said, or the first kilobytes of a text that grows. The same in every process.
    """
    fields = call.ask.fields
    named = fields.get("prompt_cache_key")
    if named is not None:
        return crc32(named) % SLOTS
    messages = fields.get("messages")
    if messages is not None:
        return crc32(_beginning(bytes(messages), call.ask.messages)) % SLOTS
    if call.operation == "responses":
        told, said = bytes(fields.get("instructions", b"")), bytes(fields.get("input", b""))
        return crc32(_opening(said), crc32(told)) % SLOTS
    if call.operation == "completions":
        return crc32(bytes(fields.get("prompt", b""))[:_PREFIX]) % SLOTS
    return next(turns) * _SPREAD % SLOTS


def _beginning(messages: bytes, count: int) -> bytes:
    """Up to the end of the first message of the user, whatever comes after it; to find nothing after it takes long."""
    said = messages.find(_USER)
    is_cut = said >= 0 and messages.count(_ROLE, 0, said) != count
    ends = messages.find(_ROLE, said + len(_USER)) if is_cut else -1
    return (messages if ends < 0 else messages[:ends]).rstrip(_BETWEEN)


def _opening(said: bytes) -> bytes:
    """A text, or of a list everything up to its first item of the user: items of other kinds have no role to cut at."""
    if not said.startswith(b"["):
        return said
    begins = []
    for item in _items(said):
        begins.append(bytes(item))
        if _USER in begins[-1]:
            break
    return b",".join(begins)
