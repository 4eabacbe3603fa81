"""Client credentials: triples client_id:api_key:api_secret that authenticate as the organization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ostiary.actor import Actor
from ostiary.agents import credential, store
from ostiary.agents.store import ClientCredential
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.names import checked_name
from ostiary.secret import Secret

__all__ = ["ClientCredential"]


async def create(
    tx: Transaction, by: Actor, organization_id: str, name: str, *, client_id: str, pepper: Secret, at: int
) -> tuple[ClientCredential, Secret]:
    """Make a credential of the organization whose client id is given; the triple is returned here and nowhere else."""
    by.require("client_credentials.create", organization_id)
    secret = credential.mint_triple(client_id)
    made = ClientCredential(
        id=new_id("cred", at),
        organization_id=organization_id,
        name=checked_name(name),
        digest=credential.digest(pepper, secret.reveal()),
        preview=credential.preview(secret.reveal()),
        created_at=at,
        revoked_at=None,
    )
    await store.add_client_credential(tx, made)
    await _tell(tx, by, "client_credentials.create", made, at, after={"name": made.name, "preview": made.preview})
    return made, secret


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[ClientCredential]:
    """The organization's, oldest first, revoked ones too."""
    by.require("client_credentials.list", organization_id)
    return await store.list_client_credentials(tx, organization_id)


async def revoke(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> ClientCredential:
    """End a credential for good; its name stays taken, so that the ledger's names stay clear."""
    by.require("client_credentials.revoke", organization_id)
    found = await store.find_client_credential(tx, organization_id, id, lock=True)
    if found is None:
        raise Refusal("not_found", "There is no such client credential. 'ostiary credentials list' shows all.")
    if found.revoked_at is not None:
        raise Refusal("conflict", f"The client credential {found.name!r} is revoked already.")
    await store.mark_client_credential_revoked(tx, organization_id, found.id, at)
    revoked = replace(found, revoked_at=at)
    await _tell(tx, by, "client_credentials.revoke", revoked, at, after={"revoked_at": at})
    return revoked


async def _tell(
    tx: Transaction, by: Actor, deed: str, one: ClientCredential, at: int, *, after: Mapping[str, object]
) -> None:
    organization_id = one.organization_id
    await audit.write(
        tx, by, deed, "client_credential", one.id, one.name, organization_id=organization_id, after=after, at=at
    )
    await changes.append(tx, "client_credential", organization_id, one.id, at)
