"""Inside a gateway's data directory, without the seconds a command takes: mint keys, set prices, read the ledger."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from ostiary.agents import agent_keys, client_credentials
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.db.database import Transaction
from ostiary.ground import Ground, ground
from ostiary.ledger import prices
from ostiary.orgs import organizations, roles
from ostiary.orgs.organizations import Organization
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import NewProviderKey
from tests.servers.gateway import Gateway, House
from tests.servers.waiting import until

T = TypeVar("T")

OPERATOR = roles.operator()
USD = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Key:
    """An agent key, or a client credential, that was minted for a test."""

    id: str
    secret: str

    @property
    def bearer(self) -> dict[str, str]:
        """The usual carrier."""
        return {"authorization": f"Bearer {self.secret}"}


def do(house: House, deed: Callable[[Ground, Transaction, Organization], Awaitable[T]]) -> T:
    """One deed as the operator, in a transaction of its own, through the functions the commands use."""

    async def run() -> T:
        settings = Settings.load(environment=house.environment(), data_dir=house.data_dir)
        async with ground(settings) as open_ground, open_ground.database.transaction() as tx:
            return await deed(open_ground, tx, (await organizations.list_(tx, OPERATOR))[0])

    return asyncio.run(run())


def mint(gateway: Gateway, *wishes: NewAgentKey) -> list[Key]:
    """Agent keys, and the running gateway knows them when this returns."""

    async def deed(base: Ground, tx: Transaction, organization: Organization) -> list[Key]:
        made = [
            await agent_keys.create(tx, OPERATOR, organization.id, wish, pepper=base.seal.pepper, at=base.clock.now())
            for wish in wishes
        ]
        return [Key(key.id, gateway.canaries.watch(secret.reveal())) for key, secret in made]

    keys = do(gateway, deed)
    _await_key(gateway, keys[-1])
    return keys


def mint_credential(gateway: Gateway, name: str) -> Key:
    """A client credential that the running gateway knows."""

    async def deed(base: Ground, tx: Transaction, organization: Organization) -> Key:
        made, secret = await client_credentials.create(
            tx,
            OPERATOR,
            organization.id,
            name,
            client_id=organization.client_id,
            pepper=base.seal.pepper,
            at=base.clock.now(),
        )
        return Key(made.id, gateway.canaries.watch(secret.reveal()))

    key = do(gateway, deed)
    _await_key(gateway, key)
    return key


def set_prices(house: House, *models: str, input_usd: int = 1, output_usd: int = 1) -> None:
    """The price per million tokens of `provider/model`s; who mints a key next knows that it was heard."""

    async def deed(base: Ground, tx: Transaction, _organization: Organization) -> None:
        rates = {"input": input_usd * USD, "output": output_usd * USD}
        for provider, _, model in (name.partition("/") for name in models):
            await prices.set_price(tx, OPERATOR, base.catalog.get(provider), model, rates, base.clock.now())

    do(house, deed)


def add_provider_keys(house: House, *wished: tuple[str, str, str]) -> list[str]:
    """Provider keys by provider, name and base URL, in this order; their secrets."""
    secrets = [house.canaries.plant() for _ in wished]

    async def deed(base: Ground, tx: Transaction, organization: Organization) -> None:
        for (provider, name, url), secret in zip(wished, secrets, strict=True):
            wish = NewProviderKey(name, base.catalog.get(provider), Secret(secret), url, strategy="fill")
            await provider_keys.add(
                tx, OPERATOR, organization.id, wish, seal=base.seal, egress=base.egress, at=base.clock.now()
            )

    do(house, deed)
    return secrets


def heal(house: House) -> None:
    """Every provider key of the organization is well, whatever was found out of it."""

    async def deed(base: Ground, tx: Transaction, organization: Organization) -> None:
        for key in await provider_keys.list_(tx, OPERATOR, organization.id):
            await provider_keys.reset(tx, OPERATOR, organization.id, key.id, base.clock.now())

    do(house, deed)


def are_well(gateway: Gateway, key: Key, model: str, count: int) -> bool:
    """Whether so many provider keys would be tried for a model, in the order of their names: none is in doubt."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
    told = gateway.client().post("/v1/explain", json=body, headers=key.bearer).json()
    names = [target["provider_key"] for target in told.get("targets", ())]
    return names == sorted(names) and len(names) == count


def change(gateway: Gateway, key: Key, how: Callable[..., Awaitable[Any]]) -> None:
    """`agent_keys.revoke` and its like, heard by the gateway."""

    async def deed(base: Ground, tx: Transaction, organization: Organization) -> None:
        await how(tx, OPERATOR, organization.id, key.id, base.clock.now())

    do(gateway, deed)


def _await_key(gateway: Gateway, key: Key) -> None:
    client = gateway.client(key.secret)
    until(lambda: client.get("/v1/key").json().get("error", {}).get("code") != "invalid_api_key", "the key")


# ---- the ledger -------------------------------------------------------------------------------------------------


def rows(house: House, query: str, *values: object) -> list[dict[str, Any]]:
    """What the database says."""
    shared = house.environment().get("OSTIARY_DATABASE_URL", "").removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{shared or house.data_dir / 'ostiary.db'}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query, values)]


def events(house: House, request_id: str, count: int = 1) -> list[dict[str, Any]]:
    """The events of a call, once there are so many."""
    found: list[dict[str, Any]] = []

    def are_there() -> bool:
        found[:] = rows(house, "SELECT * FROM usage_events WHERE request_id = ? ORDER BY attempt", request_id)
        return len(found) >= count

    until(are_there, f"{count} events of {request_id}")
    assert len(found) == count
    return found


def events_of(house: House, key: Key, count: int) -> list[dict[str, Any]]:
    """The events of a key, oldest first, once there are so many: for calls whose answer nobody saw."""
    query = "SELECT * FROM usage_events WHERE agent_key_id = ? ORDER BY started_at, request_id, attempt"
    found: list[dict[str, Any]] = []

    def are_there() -> bool:
        found[:] = rows(house, query, key.id)
        return len(found) >= count

    until(are_there, f"{count} events of {key.id}")
    assert len(found) == count
    return found


def spent(house: House, key: Key) -> int:
    """Nano-dollars that the authority counts as spent by a key, in all."""
    found = rows(house, "SELECT spent_nano FROM accounts WHERE id = ? AND period_id = 'total'", key.id)
    return int(found[0]["spent_nano"]) if found else 0
