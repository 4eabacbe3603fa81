"""How a provider key is, and what a failure or a success makes of that: one pure table."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from ostiary.providers.verdict import Cause

State = Literal["degraded", "unhealthy", "cooling", "exhausted", "disabled", "needs_reauth", "undecryptable"]

LASTING: Final = frozenset({"disabled", "needs_reauth", "undecryptable"})
"""What only a person can mend."""

SECOND_MS: Final = 1_000
_HOUR_MS: Final = 3_600 * SECOND_MS
_LONGEST_MS: Final = _HOUR_MS
"""No cool-down is longer: after it, real traffic asks again."""
_FIRST_MS: Final = 5 * SECOND_MS
_DOUBT_MS: Final = 30 * SECOND_MS
"""How long a key that failed once or twice comes after those that are well."""
_TRIAL_MS: Final = 10 * SECOND_MS
"""How long one call has for showing whether a key is well again, before the next may try."""
UNHEALTHY_FROM: Final = 3
_MOST_DOUBLINGS: Final = 12


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is known against a key, or one model of it. Times in milliseconds; `until` None: until somebody acts."""

    state: State
    failures: int
    reason: str
    since: int
    until: int | None
    failed_at: int = 0
    """When it failed last, where this process saw it."""

    def is_skipped(self, at: int) -> bool:
        """Whether no call should go there now; after `until` the next one finds out."""
        return self.state != "degraded" and self._counts(at)

    def is_doubtful(self, at: int) -> bool:
        """Whether others that are well come first, though it may still be used."""
        return self.state == "degraded" and self._counts(at)

    def turn_at(self, at: int) -> float:
        """When it ceases to count, or begins to: what is later than any cool-down can be does not count yet."""
        if self.until is None or self.until <= at:
            return inf
        return self.until if self._counts(at) else self.until - _LONGEST_MS

    def _counts(self, at: int) -> bool:
        """Not over; what ends later than any cool-down can was written by a clock that was ahead."""
        return self.until is None or at < self.until <= at + _LONGEST_MS


def is_of_model(cause: Cause) -> bool:
    """Whether only the model at this key pays for it, or the whole key."""
    return cause in ("pace", "quota", "denied")


def is_of_account(cause: Cause) -> bool:
    """Whether all keys of an account share it; then the provider may say when it is over."""
    return cause in ("pace", "quota", "money")


def worsened(known: Trouble | None, cause: Cause, reason: str, at: int, resets_at: int | None) -> Trouble:
    """What is known after one more failure; `resets_at` is when the provider says that it will be well again.

    | cause   | state                              | until                                       |
    |---------|------------------------------------|---------------------------------------------|
    | failed  | degraded, from the third unhealthy | 30 s; 5 s, doubled with each failure        |
    | bad_key | like failed, until it is confirmed | likewise                                    |
    | pace    | cooling                            | what the provider says, else like failed    |
    | money   | exhausted                          | what the provider says, else an hour        |
    | quota   | exhausted                          | the provider's next day                     |
    | denied  | cooling                            | 5 s, doubled with each failure              |
    """
    if known is not None and known.state in LASTING:
        return known
    failures = 1 if known is None else known.failures + 1
    since = at if known is None else known.since
    if cause in ("money", "quota"):
        return Trouble("exhausted", failures, reason, since, _soon(at, resets_at, _HOUR_MS), at)
    is_rest = is_of_model(cause)
    doubled = _FIRST_MS << min(max(failures - (1 if is_rest else UNHEALTHY_FROM), 0), _MOST_DOUBLINGS)
    if is_rest:
        return Trouble("cooling", failures, reason, since, _soon(at, resets_at, doubled), at)
    if failures < UNHEALTHY_FROM:
        return Trouble("degraded", failures, reason, since, at + _DOUBT_MS, at)
    return Trouble("unhealthy", failures, reason, since, _soon(at, None, doubled), at)


def disabled(known: Trouble | None, reason: str, at: int) -> Trouble:
    """The provider has confirmed that the credential is not valid: only a person can mend that."""
    return Trouble("disabled", known.failures if known else 1, reason, known.since if known else at, None, at)


def spared(known: Trouble, at: int) -> Trouble:
    """The same key, where it turned out to be the last: it is not disabled, and those that are well go first."""
    return Trouble("degraded", known.failures, known.reason, known.since, at + _DOUBT_MS, known.failed_at)


def on_trial(known: Trouble, at: int) -> Trouble:
    """One call is on its way to find out; others keep away until it has."""
    return Trouble(known.state, known.failures, known.reason, known.since, at + _TRIAL_MS, known.failed_at)


def _soon(at: int, resets_at: int | None, otherwise_ms: int) -> int:
    """The moment the provider named, if it is one ahead; never further than an hour."""
    if resets_at is None or resets_at <= at:
        return at + min(otherwise_ms, _LONGEST_MS)
    return min(resets_at, at + _LONGEST_MS)


# ---- when it is not the key -------------------------------------------------------------------------------------

_WINDOW_MS: Final = 60 * SECOND_MS
_LEAST_KEYS: Final = 3
_SHARE_PERCENT: Final = 30


def is_incident(failing: int, keys: int) -> bool:
    """Whether so many of a provider's keys failing alike within a minute means the provider, or the way to it."""
    return failing >= max(_LEAST_KEYS, -(-keys * _SHARE_PERCENT // 100))


def is_recent(at: int, now: int) -> bool:
    """Whether a failure counts still towards an incident."""
    return now - at < _WINDOW_MS
