"""Prices, for the operator: those that were set, what any model costs, and setting one for the whole instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import prices
from ostiary.money import TOKENS_PER_RATE, nano_of, show_usd
from ostiary.providers.catalog import Provider
from ostiary.providers.prices import Price, Rates

_ROWS: Final = 50
_PLACE: Final = f"{HOME}/operator/prices"
_PER_MILLION: Final = frozenset({"input", "output", "cache_read", "cache_write", "character"})
FIELDS: Final = (
    ("input", "Input tokens", "USD for a million."),
    ("output", "Output tokens", "USD for a million."),
    ("cache_read", "Read from a cache", "USD for a million tokens; as input if empty."),
    ("cache_write", "Written to a cache", "USD for a million tokens; as input if empty."),
    ("request", "Each request", "USD, beside its tokens."),
    ("image", "Each image", "USD, for one of the dearest kind."),
    ("audio_minute", "Each minute heard", "USD."),
    ("character", "Characters spoken", "USD for a million."),
    ("search", "Each search of a rerank", "USD."),
)
"""What a price is made of, as one types it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is paid from so many input tokens on, by field, in USD as people write it."""

    above: int
    amounts: tuple[tuple[str, str], ...]


async def list_(visit: Visit) -> Answer:
    """Every price that was set, and a way to look up any."""
    sought = visit.query.text("q").casefold()
    async with visit.reading() as tx:
        found = await prices.show(tx, visit.by)
    fitting = [one for one in found if sought in f"{one.provider}/{one.model}".casefold()]
    places = [f"{one.provider}/{one.model}" for one in fitting]
    after = visit.query.text("after")
    begin = places.index(after) + 1 if after in places else 0
    shown = fitting[begin : begin + _ROWS]
    return visit.page(
        "operator/prices_list.html" if visit.is_partial else "operator/prices.html",
        prices=[(one, _steps(one.price)) for one in shown],
        total=len(found),
        fitting=len(fitting),
        following=places[begin + _ROWS - 1] if begin + _ROWS < len(fitting) else None,
        providers=sorted((one.id, one.name) for one in visit.hall.catalog.providers.values()),
    )


async def show(visit: Visit) -> Answer:
    """What a model costs, and the form that sets it."""
    provider, model = _asked(visit)
    async with visit.reading() as tx:
        price, is_set = await _find(tx, visit, provider, model)
    return _form(visit, provider, model, price, is_set=is_set, typed=_typed(price))


async def set_(visit: Visit) -> Answer:
    """Set it; nothing is written over a price that somebody else has set meanwhile."""
    form = visit.form
    provider, model = _asked(visit)
    typed = {name: form.text(name) for name, _, _ in FIELDS}
    async with visit.reading() as tx:
        price, is_set = await _find(tx, visit, provider, model)
    try:
        rates = _rates(typed)
        async with visit.writing() as tx:
            await prices.alone(tx, visit.by)
            price, is_set = await _find(tx, visit, provider, model)
            if form.text("version") != _version(price):
                return _form(visit, provider, model, price, is_set=is_set, typed=typed, status=409, is_newer=True)
            await prices.set_price(tx, visit.by, provider, model, rates, visit.at)
    except Refusal as refusal:
        wrong = visit.refused(refusal)
        # The version stays as it was seen until it is told that there is another by now.
        seen = {"wrong": wrong, "price_version": form.text("version")}
        return _form(visit, provider, model, price, is_set=is_set, typed=typed, status=refusal.status, **seen)
    return visit.go(_PLACE, said=f"The price of {provider.id}/{model} is set. Past calls keep their cost; see Recost.")


def _asked(visit: Visit) -> tuple[Provider, str]:
    said = visit.form if visit.route.is_write else visit.query
    provider = visit.hall.catalog.find(said.text("provider"))
    model = said.text("model")
    if provider is None or not model or len(model) > 1_000:  # noqa: PLR2004 - far longer than any name
        raise Refusal("not_found")
    return provider, model


async def _find(tx: Transaction, visit: Visit, provider: Provider, model: str) -> tuple[Price | None, bool]:
    """The price as it counts now, and whether the operator has set it."""
    [found] = await prices.show(tx, visit.by, provider, model)
    own = await prices.show(tx, visit.by, provider)
    return found.price, any(one.model == model for one in own)


def _form(
    visit: Visit,
    provider: Provider,
    model: str,
    price: Price | None,
    *,
    is_set: bool,
    typed: dict[str, str],
    status: int = 200,
    **more: object,
) -> Answer:
    return visit.page(
        "operator/price_form.html" if visit.route.is_write else "operator/price.html",
        status,
        provider=provider,
        model=model,
        price=price,
        steps=_steps(price),
        is_set=is_set,
        fields=FIELDS,
        typed=typed,
        recost_path=f"{_PLACE}/recost?{urlencode({'provider': provider.id, 'model': model})}",
        **{"price_version": _version(price), "is_newer": False, **more},
    )


def _version(price: Price | None) -> str:
    return price.version if price is not None else ""


def _typed(price: Price | None) -> dict[str, str]:
    """The first step as one would type it; what only follows from the price of input is left empty."""
    known = dict(_amounts(price.steps[0])) if price is not None else {}
    return {name: known.get(name, "") for name, _, _ in FIELDS}


def _steps(price: Price | None) -> list[Step]:
    return [Step(max(one.above, 0), _amounts(one)) for one in price.steps] if price is not None else []


def _amounts(rates: Rates) -> tuple[tuple[str, str], ...]:
    shown = []
    for name, _, _ in FIELDS:
        rate = getattr(rates, name)
        is_said = rates.is_metered if name in ("input", "output") else rate != _usual(rates, name)
        if is_said:
            shown.append((name, show_usd(rate if name in _PER_MILLION else rate // TOKENS_PER_RATE)))
    return tuple(shown)


def _usual(rates: Rates, name: str) -> int:
    return rates.input if name.startswith("cache_") else 0


def _rates(typed: dict[str, str]) -> dict[str, int]:
    """Nano-dollars per million of each field that was filled; refuses what is no amount."""
    found: dict[str, int] = {}
    for name, text in typed.items():
        if not text:
            continue
        try:
            nano = nano_of(text.removeprefix("$").strip())
        except ValueError as error:
            raise Refusal("invalid_field", f"{str(error)[:200]}.", param=name) from None
        found[name] = nano if name in _PER_MILLION else nano * TOKENS_PER_RATE
    return found
