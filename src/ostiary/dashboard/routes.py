"""Every address of the dashboard on one page, each with the deed it takes: what is not in this table is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from ostiary.errors import CannotStart, Refusal
from ostiary.orgs.roles import DEEDS

HOME: Final = "/dashboard"
ANYBODY: Final = "anybody"
"""In place of a deed: open to who has not signed in."""
SIGNED_IN: Final = "signed in"
"""In place of a deed: open to everybody who has signed in; what is shown is theirs."""


@dataclass(frozen=True, slots=True)
class Route:
    """One address. `deed` is what its visitor must be allowed; one that is not known stops the start.

    `module` and `function` are where it is answered, below `ostiary.dashboard`; imported at the first request.
    `is_guarded` asks for a recent sign-in.
    """

    method: str
    path: str
    deed: str
    module: str
    function: str
    is_guarded: bool = False

    @property
    def full_path(self) -> str:
        """As it is asked for."""
        return HOME + self.path

    @property
    def is_write(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"


MOVED: Final[Mapping[str, str]] = {
    "/": HOME,
    "/dashboard/": HOME,
    "/dashboard/gate/vault": "/dashboard/vault",
    "/dashboard/gate/keys": "/dashboard/keys",
    "/dashboard/configuration/api-keys": "/dashboard/keys",
    "/dashboard/members": "/dashboard/settings/members",
}
"""Addresses that people know from elsewhere."""
_MOVED_WITH_ALL: Final[Mapping[str, str]] = {"/dashboard/members/": "/dashboard/settings/members/"}
"""The same of what stands beneath them."""

_SIGN_IN: Final = (
    Route("GET", "/sign-in", ANYBODY, "sign_in", "show"),
    Route("POST", "/sign-in", ANYBODY, "sign_in", "sign_in"),
    Route("POST", "/sign-in-again", ANYBODY, "sign_in", "again"),
    Route("POST", "/sign-out", SIGNED_IN, "sign_in", "sign_out"),
    Route("POST", "/organization", SIGNED_IN, "sign_in", "enter"),
    Route("GET", "/set-up", ANYBODY, "set_up", "show"),
    Route("POST", "/set-up/look", ANYBODY, "set_up", "look"),
    Route("POST", "/set-up", ANYBODY, "set_up", "set_up"),
    Route("GET", "/forgotten", ANYBODY, "password_resets", "ask"),
    Route("POST", "/forgotten", ANYBODY, "password_resets", "send"),
    Route("GET", "/reset-password", ANYBODY, "password_resets", "show"),
    Route("POST", "/reset-password/look", ANYBODY, "password_resets", "look"),
    Route("POST", "/reset-password", ANYBODY, "password_resets", "reset"),
    Route("GET", "/invitation", ANYBODY, "invitations", "show"),
    Route("POST", "/invitation/look", ANYBODY, "invitations", "look"),
    Route("POST", "/invitation", ANYBODY, "invitations", "accept"),
    Route("GET", "/oidc", ANYBODY, "oidc", "start"),
    Route("GET", "/oidc/callback", ANYBODY, "oidc", "callback"),
)
_OVERVIEW: Final = (
    Route("GET", "", SIGNED_IN, "overview", "show"),
    Route("GET", "/jump", SIGNED_IN, "jump", "show"),
)

_KEYS: Final[tuple[Route, ...]] = (
    Route("GET", "/keys", "agent_keys.list", "agent_keys", "show"),
    Route("GET", "/settings/members/agents", "agent_keys.list", "agent_keys", "show"),
    Route("GET", "/keys/new", "agent_keys.create", "agent_key_form", "new"),
    Route("POST", "/keys/new", "agent_keys.create", "agent_key_form", "create"),
    Route("GET", "/keys/models", "agent_keys.list", "agent_key_form", "find_models"),
    Route("POST", "/keys/check", "agent_keys.list", "agent_key_form", "check"),
    Route("GET", "/keys/{id}", "agent_keys.show", "agent_key_detail", "show"),
    Route("POST", "/keys/{id}/explain", "agent_keys.show", "agent_key_detail", "explain"),
    Route("GET", "/keys/{id}/edit", "agent_keys.edit", "agent_key_form", "edit"),
    Route("POST", "/keys/{id}/edit", "agent_keys.edit", "agent_key_form", "change"),
    Route("POST", "/keys/{id}/rotate", "agent_keys.rotate", "agent_key_moves", "rotate", is_guarded=True),
    Route("POST", "/keys/{id}/ephemeral", "agent_keys.ephemeral", "agent_key_moves", "ephemeral"),
    Route("POST", "/keys/{id}/deactivate", "agent_keys.deactivate", "agent_key_moves", "deactivate"),
    Route("POST", "/keys/{id}/activate", "agent_keys.activate", "agent_key_moves", "activate"),
    Route("GET", "/keys/{id}/menu", "agent_keys.show", "agent_keys", "show_menu"),
    Route("GET", "/keys/{id}/revoke", "agent_keys.revoke", "agent_keys", "ask_revoke"),
    Route("POST", "/keys/{id}/revoke", "agent_keys.revoke", "agent_key_moves", "revoke"),
    Route("GET", "/keys/{id}/delete", "agent_keys.delete", "agent_keys", "ask_delete"),
    Route("POST", "/keys/{id}/delete", "agent_keys.delete", "agent_key_moves", "delete", is_guarded=True),
)
_VAULT: Final[tuple[Route, ...]] = (
    Route("GET", "/vault", "provider_keys.list", "provider_keys", "list_"),
    Route("GET", "/vault/providers", "prices.show", "providers", "list_"),
    Route("GET", "/vault/new", "provider_keys.add", "provider_key_pages", "show_new"),
    Route("POST", "/vault/new", "provider_keys.add", "provider_key_pages", "add"),
    Route("POST", "/vault/new/test", "provider_keys.add", "provider_key_pages", "try_new"),
    Route("GET", "/vault/import", "provider_keys.add", "provider_key_import", "show"),
    Route("POST", "/vault/import", "provider_keys.add", "provider_key_import", "look"),
    Route("POST", "/vault/import/save", "provider_keys.add", "provider_key_import", "save"),
    Route("GET", "/vault/{id}", "provider_keys.show", "provider_keys", "show"),
    Route("GET", "/vault/{id}/edit", "provider_keys.edit", "provider_key_pages", "show_edit"),
    Route("POST", "/vault/{id}/edit", "provider_keys.edit", "provider_key_pages", "change"),
    Route("POST", "/vault/{id}/edit/test", "provider_keys.edit", "provider_key_pages", "try_edit"),
    Route("POST", "/vault/{id}/test", "provider_keys.test", "provider_keys", "test"),
    Route("POST", "/vault/{id}/reset", "provider_keys.reset", "provider_keys", "reset"),
    Route("POST", "/vault/{id}/share", "provider_keys.edit", "provider_keys", "share", is_guarded=True),
    Route("POST", "/vault/{id}/delete", "provider_keys.delete", "provider_keys", "delete", is_guarded=True),
)
_ENDPOINTS: Final = (
    Route("GET", "/endpoints", "endpoints.list", "endpoints", "list_"),
    Route("GET", "/endpoints/new", "endpoints.create", "endpoints", "new"),
    Route("POST", "/endpoints/new", "endpoints.create", "endpoints", "create"),
    Route("GET", "/endpoints/keys", "provider_keys.list", "endpoints", "keys"),
    Route("POST", "/endpoints/aliases/make", "aliases.create", "aliases", "make"),
    Route("GET", "/endpoints/aliases/new", "aliases.create", "aliases", "new"),
    Route("POST", "/endpoints/aliases/new", "aliases.create", "aliases", "create"),
    Route("GET", "/endpoints/aliases/{id}", "aliases.list", "aliases", "show"),
    Route("POST", "/endpoints/aliases/{id}", "aliases.edit", "aliases", "change"),
    Route("POST", "/endpoints/aliases/{id}/delete", "aliases.delete", "aliases", "delete", is_guarded=True),
    Route("GET", "/endpoints/{id}", "endpoints.show", "endpoints", "show"),
    Route("POST", "/endpoints/{id}", "endpoints.edit", "endpoints", "change"),
    Route("POST", "/endpoints/{id}/delete", "endpoints.delete", "endpoints", "delete", is_guarded=True),
    Route("GET", "/models", "prices.show", "models", "list_"),
    Route("GET", "/models/names", "prices.show", "models", "names"),
)
_PLAYGROUND: Final = (
    Route("GET", "/playground", "agent_keys.list", "playground", "show"),
    Route("POST", "/playground/key", "agent_keys.ephemeral", "playground", "mint"),
    Route("GET", "/playground/calls/{id}", "traces.show", "playground", "call"),
)
_TRACES: Final = (
    Route("GET", "/traces", "traces.show", "traces", "list_"),
    Route("GET", "/traces/summary", "traces.show", "traces", "summary"),
    Route("GET", "/traces/{request_id}", "traces.show", "traces", "show"),
    Route("POST", "/traces/{request_id}/content", "traces.content", "traces", "content"),
)
_USAGE: Final = (
    Route("GET", "/usage", "usage.show", "usage", "show"),
    Route("GET", "/usage/csv", "usage.show", "usage", "download"),
)
_ACCOUNT: Final = (
    Route("GET", "/account", SIGNED_IN, "account", "show"),
    Route("POST", "/account/name", SIGNED_IN, "account", "change_name"),
    Route("POST", "/account/password", SIGNED_IN, "account", "change_password"),
    Route("POST", "/account/sessions/end-others", SIGNED_IN, "account", "end_others"),
    Route("POST", "/account/sessions/{id}/end", SIGNED_IN, "account", "end"),
    Route("POST", "/account/factor", SIGNED_IN, "account_factor", "begin", is_guarded=True),
    Route("POST", "/account/factor/confirm", SIGNED_IN, "account_factor", "confirm"),
    Route("POST", "/account/factor/codes", SIGNED_IN, "account_factor", "renew_codes", is_guarded=True),
    Route("POST", "/account/factor/remove", SIGNED_IN, "account_factor", "remove"),
)
_MEMBERS: Final = (
    Route("GET", "/settings/members", "members.list", "members", "list_"),
    Route("POST", "/settings/members/invite", "members.add", "members", "invite"),
    Route("POST", "/settings/members/invitations/{id}/revoke", "members.add", "members", "revoke"),
    Route("GET", "/settings/members/{id}", "members.list", "members", "show"),
    Route("POST", "/settings/members/{id}/role", "members.role", "members", "change_role", is_guarded=True),
    Route("POST", "/settings/members/{id}/sessions/end", "sessions.end", "members", "end_sessions"),
    Route("POST", "/settings/members/{id}/remove", "members.remove", "members", "remove", is_guarded=True),
)
_AUDIT: Final = (
    Route("GET", "/audit", "audit.show", "audit", "list_"),
    Route("POST", "/audit/verify", "audit.verify", "audit", "verify"),
    Route("GET", "/audit/{seq}", "audit.show", "audit", "show"),
)
_SETTINGS: Final = (
    Route("GET", "/settings", "organizations.show", "settings", "show"),
    Route("POST", "/settings/{part}", "organizations.edit", "settings", "change"),
    Route("GET", "/settings/notifications", "notifications.test", "settings_notifications", "show"),
    Route("POST", "/settings/notifications/test", "notifications.test", "settings_notifications", "test"),
    Route("GET", "/settings/gateways", "gateways.show", "settings_gateways", "show"),
    Route("GET", "/settings/webhooks", "webhooks.list", "settings_webhooks", "list_"),
    Route("POST", "/settings/webhooks", "webhooks.create", "settings_webhooks", "create"),
    Route("GET", "/settings/webhooks/{id}", "webhooks.list", "settings_webhooks", "show"),
    Route("POST", "/settings/webhooks/{id}", "webhooks.edit", "settings_webhooks", "change"),
    Route("POST", "/settings/webhooks/{id}/secret", "webhooks.edit", "settings_webhooks", "renew", is_guarded=True),
    Route("POST", "/settings/webhooks/{id}/test", "webhooks.test", "settings_webhooks", "test"),
    Route("POST", "/settings/webhooks/{id}/delete", "webhooks.delete", "settings_webhooks", "delete", is_guarded=True),
    Route("GET", "/settings/credentials", "client_credentials.list", "settings_credentials", "list_"),
    Route("POST", "/settings/credentials", "client_credentials.create", "settings_credentials", "create"),
    Route(
        "POST",
        "/settings/credentials/{id}/revoke",
        "client_credentials.revoke",
        "settings_credentials",
        "revoke",
        is_guarded=True,
    ),
)
_OPERATOR: Final[tuple[Route, ...]] = (
    Route("GET", "/operator", "gateways.list", "operator", "show"),
    Route("POST", "/operator/open", "organizations.list", "operator", "open_"),
    Route("GET", "/operator/organizations", "organizations.list", "operator_organizations", "list_"),
    Route("POST", "/operator/organizations", "organizations.create", "operator_organizations", "create"),
    Route("GET", "/operator/pool", "organizations.list", "operator_pool", "list_"),
    Route("GET", "/operator/aliases", "aliases.edit", "operator_aliases", "list_"),
    Route("GET", "/operator/prices", "prices.set", "operator_prices", "list_"),
    Route("GET", "/operator/prices/model", "prices.set", "operator_prices", "show"),
    Route("POST", "/operator/prices/model", "prices.set", "operator_prices", "set_"),
    Route("GET", "/operator/prices/recost", "prices.recost", "operator_recost", "show"),
    Route("POST", "/operator/prices/recost", "prices.recost", "operator_recost", "preview"),
    Route("GET", "/operator/prices/recost/{id}", "prices.recost", "operator_recost", "progress"),
    Route("POST", "/operator/prices/recost/apply", "prices.recost", "operator_recost", "apply", is_guarded=True),
    Route("GET", "/operator/gateways", "gateways.list", "operator_gateways", "list_"),
    Route("GET", "/operator/gateways/{id}", "gateways.list", "operator_gateways", "show"),
    Route("POST", "/operator/gateways/{id}/retire", "gateways.retire", "operator_gateways", "retire"),
    Route("GET", "/operator/master-key", "master_key.rotate", "operator_master_key", "show"),
    Route("POST", "/operator/master-key/rotate", "master_key.rotate", "operator_master_key", "rotate", is_guarded=True),
)

ROUTES: Final = (
    *_SIGN_IN,
    *_OVERVIEW,
    *_KEYS,
    *_VAULT,
    *_ENDPOINTS,
    *_PLAYGROUND,
    *_TRACES,
    *_USAGE,
    *_ACCOUNT,
    *_MEMBERS,
    *_AUDIT,
    *_SETTINGS,
    *_OPERATOR,
)
"""In the order of the menu."""


def check(routes: Iterable[Route]) -> None:
    """Raises CannotStart on a route that does not say what it takes to use it."""
    for route in routes:
        if route.deed not in (*DEEDS, ANYBODY, SIGNED_IN):
            raise CannotStart(f"The page {route.method} {route.full_path} does not declare a deed that is known.")


def moved(path: str) -> str | None:
    """Where a page is by now that had this address before, as it stands in a header; None for all others."""
    for old, new in _MOVED_WITH_ALL.items():
        if path.startswith(old):
            return new + quote(path.removeprefix(old))
    return MOVED.get(path)


class Table:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self._rows: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.full_path, {})[route.method] = route
        for path in sorted(by_path, key=lambda one: one.count("{")):  # a fixed name before any id
            pattern = re.sub(r"\\\{([a-z_]+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
            self._rows.append((re.compile(pattern), by_path[path]))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The one that is asked for, and what its path names; refuses with `not_found` or `method_not_allowed`."""
        for pattern, methods in self._rows:
            found = pattern.fullmatch(path)
            if found is not None:
                route = methods.get("GET" if method == "HEAD" else method)
                if route is None:
                    allowed = ", ".join(sorted(methods))
                    raise Refusal("method_not_allowed", headers=((b"allow", allowed.encode()),))
                return route, found.groupdict()
        raise Refusal("not_found", "There is no such page.")
