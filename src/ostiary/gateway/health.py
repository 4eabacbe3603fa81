"""How the provider keys are, as calls find out: whom to pass over now, and who pays for what went wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any, Final

from ostiary.clock import Clock
from ostiary.gateway.accounts import Accounts
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.epoch import Epoch
from ostiary.gateway.incidents import Incidents
from ostiary.gateway.remaining import Remaining
from ostiary.gateway.target import Target
from ostiary.gateway.troubles import WHOLE, Troubles
from ostiary.gateway.unusable import no_usable_key
from ostiary.providers import quota
from ostiary.providers.transport import Answer, Headers
from ostiary.providers.verdict import Cause, Verdict
from ostiary.vault import health
from ostiary.vault.health import State

_PAID: Final[Mapping[Cause, tuple[State, ...]]] = MappingProxyType(
    {
        "failed": ("degraded", "unhealthy"),
        "bad_key": ("degraded", "unhealthy"),
        "pace": ("cooling",),
        "denied": ("cooling",),
    }
)
"""What keys are by a cause, until it turns out that it was not theirs."""


class Health:
    """What this process knows against provider keys, and models of them. Nothing known is healthy."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: Mapping[str, OpenKey] = {}
        self._accounts = Accounts()
        self._incidents = Incidents()
        self.turns = count()
        """Counts the calls that go round."""
        self.troubles = Troubles(clock)
        self.remaining = Remaining(self._accounts)
        self.epoch = Epoch(self.troubles, self._incidents, self.remaining)
        self.suspects: set[str] = set()
        """Keys that a provider did not accept: whether that is so is asked before one is disabled."""

    @property
    def is_anything_known(self) -> bool:
        """Whether any key is other than well, or nearly dry."""
        return bool(self.troubles.known or self.remaining.low or self._incidents)

    def know(self, keys: Mapping[str, OpenKey]) -> None:
        """All keys there are, after any of them changed."""
        self._keys = keys
        self._accounts.know(keys)
        self._incidents.know(keys.values())
        self.troubles.keep(keys.keys())

    # ---- before an attempt -------------------------------------------------------------------------------------

    def usable(self, targets: Sequence[Target], at: int, organization_id: str) -> Sequence[Target]:
        """As `ranked`; refuses with `no_usable_key` when all must be passed over."""
        found = self.ranked(targets, at)
        if not found:
            raise no_usable_key([(one, self.troubles.worst(one, at)) for one in targets], at, organization_id)
        return found

    def ranked(self, targets: Sequence[Target], at: int) -> Sequence[Target]:
        """Those that are well, then those in doubt; none when all must be passed over.

        A key that only failed is not refused for it where there is no other: the call finds out whether it is well.
        """
        known = self.troubles.known
        if not self._incidents and not any(target.key.id in known for target in targets):
            return targets
        well: list[Target] = []
        doubtful: list[tuple[int, int]] = []
        failed: list[tuple[int, int]] = []
        for place, target in enumerate(targets):
            worst = self.troubles.worst(target, at)
            if worst is not None and worst.is_skipped(at):
                if worst.state == "unhealthy":
                    failed.append((worst.until or 0, place))
                continue
            doubt = self._incidents.doubt(target.key, at) or (worst is not None and worst.is_doubtful(at))
            if doubt:
                doubtful.append((int(doubt), place))
            else:
                well.append(target)
        ranked = (*well, *(targets[place] for _, place in sorted(doubtful)))
        return ranked or tuple(targets[place] for _, place in sorted(failed))

    def is_clear(self, target: Target, at: int) -> bool:
        """Whether nothing at all is known against it, and its own provider is not in doubt."""
        return target.key.id not in self.troubles.known and not (
            self._incidents and self._incidents.doubt(target.key, at)
        )

    def is_behind(self, target: Target, at: int) -> bool:
        """Whether it comes after those that are well, or is not to be used at all."""
        worst = self.troubles.worst(target, at)
        if worst is not None and (worst.is_skipped(at) or worst.is_doubtful(at)):
            return True
        return bool(self._incidents and self._incidents.doubt(target.key, at))

    def may_follow(self, target: Target) -> bool:
        """Whether a call that has failed elsewhere may go on there: at worst it is known to have failed, too."""
        at = self._clock.now()
        worst = self.troubles.worst(target, at)
        return worst is None or worst.state == "unhealthy" or not worst.is_skipped(at)

    def trying(self, target: Target) -> None:
        """A call goes to this one: where it shows whether a key is well again, others keep away until it has."""
        if target.key.id in self.troubles.known:
            self.troubles.try_out(target)

    # ---- after an attempt --------------------------------------------------------------------------------------

    def ended(self, target: Target, status: str, began_at: int) -> None:
        """An answer was relayed: to its end, or as far as it came; who hung up on it says nothing."""
        if status == "ok":
            self.went_well(target, began_at)

    def went_well(self, target: Target, began_at: int) -> None:
        """What was known against the key and this model of it when the attempt began is over."""
        self._incidents.answered(target.key, began_at)
        if target.key.id in self.troubles.known:
            self.troubles.heal(target.key.id, target.model, began_at)

    def look(self, target: Target, answer: Answer) -> None:
        """How much of the key's quota is left, as the provider says unasked: a key without any rests."""
        fields = answer.fields
        if quota.TELLING.isdisjoint(fields) or self.find(target.key.id) is not target.key:
            return
        self.remaining.said[target.key.id, target.model] = fields
        if quota.is_spent(fields):
            until = quota.spent_until(answer.headers, self._clock.now())
            if until is not None:
                for key_id in self._accounts.sharing(target.key):
                    self._worsen(key_id, target.model, "pace", "its quota is used up", until)

    def failed(self, target: Target, verdict: Verdict, headers: Headers, body: Mapping[str, Any]) -> bool:
        """Only the right thing pays: the key, its model, or, where many fail alike, none of them: then it is True."""
        cause, key, at = verdict.cause, target.key, self._clock.now()
        if cause is None or self.find(key.id) is not key:  # what an edited key was before says nothing of it
            return False
        self.remaining.hear(key.id, target.model, headers.fields)
        alike = self._incidents.note(key, cause, at) if cause in _PAID else []
        if alike:
            self._forgive(alike, _PAID[cause])
            return True
        until = quota.resets_at(headers, body, at) if health.is_of_account(cause) else None
        model = target.model if health.is_of_model(cause) else WHOLE
        for key_id in self._accounts.sharing(key) if health.is_of_account(cause) else [key.id]:
            self._worsen(key_id, model, cause, verdict.reason, until)
        if cause in ("bad_key", "denied"):
            self.suspects.add(key.id)
        return False

    def find(self, key_id: str) -> OpenKey | None:
        """A key as it is now; another object once somebody has edited it."""
        return self._keys.get(key_id)

    def confirm(self, key_id: str, reason: str) -> bool:
        """The provider says that the credential is not valid; the last usable key is not disabled for it."""
        key = self._keys.get(key_id)
        if key is None or not self.has_spare(key):
            return False
        known = self.troubles.of(key_id).get(WHOLE)
        self.troubles.add(key_id, WHOLE, health.disabled(known, reason, self._clock.now()))
        return True

    def _worsen(self, key_id: str, model: str, cause: Cause, reason: str, until: int | None) -> None:
        known = self.troubles.of(key_id).get(model)
        self.troubles.add(key_id, model, health.worsened(known, cause, reason, self._clock.now(), until))

    def _forgive(self, key_ids: Iterable[str], states: tuple[State, ...]) -> None:
        """Give back what keys paid for what was not theirs."""
        for key_id in key_ids:
            self.troubles.forgive(key_id, states)
            self.suspects.discard(key_id)

    def has_spare(self, key: OpenKey, shut: Collection[str] = ()) -> bool:
        """Whether everybody who uses this key could use another one for the same server; those `shut` are none."""
        at = self._clock.now()
        for other in self._keys.values():
            if other.id != key.id and other.provider is key.provider and other.base_url == key.base_url:
                if other.id in shut:
                    continue
                known = self.troubles.of(other.id).get(WHOLE)
                is_reached = other.shared or (not key.shared and other.organization_id == key.organization_id)
                if is_reached and (known is None or not known.is_skipped(at)):
                    return True
        return False
