"""How a caller's windows stand, as `x-ratelimit-*` headers."""

from __future__ import annotations

from typing import Final

from ostiary.clock import Clock, day_ends, day_of
from ostiary.limits.local import Allowance, Fitted, LocalCounters
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
    return _lines(hold.fitted, hold.counts, clock) if hold.fitted.told else b""


def refused_lines(counters: LocalCounters, allowance: Allowance, clock: Clock) -> bytes:
    """The same where a call was refused: what is left now, as it counts nowhere."""
    fitted = counters.fit(allowance)
    now, day = clock.monotonic(), day_of(clock.now())
    return _lines(fitted, [window.used(now, day) for window in fitted.windows], clock)


def _lines(fitted: Fitted, counts: list[int], clock: Clock) -> bytes:
    now, at, lines = clock.monotonic(), clock.now(), b""
    for unit, checks in fitted.told:
        _, window, limit = checks[0]
        least = ALL
        for place, one, bound in checks:
            left = (min(bound, one.leased + one.room) if one.asked_at > NEVER else bound) - counts[place]
            if left < least:
                least, limit, window = left, bound, one
        reset_s = (day_ends(at) - at) / _SECOND_MS if window.name == "day" else window.reset_s(now)
        # What others have taken is no concern of this process's window; it is not had at once all the same.
        lines += _LINES[unit] % (limit, max(least, 0), max(round(reset_s), 1 if least <= 0 else 0))
    return lines
