"""Who is calling: one extractor for every carrier, one look-up in memory."""

from __future__ import annotations

import re
from typing import Final

from ostiary.agents import credential
from ostiary.errors import Refusal
from ostiary.gateway.caller import Caller
from ostiary.gateway.directory import Directory
from ostiary.gateway.exchange import Exchange

_BEARER: Final = b"authorization"
_OTHERS: Final = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
_IN_QUERY: Final = re.compile(
    rb"(?:^|&)(?:key|api_key|api-key|apikey|token|access_token)=|(?<![0-9A-Za-z])ost_(?:pat|eph|ck|cs)_[0-9A-Za-z]{20}",
    re.IGNORECASE,
)
_PRESENTED: Final = frozenset({"pat", "eph", "client"})
"""What a caller presents; the parts of a client credential by themselves are none."""


async def identify(exchange: Exchange, directory: Directory) -> Caller:
    """The caller behind the one credential of the request, or a 401; two credentials are a 400."""
    caller = await identify_if_any(exchange, directory)
    if caller is None:
        raise Refusal("missing_api_key")
    return caller


async def identify_if_any(exchange: Exchange, directory: Directory) -> Caller | None:
    """The same where a credential is optional: None when none was sent; a bad one is refused all the same."""
    text = _extract(exchange)
    if text is None:
        return None
    known = directory.meet_again(text)
    if known is not None:
        return known
    parsed = credential.parse(str(text, "latin-1"))
    if parsed is None or parsed.kind not in _PRESENTED:
        raise Refusal("invalid_token_format")
    caller = directory.find_caller(parsed.text)
    if caller is None:
        if not await directory.look_again():
            raise Refusal(
                "service_unavailable", "The database is away, so this key cannot be judged. Try again shortly."
            )
        caller = directory.find_caller(parsed.text)
    if caller is None:
        raise Refusal("invalid_api_key")
    directory.meet(text, caller)
    return caller


def _extract(exchange: Exchange) -> bytes | None:
    if exchange.query and _IN_QUERY.search(exchange.query):
        raise Refusal("invalid_request", "Send the credential in a header: a URL ends up in logs.")
    headers = exchange.headers
    if not exchange.repeated and headers.keys().isdisjoint(_OTHERS):
        value = headers.get(_BEARER)  # nearly every request: one carrier, the usual one
        return None if value is None else _bearer(value)
    found = {
        _bearer(value) if name == _BEARER else value.strip()
        for name, value in (*headers.items(), *exchange.repeated)
        if name == _BEARER or name in _OTHERS
    }
    if len(found) > 1:
        raise Refusal("invalid_request", "Two different credentials were sent. Send one.")
    return found.pop() if found else None


def _bearer(value: bytes) -> bytes:
    scheme, _, credential_text = value.strip().partition(b" ")
    if scheme.lower() != b"bearer" or not credential_text:
        raise Refusal("invalid_token_format", "Send the credential as 'Authorization: Bearer <key>'.")
    return credential_text.strip()
