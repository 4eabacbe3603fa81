"""One try of one call at one provider with one provider key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ostiary.gateway.call import Call
from ostiary.gateway.gate import Gate
from ostiary.gateway.plan import Target
from ostiary.providers.transport import Answer, TransportError, Waits
from ostiary.providers.verdict import Verdict, judge

_WAITS: Final = Waits()
_MOST_ERROR: Final = 65_536
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer to relay; `retry_after` is what the provider said, if it did."""

    verdict: Verdict
    http_status: int
    said: str
    retry_after: str | None = None


async def attempt(gate: Gate, call: Call, target: Target, max_tokens: int | None) -> Answer | Failure:
    """Send the call; an open answer of status 200, or why there is none."""
    body = gate.dialect.write_body(call.ask, target.provider, target.model, max_tokens)
    url = target.key.base_url + gate.dialect.path_of(call.operation)
    try:
        answer = await gate.transport.send("POST", url, target.key.headers, body, _WAITS)
    except TransportError as error:
        return Failure(judge(None, error, None), 0, error.kind)
    if answer.status == _OK:
        return answer
    try:
        said = _error_in(await answer.read(_MOST_ERROR))
    except TransportError:
        said = None
    retry_after = answer.headers.get("retry-after")
    return Failure(judge(answer.status, None, said), answer.status, _message_of(said), retry_after)


def failed_in_answer(error: Mapping[str, Any]) -> Failure:
    """An error that came with status 200, in a body or as the first event of a stream."""
    status = error.get("code")
    usual = status if isinstance(status, int) and 400 <= status <= 599 else 500  # noqa: PLR2004 - HTTP's error range
    return Failure(judge(usual, None, {"error": dict(error)}), _OK, _message_of({"error": dict(error)}))


def _error_in(body: bytes) -> Mapping[str, Any] | None:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return said if isinstance(said, dict) else None


def _message_of(said: Mapping[str, Any] | None) -> str:
    error = (said or {}).get("error", said)
    message = error.get("message") if isinstance(error, Mapping) else error
    return message if isinstance(message, str) else ""
