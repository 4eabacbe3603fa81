"""How a caller's windows stand, as `x-ratelimit-*` headers."""

from __future__ import annotations

from typing import Final

from ostiary.clock import Clock, day_ends, day_of
from ostiary.limits.local import Fitted
from ostiary.limits.windows import ALL

_SECOND_MS: Final = 1_000
_LINES: Final = {
    unit: b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%ds\r\n"
    % (unit, unit, unit)
    for unit in (b"requests", b"tokens")
}


def pace_lines(fitted: Fitted, clock: Clock) -> bytes:
    """Limit, remaining and reset (in seconds) of the windows with the least left, of requests and of tokens.

    Header lines as they are sent; nothing where there is no limit. It is asked at every answer, so it looks at each
    window once.
    """
    if not fitted.told:
        return b""
    now, at = clock.monotonic(), clock.now()
    day = day_of(at)
    lines = b""
    for unit, checks in fitted.told:
        window, limit = checks[0]
        least = ALL
        for one, bound in checks:
            left = one.left(bound, now, day)
            if left < least:
                least, limit, window = left, bound, one
        reset_s = (day_ends(at) - at) / _SECOND_MS if window.name == "day" else window.reset_s(now)
        lines += _LINES[unit] % (limit, least, round(reset_s))
    return lines
