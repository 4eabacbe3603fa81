"""One try of one call at one provider with one provider key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ostiary.errors import TABLE, Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.gate import Gate
from ostiary.gateway.hurry import hurried
from ostiary.gateway.target import Target
from ostiary.providers.address import url_of
from ostiary.providers.tokens import Tokens
from ostiary.providers.transport import Answer, Headers, TransportError, Waits
from ostiary.providers.verdict import Verdict, judge, scrub, status_in

_MOST_ERROR: Final = 65_536
_OK: Final = 200
_UNKNOWN: Final = 404
_NO_MODEL: Final[Mapping[str, object]] = MappingProxyType({"error": MappingProxyType({})})
_REFUSED: Final = (400, 422)
_MOST_BOUNDS: Final = 5
"""From 32,768 tokens that is down to 128."""
_WORD: Final = re.compile(r"[\w.\[\]-]{1,100}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer to relay.

    `how` is our short word for what happened where there was no error from the provider; `said` is the provider's
    error, not scrubbed; `retry_after` is how many seconds it wants us to wait.
    """

    verdict: Verdict
    http_status: int
    how: str | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    retry_after: int | None = None
    tokens: Tokens | None = None
    """What the provider counted all the same: then it charges for it."""
    headers: Headers = field(default_factory=partial(Headers, {}), repr=False)
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What came with it, for who asks when to try again."""

    @property
    def message(self) -> str:
        """The provider's words, not scrubbed; empty when there are none."""
        message = self.said.get("message")
        return message if isinstance(message, str) else ""

    def word(self, name: str) -> str | None:
        """A field of the provider's error if it is one plain word: `code`, `param`."""
        value = self.said.get(name)
        return value if isinstance(value, str) and _WORD.fullmatch(value) else None


async def attempt(
    gate: Gate, call: Call, target: Target, max_tokens: int | None, timeout_s: float | None = None
) -> Answer | Failure:
    """Send the call; an open answer of status 200, or why there is none. `timeout_s` is the endpoint's own.

    A bound that is ours, not the caller's, and that the provider finds too large is lowered until it does not: what
    is refused so costs nothing, and the caller never asked for it.
    """
    waits = gate.patience.provider
    if timeout_s is not None:
        waits = hurried(waits, timeout_s, is_stream=call.ask.stream)
    is_ours = max_tokens is not None and call.ask.output_tokens is None
    if max_tokens is None or not is_ours:
        return await _send(gate, call, target, max_tokens, waits)
    place = target.provider.id, target.model
    bound = gate.bounds.fit(*place, max_tokens)
    for _ in range(_MOST_BOUNDS):
        answer = await _send(gate, call, target, bound, waits)
        if isinstance(answer, Answer) or answer.http_status not in _REFUSED:
            return answer
        lower = gate.bounds.learn(*place, bound, answer.message)
        if lower is None:
            return answer
        bound = lower
    return answer


async def _send(gate: Gate, call: Call, target: Target, max_tokens: int | None, waits: Waits) -> Answer | Failure:
    body = gate.dialect.write_body(call.ask, target.provider, target.model, max_tokens)
    key, path = target.key, gate.dialect.path_of(call.operation)
    try:
        url = url_of(key.provider, key.base_url, key.fields, call.operation, path, target.model)
    except Refusal:  # the model's name cannot stand in an address
        return Failure(judge(_UNKNOWN, None, _NO_MODEL), 0, "no_address")
    try:
        answer = await gate.transport.send("POST", url, target.key.headers, body, waits)
    except TransportError as error:
        return failed_on_the_way(error, 0)
    if answer.status == _OK:
        return answer
    try:
        body = await answer.read(_MOST_ERROR)
    except TransportError:
        body = b""
    said = _object_in(body)
    seconds = _SECONDS.fullmatch(answer.headers.get("retry-after", ""))
    return Failure(
        judge(answer.status, None, said, target.provider.id),
        answer.status,
        said=_error_of(said),
        retry_after=int(seconds[0]) if seconds else None,
        headers=answer.headers,
        body=said or {},
    )


def failed_on_the_way(error: TransportError, http_status: int) -> Failure:
    """No answer, or one that broke off."""
    return Failure(judge(None, error, None), http_status, error.kind)


def failed_in_answer(error: Mapping[str, Any], tokens: Tokens | None, target: Target | None) -> Failure:
    """An error that came with status 200, in a body or in a stream before its first content, and what it counted."""
    by = target.provider.id if target is not None else ""
    return Failure(judge(status_in(error), None, {"error": dict(error)}, by), _OK, said=error, tokens=tokens)


def not_understood(how: str) -> Failure:
    """An answer of status 200 that is not one."""
    return Failure(judge(_OK, None, None), _OK, how)


def _object_in(body: bytes) -> Mapping[str, Any] | None:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if isinstance(said, list) and said:  # as Google wraps the errors of its streams
        said = said[0]
    return said if isinstance(said, dict) else None


def _error_of(said: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The error object of a body, in whichever of the usual places it is."""
    error = (said or {}).get("error", said)
    if isinstance(error, Mapping):
        return error
    return {"message": error} if isinstance(error, str) else {}


def _deciding(failures: Sequence[Failure]) -> int:
    """The last; but that one target does not have its model tells little where others failed otherwise."""
    others = [place for place, failure in enumerate(failures) if failure.verdict.next != "next_target"]
    return others[-1] if others else len(failures) - 1


def refusal_of(call: Call, failures: list[tuple[Target, Failure]]) -> Refusal:
    """What the caller hears when no attempt succeeded: the verdict that decides, and each in its words, scrubbed."""
    tried = [
        {
            "provider": target.provider.id,
            "model": target.model,
            "status": failure.http_status or None,
            "code": failure.verdict.code,
            "reason": failure.how or failure.verdict.reason,
            "provider_code": failure.word("code"),
            "message": scrub(failure.message, target.key.secrets),
        }
        for target, failure in failures
    ]
    place = _deciding([failure for _, failure in failures])
    last = failures[place][1]
    verdict, said = last.verdict, str(tried[place]["message"])
    if verdict.scope == "caller":
        message = said or f"{TABLE[verdict.code].message} The provider said no more."
    else:
        message = f"{TABLE[verdict.code].message} The last attempt: {verdict.reason}" + (f": {said}" if said else ".")
    waits = [failure.retry_after for _, failure in failures if failure.retry_after is not None]
    param = last.word("param") if verdict.scope == "caller" else None
    return Refusal(
        verdict.code,
        message,
        status=verdict.status,
        param=param or ("model" if verdict.code == "model_not_found" else None),
        headers=((b"retry-after", b"%d" % min(waits)),) if waits else (),
        model=call.ask.model,
        attempts=tried,
    )
