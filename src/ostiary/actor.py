"""Who does a deed, and how far their role lets them go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from ostiary.errors import Refusal

Reach = Literal["own", "all"]


class Denied(Refusal):
    """Turned down because the actor may not: the door notes it in the audit log.

    What was tried is for the log. The answer to somebody outside must not tell that there was anything to try.
    """

    def __init__(self, code: str, message: str | None = None, *, tried: str, where: str | None, **details: Any) -> None:  # noqa: ANN401 - JSON
        super().__init__(code, message, **details)
        self.tried = tried
        self.where = where


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever stands behind a deed. `grants` maps a deed such as `agent_keys.rotate` to the reach of it.

    `organization_id` is None for the operator, who reaches every organization. Built by `orgs.roles` only.
    """

    kind: Literal["operator", "user", "system"]
    id: str
    name: str
    organization_id: str | None
    role: str
    grants: Mapping[str, Reach] = field(default_factory=lambda: MappingProxyType({}))
    origin: str = "cli"
    address: str | None = None

    def require(self, deed: str, organization_id: str | None, owner_id: str | None = None) -> None:
        """Refuse unless this actor may do `deed` there: another organization looks like one that does not exist."""
        if self.organization_id is not None and organization_id != self.organization_id:
            raise Denied("not_found", tried=deed, where=organization_id)
        reach = self.grants.get(deed)
        if reach == "all" or (reach == "own" and owner_id is not None and owner_id == self.id):
            return
        said = f"The role {self.role} does not allow {deed} here."
        raise Denied("insufficient_scope", said, tried=deed, where=organization_id, deed=deed)

    def may(self, deed: str, organization_id: str | None, owner_id: str | None = None) -> bool:
        """Whether `require` would pass."""
        try:
            self.require(deed, organization_id, owner_id)
        except Refusal:
            return False
        return True
