"""Where calls go: addresses with fields in them, and what may become a part of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest

from ostiary.actor import Actor
from ostiary.errors import Refusal
from ostiary.orgs import roles
from ostiary.providers import catalog
from ostiary.providers.address import own_address, probe_url_of, url_of
from ostiary.providers.auth import headers
from ostiary.providers.catalog import AuthMethod, Field, Probe, Provider
from ostiary.providers.egress import Blocked, Egress
from ostiary.secret import Secret
from ostiary.vault.fields import checked_auth, checked_fields, checked_target, moved_target, require_own_door

ROWS = catalog.load()
EGRESS = Egress()
AZURE, BEDROCK, MOONSHOT = ROWS.get("azure-openai"), ROWS.get("bedrock"), ROWS.get("moonshot")
CLASSIC = {"resource": "r", "api_version": "2024-10-21"}


def row(**more: object) -> Provider:
    return replace(Provider("a", "A", ("llm",), "https://a.example/v1", Probe("/models")), **more)  # type: ignore[arg-type]


def paths(**of: str) -> Mapping[str, str]:
    return MappingProxyType(of)


# ---- calls ------------------------------------------------------------------------------------------------------


def test_a_plain_row_puts_the_path_behind_the_base_url() -> None:
    assert url_of(row(), "https://x.example/v2", {}, "chat", "/chat/completions", "m") == (
        "https://x.example/v2/chat/completions"
    )


def test_a_rows_own_paths_win() -> None:
    own = row(paths=paths(rerank="{origin}/v2/rerank", embeddings="/embed/{model}"))
    base = "https://x.example:8443/v1"
    assert url_of(own, base, {}, "rerank", "/rerank", "m") == "https://x.example:8443/v2/rerank"
    assert url_of(own, base, {}, "embeddings", "/embeddings", "m") == f"{base}/embed/m"
    assert url_of(own, base, {}, "chat", "/chat/completions", "m") == f"{base}/chat/completions"
    every = row(paths=MappingProxyType({"*": "/all{path}"}))
    assert url_of(every, base, {}, "chat", "/chat/completions", "m") == f"{base}/all/chat/completions"


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("gpt-4o", "gpt-4o"),
        ("a b", "a%20b"),
        ("a:1", "a%3A1"),
        ("a?b=c&d#e", "a%3Fb%3Dc%26d%23e"),
        ("é", "%C3%A9"),
        ("{api_version}", "%7Bapi_version%7D"),
        ("%2e%2e", "%252e%252e"),
        ("a..b", "a..b"),
    ],
)
def test_a_model_in_a_path_is_only_a_model(model: str, part: str) -> None:
    url = url_of(AZURE, "https://r.openai.azure.com/openai/v1", CLASSIC, "chat", "/chat/completions", model)
    assert url == (f"https://r.openai.azure.com/openai/deployments/{part}/chat/completions?api-version=2024-10-21")


@pytest.mark.parametrize("model", ["", ".", "..", "a/b", "../x", "a\\b", "a\nb", "\x00", "a\x7f"])
def test_a_model_that_would_lead_elsewhere_is_unknown(model: str) -> None:
    with pytest.raises(Refusal) as caught:
        url_of(AZURE, "https://r.openai.azure.com/openai/v1", CLASSIC, "chat", "/chat/completions", model)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_what_is_filled_in_is_not_read_again() -> None:
    own = row(paths=paths(chat="/{team}/{model}"), fields=(Field("team", "Team"),))
    assert url_of(own, "https://a.example", {"team": "{model}"}, "chat", "/c", "m") == "https://a.example/%7Bmodel%7D/m"


def test_azure_without_a_version_is_v1_and_with_one_classic() -> None:
    base = "https://r.openai.azure.com/openai/v1"
    assert url_of(AZURE, base, {"resource": "r"}, "chat", "/chat/completions", "a/b") == f"{base}/chat/completions"
    assert probe_url_of(AZURE, base + "/", {"resource": "r"}) == f"{base}/models"
    assert probe_url_of(AZURE, base, CLASSIC) == "https://r.openai.azure.com/openai/models?api-version=2024-10-21"
    by_id = url_of(AZURE, base, CLASSIC, "responses", "/responses/resp_1/cancel", "m")
    assert by_id == "https://r.openai.azure.com/openai/responses/resp_1/cancel?api-version=2024-10-21"


# ---- what is carried --------------------------------------------------------------------------------------------


def test_a_method_brings_its_header_its_form_and_its_fields() -> None:
    methods = (
        AuthMethod(),
        AuthMethod("other", "Other", "x-key", "Key {key}", (("x-kind", "pat"),), (Field("who", "Who", "x-who"),)),
    )
    own = row(auth=methods, headers=(("x-version", "2"),))
    fields, secret = {"who": "me"}, Secret("s3cret")
    assert headers(own, fields, secret) == [("x-version", "2"), ("authorization", "Bearer s3cret")]
    assert headers(own, fields, secret, "other") == [
        ("x-version", "2"),
        ("x-kind", "pat"),
        ("x-who", "me"),
        ("x-key", "Key s3cret"),
    ]
    assert headers(own, {}, secret, "gone") == headers(own, {}, secret), "a method of an older catalogue"
    assert headers(own, {}, Secret("")) == [("x-version", "2")]


def test_a_method_is_one_of_the_row() -> None:
    assert checked_auth(AZURE, None) is None
    assert checked_auth(AZURE, "api-key") == "api-key"
    for auth in ("entra", "", "nope", "x" * 10_000):
        with pytest.raises(Refusal) as caught:
            checked_auth(AZURE, auth)
        assert (caught.value.code, caught.value.param) == ("invalid_field", "auth")


# ---- base URLs --------------------------------------------------------------------------------------------------


def test_an_address_is_made_of_fields() -> None:
    target = checked_target(None, AZURE, EGRESS, {"resource": "My-Res"})
    assert (target.url, target.origin) == (
        "https://my-res.openai.azure.com/openai/v1",
        "https://my-res.openai.azure.com",
    )
    assert checked_target(AZURE.base_url, AZURE, EGRESS, {"resource": "r"}).host == "r.openai.azure.com"
    assert checked_target("mantle", BEDROCK, EGRESS, {"region": "us-east-1"}).url == (
        "https://bedrock-mantle.us-east-1.api.aws/openai/v1"
    )
    assert checked_target("cn", MOONSHOT, EGRESS).url == "https://api.moonshot.cn/v1"
    assert checked_target(None, MOONSHOT, EGRESS).url == "https://api.moonshot.ai/v1"


def test_an_endpoint_without_a_path_is_the_providers_with_its_path() -> None:
    given = "https://my-res.openai.azure.com"
    for text in (given, given + "/", f" {given}:443/ "):
        target = checked_target(text, AZURE, EGRESS, {"resource": "my-res"})
        assert target.url == "https://my-res.openai.azure.com/openai/v1"
    assert checked_target(given, AZURE, EGRESS, {}).url == given + "/openai/v1"
    assert checked_target("https://api.moonshot.cn", MOONSHOT, EGRESS).url == "https://api.moonshot.cn/v1"
    assert checked_target("https://other.example", AZURE, EGRESS, {}).url == "https://other.example"
    assert checked_target("https://other.example/openai", AZURE, EGRESS, {}).url == "https://other.example/openai"


@pytest.mark.parametrize(
    "value",
    [
        "evil.example/",
        "evil.example#",
        "evil.example?",
        "a@evil.example",
        "evil.example:443",
        "a b",
        "..",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a%2fb",
        "é",
        "{resource}",
        "a\\b",
        "x" * 300,
    ],
)
def test_a_field_cannot_turn_an_address_elsewhere(value: str) -> None:
    for provider, name in ((AZURE, "resource"), (ROWS.get("cloudflare-workers-ai"), "account_id")):
        with pytest.raises(Refusal) as caught:
            checked_target(None, provider, EGRESS, {name: value})
        assert (caught.value.code, caught.value.param) == ("invalid_field", "fields")
        with pytest.raises(Refusal):
            checked_fields(provider, {name: value})


def test_a_field_with_a_pattern_must_look_like_it() -> None:
    for region in ("us-east-1", "ap-southeast-2", "us-gov-west-1"):
        assert checked_fields(BEDROCK, {"region": region}) == {"region": region}
    for region in ("useast", "us-east-1.evil", "us-east-1.execute-api", "us.east-1"):
        with pytest.raises(Refusal, match="cannot be a part of an address"):
            checked_fields(BEDROCK, {"region": region})


def test_what_an_address_needs_is_asked_for_unless_the_address_is_given() -> None:
    with pytest.raises(Refusal, match="needs the field 'resource'") as caught:
        checked_target(None, AZURE, EGRESS, {})
    assert caught.value.param == "fields"
    with pytest.raises(Refusal, match="needs the field 'resource'"):
        checked_fields(AZURE, {})
    assert checked_fields(AZURE, {}, None, "https://r.openai.azure.com") == {}
    with pytest.raises(Refusal, match="needs the field 'region'"):
        checked_fields(BEDROCK, {}, None, "mantle")
    vertex = ROWS.get("vertex-ai")
    with pytest.raises(Refusal, match="needs the field 'project'"):  # its test needs it, too
        checked_fields(vertex, {}, None, "https://aiplatform.googleapis.com/v1")


def test_fields_of_a_method_are_asked_for_with_it() -> None:
    own = row(auth=(AuthMethod(), AuthMethod("other", fields=(Field("who", "Who", "x-who", required=True),))))
    assert checked_fields(own, {}) == {}
    with pytest.raises(Refusal, match="has no field 'who'"):
        checked_fields(own, {"who": "me"})
    with pytest.raises(Refusal, match="needs the field 'who'"):
        checked_fields(own, {}, "other")
    assert checked_fields(own, {"who": "me"}, "other") == {"who": "me"}


def test_an_address_moves_with_the_fields_it_was_made_of() -> None:
    old, new = {"region": "us-east-1"}, {"region": "eu-west-1"}
    made = checked_target("mantle", BEDROCK, EGRESS, old).url
    moved = moved_target(BEDROCK, made, old, new, EGRESS)
    assert moved is not None
    assert moved.url == "https://bedrock-mantle.eu-west-1.api.aws/openai/v1"
    assert moved_target(BEDROCK, made, old, old, EGRESS) is None
    assert moved_target(BEDROCK, "https://other.example/v1", old, new, EGRESS) is None
    assert moved_target(MOONSHOT, "https://api.moonshot.ai/v1", {}, {}, EGRESS) is None
    assert moved_target(AZURE, "https://own.example/v1", {}, {"api_version": "1"}, EGRESS) is None
    with pytest.raises(Refusal, match="needs the field 'region'"):
        moved_target(BEDROCK, made, old, {}, EGRESS)


# ---- at home ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "origin", "at_home"),
    [
        ("openai", "https://api.openai.com", True),
        ("openai", "https://api.openai.com.evil.example", False),
        ("openai", "https://api-openai.com", False),
        ("openai", "https://api.openai.com:8443", False),
        ("openai", "http://api.openai.com", False),
        ("moonshot", "https://api.moonshot.cn", True),
        ("azure-openai", "https://my-res.openai.azure.com", True),
        ("azure-openai", "https://a.b.openai.azure.com", False),
        ("azure-openai", "https://openai.azure.com", False),
        ("azure-openai", "https://my-res.openai.azure.com.evil.example", False),
        ("bedrock", "https://bedrock-runtime.eu-central-1.amazonaws.com", True),
        ("bedrock", "https://bedrock-mantle.us-east-1.api.aws", True),
        ("bedrock", "https://bedrock-runtime.evil.s3.us-east-1.amazonaws.com", False),
        ("vertex-ai", "https://europe-west4-aiplatform.googleapis.com", True),
        ("vertex-ai", "https://aiplatform.googleapis.com", True),
        ("databricks", "https://adb-1.azuredatabricks.net", False),
        ("databricks", "https://evil.example", False),
        ("openai-compatible", "https://evil.example", False),
    ],
)
def test_where_a_provider_is_at_home(id: str, origin: str, at_home: bool) -> None:  # noqa: FBT001 - a column
    provider = ROWS.get(id)
    assert (own_address(provider, origin) is not None) is at_home
    alice = Actor("user", "user_1", "alice@example.org", "org_1", "owner")
    require_own_door(alice, provider, origin, shared=False, egress=EGRESS)
    if at_home:
        require_own_door(alice, provider, origin, shared=True, egress=EGRESS)
        return
    with pytest.raises(Refusal, match="Keep this one private"):
        require_own_door(alice, provider, origin, shared=True, egress=EGRESS)
    require_own_door(roles.operator(), provider, origin, shared=True, egress=EGRESS)


def test_no_row_sends_a_test_to_another_origin() -> None:
    for provider in ROWS.providers.values():
        if provider.base_url is None:
            continue
        assert probe_url_of(provider, "https://here.example/x", {"api_version": "1"}).startswith(
            "https://here.example/"
        )


def test_an_unwanted_address_is_blocked_whatever_the_fields_say() -> None:
    host = ROWS.get("databricks")
    for value in ("127.0.0.1", "169.254.169.254", "localhost", "10.0.0.1", "metadata.google.internal"):
        with pytest.raises(Refusal, match="cannot be used"):
            checked_target(None, host, EGRESS, {"host": value})
    with pytest.raises(Blocked):
        EGRESS.check_url("https://127.0.0.1/")
