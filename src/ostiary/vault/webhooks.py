"""Webhooks: URLs that are told of notifications, each with a secret that signs what is posted there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from ostiary.actor import Actor
from ostiary.clock import SECOND_MS, Clock
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit, letters, notifications
from ostiary.ledger import webhook_store as store
from ostiary.ledger.alerts import WEBHOOK, Way
from ostiary.ledger.outbox import Send, Undelivered
from ostiary.ledger.outbox_store import Delivery, Notification
from ostiary.ledger.webhook_store import ALL, Webhook
from ostiary.names import checked_name
from ostiary.providers.egress import Blocked, Egress, Target
from ostiary.providers.transport import Transport, TransportError, Waits
from ostiary.secret import Secret
from ostiary.vault.seal import Place, Seal, Undecryptable

__all__ = ["NewWebhook", "Webhook", "WebhookEdit"]

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
_MOST: Final = 20
"""Of one organization: each is posted to at every notification."""
_WAITS: Final = Waits(connect_s=10, first_byte_s=15, idle_s=10, total_s=30)
_LONGEST_ANSWER: Final = 65_536
_GONE: Final = 410
_FACTS: Final = ("name", "origin", "kinds", "is_active")
"""What the audit log may know: the path of a URL is often a secret of its receiver."""


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """What is wished for; `kinds` are those of `letters.KINDS`, or `all` alone."""

    name: str
    url: str
    kinds: Collection[str] = (ALL,)


@dataclass(frozen=True, slots=True)
class WebhookEdit:
    """What is to change: None leaves a thing as it is. `new_secret` puts a fresh secret in the place of the old."""

    name: str | None = None
    url: str | None = None
    kinds: Collection[str] | None = None
    is_active: bool | None = None
    new_secret: bool = False


async def create(
    tx: Transaction, by: Actor, organization_id: str, wish: NewWebhook, *, seal: Seal, egress: Egress, at: int
) -> tuple[Webhook, Secret]:
    """Make a webhook and its secret, which is returned here and nowhere else."""
    by.require("webhooks.create", organization_id)
    target = _checked_url(wish.url, egress)
    if await store.count_webhooks(tx, organization_id) >= _MOST:
        raise Refusal("conflict", f"An organization has {_MOST} webhooks at most. Delete one first.")
    webhook = Webhook(
        id=new_id("wh", at),
        organization_id=organization_id,
        name=checked_name(wish.name),
        url=target.url,
        origin=target.origin,
        kinds=_checked_kinds(wish.kinds),
        sealed="",
        sealed_version=0,
        is_active=True,
        created_at=at,
        updated_at=at,
    )
    webhook, secret = await _with_secret(tx, seal, webhook, at)
    await store.add_webhook(tx, webhook)
    await _tell(tx, by, "webhooks.create", webhook, at, after=_facts(webhook))
    return webhook, secret


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[Webhook]:
    """The organization's, oldest first; nothing is opened for it."""
    by.require("webhooks.list", organization_id)
    return await store.list_webhooks(tx, organization_id)


async def show(tx: Transaction, by: Actor, organization_id: str, id: str) -> Webhook:
    """One webhook, by id or by name; without its secret."""
    by.require("webhooks.list", organization_id)
    return await store.get_webhook(tx, organization_id, id)


async def change(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    edit: WebhookEdit,
    *,
    seal: Seal,
    egress: Egress,
    at: int,
) -> tuple[Webhook, Secret | None]:
    """Edit in place. A secret is for one origin: another gets a fresh one, returned here and nowhere else."""
    by.require("webhooks.edit", organization_id)
    webhook = await store.get_webhook(tx, organization_id, id, lock=True)
    edited = replace(webhook, **_checked_edit(edit, egress))
    secret = None
    if edit.new_secret or edited.origin != webhook.origin:
        edited, secret = await _with_secret(tx, seal, edited, at)
    if edited == webhook:
        return webhook, None
    edited = replace(edited, updated_at=at)
    await store.change_webhook(tx, edited)
    before, after = _facts(webhook), _facts(edited)
    changed = [name for name in after if before[name] != after[name]]
    told: dict[str, object] = {name: after[name] for name in changed}
    told |= {"url_changed": edited.url != webhook.url, "secret_changed": secret is not None}
    await _tell(tx, by, "webhooks.edit", edited, at, before={name: before[name] for name in changed}, after=told)
    return edited, secret


async def remove(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> None:
    """Forget a webhook and its secret; what is on its way there is given up."""
    by.require("webhooks.delete", organization_id)
    webhook = await store.get_webhook(tx, organization_id, id, lock=True)
    await store.remove_webhook(tx, organization_id, webhook.id)
    await _tell(tx, by, "webhooks.delete", webhook, at, before=_facts(webhook))


async def test(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> Notification:
    """Put a test for one webhook into the outbox."""
    by.require("webhooks.test", organization_id)
    webhook = await store.get_webhook(tx, organization_id, id)
    return await notifications.test(tx, by, organization_id, at, Way(WEBHOOK, webhook.id))


# ---- what is posted ---------------------------------------------------------------------------------------------


def sign(secret: Secret, id: str, timestamp: int, body: bytes) -> str:
    """The signature as Standard Webhooks has it: HMAC-SHA256 over id, time in seconds, and body."""
    key = base64.b64decode(secret.reveal().removeprefix(_PREFIX))
    digest = hmac.digest(key, b"%s.%d.%s" % (id.encode(), timestamp, body), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def body_of(notification: Notification) -> bytes:
    """What is posted: the same bytes at every attempt."""
    told = letters.presented(notification)
    message = {"type": notification.kind, "timestamp": told["created_at"], "data": told}
    return msgspec.json.Encoder(decimal_format="number").encode(message)


def by_webhook(database: Database, seal: Seal, transport: Transport, clock: Clock) -> Send:
    """Posts notifications, signed, to where egress lets it; the id stays the same however often it is tried."""

    async def send(delivery: Delivery, notification: Notification) -> None:
        webhook, secret = await _opened(database, seal, delivery.address)
        timestamp, body = clock.now() // SECOND_MS, body_of(notification)
        headers = [
            ("content-type", "application/json"),
            ("user-agent", "ostiary"),
            ("webhook-id", notification.id),
            ("webhook-timestamp", str(timestamp)),
            ("webhook-signature", sign(secret, notification.id, timestamp, body)),
        ]
        try:
            answer = await transport.send("POST", webhook.url, headers, body, _WAITS)
            await answer.read(_LONGEST_ANSWER)
        except TransportError as error:
            raise Undelivered(f"{webhook.origin} was not reached: {error.text}.") from None
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - what HTTP calls success
            raise Undelivered(f"{webhook.origin} answered {answer.status}.", is_final=answer.status == _GONE)

    return send


async def _opened(database: Database, seal: Seal, id: str) -> tuple[Webhook, Secret]:
    """The webhook as it is now, with its secret; raises Undelivered where nothing may be posted."""
    try:
        async with database.read() as tx:
            webhook = await store.find_webhook_by_id(tx, id)
            if webhook is None or not webhook.is_active:
                state = "is deleted" if webhook is None else "is switched off"
                raise Undelivered(f"The webhook {state}.", is_final=True)
            return webhook, await seal.open(tx, _place(webhook), webhook.sealed)
    except Undecryptable:
        raise Undelivered("The secret of the webhook does not open. Give it a new one by --new-secret.") from None
    except Refusal as refusal:
        raise Undelivered(refusal.message) from None


# ---- what may be entered ----------------------------------------------------------------------------------------


def _checked_edit(edit: WebhookEdit, egress: Egress) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if edit.name is not None:
        values["name"] = checked_name(edit.name)
    if edit.url is not None:
        target = _checked_url(edit.url, egress)
        values |= {"url": target.url, "origin": target.origin}
    if edit.kinds is not None:
        values["kinds"] = _checked_kinds(edit.kinds)
    if edit.is_active is not None:
        values["is_active"] = edit.is_active
    return values


def _checked_url(url: str, egress: Egress) -> Target:
    try:
        return egress.check_url(url.strip())
    except Blocked as blocked:
        raise Refusal("invalid_field", f"This URL cannot be used: {blocked.reason}", param="url") from None


def _checked_kinds(kinds: Collection[str]) -> frozenset[str]:
    """At least one, all of them known; `all` stands alone."""
    found = frozenset(kinds)
    unknown = sorted(found - {ALL, *letters.KINDS})
    if unknown or not found or (ALL in found and len(found) > 1):
        known = ", ".join(letters.KINDS)
        raise Refusal("invalid_field", f"kinds are 'all' alone, or some of {known}.", param="kinds")
    return found


# ---- sealing, telling -------------------------------------------------------------------------------------------


def _place(webhook: Webhook) -> Place:
    return Place(webhook.organization_id, "webhooks", webhook.id, "sealed", webhook.sealed_version, webhook.origin)


async def _with_secret(tx: Transaction, seal: Seal, webhook: Webhook, at: int) -> tuple[Webhook, Secret]:
    secret = Secret(_PREFIX + base64.b64encode(os.urandom(_SECRET_BYTES)).decode())
    placed = replace(webhook, sealed_version=await seal.newest_version(tx, webhook.organization_id, at))
    return replace(placed, sealed=await seal.seal(tx, _place(placed), secret)), secret


def _facts(webhook: Webhook) -> dict[str, object]:
    return {name: getattr(webhook, name) for name in _FACTS}


async def _tell(
    tx: Transaction,
    by: Actor,
    deed: str,
    webhook: Webhook,
    at: int,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    await audit.write(
        tx,
        by,
        deed,
        "webhook",
        webhook.id,
        webhook.name,
        organization_id=webhook.organization_id,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "webhook", webhook.organization_id, webhook.id, at)
