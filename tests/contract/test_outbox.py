"""The outbox: everything arrives once, however long a sink is away and however many gateways deliver."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from sqlalchemy import update

from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import outbox_store
from ostiary.ledger.outbox import WAITS_S, Outbox, Send, Undelivered, by_mail
from ostiary.ledger.outbox_store import Delivery, Notification, add_notification, list_deliveries
from ostiary.mail import Mailer, Server
from ostiary.secret import Secret
from tests.fakes import SetClock
from tests.people import refused
from tests.servers.smtp import Smtp
from tests.servers.waiting import free_port, until

SENDER = "ostiary@example.org"


class Sink:
    """Where deliveries go to in these tests: it takes them, or fails as it is told."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tried: list[str] = []
        self.failure: Undelivered | None = None
        self.hang: set[str] = set()
        self.before: Callable[[], Awaitable[None]] | None = None

    async def send(self, delivery: Delivery, _notification: Notification) -> None:
        self.tried.append(delivery.address)
        if self.before is not None:
            await self.before()
        if delivery.address in self.hang:
            await asyncio.sleep(3_600)
        if self.failure is not None:
            raise self.failure
        self.taken.append(delivery.address)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def sink() -> Sink:
    return Sink()


async def put(database: Database, clock: SetClock, *addresses: str, channel: str = "mail") -> str:
    """A notification to these addresses, due now; its id."""
    at = clock.now()
    told = Notification(
        new_id("ntf", at), "orgn_1", "test", "organization", "orgn_1", "Home", {"by": "x", "organization": "Home"}, at
    )
    ways = [Delivery(new_id("dlv", at), told.id, "orgn_1", channel, address, next_at=at) for address in addresses]
    async with database.transaction() as tx:
        await add_notification(tx, told, ways)
    return told.id


async def ways(database: Database, id: str) -> list[Delivery]:
    async with database.read() as tx:
        return await list_deliveries(tx, [id])


async def test_each_is_delivered_once(database: Database, clock: SetClock, sink: Sink) -> None:
    id = await put(database, clock, *(f"user{number}@example.org" for number in range(40)))
    outbox = Outbox(database, clock, {"mail": sink.send})
    for _ in range(3):
        await outbox.run(clock.now())
    assert len(sink.taken) == len(set(sink.taken)) == 40
    assert {(way.attempts, way.done_at, way.next_at) for way in await ways(database, id)} == {(1, clock.now(), None)}


async def test_many_gateways_never_send_one_twice(database: Database, clock: SetClock, sink: Sink) -> None:
    await put(database, clock, *(f"user{number}@example.org" for number in range(60)))
    gateways = [Outbox(database, clock, {"mail": sink.send}) for _ in range(5)]
    await asyncio.gather(*(outbox.run(clock.now()) for outbox in gateways))
    assert sorted(sink.tried) == sorted(set(sink.tried))
    assert len(sink.taken) == 60


async def test_a_sink_that_is_away_is_tried_less_and_less_and_given_up(
    database: Database, clock: SetClock, sink: Sink
) -> None:
    id = await put(database, clock, "bob@example.org")
    outbox = Outbox(database, clock, {"mail": sink.send})
    sink.failure = Undelivered("The mail server said 451: not now")
    for attempt, wait_s in enumerate(WAITS_S, 1):
        await outbox.run(clock.now())
        [way] = await ways(database, id)
        assert (way.attempts, way.next_at, way.done_at) == (attempt, clock.now() + wait_s * 1_000, None)
        assert way.error == "The mail server said 451: not now"
        clock.move(wait_s - 0.001)
        await outbox.run(clock.now())
        assert len(sink.tried) == attempt, "not before its time"
        clock.move(0.001)
    await outbox.run(clock.now())
    [way] = await ways(database, id)
    assert (way.attempts, way.next_at, way.done_at) == (6, None, None)
    clock.move(1_000_000)
    await outbox.run(clock.now())
    assert len(sink.tried) == 6


async def test_it_comes_back(database: Database, clock: SetClock, sink: Sink) -> None:
    id = await put(database, clock, "bob@example.org")
    outbox = Outbox(database, clock, {"mail": sink.send})
    sink.failure = Undelivered("away")
    await outbox.run(clock.now())
    sink.failure = None
    clock.move(30)
    await outbox.run(clock.now())
    [way] = await ways(database, id)
    assert (way.attempts, way.done_at, way.error) == (2, clock.now(), None)


async def test_what_no_waiting_helps_is_given_up_at_once(database: Database, clock: SetClock, sink: Sink) -> None:
    id = await put(database, clock, "bob@example.org")
    sink.failure = Undelivered("no such user", is_final=True)
    await Outbox(database, clock, {"mail": sink.send}).run(clock.now())
    [way] = await ways(database, id)
    assert (way.attempts, way.next_at, way.done_at, way.error) == (1, None, None, "no such user")


async def test_a_gateway_that_dies_while_it_delivers_is_replaced(
    database: Database, clock: SetClock, sink: Sink
) -> None:
    id = await put(database, clock, "bob@example.org")
    sink.hang = {"bob@example.org"}
    dying = asyncio.get_running_loop().create_task(Outbox(database, clock, {"mail": sink.send}).run(clock.now()))
    await asyncio.to_thread(until, lambda: sink.tried, "an attempt")
    dying.cancel()
    with suppress(asyncio.CancelledError):
        await dying
    sink.hang = set()
    other = Outbox(database, clock, {"mail": sink.send})
    await other.run(clock.now())
    assert sink.taken == [], "it might still be at it"
    clock.move(180)
    await other.run(clock.now())
    assert sink.taken == ["bob@example.org"]
    [way] = await ways(database, id)
    assert way.attempts == 2


async def test_who_wakes_up_late_changes_nothing(database: Database, clock: SetClock, sink: Sink) -> None:
    """A gateway that was stopped in the middle of an attempt, while another made the next one."""
    id = await put(database, clock, "bob@example.org")
    other = Outbox(database, clock, {"mail": sink.send})

    async def meanwhile() -> None:
        sink.before = None
        clock.move(180)
        await other.run(clock.now())
        sink.failure = Undelivered("too late")

    sink.before = meanwhile
    await Outbox(database, clock, {"mail": sink.send}).run(clock.now())
    [way] = await ways(database, id)
    assert (way.attempts, way.error) == (2, None)
    assert way.done_at is not None


async def test_a_sink_that_hangs_holds_up_nobody_else(
    database: Database, clock: SetClock, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.outbox._PAUSE_S", 0.05)
    for _ in range(30):
        await put(database, clock, "dead@example.org")
    await put(database, clock, *(f"user{number}@example.org" for number in range(20)))
    sink.hang = {"dead@example.org"}
    running = asyncio.get_running_loop().create_task(Outbox(database, clock, {"mail": sink.send}).run(clock.now()))
    await asyncio.to_thread(until, lambda: len(sink.taken) == 20, "the others")
    assert sink.tried.count("dead@example.org") <= 2
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_sink_that_says_nothing_is_not_waited_for_forever(
    database: Database, clock: SetClock, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.outbox._PATIENCE_S", 0.1)
    id = await put(database, clock, "dead@example.org")
    sink.hang = {"dead@example.org"}
    await Outbox(database, clock, {"mail": sink.send}).run(clock.now())
    [way] = await ways(database, id)
    assert way.error == "It did not answer in time."
    assert way.next_at == clock.now() + 30_000


async def test_mail_without_a_server_waits_ten_minutes_for_a_gateway_that_has_one(
    database: Database, clock: SetClock, sink: Sink
) -> None:
    id = await put(database, clock, "bob@example.org")
    without = Outbox(database, clock, {"webhook": sink.send})
    await without.run(clock.now())
    clock.move(599)
    await without.run(clock.now())
    [way] = await ways(database, id)
    assert (way.attempts, way.error) == (0, None)
    clock.move(1)
    await without.run(clock.now())
    [way] = await ways(database, id)
    assert way.next_at is None
    assert "OSTIARY_SMTP_URL" in (way.error or "")
    assert sink.tried == []


async def test_deliveries_of_a_notification_that_is_gone_end(database: Database, clock: SetClock, sink: Sink) -> None:
    id = await put(database, clock, "bob@example.org")
    async with database.transaction() as tx:
        await tx.execute(schema.notifications.delete())
    await Outbox(database, clock, {"mail": sink.send}).run(clock.now())
    assert sink.tried == []
    assert (await ways(database, id))[0].next_at is None


async def test_without_a_database_it_says_so_to_who_runs_it(clock: SetClock, sink: Sink) -> None:
    away = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with refused("service_unavailable"):
        await Outbox(away, clock, {"mail": sink.send}).run(clock.now())
    await away.close()


async def test_what_was_claimed_before_the_database_went_is_tried_all_the_same(
    database: Database, clock: SetClock, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its address would count as busy for as long as the gateway runs."""
    await put(database, clock, *(f"user{number}@example.org" for number in range(3)))
    claim, asked = outbox_store.claim_delivery, itertools.count(1)

    async def lost(tx: Transaction, delivery: Delivery, until_at: int) -> bool:
        if next(asked) == 3:
            raise Refusal("service_unavailable", "The database is not available.")
        return await claim(tx, delivery, until_at)

    monkeypatch.setattr(outbox_store, "claim_delivery", lost)
    await Outbox(database, clock, {"mail": sink.send}).run(clock.now())
    assert sorted(sink.taken) == [f"user{number}@example.org" for number in range(3)]


async def test_a_kind_that_a_newer_gateway_wrote_is_delivered(database: Database, clock: SetClock, smtp: Smtp) -> None:
    await put(database, clock, "bob@example.org")
    async with database.transaction() as tx:
        await tx.execute(update(schema.notifications).values(kind="provider_key.unheard_of"))
    await Outbox(database, clock, {"mail": mail(smtp.url)}).run(clock.now())
    assert "provider_key.unheard_of" in str(smtp.mails[0].message["Subject"])


# ---- by mail ----------------------------------------------------------------------------------------------------


def mail(url: str) -> Send:
    return by_mail(Mailer(Server.parse(Secret(url)), SENDER))


async def test_a_mail_server_that_was_down(database: Database, clock: SetClock) -> None:
    server = Smtp(port=free_port())
    id = await put(database, clock, "bob@example.org")
    outbox = Outbox(database, clock, {"mail": mail(server.url)})
    await outbox.run(clock.now())
    [way] = await ways(database, id)
    assert "not handed in" in (way.error or "")
    with server.running():
        clock.move(30)
        await outbox.run(clock.now())
    [way] = await ways(database, id)
    assert (way.done_at, way.error) == (clock.now(), None)
    assert server.mails[0].message["Message-ID"] == f"<{way.id}@example.org>"


async def test_a_failure_is_shown_without_the_password_and_addresses(database: Database, clock: SetClock) -> None:
    id = await put(database, clock, "bob@example.org")
    with Smtp(user="user", password="hunter2hunter2").running() as server:
        server.refusal = "450 bob@example.org: hunter2hunter2 is no password for postmaster@example.net"
        await Outbox(database, clock, {"mail": mail(server.url)}).run(clock.now())
    [way] = await ways(database, id)
    assert way.error is not None
    assert "450" in way.error
    assert "hunter2" not in way.error
    assert "postmaster" not in way.error
