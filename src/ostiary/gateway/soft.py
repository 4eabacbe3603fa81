"""Soft budgets: what is known to be spent of them, said in a header once they are passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ostiary.clock import Clock
from ostiary.gateway.caller import Caller
from ostiary.gateway.exchange import Headers
from ostiary.limits.budgets import AccountKey
from ostiary.money import show_usd


class SoftBudgets:
    """Sums as the ledger last told: at the start, when a budget is edited, and with every batch this process writes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent: dict[AccountKey, int] = {}
        self._newer: set[AccountKey] = set()

    def begin(self) -> None:
        """A look at the ledger begins: what is heard from now on is newer than what will be found."""
        self._newer.clear()

    def learn(self, spent: Iterable[tuple[AccountKey, int]]) -> None:
        """What a look has found to be spent of accounts with a soft limit."""
        self._spent.update((key, nano) for key, nano in spent if key not in self._newer)

    def hear(self, charged: Mapping[AccountKey, tuple[int, int]]) -> None:
        """What a batch has charged: (before, after) of each account."""
        for key, (_, after) in charged.items():
            self._spent[key] = after
        self._newer.update(charged)

    def warnings(self, caller: Caller) -> Headers:
        """`x-ostiary-budget-warning` for each soft limit that is reached."""
        now = self._clock.now()
        headers: Headers = []
        for scope, holder_id, budget in caller.warnings:
            spent = self._spent.get(AccountKey(scope, holder_id, budget.period_at(now)), 0)
            if budget.soft_nano is not None and spent >= budget.soft_nano:
                whose = scope.replace("_", " ")
                text = f"the {whose} has spent {show_usd(spent)} of its soft limit of {show_usd(budget.soft_nano)} USD"
                headers.append((b"x-ostiary-budget-warning", text.encode()))
        return headers
