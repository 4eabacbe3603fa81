"""Reads a form with files as it comes: checked piece by piece, what is large to disk, all of it written anew."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from ostiary.errors import Refusal
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.form_head import FORM, LONGEST_NAME, boundary_of, malformed, part_of, written_head
from ostiary.providers.dialect import Form, Part
from ostiary.providers.sound_file import SoundHead
from ostiary.providers.upload import Upload, UploadedBody

MOST_AUDIO: Final = 25 * 1024 * 1024
MOST_IMAGES: Final = 50 * 1024 * 1024
MOST: Final = {
    "audio.transcriptions": MOST_AUDIO,
    "audio.translations": MOST_AUDIO,
    "images.edits": MOST_IMAGES,
}
"""Bytes of a whole form, by operation."""
_FILES: Final = {
    "audio.transcriptions": ("file",),
    "audio.translations": ("file",),
    "images.edits": ("image", "image[]", "mask"),
}
"""What may be a file, by operation."""
_MOST_PARTS: Final = 128
_MOST_HEADERS: Final = 8
_LONGEST_HEADER: Final = 2_048
_LONGEST_VALUE: Final = 262_144
"""Bytes of a field: longer than any prompt may be."""
_MOST_TEXT: Final = 1_048_576


async def read_form(exchange: Exchange, operation: str, folder: Path, wait_s: float) -> Form:
    """Read the body; refuses (400, 413, 415) what is malformed, too large, or open to two readings."""
    most = MOST[operation]
    reading = _Reading(_boundary_of(exchange), Upload(folder), _FILES[operation])
    exchange.upload = reading.upload
    async for piece in exchange.read_pieces(wait_s, most):
        reading.feed(piece)
    return reading.finish()


def _boundary_of(exchange: Exchange) -> str:
    kinds = exchange.all_of(b"content-type")
    boundary = boundary_of(kinds[0].decode("latin-1") if len(kinds) == 1 else "")
    if exchange.headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        raise Refusal("unsupported_media_type", "Send the body uncompressed.")
    return boundary


class _Reading:
    """One form on its way in.

    Every part is written anew, under a boundary of ours and with a head of ours: what we have read of it is what the
    provider will read, whatever else the caller's bytes could be taken for.
    """

    def __init__(self, boundary: str, upload: Upload, files: tuple[str, ...]) -> None:
        self.upload = upload
        self._may_be_files = files
        self._mark = f"ostiary-{secrets.token_hex(16)}"
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finished,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_LONGEST_HEADER,
        )
        self._parts = 0
        self._is_whole = False
        self._name, self._value = b"", b""
        self._head: dict[str, str] = {}
        self._part: dict[str, str] = {}
        self._size = 0
        self._text: bytearray | None = None
        self._sound = SoundHead()
        self._model: str | None = None
        self._model_at = 0
        self._files: list[Part] = []
        self._fields: dict[str, list[str]] = {}
        self._text_size = 0

    def feed(self, piece: bytes) -> None:
        """Parse a piece."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise malformed(str(error)[:200]) from None
        except OSError as error:
            raise _no_room() from error

    def finish(self) -> Form:
        """The form, when all of it has come."""
        if not self._is_whole:
            raise malformed("it ends before its last boundary")
        if self._model is None:
            raise Refusal("invalid_request", "`model` is missing.", param="model")
        try:
            self.upload.write(f"--{self._mark}--\r\n".encode())
        except OSError as error:
            raise _no_room() from error
        return Form(self._fields, tuple(self._files), self._model, self._text_size, self._write)

    def _write(self, model: str) -> UploadedBody:
        return UploadedBody(self.upload, self._model_at, model.encode(), f"{FORM}; boundary={self._mark}")

    # ---- what the parser tells -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise malformed(f"it has more than {_MOST_PARTS} parts")
        self._head, self._part, self._size, self._text, self._sound = {}, {}, 0, None, SoundHead()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name, self._name = self._name.decode("latin-1").lower(), b""
        value, self._value = self._value, b""
        if name in self._head:
            raise malformed(f"a part has two headers {name[:40]!r}")
        try:
            self._head[name] = value.decode().strip()
        except UnicodeDecodeError:
            raise malformed("the head of a part is not UTF-8") from None

    def _open(self) -> None:
        """The head of a part is whole."""
        self._part = part_of(self._head)
        name = self._part["name"]
        is_file = "filename" in self._part
        if name == "model" and (is_file or self._model is not None):
            raise Refusal("invalid_request", "`model` must be one text field.", param="model")
        if is_file and name not in self._may_be_files:
            known = " or ".join(f"`{one}`" for one in self._may_be_files)
            raise Refusal("invalid_request", f"`{name}` cannot be a file here; send files as {known}.", param=name)
        if not is_file:
            self._text = bytearray()
        head = written_head(self._part, self._head.get("content-type"))
        self.upload.write(f"--{self._mark}\r\n{head}\r\n".encode())
        if name == "model":
            self._model_at = self.upload.size

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        self._size += len(piece)
        if self._text is not None:
            self._text_size += len(piece)
            if self._text_size > _MOST_TEXT:
                raise Refusal("request_too_large", f"The fields of the form are larger than {_MOST_TEXT // 1024} KB.")
            if self._size > _LONGEST_VALUE:
                name = self._part["name"]
                raise Refusal("invalid_request", f"`{name}` is longer than {_LONGEST_VALUE} bytes.", param=name)
            self._text += piece
        else:
            self._sound.feed(piece)
        if self._part["name"] != "model":
            self.upload.write(piece)

    def _end(self) -> None:
        name, text = self._part["name"], self._text
        if text is None:
            self._files.append(Part(name, self._size, self._part["filename"][:LONGEST_NAME], self._sound.least_bytes()))
        else:
            try:
                value = text.decode()
            except UnicodeDecodeError:
                raise Refusal("invalid_request", f"`{name}` is not UTF-8.", param=name) from None
            if name == "model":
                self._model = value
            else:
                self._fields.setdefault(name, []).append(value)
        self.upload.write(b"\r\n")

    def _finished(self) -> None:
        self._is_whole = True


def _no_room() -> Refusal:
    return Refusal("service_unavailable", "The disk cannot take the file now. Try again shortly.")
