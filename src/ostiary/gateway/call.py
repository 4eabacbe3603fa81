"""What is asked for: the body, parsed only where we act on it."""

from __future__ import annotations

from itertools import accumulate
from typing import Final

import msgspec

from ostiary.errors import Refusal
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.form import MOST, read_form
from ostiary.gateway.gate import Gate
from ostiary.money import nano_of
from ostiary.providers.dialect import Ask

_DEEPEST: Final = 64
_MOST_CONTAINERS: Final = 250_000
"""Arrays and objects in one body: far more than any conversation has, and still parsed at once."""
_LONGEST_NAME: Final = 200
_PIECE: Final = 65_536
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Which bracket closes which is the parser's to judge; for the depth they are one up (1) or one down (-1)."""
_JSON: Final = b"application/json"
_IDENTITY: Final = frozenset({b"", b"identity"})
_PATHS_OF_FORMS: Final = tuple("/" + operation.replace(".", "/") for operation in MOST)
"""Elsewhere, as where a call is explained, a form is spoken of in JSON."""


class Call(msgspec.Struct):
    """One call: which operation, what was asked, and the caller's own cap on its cost in nano-dollars."""

    operation: str
    ask: Ask
    max_cost_nano: int | None
    previous_response_id: str | None = None
    """The response it goes on from: only the provider key that gave it knows it."""


async def read_call(gate: Gate, exchange: Exchange, operation: str) -> Call:
    """Read and parse the body; refuses what is too slow, too large, too deep, not JSON or of the wrong type."""
    max_cost_nano = _max_cost(exchange)
    if operation in MOST and exchange.path.endswith(_PATHS_OF_FORMS):
        form = await read_form(exchange, operation, gate.uploads, gate.patience.body_s)
        ask = gate.dialect.read_form(operation, form)
    else:
        _require_json(exchange)
        body = await exchange.read_body(gate.patience.body_s)
        _require_plain(body)
        ask = gate.dialect.read_ask(operation, body)
    if not ask.model or len(ask.model) > _LONGEST_NAME or not ask.model.isprintable():
        raise Refusal("invalid_request", f"`model` must be 1 to {_LONGEST_NAME} printable characters.", param="model")
    return Call(operation, ask, max_cost_nano, ask.previous_response_id)


def is_too_deep(body: bytes) -> bool:
    """Whether arrays and objects are nested deeper than 64 levels.

    Strings are left out by counting quotes, a piece at a time, so that hostile bodies take no more memory than others.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = in_string = 0
    for start in range(0, len(body), _PIECE):
        parts = body[start : start + _PIECE].split(b'"')
        steps = b"".join(parts[in_string::2]).translate(_STEPS, _NOT_BRACKETS)
        if max(accumulate(memoryview(steps).cast("b"), initial=depth)) > _DEEPEST:
            return True
        depth += 2 * steps.count(1) - len(steps)
        in_string = (in_string + len(parts) - 1) % 2
    return False


def _require_plain(body: bytes) -> None:
    """What a parser should not be given: another encoding, too many levels, too many things."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise Refusal("invalid_request", f"The body is not UTF-8 (byte {error.start}).") from None
    containers = body.count(b"{") + body.count(b"[")
    if containers > _MOST_CONTAINERS:
        raise Refusal("invalid_request", f"The body holds more than {_MOST_CONTAINERS} arrays and objects.")
    if containers > _DEEPEST and is_too_deep(body):
        raise Refusal("invalid_request", f"The body is nested deeper than {_DEEPEST} levels.")


def _require_json(exchange: Exchange) -> None:
    headers = exchange.headers
    kind = headers.get(b"content-type", _JSON)
    if kind != _JSON and kind.partition(b";")[0].strip().lower() != _JSON:
        raise Refusal("unsupported_media_type")
    if b"content-encoding" in headers and headers[b"content-encoding"].strip().lower() not in _IDENTITY:
        raise Refusal("unsupported_media_type", "Send the body uncompressed.")


def _max_cost(exchange: Exchange) -> int | None:
    text = exchange.headers.get(b"x-ostiary-max-cost-usd")
    if text is None:
        return None
    try:
        return nano_of(text.decode("latin-1"))
    except (ValueError, ArithmeticError):
        raise Refusal(
            "invalid_request",
            "x-ostiary-max-cost-usd must be an amount in USD with at most nine decimals, such as 0.25.",
            param="x-ostiary-max-cost-usd",
        ) from None
