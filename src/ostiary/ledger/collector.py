"""The collector that spans are sent to: where it is, what it wants to see, and what comes of one request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from ostiary.errors import CannotStart
from ostiary.providers.egress import Blocked, Egress
from ostiary.providers.transport import FRAMING, Transport, TransportError, Waits
from ostiary.secret import Secret
from ostiary.settings import Settings

_PATH: Final = "/v1/traces"
_ORIGIN: Final = re.compile(r"https?://[^/]+", re.IGNORECASE)
_WAITS: Final = Waits(connect_s=5, first_byte_s=10, idle_s=10, total_s=15)
_LONGEST_ANSWER: Final = 65_536
_OK: Final = 200
_LATER: Final = (429, 502, 503, 504)
"""What OTLP lets be sent again; whatever else is refused is refused for good."""
_SECONDS: Final = re.compile(r"[0-9]{1,4}")
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]+")
_OURS: Final = FRAMING | {"content-type", "user-agent"}


class Unsent(Exception):  # noqa: N818 - what came of a request
    """A request was not taken. `is_final`: nor would it be another time. `wait_s` is what the collector asks for."""

    def __init__(self, text: str, *, is_final: bool = False, wait_s: int | None = None) -> None:
        self.text = text
        self.is_final = is_final
        self.wait_s = wait_s
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Collector:
    """Opened by `reach`; what is sent goes there and nowhere else."""

    url: str
    origin: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    egress: Egress = field(repr=False)
    transport: Transport = field(repr=False)

    async def send(self, body: bytes) -> bytes:
        """One request; what was answered. Raises Unsent."""
        try:
            answer = await self.transport.send("POST", self.url, self.headers, body, _WAITS)
            said = await answer.read(_LONGEST_ANSWER)
        except TransportError as error:
            raise Unsent(f"It was not reached: {error.text}.") from None
        if answer.status == _OK:
            return said
        asked = answer.headers.get("retry-after")
        wait_s = int(asked) if _SECONDS.fullmatch(asked) else None
        raise Unsent(f"It answered {answer.status}.", is_final=answer.status not in _LATER, wait_s=wait_s)


@asynccontextmanager
async def reach(settings: Settings) -> AsyncIterator[Collector | None]:
    """The collector of the settings, if there is one. Raises CannotStart where it cannot be reached as they say.

    It has an egress guard of its own that lets only its own origin pass: that the operator sends spans to a private
    address opens this address to nobody's provider keys and webhooks.
    """
    if settings.otlp_endpoint is None:
        if settings.otlp_headers is not None:
            raise CannotStart("OSTIARY_OTLP_HEADERS is set, but OSTIARY_OTLP_ENDPOINT is not.")
        yield None
        return
    url = settings.otlp_endpoint.removesuffix(_PATH) + _PATH
    found = _ORIGIN.match(url)
    try:
        egress = Egress((found[0],) if found else ())
        origin = egress.check_url(url).origin
    except (Blocked, CannotStart) as error:
        raise CannotStart(f"OSTIARY_OTLP_ENDPOINT: {settings.otlp_endpoint} cannot be called.") from error
    transport = Transport(egress)
    await transport.open()
    try:
        yield Collector(url, origin, (*_ours(), *headers_in(settings.otlp_headers)), egress, transport)
    finally:
        await transport.close()


def _ours() -> tuple[tuple[str, str], ...]:
    return ("content-type", "application/x-protobuf"), ("user-agent", "ostiary")


def headers_in(given: Secret | None) -> tuple[tuple[str, str], ...]:
    """The headers of a text as OpenTelemetry's own settings have it; raises CannotStart without showing any of it."""
    if given is None:
        return ()
    pairs = [part.partition("=") for part in given.reveal().split(",") if part.strip()]
    found = tuple((name.strip().lower(), unquote(value.strip())) for name, _, value in pairs)
    if not found or not all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in found):
        raise CannotStart("OSTIARY_OTLP_HEADERS is not of the form name=value,name=value, escaped with %.")
    if _OURS & {name for name, _ in found}:
        raise CannotStart(f"OSTIARY_OTLP_HEADERS must not hold any of {', '.join(sorted(_OURS))}.")
    return found
