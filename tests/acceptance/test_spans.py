"""Calls as spans at an OpenTelemetry collector: what they say, what they never say, and that it is in nobody's way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import behaviours, collector
from tests.servers.canaries import Canaries
from tests.servers.collector import Collector, Seen
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import free_port, until
from tests.servers.wire import COMPLETION_TOKENS, PROMPT_TOKENS

_MODEL: Final = "openai-compatible/ok"
_PROMPT: Final = "The treasure lies under the third oak."
_TOKEN: Final = "0123456789abcdef0123456789abcdef-operator"
_TOKENS: Final = PROMPT_TOKENS + COMPLETION_TOKENS
_CLIENT: Final = 3
"""SPAN_KIND_CLIENT."""
_NS: Final = 1_000_000_000
_MS: Final = 1_000_000
"""The least the ledger tells apart, in nanoseconds."""
_TRACE, _SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(name="collector")
def the_collector() -> Iterator[Collector]:
    with collector.running() as made:
        yield made


def traced(gateways: GatewayMaker, upstream: Upstream, endpoint: str, **env: str) -> Gateway:
    """A gateway with a priced model at `upstream` that sends its spans there."""
    given = {"OSTIARY_OTLP_ENDPOINT": endpoint, "OSTIARY_OPERATOR_TOKEN": _TOKEN, "OSTIARY_NAME": "lodge", **env}
    gateway = gateways(allow=[upstream.origin], env=given)
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "100", "--output", "100")
    gateway.hear()
    return gateway


def call(gateway: Gateway, secret: str, model: str = _MODEL, *, parent: str | None = None, **more: Any) -> str:
    """One call, read to its end; its id."""
    body = {"model": model, "messages": [{"role": "user", "content": _PROMPT}], "max_tokens": 20, **more}
    headers = {"traceparent": parent} if parent is not None else {}
    answer = gateway.client(secret).post("/v1/chat/completions", json=body, headers=headers)
    return str(answer.headers["x-request-id"])


def numbers(gateway: Gateway) -> dict[str, float]:
    """What `/metrics` says of spans."""
    answer = httpx2.get(f"{gateway.origin}/metrics", headers={"authorization": f"Bearer {_TOKEN}"}, timeout=20)
    families = text_string_to_metric_families(answer.text)
    return {one.name: one.value for family in families for one in family.samples if one.name.startswith("ostiary_span")}


def is_within(inner: Seen, outer: Seen) -> bool:
    begins = outer.wire.start_time_unix_nano <= inner.wire.start_time_unix_nano
    return bool(begins and inner.wire.end_time_unix_nano <= outer.wire.end_time_unix_nano)


# ---- what they say ----------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_a_call_is_a_span_with_its_attempt_below_it(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot", "--metadata", '{"team": "treasury"}')
    before = time.time_ns()
    id = call(gateway, secret)
    after = time.time_ns()
    span = collector.of(id)
    [attempt] = collector.below(span)
    [key] = gateway.json("keys", "list")
    [provider_key] = gateway.json("vault", "list")
    [organization] = gateway.json("orgs", "list")
    assert (span.name, attempt.name) == (f"chat {_MODEL}", "attempt openai-compatible")
    assert {span.wire.kind, attempt.wire.kind} == {_CLIENT}
    assert (span.wire.parent_span_id, len(span.wire.trace_id), len(span.wire.span_id)) == (b"", 16, 8)
    assert attempt.wire.trace_id == span.wire.trace_id
    assert not span.is_error
    assert not attempt.is_error
    assert before - _MS <= span.wire.start_time_unix_nano <= span.wire.end_time_unix_nano <= after
    assert is_within(attempt, span)
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai-compatible",
        "gen_ai.request.model": _MODEL,
        "gen_ai.response.model": "ok",
        "gen_ai.usage.input_tokens": PROMPT_TOKENS,
        "gen_ai.usage.output_tokens": COMPLETION_TOKENS,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "ostiary.request_id": id,
        "ostiary.operation": "chat",
        "ostiary.status": "ok",
        "ostiary.attempts": 1,
        "ostiary.cost_nano_usd": _TOKENS * 100_000,
        "ostiary.usage_source": "provider",
        "ostiary.organization.id": organization["id"],
        "ostiary.agent_key.id": key["id"],
        "ostiary.agent_key.name": "ci-bot",
    }
    assert attempt.attributes == {
        "gen_ai.provider.name": "openai-compatible",
        "gen_ai.request.model": "ok",
        "gen_ai.response.model": "ok",
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "http.response.status_code": 200,
        "ostiary.status": "ok",
        "ostiary.attempt": 1,
        "ostiary.attempt.input_tokens": PROMPT_TOKENS,
        "ostiary.attempt.output_tokens": COMPLETION_TOKENS,
        "ostiary.attempt.cost_nano_usd": _TOKENS * 100_000,
        "ostiary.provider_key.id": provider_key["id"],
        "ostiary.provider_key.name": "upstream",
    }
    assert span.resource.pop("service.instance.id").startswith("spool_")
    assert span.resource.pop("service.version")
    assert span.resource == {"service.name": "ostiary", "ostiary.gateway.name": "lodge"}


def test_a_stream_tells_when_it_began(gateways: GatewayMaker, upstream: Upstream, collector: Collector) -> None:
    gateway = traced(gateways, upstream, collector.url)
    span = collector.of(call(gateway, gateway.create_key("ci-bot"), "openai-compatible/slow-stream", stream=True))
    took_s = (span.wire.end_time_unix_nano - span.wire.start_time_unix_nano) / _NS
    assert span.attributes["gen_ai.request.stream"] is True
    assert 0 <= span.attributes["gen_ai.response.time_to_first_chunk"] <= took_s
    assert span.attributes["gen_ai.usage.output_tokens"] > 0
    assert span.attributes["ostiary.status"] == "ok"


def test_a_call_that_fell_back_has_both_attempts(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    for provider in ("groq", "xai"):
        gateway.add_provider_key(provider, provider, upstream.url)
    gateway.cli("endpoints", "create", "smart", "--target", "groq/m", "--fallback", "xai/m", "--retries", "1")
    secret = gateway.create_key("ci-bot")
    upstream.push(behaviours.status(503))
    span = collector.of(call(gateway, secret, "smart"))
    first, second = collector.below(span)
    assert span.name == "chat smart"
    assert not span.is_error
    assert first.is_error
    assert not second.is_error
    assert (span.attributes["ostiary.attempts"], span.attributes["ostiary.endpoint"]) == (2, "smart")
    assert span.attributes["gen_ai.provider.name"] == "x_ai", "as the conventions call it"
    assert span.attributes["gen_ai.usage.input_tokens"] == PROMPT_TOKENS
    assert "error.type" not in span.attributes
    assert (first.name, first.attributes["http.response.status_code"]) == ("attempt groq", 503)
    assert first.attributes["error.type"] == "provider_error"
    assert (second.name, second.attributes["gen_ai.provider.name"]) == ("attempt xai", "x_ai")
    assert is_within(first, span)
    assert is_within(second, span)
    assert first.wire.end_time_unix_nano <= second.wire.start_time_unix_nano


def test_a_call_that_failed_in_the_end_is_told_of_once_it_is_over(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    """That an attempt was the last one no attempt says; one that succeeded comes meanwhile."""
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot")
    failed = call(gateway, secret, "openai-compatible/status-500")
    refused = call(gateway, secret, "openai-compatible/status-400")
    call(gateway, secret)
    for id, error in ((failed, "provider_error"), (refused, "invalid_request")):
        span = collector.of(id)
        attempts = collector.below(span)
        assert span.is_error
        assert attempts[-1].is_error
        assert (span.attributes["error.type"], span.attributes["ostiary.status"]) == (error, "error")
        assert span.attributes["ostiary.attempts"] == len(attempts)
        assert "gen_ai.usage.input_tokens" not in span.attributes


def test_what_was_refused_before_any_attempt_has_no_span(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot", "--models", "none")
    refused = call(gateway, secret)
    served = call(gateway, gateway.create_key("other"))
    collector.of(served)
    assert gateway.stop() == 0, "then everything was sent"
    assert [span.attributes["ostiary.request_id"] for span in collector.calls] == [served]
    assert refused not in {request["request_id"] for request in gateway.traces()}


def test_what_is_left_is_sent_when_the_gateway_stops(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot")
    ids = {call(gateway, secret) for _ in range(20)} | {call(gateway, secret, "openai-compatible/status-500")}
    assert gateway.stop() == 0
    assert {span.attributes["ostiary.request_id"] for span in collector.calls} == ids
    assert len(collector.calls) == len(ids), "each of them once"


# ---- whose trace it is ------------------------------------------------------------------------------------------


def test_a_call_joins_the_trace_of_its_caller(gateways: GatewayMaker, upstream: Upstream, collector: Collector) -> None:
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot")
    span = collector.of(call(gateway, secret, parent=f"00-{_TRACE}-{_SPAN}-01"))
    [attempt] = collector.below(span)
    assert (span.wire.trace_id.hex(), span.wire.parent_span_id.hex()) == (_TRACE, _SPAN)
    assert attempt.wire.trace_id.hex() == _TRACE
    assert not any("traceparent" in dict(request.headers) for request in upstream.calls)


def test_a_caller_whose_trace_is_not_sampled_gets_no_spans(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot")
    unsampled = call(gateway, secret, parent=f"00-{_TRACE}-{_SPAN}-00")
    sampled = call(gateway, secret)
    collector.of(sampled)
    assert gateway.stop() == 0
    assert [span.attributes["ostiary.request_id"] for span in collector.calls] == [sampled]
    assert unsampled in {trace["request_id"] for trace in gateway.traces()}, "the ledger has it all the same"


@pytest.mark.parametrize(
    "parent",
    ["nonsense", f"00-{'0' * 32}-{_SPAN}-01", f"ff-{_TRACE}-{_SPAN}-01", f"00-{_TRACE}-{_SPAN}-01-x", "0" * 4_000],
)
def test_what_is_no_trace_is_not_joined(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector, parent: str
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    span = collector.of(call(gateway, gateway.create_key("ci-bot"), parent=parent))
    assert (span.wire.parent_span_id, span.wire.trace_id.hex() == _TRACE) == (b"", False)


# ---- what they never say ----------------------------------------------------------------------------------------


def test_no_secret_and_nothing_that_was_said_leaves_by_them(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector, canaries: Canaries
) -> None:
    header = canaries.plant()
    env = {"OSTIARY_OTLP_HEADERS": f"authorization=Bearer%20{header},x-scope=tenant%3Da"}
    gateway = traced(gateways, upstream, collector.url, **env)
    provider_secret = gateway.add_provider_key("groq", "spare", upstream.url)
    secret = gateway.create_key("ci-bot", "--capture", "--metadata", '{"team": "treasury"}')
    for model in (_MODEL, "groq/status-401", "groq/status-403", "openai-compatible/status-500"):
        collector.of(call(gateway, secret, model))
    collector.of(call(gateway, secret, "openai-compatible/ok", stream=True))
    heads = [dict(request.headers) for request in collector.requests]
    assert {head["authorization"] for head in heads} == {f"Bearer {header}"}
    assert {head["x-scope"] for head in heads} == {"tenant=a"}
    sent = b"".join(request.body for request in collector.requests)
    for word in (secret, provider_secret, header, _PROMPT, "treasury", _TOKEN, "org-UPSTREAMOWNER"):
        assert word.encode() not in sent, word
    answered = gateway.chat(secret, _MODEL).json()["choices"][0]["message"]["content"]
    assert answered.encode() not in sent
    assert header not in gateway.output


# ---- a collector that is away -----------------------------------------------------------------------------------


def test_a_collector_that_is_away_costs_no_row_and_gets_its_spans_when_it_is_back(
    gateways: GatewayMaker, upstream: Upstream
) -> None:
    port = free_port()
    gateway = traced(gateways, upstream, f"http://127.0.0.1:{port}")
    secret = gateway.create_key("ci-bot")
    ids = {call(gateway, secret) for _ in range(30)}
    assert {trace["request_id"] for trace in gateway.traces(calls=30)} == ids
    until(lambda: "telemetry.down" in gateway.output, "the gateway to notice")
    assert numbers(gateway) == {
        "ostiary_spans_sent_total": 0,
        "ostiary_spans_dropped_total": 0,
        "ostiary_spans_waiting": 60,
    }
    with collector.running(port) as back:
        assert {span.attributes["ostiary.request_id"] for span in back.wait_for(30, 60)} == ids
        until(lambda: "telemetry.up" in gateway.output, "the gateway to say so")
        assert len(back.spans) == 60
        until(lambda: numbers(gateway)["ostiary_spans_sent_total"] == 60, "the last of them to be counted")
        assert numbers(gateway)["ostiary_spans_waiting"] == 0
    assert gateway.output.count("telemetry.down") == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_be_sent_again_is(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector, status: int
) -> None:
    collector.status, collector.lines = status, (b"retry-after: 1",)
    gateway = traced(gateways, upstream, collector.url)
    id = call(gateway, gateway.create_key("ci-bot"))
    until(lambda: collector.requests, "the first try")
    collector.status = 200
    collector.of(id)
    assert numbers(gateway)["ostiary_spans_dropped_total"] == 0


@pytest.mark.parametrize("status", [400, 401, 404, 500, 302])
def test_what_is_refused_for_good_is_dropped_counted_and_said_once(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector, status: int
) -> None:
    collector.status, collector.lines = status, (b"location: /elsewhere",)
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot")
    for number in (1, 2):
        call(gateway, secret)
        until(lambda n=number: numbers(gateway)["ostiary_spans_dropped_total"] == 2 * n, "the spans to be dropped")  # type: ignore[misc]
    assert {request.target for request in collector.requests} == {"/v1/traces"}
    assert gateway.output.count("telemetry.dropping") == 1
    assert gateway.output.count("telemetry.down") == 1
    assert len(gateway.traces(calls=2)) == 2
    collector.status = 200
    collector.of(call(gateway, secret))


def test_spans_that_a_collector_does_not_want_are_counted(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    collector.unwanted = 1
    gateway = traced(gateways, upstream, collector.url)
    collector.of(call(gateway, gateway.create_key("ci-bot")))
    until(lambda: numbers(gateway)["ostiary_spans_dropped_total"] == 1, "the count")
    assert numbers(gateway)["ostiary_spans_sent_total"] == 1


def test_without_a_collector_nobody_speaks_of_spans(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], env={"OSTIARY_OPERATOR_TOKEN": _TOKEN})
    assert numbers(gateway) == {}


# ---- what a dead process left -----------------------------------------------------------------------------------


def test_what_was_not_written_when_a_gateway_died_is_told_of_by_who_adopts_it(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    secret = gateway.create_key("ci-bot")
    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(base_url=gateway.origin, timeout=20))
        body = {"model": "openai-compatible/gated", "messages": [{"role": "user", "content": "x"}], "stream": True}
        headers = {"authorization": f"Bearer {secret}"}
        answer = stack.enter_context(client.stream("POST", "/v1/chat/completions", json=body, headers=headers))
        id = str(answer.headers["x-request-id"])
        gateway.kill()
    gateway.start()
    span = collector.of(id)
    assert (span.attributes["ostiary.status"], span.is_error) == ("unknown", True)
    assert len(collector.below(span)) == 1


# ---- what cannot be ---------------------------------------------------------------------------------------------


def test_without_the_extra_it_does_not_start_and_says_what_to_install(gateways: GatewayMaker) -> None:
    gateway = gateways(start=False, entry="tests.unspanned_entry", env={"OSTIARY_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert gateway.spawn().wait(30) == 1
    assert "pip install 'ostiary[otel]'" in gateway.output
    plain = gateways(entry="tests.unspanned_entry")
    assert plain.is_running, "what nobody asked for need not be there"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OSTIARY_OTLP_ENDPOINT": "collector:4318"}, "OSTIARY_OTLP_ENDPOINT: 'collector:4318' is not of the form"),
        ({"OSTIARY_OTLP_ENDPOINT": "http://a/x/../y"}, "OSTIARY_OTLP_ENDPOINT: http://a/x/../y cannot be called"),
        ({"OSTIARY_OTLP_HEADERS": "a=b"}, "OSTIARY_OTLP_HEADERS is set, but OSTIARY_OTLP_ENDPOINT is not"),
        ({"OSTIARY_OTLP_ENDPOINT": "http://a", "OSTIARY_OTLP_HEADERS": "CANARY"}, "is not of the form name=value"),
        ({"OSTIARY_OTLP_ENDPOINT": "http://a", "OSTIARY_OTLP_HEADERS": "a=%0aCANARY"}, "is not of the form name=value"),
        ({"OSTIARY_OTLP_ENDPOINT": "http://a", "OSTIARY_OTLP_HEADERS": "Host=CANARY"}, "must not hold any of"),
    ],
)
def test_settings_that_cannot_be_stop_the_start(gateways: GatewayMaker, env: dict[str, str], said: str) -> None:
    gateway = gateways(start=False, env=env)
    assert gateway.spawn().wait(30) == 1
    assert said in gateway.output
    assert "CANARY" not in gateway.output


def test_that_spans_go_to_a_private_address_opens_it_to_nobody_else(
    gateways: GatewayMaker, upstream: Upstream, collector: Collector
) -> None:
    gateway = traced(gateways, upstream, collector.url)
    words = ("--name", "spy", "--base-url", f"{collector.url}/v1", "--no-test", "--secret-stdin")
    refused = gateway.cli("vault", "add", "openai-compatible", *words, stdin="x" * 20, check=False)
    assert refused.code == 1
    assert "OSTIARY_EGRESS_ALLOW" in refused.err
