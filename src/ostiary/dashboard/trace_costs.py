"""What of an attempt's cost was for what: its counts times the rates it was charged by (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ostiary.ledger.reports import Trace
from ostiary.money import TOKENS_PER_RATE
from ostiary.providers.catalog import Catalog
from ostiary.providers.prices import Override, Price, PriceBook, Rates

_MS_PER_MINUTE: Final = 60_000


@dataclass(frozen=True, slots=True)
class Part:
    """So many of a kind. `nano` is None where it is not known what they cost by themselves."""

    kind: str
    count: int
    unit: str
    nano: int | None


class Prices:
    """Prices by the version an attempt was charged by: where another counts by now, no split is shown."""

    def __init__(self, catalog: Catalog, overrides: Iterable[Override]) -> None:
        self._catalog = catalog
        self._book = PriceBook(overrides)

    def split(self, trace: Trace) -> list[Part]:
        """Every kind of which there is any; their costs only where they come to what was charged."""
        parts = [part for part in _parts(trace, self._rates(trace)) if part.count]
        known = [part.nano for part in parts if part.nano is not None]
        if len(known) == len(parts) and abs(sum(known) - trace.cost_nano) <= len(parts):
            return parts
        return [Part(part.kind, part.count, part.unit, None) for part in parts if part.unit != "call"]

    def _rates(self, trace: Trace) -> Rates | None:
        provider = self._catalog.find(trace.provider)
        if provider is None or trace.price_version is None:
            return None
        price = self._book.find_at(provider, trace.model, trace.at)
        return _rates_of(price, trace) if price is not None and price.version == trace.price_version else None


def _rates_of(price: Price, trace: Trace) -> Rates:
    rates = price.steps[0]
    for step in price.steps:
        if trace.tokens.input > step.above:
            rates = step
    return rates


def _parts(trace: Trace, rates: Rates | None) -> list[Part]:
    tokens = trace.tokens
    fresh = max(0, tokens.input - tokens.cache_read - tokens.cache_write)
    spoken = max(0, tokens.output - tokens.reasoning)
    charged = 1 if rates is not None and rates.request else 0

    def rate(name: str) -> int | None:
        return None if rates is None else getattr(rates, name)

    return [
        _part("Input", fresh, "tokens", rate("input")),
        _part("Cache read", tokens.cache_read, "tokens", rate("cache_read")),
        _part("Cache write", tokens.cache_write, "tokens", rate("cache_write")),
        _part("Output", spoken, "tokens", rate("output")),
        _part("Reasoning", tokens.reasoning, "tokens", rate("reasoning")),
        _part("Images", trace.images, "images", rate("image")),
        _part("Audio", trace.audio_ms, "ms", rate("audio_minute"), _MS_PER_MINUTE),
        _part("Speech", trace.characters, "characters", rate("character")),
        _part("Searches", trace.searches, "searches", rate("search")),
        _part("The call itself", charged, "call", rate("request")),
    ]


def _part(kind: str, count: int, unit: str, rate: int | None, of: int = 1) -> Part:
    """Rates are of a million, rounded up as the whole is."""
    return Part(kind, count, unit, None if rate is None else -(-count * rate // (TOKENS_PER_RATE * of)))
