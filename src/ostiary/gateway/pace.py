"""How a caller's windows stand, as `x-ratelimit-*` headers."""

from __future__ import annotations

from typing import Final

from ostiary.clock import Clock, day_ends, day_of
from ostiary.gateway.exchange import Headers
from ostiary.limits.local import Fitted
from ostiary.limits.windows import Window

_SECOND_MS: Final = 1_000
_NAMES: Final = {
    unit: (b"x-ratelimit-limit-" + unit, b"x-ratelimit-remaining-" + unit, b"x-ratelimit-reset-" + unit)
    for unit in (b"requests", b"tokens")
}


def pace_headers(fitted: Fitted, clock: Clock) -> Headers:
    """Limit, remaining and reset (in seconds) of the windows with the least left, of requests and of tokens.

    Nothing where there is no limit. It is asked at every answer, so it looks at each window once.
    """
    headers: Headers = []
    if not fitted.told:
        return headers
    now, at = clock.monotonic(), clock.now()
    day = day_of(at)
    for unit, checks in fitted.told:
        left, limit, window = _least(checks, now, day)
        reset_s = (day_ends(at) - at) / _SECOND_MS if window.name == "day" else window.reset_s(now)
        names = _NAMES[unit]
        headers.append((names[0], b"%d" % limit))
        headers.append((names[1], b"%d" % left))
        headers.append((names[2], b"%ds" % max(round(reset_s), 0)))
    return headers


def _least(checks: tuple[tuple[Window, int], ...], now: float, day: int) -> tuple[int, int, Window]:
    window, limit = checks[0]
    least = window.left(limit, now, day), limit, window
    for window, limit in checks[1:]:
        left = window.left(limit, now, day)
        if left < least[0]:
            least = left, limit, window
    return least
