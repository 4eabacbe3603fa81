"""The model names and prices that genai-prices publishes, as integers; its only importer, and a late one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import TYPE_CHECKING, Final

from ostiary.clock import moment
from ostiary.money import NANO_PER_USD

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, Provider, TieredPrices

MINUTE_MS: Final = 60_000
FOREVER: Final = 1 << 62

_METERED: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
}
"""Prices per million tokens of a kind we count."""
_WITHIN_OUTPUT: Final = ("output_image_mtok", "output_video_mtok", "output_citation_mtok")
"""Parts of the output we do not count apart: the dearest of them stands for all output."""
_WITHIN_INPUT: Final = ("input_image_mtok", "input_video_mtok")
"""Likewise of the input."""
_PER_UNIT: Final = {
    "requests_kcount": ("request", 1_000, 1),
    "rerank_searches_kcount": ("search", 1_000, 1),
    "input_mchars": ("character", 1, 1),
    "audio_hours": ("audio_minute", 1_000_000, 60),
    "input_audio_hours": ("audio_minute", 1_000_000, 60),
}
"""Prices of what is not tokens: ours, and what makes nano-dollars per million of it, as a fraction."""
_ALONE: Final = frozenset({"rerank_searches_kcount", "input_mchars", "audio_hours", "input_audio_hours"})
"""A model may be paid by one of these instead of tokens. By both: how much of which nobody tells, so it is no price."""
_UNCOUNTED: Final = frozenset(
    {
        "output_audio_hours",
        "input_gpixels",
        "input_document_kpages",
        "input_annotated_document_kpages",
        "input_text_messages_kcount",
    }
)
"""Units we do not count yet; a price that has one of them would be too low, so it is no price."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as published: the name to call it by, further exact names, and its context window in tokens."""

    id: str
    names: frozenset[str]
    context: int | None


@dataclass(frozen=True, slots=True)
class Step:
    """Rates in nano-dollars per million that hold for calls of more than `above` input tokens."""

    above: int
    rates: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Quote:
    """What a model costs, and until when (ms UTC) this need not be asked again. No steps: unpriced."""

    steps: tuple[Step, ...]
    version: str
    until: int


@cache
def _providers() -> Mapping[str, Provider]:
    from genai_prices.data import providers  # noqa: PLC0415 - a third of a second and 18 MB, paid at first use

    return {provider.id: provider for provider in providers}


@cache
def version() -> str:
    """What events name as the source of a published price."""
    from genai_prices import __version__  # noqa: PLC0415 - as above

    return f"genai-prices {__version__}"


def list_models(provider: str) -> Iterator[Listed]:
    """The models published for a provider of genai-prices; those known only by a pattern are left out."""
    for model in _providers()[provider].models:
        exact = list(_exact_names(model.match))
        if model.is_match(model.id) and model.id not in exact and not model.id.endswith(("-", ":")):
            exact.insert(0, model.id)
        if exact:
            name = model.id if model.id in exact else exact[0]
            yield Listed(name, frozenset(exact), model.context_window)


def quote(provider: str, model: str, at: int) -> Quote:
    """The price of a model at a time, by genai-prices' own rules for names, dates and times of day."""
    providers = _providers()
    found = providers[provider].find_model(model, all_providers=list(providers.values()))
    if found is None:
        return Quote((), version(), FOREVER)
    # Prices that change do so by date or time of day; both fall on whole minutes.
    until = at - at % MINUTE_MS + MINUTE_MS if isinstance(found.prices, list) else FOREVER
    return Quote(_steps(_price_at(found, at)), version(), until)


def _price_at(model: ModelInfo, at: int) -> ModelPrice:
    return model.get_prices(moment(at))


def _exact_names(match: MatchLogic) -> Iterator[str]:
    for clause in getattr(match, "or_", [match]):
        name = getattr(clause, "equals", None)
        if isinstance(name, str):
            yield name


def _steps(price: ModelPrice) -> tuple[Step, ...]:
    published: dict[str, Decimal | TieredPrices] = {
        key: value for key, value in vars(price).items() if value is not None and not key.startswith("_")
    }
    is_metered, by_unit = "input_mtok" in published, published.keys() & _ALONE
    if published.keys() & _UNCOUNTED or is_metered == bool(by_unit):
        return ()
    starts = {-1}
    for value in published.values():
        starts.update(tier.start for tier in getattr(value, "tiers", ()))
    return tuple(Step(start, _rates(published, start)) for start in sorted(starts))


def _rates(published: Mapping[str, Decimal | TieredPrices], start: int) -> dict[str, int]:
    rates = {ours: _nano(published[theirs], start) for theirs, ours in _METERED.items() if theirs in published}
    for whole, parts in (("input", _WITHIN_INPUT), ("output", _WITHIN_OUTPUT)):
        within = [_nano(published[key], start) for key in parts if key in published]
        if within:
            rates[whole] = max(rates.get(whole, 0), *within)
    for theirs, (ours, times, parts_of) in _PER_UNIT.items():
        if theirs in published:
            rates[ours] = max(rates.get(ours, 0), _nano(published[theirs], start) * times // parts_of)
    return rates


def _nano(price: Decimal | TieredPrices, start: int) -> int:
    """Nano-dollars of a price in USD; of a tiered one, that of calls just above `start` input tokens."""
    if not isinstance(price, Decimal):
        reached = [tier.price for tier in price.tiers if tier.start <= start]
        price = reached[-1] if reached else price.base
    # A few published decimals are noise of binary fractions, so the last nano-dollar is rounded.
    return int((price * NANO_PER_USD).to_integral_value(ROUND_HALF_UP))
