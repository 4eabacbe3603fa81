"""What is known against provider keys and models of them, and what of it is news for other gateways."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import inf
from typing import Final, cast

from ostiary.clock import SECOND_MS, Clock
from ostiary.gateway.target import Target
from ostiary.vault.health import LASTING, State, Trouble, on_trial
from ostiary.vault.health_store import HealthRow

WHOLE: Final = ""
"""In place of a model: it is about the whole key."""
_WORTH_TELLING_MS: Final = 2 * SECOND_MS
"""What is over sooner is not told to other processes."""
_MOST_MODELS: Final = 100
"""Of one key: their names come from callers."""


class Troubles:
    """By key, and by model or WHOLE. Nothing known is healthy."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.known: dict[str, dict[str, Trouble]] = {}
        self.changes = 0
        """Counts how often what is known has become something else."""
        self.changed: set[str] = set()
        """Keys of which there is news for others."""
        self.telling: set[str] = set()
        """Keys whose news is being written down just now."""
        self.healed: dict[str, set[str]] = {}
        """Places that were found to be well here, and that others may not know to be."""

    def of(self, key_id: str) -> dict[str, Trouble]:
        """What is known of one key; not to be changed in place."""
        return self.known.get(key_id, {})

    def keep(self, key_ids: Collection[str]) -> None:
        """Forget keys that are gone."""
        for gone in self.known.keys() - set(key_ids):
            self._put(gone, {})

    def hear(self, key_id: str, rows: Iterable[HealthRow]) -> None:
        """What others have found of a key, unless there is news of it here that they have not been told yet."""
        if key_id in self.changed or key_id in self.telling:
            return
        found = {
            row.model: Trouble(cast("State", row.state), row.failures, row.reason, row.since, row.until) for row in rows
        }
        theirs, own = found.get(WHOLE), self.of(key_id).get(WHOLE)
        if own is not None and own.state == "undecryptable":  # every gateway knows best what it can open
            found[WHOLE] = own
        elif theirs is not None and theirs.state == "undecryptable":
            del found[WHOLE]
            self.changed.add(key_id)
        self._put(key_id, found)

    def forget(self, key_id: str) -> None:
        """Somebody has edited the key: what was known may be over."""
        self._put(key_id, {})
        self.changed.discard(key_id)
        self.healed.pop(key_id, None)

    def shut(self, key_id: str, reason: str) -> None:
        """Its credential does not open: it alone is unusable, until somebody enters it again."""
        at = self._clock.now()
        self._put(key_id, {WHOLE: Trouble("undecryptable", 1, reason, at, None)})
        self.changed.add(key_id)

    def rows(self, key_id: str) -> list[HealthRow]:
        """What is worth telling of a key."""
        at = self._clock.now()
        return [
            HealthRow(key_id, model, one.state, one.failures, one.reason, one.since, one.until)
            for model, one in self.of(key_id).items()
            if one.until is None or one.until - at >= _WORTH_TELLING_MS
        ]

    def joined(self, key_id: str, stored: Iterable[HealthRow]) -> list[HealthRow]:
        """What is to be written down of a key: what is known here, and what others have found of other places.

        What a person must mend stays, whatever was found beside it: an edit or a reset has taken it away already.
        """
        mine = {row.model: row for row in self.rows(key_id)}
        healed = self.healed.get(key_id, set())
        for row in stored:
            is_mine = row.model in mine or row.model in healed or row.state == "undecryptable"
            lasts = row.state in LASTING and row.state != "undecryptable"
            if not is_mine or (lasts and row.model in mine and mine[row.model].state not in LASTING):
                mine[row.model] = row
        return list(mine.values())

    def add(self, key_id: str, model: str, one: Trouble) -> None:
        """Know more of a key, and tell others unless it is over at once."""
        self._put(key_id, _bounded({**self.of(key_id), model: one}))
        self.healed.get(key_id, set()).discard(model)
        if one.until is None or one.until - self._clock.now() >= _WORTH_TELLING_MS:
            self.changed.add(key_id)

    def heal(self, key_id: str, model: str, began_at: int) -> None:
        """An attempt went well with the key and this model: what was known against them when it began is over.

        What was found in the very millisecond it began may be what it found itself, so that stays. Only a person
        takes back what a person must mend.
        """
        of_it = (WHOLE, model)
        self._keep(
            key_id,
            {
                place: one
                for place, one in self.of(key_id).items()
                if place not in of_it or one.state in LASTING or max(one.since, one.failed_at) >= began_at
            },
        )

    def forgive(self, key_id: str, states: Collection[str]) -> None:
        """Forget what a key is, where it is one of these."""
        self._keep(key_id, {model: one for model, one in self.of(key_id).items() if one.state not in states})

    def _keep(self, key_id: str, kept: dict[str, Trouble]) -> None:
        if len(kept) < len(self.of(key_id)):
            self.healed.setdefault(key_id, set()).update(self.of(key_id).keys() - kept.keys())
            self._put(key_id, kept)
            self.changed.add(key_id)

    def _put(self, key_id: str, troubles: dict[str, Trouble]) -> None:
        self.changes += 1
        if troubles:
            self.known[key_id] = troubles
        else:
            self.known.pop(key_id, None)

    def turn_at(self, at: int) -> float:
        """When anything that is known counts no longer, or begins to, though nothing happens."""
        return min((one.turn_at(at) for known in self.known.values() for one in known.values()), default=inf)

    def try_out(self, target: Target) -> None:
        """A call is on its way to find out how a key is whose rest is over: others wait for what it finds."""
        known, at = self.known[target.key.id], self._clock.now()
        tried = {
            model: on_trial(one, at)
            for model in (WHOLE, target.model)
            if (one := known.get(model)) is not None and one.state != "degraded" and not one.is_skipped(at)
        }
        if tried:
            self._put(target.key.id, {**known, **tried})

    def is_skipped(self, target: Target, at: int) -> bool:
        """Whether no call should go there now."""
        if target.key.id not in self.known:
            return False
        worst = self.worst(target, at)
        return worst is not None and worst.is_skipped(at)

    def resting(self, targets: Iterable[Target], at: int) -> list[tuple[Target, Trouble]]:
        """Those of them that no call should go to now, and why."""
        found = [(target, self.worst(target, at)) for target in targets if target.key.id in self.known]
        return [(target, one) for target, one in found if one is not None and one.is_skipped(at)]

    def worst(self, target: Target, at: int) -> Trouble | None:
        """What counts of the key and of this model at it."""
        known = self.known.get(target.key.id)
        if known is None:
            return None
        whole, model = known.get(WHOLE), known.get(target.model)
        if whole is None or model is None:
            return whole or model
        return whole if whole.is_skipped(at) or not model.is_skipped(at) else model


def _bounded(troubles: dict[str, Trouble]) -> dict[str, Trouble]:
    """Of very many the whole key, and the models that rest longest."""
    if len(troubles) <= _MOST_MODELS:
        return troubles
    longest = sorted(troubles, key=lambda model: (model != WHOLE, -(troubles[model].until or 0)))
    return {model: troubles[model] for model in longest[:_MOST_MODELS]}
