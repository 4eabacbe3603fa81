"""The steps of a call follow one another, whatever its attempts have noted."""

from __future__ import annotations

from typing import Any

from ostiary.ledger.reports import Trace
from ostiary.ledger.waterfall import Step, steps_of
from ostiary.providers.tokens import Tokens

AT = 1_795_000_000_000
CALL = {"identify_us": 10, "admit_us": 20, "reserve_us": 30}


def attempt(number: int, timings: dict[str, Any], at: int = AT, latency_ms: int = 7) -> Trace:
    return Trace(
        request_id="req_1", attempt=number, at=at, agent_key_id="key_1", agent_key="a", parent_key_id=None,
        credential_id=None, credential=None, operation="chat", endpoint=None, provider="p", provider_key_id="pk_1",
        provider_key="k", model_asked="m", model="m", model_served=None, status="ok", http_status=200, error_code=None,
        stream=False, tokens=Tokens(), images=0, held_nano=0, cost_nano=0, over_hold_nano=0, price_version=None,
        usage_source="provider", latency_ms=latency_ms, first_token_ms=None, timings=timings, client_ip=None,
        metadata={},
    )  # fmt: skip


def test_steps_begin_where_the_one_before_ended() -> None:
    steps = steps_of([attempt(1, {**CALL, "attempt_us": 500, "relay_us": 40, "settle_us": 5})])
    assert steps == [
        Step("identify", None, 0, 10),
        Step("admit", None, 10, 20),
        Step("reserve", None, 30, 30),
        Step("attempt", 1, 60, 500),
        Step("relay", 1, 560, 40),
        Step("settle", 1, 600, 5),
    ]


def test_a_later_attempt_begins_when_it_was_made_and_one_that_failed_lasts_as_long_as_it_took() -> None:
    second = attempt(2, {**CALL, "attempt_us": 900, "relay_us": 100}, at=AT + 7)
    steps = steps_of([second, attempt(1, CALL)])
    assert [(step.name, step.attempt, step.begins_us, step.lasts_us) for step in steps[3:]] == [
        ("attempt", 1, 60, 7_000),
        ("attempt", 2, 7_060, 900),
        ("relay", 2, 7_960, 100),
    ]


def test_what_was_not_noted_is_left_out_and_a_clock_set_back_makes_nothing_negative() -> None:
    odd = {"identify_us": "soon", "admit_us": -5, "relay_us": None, "judge_us": 3}
    steps = steps_of([attempt(1, odd), attempt(2, {}, at=AT - 60_000, latency_ms=0)])
    assert steps == [Step("admit", None, 0, 0), Step("attempt", 1, 0, 7_000), Step("attempt", 2, 0, 0)]


def test_no_attempt_has_no_steps() -> None:
    assert steps_of([]) == []
