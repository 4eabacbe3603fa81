"""What the menu shows to whom: only what they may look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ostiary.actor import Actor
from ostiary.dashboard.routes import SIGNED_IN
from ostiary.orgs.organizations import Organization


@dataclass(frozen=True, slots=True)
class Item:
    """A page by its name. `deed` is what its visitor must be allowed."""

    name: str
    icon: str
    path: str
    deed: str
    is_here: bool = False
    is_beneath: bool = False
    """A tab of another line: only named where one jumps to a page."""


_MENU: Final = (
    Item("Overview", "layout-dashboard", "/dashboard", SIGNED_IN),
    Item("Keys", "key-round", "/dashboard/keys", "agent_keys.list"),
    Item("Vault", "vault", "/dashboard/vault", "provider_keys.list"),
    Item("Endpoints", "route", "/dashboard/endpoints", "endpoints.list"),
    Item("Models", "boxes", "/dashboard/models", "prices.show"),
    Item("Playground", "terminal", "/dashboard/playground", "agent_keys.list"),
    Item("Traces", "activity", "/dashboard/traces", "traces.show"),
    Item("Usage", "chart-column", "/dashboard/usage", "usage.show"),
    Item("Audit log", "file-clock", "/dashboard/audit", "audit.show"),
    Item("Settings", "settings", "/dashboard/settings", "organizations.show"),
    Item("Operator", "server-cog", "/dashboard/operator", "gateways.list"),
)
"""The lines of the menu."""
_TABS: Final = (
    Item("Members", "users", "/dashboard/settings/members", "members.list"),
    Item("Notifications", "bell", "/dashboard/settings/notifications", "notifications.test"),
    Item("Webhooks", "webhook", "/dashboard/settings/webhooks", "webhooks.list"),
    Item("Client credentials", "id-card", "/dashboard/settings/credentials", "client_credentials.list"),
    Item("Gateways", "server", "/dashboard/settings/gateways", "gateways.show"),
)
"""Tabs of the settings: named behind the lines of the menu where one jumps to a page."""
_SOUGHT: Final = (
    Item("Account", "circle-user", "/dashboard/account", SIGNED_IN),
    Item("Catalogue of providers", "list", "/dashboard/vault/providers", "prices.show"),
    Item("Add a provider key", "plus", "/dashboard/vault/new", "provider_keys.add"),
    Item("Import provider keys", "file-up", "/dashboard/vault/import", "provider_keys.add"),
    Item("Create an agent key", "plus", "/dashboard/keys/new", "agent_keys.create"),
    Item("Agents of members", "users", "/dashboard/settings/members/agents", "members.list"),
    Item("Operator: organizations", "building-2", "/dashboard/operator/organizations", "organizations.list"),
    Item("Operator: pool keys", "vault", "/dashboard/operator/pool", "organizations.list"),
    Item("Operator: aliases", "route", "/dashboard/operator/aliases", "aliases.edit"),
    Item("Operator: prices", "wallet", "/dashboard/operator/prices", "prices.set"),
    Item("Operator: recost past calls", "calculator", "/dashboard/operator/prices/recost", "prices.recost"),
    Item("Operator: gateways", "server", "/dashboard/operator/gateways", "gateways.list"),
    Item("Operator: master key", "key", "/dashboard/operator/master-key", "master_key.rotate"),
)
"""Pages that are found when they are sought; the menu is in every page, and these are too many for that."""


def beneath(by: Actor) -> tuple[Item, ...]:
    """Pages beneath those of the menu, for who looks."""
    return tuple(_open_to(by, _SOUGHT))


def menu(path: str, by: Actor, organization: Organization | None) -> tuple[Item, ...]:
    """The lines for who looks, the one they are at marked, and the tabs beneath."""
    if organization is None:
        return ()
    lines = (replace(one, is_here=_is_at(path, one.path)) for one in _open_to(by, _MENU))
    return (*lines, *(replace(one, is_beneath=True) for one in _open_to(by, _TABS)))


def _open_to(by: Actor, items: Iterable[Item]) -> Iterator[Item]:
    return (one for one in items if one.deed == SIGNED_IN or one.deed in by.grants)


def _is_at(path: str, place: str) -> bool:
    return path == place or (place != "/dashboard" and path.startswith(f"{place}/"))
