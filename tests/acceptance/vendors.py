"""A gateway whose provider keys all lead to aimock: to the addresses of their providers, and to faults by model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import openai

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.ledger import prices
from ostiary.providers import catalog
from ostiary.secret import Secret
from ostiary.vault import endpoints, provider_keys
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EndpointTarget
from ostiary.vault.provider_keys import NewProviderKey
from tests.acceptance.inside import OPERATOR, USD, Key, do, mint
from tests.servers import aimock
from tests.servers.aimock import Aimock, Fixture
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, making
from tests.servers.shell import Shell

TEXT: Final = "The door is open, pass."
GIVEN, MADE = 11, 7
CALL: Final = {"id": "call_1", "name": "keeper_of", "arguments": {"door": "west"}}
AZURE: Final = "azure-openai"
SECOND, DOUBTFUL = "xai", "cerebras"
"""Whom calls fall back to; and who has a key that is not valid, beside one that is."""

_USAGE: Final = {"prompt_tokens": GIVEN, "completion_tokens": MADE}
_FIELDS: Final = {AZURE: {"api_version": "2024-10-21"}}
_RATES: Final = {
    "steady": {"input": USD, "output": 2 * USD},
    "tooled": {"input": USD, "output": 2 * USD},
    "thinker": {"input": USD, "output": 2 * USD},
    "vectors": {"input": USD, "output": 0},
    "dots": {"image": 40_000 * USD},
    "voice": {"character": 15 * USD},
    "ears": {"audio_minute": 6_000 * USD},
}
"""Nano-dollars per million."""


def _error(model: str, status: int, code: str | None = None, **more: Any) -> Fixture:
    error = {"message": f"Said {status}", "type": "some_error", "code": code}
    return {"match": {"model": model}, "response": {"error": error, "status": status, **more}}


def _text(model: str, **more: Any) -> Fixture:
    return {"match": {"model": model, "endpoint": "chat"}, "response": {"content": TEXT, "usage": _USAGE}, **more}


_FAULTY: Final = [
    _error("pace", 429, "rate_limit_exceeded", retryAfter=90),
    _error("quota", 429, "insufficient_quota", retryAfter=90),
    _error("unpaid", 402),
    _error("barred", 403),
    _error("crash", 500),
    _error("busy", 503),
    _error("overloaded", 529),
    _error("wrong", 400),
    _error("unknown", 404, "model_not_found"),
    _text("dropped", chaos={"dropRate": 1}),
    _text("gone", chaos={"disconnectRate": 1}),
    _text("garbled", chaos={"malformedRate": 1}),
    # The chunk after which a stream ends is never sent, and those before it only because they had the time to be.
    _text("begun", chunkSize=5, latency=20, truncateAfterChunks=2),
    _text("torn", chunkSize=5, latency=20, truncateAfterChunks=4),
]
_SOUND: Final = [
    _text("steady", chunkSize=5, openRouterProcessing=True),
    {
        "match": {"model": "tooled", "hasToolResult": False},
        "response": {"toolCalls": [CALL], "usage": _USAGE},
        "chunkSize": 4,
    },
    {"match": {"model": "tooled", "hasToolResult": True}, "response": {"content": TEXT, "usage": _USAGE}},
    {"match": {"model": "thinker"}, "response": {"content": TEXT, "reasoning": "Who is it?", "usage": _USAGE}},
    {"match": {"model": "vectors", "endpoint": "embedding"}, "response": {"embedding": [0.25, -0.5]}},
    {"match": {"model": "dots", "endpoint": "image"}, "response": {"images": [{"b64Json": "AAAA"}] * 2}},
    {"match": {"model": "voice", "endpoint": "speech"}, "response": {"audio": "SUQzBAAA", "format": "mp3"}},
    {
        "match": {"model": "ears", "endpoint": "transcription"},
        "response": {"transcription": {"text": TEXT, "usage": {"type": "duration", "seconds": 9}}},
    },
]
_PATIENT: Final = """
    moonshot minimax stepfun meta together nvidia sambanova siliconflow nebius baseten hyperbolic scaleway huggingface
    requesty poe mistral dashscope volcengine zai ai21 ovhcloud ollama-cloud vercel-ai-gateway vllm lmstudio ollama
    llamacpp deepseek
"""
_MISHAPS: Final = {
    (fixture["match"]["model"], stream): provider
    for (fixture, stream), provider in zip(product(_FAULTY, (False, True)), _PATIENT.split(), strict=True)
}
"""Who has which fault: a provider each, so that what one does to a key or a provider is no matter of the others."""


@dataclass(frozen=True, slots=True)
class Vendors:
    """The gateway, who is behind it, and a caller."""

    house: Gateway
    aimock: Aimock
    key: Key
    http: httpx2.Client
    openai: openai.OpenAI
    admin: httpx2.Client
    """May read provider keys at the admin API."""

    def ask(self, model: str, text: str = "Who keeps the door?", *, stream: bool = False) -> httpx2.Response:
        """One chat."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        return self.http.post("/v1/chat/completions", json=body)

    def health(self, name: str) -> list[tuple[str, str | None]]:
        """What the vault says of a key: how it is, and at which model only."""
        found = self.admin.get(f"/api/v1/provider-keys/{name}").raise_for_status().json()["health"]
        return [(one["state"], one["model"]) for one in found]


def faulty(model: str, *, stream: bool) -> str:
    """The provider whose `model` goes wrong in calls of this kind."""
    return _MISHAPS[model, stream]


def route(model: str, *, stream: bool) -> str:
    """The endpoint that leads there first, and then to what is well."""
    return f"{model}-{'streamed' if stream else 'whole'}"


async def _furnish(base: Any, tx: Any, organization: Any, vendor: Aimock, providers: list[str]) -> None:
    at = base.clock.now()

    async def keep(provider: str, name: str, secret: str) -> None:
        row = base.catalog.get(provider)
        where = vendor.origin + urlsplit(row.base_url or "").path
        wish = NewProviderKey(name, row, Secret(secret), where, fields=_FIELDS.get(provider, {}))
        await provider_keys.add(tx, OPERATOR, organization.id, wish, seal=base.seal, egress=base.egress, at=at)

    async def price(provider: str, model: str, rates: dict[str, int]) -> None:
        await prices.set_price(tx, OPERATOR, base.catalog.get(provider), model, rates, at)

    for provider in {*providers, SECOND, DOUBTFUL, *_MISHAPS.values()}:
        await keep(provider, provider, vendor.keys[0])
    await keep(DOUBTFUL, f"{DOUBTFUL}-wrong", f"not-{vendor.keys[0]}")
    for model, rates in _RATES.items():
        await price("openai", model, rates)
    for provider in {*providers, SECOND, DOUBTFUL} - {"openai"}:
        await price(provider, "steady", _RATES["steady"])
    for (model, stream), provider in _MISHAPS.items():
        await price(provider, model, _RATES["steady"])
        targets = EndpointTarget(provider, model), EndpointTarget(SECOND, "steady")
        wish = NewEndpoint(route(model, stream=stream), targets)
        await endpoints.create(tx, OPERATOR, organization.id, wish, catalog=base.catalog, at=at)


@contextmanager
def vendors_of(
    folder: Path, canaries: Canaries, shell: Shell, started: Path, providers: list[str]
) -> Iterator[Vendors]:
    """One gateway, and one aimock for all of these providers and the faulty ones."""
    with (
        aimock.running(folder, canaries, [*_FAULTY, *_SOUND]) as vendor,
        making(folder, canaries, shell, started) as maker,
    ):
        house = maker(allow=[vendor.origin])
        do(house, lambda base, tx, organization: _furnish(base, tx, organization, vendor, providers))
        (key,) = mint(house, NewAgentKey(name="caller"))
        with openai.OpenAI(base_url=house.url, api_key=key.secret, max_retries=0) as client:
            yield Vendors(house, vendor, key, house.client(key.secret), client, house.client(_admin_of(house)))


def _admin_of(house: Gateway) -> str:
    house.cli("members", "add", "alice@example.org", "--role", "owner")
    return house.create_key("admin", "--owner", "alice@example.org", "--scopes", "admin:provider-keys:read")


def stream_tells(provider: str) -> bool:
    """Whether the provider is asked to tell in a stream what was used."""
    return catalog.load().get(provider).stream_usage != "always"
