"""What was called, as people ask for it from the shell; and that the books agree after all that can happen to them."""

from __future__ import annotations

import asyncio
import csv
import io
import threading
from decimal import Decimal
from functools import partial

import httpx2
import pytest

from ostiary.db.database import Database
from tests.acceptance.test_cli import refused
from tests.books import check_books
from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

MODEL = "openai-compatible/ok"


@pytest.fixture
def ready(gateway: Gateway, upstream: Upstream) -> Gateway:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", MODEL, "--input", "1", "--output", "2")
    return gateway


def called(gateway: Gateway, secret: str, times: int) -> list[str]:
    """Call so often; the request ids, all of them in the ledger."""
    ids = []
    until(lambda: gateway.chat(secret, MODEL).status_code == 200, "the gateway has heard")
    for _ in range(times):
        answer = gateway.chat(secret, MODEL)
        assert answer.status_code == 200
        ids.append(answer.headers["x-request-id"])
    until(lambda: ids[-1] in {one["request_id"] for one in gateway.json("traces")}, "the ledger has the calls")
    return ids


def books(gateway: Gateway) -> None:
    async def check() -> None:
        database = Database(f"sqlite:///{gateway.data_dir / 'ostiary.db'}")
        await check_books(database)
        await database.close()

    asyncio.run(check())


@pytest.mark.main_job
@pytest.mark.usefixtures("one_day")
def test_usage_by_what_is_asked_for_and_as_csv(ready: Gateway) -> None:
    secret, formula = ready.create_key("busy"), ready.create_key("=cmd|x")
    called(ready, secret, 2)
    called(ready, formula, 1)
    (row,) = ready.json("usage", "--by", "model,provider", "--since", "1h")
    assert row.keys() >= {"model", "provider", "requests", "cost_usd", "tokens"}
    assert "day" not in row
    assert row["requests"] == 5
    assert [one["provider_key"] for one in ready.json("usage", "--by", "provider-key")] == ["upstream"]
    assert ready.json("usage", "--by", "key", "--key", "busy")[0]["requests"] == 3
    assert ready.json("usage", "--until", "2026-01-01", "--since", "2025-01-01") == []
    text = ready.cli("usage", "--csv", "--by", "day,key").out
    found = {line["agent_key"]: line for line in csv.DictReader(io.StringIO(text))}
    assert found.keys() == {"busy", "'=cmd|x"}, "a spreadsheet must not take a name for a formula"
    assert Decimal(found["busy"]["cost_usd"]) == Decimal("0.000075")
    assert (found["busy"]["requests"], found["busy"]["input_tokens"]) == ("3", "33")
    assert "not a list of" in refused(ready, "usage", "--by", "colour", code=2)
    assert "nor a date" in refused(ready, "usage", "--since", "yesterday", code=2)


def test_traces_by_filter_and_one_call_as_a_waterfall(ready: Gateway) -> None:
    ids = called(ready, ready.create_key("busy"), 2)
    ready.chat(ready.create_key("other"), MODEL)
    assert len(ready.json("traces", "--key", "busy", "--status", "ok", "--model", "ok", "--since", "1d")) == 3
    for none in (
        *(("--status", "error"), ("--model", "nothing"), ("--provider", "groq"), ("--until", "2025-01-01")),
        *(("--min-cost-usd", "5"), ("--min-latency-ms", "600000")),
    ):
        assert ready.json("traces", *none) == []
    summary = ready.json("traces", "--summary", "--key", "busy")
    assert (summary["attempts"], summary["errors"], summary["cost_usd"]) == (3, 0, pytest.approx(0.000075))
    assert summary["p95_ms"] is not None
    one = ready.json("traces", "show", ids[0])
    assert [step["name"] for step in one["steps"]][:4] == ["identify", "admit", "reserve", "attempt"]
    assert one["attempts"][0]["request_id"] == ids[0]
    said = ready.cli("traces", "show", ids[0]).out
    assert "█" in said
    assert "busy" in said
    assert "no such call" in refused(ready, "traces", "show", "req_none")
    assert "not one of" in refused(ready, "traces", "--status", "fine", code=2)


@pytest.mark.usefixtures("one_day")
def test_a_price_put_right_moves_past_costs_while_calls_go_on(ready: Gateway) -> None:
    secret = ready.create_key("busy", "--budget-usd", "1")
    called(ready, secret, 4)
    ready.cli("prices", "set", MODEL, "--input", "10", "--output", "20")
    shown = ready.json("prices", "recost", "--since", "1d")
    assert shown["applied"] is False
    assert shown["after_usd"] == pytest.approx(10 * shown["before_usd"])
    assert shown["models"][0]["changed"] == 5
    assert ready.json("keys", "show", "busy")["spent_usd"] == pytest.approx(shown["before_usd"])
    said = ready.cli("prices", "recost", "--since", "1d").out
    assert "would become" in said
    assert "--apply" in said
    done = ready.json("prices", "recost", "--since", "1d", "--apply")
    assert done["models"][0]["changed"] == 5
    assert ready.json("prices", "recost", "--since", "1d")["models"][0]["changed"] == 0
    assert ready.json("keys", "show", "busy")["spent_usd"] == pytest.approx(shown["after_usd"])
    assert ready.json("usage", "--by", "key")[0]["cost_usd"] == pytest.approx(shown["after_usd"])
    key = ready.client(secret).get("/v1/key").json()
    assert Decimal(str(key["limits"]["budget"]["spent_usd"])) == Decimal(str(shown["after_usd"]))
    until(lambda: ready.chat(secret, MODEL).headers["x-ostiary-cost-usd"] == "0.00025", "calls cost what was set")
    books(ready)


def _has(found: list[str], count: int) -> bool:
    return len(found) >= count


def test_the_books_agree_after_kills_under_load(ready: Gateway) -> None:
    """Every event is in its sums and accounts once, whatever a killed process left behind."""
    secret = ready.create_key("busy", "--budget-usd", "100")
    called(ready, secret, 1)
    stop = threading.Event()
    answered: list[str] = []

    def load() -> None:
        with httpx2.Client(headers={"authorization": f"Bearer {secret}"}, timeout=10) as client:
            while not stop.is_set():
                body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
                try:
                    answer = client.post(f"{ready.url}/chat/completions", json=body)
                except httpx2.TransportError:
                    continue
                if answer.status_code == 200:
                    answered.append(answer.headers["x-request-id"])

    callers = [threading.Thread(target=load) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        for kill in range(4):
            enough = len(answered) + 20 * (kill + 1)
            until(partial(_has, answered, enough), "calls were answered", 60)
            ready.kill()
            ready.start()
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert ready.stop() == 0
    books(ready)
    known = {one["request_id"] for one in ready.json("traces", "--limit", "0")}
    assert set(answered) <= known
