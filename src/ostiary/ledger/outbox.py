"""Delivers what is in the outbox, again and again until it has arrived or is given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ostiary.clock import SECOND_MS, Clock
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import letters
from ostiary.ledger import outbox_store as store
from ostiary.ledger.alerts import MAIL, Refused
from ostiary.ledger.outbox_store import Delivery, Notification
from ostiary.logs import get
from ostiary.mail import Letter, Mailer, Unsent
from ostiary.providers.verdict import scrub

WAITS_S: Final = (30, 120, 600, 3_600, 21_600)
"""Between one attempt and the next; after the last one it is given up."""
_PAUSE_S: Final = 1.0
_PATIENCE_S: Final = 60.0
"""For one attempt."""
_LEASE_MS: Final = 180 * SECOND_MS
"""After which another gateway takes an attempt for lost; longer than the patience, so that no two are at it at once."""
_FORSAKEN_MS: Final = 600 * SECOND_MS
_AT_ONCE: Final = 16
_AT_ONE_ADDRESS: Final = 2
"""So that one sink that hangs does not keep the others waiting."""

_NO_MAIL: Final = "No gateway sends mail: OSTIARY_SMTP_URL and OSTIARY_MAIL_FROM are not set."
_NO_WAY: Final = "No gateway delivers by this channel."
_LATE: Final = "It did not answer in time."


class Undelivered(Exception):  # noqa: N818 - what came of an attempt
    """An attempt failed; `text` says why and holds no secret. `is_final`: trying again will not help."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        self.text = text
        self.is_final = is_final
        super().__init__(text)


Send = Callable[[Delivery, Notification], Awaitable[None]]
"""One attempt at one address; raises Undelivered and nothing else."""


class Outbox:
    """One gateway's part in the deliveries of all: a delivery is tried by whoever claims it first."""

    def __init__(
        self, database: Database, clock: Clock, senders: Mapping[str, Send], refused: Refused | None = None
    ) -> None:
        """`senders` by channel; what no gateway has a sender for is given up after ten minutes."""
        self._database = database
        self._clock = clock
        self._senders = senders
        self._refused = refused or Refused()
        self._busy: Counter[str] = Counter()
        self._log = get("outbox")

    async def run(self, at: int) -> None:
        """Tell of refusals, then try all that is due, and what becomes due while one of them is still being tried.

        A sink that hangs or is away costs the others nothing, and calls even less. Raises Refusal without a database.
        """
        await self._database.to_the_end(self._refused.tell(self._database, at))
        loop = asyncio.get_running_loop()
        open_: set[asyncio.Task[None]] = set()
        try:
            while True:
                open_ |= {loop.create_task(self._deliver(*one)) for one in await self._claim_next(is_busy=bool(open_))}
                if not open_:
                    return
                done, open_ = await asyncio.wait(open_, timeout=_PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a fault of our own, if it had one
        finally:
            for task in open_:
                task.cancel()
            if open_:
                await asyncio.wait(open_)

    async def _claim_next(self, *, is_busy: bool) -> list[tuple[Delivery, Notification]]:
        try:
            return await self._database.to_the_end(self._claim_due())
        except Refusal:
            if is_busy:
                return []  # let what is under way end first
            raise

    async def _claim_due(self) -> list[tuple[Delivery, Notification]]:
        """Take what is due and nobody else has taken."""
        free = _AT_ONCE - self._busy.total()
        if free <= 0:
            return []
        at = self._clock.now()
        full = [address for address, count in self._busy.items() if count >= _AT_ONE_ADDRESS]
        async with self._database.read() as tx:
            due = await store.list_due(tx, at, list(self._senders), at - _FORSAKEN_MS, full, free)
        claimed: list[tuple[Delivery, Notification]] = []
        for delivery in due:
            if self._busy[delivery.address] >= _AT_ONE_ADDRESS:
                continue
            try:
                one = await self._claim(delivery, at)
            except Refusal:
                if claimed:
                    break  # what is ours already must be tried: its address counts as busy until it was
                raise
            if one is not None:
                claimed.append(one)
                self._busy[delivery.address] += 1
        return claimed

    async def _claim(self, delivery: Delivery, at: int) -> tuple[Delivery, Notification] | None:
        async with self._database.transaction() as tx:
            if not await store.claim_delivery(tx, delivery, at + _LEASE_MS):
                return None
            ours = replace(delivery, attempts=delivery.attempts + 1)
            notification = await store.find_notification(tx, delivery.notification_id)
            if delivery.channel in self._senders and notification is not None:
                return ours, notification
            why = _NO_MAIL if delivery.channel == MAIL else _NO_WAY
            await store.mark_delivery(tx, ours, next_at=None, done_at=None, error=why)
        return None

    async def _deliver(self, delivery: Delivery, notification: Notification) -> None:
        """One attempt, and what came of it. Dying in between repeats it: the receiver knows it by its id."""
        failure: Undelivered | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._senders[delivery.channel](delivery, notification)
        except Undelivered as error:
            failure = error
        except TimeoutError:
            failure = Undelivered(_LATE)
        finally:
            self._busy -= Counter([delivery.address])
        with suppress(Refusal):  # without a database the lease runs out, and somebody tries again
            await self._database.to_the_end(self._note(delivery, failure))

    async def _note(self, delivery: Delivery, failure: Undelivered | None) -> None:
        at = self._clock.now()
        next_at = None
        if failure is not None:
            is_over = failure.is_final or delivery.attempts > len(WAITS_S)
            next_at = None if is_over else at + WAITS_S[delivery.attempts - 1] * SECOND_MS
            self._log.warning(
                "notification.given_up" if is_over else "notification.undelivered",
                delivery=delivery.id,
                channel=delivery.channel,
                attempt=delivery.attempts,
                reason=failure.text,
            )
        async with self._database.transaction() as tx:
            await store.mark_delivery(
                tx,
                delivery,
                next_at=next_at,
                done_at=at if failure is None else None,
                error=failure.text if failure else None,
            )


def by_mail(mailer: Mailer) -> Send:
    """Sends notifications as letters."""

    async def send(delivery: Delivery, notification: Notification) -> None:
        subject, text = letters.letter(notification)
        try:
            await mailer.send(Letter(delivery.id, delivery.address, subject, text, notification.created_at))
        except Unsent as unsent:
            raise Undelivered(scrub(unsent.text, mailer.secrets), is_final=unsent.is_final) from None

    return send
