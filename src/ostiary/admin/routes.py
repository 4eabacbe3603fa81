"""Every route of /api/v1 on one page, each with the deed it does: what is not in this table is not served."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ostiary.errors import CannotStart, Refusal
from ostiary.orgs.roles import ADMIN_SCOPES, DEEDS

PREFIX: Final = "/api/v1"
_ID: Final = re.escape("{id}")


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `deed` is what its caller must be allowed; a route that names none that is known stops the start.

    `module` and `function` are where it is answered, below `ostiary.admin`; they are imported at the first request.
    """

    method: str
    path: str
    deed: str
    module: str
    function: str
    status: int = 200
    is_noted: bool = False
    """Whether even looking is written down."""

    @property
    def full_path(self) -> str:
        """As it is asked for."""
        return PREFIX + self.path

    @property
    def noun(self) -> str:
        """What it is about, as the path says it."""
        return self.path.split("/")[1]

    @property
    def is_write(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def scope(self) -> str:
        """The scope that a key needs for it."""
        return _SCOPE_OF[self.deed]


_SCOPE_OF: Final[Mapping[str, str]] = {deed: scope for scope, deeds in ADMIN_SCOPES.items() for deed in deeds}

ROUTES: Final = (
    Route("GET", "/agent-keys", "agent_keys.list", "agent_keys", "list_"),
    Route("POST", "/agent-keys", "agent_keys.create", "agent_keys", "create", 201),
    Route("GET", "/agent-keys/{id}", "agent_keys.show", "agent_keys", "show"),
    Route("PATCH", "/agent-keys/{id}", "agent_keys.edit", "agent_keys", "change"),
    Route("DELETE", "/agent-keys/{id}", "agent_keys.delete", "agent_keys", "delete", 204),
    Route("POST", "/agent-keys/{id}/rotate", "agent_keys.rotate", "agent_key_moves", "rotate"),
    Route("POST", "/agent-keys/{id}/deactivate", "agent_keys.deactivate", "agent_key_moves", "deactivate"),
    Route("POST", "/agent-keys/{id}/activate", "agent_keys.activate", "agent_key_moves", "activate"),
    Route("POST", "/agent-keys/{id}/revoke", "agent_keys.revoke", "agent_key_moves", "revoke"),
    Route("POST", "/agent-keys/{id}/ephemeral", "agent_keys.ephemeral", "agent_key_moves", "ephemeral", 201),
    Route("POST", "/ephemeral-keys", "agent_keys.ephemeral", "agent_key_moves", "lone_ephemeral", 201),
    Route("GET", "/client-credentials", "client_credentials.list", "client_credentials", "list_"),
    Route("POST", "/client-credentials", "client_credentials.create", "client_credentials", "create", 201),
    Route("POST", "/client-credentials/{id}/revoke", "client_credentials.revoke", "client_credentials", "revoke"),
    Route("GET", "/members", "members.list", "members", "list_"),
    Route("POST", "/members", "members.add", "members", "add", 201),
    Route("PATCH", "/members/{id}", "members.role", "members", "change"),
    Route("DELETE", "/members/{id}", "members.remove", "members", "remove", 204),
    Route("GET", "/organizations", "organizations.list", "organizations", "list_"),
    Route("POST", "/organizations", "organizations.create", "organizations", "create", 201),
    Route("GET", "/organizations/{id}", "organizations.show", "organizations", "show"),
    Route("PATCH", "/organizations/{id}", "organizations.edit", "organizations", "change"),
    Route("GET", "/endpoints", "endpoints.list", "endpoints", "list_"),
    Route("POST", "/endpoints", "endpoints.create", "endpoints", "create", 201),
    Route("GET", "/endpoints/{id}", "endpoints.show", "endpoints", "show"),
    Route("PATCH", "/endpoints/{id}", "endpoints.edit", "endpoints", "change"),
    Route("DELETE", "/endpoints/{id}", "endpoints.delete", "endpoints", "delete", 204),
    Route("GET", "/aliases", "aliases.list", "aliases", "list_"),
    Route("POST", "/aliases", "aliases.create", "aliases", "create", 201),
    Route("POST", "/aliases/make", "aliases.create", "aliases", "make"),
    Route("GET", "/aliases/{id}", "aliases.list", "aliases", "show"),
    Route("PATCH", "/aliases/{id}", "aliases.edit", "aliases", "change"),
    Route("DELETE", "/aliases/{id}", "aliases.delete", "aliases", "delete", 204),
    Route("GET", "/provider-keys", "provider_keys.list", "provider_keys", "list_"),
    Route("POST", "/provider-keys", "provider_keys.add", "provider_keys", "create", 201),
    Route("GET", "/provider-keys/{id}", "provider_keys.show", "provider_keys", "show"),
    Route("PATCH", "/provider-keys/{id}", "provider_keys.edit", "provider_keys", "change"),
    Route("DELETE", "/provider-keys/{id}", "provider_keys.delete", "provider_keys", "delete", 204),
    Route("POST", "/provider-keys/{id}/test", "provider_keys.test", "provider_keys", "test"),
    Route("POST", "/provider-keys/{id}/reset", "provider_keys.reset", "provider_keys", "reset"),
    Route("GET", "/providers", "prices.show", "providers", "list_"),
    Route("GET", "/usage", "usage.show", "usage", "show"),
    Route("GET", "/traces", "traces.show", "traces", "list_"),
    Route("GET", "/traces/summary", "traces.show", "traces", "summary"),
    Route("GET", "/traces/{id}", "traces.show", "traces", "show"),
    Route("GET", "/traces/{id}/content", "traces.content", "traces", "content", is_noted=True),
    Route("GET", "/audit", "audit.show", "audit", "list_"),
    Route("GET", "/notifications", "notifications.list", "notifications", "list_"),
    Route("POST", "/notifications/test", "notifications.test", "notifications", "test", 202),
    Route("GET", "/webhooks", "webhooks.list", "webhooks", "list_"),
    Route("POST", "/webhooks", "webhooks.create", "webhooks", "create", 201),
    Route("GET", "/webhooks/{id}", "webhooks.list", "webhooks", "show"),
    Route("PATCH", "/webhooks/{id}", "webhooks.edit", "webhooks", "change"),
    Route("DELETE", "/webhooks/{id}", "webhooks.delete", "webhooks", "delete", 204),
    Route("POST", "/webhooks/{id}/test", "webhooks.test", "webhooks", "test", 202),
    Route("GET", "/gateways", "gateways.list", "gateways", "list_"),
    Route("GET", "/gateways/serving", "gateways.show", "gateways", "list_serving"),
    Route("POST", "/gateways/{id}/retire", "gateways.retire", "gateways", "retire"),
    Route("GET", "/settings", "settings.show", "settings", "show"),
)
"""In the order of the documentation."""


def check(routes: Iterable[Route]) -> None:
    """Raises CannotStart on a route that does not say what it takes to use it."""
    for route in routes:
        if route.deed not in DEEDS:
            raise CannotStart(f"The route {route.method} {route.full_path} does not declare a deed that is known.")
        if route.deed not in _SCOPE_OF:
            raise CannotStart(f"The route {route.method} {route.full_path} is covered by no scope of an agent key.")


class Table:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self._rows: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.full_path, {})[route.method] = route
        for path, methods in by_path.items():
            self._rows.append((re.compile(re.escape(path).replace(_ID, "([^/]+)")), methods))

    def find(self, method: str, path: str) -> tuple[Route, str | None]:
        """The one that is asked for, and the id in its path; refuses with `not_found` or `method_not_allowed`."""
        for pattern, methods in self._rows:
            found = pattern.fullmatch(path)
            if found is not None:
                route = methods.get("GET" if method == "HEAD" else method)
                if route is None:
                    allowed = ", ".join(sorted(methods.keys() | ({"HEAD"} if "GET" in methods else set())))
                    raise Refusal("method_not_allowed", headers=((b"allow", allowed.encode()),))
                return route, found[1] if found.groups() else None
        raise Refusal("not_found", f"There is no route {path[:200]}. The documentation is at /api/docs.")
