"""Jumping to anything by its name: pages that the menu does not list, and things of those that somebody may see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar
from urllib.parse import quote

from ostiary.agents import agent_keys
from ostiary.agents.pages_store import Wanted
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.menu import beneath
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.orgs import members
from ostiary.vault import aliases, endpoints, provider_keys, webhooks

_LONGEST_SOUGHT: Final = 200
_FOUND_OF_A_KIND: Final = 6


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(frozen=True, slots=True)
class Found:
    """Something to jump to."""

    name: str
    kind: str
    icon: str
    path: str


async def show(visit: Visit) -> Answer:
    """What is called as somebody types it, of what they may see."""
    sought = visit.query.text("q")[:_LONGEST_SOUGHT]
    if not sought or visit.here.organization is None:
        return visit.page("parts/jump.html", found=())
    async with visit.reading() as tx:
        found = [
            *await _found_keys(visit, tx, sought),
            *await _found_in_vault(visit, tx, sought),
            *await _found_in_settings(visit, tx, sought),
        ]
    found += _found_models(visit, sought)
    pages = [Found(one.name, "page", one.icon, one.path) for one in _called(beneath(visit.by), sought)]
    if sought.startswith("req_"):
        pages.insert(0, Found(sought, "trace", "activity", f"{HOME}/traces/{_in_path(sought)}"))
    return visit.page("parts/jump.html", found=[*pages, *found])


async def _found_keys(visit: Visit, tx: Transaction, sought: str) -> list[Found]:
    if not visit.may("agent_keys.list", visit.by.id):
        return []
    wanted = Wanted(search=sought, sort="name", limit=_FOUND_OF_A_KIND)
    page = await agent_keys.list_page(tx, visit.by, visit.home, wanted, visit.at)
    return [Found(key.name, "agent key", "key-round", f"{HOME}/keys/{_in_path(key.id)}") for key in page.keys]


async def _found_in_vault(visit: Visit, tx: Transaction, sought: str) -> list[Found]:
    found: list[Found] = []
    if visit.may("endpoints.list"):
        routes = await endpoints.list_(tx, visit.by, visit.home)
        found += _shown(_called(routes, sought), "endpoint", "route", "endpoints")
    if visit.may("aliases.list"):
        found += _shown(_called(await aliases.list_(tx, visit.by), sought), "alias", "route", "endpoints/aliases")
    if visit.may("provider_keys.show"):
        keys = await provider_keys.list_(tx, visit.by, visit.home)
        found += _shown(_called(keys, sought), "provider key", "vault", "vault")
    return found


async def _found_in_settings(visit: Visit, tx: Transaction, sought: str) -> list[Found]:
    found: list[Found] = []
    if visit.may("members.list"):
        found += [
            Found(one.name or one.email, "member", "user", f"{HOME}/settings/members/{_in_path(one.user_id)}")
            for one in await members.list_(tx, visit.by, visit.home)
            if any(sought.casefold() in text.casefold() for text in (one.name, one.email))
        ][:_FOUND_OF_A_KIND]
    if visit.may("webhooks.list"):
        hooks = await webhooks.list_(tx, visit.by, visit.home)
        found += _shown(_called(hooks, sought), "webhook", "webhook", "settings/webhooks")
    return found


class _Kept(_Named, Protocol):
    @property
    def id(self) -> str: ...


def _shown(things: Iterable[_Kept], kind: str, icon: str, place: str) -> list[Found]:
    return [Found(one.name, kind, icon, f"{HOME}/{place}/{_in_path(one.id)}") for one in things]


def _called(things: Iterable[T], sought: str) -> list[T]:
    wanted = sought.casefold()
    return [one for one in things if wanted in one.name.casefold()][:_FOUND_OF_A_KIND]


def _found_models(visit: Visit, sought: str) -> list[Found]:
    if not visit.may("prices.show"):
        return []
    wanted = sought.casefold()
    keys = [key for key in visit.hall.catalog.models if wanted in key.casefold()][:_FOUND_OF_A_KIND]
    return [Found(key, "model", "boxes", f"{HOME}/models?q={_in_path(key)}") for key in keys]


def _in_path(id_: str) -> str:
    return quote(id_, safe="")
