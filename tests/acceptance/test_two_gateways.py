"""Several gateways on one database, each with a spool of its own, share budgets and survive one another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from tests.servers.gateway import NO_TLS, PATIENT, Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, gateways: GatewayMaker, upstream: Upstream, tmp_path: Path
) -> tuple[Gateway, Gateway]:
    """Two, on a fresh database, which know the same keys and prices."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    env = {"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY": _MASTER_KEY}
    one, two = (gateways(allow=[upstream.origin], env=env, entry=PATIENT) for _ in range(2))
    one.add_provider_key("openai-compatible", "upstream", upstream.url)
    one.cli("prices", "set", _MODEL, "--input", "100", "--output", "100")
    two.hear()
    return one, two


def _call(gateway: Gateway, secret: str) -> httpx2.Response:
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}
    headers = {"authorization": f"Bearer {secret}"}
    return httpx2.post(f"{gateway.url}/chat/completions", json=body, headers=headers, timeout=30, verify=NO_TLS)


@pytest.mark.main_job
def test_a_budget_is_one_budget_for_both(pair: tuple[Gateway, Gateway]) -> None:
    secret = pair[0].create_key("a", "--budget-usd", "0.08")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: _call(pair[number % 2], secret), range(80)))
    served = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} == {200, 402}
    spent = sum(Decimal(answer.headers["x-ostiary-cost-usd"]) for answer in served)
    assert spent <= Decimal("0.08")
    until(lambda: len(pair[0].traces()) == len(served), "every served call in the ledger")
    assert sum(Decimal(str(event["cost_usd"])) for event in pair[1].traces()) == spent


def test_what_one_does_not_use_the_other_may(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    secret = one.create_key("a", "--budget-usd", "0.04")
    two.hear()
    assert _call(one, secret).status_code == 200
    answers = [_call(two, secret) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 12, "the rest of the budget affords them"


def test_one_killed_and_back_the_other_goes_on(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    secret = one.create_key("a", "--budget-usd", "1")
    two.hear()
    before = _call(one, secret)
    one.kill()
    assert before.status_code == 200
    assert [_call(two, secret).status_code for _ in range(3)] == [200] * 3
    one.start()
    assert "spool.adopted" in one.output
    after = _call(one, secret)
    until(lambda: len(two.traces()) == 5, "five calls in the ledger")
    costs = {event["request_id"]: Decimal(str(event["cost_usd"])) for event in two.traces()}
    assert {before.headers["x-request-id"], after.headers["x-request-id"]} <= costs.keys()
    shown = one.json("keys", "show", "a")
    assert Decimal(str(shown["spent_usd"])) == sum(costs.values())
