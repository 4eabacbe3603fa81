"""What the menu shows to whom: only what they may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.actor import Actor
from ostiary.dashboard.routes import SIGNED_IN
from ostiary.orgs.organizations import Organization


@dataclass(frozen=True, slots=True)
class Item:
    """A line of the menu."""

    name: str
    icon: str
    path: str
    deed: str
    is_operators: bool = False
    is_here: bool = False


_ITEMS: Final = (
    Item("Overview", "layout-dashboard", "/dashboard", SIGNED_IN),
    Item("Keys", "key-round", "/dashboard/keys", "agent_keys.list"),
    Item("Vault", "vault", "/dashboard/vault", "provider_keys.list"),
    Item("Endpoints", "route", "/dashboard/endpoints", "endpoints.list"),
    Item("Models", "boxes", "/dashboard/models", "prices.show"),
    Item("Playground", "terminal", "/dashboard/playground", "agent_keys.list"),
    Item("Traces", "activity", "/dashboard/traces", "traces.show"),
    Item("Usage", "chart-column", "/dashboard/usage", "usage.show"),
    Item("Members", "users", "/dashboard/members", "members.list"),
    Item("Audit log", "file-clock", "/dashboard/audit", "audit.show"),
    Item("Settings", "settings", "/dashboard/settings", "organizations.show"),
    Item("Operator", "server-cog", "/dashboard/operator", "gateways.list", is_operators=True),
)


def menu(path: str, by: Actor, organization: Organization | None) -> tuple[Item, ...]:
    """The lines for who looks, the one they are at marked."""
    if organization is None:
        return ()
    shown = [one for one in _ITEMS if one.deed == SIGNED_IN or one.deed in by.grants]
    return tuple(
        Item(one.name, one.icon, one.path, one.deed, one.is_operators, is_here=_is_at(path, one.path)) for one in shown
    )


def _is_at(path: str, place: str) -> bool:
    return path == place or (place != "/dashboard" and path.startswith(f"{place}/"))
