"""What callers present: mint, parse, digest and preview (pure)."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from functools import lru_cache
from typing import Final, Literal, NamedTuple, Protocol, cast

from ostiary.ids import BASE62, base62
from ostiary.secret import Secret

Kind = Literal["pat", "eph", "ck", "cs", "inv"]
"""Agent key, ephemeral key, the two parts of a client credential, invite."""

_RANDOM_BYTES: Final = 32
_RANDOM_DIGITS: Final = 43
"""62**43 > 2**256."""
_SUM_DIGITS: Final = 6
"""62**6 > 2**32."""
_LONGEST: Final = 256
_SHOWN: Final = 4
_BLOCK: Final = 64
_INNER: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER: Final = bytes(octet ^ 0x5C for octet in range(256))
_VALUES: Final = {digit: value for value, digit in enumerate(BASE62)}

_ONE: Final = r"ost_(?:{kinds})_[0-9A-Za-z]{{49}}"
_SINGLE: Final = re.compile(_ONE.format(kinds="pat|eph|ck|cs|inv"))
_TRIPLE: Final = re.compile(
    rf"(org_[0-9A-Za-z]{{22}}):({_ONE.format(kinds='ck')}):({_ONE.format(kinds='cs')})",
)


class _Sha256(Protocol):
    def copy(self) -> _Sha256: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Parsed(NamedTuple):
    """A text whose shape and checksums are right; whether anybody knows it is the store's to say.

    A caller presents `pat`, `eph` or `client` (the triple client_id:api_key:api_secret); the others are parts.
    """

    kind: Kind | Literal["client"]
    text: str


def mint(kind: Kind) -> Secret:
    """A new secret of 256 random bits: `ost_pat_`, 43 digits in base 62, and 6 of checksum."""
    body = f"ost_{kind}_{base62(int.from_bytes(os.urandom(_RANDOM_BYTES)), _RANDOM_DIGITS)}"
    return Secret(body + base62(zlib.crc32(body.encode()), _SUM_DIGITS))


def mint_triple(client_id: str) -> Secret:
    """A new client credential: `client_id:api_key:api_secret`, presented and digested as one text."""
    return Secret(f"{client_id}:{mint('ck').reveal()}:{mint('cs').reveal()}")


def parse(text: str) -> Parsed | None:
    """What kind of credential this is, None when it is none of ours or was not copied whole."""
    if len(text) > _LONGEST:
        return None
    if text.startswith("ost_"):
        if _SINGLE.fullmatch(text) is None or not _is_whole(text):
            return None
        return Parsed(cast("Kind", text[4 : text.index("_", 4)]), text)
    parts = _TRIPLE.fullmatch(text)
    if parts is None or not (_is_whole(parts[2]) and _is_whole(parts[3])):
        return None
    return Parsed("client", text)


def digest(pepper: Secret, text: str) -> bytes:
    """What is stored and looked up in place of the credential: HMAC-SHA256 under the instance's pepper."""
    inner, outer = (state.copy() for state in _hmac_states(pepper))
    inner.update(text.encode())
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=8)
def _hmac_states(pepper: Secret) -> tuple[_Sha256, _Sha256]:
    """The two halves of HMAC (RFC 2104) with the key worked in, which is half of the work and always the same."""
    key = pepper.reveal().encode()
    key = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return hashlib.sha256(key.translate(_INNER)), hashlib.sha256(key.translate(_OUTER))


def preview(text: str) -> str:
    """What lists show of a credential: `ost_pat_3kT9…x2Qa`; of a triple, the client id and its api key so."""
    if ":" in text:
        client_id, api_key, _ = text.split(":")
        return f"{client_id}:{preview(api_key)}:…"
    start = text.index("_", 4) + 1
    return f"{text[: start + _SHOWN]}…{text[-_SHOWN:]}"


def _is_whole(one: str) -> bool:
    """Whether the checksum is that of the rest, prefix included, so that one kind cannot pass for another."""
    claimed = 0
    for digit in one[-_SUM_DIGITS:]:
        claimed = claimed * 62 + _VALUES[digit]
    return claimed == zlib.crc32(one[:-_SUM_DIGITS].encode())
