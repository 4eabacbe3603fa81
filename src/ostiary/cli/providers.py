"""`ostiary vault providers`: the rows of the catalogue, for people and for scripts."""

from __future__ import annotations

from typing import Annotated

import typer

from ostiary.cli import show
from ostiary.cli.options import Config, Json
from ostiary.providers import catalog, listing
from ostiary.providers.provider import Provider
from ostiary.settings import Settings


def list_(
    *,
    search: Annotated[str, typer.Option("--search", metavar="TEXT", help="Only those with this in id or name.")] = "",
    category: Annotated[
        str | None, typer.Option("--category", help=f"Only those of one: {', '.join(catalog.CATEGORIES)}.")
    ] = None,
    free: Annotated[bool, typer.Option("--free", help="Only those with something for nothing that renews.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """The providers there can be keys for, in the order in which a bare model name is tried.

    Those that cannot be called yet are listed with the reason. Free tiers change: the day is when one was last seen.
    """
    known = catalog.load(more=Settings.load(config).catalog_file)
    rows = listing.found(known, search, category, free=free, code="invalid_field")
    if json:
        show.print_json([listing.described(row) for row in rows])
        return
    show.print_table(
        ("id", "name", "categories", "needs", "free", "where keys are made"),
        [(row.id, row.name, list(row.categories), _needs(row), _free(row), row.signup_url) for row in rows],
        "No provider is like that. 'ostiary vault providers' shows all.",
    )


def _needs(row: Provider) -> str:
    """What to give beside the key; why not, where it cannot be called."""
    if not row.callable:
        return f"cannot be called: {row.reason}"
    asked = [f"--field {one.name}=…" for one in row.fields if one.required]
    return " ".join(asked if row.base_url else [*asked, "--base-url …"])


def _free(row: Provider) -> str:
    tier = row.free_tier
    if tier is None or tier.kind == "none":
        return "some models" if row.free_models else ""
    kind = tier.kind.replace("_", " ")
    return f"{kind} ({tier.as_of or 'not verified'})" if tier.limits else kind
