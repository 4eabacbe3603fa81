"""Who is calling: one extractor for every carrier, one look-up in memory."""

from __future__ import annotations

import re
from typing import Final

from ostiary.agents import credential
from ostiary.errors import Refusal
from ostiary.gateway.directory import Caller, Directory
from ostiary.gateway.exchange import Exchange

_BEARER: Final = b"authorization"
_CARRIERS: Final = frozenset({_BEARER, b"x-api-key", b"api-key", b"x-goog-api-key"})
_IN_QUERY: Final = re.compile(
    rb"(?:^|&)(?:key|api_key|api-key|apikey|token|access_token)=|ost_|org_[0-9A-Za-z]{22}", re.IGNORECASE
)


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
    parsed = credential.parse(text)
    if parsed is None:
        raise Refusal("invalid_token_format")
    caller = directory.find_caller(parsed.text)
    if caller is None and await directory.look_again():
        caller = directory.find_caller(parsed.text)
    if caller is None:
        raise Refusal("invalid_api_key")
    return caller


def _extract(exchange: Exchange) -> str | None:
    query = exchange.scope["query_string"]
    if query and _IN_QUERY.search(query):
        raise Refusal("invalid_request", "Send the credential in a header: a URL ends up in logs.")
    headers = exchange.headers
    if (
        len(headers) == len(exchange.raw_headers)
        and _BEARER in headers
        and _CARRIERS.isdisjoint(headers.keys() - {_BEARER})
    ):
        found = {headers[_BEARER]}
    else:
        found = {
            value if name == _BEARER else b"Bearer " + value
            for name, value in exchange.raw_headers
            if name in _CARRIERS
        }
    found = {value.strip() for value in found}
    if not found:
        return None
    if len(found) > 1:
        raise Refusal("invalid_request", "Two different credentials were sent. Send one.")
    scheme, _, text = found.pop().partition(b" ")
    if scheme.lower() != b"bearer" or not text.strip():
        raise Refusal("invalid_token_format", "Send the credential as 'Authorization: Bearer <key>'.")
    return str(text.strip(), "latin-1")
