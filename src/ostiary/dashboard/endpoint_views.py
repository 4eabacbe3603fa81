"""Endpoints as pages draw them: each target with the keys that could serve it now, and how those are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ostiary.dashboard.forms import Form
from ostiary.dashboard.visit import Visit
from ostiary.dashboard.words import LEVELS, percent
from ostiary.db.database import Transaction
from ostiary.vault import endpoint_store, health_store, key_uses, provider_keys, store
from ostiary.vault.endpoint_store import Endpoint, EndpointTarget
from ostiary.vault.health_store import HealthRow

HEALTHY: Final = "healthy"
USABLE: Final = frozenset({HEALTHY, "degraded"})
"""States of a key that is tried now."""
_PAGE: Final = 50
_ORDER: Final = ("good", "warn", "bad")
_PASSING: Final = frozenset({"cooling", "exhausted"})


@dataclass(frozen=True, slots=True)
class KeyState:
    """A provider key that the organization may use. Of one that somebody else shares only the operator has the name."""

    id: str
    name: str | None
    provider: str
    status: str
    health: tuple[HealthRow, ...] = ()
    is_ours: bool = True
    is_shared: bool = False

    def row_at(self, model: str) -> HealthRow | None:
        """What is known against it where this model is asked for, the whole key first."""
        return next((row for row in self.health if row.model in ("", model)), None)

    def state_at(self, model: str) -> str:
        """How it is where this model is asked for."""
        row = self.row_at(model)
        return row.state if self.status == HEALTHY and row is not None else self.status

    @property
    def shown_name(self) -> str:
        """What it is called where it is listed."""
        return self.name if self.name is not None else f"pool key {self.id[-6:]}"


Keys = dict[str, list[KeyState]]
"""By provider, one's own first."""


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target with the keys that fit it. `place` is its turn, or its part in percent."""

    target: EndpointTarget
    place: str
    keys: tuple[KeyState, ...]

    @property
    def states(self) -> tuple[tuple[str, int], ...]:
        """How many of the keys are how, the best first."""
        found: dict[str, int] = {}
        for key in self.keys:
            state = key.state_at(self.target.model)
            found[state] = found.get(state, 0) + 1
        return tuple(sorted(found.items(), key=lambda pair: _ORDER.index(LEVELS.get(pair[0], "bad"))))

    @property
    def level(self) -> str:
        """How well it could serve a call now: as its best key is."""
        states = self.states
        return LEVELS.get(states[0][0], "bad") if states else "bad"

    @property
    def is_usable(self) -> bool:
        """Whether a call would be tried here now."""
        return any(state in USABLE for state, _ in self.states)

    @property
    def says(self) -> str:
        """The same in words."""
        if not self.keys:
            return "no provider key"
        return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in self.states)


async def find_keys(visit: Visit, tx: Transaction, providers: Collection[str]) -> Keys:
    """The keys of these providers that the organization may use, and how they are."""
    found: Keys = {provider: [] for provider in providers}
    own = [key for key in await provider_keys.list_(tx, visit.by, visit.home) if key.provider in found]
    for one in await key_uses.stand(tx, own, visit.at):
        key = one.key
        state = KeyState(key.id, key.name, key.provider, one.status, one.health, is_shared=key.shared)
        found[key.provider].append(state)
    for provider in providers:
        servers = await store.list_servers(tx, provider)
        found[provider] += await _pooled(
            visit, tx, [id for id, home, shared in servers if shared and home != visit.home]
        )
    return found


def drawn(one: Endpoint, keys: Keys) -> tuple[TargetView, ...]:
    """The targets of one, in order, fallbacks last."""
    plain = [target for target in one.targets if not target.is_fallback]
    whole = sum(target.weight for target in plain)
    ordered = [*plain, *(target for target in one.targets if target.is_fallback)]
    views = []
    for number, target in enumerate(ordered, 1):
        is_part = one.strategy == "split" and not target.is_fallback
        place = percent(target.weight / whole) if is_part else str(number)
        fitting = [key for key in keys.get(target.provider, ()) if target.provider_key_id in (None, key.id)]
        views.append(TargetView(target, place, tuple(fitting)))
    return tuple(views)


def providers_of(found: Iterable[Endpoint]) -> set[str]:
    """The providers that these lead to."""
    return {target.provider for one in found for target in one.targets}


# ---- lists ------------------------------------------------------------------------------------------------------


def fitting(query: Form, found: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that fit what is sought by `q` and `provider`, sorted as asked."""
    sought, provider = query.text("q").casefold(), query.text("provider")

    def fits(one: Endpoint) -> bool:
        targets = [f"{target.provider}/{target.model}".casefold() for target in one.targets]
        is_sought = sought in one.name.casefold() or any(sought in text for text in targets)
        return is_sought and (not provider or any(target.provider == provider for target in one.targets))

    key: Any = (lambda one: (-one.updated_at, one.id)) if query.text("sort") == "updated" else _by_name
    return sorted(filter(fits, found), key=key)


def _by_name(one: Endpoint) -> tuple[str, str]:
    return one.name.casefold(), one.id


def cut(found: Sequence[Endpoint], after: str) -> tuple[list[Endpoint], str]:
    """The page behind the row of this id, and where the next begins; empty behind the last."""
    begin = next((number for number, one in enumerate(found, 1) if one.id == after), 0)
    page = list(found[begin : begin + _PAGE])
    return page, page[-1].id if begin + _PAGE < len(found) else ""


# ---- keys of others ---------------------------------------------------------------------------------------------


async def _pooled(visit: Visit, tx: Transaction, ids: Collection[str]) -> list[KeyState]:
    if not ids:
        return []
    is_operator = visit.by.organization_id is None
    rows = [
        row
        for row in await health_store.find_health(tx, ids)
        if not (row.state in _PASSING and row.until is not None and row.until <= visit.at)
    ]
    return [
        KeyState(
            key.id,
            key.name if is_operator else None,
            key.provider,
            next((row.state for row in rows if row.provider_key_id == key.id and not row.model), HEALTHY),
            tuple(row for row in rows if row.provider_key_id == key.id),
            is_ours=False,
            is_shared=True,
        )
        for key in await endpoint_store.list_key_names(tx, ids)
    ]
