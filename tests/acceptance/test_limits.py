"""Rates and hard budgets of a key, through the real door."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx2
import pytest

from tests.servers.gateway import NO_TLS, Gateway, GatewayMaker
from tests.servers.upstream import Upstream

_MODEL = "openai-compatible/ok"


def _priced(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "100", "--output", "100")


@pytest.mark.main_job
def test_requests_a_minute_are_exact_and_refusals_do_not_count(gateway: Gateway, upstream: Upstream) -> None:
    _priced(gateway, upstream)
    secret = gateway.create_key("a", "--rpm", "5")
    answers = [gateway.chat(secret, _MODEL) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    first, refused = answers[0], answers[-1]
    assert first.headers["x-ratelimit-limit-requests"] == "5"
    assert first.headers["x-ratelimit-remaining-requests"] == "4"
    error = refused.json()["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert error["message"].startswith("Rate limit exceeded: 6/5 requests per minute")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert len(upstream.calls) == 5


def test_whoever_is_refused_is_told_how_the_windows_stand(gateway: Gateway, upstream: Upstream) -> None:
    """As whoever is served is: programs slow down by what these headers say, and mend nothing by the words."""

    def told(answer: httpx2.Response, unit: str) -> tuple[int, ...]:
        limit, left, reset = (answer.headers[f"x-ratelimit-{word}-{unit}"] for word in ("limit", "remaining", "reset"))
        return int(limit), int(left), int(reset.removesuffix("s"))

    _priced(gateway, upstream)
    secret = gateway.create_key("a", "--rpm", "3", "--tpm", "1000", "--budget-usd", "0.03")
    poor = gateway.chat(secret, _MODEL, max_tokens=900)
    assert poor.json()["error"]["code"] == "budget_exceeded"
    assert told(poor, "requests")[:2] == (3, 3), "refusals count nowhere"
    assert gateway.chat(secret, _MODEL, max_tokens=20).status_code == 200
    long = gateway.chat(secret, _MODEL, max_tokens=5_000)
    assert long.json()["error"]["code"] == "token_limit_exceeded"
    assert told(long, "requests")[:2] == (3, 2)
    assert told(long, "tokens")[:2] == (1_000, 1_000 - 18), "what the answer truly used"
    failed = gateway.chat(secret, "openai-compatible/status-400", max_tokens=1)
    assert failed.status_code == 403, "it has no price"
    assert "x-ratelimit-limit-requests" not in failed.headers, "it was not let in for what it asks"
    gateway.cli("prices", "set", "openai-compatible/status-500", "--input", "1", "--output", "1")
    gateway.hear()
    failed = gateway.chat(secret, "openai-compatible/status-500", max_tokens=1)
    assert failed.status_code == 502
    assert failed.headers["x-ostiary-attempts"] == "1"
    assert told(failed, "requests")[:2] == (3, 1), "it was asked for, and counts"
    assert gateway.chat(secret, _MODEL, max_tokens=1).status_code == 200
    refused = gateway.chat(secret, _MODEL, max_tokens=1)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    limit, left, reset = told(refused, "requests")
    assert (limit, left) == (3, 0)
    assert 1 <= int(refused.headers["retry-after"]) <= reset + 1 <= 61
    explained = gateway.client(secret).post("/v1/explain", json={"model": _MODEL, "messages": []})
    assert explained.json()["would_answer"]["error"]["code"] == "rate_limit_exceeded"
    assert "x-ratelimit-limit-requests" not in explained.headers, "asking is no call"
    gateway.cli("keys", "revoke", "a")
    gateway.hear()
    assert not any(name.startswith("x-ratelimit") for name in gateway.chat(secret, _MODEL).headers)


@pytest.mark.usefixtures("one_day")
def test_requests_a_day_survive_a_restart_and_end_at_midnight(gateway: Gateway, upstream: Upstream) -> None:
    _priced(gateway, upstream)
    secret = gateway.create_key("a", "--rpd", "3")
    assert [gateway.chat(secret, _MODEL).status_code for _ in range(2)] == [200, 200]
    gateway.restart()
    assert [gateway.chat(secret, _MODEL).status_code for _ in range(2)] == [200, 429]
    refused = gateway.chat(secret, _MODEL)
    assert refused.json()["error"]["code"] == "daily_rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400


@pytest.mark.main_job
def test_a_hundred_calls_at_once_do_not_pass_a_small_budget(gateway: Gateway, upstream: Upstream) -> None:
    _priced(gateway, upstream)
    secret = gateway.create_key("a", "--budget-usd", "0.05")
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}

    def call(_: int) -> httpx2.Response:
        return httpx2.post(
            f"{gateway.url}/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {secret}"},
            timeout=30,
            verify=NO_TLS,
        )

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(call, range(100)))
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 402]
    assert len(served) + len(refused) == 100
    assert refused
    spent = sum(Decimal(answer.headers["x-ostiary-cost-usd"]) for answer in served)
    assert spent <= Decimal("0.05")
    error = refused[-1].json()["error"]
    assert (error["code"], error["scope"], error["limit_usd"]) == ("budget_exceeded", "agent_key", 0.05)
    assert Decimal("0.05") - spent < Decimal(str(error["needed_usd"])), "what could be afforded was served"
    shown = gateway.client(secret).get("/v1/key").json()["limits"]["budget"]
    assert Decimal(str(shown["spent_usd"])) == spent
    assert len(upstream.calls) == len(served)


def test_a_spent_budget_refuses_at_once_and_another_month_begins_anew(
    gateways: GatewayMaker, upstream: Upstream
) -> None:
    gateway = gateways(allow=[upstream.origin], clock=True)
    _priced(gateway, upstream)
    secret = gateway.create_key("a", "--budget-usd", "0.02", "--expires", "never")
    codes = [gateway.chat(secret, _MODEL, max_tokens=20).status_code for _ in range(20)]
    assert codes[-1] == 402
    gateway.shift(32 * 86_400)
    assert gateway.chat(secret, _MODEL, max_tokens=20).status_code == 200


def test_an_answer_that_was_not_limited_is_made_to_fit(gateway: Gateway, upstream: Upstream) -> None:
    _priced(gateway, upstream)
    secret = gateway.create_key("a", "--budget-usd", "0.2")
    answer = gateway.chat(secret, _MODEL)
    assert answer.status_code == 200
    capped = int(answer.headers["x-ostiary-max-tokens-capped"])
    assert upstream.calls[-1].json["max_tokens"] == capped
    assert 64 <= capped <= 0.2 / 4 / 100e-6
    fixed = gateway.chat(secret, _MODEL, max_tokens=50)
    assert "x-ostiary-max-tokens-capped" not in fixed.headers
    assert upstream.calls[-1].json["max_tokens"] == 50


def test_an_unpriced_model_needs_a_key_without_a_budget(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    refused = gateway.chat(gateway.create_key("bounded", "--budget-usd", "5"), _MODEL)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "model_not_priced"
    assert gateway.chat(gateway.create_key("unbounded"), _MODEL).status_code == 200
    event = gateway.traces()[0]
    assert event["cost_usd"] == 0
    gateway.cli("prices", "set", _MODEL, "--input", "1", "--output", "1")
    assert gateway.chat(gateway.create_key("bounded-2", "--budget-usd", "5"), _MODEL).status_code == 200


def test_an_organization_may_allow_models_without_a_price(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret = gateway.create_key("bounded", "--budget-usd", "5")
    for change, status in (
        (("--budget-usd", "9"), 403),
        (("--allow-unpriced",), 200),
        (("--refuse-unpriced",), 403),
    ):
        gateway.cli("orgs", "edit", *change)
        gateway.hear()
        answer = gateway.chat(secret, _MODEL)
        assert answer.status_code == status, answer.text
        if status != 200:
            assert answer.json()["error"]["code"] == "model_not_priced"
    [event] = gateway.traces()
    assert (event["cost_usd"], event["price_version"]) == (0, None)
    [usage] = gateway.json("usage", "--by", "model")
    assert usage["unpriced"] == 1


def test_a_call_may_cap_itself(gateway: Gateway, upstream: Upstream) -> None:
    _priced(gateway, upstream)
    client = gateway.client(gateway.create_key("a"))
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1_000}
    refused = client.post("/v1/chat/completions", json=body, headers={"x-ostiary-max-cost-usd": "0.01"})
    assert refused.status_code == 402
    assert refused.json()["error"]["scope"] == "call"
    allowed = client.post("/v1/chat/completions", json=body, headers={"x-ostiary-max-cost-usd": "1"})
    assert allowed.status_code == 200
    wrong = client.post("/v1/chat/completions", json=body, headers={"x-ostiary-max-cost-usd": "lots"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-ostiary-max-cost-usd")


@pytest.mark.main_job
def test_models_providers_and_free_only_are_enforced(gateway: Gateway, upstream: Upstream) -> None:
    _priced(gateway, upstream)
    cases = {
        ("--models", _MODEL): (200, None),
        ("--models", "ok"): (200, None),
        ("--models", "gpt-4o"): (403, "model_not_allowed"),
        ("--providers", "openai-compatible"): (200, None),
        ("--providers", "openai,groq"): (403, "provider_not_allowed"),
        ("--free-only",): (403, "model_not_allowed"),
        ("--ip", "127.0.0.0/8"): (200, None),
        ("--ip", "192.0.2.0/24"): (403, "ip_not_allowed"),
        ("--scopes", "gate:usage"): (403, "insufficient_scope"),
    }
    for number, (options, (status, code)) in enumerate(cases.items()):
        answer = gateway.chat(gateway.create_key(f"k{number}", *options), _MODEL)
        assert answer.status_code == status, options
        assert answer.json().get("error", {}).get("code") == code, options


def test_free_is_what_the_catalogue_flags_and_what_is_priced_at_nothing(gateway: Gateway, upstream: Upstream) -> None:
    """Alone for a key that may have nothing else, and past a budget that is spent; a price of one's own goes before."""
    _priced(gateway, upstream)
    gateway.add_provider_key("openrouter", "router", upstream.url)
    gateway.cli("prices", "set", "openai-compatible/gift", "--input", "0", "--output", "0")
    flagged, gift = "openrouter/deepseek/deepseek-r1:free", "openai-compatible/gift"
    free = gateway.create_key("free", "--free-only")
    spent = gateway.create_key("spent", "--budget-usd", "0")
    for model in (flagged, gift):
        for secret in (free, spent):
            answer = gateway.chat(secret, model, max_tokens=20)
            assert (answer.status_code, answer.headers.get("x-ostiary-cost-usd")) == (200, "0"), answer.text
    assert gateway.chat(free, "openai-compatible/unpriced").json()["error"]["code"] == "model_not_allowed"
    assert gateway.chat(spent, _MODEL, max_tokens=20).json()["error"]["code"] == "budget_exceeded"
    gateway.cli("prices", "set", flagged, "--input", "1", "--output", "1")
    gateway.hear()
    refused = gateway.chat(free, flagged)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert gateway.chat(spent, flagged, max_tokens=20).json()["error"]["code"] == "budget_exceeded"


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize("who", ["agent key", "client credential"])
@pytest.mark.parametrize(
    ("option", "limit", "served", "code"),
    [
        ("--rpm", "2", 2, "rate_limit_exceeded"),
        ("--rpd", "2", 2, "daily_rate_limit_exceeded"),
        ("--tpm", "60", 2, "token_limit_exceeded"),
        ("--budget-usd", "0", 0, "budget_exceeded"),
    ],
)
def test_the_organizations_own_limit_is_for_whoever_calls(
    gateway: Gateway, upstream: Upstream, who: str, option: str, limit: str, served: int, code: str
) -> None:
    """An answer uses 18 tokens; a call is thought to use a few more."""
    _priced(gateway, upstream)
    gateway.cli("orgs", "edit", option, limit)
    secret = gateway.create_key("a") if who == "agent key" else gateway.create_credential("a")
    answers = [gateway.chat(secret, _MODEL, max_tokens=7) for _ in range(served + 2)]
    errors = [answer.json()["error"] for answer in answers if answer.status_code != 200]
    assert [answer.status_code == 200 for answer in answers] == [True] * served + [False] * 2
    assert {(error["code"], error["scope"]) for error in errors} == {(code, "organization")}
    assert len(upstream.calls) == served


def test_the_organizations_slots_are_for_all_its_callers(gateway: Gateway, upstream: Upstream) -> None:
    _priced(gateway, upstream)
    gateway.cli("orgs", "edit", "--parallel", "1")
    key, credential = gateway.create_key("a"), gateway.create_credential("b")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat, key, "openai-compatible/gated")
        upstream.wait_for(1)
        error = gateway.chat(credential, _MODEL).json()["error"]
        assert (error["code"], error["scope"]) == ("too_many_parallel_requests", "organization")
        upstream.gate.set()
        assert first.result(20).status_code == 200
    assert gateway.chat(credential, _MODEL).status_code == 200
