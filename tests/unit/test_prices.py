"""Where a price comes from, and what is no price."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from ostiary.money import show_usd
from ostiary.providers import catalog, published
from ostiary.providers.catalog import Catalog
from ostiary.providers.prices import Override, Price, PriceBook, Rates
from ostiary.providers.tokens import Tokens

NANO_PER_CENT = 10_000_000


class Watch:
    """A clock that stands where it is put."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> int:
        return int(self.at.timestamp()) * 1_000

    def monotonic(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@pytest.fixture(scope="module", name="known")
def the_catalog() -> Catalog:
    return catalog.load()


@pytest.fixture(name="book")
def the_book() -> PriceBook:
    return PriceBook(clock=Watch(datetime(2026, 11, 20, 12, tzinfo=UTC)))


def price_of(book: PriceBook, known: Catalog, name: str) -> Price:
    provider, _, model = name.partition("/")
    price = book.find(known.get(provider), model)
    assert price is not None, name
    return price


def test_a_published_price(book: PriceBook, known: Catalog) -> None:
    price = price_of(book, known, "openai/gpt-4o")
    # $2.50 and $10 a million; cached input is half
    assert show_usd(price.cost_nano(Tokens(input=1_000, output=100))) == "0.0035"
    assert show_usd(price.cost_nano(Tokens(input=1_000, output=100, cache_read=1_000))) == "0.00225"
    assert price.output_nano_per_million == 10_000_000_000
    assert not price.is_free
    assert price.version.startswith("genai-prices ")


def test_a_cost_is_rounded_up_once() -> None:
    price = Price.of({"input": 1, "output": 1}, "v")
    assert price.cost_nano(Tokens(input=1, output=1)) == 1
    assert price.cost_nano(Tokens(input=1_000_000)) == 1
    assert price.cost_nano(Tokens(input=999_999, output=2)) == 2
    assert price.cost_nano(Tokens()) == 0


def test_past_a_step_all_tokens_cost_the_new_rate(book: PriceBook, known: Catalog) -> None:
    price = price_of(book, known, "gemini/gemini-2.5-pro")
    # $1.25 and $10 up to 200,000 input tokens, $2.50 and $15 above
    assert price.cost_nano(Tokens(input=200_000)) == 25 * NANO_PER_CENT
    assert price.cost_nano(Tokens(input=200_001)) == 500_002_500
    assert price.cost_nano(Tokens(input=200_001, output=1_000)) == 515_002_500
    assert price.bound_nano(200_000, 0) == 25 * NANO_PER_CENT
    assert price.bound_nano(200_001, 0) == 500_002_500


def test_kinds_of_tokens_are_parts_of_input_and_output() -> None:
    rates = {"input": 10, "output": 100, "cache_read": 1, "cache_write": 20, "reasoning": 30, "request": 7}
    price = Price.of({key: rate * 1_000_000 for key, rate in rates.items()}, "v")
    assert price.cost_nano(Tokens()) == 7
    assert price.cost_nano(Tokens(input=10, cache_read=4, cache_write=5)) == 7 + 10 + 4 + 100
    assert price.cost_nano(Tokens(output=10, reasoning=4)) == 7 + 600 + 120
    # cached and reasoning tokens beyond their whole are charged, never turned into a credit
    assert price.cost_nano(Tokens(input=1, cache_read=10)) == 7 + 10
    assert price.cost_nano(Tokens(output=1, reasoning=10)) == 7 + 300


def test_audio_costs_what_the_dearer_side_asks() -> None:
    rates = {"input": 1, "output": 2, "audio_input": 11, "audio_output": 102}
    price = Price.of({key: rate * 1_000_000 for key, rate in rates.items()}, "v")
    assert price.cost_nano(Tokens(input=10, output=5, audio=3)) == 10 + 10 + 3 * 100
    assert price.cost_nano(Tokens(input=10, output=5, audio=8)) == 10 + 10 + 5 * 100 + 3 * 10
    assert price.bound_nano(10, 5) == 110 + 510
    cheap = Price([Rates.of({"input": 5_000_000, "output": 5_000_000, "audio_input": 1_000_000})], "v")
    assert cheap.cost_nano(Tokens(input=10, audio=10)) == 50, "never taken for cheaper than text"


@pytest.mark.parametrize(
    "name",
    [
        "openai/no-such-model",
        "mistral/mistral-ocr-latest",  # by the page
        "mistral/voxtral-small-24b-2507",  # tokens, and audio by the hour
        "openai/moderation",  # an empty price is not a free one
        "nvidia/meta/llama-3.1-8b-instruct",
        "openai-compatible/anything",
        "openai/",
    ],
)
def test_what_cannot_be_priced_has_no_price(book: PriceBook, known: Catalog, name: str) -> None:
    provider, _, model = name.partition("/")
    assert book.find(known.get(provider), model) is None


@pytest.mark.parametrize("name", ["openrouter/a/b:free", "ollama/llama3", "zai/GLM-4.7-Flash"])
def test_what_is_free_costs_nothing(book: PriceBook, known: Catalog, name: str) -> None:
    price = price_of(book, known, name)
    assert price.is_free
    assert price.cost_nano(Tokens(1_000, 1_000, 10, 10, 10, 10)) == 0 == price.bound_nano(1_000_000, 1_000_000)


def test_a_fee_for_each_request_is_counted() -> None:
    from genai_prices.data import providers

    models = next(each for each in providers if each.id == "perplexity").models
    fees = {model.id: getattr(model.prices, "requests_kcount", None) for model in models if model.is_match(model.id)}
    charged = {name: fee for name, fee in fees.items() if fee}
    assert charged
    for name, fee in charged.items():
        quote = published.quote("perplexity", name, 0)
        price = Price([Rates.of(step.rates, step.above) for step in quote.steps], "v")
        assert price.cost_nano(Tokens()) == fee * 1_000_000, "dollars a thousand are nano-dollars each, a million times"
        assert price.bound_nano(0, 0) == fee * 1_000_000


def test_pictures_cost_what_pictures_cost(book: PriceBook, known: Catalog) -> None:
    """Image tokens are not counted apart, so all output of such a model is priced as images: never too low."""
    assert price_of(book, known, "gemini/gemini-2.5-flash-image").output_nano_per_million == 30_000_000_000


def test_an_override_wins_over_everything(known: Catalog) -> None:
    rates = {"input": 1_000_000, "output": 2_000_000}
    names = (
        ("openai", "gpt-4o"),
        ("openai", "none"),
        ("ollama", "llama3"),
        ("openai-compatible", "x"),
        ("openai", "tts-1"),
    )
    book = PriceBook(Override(provider, model, rates, "mine") for provider, model in names)
    for provider, model in names:
        price = price_of(book, known, f"{provider}/{model}")
        assert (price.version, price.cost_nano(Tokens(10, 10))) == ("mine", 30)
    assert price_of(book, known, "openai/gpt-4o-mini").version != "mine"
    free = PriceBook([Override("openai", "gpt-4o", {"input": 0, "output": 0}, "gift")])
    assert price_of(free, known, "openai/gpt-4o").is_free


def test_prices_by_time_of_day_and_date_are_asked_again(known: Catalog) -> None:
    watch = Watch(datetime(2026, 11, 20, 3, 59, 59, tzinfo=UTC))
    book = PriceBook(clock=watch)
    dear = price_of(book, known, "deepseek/deepseek-flash")
    watch.at = watch.at.replace(hour=4, minute=0, second=0)
    cheap = price_of(book, known, "deepseek/deepseek-flash")
    assert dear.cost_nano(Tokens(1_000, 1_000)) > cheap.cost_nano(Tokens(1_000, 1_000))
    assert price_of(book, known, "openai/gpt-4o") is price_of(book, known, "openai/gpt-4o"), "others are kept"


def test_the_price_of_a_time_gone_by_is_the_one_of_then_and_what_was_set_counts_for_ever(known: Catalog) -> None:
    before, after = (int(datetime(2026, 11, 20, hour, tzinfo=UTC).timestamp() * 1000) for hour in (3, 5))
    deepseek, openai, now = known.get("deepseek"), known.get("openai"), datetime(2026, 11, 20, 5, tzinfo=UTC)
    book = PriceBook([Override("openai", "gpt-4o", {"input": 1, "output": 1}, "mine")], Watch(now))
    tokens = Tokens(1_000, 1_000)
    costs = []
    for at in (before, after, before):
        price = book.find_at(deepseek, "deepseek-flash", at)
        assert price is not None
        costs.append(price.cost_nano(tokens))
    assert costs[0] == costs[2] > costs[1]
    current = book.find(deepseek, "deepseek-flash")
    assert current is not None
    assert current.cost_nano(tokens) == costs[1], "looking back changes nothing for calls of now"
    assert book.find_at(openai, "gpt-4o", 0) is book.find(openai, "gpt-4o")
    assert book.find_at(known.get("nvidia"), "x", before) is None


def test_a_caller_cannot_fill_the_memory_with_names(known: Catalog) -> None:
    book = PriceBook()
    for number in range(10_050):
        book.find(known.get("openai-compatible"), f"model-{number}")
    assert len(book._known) <= 10_000


def test_genai_prices_is_not_loaded_before_it_is_needed() -> None:
    """A third of a second and 18 MB, which `ostiary vault list` need not pay."""
    code = (
        "import sys\n"
        "from ostiary.providers import catalog, prices\n"
        "known = catalog.load()\n"
        "assert known.get('openai') and known.search('open')\n"
        "prices.PriceBook().find(known.get('ollama'), 'x')\n"
        "assert not any(name.startswith('genai_prices') for name in sys.modules)\n"
        "assert prices.PriceBook().find(known.get('openai'), 'gpt-4o')\n"
        "assert any(name.startswith('genai_prices') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "used", "usd"),
    [
        ("openai/whisper-1", Tokens(audio_ms=60_000), "0.006"),
        ("openai/whisper-1", Tokens(audio_ms=1), "0.0000001"),
        ("openai/tts-1", Tokens(characters=1_000), "0.015"),
        ("groq/whisper-large-v3", Tokens(audio_ms=3_600_000), "0.111"),
        # $10 a million for images read and $40 for what is made: nobody counts text and image apart
        ("openai/gpt-image-1", Tokens(input=100, output=1_000, images=1), "0.041"),
    ],
)
def test_what_is_paid_by_something_else_than_tokens(
    book: PriceBook, known: Catalog, name: str, used: Tokens, usd: str
) -> None:
    price = price_of(book, known, name)
    assert show_usd(price.cost_nano(used)) == usd
    assert price.bound_nano(used.input, used.output, used) >= price.cost_nano(used)
    assert not price.is_free


def test_a_price_by_the_minute_says_nothing_of_a_chat(book: PriceBook, known: Catalog) -> None:
    heard, said = price_of(book, known, "openai/whisper-1"), price_of(book, known, "openai/gpt-4o")
    assert heard.covers("audio.transcriptions")
    assert not heard.covers("chat")
    assert not heard.is_metered
    assert said.covers("chat")
    assert said.covers("audio.transcriptions")
    assert Price.of({"input": 0}, "v").covers("moderations")


@pytest.mark.parametrize(
    ("rates", "needed", "is_covered"),
    [
        ({"input": 1, "output": 1}, (), True),
        ({"input": 1, "output": 1}, ("audio_input",), False),
        ({"input": 1, "output": 1, "audio_input": 9}, ("audio_input",), True),
        ({"input": 1, "output": 1, "audio_input": 9}, ("audio_input", "audio_output"), False),
        ({"input": 1, "output": 1, "audio_input": 9, "audio_output": 9}, ("audio_input", "audio_output"), True),
        ({"input": 0, "output": 0}, ("audio_output",), True),
    ],
)
def test_a_price_for_text_says_nothing_of_sound(
    rates: dict[str, int], needed: tuple[str, ...], *, is_covered: bool
) -> None:
    assert Price.of(rates, "v").covers("chat", needed) == is_covered


def test_units_and_tokens_are_rounded_up_once() -> None:
    price = Price.of({"input": 1, "output": 1, "image": 1, "audio_minute": 1, "character": 1, "search": 1}, "v")
    assert price.cost_nano(Tokens()) == 0
    assert price.cost_nano(Tokens(audio_ms=1)) == 1
    assert price.cost_nano(Tokens(1, 1, images=1, audio_ms=1, characters=1, searches=1)) == 1
    assert price.cost_nano(Tokens(images=1_000_000)) == 1
    assert price.cost_nano(Tokens(images=1_000_000, audio_ms=1)) == 2


def test_every_unit_of_the_price_list_is_accounted_for() -> None:
    """A new release may bring units we have not thought of; then a price would silently be too low."""
    from genai_prices.data_units import unit_data

    ours = {*published._METERED, *published._WITHIN_OUTPUT, *published._WITHIN_INPUT, *published._UNCOUNTED}
    ours |= published._PER_UNIT.keys()
    left_out = {
        *("cache_write_5m_mtok", "cache_write_1h_mtok"),  # counted as cache writes
        *("input_text_mtok", "output_text_mtok", "input_image_mtok", "input_video_mtok"),  # counted as input, output
        *("web_searches_kcount", "social_searches_kcount", "storage_searches_kcount", "code_executions_kcount"),
    }
    for key, unit in unit_data.items():
        joined = len(unit["dimensions"]) > 3 or {"modality", "token_type"} <= set(unit["dimensions"])
        tools = unit["dimensions"].get("token_type") == "tool"
        assert unit["price_key"] in ours | left_out or joined or tools, key
