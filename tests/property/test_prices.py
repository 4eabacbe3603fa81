"""Costs are exact by genai-prices' own reckoning, and no call costs more than its bound."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.clock import moment
from ostiary.providers import published
from ostiary.providers.prices import DIMENSIONS, Price, Rates
from ostiary.providers.tokens import Tokens

AT = 1_795_000_000_000
LISTS = ("openai", "google", "deepseek", "x-ai", "groq", "together", "openrouter", "novita", "mistral")

rates = st.dictionaries(
    st.sampled_from([*DIMENSIONS, "reasoning", "audio_input", "audio_output"]), st.integers(0, 10**12)
).map(lambda some: {"input": 0, **some})


@st.composite
def prices(draw: st.DrawFn) -> Price:
    starts = draw(st.lists(st.integers(0, 300_000), max_size=3, unique=True))
    return Price([Rates.of(draw(rates), start) for start in (-1, *starts)], "v")


@st.composite
def usages(draw: st.DrawFn) -> Tokens:
    given_, produced = draw(st.integers(0, 400_000)), draw(st.integers(0, 100_000))
    read = draw(st.integers(0, given_))
    return Tokens(
        input=given_,
        output=produced,
        cache_read=read,
        cache_write=draw(st.integers(0, given_ - read)),
        reasoning=draw(st.integers(0, produced)),
        audio=draw(st.integers(0, given_ + produced)),
        images=draw(st.integers(0, 9)),
        audio_ms=draw(st.integers(0, 10**7)),
    )


@given(prices(), usages(), st.integers(0, 50_000), st.integers(0, 50_000))
def test_no_call_costs_more_than_its_bound(price: Price, used: Tokens, more_in: int, more_out: int) -> None:
    cost = price.cost_nano(used)
    assert 0 <= cost <= price.bound_nano(used.input, used.output, Tokens(images=used.images, audio_ms=used.audio_ms))
    assert price.bound_nano(used.input, used.output) <= price.bound_nano(used.input + more_in, used.output + more_out)


@given(prices(), usages())
def test_free_means_that_nothing_ever_costs(price: Price, used: Tokens) -> None:
    units = Tokens(images=10**6, audio_ms=60_000 * 10**6, characters=10**6, searches=10**6)
    assert price.is_free == (price.bound_nano(10**6, 10**6, units) == 0)
    assert not price.is_free or price.cost_nano(used) == 0


@given(rates, usages())
def test_costs_are_whole_nano_dollars_rounded_up(some: dict[str, int], used: Tokens) -> None:
    step = Rates.of(some)
    plain = Tokens(used.input, used.output, used.cache_read, used.cache_write, used.reasoning)
    exact = Fraction(
        (used.input - used.cache_read - used.cache_write) * step.input
        + used.cache_read * step.cache_read
        + used.cache_write * step.cache_write
        + (used.output - used.reasoning) * step.output
        + used.reasoning * step.reasoning
        + step.request,
        1_000_000,
    )
    assert Price([step], "v").cost_nano(plain) == math.ceil(exact)


@pytest.fixture(scope="module", name="whole_prices")
def the_models_whose_whole_price_we_count() -> list[tuple[str, str]]:
    counted = {*published._METERED, "requests_kcount"} - {"input_audio_mtok", "output_audio_mtok"}
    beside = {"web_searches_kcount", "storage_searches_kcount", "cache_write_1h_mtok"}
    found = []
    for provider in LISTS:
        for model in published._providers()[provider].models:
            keys = {key for key, value in vars(model.get_prices(moment(AT))).items() if value is not None}
            if "input_mtok" in keys and keys <= counted | beside:
                found += [(provider, name) for name in published._exact_names(model.match)]
    assert len(found) > 1_000
    return found


@given(st.data())
def test_the_reckoning_agrees_with_the_publishers(whole_prices: list[tuple[str, str]], data: st.DataObject) -> None:
    from genai_prices import Usage

    provider, name = data.draw(st.sampled_from(whole_prices))
    used = data.draw(usages())
    usage = Usage(
        input_tokens=used.input,
        output_tokens=used.output,
        cache_read_tokens=used.cache_read,
        cache_write_tokens=used.cache_write,
        output_reasoning_tokens=used.reasoning,
    )
    model = published._providers()[provider].find_model(name)
    assert model is not None
    expected: Decimal = model.get_prices(moment(AT)).calc_price(usage)["total_price"] * 10**9
    quote = published.quote(provider, name, AT)
    ours = Price((Rates.of(step.rates, step.above) for step in quote.steps), quote.version)
    plain = Tokens(used.input, used.output, used.cache_read, used.cache_write, used.reasoning)
    # A rate with more than nine decimals is rounded at the ninth: half a nano-dollar per million tokens.
    assert abs(ours.cost_nano(plain) - math.ceil(expected)) <= 1
