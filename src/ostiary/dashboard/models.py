"""Models: what each costs, how much it reads, and which of one's own provider keys can serve it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.endpoint_views import Keys, KeyState, find_keys
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.money import TOKENS_PER_RATE, show_usd
from ostiary.providers.catalog import Catalog, Model
from ostiary.providers.prices import PER_UNIT, Override, Price, PriceBook, Rates
from ostiary.providers.store import list_overrides
from ostiary.vault import aliases, endpoint_store, endpoints

_PAGE: Final = 50
_MOST_NAMES: Final = 40
_UNITS: Final[Mapping[str, str]] = {
    "image": "an image",
    "audio_minute": "a minute",
    "character": "a million characters",
    "search": "a search",
}
"""As the command line says them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A model as it is listed. `price` None: none is known, and calls are refused unless that is allowed."""

    model: Model
    price: Price | None
    is_set: bool
    keys: tuple[KeyState, ...]

    @property
    def base(self) -> Rates | None:
        """What short calls cost."""
        return self.price.steps[0] if self.price is not None else None

    @property
    def steps(self) -> tuple[Rates, ...]:
        """What longer ones cost."""
        return self.price.steps[1:] if self.price is not None else ()

    @property
    def is_free(self) -> bool:
        """Whether it costs nothing, by the catalogue or by what the operator has set."""
        return self.model.free or (self.price is not None and self.price.is_free)

    @property
    def own(self) -> tuple[KeyState, ...]:
        """Those of its keys that are the organization's."""
        return tuple(key for key in self.keys if key.is_ours)

    @property
    def pooled(self) -> int:
        """How many of its keys are others'."""
        return len(self.keys) - len(self.own)

    @property
    def units(self) -> str:
        """What is paid for beside tokens."""
        if self.base is None:
            return ""
        rates = {name: getattr(self.base, name) for name in PER_UNIT}
        said = [f"{exactly(_each(name, rate))} {_UNITS[name]}" for name, rate in rates.items() if rate]
        if self.base.request:
            said.append(f"{exactly(self.base.request // TOKENS_PER_RATE)} a request")
        return ", ".join(said)


async def list_(visit: Visit) -> Answer:
    """Every model of the catalogue and every one that a price was set for: searched, filtered, a page at a time."""
    query = visit.query
    await _warm(visit.hall.catalog)
    async with visit.reading() as tx:
        visit.by.require("prices.show", visit.home)
        overrides = await list_overrides(tx)
        keyed = await endpoint_store.list_keyed_providers(tx, visit.home)
        known = sorted(_known(visit.hall.catalog, overrides), key=lambda one: one.provider not in keyed)
        found = [one for one in known if _fits(visit, one, keyed)]
        page, after = _cut(found, query.text("after"))
        keys = await find_keys(visit, tx, {one.provider for one in page} & keyed)
    rows = _rows(visit, page, overrides, keys)
    return visit.page(
        "models/rows.html" if visit.is_partial else "models/list.html",
        rows=rows,
        after=after,
        count=len(known),
        found=len(found),
        is_filtered=any(query.text(name) for name in ("q", "provider", "free", "mine")),
        providers=_providers(visit, known, keyed),
        has_keys=bool(keyed),
        rate=exactly,
    )


async def names(visit: Visit) -> Answer:
    """What a field for a model may hold, as options: of one provider, or everything that can be asked for."""
    query = visit.query
    await _warm(visit.hall.catalog)
    sought = query.text("model").casefold()
    async with visit.reading() as tx:
        visit.by.require("prices.show", visit.home)
        if query.has("provider"):
            found = [one.id for one in visit.hall.catalog.models.values() if one.provider == query.text("provider")]
        else:
            found = [name async for name in _askable(visit, tx)]
    fitting = [name for name in found if sought in name.casefold()]
    begins = [name for name in fitting if name.casefold().startswith(sought)]
    ordered = dict.fromkeys([*begins, *fitting])
    return visit.page("models/names.html", names=[*ordered][:_MOST_NAMES])


async def _askable(visit: Visit, tx: Transaction) -> AsyncIterator[str]:
    for endpoint in await endpoints.list_(tx, visit.by, visit.home):
        yield endpoint.name
    for alias in await aliases.list_(tx, visit.by):
        yield alias.name
    keyed = await endpoint_store.list_keyed_providers(tx, visit.home)
    for one in _known(visit.hall.catalog, await list_overrides(tx)):
        if one.provider in keyed:
            yield one.key


async def _warm(catalog: Catalog) -> None:
    """The models are read at their first use, which takes half a second: not in the way of calls."""
    await asyncio.to_thread(lambda: catalog.models)


def _known(catalog: Catalog, overrides: list[Override]) -> list[Model]:
    """The catalogue's, and behind them those that are known by their price alone."""
    models = catalog.models
    more = [
        Model(one.provider, one.model, free=False) for one in overrides if f"{one.provider}/{one.model}" not in models
    ]
    return [*models.values(), *more]


def _fits(visit: Visit, one: Model, keyed: set[str]) -> bool:
    query = visit.query
    provider = query.text("provider")
    return (
        query.text("q").casefold() in one.key.casefold()
        and (not provider or one.provider == provider)
        and (one.free or not query.text("free"))
        and (one.provider in keyed or not query.text("mine"))
    )


def _rows(visit: Visit, page: list[Model], overrides: list[Override], keys: Keys) -> list[Row]:
    book = PriceBook(overrides, visit.hall.clock)
    are_set = {(one.provider, one.model) for one in overrides}
    rows = []
    for one in page:
        provider = visit.hall.catalog.find(one.provider)
        price = book.find(provider, one.id) if provider is not None else None
        rows.append(Row(one, price, (one.provider, one.id) in are_set, tuple(keys.get(one.provider, ()))))
    return rows


def _cut(found: list[Model], after: str) -> tuple[list[Model], str]:
    """The page behind the model of this name, and where the next begins; empty behind the last."""
    begin = next((number for number, one in enumerate(found, 1) if one.key == after), 0)
    page = found[begin : begin + _PAGE]
    return page, page[-1].key if begin + _PAGE < len(found) else ""


def _providers(visit: Visit, known: list[Model], keyed: set[str]) -> list[tuple[str, str, bool]]:
    """Id, name and whether there is a key: of those that have models, those with keys first."""
    catalog = visit.hall.catalog
    ids = dict.fromkeys(one.provider for one in known)
    rows = [(id, catalog.providers[id].name if id in catalog.providers else id, id in keyed) for id in ids]
    return sorted(rows, key=lambda row: (not row[2], row[1].casefold()))


def exactly(nano: int) -> str:
    """A rate to its last digit, which millions of tokens make count: `$2.50`, `$0.075`, `$0`."""
    whole, _, rest = show_usd(nano).partition(".")
    return f"${whole}.{rest.ljust(2, '0')}" if nano else "$0"


def _each(name: str, rate: int) -> int:
    return rate if name == "character" else rate // TOKENS_PER_RATE
