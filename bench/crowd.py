"""Many agent keys in one go, as different from one another as keys are, beside the one that is measured."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from ostiary.agents import credential
from ostiary.clock import DAY_MS, month_of
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ground import ground
from ostiary.ids import new_id
from ostiary.limits.budgets import TOTAL
from ostiary.logs import configure
from ostiary.secret import Secret
from ostiary.settings import Settings

_BATCH = 5_000
_MODELS = ("openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-sonnet-4", "groq/llama-3.3-70b-versatile")
_CENT = 10**7

Row = dict[str, Any]


def join(count: int, *, data_dir: Path, env: Mapping[str, str]) -> None:
    """Add `count` keys to the house: rows as `keys create` makes them, but without a place in the audit log."""
    settings = Settings.load(environment=env, data_dir=data_dir)
    configure(replace(settings, log_level="warning"))
    asyncio.run(_join(count, settings))


async def _join(count: int, settings: Settings) -> None:
    async with ground(settings) as base:
        for start in range(0, count, _BATCH):
            async with base.database.transaction() as tx:
                await _insert(tx, base.seal.pepper, range(start, min(start + _BATCH, count)), base.clock.now())


async def _insert(tx: Transaction, pepper: Secret, numbers: range, now: int) -> None:
    bench = select(schema.agent_keys).where(schema.agent_keys.c.name == "bench")
    model = dict((await tx.execute(bench)).mappings().one())
    chance = random.Random(numbers.start)  # noqa: S311 - the same crowd every time
    keys = [_key(model, number, now, chance) for number in numbers]
    secrets = [_secret(pepper, key) for key in keys]
    budgets = [_budget(key, chance) for key in keys if chance.random() < 0.75]
    for table, rows in (
        (schema.agent_keys, keys),
        (schema.agent_key_secrets, secrets),
        (schema.budgets, budgets),
        (schema.accounts, [row for budget in budgets for row in _accounts(budget, now)]),
    ):
        await tx.execute(insert(table), rows)


def _key(model: Row, number: int, now: int, chance: random.Random) -> Row:
    """Some are for certain models, some for certain addresses, of which each has its own; most expire."""
    chosen = sorted(chance.sample(_MODELS, chance.choice((0, 0, 1, 2))))
    address = [f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32"] if chance.random() < 0.25 else []
    return {
        **model,
        "id": new_id("key", now),
        "name": f"agent-{number:06}",
        "expires_at": now + chance.randrange(1, 365) * DAY_MS if chance.random() < 0.75 else None,
        "rpm": chance.choice((None, 60, 600)),
        "rpd": chance.choice((None, 10_000)),
        "tpm": chance.choice((None, 100_000)),
        "parallel": chance.choice((None, 8)),
        "models_mode": "only" if chosen else "all",
        "models": chosen,
        "addresses_mode": "only" if address else "all",
        "addresses": address,
        "metadata": {"team": f"team-{number % 40}"} if chance.random() < 0.5 else {},
        "created_at": now,
        "updated_at": now,
        "last_used_at": now - chance.randrange(30 * DAY_MS),
    }


def _secret(pepper: Secret, key: Row) -> Row:
    text = credential.mint("pat").reveal()
    return {
        "digest": credential.digest(pepper, text),
        "agent_key_id": key["id"],
        "preview": credential.preview(text),
        "created_at": key["created_at"],
        "expires_at": None,
    }


def _budget(key: Row, chance: random.Random) -> Row:
    cap = chance.randrange(100, 100_000) * _CENT
    soft = cap // 2 if chance.random() < 0.25 else None
    kind = chance.choice(("month", "month", TOTAL))
    return {
        "scope": "agent_key",
        "id": key["id"],
        "kind": kind,
        "cap_nano": cap,
        "soft_nano": soft,
        "thresholds": [50, 80, 100],
    }


def _accounts(budget: Row, now: int) -> Iterator[Row]:
    for kind, period_id in (("month", month_of(now)), (TOTAL, TOTAL)):
        yield {
            "scope": "agent_key",
            "id": budget["id"],
            "period_id": period_id,
            "cap_nano": budget["cap_nano"] if budget["kind"] == kind else None,
            "spent_nano": 0,
            "leased_nano": 0,
        }
