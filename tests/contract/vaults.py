"""A vault with something in every table that seals, its master keys in a file, and a database that dies when told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from sqlalchemy import insert, select

from ostiary.clock import Clock
from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.ledger import webhook_store
from ostiary.providers import catalog
from ostiary.providers.egress import Egress
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault import contents, provider_keys, store, webhooks
from ostiary.vault.master_key import Keeper
from ostiary.vault.provider_keys import NewProviderKey
from ostiary.vault.rotation import Vault
from ostiary.vault.seal import MasterKeys, Seal, name_of
from ostiary.vault.webhooks import NewWebhook
from tests.fakes import SetClock
from tests.people import NOW, People, settle
from tests.servers.canaries import Canaries

_CALLS = 3


def key(number: int) -> str:
    """A master key."""
    return base64.urlsafe_b64encode(bytes([number]) * 32).decode()


OLD = name_of(key(1))


class Death(BaseException):
    """What kill -9 looks like from within: nothing that catches errors sees it."""


class Mortal(Database):
    """Dies before it begins its so-manieth piece of work, or right after it has committed it."""

    left = 1_000_000

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        self._step()
        async with super().read() as tx:
            yield tx

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        self._step()
        async with super().transaction() as tx:
            yield tx
        self._step()

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Death


@dataclass
class Stored:
    """What was sealed, to be found again."""

    database: Database
    folder: Path
    folk: People
    secrets: dict[str, str] = field(default_factory=dict)
    """Of provider keys and webhooks, by id."""
    numbers: Iterator[int] = field(default_factory=count)
    clock: Clock = field(default_factory=lambda: SetClock(NOW))

    @property
    def file(self) -> Path:
        """The key file."""
        return self.folder / "master.key"

    def keys(self) -> MasterKeys:
        """What the file holds."""
        return MasterKeys.parse(Secret(self.file.read_text()))

    def put(self, *numbers: int) -> None:
        """Write these master keys into the file."""
        self.file.write_text("\n".join(map(key, numbers)))
        self.file.chmod(0o600)

    async def vault(self, database: Database | None = None) -> Vault:
        """As a process has it that starts now, with the keys of the file."""
        used = database or self.database
        keeper = Keeper(Settings(data_dir=self.folder))
        seal = Seal(keeper.keys())
        await seal.open_instance(used, NOW)
        return Vault(used, seal, keeper, self.clock)

    async def opened(self, *numbers: int) -> Seal:
        """A seal with these master keys and no way to others; raises CannotStart where they do not open it."""
        seal = Seal(MasterKeys.parse(Secret(",".join(map(key, numbers)))))
        await seal.open_instance(self.database, NOW)
        return seal

    async def fill(self, seal: Seal, canaries: Canaries) -> None:
        """A provider key and a webhook in each organization, and what some calls have said."""
        for organization in (self.folk.home, self.folk.elsewhere):
            await self.add_provider_key(seal, organization.id, canaries.plant())
            async with self.database.transaction() as tx:
                wish = NewWebhook(f"w{next(self.numbers)}", "https://hooks.example.org/")
                made, secret = await webhooks.create(
                    tx, self.folk.operator, organization.id, wish, seal=seal, egress=Egress([]), at=NOW
                )
                self.secrets[made.id] = canaries.watch(secret.reveal())
                sealer = await contents.sealer_for(tx, seal, organization.id, NOW)
                for _ in range(_CALLS):
                    await self.add_content(tx, organization.id, sealer)

    async def add_provider_key(self, seal: Seal, organization_id: str, secret: str) -> str:
        """One more; its id."""
        async with self.database.transaction() as tx:
            wish = NewProviderKey(f"k{next(self.numbers)}", catalog.load().get("openai"), Secret(secret))
            made = await provider_keys.add(
                tx, self.folk.operator, organization_id, wish, seal=seal, egress=Egress([]), at=NOW
            )
        self.secrets[made.id] = secret
        return made.id

    async def add_content(self, tx: Transaction, organization_id: str, sealer: contents.Sealer) -> None:
        """What a call has said."""
        request_id = f"req_{next(self.numbers)}"
        row = {"request_id": request_id, "attempt": 1, "organization_id": organization_id, "at": NOW}
        row |= {"sealed": sealer.seal(request_id, 1, b"asked", b"told"), "sealed_version": sealer.version}
        await tx.execute(insert(schema.contents).values(**row))

    async def check(self, seal: Seal) -> None:
        """Every secret opens as its room opens it, and so does everything that was said."""
        found = {}
        async with self.database.read() as tx:
            for one in await store.list_all_provider_keys(tx):
                found[one.id] = (await provider_keys.open_secret(tx, seal, one)).reveal()
            for id_ in self.secrets.keys() - found.keys():
                webhook = await webhook_store.find_webhook_by_id(tx, id_)
                assert webhook is not None
                found[id_] = (await seal.open(tx, webhooks._place(webhook), webhook.sealed)).reveal()
            c = schema.contents.c
            said = (await tx.execute(select(c.organization_id, c.request_id, c.sealed_version, c.sealed))).all()
            assert len(said) >= 2 * _CALLS
            for organization_id, request_id, version, sealed in said:
                place = contents.place_of(organization_id, request_id, 1, version)
                assert (await seal.open(tx, place, sealed)).reveal() == '{"request":"asked","answer":"told"}'
        assert found == self.secrets

    async def restarted(self) -> Seal:
        """With the keys of the file, and without ways to others."""
        seal = Seal(self.keys())
        await seal.open_instance(self.database, NOW)
        return seal


async def furnished(database: Database, folder: Path, canaries: Canaries) -> Stored:
    """A vault under master key 1."""
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs yet
    stored = Stored(database, folder, await settle(database))
    stored.put(1)
    await stored.fill((await stored.vault()).seal, canaries)
    return stored
