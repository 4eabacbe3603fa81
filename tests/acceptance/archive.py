"""A past for a gateway: months of calls as its writer would have written them, so that pages have something to show."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ostiary.clock import DAY_MS
from ostiary.db.database import Database
from ostiary.ids import new_id
from ostiary.ledger import writer
from ostiary.ledger.events import Event
from tests.servers.gateway import Gateway

MODELS: Final = (
    ("openai", "gpt-4o", 2_500, 10_000),
    ("anthropic", "claude-sonnet-4", 3_000, 15_000),
    ("groq", "llama-3.3-70b-versatile", 590, 790),
)
"""Provider, model, and nano-dollars a token in and out."""
HOSTILE: Final = "<img src=x onerror=alert(1)>\"'{{7*7}}"


@dataclass(frozen=True, slots=True)
class Caller:
    """An agent key as events name it."""

    id: str
    name: str


def remember(gateway: Gateway, organization_id: str, callers: Sequence[Caller], days: int = 30, a_day: int = 6) -> int:
    """Write calls of the last days, the newest a minute ago; how many. The same ones every time."""
    chance = random.Random(7)  # noqa: S311 - the same every time
    now = time.time_ns() // 1_000_000
    events = [
        made(now - 60_000 - day * DAY_MS - number * 3_600_000, organization_id, callers[number % len(callers)], chance)
        for day in range(days)
        for number in range(a_day - day % 3)
    ]
    write(gateway, events)
    return len(events)


def made(at: int, organization_id: str, caller: Caller, chance: random.Random, **more: Any) -> Event:
    """One attempt."""
    provider, model, given_nano, made_nano = MODELS[int(chance.random() ** 2 * len(MODELS))]
    given, answered = chance.randrange(200, 4_000), chance.randrange(50, 900)
    is_wrong = chance.random() < 0.04
    values: dict[str, Any] = {
        "request_id": new_id("req", at),
        "attempt": 1,
        "organization_id": organization_id,
        "agent_key_id": caller.id,
        "agent_key_name": caller.name,
        "credential_id": None,
        "operation": "chat",
        "provider": provider,
        "model_asked": model,
        "model": model,
        "provider_key_id": f"pkey_{provider}",
        "provider_key_name": f"{provider} main",
        "stream": True,
        "started_at": at,
        "client_ip": "192.0.2.7",
        "metadata": {"team": "search"},
        "held_nano": 50_000_000,
        "leased": (),
        "price_version": "p1",
        "cost_nano": 0 if is_wrong else given * given_nano + answered * made_nano,
        "usage_source": "none" if is_wrong else "provider",
        "status": "error" if is_wrong else "ok",
        "http_status": 500 if is_wrong else 200,
        "error_code": "provider_error" if is_wrong else None,
        "input_tokens": 0 if is_wrong else given,
        "output_tokens": 0 if is_wrong else answered,
        "latency_ms": chance.randrange(300, 9_000),
        "first_token_ms": 210,
        "timings": {
            "identify_us": 14,
            "admit_us": 22,
            "reserve_us": 31,
            "attempt_us": 280_000,
            "relay_us": 900_000,
            "settle_us": 45,
        },
        "held_at": at,
    }
    return Event(**{**values, **more})


def write(gateway: Gateway, events: Sequence[Event]) -> None:
    """Beside the gateway, as the writer of another process does."""

    async def run() -> None:
        database = Database(f"sqlite:///{gateway.data_dir / 'ostiary.db'}")
        try:
            async with database.transaction() as tx:
                await writer.write_events(tx, "spool_of_the_past", list(events))
        finally:
            await database.close()

    asyncio.run(run())
