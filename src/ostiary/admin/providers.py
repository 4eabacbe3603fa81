"""Providers at the admin API: the catalogue, and how many keys the organization has for each."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from ostiary.admin import pages
from ostiary.admin.pages import Page
from ostiary.admin.shapes import Asking, Shown
from ostiary.providers import listing
from ostiary.vault.store import count_provider_keys


class Filter(Page):
    """Which providers."""

    search: Annotated[str | None, Field(max_length=200, description="A part of the id or of the name.")] = None
    category: Annotated[str | None, Field(max_length=64)] = None
    free: Annotated[bool, Field(description="Only where something can be used for nothing.")] = False


class ShownField(Shown):
    """Something to fill in beside the key."""

    name: str
    label: str
    required: bool
    default: str | None
    in_address: bool = Field(description="Whether it is a part of the address: not needed where that is given whole.")


class ShownMethod(Shown):
    """A way to sign in."""

    id: str
    label: str
    callable: bool
    reason: str | None
    fields: list[ShownField]


class ShownFreeTier(Shown):
    """What a provider gives for nothing, and when that was looked up."""

    kind: Literal["recurring", "trial", "trial_credit", "local", "none"]
    limits: str | None
    as_of: str | None = Field(description="The day somebody last looked; null: nobody has.")


class ShownProvider(Shown):
    """One row of the catalogue."""

    id: str
    object: Literal["provider"]
    name: str
    categories: list[str]
    callable: bool
    reason: str | None = Field(description="Why it cannot be called yet.")
    operations: list[str]
    base_url: str | None = Field(description="Null: it is given with the key. Names in braces are fields.")
    regions: dict[str, str]
    auth: list[ShownMethod] = Field(description="Ways to sign in; the first is the usual one.")
    key_optional: bool
    fields: list[ShownField]
    env: list[str] = Field(description="Names of variables that hold such a key.")
    key_shape: str | None = Field(
        description="A regular expression for its usual keys: a hint, nothing is refused by it."
    )
    free_tier: ShownFreeTier | None
    free_models: list[str]
    has_free: bool
    trains_on_data: bool | None
    signup_url: str | None
    docs_url: str | None
    unverified: list[str] = Field(description="What nobody has looked up or tried.")
    keys: int = Field(description="How many the organization has.")


class Providers(Shown):
    """One page of them."""

    data: list[ShownProvider]
    next_cursor: str | None


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Providers:
    """The providers of the catalogue, in its order, and how many keys the organization has for each."""
    tx = await asking.begin()
    asking.by.require(asking.route.deed, asking.organization_id)
    counts = await count_provider_keys(tx, asking.organization_id)
    known = asking.office.catalog
    found = listing.found(known, asked.search or "", asked.category, free=asked.free, code="invalid_field")
    page, cursor = pages.turn(enumerate(found), asked, "catalogue", lambda one: (one[0], one[1].id))
    rows = [ShownProvider(**listing.described(row), keys=counts.get(row.id, 0)) for _, row in page]
    return Providers(data=rows, next_cursor=cursor)
