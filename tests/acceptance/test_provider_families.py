"""What each family of providers says with an error, in its own words, and what that makes of the key at the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.pair import Pair, pair_of
from tests.contract.catalog_facts import refusal_of
from tests.servers import behaviours
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Behaviour, Exchange


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("families"), canaries, shell) as made:
        yield made


@dataclass(frozen=True)
class Said:
    """An error, and what the key is afterwards: as a whole, or for the model alone."""

    provider: str
    status: int
    body: bytes
    state: str | None
    of_model: bool = False

    @property
    def name(self) -> str:
        return f"{self.provider} {self.status}"

    def speak(self) -> Behaviour:
        """So at calls; at the list of models, by which keys are tested, without the wrapping.

        Who is to slow down is told for how long: it would else be over in five seconds, which a busy machine takes.
        """
        lines = [b"retry-after: 900"] if self.state == "cooling" else []

        async def refuse(exchange: Exchange) -> None:
            is_test = exchange.request.method == "GET"
            body = self.body.removeprefix(b"[").removesuffix(b"]") if is_test else self.body
            await behaviours.said(self.status, body, *lines)(exchange)

        return refuse


def error(**fields: Any) -> bytes:
    return json.dumps({"error": {"message": "No.", **fields}}).encode()


def wrapped(body: bytes) -> bytes:
    """As Google's door for OpenAI's dialect sends it: in a list."""
    return b"[" + body + b"]"


def google(status: str, reason: str | None = None, message: str = "No.") -> bytes:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    return wrapped(error(message=message, status=status, details=[info] if reason else []))


SPEND_LIMIT = {"error_code": "enforced_spend_limit_reached"}
KEYS_FAULT = [
    Said("openai", 429, error(type="insufficient_quota", code="credit_balance_exhausted"), "exhausted"),
    Said("openai", 429, error(code="organization_spend_limit_exceeded"), "exhausted"),
    Said("openai", 429, error(type="requests", code="rate_limit_exceeded"), "cooling", of_model=True),
    Said("openai", 503, error(code="slow_down"), "cooling", of_model=True),
    Said("openai", 503, error(code="server_is_overloaded"), "degraded"),
    Said("openai", 401, error(code="invalid_api_key"), "disabled"),
    Said("openai", 403, error(code="unsupported_country_region_territory"), None),
    Said("anthropic", 429, error(type="rate_limit_error"), "cooling", of_model=True),
    Said("anthropic", 429, error(type="rate_limit_error", details=SPEND_LIMIT), "exhausted"),
    Said("anthropic", 402, error(type="billing_error"), "exhausted"),
    Said("anthropic", 401, error(type="authentication_error"), "disabled"),
    Said("anthropic", 529, error(type="overloaded_error"), "degraded"),
    Said("gemini", 400, wrapped(refusal_of("gemini", 400)), "disabled"),
    Said("gemini", 400, google("FAILED_PRECONDITION", None, "User location is not supported for the API use."), None),
    Said("gemini", 401, wrapped(refusal_of("gemini", 401)), "disabled"),
    Said("gemini", 403, google("PERMISSION_DENIED", "CONSUMER_SUSPENDED"), "disabled"),
    Said("gemini", 429, google("RESOURCE_EXHAUSTED"), "cooling", of_model=True),
    Said("gemini", 503, google("UNAVAILABLE"), "degraded"),
]
CALLERS_FAULT = [
    Said("openai", 400, error(type="invalid_request_error"), None),
    Said("anthropic", 400, error(type="invalid_request_error"), None),
    Said("anthropic", 413, error(type="request_too_large"), None),
    Said("gemini", 400, google("INVALID_ARGUMENT"), None),
]


@pytest.mark.parametrize("said", KEYS_FAULT, ids=lambda said: said.name)
def test_what_is_the_keys_costs_the_key_and_the_caller_hears_nothing_of_it(pair: Pair, said: Said) -> None:
    model = f"{said.provider}/m"
    with pair.lent(said.provider, "failing", priority=1), pair.lent(said.provider, "spare"):
        pair.by_key["failing"] = said.speak()
        answer = pair.ask(model)
        assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "2"), answer.text
        pair.await_state("failing", said.state)
        if said.state is not None:
            pair.hear()
            assert {pair.ask(model, at=at).headers["x-ostiary-attempts"] for at in (0, 1)} == {"1"}
        assert {one["model"] for one in pair.health("failing")} <= {"m" if said.of_model else None}
        assert pair.health("spare") == []


@pytest.mark.parametrize("said", CALLERS_FAULT, ids=lambda said: said.name)
def test_what_is_the_callers_costs_no_key_and_is_tried_nowhere_else(pair: Pair, said: Said) -> None:
    with pair.lent(said.provider, "failing", priority=1), pair.lent(said.provider, "spare"):
        pair.by_key["failing"] = said.speak()
        since = len(pair.upstream.calls)
        for _ in range(4):
            assert pair.ask(f"{said.provider}/m").status_code == said.status
        assert pair.used(since) == {"failing": 4}
        pair.hear()
        assert pair.health("failing") == pair.health("spare") == []
