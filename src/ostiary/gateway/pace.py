"""How a caller's windows stand, as `x-ratelimit-*` headers."""

from __future__ import annotations

from ostiary.gateway.exchange import Headers
from ostiary.limits.local import Allowance, LocalCounters


def pace_headers(counters: LocalCounters, allowance: Allowance) -> Headers:
    """Limit, remaining and reset (in seconds) of the window with the least left; nothing where there is no limit."""
    pace = counters.tightest(allowance)
    if pace is None:
        return []
    return [
        (b"x-ratelimit-limit-requests", b"%d" % pace.limit),
        (b"x-ratelimit-remaining-requests", b"%d" % pace.remaining),
        (b"x-ratelimit-reset-requests", b"%ds" % max(round(pace.reset_s), 0)),
    ]
