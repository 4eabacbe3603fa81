"""The catalogue of providers as cards, each with what it takes to have a key there."""

from __future__ import annotations

from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.visit import Visit
from ostiary.providers import shape
from ostiary.providers.catalog import CATEGORIES
from ostiary.vault.store import count_provider_keys

_NAMES: Final = {"llm": "LLM"}


async def list_(visit: Visit) -> Answer:
    """Those that fit the search, in the order of the catalogue, and how many keys the organization has for each."""
    visit.by.require("prices.show", visit.home)
    query, catalog = visit.query, visit.hall.catalog
    category = query.text("category")
    category = category if category in CATEGORIES else ""
    found = catalog.search(query.text("q"), category or None, free_only=query.has("free"))
    async with visit.reading() as tx:
        counts = await count_provider_keys(tx, visit.home)
    return visit.page(
        "providers/cards.html" if visit.is_partial else "providers/list.html",
        found=found,
        counts=counts,
        hints={row.id: shape.hint(row) for row in found},
        category=category,
        categories=[(one, _NAMES.get(one, one.capitalize())) for one in CATEGORIES],
        category_names={one: _NAMES.get(one, one.capitalize()) for one in CATEGORIES},
    )
