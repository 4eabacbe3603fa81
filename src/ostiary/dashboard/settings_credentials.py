"""Client credentials: what an organization's own servers present; minted, listed, revoked."""

from __future__ import annotations

from typing import Final

from ostiary.agents import client_credentials
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.orgs import organizations

_PAGE: Final = f"{HOME}/settings/credentials"
_ROWS: Final = 50


async def list_(visit: Visit) -> Answer:
    """Those that open the gate first, the newest on top; then what is revoked."""
    async with visit.reading() as tx:
        found = await client_credentials.list_(tx, visit.by, visit.home)
    found.sort(key=lambda one: (one.revoked_at is not None, -one.created_at, one.id))
    begin = visit.query.number("from", at_least=0) or 0
    shown = found[begin : begin + _ROWS]
    more = begin + _ROWS if len(found) > begin + _ROWS else None
    return visit.page("settings/credentials.html", found=shown, more=more, tab="credentials")


async def create(visit: Visit) -> Answer:
    """Mint one; it is in this answer and never again."""
    try:
        async with visit.writing() as tx:
            organization = await organizations.get(tx, visit.home)
            made, secret = await client_credentials.create(
                tx,
                visit.by,
                organization.id,
                visit.form.text("name"),
                client_id=organization.client_id,
                pepper=visit.hall.seal.pepper,
                at=visit.at,
            )
    except Refusal as refusal:
        return visit.page("settings/credential_new.html", refusal.status, wrong=visit.refused(refusal))
    return visit.page("settings/credential_secret.html", credential=made, secret=secret.reveal())


async def revoke(visit: Visit) -> Answer:
    """End one for good."""
    try:
        async with visit.writing() as tx:
            one = await client_credentials.revoke(tx, visit.by, visit.home, visit.names["id"], visit.at)
    except Refusal as refusal:
        return visit.go(_PAGE, visit.refused(refusal).message, "error")
    return visit.go(_PAGE, f"{one.name} is revoked.")
