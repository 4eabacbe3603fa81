"""Who somebody is that has signed in at an OpenID provider: known by its issuer and subject, never by e-mail alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.names import checked_email, checked_name
from ostiary.orgs import access_store, roles, store, users, verified
from ostiary.orgs.store import User

_LONGEST_ISSUER, _LONGEST_SUBJECT = 300, 255
_UNKNOWN: Final = "This account is not known here. Ask an owner of your organization to add its e-mail address."


async def find_or_link(
    tx: Transaction,
    issuer: str,
    subject: str,
    email: str | None,
    email_verified: bool,  # noqa: FBT001 - as the token of the provider says it
    name: str | None,
    at: int,
    *,
    domains: Collection[str] = (),
) -> User:
    """The user of this identity, else one who is a member and has this verified address, else nobody: `not_found`.

    Of accepted `domains` somebody new is made a user, who belongs to nothing until they are added.
    """
    if not (0 < len(issuer) <= _LONGEST_ISSUER and 0 < len(subject) <= _LONGEST_SUBJECT):
        raise Refusal("invalid_field", "The provider named no one.", param="subject")
    known = await access_store.find_user_id(tx, issuer, subject)
    if known is not None:
        user = await store.find_user_by_id(tx, known)
        if user is None:
            raise Refusal("not_found", _UNKNOWN)
        return user
    if email is None or email_verified is not True:
        raise Refusal("not_found", "The provider has not verified the e-mail address of this account.")
    user = await _of_address(tx, checked_email(email), name, domains, at)
    if not await access_store.add_identity(tx, issuer, subject, user.id, at):
        raise Refusal("conflict", "This account was linked a moment ago. Sign in again.")
    await verified.mark(tx, user, at, has_new_password=False)
    await _tell(tx, user, issuer, at)
    return user


async def _of_address(tx: Transaction, email: str, name: str | None, domains: Collection[str], at: int) -> User:
    user = await store.find_user(tx, email)
    if user is not None and (user.is_operator or await store.list_memberships(tx, user.id)):
        return user
    host = email.rpartition("@")[2]
    if host not in {one.strip().lower().removeprefix("@") for one in domains}:
        raise Refusal("not_found", _UNKNOWN)
    return user or await users.ensure(tx, email, _called(name, email), at)


def _called(name: str | None, email: str) -> str:
    try:
        return checked_name(name or "")
    except Refusal:
        return email.partition("@")[0]


async def _tell(tx: Transaction, user: User, issuer: str, at: int) -> None:
    for home, role in await store.list_homes(tx, user.id):
        await audit.write(
            tx,
            roles.member_actor(user, role, home or "", "dashboard"),
            "users.identity",
            "user",
            user.id,
            user.email,
            organization_id=home,
            after={"issuer": issuer},
            at=at,
        )
    await changes.append(tx, "user", None, user.id, at)
