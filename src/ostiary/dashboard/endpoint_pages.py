"""The pages of one endpoint or alias: made, shown, edited in place, deleted; the same for both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ostiary.dashboard import endpoint_forms, endpoint_views
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.endpoint_forms import Typed, TypedTarget, differences, typed, typed_of
from ostiary.dashboard.endpoint_views import Keys, drawn, find_keys, providers_of
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.providers.catalog import Provider
from ostiary.vault import endpoint_store, endpoints
from ostiary.vault.endpoint_fields import MOST_TARGETS
from ostiary.vault.endpoints import Endpoint, NewEndpoint, View

HOME: Final = "/dashboard/endpoints"
_LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between an endpoint and an alias: whose it is, where its pages are, and the deeds of its room."""

    noun: str
    deeds: str
    path: str
    organization_id: Callable[[Visit], str]
    view: Callable[[Visit, Transaction, str], Awaitable[View]]
    create: Callable[[Visit, Transaction, NewEndpoint], Awaitable[Endpoint]]
    change: Callable[[Visit, Transaction, str, Mapping[str, object], bool], Awaitable[Endpoint]]
    remove: Callable[[Visit, Transaction, str, bool], Awaitable[Endpoint]]


async def new(visit: Visit, kind: Kind) -> Answer:
    """The empty form; `model` in the query fills the first target."""
    provider, _, model = visit.query.text("model").partition("/")
    first = TypedTarget(provider, model) if visit.hall.catalog.find(provider) else TypedTarget()
    return await _form(visit, kind, Typed(targets=(first,)), "endpoints/new.html")


async def create(visit: Visit, kind: Kind) -> Answer:
    """Make one, or show the form again with what is wrong."""
    meant = typed(visit.form)
    try:
        async with visit.writing() as tx:
            made = await kind.create(visit, tx, meant.wish())
    except Refusal as refusal:
        return await _again(visit, kind, meant, refusal)
    return visit.go(f"{kind.path}/{made.id}", said=f"{made.name} is made: callers reach it by this name in model.")


async def show(visit: Visit, kind: Kind, view: View) -> Answer:
    """One with its route, how the keys of its targets are, who uses it, and the form for who may edit."""
    one = view.endpoint
    async with visit.reading() as tx:
        keys = await find_keys(visit, tx, providers_of([one]))
        hints = await endpoints.hints(tx, one, visit.hall.catalog)
    users = view.users or ()
    return await _form(
        visit,
        kind,
        typed_of(one),
        "endpoints/show.html",
        one=one,
        targets=drawn(one, keys),
        lost=[key for key in view.keys if not key.is_usable],
        users=view.users,
        naming=[user for user in users if user.is_named],
        hints=hints,
        may_edit=visit.may(f"{kind.deeds}.edit"),
        may_delete=visit.may(f"{kind.deeds}.delete"),
    )


async def change(visit: Visit, kind: Kind) -> Answer:
    """Write what was typed, unless somebody else was faster: then both are shown, and nothing is lost."""
    id, meant = visit.names["id"], typed(visit.form)
    home = kind.organization_id(visit)
    try:
        async with visit.writing() as tx:
            visit.by.require(f"{kind.deeds}.edit", None if kind.deeds == "aliases" else home)
            known = await endpoint_store.get_endpoint(tx, home, id, lock=True)
            is_stale = meant.seen_at != str(known.updated_at)
            if not is_stale:
                known = await kind.change(visit, tx, known.id, meant.edit(), visit.form.has("force"))
    except Refusal as refusal:
        return await _again(visit, kind, meant, refusal)
    if is_stale:
        return await _conflict(visit, kind, known, meant)
    return visit.go(f"{kind.path}/{known.id}", said="Saved. Every gateway knows within a second.")


async def delete(visit: Visit, kind: Kind) -> Answer:
    """Forget one; the page has listed the agent keys that name it, and says with `force` that it has."""
    async with visit.writing() as tx:
        gone = await kind.remove(visit, tx, visit.names["id"], visit.form.has("force"))
    return visit.go(HOME, said=f"{gone.name} is deleted.")


# ---- the form ---------------------------------------------------------------------------------------------------


async def _again(visit: Visit, kind: Kind, meant: Typed, refusal: Refusal) -> Answer:
    """The form as it was typed, with what is wrong beside the field."""
    if refusal.code == "invalid_request":
        raise refusal
    naming = refusal.details.get("dependents") or ()
    wrong = visit.refused(refusal, endpoint_forms.NAMES)
    return await _form(
        visit,
        kind,
        meant,
        "endpoints/form.html",
        status=refusal.status,
        wrong=wrong,
        is_in_use=refusal.code == "in_use",
        naming=naming,
    )


async def _conflict(visit: Visit, kind: Kind, known: Endpoint, meant: Typed) -> Answer:
    meanwhile = differences(known, meant)
    again = replace(meant, seen_at=str(known.updated_at))
    return await _form(
        visit, kind, again, "endpoints/form.html", status=409, meanwhile=meanwhile, edited_at=known.updated_at
    )


async def _form(visit: Visit, kind: Kind, meant: Typed, template: str, status: int = 200, **more: Any) -> Answer:  # noqa: ANN401 - what templates take
    wanted = {one.provider for one in meant.targets if visit.hall.catalog.find(one.provider)}
    async with visit.reading() as tx:
        keys = await find_keys(visit, tx, wanted)
        keyed = await endpoint_store.list_keyed_providers(tx, kind.organization_id(visit))
    known: dict[str, Any] = {
        "kind": kind,
        "typed": meant,
        "options": key_options(kind, keys),
        "providers": _providers(visit, keyed),
        "most_targets": MOST_TARGETS,
        "id": visit.names.get("id", ""),
        "wrong": Wrong(),
        "is_in_use": False,
        "naming": (),
        "meanwhile": None,
        "edited_at": None,
    }
    return visit.page(template, status, **known | more)


def key_options(kind: Kind, keys: Keys) -> dict[str, list[tuple[str, str]]]:
    """The provider keys that a target may name, by provider: of an alias only those of the pool."""
    return {
        provider: [
            (key.id, key.shown_name if key.status == endpoint_views.HEALTHY else f"{key.shown_name} ({key.status})")
            for key in found
            if kind.deeds != "aliases" or not key.is_ours or key.is_shared
        ]
        for provider, found in keys.items()
    }


def _providers(visit: Visit, keyed: set[str]) -> dict[str, list[Provider]]:
    callable_ = [one for one in visit.hall.catalog.providers.values() if one.callable]
    shown = [one for one in callable_ if one.id in keyed or not one.hidden]
    return {
        "With a provider key": [one for one in shown if one.id in keyed],
        "Without one yet": [one for one in shown if one.id not in keyed],
    }
