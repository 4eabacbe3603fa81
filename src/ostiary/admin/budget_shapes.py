"""Budgets and rates as requests and answers show them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ostiary.admin.shapes import ABSENT, Asked, Shown, ShownMoment, ShownUsd, Usd, maybe_usd, usd, when
from ostiary.limits.budgets import Budget

Rate = Annotated[int, Field(ge=1, le=1_000_000_000)]
Percent = Annotated[int, Field(ge=1, le=100)]
Thresholds = Annotated[list[Percent], Field(max_length=10)]

_NONE_YET: Final = Budget("month", None)
_NAMES: Final = {"period": "kind", "limit_usd": "cap_nano", "soft_usd": "soft_nano"}


class GivenBudget(Asked):
    """What may be spent: `limit_usd` blocks, `soft_usd` warns; at least one of them."""

    period: Literal["month", "total"] = "month"
    limit_usd: Usd | None = None
    soft_usd: Usd | None = None
    thresholds: Thresholds | None = None

    def budget(self) -> Budget:
        """As the house keeps it."""
        budget = Budget(self.period, self.limit_usd, self.soft_usd)
        return budget if self.thresholds is None else replace(budget, thresholds=tuple(self.thresholds))


class AmountsPatch(Asked):
    """What of a budget is changed, but for its period."""

    limit_usd: Usd | None = ABSENT
    soft_usd: Usd | None = ABSENT
    thresholds: Thresholds | None = ABSENT

    def over(self, known: Budget | None) -> Budget:
        """The budget with what was named in place of what is known: whoever moves a warning must lift no hard limit."""
        given: dict[str, Any] = {_NAMES.get(name, name): getattr(self, name) for name in self.model_fields_set}
        if "thresholds" in given:
            given["thresholds"] = _NONE_YET.thresholds if self.thresholds is None else tuple(self.thresholds)
        return replace(known or _NONE_YET, **given)


class BudgetPatch(AmountsPatch):
    """What of a budget is changed: absent stays, null clears. Where there is none, it begins with what is named."""

    period: Literal["month", "total"] = ABSENT


class ShownBudget(Shown):
    """A budget, and how much of the running period's is spent."""

    period: Literal["day", "month", "total"]
    limit_usd: ShownUsd | None
    soft_usd: ShownUsd | None
    thresholds: list[int]
    remaining_usd: ShownUsd | None
    resets_at: ShownMoment | None


def shown_budget(budget: Budget | None, spent: int, at: int) -> ShownBudget | None:
    """As it is shown."""
    if budget is None:
        return None
    cap = budget.cap_nano
    return ShownBudget(
        period=budget.kind,
        limit_usd=maybe_usd(cap),
        soft_usd=maybe_usd(budget.soft_nano),
        thresholds=list(budget.thresholds),
        remaining_usd=None if cap is None else usd(max(cap - spent, 0)),
        resets_at=when(budget.resets_at(at)),
    )
