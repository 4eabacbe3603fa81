"""Aliases: endpoints that the operator makes for everybody, four of them out of the catalogue."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Literal

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.providers.catalog import Catalog
from ostiary.vault import endpoint_changes, endpoints
from ostiary.vault import endpoint_store as store
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EVERYBODY, Endpoint, EndpointTarget
from ostiary.vault.endpoints import View

__all__ = ["Endpoint", "EndpointTarget", "NewEndpoint", "View"]

Origin = Literal["catalogue", "edited", "own"]
"""Made from `MODELS`, and kept up by `make`; of a name in there, but written by hand or edited; or quite one's own."""
OURS: Final = "ostiary/"
"""What the names of most aliases begin with."""
EMBED: Final = "ostiary/embed"

MODELS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ostiary/fast": (
            "cerebras/gpt-oss-120b",
            "groq/openai/gpt-oss-20b",
            "gemini/gemini-3.5-flash-lite",
            "openai/gpt-5.4-nano",
            "anthropic/claude-haiku-5-5",
            "mistral/mistral-small-latest",
            "xai/grok-4-1-fast-non-reasoning",
            "deepseek/deepseek-chat",
            "zai/GLM-4.7-FlashX",
            "fireworks/accounts/fireworks/models/gpt-oss-20b",
            "openrouter/openai/gpt-oss-20b",
        ),
        "ostiary/smart": (
            "anthropic/claude-opus-5-5",
            "openai/gpt-5.5",
            "gemini/gemini-3.1-pro-preview",
            "xai/grok-4-0709",
            "moonshot/kimi-k2-thinking",
            "deepseek/deepseek-reasoner",
            "zai/GLM-5",
            "mistral/mistral-large-2512",
            "groq/openai/gpt-oss-120b",
            "cerebras/zai-glm-4.7",
            "fireworks/accounts/fireworks/models/glm-5p1",
            "openrouter/moonshotai/kimi-k2-thinking",
        ),
        "ostiary/cheap": (
            "zai/GLM-4.7-Flash",
            "groq/llama-3.1-8b-instant",
            "mistral/ministral-3b-2512",
            "gemini/gemini-3.5-flash-lite",
            "openai/gpt-5-nano",
            "deepseek/deepseek-chat",
            "cerebras/llama3.1-8b",
            "fireworks/accounts/fireworks/models/gpt-oss-20b",
            "openrouter/openai/gpt-oss-20b",
        ),
        EMBED: (
            "openai/text-embedding-3-small",
            "gemini/gemini-embedding-001",
            "mistral/mistral-embed",
        ),
    }
)
"""What each is made of, the best first: names as the catalogue has them. They age; an operator edits what was made."""

_ONLY_ONE: Final = frozenset({EMBED})
"""Two models put the same text in different places, so no other may stand in for the first, nor replace it later."""


async def create(tx: Transaction, by: Actor, wish: NewEndpoint, *, catalog: Catalog, at: int) -> Endpoint:
    """Make an alias: `ostiary/…`, or any name that does not begin with a provider's."""
    by.require("aliases.create", None)
    return await endpoint_changes.add(tx, by, EVERYBODY, wish, catalog=catalog, at=at)


async def list_(tx: Transaction, by: Actor) -> list[Endpoint]:
    """All of them, oldest first; they are everybody's to see."""
    by.require("aliases.list", by.organization_id)
    return await store.list_endpoints(tx, EVERYBODY)


async def show(tx: Transaction, by: Actor, id: str, at: int) -> View:
    """One alias, by id or by name, with those agent keys that use it and that the actor may see.

    Here as in `change` and `remove`, `fast` finds `ostiary/fast` where nothing is called just so.
    """
    by.require("aliases.list", by.organization_id)
    return await endpoints.view(tx, by, await store.get_endpoint(tx, EVERYBODY, await _meant(tx, id)), at)


async def change(
    tx: Transaction,
    by: Actor,
    id: str,
    edit: Mapping[str, object],
    *,
    catalog: Catalog,
    at: int,
    force: bool = False,
) -> Endpoint:
    """As `endpoints.change`."""
    by.require("aliases.edit", None)
    return await endpoint_changes.change(
        tx, by, EVERYBODY, await _meant(tx, id), edit, catalog=catalog, at=at, force=force
    )


async def remove(tx: Transaction, by: Actor, id: str, at: int, *, force: bool = False) -> Endpoint:
    """Forget an alias. Refuses with `in_use` while agent keys name it in their allowed models, unless forced."""
    by.require("aliases.delete", None)
    return await endpoint_changes.remove(tx, by, EVERYBODY, await _meant(tx, id), at, force=force)


async def _meant(tx: Transaction, id_or_name: str) -> str:
    """The same, or what it is short for: a path of the admin API takes no slash."""
    if await store.find_endpoint(tx, EVERYBODY, id_or_name) is not None:
        return id_or_name
    short = await store.find_endpoint(tx, EVERYBODY, f"{OURS}{id_or_name}")
    return short.id if short is not None else id_or_name


# ---- made from the catalogue ------------------------------------------------------------------------------------


async def make(tx: Transaction, by: Actor, *, catalog: Catalog, at: int) -> list[Endpoint]:
    """Make those of `MODELS` that there are not, over the providers with keys in the pool; the ones made or remade.

    Where there is one organization alone, its keys count, shared or not: nobody else could use them.
    One that was made before gets the providers that have got a key since, unless somebody has edited it.
    """
    by.require("aliases.create", None)
    # Their rows before the turn, as who edits one has it; then the turn, for two may find none and make them at once.
    await store.lock_endpoints(tx, EVERYBODY)
    await changes.take_turn(tx)
    return await _make(tx, by, {one.name: one for one in await store.list_endpoints(tx, EVERYBODY)}, catalog, at)


async def make_first(tx: Transaction, by: Actor, *, catalog: Catalog, at: int) -> list[Endpoint]:
    """The same, where there is no alias at all: what an operator has deleted stays deleted."""
    by.require("aliases.create", None)
    await changes.take_turn(tx)
    if await store.count_endpoints(tx, EVERYBODY):
        return []
    return await _make(tx, by, {}, catalog, at)


def origin(one: Endpoint) -> Origin:
    """Where an alias is from, as far as it shows: what is called as one of `MODELS` and is not as made was edited."""
    if one.name not in MODELS:
        return "own"
    return "catalogue" if _is_as_made(one) else "edited"


def suggest(catalog: Catalog, keyed: Collection[str]) -> dict[str, tuple[EndpointTarget, ...]]:
    """The targets of each, over these providers; without those that would have none."""
    found = {}
    for name, models in MODELS.items():
        targets = [one for one in map(_target, models) if one.provider in keyed and _is_known(catalog, one)]
        if targets:
            found[name] = tuple(targets[:1] if name in _ONLY_ONE else targets)
    return found


async def _make(tx: Transaction, by: Actor, known: Mapping[str, Endpoint], catalog: Catalog, at: int) -> list[Endpoint]:
    made = []
    keyed = await store.list_keyed_providers(tx, EVERYBODY)
    if not keyed:
        return []  # and the models of the catalogue need not be read, which takes half a second
    for name, targets in suggest(catalog, keyed).items():
        one = known.get(name)
        if one is None:
            made.append(
                await endpoint_changes.add(tx, by, EVERYBODY, NewEndpoint(name, targets), catalog=catalog, at=at)
            )
        elif _is_as_made(one) and name not in _ONLY_ONE and not {*targets} <= {*one.targets}:
            by.require("aliases.edit", None)
            # Made anew, not edited: the two times stay alike.
            anew = replace(one, targets=targets, created_at=at, updated_at=at)
            made.append(await endpoint_changes.rewrite(tx, by, one, anew, at))
    return made


def _is_as_made(one: Endpoint) -> bool:
    """Whether nobody has touched it since it was made from `MODELS`."""
    plain = NewEndpoint(one.name, ())
    is_plain = (one.strategy, one.retries, one.timeout_ms) == (plain.strategy, plain.retries, plain.timeout_ms)
    return is_plain and one.created_at == one.updated_at and {*one.targets} <= {*map(_target, MODELS[one.name])}


def _target(model: str) -> EndpointTarget:
    provider, _, name = model.partition("/")
    return EndpointTarget(provider, name)


def _is_known(catalog: Catalog, one: EndpointTarget) -> bool:
    provider = catalog.find(one.provider)
    return provider is not None and provider.callable and one.provider in catalog.served_by(one.model)
