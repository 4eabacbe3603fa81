"""A vault as wide as they get: many providers with many keys each, own and of the pool, and endpoints and aliases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import payload
from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.ground import Ground, ground
from ostiary.ledger import prices
from ostiary.logs import configure
from ostiary.orgs import organizations, roles
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault import aliases, endpoints, provider_keys
from ostiary.vault.endpoints import EndpointTarget, NewEndpoint
from ostiary.vault.provider_keys import NewProviderKey

LEAST = 20
"""Providers, so that the targets of an endpoint are different ones."""
SEVERAL = 8
"""So many providers serve the model `several`; one serves `model-NN`, all serve the model of every run."""
SEVERALS = "served-by-several"
_KEYS = 20
_ROUTES = 180
_ALIASES = 20
_OTHERS = "others"
"""The organization whose keys are in the pool."""
_RATES = {"input": 150_000_000, "output": 600_000_000}


@dataclass(frozen=True, slots=True)
class Width:
    """How much there is."""

    providers: int = 60
    keys: int = _KEYS
    """Of each provider: half are the organization's own, half another's in the pool."""
    routes: int = _ROUTES
    """Endpoints of the organization, each split over three targets, every other one with a fallback."""
    aliases: int = _ALIASES
    """Each of three targets that are tried in order."""

    @property
    def names(self) -> Sequence[str]:
        """The rows of the catalogue."""
        return [f"bench-{n:02}" for n in range(self.providers)]

    @property
    def provider_keys(self) -> int:
        """Of all providers."""
        return self.providers * self.keys

    def direct(self) -> list[str]:
        """A model of each provider by its full name."""
        return [f"{name}/{payload.MODEL}" for name in self.names]

    def routed(self) -> list[str]:
        """Every endpoint that is split over three targets."""
        return [f"route-{n:03}" for n in range(self.routes)]

    def aliased(self) -> list[str]:
        """Every alias."""
        return [f"ostiary/wide-{n:02}" for n in range(self.aliases)]


def write_catalogue(path: Path, width: Width) -> None:
    """The operator's own catalogue file: rows like any other, whose models are known by name."""
    path.write_text("\n".join(_row(n, name) for n, name in enumerate(width.names)))


def _row(n: int, name: str) -> str:
    served = [payload.MODEL, *([SEVERALS] if n < SEVERAL else [])]
    models = ", ".join(f'{{ id = "{model}", free = false, max_output = 4096 }}' for model in served)
    return f'[[provider]]\nid = "{name}"\nname = "Bench {n}"\ncategories = ["llm"]\nmodels = [{models}]\n'


def fill(width: Width, base_url: str, *, data_dir: Path, env: Mapping[str, str]) -> None:
    """As `furnish`, where nothing serves yet."""
    settings = Settings.load(environment=env, data_dir=data_dir)
    configure(replace(settings, log_level="warning"))
    asyncio.run(_fill(width, base_url, settings))


async def _fill(width: Width, base_url: str, settings: Settings) -> None:
    async with ground(settings) as base:
        await furnish(base, width, base_url)


async def furnish(base: Ground, width: Width, base_url: str) -> None:
    """Fill an installation that was started with this catalogue, by the deeds that people do; once."""
    by, at, rows = roles.operator(), base.clock.now(), [base.catalog.get(name) for name in width.names]
    chance = random.Random(1)  # noqa: S311 - the same vault every time
    async with base.database.transaction() as tx:
        own = (await organizations.list_(tx, by))[0].id
        pool = (await organizations.create(tx, by, _OTHERS, at)).id
        for n, row in enumerate(rows):
            for model in (payload.MODEL, *([SEVERALS] if n < SEVERAL else [])):
                await prices.set_price(tx, by, row, model, _RATES, at)
            for wish in _keys(row, width.keys, base_url, chance):
                await provider_keys.add(
                    tx, by, pool if wish.shared else own, wish, seal=base.seal, egress=base.egress, at=at
                )
        await _make_routes(tx, by, own, base, width)


def _keys(row: Provider, count: int, base_url: str, chance: random.Random) -> Iterator[NewProviderKey]:
    """Every fourth is filled before the next, the rest take turns by weight; two priorities, some share an account."""
    for n in range(count):
        yield NewProviderKey(
            name=f"{row.id}-{n:02}",
            provider=row,
            secret=Secret(f"sk-bench-{row.id}-{n:02}-0123456789abcdef"),
            base_url=base_url,
            shared=n % 2 == 1,
            priority=chance.choice((0, 10)),
            weight=chance.randrange(1, 4),
            strategy="fill" if n % 4 == 0 else "rotate",
            account=f"account-{row.id}-{n // 8}" if n % 5 == 0 else None,
        )


async def _make_routes(tx: Transaction, by: Actor, own: str, base: Ground, width: Width) -> None:
    at, catalog, names = base.clock.now(), base.catalog, width.names
    for n, name in enumerate(width.routed()):
        targets = [
            EndpointTarget(names[(n + step) % len(names)], payload.MODEL, weight=weight)
            for step, weight in ((0, 3), (7, 2), (19, 1))
        ]
        if n % 2:
            targets.append(EndpointTarget(names[(n + 31) % len(names)], payload.MODEL, is_fallback=True))
        await endpoints.create(tx, by, own, NewEndpoint(name, targets, "split"), catalog=catalog, at=at)
    for n, name in enumerate(width.aliased()):
        targets = [EndpointTarget(names[(n * 3 + step) % len(names)], payload.MODEL) for step in range(3)]
        await aliases.create(tx, by, NewEndpoint(name, targets), catalog=catalog, at=at)
