"""What makes the audit log a chain: the hash of a row, the head that binds all rows, and the key to both (pure)."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostiary.secret import Secret

INSTANCE: Final = "-"
"""The chain of what belongs to no organization; no organization has this id."""
FIELDS: Final = (
    "seq",
    "at",
    "organization_id",
    "actor_kind",
    "actor_id",
    "actor_name",
    "deed",
    "target_kind",
    "target_id",
    "target_name",
    "before",
    "after",
    "origin",
    "address",
    "result",
    "chain",
    "number",
)
"""Every column of a row but its hash, in the order in which they are hashed."""

_KEY_BYTES: Final = 32
_KEY_INFO: Final = b"ostiary audit chain 1"
_NULL: Final = -1
"""In the place of a length."""
_ROW, _LINK, _BEGIN, _ANCHOR = b"row", b"link", b"begin", b"anchor"

Raw = Mapping[str, bytes | None]
"""A row as bytes: numbers as decimal digits, texts and JSON as they are stored, in UTF-8."""


def chain_of(organization_id: str | None) -> str:
    """The chain in which an organization's rows stand."""
    return organization_id or INSTANCE


def key_of(pepper: Secret) -> Secret:
    """The key of every chain, in hexadecimal. It is made of the sealed pepper: a stolen database does not hold it."""
    made = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_KEY_INFO).derive(pepper.reveal().encode())
    return Secret(made.hex())


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends. Its link is made of every row there is, in order, and of earlier rows none is kept:
    who cuts rows off cannot make the head that would belong to what is left.
    """

    seq: int
    link: str
    older: int
    """The `seq` of the last row that was there before the log became a chain; 0 when none was."""
    begun_at: int

    @classmethod
    def parse(cls, text: str) -> Head | None:
        """The head as it is stored; None when that is not one."""
        try:
            return msgspec.json.decode(text.encode(), type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeEncodeError):
            return None

    def text(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()


class Key:
    """The key at work."""

    __slots__ = ("__key",)

    def __init__(self, secret: Secret) -> None:
        self.__key = bytes.fromhex(secret.reveal())

    def hash(self, previous: bytes, row: Raw) -> bytes:
        """The hash of a row, behind the one before it in its chain (empty for the first)."""
        return self._mac(_ROW, previous, *[row[name] for name in FIELDS])

    def begin(self, older: int, begun_at: int) -> str:
        """The link before the first row."""
        return self._mac(_BEGIN, b"%d" % older, b"%d" % begun_at).hex()

    def link(self, previous: str, hash_: bytes) -> str:
        """The link behind one more row."""
        return self._mac(_LINK, previous.encode(), hash_).hex()

    def anchor(self, previous: str, text: bytes) -> str:
        """What proves a line of an anchor file, behind the line before it (empty for the first)."""
        return self._mac(_ANCHOR, previous.encode(), text).hex()

    def _mac(self, purpose: bytes, *parts: bytes | None) -> bytes:
        return hmac.digest(self.__key, _framed(purpose, *parts), hashlib.sha256)


def raw(row: Mapping[str, object]) -> dict[str, bytes | None]:
    """A row's values as bytes; JSON must be text already."""
    return {name: None if row[name] is None else str(row[name]).encode() for name in FIELDS}


def _framed(*parts: bytes | None) -> bytes:
    """The lengths of the parts before them, so that no two rows read alike, and NULL unlike an empty text."""
    lengths = [_NULL if part is None else len(part) for part in parts]
    return struct.pack(f">{len(parts)}q", *lengths) + b"".join([part for part in parts if part is not None])
