"""When many keys of a provider fail alike: then it is the provider, or our way to it, and no key pays for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import inf
from typing import Final

from ostiary.clock import SECOND_MS
from ostiary.gateway.caller import OpenKey
from ostiary.providers.verdict import Cause
from ostiary.vault import health

_DOUBT_MS: Final = 5 * SECOND_MS
"""So long after the last of many failures other providers come first."""
Group = tuple[str, str]
"""A provider at an address: its keys can fail together."""


class Incidents:
    """The failures of the last minute, by provider and cause, and when its keys have answered."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._failing: defaultdict[tuple[Group, Cause], dict[str, int]] = defaultdict(dict)
        self._until: dict[Group, int] = {}
        self._answered: dict[str, int] = {}
        self._answered_any: dict[Group, int] = {}
        self.changes = 0
        """Counts how often a provider came into doubt, or out of it before its time."""

    def __bool__(self) -> bool:
        """Whether any provider is in doubt."""
        return bool(self._until)

    def know(self, keys: Iterable[OpenKey]) -> None:
        """All keys there are."""
        self._groups = {key.id: (key.provider.id, key.base_url) for key in keys}
        self.changes += 1
        groups = set(self._groups.values())
        self._until = {group: until for group, until in self._until.items() if group in groups}
        self._answered = {key_id: at for key_id, at in self._answered.items() if key_id in self._groups}
        self._answered_any = {group: at for group, at in self._answered_any.items() if group in groups}
        for known in [one for one in self._failing if one[0] not in groups]:
            del self._failing[known]

    def doubt(self, key: OpenKey, at: int) -> int:
        """How much a key's provider is in doubt: not, or (1) it failed for many, or (2) for this very key, too."""
        group = self._groups.get(key.id)
        if group is None or self._until.get(group, 0) <= at:
            return 0
        failed_at = max(
            (failing.get(key.id, 0) for (one, _), failing in self._failing.items() if one == group), default=0
        )
        return 2 if failed_at and health.is_recent(failed_at, at) else 1

    def turn_at(self, at: int) -> float:
        """When the next provider is in doubt no longer."""
        return min((until for until in self._until.values() if until > at), default=inf)

    def answered(self, key: OpenKey, at: int) -> None:
        """The provider has answered with this key: what fails with others is theirs."""
        group = self._groups.get(key.id)
        if group is not None:
            self._answered[key.id] = self._answered_any[group] = at
            if self._until and self._until.pop(group, None) is not None:
                self.changes += 1

    def note(self, key: OpenKey, cause: Cause, at: int) -> list[str]:
        """One more failure; when it is an incident, every key that failed alike within a minute, else none.

        A key that fails again though another one has answered since is alone with it.
        """
        group = self._groups.get(key.id)
        if group is None:
            return []
        known = self._failing[group, cause]
        answered_at = self._answered_any.get(group, 0)
        is_alone = key.id in known and health.is_recent(known[key.id], at) and known[key.id] <= answered_at
        failing = {key_id: when for key_id, when in known.items() if health.is_recent(when, at)} | {key.id: at}
        self._failing[group, cause] = failing
        alike = [key_id for key_id, when in failing.items() if when > answered_at]
        if is_alone or not health.is_incident(len(alike), self._count_tried(group, failing, at)):
            return []
        self._until[group] = at + _DOUBT_MS
        self.changes += 1
        return alike

    def _count_tried(self, group: Group, failing: dict[str, int], at: int) -> int:
        """Keys of a provider that anybody has tried within the minute: others say nothing."""
        well = {
            key_id
            for key_id, when in self._answered.items()
            if self._groups.get(key_id) == group and health.is_recent(when, at)
        }
        return len(well | failing.keys())
