"""A provider key on its way into the vault: what cannot be saved is refused, then it is tried, then it is saved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.providers.address import is_fixed
from ostiary.providers.catalog import Provider
from ostiary.providers.egress import Blocked, Egress
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import trial
from ostiary.vault.fields import wrong
from ostiary.vault.store import ProviderKey
from ostiary.vault.trial import TestResult

T = TypeVar("T")

_LOOK_UP_S: Final = 3
"""As long as somebody who saves waits for a name server."""
_AT_ONCE: Final = 2
"""A look-up holds a thread that calls under way may need for theirs."""


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


async def require_way_out(egress: Egress, provider: Provider, key: ProviderKey) -> None:
    """Refuse a rehearsed key whose base URL has a name that leads where we do not connect. Holds no transaction."""
    for refusal in (await find_inward(egress, [(provider, key)])).values():
        raise refusal


async def find_inward(egress: Egress, keys: Iterable[tuple[Provider, ProviderKey]]) -> dict[str, Refusal]:
    """The ids of rehearsed keys that lead where we do not connect, and what to say of each. Each origin is asked once.

    A name that nobody knows, or that is not told in time, is no reason: a test says so, and every connection asks anew.
    Nor is one that the provider's row says by itself: nobody has entered it.
    """
    entered = {key.id: key.origin for provider, key in keys if not is_fixed(provider, key.origin)}
    origins = list(dict.fromkeys(entered.values()))
    room = asyncio.Semaphore(_AT_ONCE)
    refusals = await asyncio.gather(*(_find_refusal(egress, origin, room) for origin in origins))
    said = dict(zip(origins, refusals, strict=True))
    return {id: refusal for id, origin in entered.items() if (refusal := said[origin]) is not None}


async def _find_refusal(egress: Egress, origin: str, room: asyncio.Semaphore) -> Refusal | None:
    try:
        target = egress.check_url(origin)
        async with room, asyncio.timeout(_LOOK_UP_S):
            await egress.resolve(target.host, target.port)
    except Blocked as blocked:
        return wrong("base_url", f"This base URL cannot be used: {blocked.reason}")
    except OSError:  # a TimeoutError is one
        return None
    return None


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
