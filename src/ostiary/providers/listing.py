"""How rows of the catalogue are shown: the same to callers, in the admin API and at the shell (pure)."""

from __future__ import annotations

from typing import Any

from ostiary.errors import Refusal
from ostiary.providers.address import places_in
from ostiary.providers.catalog import CATEGORIES, Catalog
from ostiary.providers.provider import AuthMethod, Field, Provider


def found(catalog: Catalog, search: str, category: str | None, *, free: bool, code: str) -> list[Provider]:
    """The rows that fit; a category that is none is refused with `code`, and a row may be hidden but not found."""
    shelf = (category or "").strip().casefold()
    if category is not None and shelf not in CATEGORIES:
        raise Refusal(code, f"`category` is one of {', '.join(CATEGORIES)}.", param="category")
    return catalog.search(search, shelf or None, free_only=free)


def described(row: Provider) -> dict[str, Any]:
    """A row as JSON. `required` fields may be left out where the whole address is given instead."""
    return {
        "id": row.id,
        "object": "provider",
        "name": row.name,
        "categories": list(row.categories),
        "callable": row.callable,
        "reason": row.reason or None,
        "operations": sorted(row.operations),
        "base_url": row.base_url,
        "regions": dict(row.regions),
        "auth": [_method(row, one) for one in row.auth],
        "key_optional": row.key_optional,
        "fields": [_field(one, row) for one in row.fields],
        "env": [*row.env],
        "key_shape": row.key_shape,
        "free_tier": _free_tier(row),
        "free_models": list(row.free_models),
        "has_free": row.has_free,
        "trains_on_data": row.trains_on_data,
        "signup_url": row.signup_url,
        "docs_url": row.docs_url,
        "unverified": list(row.unverified),
    }


def _method(row: Provider, method: AuthMethod) -> dict[str, Any]:
    return {
        "id": method.id,
        "label": method.label,
        "callable": method.callable,
        "reason": method.reason or None,
        "fields": [_field(one, row) for one in method.fields],
    }


def _field(field: Field, row: Provider) -> dict[str, Any]:
    return {
        "name": field.name,
        "label": field.label,
        "required": field.required,
        "default": field.default,
        "in_address": field.name in places_in(row.base_url or ""),
    }


def _free_tier(row: Provider) -> dict[str, Any] | None:
    tier = row.free_tier
    return None if tier is None else {"kind": tier.kind, "limits": tier.limits or None, "as_of": tier.as_of}
