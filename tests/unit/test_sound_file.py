"""How few bytes a second of sound can have: known of what is plainly WAV or MP3, and of nothing else."""

from __future__ import annotations

import struct

import pytest

from ostiary.providers.sound_file import SoundHead
from tests.servers.sounds import mp3, wav


def least(file: bytes, piece: int = 65_536) -> int | None:
    head = SoundHead()
    for at in range(0, len(file), piece):
        head.feed(file[at : at + piece])
    return head.least_bytes()


def extensible(kind: bytes, end: bytes = b"") -> bytes:
    guid = kind + bytes.fromhex("000000001000800000aa00389b71")[: 14 - len(end)] + end
    told = struct.pack("<HHIIHHHHI", 0xFFFE, 2, 48_000, 192_000, 4, 16, 22, 16, 3) + guid
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(told)) + told + b"data\x08\0\0\0" + bytes(8)


@pytest.mark.parametrize(
    ("file", "bytes_of_a_second"),
    [
        (wav(100), 32_000),
        (wav(100, 8_000, bits=8), 8_000),
        (wav(100, 8_000, bits=8, kind=7), 8_000),
        (wav(100, 1, bits=8), 1),
        (wav(100, 48_000, 2, 32, 3), 384_000),
        (wav(100, 192_000, 8, 32), 384_000),
        (extensible(b"\1\0"), 192_000),
        (mp3(), 990),
        (mp3(3), 990),
        (mp3() + b"TAG" + bytes(125), 990),
        (mp3(3) + b"TAG" + bytes(125), 990),
        (mp3(tag=0), 990),
        (mp3(tag=300_000), 990),
        (mp3(3)[:-20], 990),
        (b"\xff\xfb\x90\x00" + bytes(413) + b"\xff\xfb\x92\x00" + bytes(414), 990),
    ],
)
@pytest.mark.parametrize("piece", [65_536, 1_000, 7, 1])
def test_wav_and_mp3_have_a_least(file: bytes, bytes_of_a_second: int, piece: int) -> None:
    assert least(file, piece) == bytes_of_a_second


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"RIFF",
        b"OggS" + bytes(90),
        b"fLaC" + bytes(90),
        b"\0\0\0\x18ftypM4A " + bytes(90),
        b"\x1a\x45\xdf\xa3" + bytes(90),
        b"ID3\x04\0\0\0\0\0\x05" + bytes(5) + b"fLaC" + bytes(90),
        b"ID3\x04\0\0\0\0\0\x05" + bytes(5) + wav(100),
        b"ID3\x04\0\0\xff\0\0\x05" + bytes(5) + mp3(),
        b"ID3\x04\0\0\x7f\0\0\x05" + bytes(5) + mp3(),
        b"ID3" + bytes(range(256)) * 30,
        b"\xff\xf1" + bytes(90),  # AAC
        b"\xff\xe3\x08\xc4" + bytes(90),  # MP3 without a bit rate
        mp3(5) + b"fLaC" + bytes(90),
        mp3(5) + b"\xff\xfb\x90\x00" + bytes(413),  # another kind of MP3
        wav(100, rate=384_000),
        wav(100, block=8),
        wav(100, 0),
        wav(100, channels=0),
        wav(100, kind=85),  # MP3 in WAV
        wav(100, bits=4, kind=17),  # ADPCM
        wav(100).replace(b"fmt ", b"fmt_"),
        wav(100)[:36] + wav(100)[12:],  # two formats
        extensible(b"\x55\0"),
        extensible(b"\1\0", b"?"),
    ],
)
def test_what_may_hold_hours_in_no_bytes_has_none(file: bytes) -> None:
    assert least(file) is None
