"""`ostiary traces`: single calls, the newest first, and one of them in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Key, Limit, Org, reader
from ostiary.cli.periods import Model, Provider, Since, Until
from ostiary.ledger import reports
from ostiary.ledger.reports import Filter, Summary, Trace
from ostiary.ledger.waterfall import Step, steps_of
from ostiary.money import nano_of
from ostiary.providers.tokens import UNITS
from ostiary.vault import contents
from ostiary.vault.contents import Said

app: Final = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode=None)

HEADINGS: Final = ("at", "key", "provider", "model", "status", "input", "output", "cost", "ms", "request id")
_STATUSES: Final = ("ok", "error", "cancelled", "unknown")
_BAR: Final = 40
_US: Final = 1_000
_SECOND_MS: Final = 1_000


def _status(text: str) -> str:
    if text.strip() not in _STATUSES:
        raise ValueError(f"{text!r} is not one of {', '.join(_STATUSES)}")
    return text.strip()


Status = Annotated[
    str | None, typer.Option("--status", parser=reader(_status), metavar="WORD", help=", ".join(_STATUSES) + ".")
]
MinLatency = Annotated[int | None, typer.Option("--min-latency-ms", min=0, help="Only what took so long or longer.")]
MinCost = Annotated[
    int | None,
    typer.Option("--min-cost-usd", parser=reader(nano_of), metavar="USD", help="Only what cost so much or more."),
]


@app.callback()
def traces(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    *,
    key: Key = None,
    status: Status = None,
    model: Model = None,
    provider: Provider = None,
    min_latency_ms: MinLatency = None,
    min_cost: MinCost = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    summary: Annotated[bool, typer.Option("--summary", help="What all of them come to.")] = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Every attempt of every call, the newest first: who, which model, how it ended, what it cost."""
    if context.invoked_subcommand is not None:
        return

    async def deed(desk: Desk) -> list[Trace] | Summary:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            desk.by.require("traces.show", organization.id)
            key_id = await desk.key_of_history(tx, organization.id, key)
            wanted = Filter(
                agent_key_ids=None if key_id is None else (key_id,),
                status=status,
                since_at=since.at(desk.at) if since else None,
                until_at=until.at(desk.at) if until else None,
                model=model,
                provider=provider,
                min_latency_ms=min_latency_ms,
                min_cost_nano=min_cost,
            )
            if summary:
                return await reports.sum_traces(tx, organization.id, wanted)
            return await reports.list_traces(tx, organization.id, wanted, limit=limit)

    found = at_desk(Where(data_dir, org), deed)
    if isinstance(found, Summary):
        _print_summary(found, json=json)
    elif json:
        show.print_json([described(trace) for trace in found])
    else:
        show.print_table(HEADINGS, [row(trace) for trace in found], "There is no call in this time.")


@app.command("show")
def show_(
    request_id: Annotated[str, typer.Argument(help="The x-request-id of the answer.", show_default=False)],
    *,
    content: Annotated[
        bool, typer.Option("--content", help="Also what was asked and answered, where that is captured; it is audited.")
    ] = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """One call with all its attempts, and where its time went."""

    async def deed(desk: Desk) -> tuple[list[Trace], list[Said]]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            desk.by.require("traces.show", organization.id)
            found = await reports.get_call(tx, organization.id, request_id)
            if not content:
                return found, []
            seal, whole = desk.ground.seal, organization.id
            return found, await contents.show(tx, desk.by, seal, whole, request_id, owner_id=None, at=desk.at)

    attempts, said = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(
            {
                "request_id": request_id,
                "cost_usd": show.usd(sum(one.cost_nano for one in attempts)),
                "attempts": [described(one) for one in attempts],
                "steps": [_step(step) for step in steps_of(attempts)],
                "content": [{"attempt": one.attempt, "request": one.request, "answer": one.answer} for one in said],
            }
        )
        return
    _print_call(attempts)
    for one in said:
        show.say(f"\nAttempt {one.attempt} asked:\n{one.request or '(cannot be opened)'}")
        show.say(f"and was answered:\n{one.answer or '(cannot be opened)'}")


def _print_call(attempts: Sequence[Trace]) -> None:
    last = attempts[-1]
    show.print_fields(
        {
            "request": last.request_id,
            "agent key" if last.agent_key_id else "client credential": last.caller,
            "asked for": last.model_asked,
            "from": last.client_ip,
            "cost": show.dollars(sum(one.cost_nano for one in attempts)),
            "metadata": dict(last.metadata),
        }
    )
    show.say()
    show.print_table(HEADINGS, [row(one) for one in attempts], "")
    show.say()
    for line in _bars(steps_of(attempts)):
        show.say(line)


def _step(step: Step) -> dict[str, Any]:
    return {"name": step.name, "attempt": step.attempt, "begins_us": step.begins_us, "lasts_us": step.lasts_us}


def _bars(steps: Sequence[Step]) -> list[str]:
    """A waterfall: each step a bar that begins where it began."""
    whole = max((step.begins_us + step.lasts_us for step in steps), default=0) or 1
    names = [step.name if step.attempt is None else f"{step.name} {step.attempt}" for step in steps]
    widest = max((len(name) for name in names), default=0)
    lines = []
    for name, step in zip(names, steps, strict=True):
        begins = min(step.begins_us * _BAR // whole, _BAR - 1)
        lasts = max(min(-(-step.lasts_us * _BAR // whole), _BAR - begins), 1)
        bar = (" " * begins + "█" * lasts).ljust(_BAR)
        lines.append(f"{name.ljust(widest)}  {bar}  {_ms(step.lasts_us)} ms")
    return lines


def _ms(microseconds: int) -> str:
    return f"{microseconds // _US}.{microseconds % _US:03}"


def _print_summary(found: Summary, *, json: bool) -> None:
    said = {
        "attempts": found.attempts,
        "requests": found.requests,
        "errors": found.errors,
        "error_percent": found.error_percent,
        "cost_usd": show.usd(found.cost_nano),
        "average_ms": found.average_ms,
        "p95_ms": found.p95_ms,
        "measured": found.measured,
    }
    if json:
        show.print_json(said)
    else:
        show.print_fields(said)


def described(trace: Trace) -> dict[str, Any]:
    """A trace as JSON. Where tokens had no price, `cost_usd` is 0 and `price_version` null."""
    return {
        "request_id": trace.request_id,
        "attempt": trace.attempt,
        "at": show.when(trace.at),
        "agent_key": trace.agent_key,
        "agent_key_id": trace.agent_key_id,
        "parent_key_id": trace.parent_key_id,
        "credential_id": trace.credential_id,
        "credential": trace.credential,
        "operation": trace.operation,
        "endpoint": trace.endpoint,
        "provider": trace.provider,
        "provider_key": trace.provider_key,
        "provider_key_id": trace.provider_key_id,
        "model_asked": trace.model_asked,
        "model": trace.model,
        "model_served": trace.model_served,
        "status": trace.status,
        "http_status": trace.http_status,
        "error_code": trace.error_code,
        "stream": trace.stream,
        "tokens": show.tokens(trace.tokens),
        **{name: getattr(trace, name) for name in UNITS},
        "cost_usd": show.usd(trace.cost_nano),
        "held_usd": show.usd(trace.held_nano),
        "over_hold_usd": show.usd(trace.over_hold_nano),
        "price_version": trace.price_version,
        "usage_source": trace.usage_source,
        "latency_ms": trace.latency_ms,
        "first_token_ms": trace.first_token_ms,
        "timings": dict(trace.timings),
        "client_ip": trace.client_ip,
        "metadata": dict(trace.metadata),
    }


def _given(trace: Trace) -> int | str:
    """What went in: tokens, or what it is paid by instead."""
    if trace.tokens.input or not (trace.audio_ms or trace.characters or trace.searches):
        return trace.tokens.input
    if trace.audio_ms:
        return f"{trace.audio_ms / _SECOND_MS:g} s"
    return f"{trace.characters} chars" if trace.characters else f"{trace.searches} searches"


def _made(trace: Trace) -> int | str:
    """What came out."""
    if trace.tokens.output or not trace.images:
        return trace.tokens.output
    return f"{trace.images} image{'s' if trace.images > 1 else ''}"


def row(trace: Trace) -> list[object]:
    """A trace as a line of a table."""
    used = (trace.tokens.input, trace.tokens.output, *(getattr(trace, name) for name in UNITS))
    is_unpriced = trace.price_version is None and any(used)
    return [
        show.when(trace.at),
        trace.caller,
        trace.provider,
        trace.model,
        trace.error_code or trace.status,
        _given(trace),
        _made(trace),
        "unpriced" if is_unpriced else show.dollars(trace.cost_nano),
        trace.latency_ms,
        trace.request_id,
    ]
