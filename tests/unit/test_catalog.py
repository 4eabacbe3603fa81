"""The rows of the catalogue are whole, found by people and by callers, and say only what was looked up."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from ostiary.errors import CannotStart, Refusal
from ostiary.providers import catalog, published
from ostiary.providers.address import base_url_of, probe_url_of
from ostiary.providers.catalog import CATEGORIES, Catalog, Model, Operation
from ostiary.providers.egress import Blocked, Egress
from ostiary.providers.spelling import Speller


@pytest.fixture(scope="module", name="known")
def the_catalog() -> Catalog:
    return catalog.load()


def test_enough_rows_and_those_that_are_promised(known: Catalog) -> None:
    assert len(known.search()) >= 60
    assert sum(row.callable for row in known.search()) >= 45
    promised = "openai openrouter groq mistral deepseek together fireworks cerebras xai nvidia deepinfra gemini ollama"
    assert {*promised.split(), "vllm", "llamacpp", "openai-compatible", "sample"} <= set(known.providers)


def test_our_rows_pass_what_an_operators_must(known: Catalog) -> None:
    """They are not judged at each start."""
    judged = catalog.load(catalog.OURS)
    assert judged.providers == known.providers


def test_every_row_is_whole(known: Catalog) -> None:
    for provider in known.providers.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", provider.id)
        assert provider.name.isprintable()
        assert provider.categories
        assert set(provider.categories) <= set(CATEGORIES)
        assert provider.operations <= set(get_args(Operation))
        assert provider.operations or not provider.callable
        assert provider.auth
        assert len({method.id for method in provider.auth}) == len(provider.auth)
        for method in provider.auth:
            assert method.format.count("{key}") == 1
            assert method.label
            assert method.callable or method.reason
        assert provider.tokens_per_byte >= 100
        assert provider.message_overhead > 0
        assert provider.test.path.startswith(("/", "{origin}/"))
        assert provider.test.body is None or provider.test.method == "POST"
        assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in (*provider.env, *provider.env_url))
        tier = provider.free_tier
        if tier is not None and tier.limits and "free_tier" not in provider.unverified:
            assert re.fullmatch(r"2026-\d\d-\d\d", tier.as_of or ""), "the day somebody looked"
        else:
            assert tier is None or tier.as_of is None, "nobody has looked, so there is no such day"
        assert set(provider.unverified) <= set(type(provider).__slots__)
        assert provider.callable or provider.reason
        re.compile(provider.key_shape or "")
        for field in provider.fields:
            assert field.label
            assert field.header is None or set(field.header) <= {*string.ascii_letters, "-"}


def test_every_address_may_be_called(known: Catalog) -> None:
    local = Egress([f"http://localhost:{port}" for port in (11434, 8000, 1234, 8080)])
    for provider in known.providers.values():
        if provider.base_url is None:
            assert provider.id in {"openai-compatible", "sample", "sap-ai-core"}
            continue
        if "local" in provider.categories:
            with pytest.raises(Blocked):
                Egress().check_url(provider.base_url)
        fields = {one.name: "a-1" for one in provider.fields if one.name != "api_version"}
        for template in (provider.base_url, *provider.regions.values()):
            target = local.check_url(base_url_of(template, fields))
            assert not target.url.endswith("/")
            test = local.check_url(probe_url_of(provider, target.url, fields))
            assert test.origin == target.origin, "a credential goes where it was entered for"
    for provider in known.providers.values():
        for url in (provider.signup_url, provider.docs_url):
            assert url is None or url.startswith("https://")


def test_where_a_test_proves_nothing_and_who_has_no_documentation_is_known(known: Catalog) -> None:
    """Ollama has no keys, and of any server nothing is known; whoever adds a row looks both up."""
    rows = [*known.providers.values()]
    assert {row.id for row in rows if not row.test.proves} == {"ollama", "openai-compatible"}
    assert {row.id for row in rows if row.docs_url is None} == {"openai-compatible", "sample"}


def test_every_price_list_exists(known: Catalog) -> None:
    for provider in known.providers.values():
        if provider.prices is not None:
            assert list(published.list_models(provider.prices)), provider.id


def test_a_row_is_found_or_refused_with_near_names(known: Catalog) -> None:
    assert known.get("openai").name == "OpenAI"
    assert known.find("opnai") is None
    with pytest.raises(Refusal, match="openai") as caught:
        known.get("opnai")
    assert (caught.value.code, caught.value.param) == ("invalid_field", "provider")
    with pytest.raises(Refusal):
        known.get("\x00" * 10_000)


def test_people_search(known: Catalog) -> None:
    def ids(text: str = "", category: str | None = None, *, free_only: bool = False) -> list[str]:
        return [each.id for each in known.search(text, category, free_only=free_only)]

    assert ids(" GROQ ") == ["groq"]
    assert "gemini" in ids("google")
    assert ids("nothing like it") == []
    assert set(ids(category="Local")) == {"ollama", "vllm", "lmstudio", "llamacpp", "openai-compatible"}
    assert {"openai", "groq"} <= set(ids(category="popular"))
    assert ids(category="no such") == []
    free = ids(free_only=True)
    assert {"groq", "gemini", "openrouter", "ollama"} <= set(free)
    assert not {"openai", "together"} & set(free)
    assert "sample" not in ids()
    assert known.find("sample") is not None
    assert ids("elevenlabs") == ["elevenlabs"], "what cannot be called yet is shown"


def test_models_are_known_by_the_name_to_call_them(known: Catalog) -> None:
    assert len(known.models) > 1_000
    for name in (
        "openai/gpt-4o",
        "openai/text-embedding-3-small",
        "fireworks/accounts/fireworks/models/gpt-oss-120b",
        "zai/GLM-4.7-Flash",
    ):
        model = known.models[name]
        assert model.key == name
    assert known.models["openai/gpt-4o"].context == 128_000
    for model in known.models.values():
        assert not model.id.endswith(("-", ":")), "a pattern is no model"
        assert model.id.isprintable()
        assert 0 < len(model.key) <= 200


def test_free_models(known: Catalog) -> None:
    free = {model.key for model in known.models.values() if model.free}
    assert "zai/GLM-4.7-Flash" in free
    assert any(key.startswith("openrouter/") for key in free)
    assert all(key.endswith(":free") for key in free if key.startswith("openrouter/"))
    assert not any(key.startswith("groq/") for key in free)
    judges = {"openai/omni-moderation-latest", "openai/text-moderation-latest"}
    assert {key for key in free if key.startswith("openai/")} == judges, "what only judges costs nothing"
    assert not known.get("openai").has_free
    openrouter = known.get("openrouter")
    assert openrouter.is_free("new/model:free")
    assert not openrouter.is_free("new/model:freemium")
    assert known.get("ollama").is_free("anything")
    assert not known.get("openai-compatible").is_free("anything")


def test_who_serves_a_bare_name(known: Catalog) -> None:
    assert known.served_by("gpt-4o")[0] == "openai"
    assert known.served_by("gpt-4o-2024-11-20") == ("openai",), "a dated name of a known model is known"
    hosts = known.served_by("gpt-oss-120b")
    assert "cerebras" in hosts
    order = list(known.providers)
    assert [order.index(host) for host in hosts] == sorted(order.index(host) for host in hosts)
    for unknown in ("", "nope", "gpt-4o/", "openai/gpt-4o-nope", "GPT-4O"):
        assert known.served_by(unknown) == ()


def test_more_models_can_be_known(known: Catalog) -> None:
    grown = known.with_models(
        [Model("ollama", "llama3", free=True, max_output=99), Model("openai", "gpt-4o", free=False, max_output=16_384)]
    )
    assert grown.served_by("llama3") == ("ollama",)
    assert grown.models["openai/gpt-4o"] == replace(known.models["openai/gpt-4o"], max_output=16_384)
    assert grown.near("lama3")[0] == "llama3"
    assert known.served_by("llama3") == ()
    assert "ollama/llama3" not in known.models


def test_near_names(known: Catalog) -> None:
    assert known.near("gpt4o")[0] == "gpt-4o"
    assert known.near("openai/gpt-4o-min")[0] == "openai/gpt-4o-mini"
    assert len(known.near("claude", 5)) == 5
    for nothing in ("", "é", "zzzzqqq", "\x00", "x" * 100_000):
        assert known.near(nothing) == ()


def test_a_speller_of_few_names() -> None:
    speller = Speller(["OSTIARY_HOST", "OSTIARY_PORT", "a", "ab"])
    assert speller.near("OSTIARY_PORTS") == ("OSTIARY_PORT", "OSTIARY_HOST")
    assert speller.near("ostiary_prt", 1) == ("OSTIARY_PORT",)
    assert speller.near("a")[0] == "a"
    assert Speller([]).near("a") == ()


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nbase_uri = "https://a.example"', TypeError),
        ('id = "a"\nname = "A"\ncategories = ["llms"]', ValueError),
        ('id = "a"\ncategories = ["llm"]', TypeError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\ntest = { url = "/x" }', TypeError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nmodels = [{ name = "x" }]', TypeError),
        ('id = "a"\nname = "A"\ncategories = "llm"', TypeError),
        ('id = "A a"\nname = "A"\ncategories = ["llm"]', ValueError),
        ('id = "a"\nname = 5\ncategories = ["llm"]', TypeError),
        ('id = "a"\nname = "A"\ncategories = []', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nbase_url = "https://a.example/"', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nbase_url = "https://{team}.a.example"', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\noperations = ["talk"]', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\noperations = []', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\ncallable = false', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\ncallable = "no"', TypeError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\ndialect = "own"', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nauth_header = "x key"', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nauth_format = "Bearer"', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nauth_format = "{key}\\r\\nx: {key}"', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nauth_header = "x"\nauth = [{ id = "b" }]', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nheaders = { x = "a\\nb" }', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\ntest = { path = "me" }', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\npaths = { chat = "https://b.example/chat" }', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nkey_shape = "("', re.error),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nstream_usage = "perhaps"', ValueError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\ntokens_per_byte = "100"', TypeError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nsignup_url = 7', TypeError),
        ('id = "a"\nname = "A"\ncategories = ["llm"]\nfree_tier = { kind = "much" }', ValueError),
        (
            'id = "a"\nname = "A"\ncategories = ["llm"]\n[[provider]]\nid = "a"\nname = "B"\ncategories = ["llm"]',
            ValueError,
        ),
    ],
)
def test_a_row_with_a_mistake_is_not_read(tmp_path: Path, row: str, kind: type[Exception]) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(f"[[provider]]\n{row}\n")
    with pytest.raises(kind):
        catalog.load(path)


# ---- the operator's own file ------------------------------------------------------------------------------------

OWN = """
[[provider]]
id = "example"
name = "Example AI"
categories = ["llm"]
base_url = "https://api.example.com/v1"
operations = ["chat", "embeddings"]
models = [{ id = "ex-1", free = false, context = 1000 }]
"""


def test_one_row_adds_a_provider(tmp_path: Path, known: Catalog) -> None:
    file = tmp_path / "more.toml"
    file.write_text(OWN)
    grown = catalog.load(more=file)
    row = grown.get("example")
    assert (row.base_url, row.operations) == ("https://api.example.com/v1", frozenset({"chat", "embeddings"}))
    assert row.auth[0] == known.get("openai").auth[0]
    assert [*grown.providers] == [*known.providers, "example"], "ours keep their order, and come first"
    assert grown.search("example ai") == [row]
    assert grown.served_by("ex-1") == ("example",)
    assert grown.models["example/ex-1"].context == 1000
    assert catalog.load(file).get("example") == row, "it is read like our own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace('"example"', '"groq"'), "has a row 'groq', which is a provider of Ostiary's own"),
        (OWN.replace("base_url", "base_uri"), "example: there is no `base_uri` here; there are id, name, "),
        (OWN.replace('["llm"]', '["llms"]'), "example: no such category: llms"),
        (OWN.replace("context", "length"), "length"),
        (OWN + OWN, "two rows of the catalogue have the same id"),
        ("[[provider]", "is not understood"),
        ("", "there is no"),
        ("provider = 5", "is not understood"),
        ('[provider]\nid = "a"', "is not understood"),
        ("x" * 1_000_001, "at most a million"),
        ("[[provider]]", "a row without an id: `id` is missing"),
    ],
)
def test_an_operators_file_with_a_mistake_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "more.toml"
    file.write_text(text)
    with pytest.raises(CannotStart, match=said) as caught:
        catalog.load(more=file)
    assert str(file) in str(caught.value)


def test_an_operators_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="cannot be read"):
        catalog.load(more=tmp_path / "nowhere.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe[[provider]]")
    with pytest.raises(CannotStart, match="not understood"):
        catalog.load(more=binary)
