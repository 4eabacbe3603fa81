"""Providers as people and callers find them, and one that was added by a row of facts and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import tail

ROW = """
[[provider]]
id = "example"
name = "Example AI"
categories = ["llm"]
base_url = "{base_url}"
auth_header = "x-example-key"
auth_format = "Key {{key}}"
headers = {{ x-example-version = "2" }}
fields = [{{ name = "team", label = "Team", header = "x-example-team", required = true }}]
max_tokens_field = "max_completion_tokens"
signup_url = "https://example.com/keys"
"""


def listed(gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
    answer = gateway.client().get(f"/v1/providers{query}")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


# ---- what there is ----------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_anybody_can_look_providers_up(shared_gateway: Gateway) -> None:
    every = listed(shared_gateway)
    assert len(every) >= 60
    assert sum(row["callable"] for row in every) >= 45
    assert "sample" not in ids(every)
    (azure,) = listed(shared_gateway, "?search=azure%20openai")
    assert azure["categories"] == ["enterprise"]
    assert azure["base_url"] == "https://{resource}.openai.azure.com/openai/v1"
    assert "audio.transcriptions" in azure["operations"]
    key, entra = azure["auth"]
    assert (key["id"], key["callable"], key["reason"]) == ("api-key", True, None)
    assert (entra["callable"], entra["reason"]) == (False, "signs in by OAuth, which is not built yet")
    assert [(one["name"], one["required"]) for one in entra["fields"]] == [("tenant_id", True), ("client_id", True)]
    resource, version = azure["fields"]
    assert (resource["name"], resource["required"], version["required"]) == ("resource", True, False)
    assert resource["label"]
    (groq,) = listed(shared_gateway, "?search=groq")
    assert groq["free_tier"]["kind"] == "recurring"
    assert groq["free_tier"]["as_of"] == "2026-08-31"
    assert (groq["signup_url"], groq["reason"]) == ("https://console.groq.com/keys", None)
    assert groq["key_shape"] == "gsk_[a-zA-Z0-9]{52}"
    (mistral,) = listed(shared_gateway, "?search=mistral")
    assert mistral["key_shape"] is None
    assert (mistral["trains_on_data"], mistral["unverified"]) == (True, ["test"])
    (eleven,) = listed(shared_gateway, "?search=elevenlabs")
    assert (eleven["callable"], eleven["operations"]) == (False, [])
    assert "not built yet" in eleven["reason"]


@pytest.mark.main_job
def test_the_list_is_narrowed_down(shared_gateway: Gateway) -> None:
    every = ids(listed(shared_gateway))
    shelves = {
        name: ids(listed(shared_gateway, f"?category={name}"))
        for name in ("popular", "llm", "enterprise", "media", "local")
    }
    assert set().union(*shelves.values()) == every
    assert {"openai", "anthropic", "gemini"} <= shelves["popular"]
    assert {"azure-openai", "bedrock", "vertex-ai"} <= shelves["enterprise"]
    assert "openai" not in shelves["media"]
    assert ids(listed(shared_gateway, "?category=Local")) == shelves["local"]
    free = ids(listed(shared_gateway, "?free_only=true"))
    assert {"groq", "ollama"} <= free < every
    assert ids(listed(shared_gateway, "?free=true")) == free, "its short form"
    assert ids(listed(shared_gateway, "?free_only=false")) == ids(listed(shared_gateway, "?free=false")) == every
    assert ids(listed(shared_gateway, "?free_only=1&category=popular&search=o")) == {
        row["id"]
        for row in listed(shared_gateway, "?category=popular")
        if row["has_free"] and "o" in (row["id"] + row["name"]).lower()
    }
    assert listed(shared_gateway, "?search=nobody-is-called-so") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?category=llms", "category"),
        ("?category=", "category"),
        ("?free=yes", "free"),
        ("?free=", "free"),
        ("?free=true&free=false", "free"),
        ("?fre=true", "fre"),
        ("?free_only=yes", "free_only"),
        ("?free_only=true&free_only=true", "free_only"),
        ("?free_only=true&free=true", "free_only"),
    ],
)
def test_a_wrong_question_is_refused_by_name(shared_gateway: Gateway, query: str, param: str) -> None:
    answer = shared_gateway.client().get(f"/v1/providers{query}")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert param in error["message"]


def test_a_catalogue_that_is_not_public_needs_a_credential(gateways: GatewayMaker) -> None:
    gateway = gateways(env={"OSTIARY_PUBLIC_CATALOG": "no"})
    key = gateway.create_key("reader")
    spends = gateway.create_key("spends", "--scopes", "gate:chat")
    for path in ("/health", "/v1/health"):
        assert gateway.client().get(path).status_code == 200
    for path in ("/v1/models", "/v1/models/openai/gpt-4o", "/v1/aliases", "/v1/providers"):
        refused = gateway.client().get(path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "missing_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert gateway.client(key).get(path).status_code == 200
        assert gateway.client(spends).get(path).status_code == 200, "the global list, for whoever has a credential"


def test_the_shell_lists_the_same(shared_gateway: Gateway) -> None:
    assert shared_gateway.json("vault", "providers") == listed(shared_gateway)
    free = shared_gateway.json("vault", "providers", "--search", "o", "--category", "popular", "--free")
    assert free == listed(shared_gateway, "?search=o&category=popular&free_only=true")
    shown = shared_gateway.cli("vault", "providers", "--category", "enterprise").out
    assert "--field resource=…" in shown
    assert "cannot be called" in shown
    assert "No provider is like that" in shared_gateway.cli("vault", "providers", "--search", "nobody-is-called-so").out
    refused = shared_gateway.cli("vault", "providers", "--category", "llms", check=False)
    assert (refused.code, refused.out) == (1, "")
    assert "popular, llm, enterprise, media, local" in refused.err


def test_what_cannot_be_called_cannot_be_added(shared_gateway: Gateway) -> None:
    for id, why in (("elevenlabs", "a dialect of its own"), ("github-copilot", "it has no API keys")):
        refused = shared_gateway.cli(
            "vault", "add", id, "--name", id, "--no-test", "--secret-stdin", stdin="some-secret-123", check=False
        )
        assert refused.code == 1
        assert why in refused.err
    assert [key["provider"] for key in shared_gateway.json("vault", "list")] == ["openai-compatible"]


@pytest.mark.parametrize(
    ("id", "auth", "label", "why"),
    [
        ("azure-openai", "entra", "Entra ID application", "signs in by OAuth, which is not built yet"),
        ("azure-ai-foundry", "entra", "Entra ID application", "signs in by OAuth, which is not built yet"),
        ("vertex-ai", "service-account", "Service account", "signs in by OAuth, which is not built yet"),
        ("bedrock", "sigv4", "AWS access key", "signs every request (SigV4), which is not built yet"),
    ],
)
def test_a_sign_in_that_is_not_built_is_refused_with_the_reason(
    shared_gateway: Gateway, id: str, auth: str, label: str, why: str
) -> None:
    refused = shared_gateway.cli(
        "vault", "add", id, "--name", id, "--auth", auth, "--no-test", "--secret-stdin", stdin="some-secret-123",
        check=False,
    )  # fmt: skip
    assert (refused.code, refused.out) == (1, "")
    assert f"The sign-in '{label}' of" in refused.err
    assert why in " ".join(refused.err.split())
    assert [key["provider"] for key in shared_gateway.json("vault", "list")] == ["openai-compatible"]


# ---- one row more -----------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_a_provider_added_by_one_row_is_served(
    gateways: GatewayMaker, upstream: Upstream, canaries: Canaries, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(ROW.format(base_url=upstream.url))
    gateway = gateways(env={"OSTIARY_CATALOG_FILE": str(file)}, allow=[upstream.origin])
    (row,) = listed(gateway, "?search=example")
    assert (row["id"], row["fields"][0]["name"], row["callable"]) == ("example", "team", True)
    assert gateway.json("vault", "providers")[-1]["id"] == "example"
    secret = canaries.plant()
    added = gateway.json(
        "vault", "add", "example", "--name", "main", "--field", "team=doors", "--secret-stdin", stdin=secret
    )
    assert added["test"]["outcome"] == "valid"
    test = upstream.received[-1]
    assert (test.method, test.target, test.header("x-example-key")) == ("GET", "/v1/models", f"Key {secret}")
    agent = gateway.create_key("agent")
    gateway.hear()
    answer = gateway.chat(agent, "example/ok", max_tokens=50)
    assert answer.status_code == httpx2.codes.OK, answer.text
    assert answer.headers["x-ostiary-provider"] == "example"
    (call,) = upstream.calls
    assert call.target == "/v1/chat/completions"
    assert (call.header("x-example-key"), call.header("authorization")) == (f"Key {secret}", None)
    assert (call.header("x-example-version"), call.header("x-example-team")) == ("2", "doors")
    assert call.json["model"] == "ok"
    assert gateway.traces()[0]["provider"] == "example"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROW.replace('"example"', '"openai"'), "'openai', which is a provider of Ostiary's own"),
        (ROW.replace("max_tokens_field", "max_token_field"), "example: there is no `max_token_field`"),
        (None, "cannot be read"),
    ],
)
def test_a_file_with_a_mistake_stops_the_start(
    gateways: GatewayMaker, tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "providers.toml"
    if text is not None:
        file.write_text(text.format(base_url="https://api.example.com/v1"))
    gateway = gateways(env={"OSTIARY_CATALOG_FILE": str(file)}, start=False)
    assert gateway.spawn().wait(30) == 1
    output = tail(gateway.log)
    assert said in " ".join(output.split())
    assert str(file) in output
    assert "Traceback" not in output
    refused = gateway.cli("vault", "list", check=False)
    assert (refused.code, said in " ".join(refused.err.split())) == (1, True)
