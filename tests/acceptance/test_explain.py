"""`explain` says what a call would do, by the call's own steps, and spends nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream

_MODEL = "openai-compatible/ok"
_BODY: dict[str, Any] = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}


@pytest.fixture
def priced(gateway: Gateway, upstream: Upstream) -> Gateway:
    gateway.add_provider_key("openai-compatible", "first", upstream.url)
    gateway.add_provider_key("openai-compatible", "second", upstream.url)
    gateway.cli("vault", "edit", "first", "--priority", "1")
    gateway.cli("prices", "set", _MODEL, "--input", "100", "--output", "100")
    return gateway


def _explain(gateway: Gateway, secret: str, **more: Any) -> dict[str, Any]:
    answer = gateway.client(secret).post("/v1/explain", json={**_BODY, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.main_job
def test_what_would_be_done_is_said_and_costs_nothing(priced: Gateway, upstream: Upstream) -> None:
    secret = priced.create_key("a", "--budget-usd", "1", "--rpm", "2", "--parallel", "1")
    for _ in range(5):
        told = _explain(priced, secret)
    assert told["allowed"]
    assert [target["provider_key"] for target in told["targets"]] == ["first", "second"]
    assert told["most_output_tokens"] == 20
    assert 0 < Decimal(str(told["most_usd"])) < Decimal("0.1")
    assert {account["scope"] for account in told["held_on"]} == {"agent_key"}
    assert not upstream.calls
    assert [priced.chat(secret, _MODEL, max_tokens=20).status_code for _ in range(3)] == [200, 200, 429]
    assert len(priced.traces(calls=2)) == 2


@pytest.mark.parametrize(
    ("options", "more", "status", "code"),
    [
        (["--models", "gpt-4o"], {}, 403, "model_not_allowed"),
        (["--providers", "openai"], {}, 403, "provider_not_allowed"),
        (["--free-only"], {}, 403, "model_not_allowed"),
        (["--ip", "192.0.2.0/24"], {}, 403, "ip_not_allowed"),
        (["--scopes", "gate:usage"], {}, 403, "insufficient_scope"),
        (["--budget-usd", "0.000001"], {}, 402, "budget_exceeded"),
        ([], {"model": "nosuch"}, 404, "model_not_found"),
        ([], {"messages": "no"}, 400, "invalid_request"),
        ([], {"model": "openai/gpt-4o"}, 503, "no_openai_key"),
    ],
)
def test_a_refusal_is_word_for_word_that_of_the_call(
    priced: Gateway, options: list[str], more: dict[str, Any], status: int, code: str
) -> None:
    secret = priced.create_key("a", *options)
    told = _explain(priced, secret, **more)
    assert not told["allowed"]
    would = told["would_answer"]
    assert (would["status"], would["error"]["code"]) == (status, code)
    refused = priced.client(secret).post("/v1/chat/completions", json={**_BODY, **more})
    assert refused.status_code == status
    assert {**refused.json()["error"], "request_id": None} == {**would["error"], "request_id": None}


def test_a_spent_window_is_seen_and_a_dead_key_learns_nothing(priced: Gateway) -> None:
    secret = priced.create_key("a", "--rpm", "1")
    assert priced.chat(secret, _MODEL).status_code == 200
    assert _explain(priced, secret)["would_answer"]["error"]["code"] == "rate_limit_exceeded"
    priced.cli("keys", "revoke", "a")
    priced.hear()
    assert priced.client(secret).post("/v1/explain", json=_BODY).status_code == 401
    assert priced.client("nothing").post("/v1/explain", json=_BODY).status_code == 401


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize(
    ("whose", "child", "option", "limit", "code"),
    [
        ("agent_key", False, "--rpm", "2", "rate_limit_exceeded"),
        ("agent_key", True, "--rpd", "2", "daily_rate_limit_exceeded"),
        ("agent_key", True, "--tpm", "75", "token_limit_exceeded"),
        ("agent_key", False, "--parallel", "1", None),
        ("organization", True, "--rpm", "2", "rate_limit_exceeded"),
    ],
)
def test_the_command_says_the_same_of_windows_that_the_gateway_has_leased(
    priced: Gateway, whose: str, option: str, limit: str, code: str | None, *, child: bool
) -> None:
    """A gateway leases more than it uses: what it has left is there for whoever calls it."""
    if whose == "organization":
        priced.cli("orgs", "edit", option, limit)
    secret = priced.create_key("a", *((option, limit) if whose == "agent_key" else ()))
    if child:
        secret = priced.json("keys", "ephemeral", "a")["secret"]
        priced.hear()
    body = priced.folder / "body.json"
    body.write_text(json.dumps(_BODY))
    calls = 0
    while calls < 4 and priced.chat(secret, _MODEL, max_tokens=20).status_code == 200:
        calls += 1
        priced.traces(calls=calls)
        ran, said = priced.cli("explain", "--key", "a", str(body), "--json", check=False), _explain(priced, secret)
        assert (ran.json["allowed"], ran.code) == (said["allowed"], 0 if said["allowed"] else 1), calls
        if not said["allowed"]:
            errors = [told["would_answer"]["error"] for told in (ran.json, said)]
            assert {(error["code"], error["scope"]) for error in errors} == {(code, whose)}
            first, later = (error["retry_after_s"] for error in errors)
            assert 1 <= later <= first + 1, "the command was asked a little earlier"
    assert calls == 4 if code is None else 2 <= calls < 4


def test_the_command_says_the_same_without_the_secret(priced: Gateway) -> None:
    priced.create_key("a", "--budget-usd", "1", "--models", _MODEL)
    body = priced.folder / "body.json"
    body.write_text(json.dumps(_BODY))
    told = priced.json("explain", "--key", "a", str(body))
    assert told["allowed"]
    assert told["targets"][0]["provider_key"] == "first"
    assert "would be asked first" in priced.cli("explain", "--key", "a", str(body)).out
    body.write_text(json.dumps({**_BODY, "model": "openai-compatible/other"}))
    ran = priced.cli("explain", "--key", "a", str(body), check=False)
    assert ran.code == 1
    assert "may not use this model" in ran.out
    assert priced.cli("explain", "--key", "nosuch", str(body), check=False).code == 1
    assert priced.cli("explain", "--key", "a", str(body.with_name("missing")), check=False).code == 2
    assert priced.json("gateways", "list")[0]["state"] == "live", "it has left nothing behind"
