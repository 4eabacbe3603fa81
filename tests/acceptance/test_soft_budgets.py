"""A soft budget lets every call pass, and says in a header that it has been reached."""

from __future__ import annotations

import pytest

from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"


@pytest.mark.main_job
def test_a_reached_soft_budget_is_said_and_stops_nobody(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "100", "--output", "100")
    secret = gateway.create_key("a", "--soft-budget-usd", "0.0001")
    first = gateway.chat(secret, _MODEL)
    assert first.status_code == 200
    assert "x-ostiary-budget-warning" not in first.headers

    def warned() -> bool:
        answer = gateway.chat(secret, _MODEL)
        assert answer.status_code == 200
        return "of its soft limit of 0.0001 USD" in answer.headers.get("x-ostiary-budget-warning", "")

    until(warned, "the warning")
    gateway.restart()
    assert warned(), "what was spent is known at once after a start"
    gateway.cli("keys", "edit", "a", "--soft-budget-usd", "1000")
    gateway.hear()
    assert not warned()
    shown = gateway.client(secret).get("/v1/key").json()["limits"]["budget"]
    assert shown["soft_limit_usd"] == 1000
    assert shown["limit_usd"] is None
