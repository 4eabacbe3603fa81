"""What calls look like as spans, when a call is whole, and how much waits for a collector at most."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from ostiary.ledger.collector import Collector, Unsent
from ostiary.ledger.events import Event, pack, unpack
from ostiary.ledger.otlp import Otlp
from ostiary.ledger.spans import Span, spans_of
from ostiary.ledger.telemetry import MOST, SpanCounts, Telemetry
from ostiary.ledger.whole_calls import WholeCalls
from tests.fakes import SetClock

_MS = 1_000_000
_TRACE, _SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def event(request_id: str = "req_1", attempt: int = 1, **changed: Any) -> Event:
    values: dict[str, Any] = {
        "organization_id": "org_1",
        "agent_key_id": "key_1",
        "agent_key_name": "ci-bot",
        "credential_id": None,
        "operation": "chat",
        "provider": "openai",
        "model_asked": "gpt",
        "model": "gpt",
        "provider_key_id": "pkey_1",
        "provider_key_name": "main",
        "stream": False,
        "started_at": 1_000,
        "client_ip": "192.0.2.7",
        "metadata": {},
        "held_nano": 0,
        "leased": (),
        "price_version": None,
        "cost_nano": 5,
        "usage_source": "provider",
        "status": "ok",
        "latency_ms": 100,
    }
    return Event(request_id=request_id, attempt=attempt, **{**values, **changed})


def nowhere(_event: Event) -> None:
    return None


def call_and_attempts(*attempts: Event) -> tuple[Span, list[Span]]:
    call, *below = spans_of(attempts, nowhere)
    return call, below


# ---- spans ------------------------------------------------------------------------------------------------------


def test_a_call_begins_with_its_first_step_and_ends_with_its_last_attempt() -> None:
    timings = {"identify_us": 100, "admit_us": 300, "reserve_us": 600, "attempt_us": 99}
    first = event(status="error", error_code="provider_error", timings=timings)
    call, below = call_and_attempts(event(attempt=2, started_at=2_500, latency_ms=7, timings=timings), first)
    assert (call.begins_ns, call.ends_ns) == (999 * _MS, 2_507 * _MS)
    assert [(one.begins_ns, one.ends_ns) for one in below] == [(1_000 * _MS, 1_100 * _MS), (2_500 * _MS, 2_507 * _MS)]
    assert [one.parent_id for one in below] == [call.span_id, call.span_id]
    assert len({one.span_id for one in (call, *below)}) == 3


def test_what_all_attempts_used_and_cost_is_told_once() -> None:
    first = event(status="error", error_code="provider_error", input_tokens=3, output_tokens=1, cost_nano=7)
    unknown = event(attempt=2, status="error", error_code="provider_timeout", usage_source="none", input_tokens=900)
    call, below = call_and_attempts(first, unknown, event(attempt=3, input_tokens=4, output_tokens=0, images=2))
    told = call.attributes
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (7, 1)
    assert (told["ostiary.cost_nano_usd"], told["ostiary.attempts"], told["ostiary.usage.images"]) == (17, 3, 2)
    assert not any(name.startswith("gen_ai.usage") for one in below for name in one.attributes)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({}, None),
        ({"status": "cancelled"}, None),
        ({"status": "cancelled", "error_code": "invalid_api_key"}, "invalid_api_key"),
        ({"status": "error"}, "error"),
        ({"status": "unknown"}, "unknown"),
    ],
)
def test_who_hangs_up_has_not_failed(changed: dict[str, Any], error: str | None) -> None:
    call, [attempt] = call_and_attempts(event(**changed))
    assert call.is_error is attempt.is_error is (error is not None)
    assert call.attributes.get("error.type") == attempt.attributes.get("error.type") == error


def test_the_first_chunk_is_counted_from_the_beginning_of_the_call() -> None:
    failed = event(status="error", error_code="provider_error", stream=True)
    call, _ = call_and_attempts(failed, event(attempt=2, stream=True, started_at=1_500, first_token_ms=40))
    assert call.attributes["gen_ai.response.time_to_first_chunk"] == 0.54


def test_the_same_call_has_the_same_ids_and_another_one_others() -> None:
    once, again, other = (call_and_attempts(event(id))[0] for id in ("req_1", "req_1", "req_2"))
    assert (once.trace_id, once.span_id) == (again.trace_id, again.span_id)
    assert {once.trace_id, once.span_id}.isdisjoint({other.trace_id, other.span_id})


@pytest.mark.parametrize(
    ("header", "joined"),
    [
        (f"00-{_TRACE}-{_SPAN}-01", True),
        (f"00-{_TRACE}-{_SPAN}-03", True),
        (f"01-{_TRACE}-{_SPAN}-01", True),
        (f"01-{_TRACE}-{_SPAN}-01-", True),
        (f"00-{_TRACE}-{_SPAN}-01-", False),
        (f"00-{_TRACE}-{'0' * 16}-01", False),
        (f"00-{_TRACE.upper()}-{_SPAN}-01", False),
        (f"00-{_TRACE}-{_SPAN}", False),
    ],
)
def test_a_parent_is_joined_as_w3c_says(header: str, *, joined: bool) -> None:
    call, [attempt] = call_and_attempts(event(traceparent=header.encode()))
    assert (call.trace_id.hex() == _TRACE) is (call.parent_id.hex() == _SPAN) is joined
    assert (call.has_remote_parent, attempt.has_remote_parent) == (joined, False)


def test_an_event_keeps_its_parent_and_one_of_an_older_version_has_none() -> None:
    header = f"00-{_TRACE}-{_SPAN}-01".encode()
    assert unpack(pack(event(traceparent=header))).traceparent == header
    assert unpack(pack(event())).traceparent is None


def test_any_text_can_be_sent() -> None:
    batch = Otlp({"service.name": "x"}, "1").batch()
    for span in spans_of([event(model_asked="\ud800 ", agent_key_name="ключ")], nowhere):
        batch.add(span)
    assert "ключ".encode() in batch.pack()


# ---- whole calls ------------------------------------------------------------------------------------------------


def test_a_call_that_failed_is_whole_once_it_has_ended_and_all_of_it_is_written() -> None:
    """Its last attempt may be settled and yet be on its way to the ledger."""
    calls, failed = WholeCalls(), event(status="error", error_code="provider_error")
    open_, settled, written = {"req_1"}, 1, 1
    calls.still_open, calls.settled, calls.written = (lambda: open_), (lambda: settled), (lambda: written)
    assert calls.add(failed) is None
    assert calls.take_ended() == []
    open_, settled = set(), 2
    assert calls.take_ended() == [], "its second attempt is still missing"
    again = event(attempt=2, status="error", error_code="provider_error")
    written = 2
    assert calls.add(again) is None
    assert calls.take_ended() == [[failed, again]]
    assert (calls.take_ended(), calls.waiting) == ([], 0)


def test_a_call_that_went_well_in_the_end_is_whole_at_once() -> None:
    calls, failed, well = WholeCalls(), event(status="error", error_code="provider_error"), event(attempt=2)
    assert calls.add(failed) is None
    assert calls.add(well) == [failed, well]
    assert calls.waiting == 0


# ---- what waits -------------------------------------------------------------------------------------------------


class Sink:
    """A collector that takes what it is told to."""

    origin = "http://collector"

    def __init__(self) -> None:
        self.is_away = True
        self.bodies: list[bytes] = []

    async def send(self, body: bytes) -> bytes:
        if self.is_away:
            raise Unsent("It was not reached.")
        self.bodies.append(body)
        return b""


def telemetry(sink: Sink) -> Telemetry:
    return Telemetry(cast("Collector", sink), Otlp({}, "1"), SetClock())


def many(count: int) -> Iterable[Event]:
    return (event(f"req_{number}", metadata={"a": "b" * 1_000}) for number in range(count))


async def test_no_more_waits_than_memory_has_room_for_and_what_is_dropped_is_counted() -> None:
    sink = Sink()
    made = telemetry(sink)
    made.hear(many(MOST))
    assert made.counts == SpanCounts(sent=0, dropped=MOST, waiting=MOST)
    sink.is_away = False
    await made.close()
    assert made.counts == SpanCounts(sent=MOST, dropped=MOST, waiting=0)


async def test_failed_attempts_of_open_calls_count_in_what_waits() -> None:
    made = telemetry(Sink())
    made.calls.still_open = lambda: {f"req_{number}" for number in range(MOST)}
    made.hear(event(f"req_{number}", status="error") for number in range(MOST))
    assert made.counts == SpanCounts(sent=0, dropped=0, waiting=MOST)
    made.hear([event("req_0", 2)])
    assert made.counts == SpanCounts(sent=0, dropped=3, waiting=MOST - 1), "all of the call, or nothing of it"


async def test_a_stop_does_not_wait_for_a_collector_that_is_away() -> None:
    made = telemetry(Sink())
    made.hear(many(3))
    await made.close()
    assert made.counts == SpanCounts(sent=0, dropped=0, waiting=6)


class SlowSink(Sink):
    """It takes what is sent, and says so when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.has_taken = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def send(self, body: bytes) -> bytes:
        self.bodies.append(body)
        self.has_taken.set()
        await self.may_answer.wait()
        return b""


async def test_what_a_collector_is_taking_at_a_stop_is_not_sent_twice() -> None:
    sink = SlowSink()
    made = telemetry(sink)
    made.hear(many(3))
    running = asyncio.create_task(made.run())
    await sink.has_taken.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    made.hear(many(1))
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0)
    sink.may_answer.set()
    await closing
    assert made.counts == SpanCounts(sent=8, dropped=0, waiting=0)
    taken = b"".join(sink.bodies)
    assert [taken.count(b"attempt openai"), len(sink.bodies)] == [4, 2], "what was on its way, and what came after it"


async def test_a_stop_does_not_wait_for_a_collector_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.ledger.telemetry._LAST_S", 0.01)
    sink = SlowSink()
    made = telemetry(sink)
    made.hear(many(3))
    await made.close()
    assert made.counts == SpanCounts(sent=0, dropped=0, waiting=6)


async def test_the_attempts_of_a_dead_processes_call_stay_together() -> None:
    sink = Sink()
    sink.is_away = False
    made = telemetry(sink)
    held = event(attempt=2, status="unknown", usage_source="none")
    made.hear([event(status="error", error_code="provider_error"), held], are_over=True)
    await made.close()
    assert made.counts == SpanCounts(sent=3, dropped=0, waiting=0)
