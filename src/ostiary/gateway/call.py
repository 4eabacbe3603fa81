"""What is asked for: the body, parsed only where we act on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ostiary.errors import Refusal
from ostiary.gateway.exchange import Exchange
from ostiary.money import nano_of
from ostiary.providers.dialect import Ask, Dialect

_DEEPEST: Final = 64
_LONGEST_NAME: Final = 200
_STRINGS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
"""Which bracket closes which is the parser's to judge; for the depth they are alike."""
_IDENTITY: Final = frozenset({b"", b"identity"})


@dataclass(slots=True)
class Call:
    """One call: which operation, what was asked, and the caller's own cap on its cost in nano-dollars."""

    operation: str
    ask: Ask
    max_cost_nano: int | None


async def read_call(exchange: Exchange, operation: str, dialect: Dialect) -> Call:
    """Read and parse the body; refuses what is too large, too deep, not JSON or of the wrong type."""
    _require_json(exchange)
    body = await exchange.read_body()
    if is_too_deep(body):
        raise Refusal("invalid_request", f"The body is nested deeper than {_DEEPEST} levels.")
    ask = dialect.read_ask(operation, body)
    if not ask.model or len(ask.model) > _LONGEST_NAME or not ask.model.isprintable():
        raise Refusal("invalid_request", f"`model` must be 1 to {_LONGEST_NAME} printable characters.", param="model")
    return Call(operation, ask, _max_cost(exchange))


def is_too_deep(body: bytes) -> bool:
    """Whether arrays and objects are nested deeper than 64 levels; cheap for bodies with few brackets."""
    if body.count(b"{") + body.count(b"[") <= _DEEPEST:
        return False
    brackets = _STRINGS.sub(b"", body).translate(_ALIKE, _NOT_BRACKETS)
    for _ in range(_DEEPEST):
        shallower = brackets.replace(b"[]", b"")
        if len(shallower) == len(brackets):
            return bool(brackets) and len(brackets) > _DEEPEST  # unbalanced: the parser will say where
        brackets = shallower
    return bool(brackets)


def _require_json(exchange: Exchange) -> None:
    kind = exchange.headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal("unsupported_media_type")
    if exchange.headers.get(b"content-encoding", b"").strip().lower() not in _IDENTITY:
        raise Refusal("unsupported_media_type", "Send the body uncompressed.")


def _max_cost(exchange: Exchange) -> int | None:
    text = exchange.headers.get(b"x-ostiary-max-cost-usd")
    if text is None:
        return None
    try:
        return nano_of(text.decode("latin-1"))
    except ValueError as error:
        raise Refusal("invalid_request", f"x-ostiary-max-cost-usd: {error}.", param="x-ostiary-max-cost-usd") from None
