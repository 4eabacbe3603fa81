"""Provider keys as pages show them: what stands in the list, and what leans on one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ostiary.clock import DAY_MS
from ostiary.dashboard.forms import Form
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.ledger import reports
from ostiary.ledger.reports import Dimension, UsageFilter, UsageRow
from ostiary.vault import key_uses
from ostiary.vault.endpoint_store import EVERYBODY, Endpoint, list_endpoints
from ostiary.vault.key_uses import Standing, Uses
from ostiary.vault.provider_keys import ProviderKey
from ostiary.vault.quota_store import QuotaRow
from ostiary.vault.quota_words import amount_of
from ostiary.vault.store import list_key_spent

ROWS: Final = 50
SORTS: Final = ("name", "provider", "status", "shared", "spent", "updated_at", "created_at", "last_used_at")
_RECENT_MS: Final = 7 * DAY_MS
"""Of thousands of agent keys, those of a month take a quarter of a second to add up."""
_MOST_CALLERS: Final = 20
_CALLERS: Final[tuple[Dimension, ...]] = ("agent_key",)
_DIGITS: Final = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What the list is asked for; what is none of the choices is as if it were not said."""

    search: str
    provider: str
    status: str
    sharing: str
    tag: str
    sort: str
    direction: str
    after: str

    @classmethod
    def of(cls, query: Form) -> Asked:
        """As the address says."""
        sort = query.text("sort")
        return cls(
            search=query.text("q"),
            provider=query.text("provider"),
            status=query.text("status"),
            sharing=query.text("sharing"),
            tag=query.text("tag"),
            sort=sort if sort in SORTS else "name",
            direction="descending" if query.text("direction") == "descending" else "ascending",
            after=query.text("after"),
        )

    @property
    def is_any(self) -> bool:
        """Whether anything is left out."""
        return bool(self.search or self.provider or self.status or self.sharing or self.tag)

    def fits(self, one: Standing) -> bool:
        """Whether a key is among those that are wanted."""
        key, sought = one.key, self.search.casefold()
        texts = (key.name, key.preview, key.account or "", key.provider, key.added_by or "", *key.tags)
        return (
            (not sought or any(sought in text.casefold() for text in texts))
            and self.provider in ("", key.provider)
            and self.status in ("", one.status)
            and self.sharing in ("", "shared" if key.shared else "private")
            and (not self.tag or self.tag in key.tags)
        )

    def place(self, one: Standing) -> str:
        """Where a key stands in this order: texts that compare as the column does, and its id behind."""
        key = one.key
        value: object
        match self.sort:
            case "status":
                value = one.status
            case "spent":
                value = one.spent_nano
            case "shared":
                value = int(key.shared)
            case _:
                value = getattr(key, self.sort) or 0
        text = f"{value:0{_DIGITS}d}" if isinstance(value, int) else str(value).casefold()
        return f"{text}\x1f{key.id}"


def cut(found: Collection[Standing], asked: Asked) -> tuple[list[Standing], str]:
    """One page of those that fit, behind the place of the last one seen, and the place the next begins behind."""
    is_down = asked.direction == "descending"
    in_order = sorted((one for one in found if asked.fits(one)), key=asked.place, reverse=is_down)
    if asked.after:
        in_order = [
            one for one in in_order if (asked.place(one) < asked.after) == is_down and asked.place(one) != asked.after
        ]
    page = in_order[:ROWS]
    return page, asked.place(page[-1]) if len(in_order) > ROWS else ""


async def count_uses(tx: Transaction, organization_id: str, keys: Sequence[ProviderKey]) -> dict[str, int]:
    """How many endpoints of the organization, and aliases, each of its keys serves."""
    routes = [*await list_endpoints(tx, organization_id), *await list_endpoints(tx, EVERYBODY)]
    return {key.id: sum(1 for route in routes if _serves(key, route)) for key in keys}


def _serves(key: ProviderKey, route: Endpoint) -> bool:
    return any(
        target.provider_key_id == key.id or (target.provider_key_id is None and target.provider == key.provider)
        for target in route.targets
    )


@dataclass(frozen=True, slots=True)
class Detail:
    """One key with all that its page tells. `leaning` would fall with it; `callers` are agent keys of 7 days."""

    standing: Standing
    left: tuple[tuple[str, QuotaRow], ...]
    """What its provider said last that it has left, each with how much in words."""
    uses: Uses
    leaning: Uses
    month_nano: int
    callers: tuple[UsageRow, ...]
    more_callers: int

    @property
    def key(self) -> ProviderKey:
        """The key itself."""
        return self.standing.key


async def detail(tx: Transaction, visit: Visit, key: ProviderKey) -> Detail:
    """What is around a key that the visitor may look at."""
    (standing,) = await key_uses.stand(tx, [key], visit.at)
    spent: Mapping[str, int] = await list_key_spent(tx, [replace(key, budget=None)], visit.at)
    callers: Sequence[UsageRow] = ()
    if visit.by.grants.get("usage.show") == "all":
        wanted = UsageFilter(since_at=visit.at - _RECENT_MS, provider_key_id=key.id)
        callers = await reports.sum_usage(tx, key.organization_id, wanted, by=_CALLERS)
    return Detail(
        standing,
        tuple((amount_of(row), row) for row in await key_uses.list_left(tx, key, visit.at)),
        await key_uses.find_uses(tx, visit.by, key),
        await key_uses.find_leaning(tx, visit.by, key),
        spent[key.id],
        tuple(callers[:_MOST_CALLERS]),
        max(len(callers) - _MOST_CALLERS, 0),
    )
