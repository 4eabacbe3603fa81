"""How a caller's windows stand, as `x-ratelimit-*` headers."""

from __future__ import annotations

from typing import Final

from ostiary.clock import Clock, day_ends
from ostiary.limits.reserve import Hold
from ostiary.limits.windows import ALL, NEVER

_SECOND_MS: Final = 1_000
_LINES: Final = {
    unit: b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%ds\r\n"
    % (unit, unit, unit)
    for unit in (b"requests", b"tokens")
}


def pace_lines(hold: Hold, clock: Clock) -> bytes:
    """Limit, remaining and reset (in seconds) of the windows with the least left, of requests and of tokens.

    Header lines as they are sent; nothing where there is no limit. Remaining is what this call left when it was let in;
    what other processes have is not to be had here.
    """
    told = hold.fitted.told
    if not told:
        return b""
    now, at = clock.monotonic(), clock.now()
    counts, lines = hold.counts, b""
    for unit, checks in told:
        _, window, limit = checks[0]
        least = ALL
        for place, one, bound in checks:
            left = (min(bound, one.leased + one.room) if one.asked_at > NEVER else bound) - counts[place]
            if left < least:
                least, limit, window = left, bound, one
        reset_s = (day_ends(at) - at) / _SECOND_MS if window.name == "day" else window.reset_s(now)
        lines += _LINES[unit] % (limit, max(least, 0), round(reset_s))
    return lines
