"""How amounts, counts and times are written on pages (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ostiary.clock import DAY_MS, moment
from ostiary.money import NANO_PER_USD, show_usd

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_UNITS: Final = ((365 * DAY_MS, "y"), (30 * DAY_MS, "mo"), (DAY_MS, "d"), (_HOUR_MS, "h"), (_MINUTE_MS, "min"))
_JUST_NOW_MS: Final = 45_000
_CENT: Final = NANO_PER_USD // 100
LEVELS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("active", "healthy", "ok", "valid", "alive", "live", "delivered", "verified"), "good"),
    **dict.fromkeys(("expired", "degraded", "cooling", "exhausted", "needs_reauth", "overlapping", "pending"), "warn"),
    **dict.fromkeys(("revoked", "unhealthy", "disabled", "undecryptable", "error", "failed", "lost"), "bad"),
}
"""How good a state is, as its pill is coloured."""


def usd(nano: int | None) -> str:
    """Nano-dollars to the digits that matter: `$1,234`, `$12.34`, `$0.0042`, `$0`."""
    if nano is None:
        return "–"
    if nano == 0:
        return "$0"
    amount = abs(nano)
    sign = "-" if nano < 0 else ""
    if amount >= 1_000 * NANO_PER_USD:
        return f"{sign}${(amount + NANO_PER_USD // 2) // NANO_PER_USD:,}"
    if amount < _CENT:
        last = 10 ** max(len(str(amount)) - 2, 0)
        amount = _nearest(amount, last)
    if amount < _CENT:
        return f"{sign}${show_usd(amount)}"
    cents = (amount + _CENT // 2) // _CENT
    return f"{sign}${cents // 100:,}.{cents % 100:02d}"


def usd_exact(nano: int | None) -> str:
    """Every digit, for who hovers, and for parts that come to a sum."""
    return "" if nano is None else f"${show_usd(nano)}"


def number(value: int | None) -> str:
    """A count with its thousands apart."""
    return "–" if value is None else f"{value:,}"


def short(value: int | None) -> str:
    """A large count in few characters: `12.4k`, `3.1M`."""
    if value is None:
        return "–"
    for unit, name in ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "k")):
        if value >= unit:
            scaled = value / (1_000 if name == "k" else unit)
            return f"{scaled:.1f}".removesuffix(".0") + name
    return f"{value:,}"


def percent(part: float) -> str:
    """A share of 1: `12.5 %`, `< 0.1 %`."""
    if 0 < part < 0.001:  # noqa: PLR2004 - a tenth of a percent
        return "< 0.1 %"
    return f"{part * 100:.1f}".removesuffix(".0") + " %"


def lasting(ms: int | None) -> str:
    """A span of time: `840 ms`, `1.2 s`, `5 min`, `3 h`, `30 d`."""
    if ms is None:
        return "–"
    if ms < 1_000:  # noqa: PLR2004 - a second
        return f"{ms} ms"
    if ms < 60_000:  # noqa: PLR2004 - a minute
        return f"{ms / 1_000:.1f}".removesuffix(".0") + " s"
    unit, name = next((unit, name) for unit, name in _UNITS if ms >= unit)
    return f"{ms // unit} {name}"


def left(ms: int) -> str:
    """How long something goes on, to the nearest: what is made for 30 days has `30 d` left a second later, too."""
    fine = next((unit for unit in (DAY_MS, _HOUR_MS) if ms >= 2 * unit), _MINUTE_MS)
    whole = max(_nearest(ms, fine), _MINUTE_MS)
    unit, name = next((unit, name) for unit, name in _UNITS if whole >= unit)
    return "30 d" if whole == 30 * DAY_MS else f"{_nearest(whole, unit) // unit} {name}"


def _nearest(value: int, unit: int) -> int:
    return (value + unit // 2) // unit * unit


def relative(at: int, now: int) -> str:
    """How long ago, or how soon: `3 min ago`, `in 5 d`; what is past in full, what comes to the nearest."""
    away = now - at
    if abs(away) < _JUST_NOW_MS:
        return "just now"
    return f"{lasting(max(_MINUTE_MS, away))} ago" if away > 0 else f"in {left(-away)}"


def exact(at: int) -> str:
    """A time to the second, in UTC."""
    return moment(at).replace(tzinfo=None).isoformat(" ", "seconds") + " UTC"


def date(at: int) -> str:
    """A day, in UTC."""
    return moment(at).date().isoformat()


def fill(spent: int, cap: int | None) -> tuple[int, str]:
    """How full a budget is in percent, at most 100, and how bad that is: green below 70, amber below 90, else red."""
    if not cap:
        return (100, "bad") if cap == 0 else (0, "good")
    share = spent * 100 // cap
    return min(share, 100), "good" if share < 70 else "warn" if share < 90 else "bad"  # noqa: PLR2004 - as the pages say
