"""The test of a connection: the provider's cheapest call with a credential, and what its answer says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from ostiary.providers.address import probe_url_of
from ostiary.providers.auth import probe_headers
from ostiary.providers.catalog import Provider
from ostiary.providers.transport import Transport, TransportError, Waits
from ostiary.providers.verdict import judge, said
from ostiary.secret import Secret

Outcome = Literal["valid", "invalid_key", "no_model_access", "network", "unknown"]

_WAITS: Final = Waits(connect_s=10, first_byte_s=20, idle_s=10, total_s=30)
_LONGEST_ANSWER: Final = 4_194_304
"""The list of a large provider's models is over a megabyte."""
_BAD_REQUEST: Final = 400
_REDIRECTS: Final = range(300, 400)
_JSON: Final = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a test call said, in the provider's words without what identifies its owner."""

    outcome: Outcome
    message: str


async def test(
    transport: Transport,
    provider: Provider,
    base_url: str,
    fields: Mapping[str, str],
    secret: Secret,
    auth: str | None = None,  # noqa: PT028 - it tests a connection, and is no test of ours
) -> TestResult:
    """Make the provider's cheapest call with this credential, as a real call would go. Holds no transaction.

    Where keys may be left out, it is made once more without one: a server that answers that, too, takes any key.
    """
    result = await _ask(transport, provider, base_url, fields, secret, auth)
    if result.outcome == "valid" and provider.key_optional and secret:
        without = await _ask(transport, provider, base_url, fields, Secret(""), auth)
        if without.outcome == "valid":
            return TestResult("valid", f"{provider.name} answers without a key, too: as it is set up, it takes any.")
    return result


async def _ask(
    transport: Transport,
    provider: Provider,
    base_url: str,
    fields: Mapping[str, str],
    secret: Secret,
    auth: str | None,
) -> TestResult:
    probe = provider.test
    url = probe_url_of(provider, base_url, fields)
    sent = probe_headers(provider, fields, secret, auth) + ([_JSON] if probe.body else [])
    try:
        answer = await transport.send(probe.method, url, sent, probe.body, _WAITS)
        body = _read(await answer.read(_LONGEST_ANSWER))
    except TransportError as error:
        return TestResult("network", f"{provider.name} was not reached: {error.text}.")
    if answer.status in _REDIRECTS:  # whatever the row proves: what answered is not known to be the provider's API
        said_so = f"{provider.name} answered {answer.status}, a redirect, which is not followed."
        return TestResult("network", f"{said_so} If its API has moved, give its new address as the base URL.")
    return _judged(provider, answer.status, body, said(body, (secret.reveal(), *fields.values())) or "")


def _judged(provider: Provider, status: int, body: Mapping[str, object] | None, message: str) -> TestResult:
    """The outcome. A 400 is of a bad key only when its words say so: they are the same for calls and for tests."""
    shown = f"{provider.name} answered {status}" + (f": {message}" if message else ".")
    if 200 <= status < 300:  # noqa: PLR2004 - what HTTP calls success
        if not provider.test.proves:
            return TestResult("unknown", f"{provider.name} answered, as it does to anyone: only a call proves the key.")
        return TestResult("valid", f"{provider.name} accepts the key.")
    verdict = judge(status, None, body, provider.id)
    if verdict.cause == "money":
        return TestResult("valid", f"{provider.name} accepts the key, but its account is out of money. {shown}")
    if verdict.cause == "bad_key" or (status in provider.test.bad_key and status != _BAD_REQUEST):
        return TestResult("invalid_key", shown)
    if verdict.cause == "denied" or (verdict.code == "model_not_found" and provider.test.body is not None):
        return TestResult("no_model_access", shown)
    return TestResult("unknown", shown)


def _read(body: bytes) -> Mapping[str, object] | None:
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return told if isinstance(told, dict) else None
