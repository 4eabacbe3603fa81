"""The first start: a link that works once, by which somebody becomes the owner and operator of a new instance."""

from __future__ import annotations

from typing import Final

from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.names import checked_email, checked_name
from ostiary.orgs import (
    access_store,
    link_store,
    organizations,
    passwords,
    roles,
    sign_in,
    store,
    tokens,
    users,
    verified,
)
from ostiary.orgs.organizations import Organization
from ostiary.orgs.sign_in import SignedIn
from ostiary.orgs.store import Member, User
from ostiary.secret import Secret

VALID_MS: Final = 24 * 3_600_000
_KIND: Final = "set_up"
_SPENT: Final = (
    "This link does not work any more: it was used, replaced by a newer one, or is older than 24 hours. "
    "Restart 'ostiary serve' for a new one, as long as nobody can sign in."
)


async def link_token(tx: Transaction, at: int) -> Secret | None:
    """A token for the link, in the place of any before; None when somebody can sign in already."""
    await changes.take_turn(tx)  # of two gateways that start at once, the later one's link works
    if await access_store.may_anybody_sign_in(tx):
        return None
    token = tokens.mint()
    await link_store.remove_links(tx, _KIND)
    await link_store.add_link(tx, tokens.kept(token), _KIND, None, at=at, expires_at=at + VALID_MS)
    return token


async def is_open(tx: Transaction, token: str, at: int) -> bool:
    """Whether this token would do; looking spends nothing."""
    digest = tokens.digest(token)
    if digest is None or not (await link_store.has_link(tx, digest, _KIND, at))[0]:
        return False
    return not await access_store.may_anybody_sign_in(tx)


async def set_up(  # noqa: PLR0913 - what a page and its browser give
    database: Database,
    token: str,
    *,
    name: str,
    email: str,
    password: Secret,
    organization: str,
    at: int,
    address: str | None,
    agent: str | None,
) -> SignedIn:
    """Make the first person who can sign in, as owner and operator, and let them in. One of several at once wins.

    The organization of the first start, while nobody belongs to it, gets the given name.
    """
    async with database.read() as tx:
        if not await is_open(tx, token, at):
            raise Refusal("not_found", _SPENT)
    called, mail = checked_name(name), checked_email(email)
    wanted = checked_name(organization, "organization")
    hash_ = await passwords.hashed(password, unlike=(called, mail))
    async with database.transaction() as tx:
        await changes.take_turn(tx)
        digest = tokens.digest(token) or b""
        if await access_store.may_anybody_sign_in(tx) or not await link_store.claim_link(tx, digest, _KIND, at):
            raise Refusal("not_found", _SPENT)
        user = await users.ensure(tx, mail, called, at)
        home = await _organization(tx, user, wanted, at, address)
        await _make_owner(tx, user, home, hash_, at, address)
        owner = await store.find_user_by_id(tx, user.id) or user
        return await sign_in.let_in(tx, owner, at, address=address, agent=agent, how="set_up", organization_id=home.id)


async def _organization(tx: Transaction, user: User, name: str, at: int, address: str | None) -> Organization:
    """The only one there is, renamed while it is empty; of several the one of that name; else a new one."""
    by = roles.first_owner(user, address)
    known = await store.list_organizations(tx)
    if len(known) == 1:
        [only] = known
        if await store.list_members(tx, only.id) or only.name == name:
            return only
        return await organizations.change(tx, by, only.id, {"name": name}, at)
    named = next((one for one in known if one.name == name), None)
    return named or await organizations.create(tx, by, name, at)


async def _make_owner(
    tx: Transaction, user: User, home: Organization, hash_: str, at: int, address: str | None
) -> None:
    await access_store.change_hash(tx, user.id, hash_, at)
    await verified.mark(tx, user, at, has_new_password=True)
    await store.change_user(tx, user.id, is_operator=True)
    if await store.find_role(tx, home.id, user.id) is None:
        await store.add_member(tx, Member(home.id, user.id, user.email, user.name, "owner", at))
    else:
        await store.change_member(tx, home.id, user.id, "owner")
    await audit.write(
        tx,
        roles.first_owner(user, address),
        "users.set_up",
        "user",
        user.id,
        user.email,
        organization_id=home.id,
        after={"role": "owner", "is_operator": True},
        at=at,
    )
    await changes.append(tx, "user", None, user.id, at)
    await changes.append(tx, "member", home.id, user.id, at)
