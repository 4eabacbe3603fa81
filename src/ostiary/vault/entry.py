"""A provider key on its way into the vault: what cannot be saved is refused, then it is tried, then it is saved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.providers.catalog import Provider
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import trial
from ostiary.vault.store import ProviderKey
from ostiary.vault.trial import TestResult

T = TypeVar("T")


class RehearsedError(Exception):
    """Ends a transaction that was only to show whether it would pass."""


async def rehearse(database: Database, deed: Callable[[Transaction], Awaitable[T]]) -> T:
    """Do a deed and undo it: its refusals come before a credential goes anywhere, and no transaction waits for it."""
    kept: list[T] = []
    with suppress(RehearsedError):
        async with database.transaction() as tx:
            kept.append(await deed(tx))
            raise RehearsedError
    return kept[0]


@asynccontextmanager
async def calling(egress: Egress) -> AsyncIterator[Transport]:
    """A client of its own for tests, so that they take no connection from calls."""
    transport = Transport(egress)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


async def probe(transport: Transport, provider: Provider, key: ProviderKey, secret: Secret) -> TestResult:
    """Make the provider's cheapest call as this key would, with a credential that may not be stored yet."""
    return await trial.test(transport, provider, key.base_url, key.fields, secret, key.auth)


async def probe_once(egress: Egress, provider: Provider, key: ProviderKey, secret: Secret) -> TestResult:
    """The same, for who has one key to test."""
    async with calling(egress) as transport:
        return await probe(transport, provider, key, secret)


def may_be_saved(provider: Provider, result: TestResult) -> bool:
    """Whether a test speaks for the key, or, where only a call can prove one, not against it."""
    return result.outcome == "valid" or (result.outcome == "unknown" and not provider.test.proves)


def require_passed(provider: Provider, result: TestResult, anyway: str) -> None:
    """Refuse what a test speaks against; `anyway` says how to save it all the same."""
    if not may_be_saved(provider, result):
        message = f"Nothing was saved: the test says {result.outcome}. {result.message}\n{anyway}"
        raise Refusal("invalid_field", message, param="test", outcome=result.outcome)
