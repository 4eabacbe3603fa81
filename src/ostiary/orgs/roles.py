"""Which role may do which deed, and how far; the only place where actors are made."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from ostiary.actor import Actor, Reach
from ostiary.errors import Refusal
from ostiary.orgs.store import User

Role = Literal["owner", "admin", "member"]

_AGENT_KEYS: Final = tuple(
    f"agent_keys.{verb}"
    for verb in ("create", "show", "list", "edit", "rotate", "deactivate", "activate", "revoke", "delete")
)
_CREDENTIALS: Final = tuple(f"client_credentials.{verb}" for verb in ("create", "list", "revoke"))
_PROVIDER_KEYS: Final = tuple(f"provider_keys.{verb}" for verb in ("add", "list", "show", "edit", "delete", "test"))
_SEEN: Final = ("usage.show", "traces.show")
_OPERATORS: Final = ("organizations.create", "organizations.list", "prices.set")

DEEDS: Final = (
    *_OPERATORS,
    "members.add",
    "members.list",
    "members.role",
    *_AGENT_KEYS,
    *_CREDENTIALS,
    *_PROVIDER_KEYS,
    "prices.show",
    *_SEEN,
)
"""Everything that is asked for by `Actor.require`, in the order of the table."""


def _all(*deeds: str) -> Mapping[str, Reach]:
    return MappingProxyType(dict.fromkeys(deeds, "all"))


_MEMBER: Final[Mapping[str, Reach]] = MappingProxyType(
    {
        **dict.fromkeys((*_AGENT_KEYS, *_SEEN), "own"),
        "provider_keys.list": "all",
        "prices.show": "all",
    }
)
_ADMIN: Final = _all("members.add", "members.list", *_AGENT_KEYS, *_CREDENTIALS, *_PROVIDER_KEYS, "prices.show", *_SEEN)

ROLES: Final[Mapping[str, Mapping[str, Reach]]] = MappingProxyType(
    {
        "operator": _all(*DEEDS),
        "owner": _all(*_ADMIN, "members.role"),
        "admin": _ADMIN,
        "member": _MEMBER,
    }
)
"""Role × deed. `own` reaches what belongs to the actor, `all` everything in the organization; absent is refused."""

_NOWHERE: Final = "-"
"""The organization of whoever belongs to none: no organization has this id, so nothing is found."""


def operator(name: str = "operator", origin: str = "cli") -> Actor:
    """Who runs the instance and reaches every organization."""
    return Actor("operator", "operator", name, None, "operator", ROLES["operator"], origin)


def system(origin: str = "start") -> Actor:
    """Ostiary itself, where a deed is nobody's: the first organization of a new instance."""
    return Actor("system", "system", "ostiary", None, "system", _all("organizations.create"), origin)


def member_actor(
    user: User, member_role: str | None, organization_id: str, origin: str, address: str | None = None
) -> Actor:
    """A user at work in an organization, with the role they have there; None if they have none."""
    if member_role is None:
        return Actor("user", user.id, user.email, _NOWHERE, "none", origin=origin, address=address)
    role = checked_role(member_role)
    return Actor("user", user.id, user.email, organization_id, role, ROLES[role], origin, address)


def checked_role(text: str) -> Role:
    """One of the roles a member can have, or a refusal."""
    match text:
        case "owner" | "admin" | "member":
            return text
        case _:
            raise Refusal("invalid_field", "A role is owner, admin or member.", param="role")
