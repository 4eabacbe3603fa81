"""What a call costs and the most it can cost, by model, in exact nano-dollars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ostiary.clock import Clock, SystemClock
from ostiary.money import TOKENS_PER_RATE, Nano, cost_of
from ostiary.providers import published
from ostiary.providers.catalog import Provider
from ostiary.providers.tokens import Tokens

PER_UNIT: Final = ("image", "audio_minute", "character", "search")
"""What is paid for where it is not tokens: an image made, a minute heard, a character spoken, a search of a rerank."""
DIMENSIONS: Final = ("input", "output", "cache_read", "cache_write", "request", *PER_UNIT)
"""What an operator can set a price for."""
_OF_AUDIO: Final = frozenset({"audio_input", "audio_output"})
_MS_PER_MINUTE: Final = 60_000
FREE_VERSION: Final = "free"


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's price: nano-dollars per million of each dimension (tokens, requests, images, minutes …)."""

    provider: str
    model: str
    rates: Mapping[str, int]
    version: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars per million, for calls of more than `above` input tokens."""

    above: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    audio_input: int
    audio_output: int
    request: int
    image: int = 0
    audio_minute: int = 0
    character: int = 0
    search: int = 0
    is_metered: bool = True
    """Whether tokens are what is paid for; else there is a price for something else only."""
    of_audio: frozenset[str] = frozenset()
    """The rates of sound that it has of its own; the others are only taken to be those of text."""

    @classmethod
    def of(cls, rates: Mapping[str, int], above: int = -1) -> Rates:
        """Rates by dimension; a kind of input or output that has none of its own costs what its whole costs."""
        given, produced = rates.get("input", 0), rates.get("output", 0)
        return cls(
            above=above,
            input=given,
            output=produced,
            cache_read=rates.get("cache_read", given),
            cache_write=rates.get("cache_write", given),
            reasoning=rates.get("reasoning", produced),
            # Which side audio was on is not counted, so it is never taken for cheaper than text.
            audio_input=max(given, rates.get("audio_input", given)),
            audio_output=max(produced, rates.get("audio_output", produced)),
            request=rates.get("request", 0),
            **{name: rates[name] for name in PER_UNIT if name in rates},
            is_metered="input" in rates or "output" in rates,
            of_audio=_OF_AUDIO & rates.keys(),
        )

    @property
    def has_units(self) -> bool:
        """Whether anything but tokens and requests is paid for."""
        return bool(self.image or self.audio_minute or self.character or self.search)

    @property
    def dearest_input(self) -> int:
        """The most a million input tokens of any kind cost."""
        return max(self.input, self.cache_read, self.cache_write, self.audio_input)

    @property
    def dearest_output(self) -> int:
        """The most a million output tokens of any kind cost."""
        return max(self.output, self.reasoning, self.audio_output)


class Price:
    """The price of one model. Steps are cliffs: past a threshold of input tokens all tokens cost the new rate."""

    __slots__ = (
        "_bounds",
        "_has_units",
        "_steps",
        "is_free",
        "is_metered",
        "output_nano_per_million",
        "version",
    )

    def __init__(self, steps: Iterable[Rates], version: str) -> None:
        self._steps = tuple(sorted(steps, key=lambda step: step.above))
        self._bounds = tuple(
            (step.above, step.dearest_input, step.dearest_output, step.request) for step in self._steps
        )
        self.version = version
        self.output_nano_per_million = max(step.dearest_output for step in self._steps)
        self._has_units = any(step.has_units for step in self._steps)
        self.is_metered = any(step.is_metered for step in self._steps)
        """Whether it has a price for tokens: if not, a call that is paid by tokens would look free."""
        self.is_free = not self._has_units and not any(any(bound[1:]) for bound in self._bounds)

    @classmethod
    def of(cls, rates: Mapping[str, int], version: str) -> Price:
        """A price without steps, of rates by dimension."""
        return cls([Rates.of(rates)], version)

    @property
    def steps(self) -> tuple[Rates, ...]:
        """The rates, cheapest threshold first."""
        return self._steps

    def cost_nano(self, tokens: Tokens) -> Nano:
        """What these tokens cost, rounded up once. Counts that contradict each other are charged in full."""
        rates = self._steps[0]
        for step in self._steps:
            if tokens.input > step.above:
                rates = step
        if self._has_units:
            return _with_units(_parts(rates, tokens), rates, tokens)
        if not (tokens.cache_read or tokens.cache_write or tokens.reasoning or tokens.audio):
            return _rounded_up(tokens.input * rates.input + tokens.output * rates.output + rates.request)
        return cost_of(_parts(rates, tokens))

    def covers(self, operation: str, audio_rates: tuple[str, ...] = ()) -> bool:
        """Whether it says what an operation costs: a price by the minute of audio says nothing of a chat.

        Nor do rates for text alone of a chat in sound, whose tokens may cost twenty times as much.
        """
        if audio_rates and not self.is_free and not all(step.of_audio.issuperset(audio_rates) for step in self._steps):
            return False
        return self.is_metered or self.is_free or operation in _PAID_BY_UNIT

    def bound_nano(self, input_tokens: int, output_tokens: int, units: Tokens | None = None) -> Nano:
        """The most a call of at most so many tokens can cost, whatever their kinds and whichever step it reaches.

        `units` is what the call may use beside them: images and the like, and input that is not in its text.
        """
        most = 0
        if units is not None:
            return self._bound_with_units(input_tokens + units.input, output_tokens, units)
        for above, given, produced, request in self._bounds:
            if above < max(input_tokens, 0):
                most = max(most, input_tokens * given + output_tokens * produced + request)
        return _rounded_up(most)

    def _bound_with_units(self, input_tokens: int, output_tokens: int, units: Tokens) -> Nano:
        most = Nano(0)
        for rates in self._steps:
            if rates.above < max(input_tokens, 0):
                parts = [(input_tokens, rates.dearest_input), (output_tokens, rates.dearest_output), (1, rates.request)]
                most = max(most, _with_units(parts, rates, units))
        return most


_PAID_BY_UNIT: Final = frozenset(
    {
        "images.generations",
        "images.edits",
        "audio.speech",
        "audio.transcriptions",
        "audio.translations",
        "rerank",
    }
)


def _rounded_up(sum_of_rates: int) -> Nano:
    """As `money.cost_of` does, for a sum that is made already: this is asked twice in every call."""
    return Nano(-(-sum_of_rates // TOKENS_PER_RATE))


def _parts(rates: Rates, tokens: Tokens) -> list[tuple[int, int]]:
    """(tokens, rate) of every kind."""
    given = max(0, tokens.input - tokens.cache_read - tokens.cache_write)
    produced = max(0, tokens.output - tokens.reasoning)
    parts = [
        (given, rates.input),
        (tokens.cache_read, rates.cache_read),
        (tokens.cache_write, rates.cache_write),
        (produced, rates.output),
        (tokens.reasoning, rates.reasoning),
        (1, rates.request),
    ]
    return parts + _surcharges(rates, tokens.audio, given, produced) if tokens.audio else parts


def _with_units(parts: list[tuple[int, int]], rates: Rates, used: Tokens) -> Nano:
    """The cost of these parts and of what is not counted in tokens, rounded up once: audio is counted finer."""
    units = used.images * rates.image + used.characters * rates.character + used.searches * rates.search
    per_million = units + sum(count * rate for count, rate in parts)
    audio = used.audio_ms * rates.audio_minute
    return Nano(-(-(per_million * _MS_PER_MINUTE + audio) // (TOKENS_PER_RATE * _MS_PER_MINUTE)))


def _surcharges(rates: Rates, audio: int, given: int, produced: int) -> list[tuple[int, int]]:
    """What audio costs above text, taking as much of it as can be for the dearer side."""
    sides = [(rates.audio_input - rates.input, given), (rates.audio_output - rates.output, produced)]
    surcharges = []
    for extra, room in sorted(sides, reverse=True):
        count = min(audio, room)
        surcharges.append((count, extra))
        audio -= count
    return surcharges


_FREE: Final = Price.of({"input": 0}, FREE_VERSION)


class PriceBook:
    """Every price, resolved once and kept: an operator's override, else free by the catalogue, else as published."""

    def __init__(self, overrides: Iterable[Override] = (), clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._overrides = MappingProxyType(
            {(each.provider, each.model): Price.of(each.rates, each.version) for each in overrides}
        )
        self._known: dict[tuple[str, str], tuple[Price | None, int]] = {}

    def has_same_overrides(self, other: PriceBook) -> bool:
        """Whether an operator has set the same in both; what is published is the same for all."""
        return self._versions() == other._versions()

    def _versions(self) -> dict[tuple[str, str], str]:
        return {key: price.version for key, price in self._overrides.items()}

    def find(self, provider: Provider, model: str) -> Price | None:
        """The price of a model now; None when none is known. Asked again at once, it is a look-up."""
        key = (provider.id, model)
        known = self._known.get(key)
        if known is None or known[1] <= self._clock.now():
            known = self._keep(key, self._resolve(provider, model, self._clock.now()))
        return known[0]

    def find_at(self, provider: Provider, model: str, at: int) -> Price | None:
        """The price of a model at a time gone by: as published for then; what an operator has set counts for ever."""
        key = (provider.id, model)
        known = self._known.get(key)
        if known is not None and known[1] == published.FOREVER:
            return known[0]
        found = self._resolve(provider, model, at)
        if found[1] == published.FOREVER:
            self._keep(key, found)
        return found[0]

    def _keep(self, key: tuple[str, str], found: tuple[Price | None, int]) -> tuple[Price | None, int]:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[key] = found
        return found

    def _resolve(self, provider: Provider, model: str, at: int) -> tuple[Price | None, int]:
        override = self._overrides.get((provider.id, model))
        if override is not None:
            return override, published.FOREVER
        if provider.is_free(model):
            return _FREE, published.FOREVER
        if provider.prices is None:
            return None, published.FOREVER
        quote = published.quote(provider.prices, model, at)
        if not quote.steps:
            return None, quote.until
        return Price((Rates.of(step.rates, step.above) for step in quote.steps), quote.version), quote.until


_MOST_KNOWN: Final = 10_000
"""Names come from callers; more of them than this are not kept."""
