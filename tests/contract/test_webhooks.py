"""Webhooks: every deed by everybody, a secret that is shown once, and posts that only the right one can have signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from ostiary.actor import Actor
from ostiary.clock import SystemClock
from ostiary.db.database import Database, Transaction
from ostiary.ledger import alerts, webhook_store
from ostiary.ledger.audit_store import list_audit
from ostiary.ledger.outbox import Outbox
from ostiary.ledger.outbox_store import Delivery, find_subject, list_deliveries
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import webhooks
from ostiary.vault.seal import MasterKeys, Seal, Undecryptable
from ostiary.vault.webhooks import NewWebhook, Webhook, WebhookEdit, by_webhook
from tests import people
from tests.fakes import SetClock
from tests.people import INSIDE, NONE, NOW, ONE, OUTSIDE, People, refused, settle, spoil, traces
from tests.servers.canaries import Canaries
from tests.servers.receiver import Receiver

URL = "https://hooks.example.org/in?tenant=7"
EGRESS = Egress(["http://127.0.0.1:9000"])


@pytest.fixture
async def seal(database: Database) -> Seal:
    made = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await made.open_instance(database, NOW)
    return made


@pytest.fixture
async def folk(database: Database) -> People:
    return await settle(database)


async def made(
    database: Database, seal: Seal, folk: People, wish: NewWebhook, by: str = "alice", egress: Egress = EGRESS
) -> tuple[Webhook, Secret]:
    async with database.transaction() as tx:
        return await webhooks.create(tx, folk[by], folk.home.id, wish, seal=seal, egress=egress, at=NOW)


async def edited(
    database: Database, seal: Seal, folk: People, id: str, edit: WebhookEdit, egress: Egress = EGRESS
) -> tuple[Webhook, Secret | None]:
    async with database.transaction() as tx:
        return await webhooks.change(tx, folk["alice"], folk.home.id, id, edit, seal=seal, egress=egress, at=NOW + 1)


async def test_two_at_once_are_not_more_than_there_may_be(
    database: Database, seal: Seal, folk: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.vault.webhooks._MOST", 2)
    await made(database, seal, folk, NewWebhook("first", URL))
    async with database.transaction() as tx:
        wish = NewWebhook("second", URL)
        await webhooks.create(tx, folk["alice"], folk.home.id, wish, seal=seal, egress=EGRESS, at=NOW)
        other = asyncio.ensure_future(made(database, seal, folk, NewWebhook("third", URL)))
        await asyncio.sleep(0.2)
        assert not other.done()
    with refused("conflict"):
        await other


# ---- by everybody -----------------------------------------------------------------------------------------------


async def test_each_deed_by_everybody(database: Database, seal: Seal, folk: People) -> None:
    webhook, _ = await made(database, seal, folk, NewWebhook("main", URL))

    async def create(tx: Transaction, by: Actor, organization_id: str) -> object:
        wish = NewWebhook(f"by {by.name}", URL)
        return await webhooks.create(tx, by, organization_id, wish, seal=seal, egress=EGRESS, at=NOW)

    async def change(tx: Transaction, by: Actor, organization_id: str) -> object:
        edit = WebhookEdit(name=f"of {by.name}")
        return await webhooks.change(tx, by, organization_id, webhook.id, edit, seal=seal, egress=EGRESS, at=NOW)

    async def list_(tx: Transaction, by: Actor, organization_id: str) -> object:
        return await webhooks.list_(tx, by, organization_id)

    async def show(tx: Transaction, by: Actor, organization_id: str) -> object:
        return await webhooks.show(tx, by, organization_id, webhook.id)

    async def test(tx: Transaction, by: Actor, organization_id: str) -> object:
        return await webhooks.test(tx, by, organization_id, webhook.id, NOW)

    async def remove(tx: Transaction, by: Actor, organization_id: str) -> object:
        await webhooks.remove(tx, by, organization_id, webhook.id, NOW)
        return None

    for deed in (create, change, list_, show, test, remove):
        await tried_by_all(database, folk, deed)


async def tried_by_all(
    database: Database, folk: People, deed: Callable[[Transaction, Actor, str], Awaitable[object]]
) -> None:
    """Allowed to owner, admin and operator; refused to a member; to outsiders as if there were nothing."""
    for name in ("alice", "erin", "operator", *INSIDE, *OUTSIDE):
        before = await traces(database)
        with pytest.raises(_UndoneError):
            async with database.transaction() as tx:
                if name in {"alice", "erin", "operator"}:
                    await deed(tx, folk[name], folk.home.id)
                else:
                    with refused("not_found" if name in OUTSIDE else "insufficient_scope"):
                        await deed(tx, folk[name], folk.home.id)
                    assert await traces(database) - before == NONE
                raise _UndoneError


class _UndoneError(Exception):
    """So that each tries the same."""


async def test_every_deed_is_written_down_without_secret_or_path(database: Database, seal: Seal, folk: People) -> None:
    before = await traces(database)
    webhook, secret = await made(database, seal, folk, NewWebhook("main", URL))
    assert await traces(database) - before == ONE
    before = await traces(database)
    _, other = await edited(database, seal, folk, "main", WebhookEdit(is_active=False, new_secret=True))
    assert await traces(database) - before == ONE
    before = await traces(database)
    await edited(database, seal, folk, "main", WebhookEdit(is_active=False))
    assert await traces(database) - before == NONE, "nothing was changed"
    async with database.transaction() as tx:
        await webhooks.remove(tx, folk["alice"], folk.home.id, webhook.id, NOW + 2)
        rows = await list_audit(tx, folk.home.id)
    told = repr(rows)
    assert other is not None
    assert secret.reveal() not in told
    assert other.reveal() not in told
    assert "tenant" not in told
    assert [row.deed for row in rows[:3]] == ["webhooks.delete", "webhooks.edit", "webhooks.create"]
    assert rows[1].after == {"is_active": False, "url_changed": False, "secret_changed": True}


# ---- the secret -------------------------------------------------------------------------------------------------


async def test_the_secret_is_sealed_and_shown_once(
    database: Database, seal: Seal, folk: People, canaries: Canaries
) -> None:
    webhook, secret = await made(database, seal, folk, NewWebhook("main", URL))
    canaries.watch(secret.reveal())
    assert secret.reveal().startswith("whsec_")
    assert secret.reveal() not in repr(webhook)
    assert secret.reveal() not in await people.everything(database)
    async with database.read() as tx:
        [listed] = await webhooks.list_(tx, folk["alice"], folk.home.id)
    assert listed == webhook


async def test_another_origin_needs_another_secret(database: Database, seal: Seal, folk: People) -> None:
    webhook, _ = await made(database, seal, folk, NewWebhook("main", URL))
    same, none = await edited(database, seal, folk, "main", WebhookEdit(url="https://hooks.example.org/other"))
    assert none is None
    assert same.sealed == webhook.sealed
    moved, fresh = await edited(database, seal, folk, "main", WebhookEdit(url="https://example.net/in"))
    assert fresh is not None
    assert moved.origin == "https://example.net"
    assert moved.id == webhook.id


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE webhooks SET origin = 'https://evil.example', url = 'https://evil.example/' WHERE name = 'one'",
        "UPDATE webhooks SET sealed = (SELECT sealed FROM webhooks w WHERE w.name = 'two') WHERE name = 'one'",
        "UPDATE webhooks SET sealed = 'gAAAAnonsense' WHERE name = 'one'",
    ],
)
async def test_a_secret_that_was_moved_signs_nothing(
    database: Database, seal: Seal, folk: People, statement: str
) -> None:
    for name in ("one", "two"):
        await made(database, seal, folk, NewWebhook(name, URL))
    await spoil(database, statement)
    async with database.read() as tx:
        webhook = await webhooks.show(tx, folk["alice"], folk.home.id, "one")
        with pytest.raises(Undecryptable):
            await seal.open(tx, webhooks._place(webhook), webhook.sealed)


# ---- what may be entered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("http://hooks.example.org/", "https://127.0.0.1/", "https://localhost/", "https://169.254.169.254/latest"),
        *("https://[::1]/", "https://10.0.0.8/", "https://2130706433/", "https://user:pw@example.org/", "ftp://x.org"),
        *("https://example.org/#here", "https://example.org/a b", "https://example.org\r\nx: y", "", "example.org"),
        "http://127.0.0.1:9001/",
    ],
)
async def test_urls_that_lead_where_nobody_may(database: Database, seal: Seal, folk: People, url: str) -> None:
    with refused("invalid_field", "url"):
        await made(database, seal, folk, NewWebhook("main", url))
    await made(database, seal, folk, NewWebhook("main", URL))
    with refused("invalid_field", "url"):
        await edited(database, seal, folk, "main", WebhookEdit(url=url))


async def test_what_the_operator_listed_may_be_private(database: Database, seal: Seal, folk: People) -> None:
    webhook, _ = await made(database, seal, folk, NewWebhook("main", "http://127.0.0.1:9000/in"))
    assert webhook.origin == "http://127.0.0.1:9000"


@pytest.mark.parametrize("kinds", [(), ("all", "test"), ("budget",), ("budget.threshold", "x"), ("",), ("ALL",)])
async def test_kinds_that_are_none(database: Database, seal: Seal, folk: People, kinds: tuple[str, ...]) -> None:
    with refused("invalid_field", "kinds"):
        await made(database, seal, folk, NewWebhook("main", URL, kinds))


async def test_names_are_unique_in_the_organization(database: Database, seal: Seal, folk: People) -> None:
    await made(database, seal, folk, NewWebhook("main", URL))
    await made(database, seal, folk, NewWebhook("other", URL))
    with refused("conflict", "name"):
        await made(database, seal, folk, NewWebhook("main", URL))
    with refused("conflict", "name"):
        await edited(database, seal, folk, "other", WebhookEdit(name="main"))


async def test_there_is_an_end_to_them(database: Database, seal: Seal, folk: People) -> None:
    for number in range(20):
        await made(database, seal, folk, NewWebhook(f"hook {number}", URL))
    with refused("conflict"):
        await made(database, seal, folk, NewWebhook("one more", URL))


# ---- what is posted ---------------------------------------------------------------------------------------------


class Post:
    """A webhook at a real receiver, and what delivers to it."""

    def __init__(self, database: Database, seal: Seal, folk: People, receiver: Receiver) -> None:
        self.database, self.seal, self.folk, self.receiver = database, seal, folk, receiver
        self.clock = SetClock()
        self.egress = Egress([receiver.origin])
        self.transport = Transport(self.egress)
        self.outbox = Outbox(database, self.clock, {"webhook": by_webhook(database, seal, self.transport, self.clock)})

    async def make(self) -> Webhook:
        wish = NewWebhook("main", self.receiver.url)
        webhook, secret = await made(self.database, self.seal, self.folk, wish, egress=self.egress)
        self.receiver.secret = secret.reveal()
        return webhook

    async def test(self) -> str:
        """Put a test into the outbox; the id of the notification."""
        async with self.database.transaction() as tx:
            told = await webhooks.test(tx, self.folk["alice"], self.folk.home.id, "main", self.clock.now())
        return told.id

    async def delivered(self, id: str) -> Delivery:
        """What came of one attempt."""
        await self.outbox.run(self.clock.now())
        async with self.database.read() as tx:
            [only] = await list_deliveries(tx, [id])
        return only


@pytest.fixture
async def post(database: Database, seal: Seal, folk: People, receiver: Receiver) -> AsyncIterator[Post]:
    made = Post(database, seal, folk, receiver)
    made.clock.at = SystemClock().now()  # the receiver tells the time by itself
    await made.transport.open()
    yield made
    await made.transport.close()


async def test_a_post_is_signed_and_says_what_happened(post: Post) -> None:
    await post.make()
    delivery = await post.delivered(id := await post.test())
    assert (delivery.done_at, delivery.next_at, delivery.error) == (post.clock.at, None, None)
    message = post.receiver.taken[id]
    assert message["type"] == "test"
    assert message["data"]["organization_id"] == post.folk.home.id
    assert message["data"]["facts"]["organization"] == "Home"
    [request] = post.receiver.requests
    assert (request.method, request.target) == ("POST", "/hooks/ostiary")
    assert request.header("content-type") == "application/json"


async def test_a_recorded_post_is_worth_nothing_to_who_recorded_it(post: Post) -> None:
    """Neither again as it is, nor with another body, another time or another id."""
    await post.make()
    await post.delivered(await post.test())
    [request] = post.receiver.requests
    headers = {name: text for name, text in request.headers if name.startswith("webhook-")}
    other = {**headers, "webhook-id": "ntf_other"}
    later = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
    with httpx2.Client() as client:
        for sent, body in (
            (headers, request.body),
            (headers, request.body + b" "),
            (other, request.body),
            (later, b""),
        ):
            assert client.post(post.receiver.url, headers=sent, content=body).status_code == 400
    assert post.receiver.refused == ["seen before", "not signed", "not signed", "not signed"]


async def test_again_it_is_the_same_message_at_another_time(post: Post) -> None:
    await post.make()
    post.receiver.status = 500
    id = await post.test()
    failed = await post.delivered(id)
    assert failed.error == f"{post.receiver.origin} answered 500."
    assert failed.next_at == post.clock.at + 30_000
    post.receiver.status = None
    post.clock.move(30)
    assert (await post.delivered(id)).done_at is not None
    first, second = post.receiver.requests
    assert first.body == second.body
    assert first.header("webhook-id") == second.header("webhook-id") == id
    assert first.header("webhook-signature") != second.header("webhook-signature")
    assert post.receiver.refused == []


async def test_a_new_secret_signs_from_then_on(post: Post) -> None:
    await post.make()
    _, fresh = await edited(post.database, post.seal, post.folk, "main", WebhookEdit(new_secret=True), post.egress)
    assert fresh is not None
    assert (await post.delivered(await post.test())).error is not None
    assert post.receiver.refused == ["not signed"]
    post.receiver.secret = fresh.reveal()
    assert (await post.delivered(await post.test())).done_at is not None


async def test_redirects_are_not_followed(post: Post) -> None:
    await post.make()
    post.receiver.status = 307
    delivery = await post.delivered(await post.test())
    assert delivery.error == f"{post.receiver.origin} answered 307."
    assert [request.target for request in post.receiver.requests] == ["/hooks/ostiary"]


async def test_gone_is_not_asked_again(post: Post) -> None:
    await post.make()
    post.receiver.status = 410
    delivery = await post.delivered(await post.test())
    assert (delivery.next_at, delivery.done_at) == (None, None)
    assert delivery.error is not None


async def test_what_the_receiver_says_is_not_kept(post: Post) -> None:
    """An error text that quoted the answer would let an admin read whatever the operator's exceptions lead to."""
    await post.make()
    post.receiver.status = 500
    delivery = await post.delivered(await post.test())
    assert "{}" not in (delivery.error or "")
    assert "/hooks" not in (delivery.error or "")


@pytest.mark.parametrize("how", ["deleted", "switched off"])
async def test_what_is_on_its_way_to_a_webhook_that_is_no_more_is_given_up(post: Post, how: str) -> None:
    await post.make()
    id = await post.test()
    if how == "deleted":
        async with post.database.transaction() as tx:
            await webhooks.remove(tx, post.folk["alice"], post.folk.home.id, "main", NOW)
    else:
        await edited(post.database, post.seal, post.folk, "main", WebhookEdit(is_active=False), post.egress)
    delivery = await post.delivered(id)
    assert (delivery.next_at, delivery.done_at) == (None, None)
    assert delivery.error == f"The webhook is {how}."
    assert post.receiver.requests == []


async def test_an_origin_that_is_listed_no_more_is_not_posted_to(post: Post) -> None:
    await post.make()
    strict = Transport(Egress())
    await strict.open()
    outbox = Outbox(post.database, post.clock, {"webhook": by_webhook(post.database, post.seal, strict, post.clock)})
    id = await post.test()
    await outbox.run(post.clock.now())
    await strict.close()
    async with post.database.read() as tx:
        [delivery] = await list_deliveries(tx, [id])
    assert "OSTIARY_EGRESS_ALLOW" in (delivery.error or "")
    assert post.receiver.requests == []


async def test_a_webhook_of_others_hears_nothing(post: Post, database: Database) -> None:
    webhook = await post.make()
    async with database.transaction() as tx:
        subject = await find_subject(tx, "organization", post.folk.elsewhere.id)
        assert subject is not None
        told = await alerts.tell(tx, "test", "organization", subject, {"by": "x"}, post.clock.at)
        assert told is not None
        assert [one.address for one in await list_deliveries(tx, [told.id])] == ["dora@example.org"]
        assert webhook.id in await webhook_store.list_listeners(tx, post.folk.home.id, "budget.threshold")
