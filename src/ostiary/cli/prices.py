"""`ostiary prices`: what a model costs, where the built-in prices do not say or should not count."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Org, reader
from ostiary.cli.periods import Moment, moment
from ostiary.cli.progress import bar
from ostiary.errors import Refusal
from ostiary.ledger import prices, recost
from ostiary.ledger.prices import Shown
from ostiary.ledger.recost import Rates, Tally, Wish
from ostiary.money import TOKENS_PER_RATE, nano_of
from ostiary.providers import store
from ostiary.providers.catalog import Provider
from ostiary.providers.prices import PER_UNIT, Price, PriceBook

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_KINDS: Final = ("input", "output", "cache_read", "cache_write")
_SHOWN: Final = ("above_input_tokens", *_KINDS, "request")
_PER: Final = {
    "image": "an image",
    "audio_minute": "a minute",
    "character": "a million characters",
    "search": "a search",
}


def _rate(name: str, says: str) -> Any:  # noqa: ANN401 - what typer puts into an annotation
    return typer.Option(name, parser=reader(nano_of), metavar="USD", help=says, show_default=False)


@app.command("set")
def set_(  # noqa: PLR0913 - one argument an option
    model: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="Whose price.", show_default=False)],
    *,
    input_: Annotated[int | None, _rate("--input", "USD for a million input tokens.")] = None,
    output: Annotated[int | None, _rate("--output", "USD for a million output tokens.")] = None,
    cache_read: Annotated[int | None, _rate("--cache-read", "USD for a million tokens read from a cache.")] = None,
    cache_write: Annotated[int | None, _rate("--cache-write", "USD for a million tokens written to a cache.")] = None,
    request: Annotated[int | None, _rate("--request", "USD for each request, beside its tokens.")] = None,
    image: Annotated[int | None, _rate("--image", "USD for each image made, of the dearest kind.")] = None,
    audio_minute: Annotated[int | None, _rate("--audio-minute", "USD for each minute of audio heard.")] = None,
    characters: Annotated[int | None, _rate("--characters", "USD for a million characters spoken.")] = None,
    search: Annotated[int | None, _rate("--search", "USD for each search of a rerank.")] = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set the price of a model for the whole instance, in place of any it had. 0 makes it free.

    By tokens (--input and --output), by what is not tokens, or by both.
    """
    given = {
        "input": input_,
        "output": output,
        "cache_read": cache_read,
        "cache_write": cache_write,
        "character": characters,
        **{
            name: None if rate is None else rate * TOKENS_PER_RATE
            for name, rate in _each(request, image, audio_minute, search)
        },
    }
    rates = {kind: rate for kind, rate in given.items() if rate is not None}
    by_tokens = [kind for kind in ("input", "output") if kind in rates]
    if len(by_tokens) == 1 or (not by_tokens and rates.keys().isdisjoint(PER_UNIT)):
        raise typer.BadParameter("Give --input and --output, or what else is paid for: --image, --audio-minute …")

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


From = Annotated[
    Moment,
    typer.Option(
        "--since",
        parser=reader(moment),
        metavar="24h|DATE",
        help="Calls that began so long ago or at a date, or later.",
        show_default=False,
    ),
]
OnlyModel = Annotated[str | None, typer.Option("--model", metavar="PROVIDER/MODEL", help="Only calls of this model.")]
UnknownToo = Annotated[
    bool, typer.Option("--unknown-too", help="Also calls whose tokens are not known: they cost what was held for them.")
]
OnlyOrg = Annotated[
    str | None, typer.Option("--org", help="Only this organization, by id, client id or name. Usual: all.")
]


@app.command("recost")
def recost_(
    *,
    since: From,
    model: OnlyModel = None,
    unknown_too: UnknownToo = False,
    apply: Annotated[bool, typer.Option("--apply", help="Write it. Without this it is only shown.")] = False,
    org: OnlyOrg = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """What past calls would cost by the prices of today; with --apply their costs, usage and budgets are moved.

    Published prices count as of the time of the call, prices that were set for all times. Cut off, run it again.
    """

    async def deed(desk: Desk) -> list[Tally]:
        row, name = (None, None) if model is None else _split(desk, model)
        async with desk.ground.database.read() as tx:
            organization_id = (await desk.organization(tx)).id if org is not None else None
            rates = Rates(desk.ground.catalog, PriceBook(await store.list_overrides(tx), desk.ground.clock))
        wish = Wish(since.at(desk.at), row.id if row else None, name, unknown_too=unknown_too)
        with bar(hidden=json) as tell:
            return await recost.recost(
                desk.ground.database,
                desk.by,
                rates,
                wish,
                desk.at,
                organization_id=organization_id,
                is_applied=apply,
                progress=lambda done, total, _changed: tell("calls", done, total),
            )

    _print_recost(at_desk(Where(data_dir, org), deed), json=json, is_applied=apply)


def _print_recost(found: list[Tally], *, json: bool, is_applied: bool) -> None:
    before, after = sum(one.before_nano for one in found), sum(one.after_nano for one in found)
    if json:
        show.print_json(
            {
                "applied": is_applied,
                "before_usd": show.usd(before),
                "after_usd": show.usd(after),
                "models": [_tallied(one) for one in found],
            }
        )
        return
    show.print_table(
        ("provider", "model", "calls", "changed", "before", "after", "no price", "unknown"),
        [[*_tallied(one).values()] for one in found],
        "There is no call in this time.",
    )
    changed = sum(one.changed for one in found)
    if not found:
        return
    show.say(f"{show.dollars(before)} {'became' if is_applied else 'would become'} {show.dollars(after)}.")
    if changed and not is_applied:
        show.say("Nothing was changed. Run it again with --apply to write it.")


def _tallied(one: Tally) -> dict[str, Any]:
    return {
        "provider": one.provider,
        "model": one.model,
        "events": one.events,
        "changed": one.changed,
        "before_usd": show.usd(one.before_nano),
        "after_usd": show.usd(one.after_nano),
        "unpriced": one.unpriced,
        "unknown": one.unknown,
    }


def _each(
    request: int | None, image: int | None, audio_minute: int | None, search: int | None
) -> tuple[tuple[str, int | None], ...]:
    """What is priced one by one."""
    return ("request", request), ("image", image), ("audio_minute", audio_minute), ("search", search)


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
                **{
                    name: show.usd(getattr(step, name) // (1 if name == "character" else TOKENS_PER_RATE))
                    for name in PER_UNIT
                    if getattr(step, name)
                },
            }
            for step in steps
        ],
    }


def _by_unit(step: dict[str, Any]) -> str | None:
    """What is paid for beside tokens and requests, in one cell."""
    return ", ".join(f"{step[name]} {_PER[name]}" for name in PER_UNIT if name in step) or None


def _print(found: list[dict[str, Any]], *, json: bool, is_one: bool) -> None:
    if json:
        show.print_json(found[0] if is_one else found)
        return
    headings = (
        "provider",
        "model",
        "above",
        *(kind.replace("_", " ") for kind in _KINDS),
        "request",
        "else",
        "version",
    )
    rows = [
        [one["provider"], one["model"], *(step[name] for name in _SHOWN), _by_unit(step), one["version"]]
        for one in found
        for step in one["steps"]
    ]
    show.print_table(headings, rows, "No price is known. 'ostiary prices set PROVIDER/MODEL' sets one.")
    if rows:
        show.say("USD for a million tokens, and for each request.")
