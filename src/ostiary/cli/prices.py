"""`ostiary prices`: what a model costs, where the built-in prices do not say or should not count."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Org, reader
from ostiary.errors import Refusal
from ostiary.ledger import prices
from ostiary.ledger.prices import Shown
from ostiary.money import TOKENS_PER_RATE, nano_of
from ostiary.providers.catalog import Provider
from ostiary.providers.prices import Price

app: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_KINDS: Final = ("input", "output", "cache_read", "cache_write")


def _rate(name: str, says: str) -> Any:  # noqa: ANN401 - what typer puts into an annotation
    return typer.Option(name, parser=reader(nano_of), metavar="USD", help=says, show_default=False)


@app.command("set")
def set_(  # noqa: PLR0913 - one argument an option
    model: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="Whose price.", show_default=False)],
    *,
    input_: Annotated[int, _rate("--input", "USD for a million input tokens.")],
    output: Annotated[int, _rate("--output", "USD for a million output tokens.")],
    cache_read: Annotated[int | None, _rate("--cache-read", "USD for a million tokens read from a cache.")] = None,
    cache_write: Annotated[int | None, _rate("--cache-write", "USD for a million tokens written to a cache.")] = None,
    request: Annotated[int | None, _rate("--request", "USD for each request, beside its tokens.")] = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set the price of a model for the whole instance, in place of any it had. 0 makes it free."""
    per_million = None if request is None else request * TOKENS_PER_RATE
    given = {
        "input": input_,
        "output": output,
        "cache_read": cache_read,
        "cache_write": cache_write,
        "request": per_million,
    }
    rates = {kind: rate for kind, rate in given.items() if rate is not None}

    async def deed(desk: Desk) -> dict[str, Any]:
        row, name = _split(desk, model)
        async with desk.ground.database.transaction() as tx:
            override = await prices.set_price(tx, desk.by, row, name, rates, desk.at)
            return _described(Shown(row.id, override.model, Price.of(override.rates, override.version)))

    _print([at_desk(Where(data_dir, org), deed)], json=json, is_one=True)


@app.command("show")
def show_(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[PROVIDER/MODEL]", help="Which; usual: all that were set.", show_default=False),
    ] = None,
    *,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """The price of a model, set or published; without one, every price that was set."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        row, name = (None, None) if model is None else _split(desk, model)
        async with desk.ground.database.read() as tx:
            return [_described(one) for one in await prices.show(tx, desk.by, row, name)]

    _print(at_desk(Where(data_dir, org), deed), json=json, is_one=model is not None)


def _split(desk: Desk, model: str) -> tuple[Provider, str]:
    provider, slash, name = model.partition("/")
    if not slash or not name.strip():
        raise Refusal("invalid_field", f"{model!r} is not of the form PROVIDER/MODEL.", param="model")
    return desk.ground.catalog.get(provider), name


def _described(shown: Shown) -> dict[str, Any]:
    """USD for a million tokens by kind, at each step of input tokens; empty when no price is known."""
    steps = shown.price.steps if shown.price else ()
    return {
        "provider": shown.provider,
        "model": shown.model,
        "version": shown.price.version if shown.price else None,
        "steps": [
            {
                "above_input_tokens": max(step.above, 0),
                **{kind: show.usd(getattr(step, kind)) for kind in _KINDS},
                "request": show.usd(step.request // TOKENS_PER_RATE),
            }
            for step in steps
        ],
    }


def _print(found: list[dict[str, Any]], *, json: bool, is_one: bool) -> None:
    if json:
        show.print_json(found[0] if is_one else found)
        return
    headings = ("provider", "model", "above", *(kind.replace("_", " ") for kind in _KINDS), "request", "version")
    rows = [[one["provider"], one["model"], *step.values(), one["version"]] for one in found for step in one["steps"]]
    show.print_table(headings, rows, "No price is known. 'ostiary prices set PROVIDER/MODEL' sets one.")
    if rows:
        show.say("USD for a million tokens, and for each request.")
