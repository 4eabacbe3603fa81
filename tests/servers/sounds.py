"""Sounds as files: so many seconds, plainly WAV or MP3."""

from __future__ import annotations

import struct

_FRAME = b"\xff\xe3\x18\xc4" + bytes(68)
"""72 ms of MPEG-2.5 Layer III at 8 kbit/s and 8 kHz."""


def mp3(frames: int = 1_000, tag: int | None = None) -> bytes:
    """MP3 at its tightest, 1,000 bytes a second; behind a tag of so many bytes."""
    if tag is None:
        return _FRAME * frames
    length = bytes((tag >> 21 & 127, tag >> 14 & 127, tag >> 7 & 127, tag & 127))
    return b"ID3\x04\x00\x00" + length + bytes(tag) + _FRAME * frames


def wav(size: int, hertz: int = 16_000, channels: int = 1, bits: int = 16, kind: int = 1, **wrong: int) -> bytes:
    """WAV with so many bytes of samples; `rate` and `block` may be told as they are not."""
    block = wrong.get("block", channels * bits // 8)
    told = struct.pack("<HHIIHH", kind, channels, hertz, wrong.get("rate", hertz * block), block, bits)
    sound = b"WAVEfmt " + struct.pack("<I", len(told)) + told + b"LIST\3\0\0\0abc\0data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(sound) + size) + sound + bytes(size)
