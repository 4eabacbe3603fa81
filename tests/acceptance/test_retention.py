"""What an organization does not want kept is deleted by the running gateway; what was spent and used stays counted."""

from __future__ import annotations

import time

import pytest

from tests.acceptance.inside import rows
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_DAY_S = 86_400


def _left(gateway: Gateway) -> tuple[int, int]:
    """How many traces and how many contents there are."""
    counts = [rows(gateway, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in ("usage_events", "contents")]  # noqa: S608 - two names
    return counts[0], counts[1]


def _looked_at(gateway: Gateway) -> int:
    """When it looked last, by its own clock; what is set a moment later it heeds an hour later."""
    found = rows(gateway, "SELECT ran_at FROM jobs WHERE name = 'old traces'")
    return int(found[0]["ran_at"] or 0) if found else 0


@pytest.mark.main_job
def test_contents_go_by_their_days_and_traces_by_theirs(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], clock=True)
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "1", "--output", "1")
    secret = gateway.create_key("a", "--capture", "--budget-usd", "5", "--expires", "never")
    answers = [gateway.chat(secret, _MODEL) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    until(lambda: _left(gateway) == (3, 3), "the ledger")
    usage, spent = gateway.json("usage", "--by", "key"), gateway.json("keys", "show", "a")["spent_usd"]
    gateway.shift(9 * _DAY_S)
    until(lambda: _looked_at(gateway) > (time.time() + 8 * _DAY_S) * 1_000, "the gateway to look what is old")
    gateway.cli("orgs", "edit", "--content-days", "1", "--trace-days", "30")
    assert _left(gateway) == (3, 3), "without a word everything is kept"
    gateway.shift(10 * _DAY_S)
    until(lambda: _left(gateway) == (3, 0), "the contents to go")
    assert gateway.json("traces", "show", answers[0].headers["x-request-id"])["attempts"]
    gateway.shift(31 * _DAY_S)
    until(lambda: _left(gateway) == (0, 0), "the traces to go")
    assert gateway.json("usage", "--by", "key") == usage
    assert gateway.json("keys", "show", "a")["spent_usd"] == spent > 0
    assert "job.failed" not in gateway.output
