"""An OpenTelemetry collector, as far as spans by OTLP/HTTP go; it reads them by the messages that are published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire

from tests.servers.upstream import Behaviour, Exchange, Received, Upstream
from tests.servers.waiting import until
from tests.servers.wire import whole


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it came."""

    wire: Wire
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.wire.name)

    @property
    def is_call(self) -> bool:
        """Whether it is a call's, and not an attempt's."""
        return "gen_ai.operation.name" in self.attributes

    @property
    def is_error(self) -> bool:
        """Whether it says that something failed."""
        return bool(self.wire.status.code == 2)


@dataclass(slots=True)
class Collector:
    """What it took is in `spans`; every request, taken or not, in `requests`."""

    server: Upstream
    spans: list[Seen] = field(default_factory=list)
    status: int = 200
    """What to answer; anything but 200 takes nothing."""
    lines: tuple[bytes, ...] = ()
    """In the head of each answer."""
    unwanted: int = 0
    """How many spans of a request it says it has not taken."""

    def __post_init__(self) -> None:
        self.server.choose = self._behave

    @property
    def url(self) -> str:
        """As OSTIARY_OTLP_ENDPOINT."""
        return self.server.origin

    @property
    def requests(self) -> list[Received]:
        """Everything that came."""
        return self.server.received

    def wait_for(self, calls: int, timeout_s: float = 30) -> list[Seen]:
        """Block until the spans of so many calls are here; those of calls, in the order of their beginnings."""
        until(lambda: len(self.calls) >= calls, f"{calls} calls at the collector", timeout_s)
        return sorted(self.calls, key=lambda one: one.wire.start_time_unix_nano)

    @property
    def calls(self) -> list[Seen]:
        """Those of calls."""
        return [span for span in self.spans if span.is_call]

    def below(self, call: Seen) -> list[Seen]:
        """The attempts of a call, in their order."""
        found = [span for span in self.spans if span.wire.parent_span_id == call.wire.span_id]
        return sorted(found, key=lambda one: one.attributes["ostiary.attempt"])

    def of(self, request_id: str) -> Seen:
        """The one call of this id, once it is here."""
        until(lambda: any(self._is(span, request_id) for span in self.calls), f"the spans of {request_id}")
        [found] = [span for span in self.calls if self._is(span, request_id)]
        return found

    def _is(self, span: Seen, request_id: str) -> bool:
        return bool(span.attributes["ostiary.request_id"] == request_id)

    def _behave(self, _request: Received) -> Behaviour:
        return self._answer

    async def _answer(self, exchange: Exchange) -> None:
        if self.status != 200:
            await exchange.send(whole(self.status, b"no", *self.lines))
            return
        assert exchange.request.target == "/v1/traces"
        assert exchange.request.header("content-type") == "application/x-protobuf"
        self.spans += _read(exchange.request.body)
        said = ExportTraceServiceResponse()
        if self.unwanted:
            partial = ExportTracePartialSuccess(rejected_spans=self.unwanted, error_message="not these")
            said = ExportTraceServiceResponse(partial_success=partial)
        await exchange.send(whole(200, said.SerializeToString()))


def _read(body: bytes) -> list[Seen]:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    return [
        Seen(span, _values(span.attributes), _values(of_resource.resource.attributes))
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _values(pairs: Any) -> dict[str, Any]:
    found = {pair.key: _value(pair) for pair in pairs}
    assert len(found) == len(pairs), "an attribute came twice"
    return found


def _value(pair: KeyValue) -> Any:
    return getattr(pair.value, str(pair.value.WhichOneof("value")))


@contextmanager
def running(port: int = 0) -> Iterator[Collector]:
    """Serve while the block runs."""
    server = Upstream()
    made = Collector(server)
    with server.running(port):
        yield made
    assert not server.faults, f"the collector itself went wrong: {server.faults}"
