"""How few bytes a second of sound can have in a file, by what its first bytes say of it (pure)."""

from __future__ import annotations

from typing import Final

MP3_BYTES: Final = 990
"""A second of MP3 at its lowest, 8 kbit/s; frames are whole bytes, so that without padding it is 995."""
MOST_WAV_BYTES: Final = 384_000
"""Whatever the head of a WAV file says, a second of it is not taken for more: 96 kHz in stereo of 16 bits."""
_KEPT: Final = 8_192
_TAG: Final = 10
_CHUNK: Final = 8
_RIFF: Final = 12
_PLAIN_SOUND: Final = {1: (8, 16, 24, 32), 3: (32, 64), 6: (8,), 7: (8,)}
"""WAV formats whose bytes are in step with time (PCM, float, A-law, µ-law), and the bits of their samples."""
_EXTENSIBLE: Final = 0xFFFE
_GUID_END: Final = bytes.fromhex("000000001000800000aa00389b71")
_LEAST_FORMAT, _MOST_FORMAT, _LONG_FORMAT = 16, 64, 40
_MPEG_1: Final = 3
_KBITS: Final = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Of Layer III, by whether it is MPEG-1."""
_HERTZ: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_SAME: Final = 0xFFFE0C00
"""What the frames of one file have in common: version, layer, sample rate."""
_ENDINGS: Final = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")


class SoundHead:
    """The first bytes of a file on its way in, without the tags (names, covers) that may stand before the sound."""

    __slots__ = ("_head", "_is_broken", "_is_tagged", "_skip")

    def __init__(self) -> None:
        self._head = bytearray()
        self._skip = 0
        self._is_tagged = self._is_broken = False

    def feed(self, piece: bytes) -> None:
        """The next bytes, however they are cut up; only the first are looked at."""
        while piece:
            if self._skip:
                cut = min(self._skip, len(piece))
                self._skip -= cut
            else:
                cut = min((_TAG if len(self._head) < _TAG else _KEPT) - len(self._head), len(piece))
                if cut <= 0:
                    return
                self._head += piece[:cut]
                self._pass_tag()
            piece = piece[cut:]

    def _pass_tag(self) -> None:
        head = self._head
        if len(head) != _TAG or not head.startswith(b"ID3"):
            return
        lengths = head[6:_TAG]
        self._is_tagged = True
        self._is_broken = self._is_broken or not lengths.isascii()
        self._skip = lengths[0] << 21 | lengths[1] << 14 | lengths[2] << 7 | lengths[3]
        self._skip += _TAG if head[5] & 0x10 else 0
        head.clear()

    def least_bytes(self) -> int | None:
        """The fewest bytes in which a second may come; None where a second may come in next to none.

        Ogg, FLAC, MP4 and WebM hold silence, and whatever they call so, for nothing. So may a file that is not plainly
        what it begins as.
        """
        head = bytes(self._head)
        if self._is_broken or self._skip:
            return None
        if head.startswith(b"RIFF") and head[8:_RIFF] == b"WAVE":
            return None if self._is_tagged else _wav_bytes(head)
        return MP3_BYTES if _is_mp3(head) else None


def _wav_bytes(head: bytes) -> int | None:
    """By its one format, which must come before the sound."""
    at, found = _RIFF, None
    while at + _CHUNK <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + _CHUNK], "little")
        if name == b"data":
            return found
        if name == b"fmt ":
            if found is not None or not _LEAST_FORMAT <= size <= _MOST_FORMAT:
                return None
            found = _rate_of(head[at + _CHUNK : at + _CHUNK + size])
            if found is None:
                return None
        at += _CHUNK + size + size % 2
    return None


def _rate_of(told: bytes) -> int | None:
    """The bytes of a second, if all that the format tells agrees."""
    tag, channels, hertz, rate, block, bits = (
        int.from_bytes(told[start:end], "little")
        for start, end in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14), (14, 16))
    )
    if tag == _EXTENSIBLE and len(told) >= _LONG_FORMAT and told[26:_LONG_FORMAT] == _GUID_END:
        tag = int.from_bytes(told[24:26], "little")
    if bits not in _PLAIN_SOUND.get(tag, ()) or block != channels * bits // 8 or rate != hertz * block or not rate:
        return None
    return min(rate, MOST_WAV_BYTES)


def _is_mp3(head: bytes) -> bool:
    """Whether frames of one kind follow one another through all of it."""
    at, first = 0, None
    while at + 4 <= len(head):
        frame = int.from_bytes(head[at : at + 4], "big")
        length = _frame_bytes(frame)
        if length is None or (first is not None and frame & _SAME != first):
            break
        first = frame & _SAME
        at += length
    return first is not None and (at + 4 > len(head) or head.startswith(_ENDINGS, at))


def _frame_bytes(frame: int) -> int | None:
    """The length of a frame of Layer III by its first four bytes; None where they are none of one."""
    version, rate, kbits = frame >> 19 & 3, frame >> 10 & 3, frame >> 12 & 15
    if frame >> 21 != 0x7FF or frame >> 17 & 3 != 1 or version not in _HERTZ or rate > 2 or not 0 < kbits < 15:  # noqa: PLR2004 - the bits of a frame
        return None
    is_first = version == _MPEG_1
    return (144 if is_first else 72) * _KBITS[is_first][kbits - 1] * 1_000 // _HERTZ[version][rate] + (frame >> 9 & 1)
