"""Endpoints and aliases as requests and answers show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field

from ostiary.admin import pages
from ostiary.admin.pages import Page
from ostiary.admin.shapes import ABSENT, Asked, Item, Name, Shown, ShownMoment, Sought, when
from ostiary.clock import iso
from ostiary.vault.endpoint_fields import (
    LONGEST_TIMEOUT_MS,
    MOST_RETRIES,
    MOST_TARGETS,
    MOST_WEIGHT,
    SHORTEST_TIMEOUT_MS,
    USUAL_RETRIES,
)
from ostiary.vault.endpoints import Endpoint, EndpointTarget, NewEndpoint, View

Strategy = Literal["first", "split"]
Retries = Annotated[int, Field(ge=0, le=MOST_RETRIES, description="Further attempts behind the first.")]
TimeoutMs = Annotated[
    int,
    Field(ge=SHORTEST_TIMEOUT_MS, le=LONGEST_TIMEOUT_MS, description="Of each attempt. Null: as the gateway is set."),
]


class GivenTarget(Asked):
    """Where an endpoint leads. Answers show targets in the same way, with the id of the key."""

    provider: Item
    model: Item
    provider_key_id: Item | None = Field(None, description="An id, or a name. Null: any that the caller may use.")
    weight: Annotated[int, Field(ge=1, le=MOST_WEIGHT, description="Its part, with the strategy `split`.")] = 1
    is_fallback: bool = Field(default=False, description="Whether it is only tried after all that are not.")


Targets = Annotated[list[GivenTarget], Field(min_length=1, max_length=MOST_TARGETS, description="In order.")]


class GivenEndpoint(Asked):
    """One to make."""

    name: Name
    targets: Targets
    strategy: Strategy = Field("first", description="The first healthy target in order, or a split by weight.")
    retries: Retries = USUAL_RETRIES
    timeout_ms: TimeoutMs | None = None

    def wish(self) -> NewEndpoint:
        """The same, for the deed."""
        return NewEndpoint(self.name, _targets(self.targets), self.strategy, self.retries, self.timeout_ms)


class EndpointPatch(Asked):
    """What is named is changed; targets are all replaced."""

    name: Name = ABSENT
    targets: Targets = ABSENT
    strategy: Strategy = ABSENT
    retries: Retries = ABSENT
    timeout_ms: TimeoutMs | None = ABSENT

    def edit(self) -> dict[str, object]:
        """The same, for the deed."""
        named = {name: getattr(self, name) for name in self.model_fields_set}
        return named | ({"targets": _targets(self.targets)} if "targets" in named else {})


class Force(Sought):
    """Whether dependents are no reason to refuse."""

    force: bool = Field(default=False, description="Also while agent keys name it in their allowed models.")


class Filter(Page):
    """Which of them, and in which order."""

    search: Annotated[
        str | None, Field(max_length=200, description="A part of the name, or of a target's `provider/model`.")
    ] = None
    provider: Annotated[str | None, Field(max_length=64, description="Only what leads to this provider.")] = None
    sort: Literal["created_at", "name"] = "created_at"
    direction: Literal["ascending", "descending"] = "ascending"


class ShownEndpoint(Shown):
    """A named route to one or more targets."""

    id: str
    name: str
    strategy: Strategy
    retries: int
    timeout_ms: int | None
    targets: list[GivenTarget]
    created_at: ShownMoment
    updated_at: ShownMoment


class ChangedEndpoint(ShownEndpoint):
    """A route that was made or edited, with what its maker should know."""

    hints: list[str] = Field(description="What works, but may not be what was meant.")


class NamedKey(Shown):
    """A provider key that a target names."""

    id: str
    name: str | None = Field(description="Null of a key that somebody else shares.")
    is_usable: bool = Field(description="False when it was deleted since, or is shared no more.")


class UsingKey(Shown):
    """An agent key that uses it."""

    id: str
    name: str
    organization_id: str
    last_used_at: ShownMoment | None = Field(description="In the last 30 days.")
    is_named: bool = Field(description="Whether its allowed models name it.")


class UsedBy(Shown):
    """Who uses it, as far as the caller may see: 200 at most."""

    agent_keys: list[UsingKey]


class DetailedEndpoint(ShownEndpoint):
    """A route with what is around it."""

    provider_keys: list[NamedKey]
    used_by: UsedBy | None = Field(description="Null for who may see no agent keys.")


class Endpoints(Shown):
    """One page of them."""

    data: list[ShownEndpoint]
    next_cursor: str | None


def shown(one: Endpoint) -> dict[str, Any]:
    """The fields of an answer."""
    targets = [GivenTarget(**{name: getattr(target, name) for name in _TARGET}) for target in one.targets]
    return {
        **{name: getattr(one, name) for name in ("id", "name", "strategy", "retries", "timeout_ms")},
        "targets": targets,
        "created_at": iso(one.created_at),
        "updated_at": iso(one.updated_at),
    }


def detailed(view: View) -> DetailedEndpoint:
    """One with everything that is known of it."""
    keys = [NamedKey(id=key.id, name=key.name, is_usable=key.is_usable) for key in view.keys]
    used_by = (
        None
        if view.users is None
        else UsedBy(
            agent_keys=[
                UsingKey(
                    id=user.agent_key_id,
                    name=user.name,
                    organization_id=user.organization_id,
                    last_used_at=when(user.last_used_at),
                    is_named=user.is_named,
                )
                for user in view.users
            ]
        )
    )
    return DetailedEndpoint(**shown(view.endpoint), provider_keys=keys, used_by=used_by)


def paged(found: Iterable[Endpoint], asked: Filter) -> Endpoints:
    """The page that is asked for, of all of them."""
    sought = (asked.search or "").casefold()
    fitting = [
        one
        for one in found
        if (sought in one.name.casefold() or any(sought in _said(target) for target in one.targets))
        and (asked.provider is None or any(target.provider == asked.provider for target in one.targets))
    ]
    page, cursor = pages.turn(
        fitting,
        asked,
        f"{asked.sort} {asked.direction}",
        lambda one: (getattr(one, asked.sort), one.id),
        descending=asked.direction == "descending",
    )
    return Endpoints(data=[ShownEndpoint(**shown(one)) for one in page], next_cursor=cursor)


_TARGET = tuple(field.name for field in fields(EndpointTarget))


def _targets(given: Iterable[GivenTarget]) -> tuple[EndpointTarget, ...]:
    return tuple(EndpointTarget(**{name: getattr(one, name) for name in _TARGET}) for one in given)


def _said(target: EndpointTarget) -> str:
    return f"{target.provider}/{target.model}".casefold()
