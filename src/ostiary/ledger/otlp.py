"""Spans as OTLP has them on the wire, by the messages OpenTelemetry publishes; their only importer, and a late one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ostiary.errors import CannotStart
from ostiary.ledger.spans import Span, Value

_SCOPE: Final = "ostiary"
_SAMPLED: Final = 0x001
_SAYS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
"""Flags of a span: beside those of W3C, whether its parent is known to be another process's."""


class Otlp:
    """Makes requests and reads their answers."""

    def __init__(self, resource: Mapping[str, str], version: str) -> None:
        """`resource` says of whom spans are. Raises CannotStart where the messages are not installed."""
        try:
            from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415 - seldom wanted
            from opentelemetry.proto.trace.v1 import trace_pb2  # noqa: PLC0415 - as above
        except ImportError as error:
            raise CannotStart(
                "OSTIARY_OTLP_ENDPOINT is set, but what sends spans is not installed. "
                "Run: pip install 'ostiary[otel]' (in a checkout: uv sync --extra otel)."
            ) from error
        self._messages: Any = trace_service_pb2
        self._spans: Any = trace_pb2
        self._resource = resource
        self._version = version

    def batch(self) -> Batch:
        """An empty request."""
        return Batch(self._messages.ExportTraceServiceRequest(), self._spans, self._resource, self._version)

    def refused(self, body: bytes) -> tuple[int, str]:
        """How many spans a collector that took a request has not taken, and why; an answer in other words says none."""
        answer = self._messages.ExportTraceServiceResponse()
        try:
            answer.ParseFromString(body)
        except Exception:  # noqa: BLE001 - whatever protobuf calls it: it is no such message
            return 0, ""
        return max(answer.partial_success.rejected_spans, 0), answer.partial_success.error_message


class Batch:
    """One request as it is filled."""

    def __init__(self, request: Any, spans: Any, resource: Mapping[str, str], version: str) -> None:  # noqa: ANN401 - protobuf's messages
        self._request = request
        self._kinds = spans
        of_resource = request.resource_spans.add()
        for name, value in resource.items():
            _put(of_resource.resource.attributes.add(), name, value)
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name, of_scope.scope.version = _SCOPE, version
        self._spans = of_scope.spans

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, span: Span) -> None:
        """One more span."""
        made = self._spans.add()
        made.trace_id, made.span_id, made.parent_span_id = span.trace_id, span.span_id, span.parent_id
        made.name = _text(span.name)
        made.kind = self._kinds.Span.SPAN_KIND_CLIENT
        made.start_time_unix_nano, made.end_time_unix_nano = span.begins_ns, span.ends_ns
        made.flags = _SAMPLED | _SAYS_REMOTE | (_IS_REMOTE if span.has_remote_parent else 0)
        if span.is_error:
            made.status.code = self._kinds.Status.STATUS_CODE_ERROR
        for name, value in span.attributes.items():
            _put(made.attributes.add(), name, value)

    def pack(self) -> bytes:
        """The request's body."""
        return bytes(self._request.SerializeToString())


def _put(pair: Any, name: str, value: Value) -> None:  # noqa: ANN401 - a protobuf message
    pair.key = name
    if isinstance(value, str):
        pair.value.string_value = _text(value)
    elif isinstance(value, bool):
        pair.value.bool_value = value
    elif isinstance(value, int):
        pair.value.int_value = value
    else:
        pair.value.double_value = value


def _text(text: str) -> str:
    """What protobuf takes: half of a pair of surrogates is no text to it."""
    return text.encode(errors="replace").decode()
