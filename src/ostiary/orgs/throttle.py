"""How often signing in may fail: counted by e-mail address and by network address, for all gateways together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from typing import Final

from ostiary.clock import SECOND_MS
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.orgs import session_store as store
from ostiary.orgs.session_store import Failures

FREE: Final = 5
"""Failures before there is a wait."""
WITHIN_MS: Final = 15 * 60 * SECOND_MS
"""After so long without a failure and a wait, nothing is counted any more."""
FIRST_WAIT_MS: Final = 30 * SECOND_MS
LONGEST_WAIT_MS: Final = 15 * 60 * SECOND_MS
_NETWORK_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Charge:
    """An attempt that counts as a failure until it is found to be none."""

    email: str
    before: tuple[Failures, ...]
    after: tuple[Failures, ...]


async def take(database: Database, email: str, address: str | None, at: int) -> Charge:
    """Count an attempt before it is judged, so that many at once do not slip through; refuses while there is a wait.

    An attempt that is refused here is not counted: a wait does not grow by being asked about.
    """
    subjects = [of_email(email), *([_of_address(address)] if address else [])]
    async with database.transaction() as tx:
        before = tuple(_as_of(row, at) for row in await store.lock_failures(tx, subjects, at))
        wait_ms = max(row.until - at for row in before)
        if wait_ms > 0:
            raise _too_often(wait_ms)
        after = tuple(_one_more(row, at) for row in before)
        for row in after:
            await store.change_failures(tx, row)
    return Charge(email, before, after)


async def give_back(tx: Transaction, charge: Charge, at: int, *, is_success: bool) -> None:
    """The attempt was no failure. After a success nothing is held against the e-mail address any more.

    What is held against a network address stays: who knows one password must not use it to guess others for ever.
    """
    mine = {row.subject: row for row in charge.after}
    old = {row.subject: row for row in charge.before}
    for row in await store.lock_failures(tx, list(mine), at):
        if is_success and row.subject == of_email(charge.email):
            await store.remove_failures(tx, row.subject)
        elif row == mine[row.subject]:
            await store.change_failures(tx, old[row.subject])
        else:  # others have failed meanwhile: their wait stands
            left = max(row.failures - 1, 0)
            await store.change_failures(tx, replace(row, failures=left, until=row.until if left >= FREE else 0))


async def forgive(tx: Transaction, email: str) -> None:
    """Hold nothing against an e-mail address any more: its password is a new one."""
    await store.remove_failures(tx, of_email(email))


def of_email(email: str) -> str:
    """What the failures of an address are counted under: what somebody mistyped is not for reading."""
    return hashlib.sha256(f"email {email}".encode()).hexdigest()


def wait_after(failures: int) -> int:
    """Milliseconds that so many failures cost: none, then 30 seconds, doubling up to 15 minutes."""
    return 0 if failures < FREE else min(FIRST_WAIT_MS << min(failures - FREE, 16), LONGEST_WAIT_MS)


def _of_address(address: str) -> str:
    """Whoever has one IPv6 address has its whole /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return hashlib.sha256(f"address {address}".encode()).hexdigest()
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    network = int(parsed) >> _NETWORK_BITS if isinstance(parsed, IPv6Address) else parsed
    return hashlib.sha256(f"address {network}".encode()).hexdigest()


def _as_of(row: Failures, at: int) -> Failures:
    """What it means now: nothing after a while.

    A wait that no failure could have caused is from before the clock was set back, and is none; the failures count.
    """
    if at - max(row.last_at, row.until) > WITHIN_MS:
        return replace(row, failures=0, until=0)
    return replace(row, until=0) if row.until - at > LONGEST_WAIT_MS else row


def _one_more(row: Failures, at: int) -> Failures:
    failures = row.failures + 1
    return replace(row, failures=failures, last_at=at, until=at + wait_after(failures))


def _too_often(wait_ms: int) -> Refusal:
    seconds = -(-wait_ms // SECOND_MS)
    said = f"Signing in has failed too often. Try again in {seconds} seconds."
    return Refusal("rate_limit_exceeded", said, headers=((b"retry-after", b"%d" % seconds),), retry_after_s=seconds)
