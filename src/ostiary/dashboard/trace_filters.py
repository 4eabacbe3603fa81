"""What traces are filtered by, as it stands in addresses: read, refused field by field, and written again (pure)."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from ostiary.dashboard import periods
from ostiary.dashboard.forms import Form
from ostiary.dashboard.periods import Period
from ostiary.errors import Refusal
from ostiary.ledger.reports import Filter, Place
from ostiary.money import nano_of

NAMES: Final = (
    *("agent_key", "provider_key", "endpoint", "status", "period", "since", "until", "model", "provider"),
    *("min_latency_ms", "min_cost_usd"),
)
STATUSES: Final = ("ok", "error", "cancelled", "unknown")
PERIODS: Final = ("1h", "24h", "7d", "30d", "90d", "month", "all", "custom")
USUAL: Final = "24h"
_LONGEST: Final = 200
_LONGEST_MS: Final = 86_400_000
_LONGEST_CURSOR: Final = 1_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What the visitor wants to see. Keys and endpoints are as they were typed."""

    period: Period
    agent_key: str
    provider_key: str
    endpoint: str
    status: str | None
    model: str | None
    provider: str | None
    min_latency_ms: int | None
    min_cost_nano: int | None

    def filter(self, agent_key_ids: list[str] | None, provider_key_id: str | None) -> Filter:
        """As the ledger takes it."""
        return Filter(
            agent_key_ids,
            self.status,
            self.period.since_at,
            self.period.until_at,
            self.model,
            self.provider,
            self.min_latency_ms,
            self.min_cost_nano,
            provider_key_id,
            self.endpoint or None,
        )


def read(query: Form, at: int) -> Asked:
    """The filters of an address; refuses values that are none. Texts too long for any name find nothing."""
    texts = {name: query.text(name)[: _LONGEST + 1] for name in NAMES}
    status = texts["status"]
    if status and status not in STATUSES:
        raise Refusal("invalid_field", f"A status is {', '.join(STATUSES)}.", param="status")
    latency = query.number("min_latency_ms", at_least=0)
    if latency is not None and latency > _LONGEST_MS:
        raise Refusal("invalid_field", "No call takes longer than a day.", param="min_latency_ms")
    return Asked(
        period=periods.read(query, at, USUAL),
        agent_key=texts["agent_key"],
        provider_key=texts["provider_key"],
        endpoint=texts["endpoint"],
        status=status or None,
        model=texts["model"] or None,
        provider=texts["provider"] or None,
        min_latency_ms=latency or None,
        min_cost_nano=_cost(texts["min_cost_usd"]),
    )


def _cost(text: str) -> int | None:
    try:
        return (int(nano_of(text.removeprefix("$"))) or None) if text else None
    except ValueError:
        raise Refusal("invalid_field", "Give dollars, such as 0.05.", param="min_cost_usd") from None


def address_of(query: Form, **more: str | None) -> str:
    """The query of an address with the same filters."""
    kept = [(name, query.text(name)) for name in NAMES if query.text(name)]
    return urlencode([*kept, *((name, value) for name, value in more.items() if value)])


# ---- pages ------------------------------------------------------------------------------------------------------


def cursor_of(*place: int | str) -> str:
    """What stands for the place behind which the next page begins."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).rstrip(b"=").decode()


def place_of(cursor: str, kinds: tuple[type, ...]) -> tuple[int | str, ...] | None:
    """What a cursor stands for, None at the beginning; refuses one that no page has given."""
    if not cursor:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor[:_LONGEST_CURSOR].encode("ascii") + b"=="))
    except (ValueError, binascii.Error, RecursionError):
        place = None
    fits = isinstance(place, list) and [type(one) for one in place] == list(kinds)
    if not fits or any(type(one) is int and abs(one) >= 1 << 62 for one in place or ()):
        raise Refusal("invalid_field", "This page is from elsewhere. Begin at the first one.", param="cursor")
    return tuple(place or ())


def trace_place(cursor: str) -> Place | None:
    """Behind which attempt a page begins."""
    match place_of(cursor, (int, str, int)):
        case (int() as at, str() as request_id, int() as attempt):
            return Place(at, request_id, attempt)
        case _:
            return None
