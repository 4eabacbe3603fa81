"""How much of their quota keys have left, as answers say: who is nearly dry comes after those that are not."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

from ostiary.gateway.accounts import Accounts
from ostiary.gateway.target import Target
from ostiary.providers import quota
from ostiary.providers.quota import Left
from ostiary.providers.transport import Headers

Place = tuple[str, str]
"""A key, by its id, and a model at it: quotas are for both."""
_MOST: Final = 5_000
"""Places that are remembered: names of models come from callers."""


class Remaining:
    """The path of a call puts down what an answer said, and does not read it; `take_in` does, beside the calls."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self.said: dict[Place, Mapping[bytes, bytes]] = {}
        """The head of the newest answer that said anything."""
        self.low: dict[Place, int] = {}
        """What is nearly dry, and until when."""
        self.changes = 0
        """Counts how often `low` has become something else."""
        self.news: dict[Place, tuple[int, list[Left]]] = {}
        """What was heard and when, of which the database does not know yet."""

    def hear(self, key_id: str, model: str, fields: Mapping[bytes, bytes]) -> None:
        """The head of an answer, whatever became of the call; most say nothing."""
        if not quota.TELLING.isdisjoint(fields):
            self.said[key_id, model] = fields

    def take_in(self, at: int) -> None:
        """Read what answers have said since the last time."""
        over = [place for place, until in self.low.items() if until <= at]
        for place in over:
            del self.low[place]
            self.changes += 1
        if not self.said:
            return
        said, self.said = self.said, {}
        for (key_id, model), fields in said.items():
            key = self._accounts.keys.get(key_id)
            found = quota.left(Headers(fields), at) if key is not None else []
            if key is None or not found:
                continue
            if len(self.news) < _MOST or (key_id, model) in self.news:
                self.news[key_id, model] = at, found
            until = max((one.resets_at or 0 for one in found if one.is_low(at)), default=0)
            for id in self._accounts.sharing(key):
                self._weigh((id, model), until)

    def forget(self, key_id: str) -> None:
        """Somebody has edited the key: what is left of its quota may be another one's."""
        for known in (self.said, self.low, self.news):
            for place in [one for one in known if one[0] == key_id]:
                known.pop(place)
        self.changes += 1

    def is_low(self, target: Target, at: int) -> bool:
        """Whether the key is nearly dry for this model."""
        return self.low.get((target.key.id, target.model), 0) > at

    def turn_at(self, at: int) -> float:
        """When the next one is full again."""
        return min((until for until in self.low.values() if until > at), default=inf)

    def _weigh(self, place: Place, until: int) -> None:
        if until and (len(self.low) < _MOST or place in self.low):
            if self.low.get(place) != until:
                self.low[place] = until
                self.changes += 1
        elif self.low.pop(place, None) is not None:
            self.changes += 1
