"""Which role may do which deed, and how far; the only place where actors are made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, Literal

from ostiary.actor import Actor, Reach
from ostiary.errors import Refusal
from ostiary.orgs.store import User

Role = Literal["owner", "admin", "member"]

_AGENT_KEYS: Final = tuple(
    f"agent_keys.{verb}"
    for verb in (
        "create",
        "show",
        "list",
        "edit",
        "rotate",
        "ephemeral",
        "deactivate",
        "activate",
        "revoke",
        "delete",
    )
)
_CREDENTIALS: Final = tuple(f"client_credentials.{verb}" for verb in ("create", "list", "revoke"))
_PROVIDER_KEYS: Final = tuple(
    f"provider_keys.{verb}" for verb in ("add", "list", "show", "edit", "reset", "delete", "test")
)
_ENDPOINTS: Final = tuple(f"endpoints.{verb}" for verb in ("create", "list", "show", "edit", "delete"))
_ALIASES: Final = ("aliases.create", "aliases.edit", "aliases.delete")
_SEEN: Final = ("usage.show", "traces.show", "traces.content")
_AUDIT: Final = ("audit.show", "audit.verify")
_TOLD: Final = (
    "notifications.list",
    "notifications.test",
    *(f"webhooks.{verb}" for verb in ("create", "list", "edit", "delete", "test")),
)
_SESSIONS: Final = ("sessions.list", "sessions.end")
_SELF: Final = ("users.name",)
_OPERATORS: Final = (
    "organizations.create",
    "organizations.list",
    "users.list",
    "users.operator",
    "users.password",
    "prices.set",
    "prices.recost",
    "gateways.list",
    "gateways.retire",
    "backups.make",
    "backups.restore",
    "settings.show",
    "master_key.rotate",
    "vault.rekey",
    *_ALIASES,
)
_OWNERS: Final = ("organizations.budget", "members.role")

DEEDS: Final = (
    *_OPERATORS,
    "organizations.show",
    "organizations.edit",
    "organizations.budget",
    "members.add",
    "members.list",
    "members.role",
    "members.remove",
    *_SELF,
    *_SESSIONS,
    *_AGENT_KEYS,
    *_CREDENTIALS,
    *_PROVIDER_KEYS,
    *_ENDPOINTS,
    "aliases.list",
    "prices.show",
    "gateways.show",
    *_SEEN,
    *_AUDIT,
    *_TOLD,
)
"""Everything that is asked for by `Actor.require`, in the order of the table."""


def _all(*deeds: str) -> Mapping[str, Reach]:
    return MappingProxyType(dict.fromkeys(deeds, "all"))


_MEMBER: Final[Mapping[str, Reach]] = MappingProxyType(
    {
        **dict.fromkeys((*_SELF, *_SESSIONS, *_AGENT_KEYS, *_SEEN, "notifications.list"), "own"),
        "provider_keys.list": "all",
        "endpoints.list": "all",
        "endpoints.show": "all",
        "aliases.list": "all",
        "prices.show": "all",
    }
)
_OWNER: Final[Mapping[str, Reach]] = MappingProxyType(
    {
        **_all(*(deed for deed in DEEDS if deed not in _OPERATORS)),
        **dict.fromkeys(_SELF, "own"),  # a person is known by one name in every organization: no owner's to change
    }
)
_ADMIN: Final[Mapping[str, Reach]] = MappingProxyType(
    {deed: reach for deed, reach in _OWNER.items() if deed not in _OWNERS}
)

ROLES: Final[Mapping[str, Mapping[str, Reach]]] = MappingProxyType(
    {
        "operator": _all(*DEEDS),
        "owner": _OWNER,
        "admin": _ADMIN,
        "member": _MEMBER,
    }
)
"""Role × deed. `own` reaches what belongs to the actor, `all` everything in the organization; absent is refused."""

_READ: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "organizations": ("organizations.list", "organizations.show"),
        "members": ("members.list",),
        "agent-keys": ("agent_keys.list", "agent_keys.show"),
        "client-credentials": ("client_credentials.list",),
        "provider-keys": ("provider_keys.list", "provider_keys.show"),
        "providers": ("prices.show",),
        "endpoints": ("endpoints.list", "endpoints.show"),
        "aliases": ("aliases.list",),
        "usage": ("usage.show",),
        "traces": ("traces.show", "traces.content"),
        "audit": _AUDIT,
        "gateways": ("gateways.list", "gateways.show"),
        "notifications": ("notifications.list", "webhooks.list"),
        "settings": ("settings.show",),
    }
)
_WRITE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "organizations": ("organizations.create", "organizations.edit", "organizations.budget"),
        "members": ("members.add", "members.role", "members.remove"),
        "agent-keys": tuple(deed for deed in _AGENT_KEYS if deed not in _READ["agent-keys"]),
        "client-credentials": ("client_credentials.create", "client_credentials.revoke"),
        "provider-keys": tuple(deed for deed in _PROVIDER_KEYS if deed not in _READ["provider-keys"]),
        "providers": ("prices.set", "prices.recost"),
        "endpoints": tuple(deed for deed in _ENDPOINTS if deed not in _READ["endpoints"]),
        "aliases": _ALIASES,
        "gateways": ("gateways.retire",),
        "notifications": tuple(deed for deed in _TOLD if deed not in _READ["notifications"]),
    }
)
ADMIN_SCOPES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {f"admin:{noun}:read": deeds for noun, deeds in _READ.items()}
    | {f"admin:{noun}:write": deeds for noun, deeds in _WRITE.items()}
)
"""What each `admin:<noun>:read|write` scope of an agent key covers. None covers who signs in: the making of
operators, names, passwords, and the sessions of browsers."""

_NOBODYS: Final[Mapping[str, Reach]] = MappingProxyType(dict.fromkeys((*_SELF, *_SESSIONS), "own"))
"""What is left to whoever belongs to no organization: their own name and browsers."""
_NOWHERE: Final = "-"
"""The organization of whoever belongs to none: no organization has this id, so nothing is found."""


def operator(name: str = "operator", origin: str = "cli") -> Actor:
    """Who runs the instance and reaches every organization."""
    return Actor("operator", "operator", name, None, "operator", ROLES["operator"], origin)


def system(origin: str = "start") -> Actor:
    """Ostiary itself, where a deed is nobody's: the first organization of a new instance."""
    return Actor("system", "system", "ostiary", None, "system", _all("organizations.create", "aliases.create"), origin)


def member_actor(
    user: User, member_role: str | None, organization_id: str, origin: str, address: str | None = None
) -> Actor:
    """A user at work in an organization, with the role they have there; None if they have none."""
    if member_role is None:
        return Actor("user", user.id, user.email, _NOWHERE, "none", _NOBODYS, origin, address)
    role = checked_role(member_role)
    return Actor("user", user.id, user.email, organization_id, role, ROLES[role], origin, address)


def page_actor(user: User, member_role: str | None, organization_id: str | None, address: str | None = None) -> Actor:
    """A user at the dashboard, looking at an organization: a member of it, or an operator, who reaches every one."""
    if user.is_operator:
        return Actor("user", user.id, user.email, None, "operator", ROLES["operator"], "dashboard", address)
    return member_actor(user, member_role, organization_id or _NOWHERE, "dashboard", address)


def first_owner(user: User, address: str | None = None) -> Actor:
    """Who sets up a new instance by its link: they may do what that takes."""
    may = _all("organizations.create", "organizations.edit")
    return Actor("user", user.id, user.email, None, "operator", may, "dashboard", address)


def stranger(name: str, id: str, address: str | None, origin: str = "dashboard") -> Actor:
    """Somebody who has not proved to be anybody, by the name they gave; reaches nothing."""
    return Actor("user", id, name, _NOWHERE, "none", origin=origin, address=address)


def key_actor(
    user: User | None,
    member_role: str | None,
    organization_id: str,
    scopes: Collection[str],
    key_name: str,
    address: str | None = None,
) -> Actor:
    """Whoever holds an agent key, at the admin door: its owner, as far as both their role and its scopes reach.

    A key whose owner has left, or that has none, reaches nothing. An operator's reaches every organization.
    """
    if user is None or member_role is None:
        return Actor("user", "-", key_name, _NOWHERE, "none", origin="api", address=address)
    role = "operator" if user.is_operator else checked_role(member_role)
    covered = {deed for scope in scopes for deed in ADMIN_SCOPES.get(scope, ())}
    grants = MappingProxyType({deed: reach for deed, reach in ROLES[role].items() if deed in covered})
    reached = None if user.is_operator else organization_id
    return Actor("user", user.id, f"{user.email} by key {key_name}", reached, role, grants, "api", address)


def judge_scopes(by: Actor, owner_id: str | None, owner_role: str | None, scopes: Collection[str]) -> Refusal | None:
    """Why a key of this owner cannot be handed to `by` with these admin scopes; None when it can.

    The owner's role must reach them, and so must whoever gets the secret: nobody hands out what they do not have.
    """
    for scope in sorted(scopes):
        if scope not in ADMIN_SCOPES:
            message = f"There is no scope {scope}. There are read and write scopes of {', '.join(_READ)}."
            return Refusal("invalid_field", message, param="scopes")
        if owner_role is None:
            message = f"{scope} reaches as far as the role of the key's owner, and this key has none. Name a member."
            return Refusal("invalid_field", message, param="scopes")
        reached = {deed: ROLES[owner_role][deed] for deed in ADMIN_SCOPES[scope] if deed in ROLES[owner_role]}
        if not reached:
            return Refusal("invalid_field", f"The owner's role, {owner_role}, does not reach {scope}.", param="scopes")
        is_everywhere = owner_role == "operator"
        if (is_everywhere and by.organization_id is not None) or not all(
            by.grants.get(deed) == "all" or (by.id == owner_id and by.grants.get(deed) == reach)
            for deed, reach in reached.items()
        ):
            return Refusal("insufficient_scope", f"You cannot hand out {scope}: it reaches further than you do.")
    return None


def checked_role(text: str) -> Role:
    """One of the roles a member can have, or a refusal."""
    match text:
        case "owner" | "admin" | "member":
            return text
        case _:
            raise Refusal("invalid_field", "A role is owner, admin or member.", param="role")
