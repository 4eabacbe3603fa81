"""Webhooks: URLs that are told of notifications; made, edited, tested, deleted."""

from __future__ import annotations

from typing import Any, Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import letters, webhook_store
from ostiary.ledger.webhook_store import ALL
from ostiary.secret import Secret
from ostiary.vault import webhooks
from ostiary.vault.webhooks import NewWebhook, Webhook, WebhookEdit

_PAGE: Final = f"{HOME}/settings/webhooks"
KINDS: Final = tuple(kind for kind in letters.KINDS if kind != "test")
"""What can be picked: a test reaches every webhook."""


async def list_(visit: Visit) -> Answer:
    """All of them."""
    async with visit.reading() as tx:
        found = await webhooks.list_(tx, visit.by, visit.home)
    return visit.page("settings/webhooks.html", found=found, tab="webhooks", **_form(visit))


async def create(visit: Visit) -> Answer:
    """Make one; its secret is in this answer and never again."""
    form, hall = visit.form, visit.hall
    try:
        async with visit.writing() as tx:
            made, secret = await webhooks.create(
                tx,
                visit.by,
                visit.home,
                NewWebhook(form.text("name"), form.text("url"), _kinds(visit)),
                seal=hall.seal,
                egress=hall.egress,
                at=visit.at,
            )
    except Refusal as refusal:
        wrong = visit.refused(refusal)
        return visit.page("settings/webhook_new.html", refusal.status, wrong=wrong, **_form(visit))
    return _revealed(visit, made, secret)


async def show(visit: Visit) -> Answer:
    """One, to be edited."""
    async with visit.reading() as tx:
        one = await webhooks.show(tx, visit.by, visit.home, visit.names["id"])
    return visit.page("settings/webhook.html", webhook=one, tab="webhooks", meanwhile="", **_form(visit, one))


async def change(visit: Visit) -> Answer:
    """Edit in place; another origin gets a new secret, which is shown once."""
    form, hall, id_ = visit.form, visit.hall, visit.names["id"]
    edit = WebhookEdit(form.text("name"), form.text("url"), _kinds(visit), form.text("is_active") == "yes")
    async with visit.reading() as tx:
        one = await webhooks.show(tx, visit.by, visit.home, id_)
    if form.text("updated_at") != str(one.updated_at):
        return _again(visit, one, 409, meanwhile=_meanwhile(one))
    try:
        async with visit.writing() as tx:
            now = await webhook_store.get_webhook(tx, visit.home, one.id, lock=True)
            if now.updated_at != one.updated_at:
                return _again(visit, now, 409, meanwhile=_meanwhile(now))
            edited, secret = await webhooks.change(
                tx, visit.by, visit.home, one.id, edit, seal=hall.seal, egress=hall.egress, at=visit.at
            )
    except Refusal as refusal:
        return _again(visit, one, refusal.status, wrong=visit.refused(refusal))
    if secret is not None:
        return _revealed(visit, edited, secret)
    return visit.go(_PAGE, f"{edited.name} saved.")


async def renew(visit: Visit) -> Answer:
    """A fresh secret in the place of the old, which signs nothing any more."""
    hall = visit.hall
    async with visit.writing() as tx:
        edited, secret = await webhooks.change(
            tx,
            visit.by,
            visit.home,
            visit.names["id"],
            WebhookEdit(new_secret=True),
            seal=hall.seal,
            egress=hall.egress,
            at=visit.at,
        )
    return _revealed(visit, edited, secret or Secret(""))


async def test(visit: Visit) -> Answer:
    """Tell this one alone."""
    async with visit.writing() as tx:
        await webhooks.test(tx, visit.by, visit.home, visit.names["id"], visit.at)
    return visit.go(f"{HOME}/settings/notifications", "A test is on its way. Whether it arrives is shown here.")


async def delete(visit: Visit) -> Answer:
    """Forget one; what is on its way there is given up."""
    async with visit.writing() as tx:
        one = await webhooks.show(tx, visit.by, visit.home, visit.names["id"])
        await webhooks.remove(tx, visit.by, visit.home, one.id, visit.at)
    return visit.go(_PAGE, f"{one.name} is deleted.")


def _kinds(visit: Visit) -> list[str]:
    return [ALL] if visit.form.text("which") != "some" else visit.form.all("kinds")


def _form(visit: Visit, one: Webhook | None = None) -> dict[str, Any]:
    """What the form shows: what was typed where it was sent, else what is."""
    form = visit.form
    if form.values:
        shown = {name: form.text(name) for name in ("name", "url", "is_active")}
        picked = set(form.all("kinds"))
        return {"shown": shown, "picked": picked, "is_all": form.text("which") != "some", "kinds": KINDS}
    if one is None:
        return {"shown": {"name": "", "url": "", "is_active": "yes"}, "picked": set(), "is_all": True, "kinds": KINDS}
    shown = {"name": one.name, "url": one.url, "is_active": "yes" if one.is_active else "no"}
    return {"shown": shown, "picked": set(one.kinds) - {ALL}, "is_all": ALL in one.kinds, "kinds": KINDS}


def _again(visit: Visit, one: Webhook, status: int, **known: object) -> Answer:
    return visit.page(
        "settings/webhook_form.html", status, webhook=one, **{"meanwhile": "", **known}, **_form(visit, one)
    )


def _meanwhile(one: Webhook) -> str:
    state = "on" if one.is_active else "off"
    return f"It is now {one.name!r}, {one.url}, told of {', '.join(sorted(one.kinds))}, and switched {state}."


def _revealed(visit: Visit, one: Webhook, secret: Secret) -> Answer:
    answer = visit.page("settings/webhook_secret.html", webhook=one, secret=secret.reveal())
    return answer.header(b"hx-retarget", "#webhook-body")
