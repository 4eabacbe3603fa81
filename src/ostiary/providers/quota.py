"""When a provider says that a key may be used again, and how much of its quota is left (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from ostiary.providers.transport import Headers

_SECOND_MS: Final = 1_000
_LONGEST_MS: Final = 31 * 86_400 * _SECOND_MS
_HOUR_MS: Final = 3_600 * _SECOND_MS
_PACIFIC_MIDNIGHTS: Final = (7, 8)
"""In hours of UTC. Quotas of the day are reset then: ai.google.dev/gemini-api/docs/rate-limits."""
_OF_THE_DAY: Final = re.compile(r"PerDay(?![a-z])")
"""As in GenerateRequestsPerDayPerProjectPerModel-FreeTier: langgenius/dify#19838, google-gemini/gemini-cli#8437."""
_NUMBER: Final = re.compile(r"\d{1,7}(?:\.\d{1,20})?")
_DURATION: Final = re.compile(r"(\d{1,7}(?:\.\d{1,20})?)(ms|us|µs|ns|h|m|s)")
_UNITS_MS: Final = {"h": 3_600_000.0, "m": 60_000.0, "s": 1_000.0, "ms": 1.0, "us": 0.001, "µs": 0.001, "ns": 0.000_001}
_SPANS: Final = ("minute", "hour", "day")
_WINDOWS: Final = ("requests", "tokens", *(f"{what}-{span}" for what in ("requests", "tokens") for span in _SPANS))
_FAMILIES: Final = (
    *((window, *(f"x-ratelimit-{what}-{window}" for what in ("remaining", "reset", "limit"))) for window in _WINDOWS),
    *(
        (window, *(f"anthropic-ratelimit-{window}-{what}" for what in ("remaining", "reset", "limit")))
        for window in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
    ("requests", "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-limit"),
    ("requests", "ratelimit-remaining", "ratelimit-reset", "ratelimit-limit"),
)
"""OpenAI's and those who took them over, by the window's length those of Cerebras and SambaNova, Anthropic's, and the
plain ones of OpenRouter and others. Mistral's `…-req-minute` are not among them: nothing says when it has more."""
TELLING: Final = frozenset(remaining.encode() for _, remaining, *_ in _FAMILIES)
"""The fields of an answer's head that say how much is left of something."""
_LOW: Final = 10
"""Nearly dry is what has less than one part in so many left."""
_AMOUNT: Final = re.compile(r"(\d{1,15})(?:\.\d{1,20})?")


@dataclass(frozen=True, slots=True)
class Left:
    """How much is left of what is limited: `requests`, `tokens-day` …; `most` is the limit. None: nobody said."""

    what: str
    remaining: int
    most: int | None
    resets_at: int | None

    def is_low(self, at: int) -> bool:
        """Whether it is nearly used up, with more to come only later."""
        known = self.most is not None and self.resets_at is not None and self.resets_at > at
        return known and self.remaining * _LOW < (self.most or 0)


def left(headers: Headers, at: int) -> list[Left]:
    """What an answer says of each limit, whether or not anything is used up; the first word counts."""
    found: dict[str, Left] = {}
    for what, remaining, reset, limit in _FAMILIES:
        amount = _amount(headers.get(remaining))
        if amount is not None and what not in found:
            found[what] = Left(what, amount, _amount(headers.get(limit)), _moment(headers.get(reset), at))
    return list(found.values())


def _amount(text: str) -> int | None:
    said = _AMOUNT.fullmatch(text)
    return int(said[1]) if said else None


def resets_at(headers: Headers, body: Mapping[str, object] | None, at: int) -> int | None:
    """When a key that was refused for its pace may be used again, in milliseconds; None where nobody said.

    A quota of the day is back with the next day, whatever else is said. The provider's plain word (`retry-after`,
    Google's `retryDelay`) counts more than its windows; of those that are used up, the last one to open again.
    """
    if is_of_the_day(body):
        return _next_pacific_day(at)
    said = _plain(headers, at) or _retry_delay(body, at)
    return said if said is not None else spent_until(headers, at)


def is_of_the_day(body: Mapping[str, object] | None) -> bool:
    """Whether Google names a quota of the day among those that are used up: its `retryDelay` is of the minute then."""
    for detail in _details(body):
        violations = detail.get("violations")
        for one in violations if isinstance(violations, list) else ():
            id = one.get("quotaId") if isinstance(one, Mapping) else None
            if isinstance(id, str) and _OF_THE_DAY.search(id):
                return True
    return False


def _next_pacific_day(at: int) -> int:
    """The next moment at which it can be midnight in California: in winter an hour later than in summer."""
    hour = at // _HOUR_MS + 1
    while hour % 24 not in _PACIFIC_MIDNIGHTS:
        hour += 1
    return hour * _HOUR_MS


def is_spent(fields: Mapping[bytes, bytes]) -> bool:
    """Whether any window is used up, by the plain fields of an answer's head: asked at every call."""
    return any(_is_none(fields[name]) for name in TELLING.intersection(fields))


def _is_none(left: bytes) -> bool:
    """Whether a number is zero, however it is written: `0`, `0.0`."""
    return not left.strip(b"0. ") and b"0" in left


def spent_until(headers: Headers, at: int) -> int | None:
    """When the last of the windows that are used up opens again; None where none is."""
    spent = [reset for _, remaining, reset, _ in _FAMILIES if _is_none(headers.get(remaining).encode())]
    ends = [_moment(headers.get(reset), at) for reset in spent]
    known = [end for end in ends if end is not None]
    return max(known) if known else None


def _plain(headers: Headers, at: int) -> int | None:
    ms = headers.get("retry-after-ms")
    if _NUMBER.fullmatch(ms):
        return _bounded(at + round(float(ms)), at)
    return _moment(headers.get("retry-after"), at)


def _retry_delay(body: Mapping[str, object] | None, at: int) -> int | None:
    """Google's `RetryInfo` among the details of an error."""
    for detail in _details(body):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (found := _moment(delay, at)) is not None:
            return found
    return None


def _details(body: Mapping[str, object] | None) -> list[Mapping[str, object]]:
    """What Google says of an error beside its message."""
    error = (body or {}).get("error")
    details = error.get("details") if isinstance(error, Mapping) else None
    return [one for one in details if isinstance(one, Mapping)] if isinstance(details, list) else []


def _moment(text: str, at: int) -> int | None:
    """A time in any of the ways providers write it: seconds, `6m0s`, RFC 3339, an HTTP date, the epoch's seconds."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return _bounded(at + round(float(text) * _SECOND_MS), at)
    if text.isdecimal() and len(text) <= len("1795305540000"):  # more digits than any wait: a moment
        return _bounded(int(text) * (1 if len(text) > len("1795305540") else _SECOND_MS), at)
    if text and _DURATION.sub("", text) == "":
        return _bounded(at + round(sum(float(n) * _UNITS_MS[unit] for n, unit in _DURATION.findall(text))), at)
    return _date(text, at)


def _date(text: str, at: int) -> int | None:
    try:
        when = datetime.fromisoformat(text) if text[:4].isdecimal() else parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return _bounded(round(when.timestamp() * _SECOND_MS), at)


def _bounded(moment: int, at: int) -> int | None:
    """What is past, or further ahead than a month, says nothing."""
    return moment if at < moment <= at + _LONGEST_MS else None
