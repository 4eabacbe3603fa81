"""`ostiary demo`: one streamed and one plain call through a gateway of its own, from an empty folder."""

from __future__ import annotations

import asyncio
import errno
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
import uvloop

from ostiary import logs
from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.store import SCOPE
from ostiary.app import serve
from ostiary.cli import show, traces
from ostiary.cli.caller import Reply, call
from ostiary.cli.desk import read_secret
from ostiary.cli.options import TOP_PORT
from ostiary.cli.sample import CHAT_MODEL, EMBEDDING_MODEL, PROVIDER, sample_provider
from ostiary.clock import Clock, SystemClock
from ostiary.errors import CannotStart, Refusal
from ostiary.ground import Ground, ground
from ostiary.ids import new_id
from ostiary.ledger import prices, reports
from ostiary.ledger.reports import Trace
from ostiary.limits.budgets import TOTAL, Budget
from ostiary.limits.store import list_accounts
from ostiary.money import NANO_PER_USD
from ostiary.orgs import organizations, roles
from ostiary.providers import catalog
from ostiary.providers.catalog import Provider
from ostiary.providers.egress import Blocked, Egress
from ostiary.providers.prices import PriceBook
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)

_HOST: Final = "127.0.0.1"
_PORT: Final = 8420
_BUDGET_NANO: Final = 5 * NANO_PER_USD
_SAMPLE_RATES: Final = {"input": NANO_PER_USD, "output": 2 * NANO_PER_USD}
"""One dollar for a million tokens in, two for a million out: the sample has a price so that there is one to see."""
_FREE_RATES: Final = {"input": 0, "output": 0}
_QUESTION: Final = "Who keeps the door?"
_LEDGER_S: Final = 10.0
_LOOK_S: Final = 0.05
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class _Source:
    """What answers behind the gateway, and the key that goes to it. `rates` by model, where no price is published."""

    provider: Provider
    base_url: str
    model: str
    secret: Secret
    rates: Mapping[str, Mapping[str, int]]

    @property
    def name(self) -> str:
        """The model as a caller names it."""
        return f"{self.provider.id}/{self.model}"


@dataclass(frozen=True, slots=True)
class _Stage:
    """The installation with everything in it that a call needs."""

    base: Ground
    source: _Source
    provider_key: ProviderKey
    agent_key: AgentKey
    secret: Secret


@dataclass(frozen=True, slots=True)
class _Result:
    """What the calls were and cost, as the ledger and the account say."""

    replies: tuple[Reply, ...]
    traces: list[Trace]
    remaining_nano: int

    @property
    def cost_nano(self) -> int:
        """Of all calls."""
        return sum(trace.cost_nano for trace in self.traces)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was asked for: without a port the usual one, without a source the sample provider."""

    port: int | None
    source: _Source | None
    json: bool
    once: bool


class _DoneError(Exception):
    """Ends the gateway when one look was asked for."""


@app.command()
def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the calls instead of serving on.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=TOP_PORT, help="The port to listen on. Usual: 8420, or a free one when it is taken."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="A fresh folder that stays. Usual: one that is removed at the end."),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option("--upstream", metavar="URL", help="The base URL of a real provider instead of the sample."),
    ] = None,
    upstream_model: Annotated[
        str | None, typer.Option("--upstream-model", metavar="M", help="The model to call there.")
    ] = None,
    upstream_key_stdin: Annotated[
        bool, typer.Option("--upstream-key-stdin", help="Read the provider's key from standard input.")
    ] = False,
) -> None:
    """See a call go through a gateway of its own. Settings and keys in the environment are not looked at."""
    if bool(upstream) != bool(upstream_model) or (upstream_key_stdin and not upstream):
        raise typer.BadParameter("--upstream and --upstream-model go together, and with --upstream-key-stdin.")
    real = (
        _real_source(upstream, upstream_model, from_stdin=upstream_key_stdin) if upstream and upstream_model else None
    )
    wish = _Wish(port, real, json, once)
    with _fresh(data_dir) as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(folder, wish))
        except* _DoneError:
            pass
        except* Refusal as refused:
            raise _first(refused) from None


async def _run(folder: Path, wish: _Wish) -> None:
    clock = SystemClock()
    begun = clock.monotonic()
    async with AsyncExitStack() as stack:
        source = wish.source
        if source is None:
            source = await stack.enter_async_context(_sample_source(clock))
        settings = _settings(folder, source, wish.port)
        logs.configure(settings)
        base = await stack.enter_async_context(ground(settings, clock))
        stage = await _prepare(base, source)

        async def ready(url: str, link: str | None) -> None:
            await _perform(stage, url, wish, begun)
            if not wish.once:
                where = f"{link}\n             (works once: you will be the owner)" if link else f"{url}/dashboard"
                (show.warn if wish.json else show.say)(f"Dashboard    {where}")
            if wish.once:
                raise _DoneError

        await serve(settings, clock, ready)


# ---- the stage --------------------------------------------------------------------------------------------------


@contextmanager
def _fresh(chosen: Path | None) -> Iterator[Path]:
    """A folder with nothing in it: a demonstration must not touch what somebody works with."""
    if chosen is not None and chosen.exists() and any(chosen.iterdir()):
        raise CannotStart(
            f"{chosen} is not empty. The demo needs a fresh folder: choose another, or leave --data-dir out."
        )
    with nullcontext(str(chosen)) if chosen else tempfile.TemporaryDirectory(prefix="ostiary-demo-") as folder:
        yield Path(folder)


def _settings(folder: Path, source: _Source, port: int | None) -> Settings:
    """Made by hand, so that nothing in the environment takes part."""
    usual = _PORT if _is_free(_PORT) else 0
    return Settings(
        host=_HOST,
        port=usual if port is None else port,
        data_dir=folder,
        egress_allow=(_origin(source.base_url),),
        log_level="error",
        name="demo",
    )


def _origin(url: str) -> str:
    """`scheme://host[:port]` of the URL. A mistake in usage when it is none that can be called."""
    try:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        Egress((origin,)).check_url(url)
    except (ValueError, CannotStart, Blocked):  # the URL is not quoted: it may hold a password
        raise typer.BadParameter(
            "It is not a plain URL such as https://api.example.org/v1.", param_hint="--upstream"
        ) from None
    return origin


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        return True


@asynccontextmanager
async def _sample_source(clock: Clock) -> AsyncIterator[_Source]:
    secret = Secret(new_id("sample", clock.now()))
    rates = dict.fromkeys((CHAT_MODEL, EMBEDDING_MODEL), _SAMPLE_RATES)
    async with sample_provider(secret, clock) as base_url:
        yield _Source(catalog.load().get(PROVIDER), base_url, CHAT_MODEL, secret, rates)


def _real_source(url: str, model: str, *, from_stdin: bool) -> _Source:
    """A provider of the catalogue when the URL is its own, else any OpenAI-compatible server."""
    rows = catalog.load()
    host = _origin(url).partition("://")[2].lower()
    known = (row for row in rows.providers.values() if row.base_url and urlsplit(row.base_url).netloc == host)
    provider = next(known, None) or rows.get("openai-compatible")
    secret = read_secret(f"API key for {host}", from_stdin=from_stdin, is_optional=provider.key_optional)
    is_priced = PriceBook().find(provider, model) is not None
    return _Source(provider, url, model, secret, {} if is_priced else {model: _FREE_RATES})


async def _prepare(base: Ground, source: _Source) -> _Stage:
    """What a person would do by `vault add`, `prices set` and `keys create`: the same deeds, in one transaction."""
    by, at = roles.operator(origin="demo"), base.clock.now()
    new = NewProviderKey("demo", source.provider, source.secret, source.base_url)
    async with base.database.transaction() as tx:
        (organization,) = await organizations.list_(tx, by)
        key = await provider_keys.add(tx, by, organization.id, new, seal=base.seal, egress=base.egress, at=at)
        for model, rates in source.rates.items():
            await prices.set_price(tx, by, source.provider, model, rates, at)
        agent_key, secret = await agent_keys.create(
            tx,
            by,
            organization.id,
            NewAgentKey(name="demo", budget=Budget("total", _BUDGET_NANO)),
            pepper=base.seal.pepper,
            at=at,
        )
    return _Stage(base, source, key, agent_key, secret)


# ---- the calls --------------------------------------------------------------------------------------------------


async def _perform(stage: _Stage, url: str, wish: _Wish, begun: float) -> None:
    if not wish.json:
        _introduce(stage)
    transport = Transport(Egress((url,)))
    await transport.open()
    try:
        replies = []
        for stream in (True, False):
            if not wish.json:
                show.say(f"\n{'Streamed' if stream else 'Plain'}: {_QUESTION}")
            write = None if wish.json else show.write
            replies.append(
                await call(transport, url, stage.secret, stage.source.name, _QUESTION, stream=stream, write=write)
            )
    finally:
        await transport.close()
    result = await _settled(stage, tuple(replies))
    elapsed_ms = int((stage.base.clock.monotonic() - begun) * 1_000)
    if wish.json:
        show.print_json(_described(stage, result, elapsed_ms))
    else:
        _conclude(result)
    if not wish.once:
        (show.warn if wish.json else show.say)(_how_to_call(stage, url))


async def _settled(stage: _Stage, replies: tuple[Reply, ...]) -> _Result:
    """The calls as the ledger has them. Their settlements were committed before their last bytes; the rows follow."""
    wanted = {reply.request_id for reply in replies}
    clock, organization_id = stage.base.clock, stage.agent_key.organization_id
    end = clock.monotonic() + _LEDGER_S
    while clock.monotonic() < end:
        async with stage.base.database.read() as tx:
            found = await reports.list_traces(tx, organization_id, reports.Filter(agent_key_ids=(stage.agent_key.id,)))
            accounts = await list_accounts(tx, SCOPE, stage.agent_key.id)
        if wanted <= {trace.request_id for trace in found}:
            spent = sum(account.spent_nano for account in accounts if account.period_id == TOTAL)
            return _Result(replies, found, _BUDGET_NANO - spent)
        await clock.sleep(_LOOK_S)
    raise Refusal("service_unavailable", f"The calls were answered, but are not in the ledger after {_LEDGER_S:.0f} s.")


# ---- what is printed --------------------------------------------------------------------------------------------


def _described(stage: _Stage, result: _Result, elapsed_ms: int) -> dict[str, Any]:
    kinds = [show.tokens(trace.tokens) for trace in result.traces]
    return {
        "ok": True,
        "status": _OK,
        "request_id": result.replies[-1].request_id,
        "tokens": {kind: sum(one[kind] for one in kinds) for kind in kinds[0]},
        "cost_usd": show.usd(result.cost_nano),
        "remaining_usd": show.usd(result.remaining_nano),
        "agent_key_preview": stage.agent_key.previews[0],
        "elapsed_s": elapsed_ms / 1_000,
    }


def _introduce(stage: _Stage) -> None:
    source = stage.source
    show.say(f"A gateway of its own in {stage.base.settings.data_dir}; nothing else is touched.")
    show.say(f"Provider     {source.provider.name}, {source.base_url}")
    show.say(f"Its key      {stage.provider_key.preview or 'none'}, sealed in the vault")
    if source.provider.id == PROVIDER:
        show.say("Its price    $1 for a million tokens in, $2 for a million out")
    elif source.rates:
        show.say("Its price    not published: counted as 0 here")
    show.say(f"Agent key    {stage.agent_key.previews[0]}, with a budget of {show.dollars(_BUDGET_NANO)}")


def _conclude(result: _Result) -> None:
    counted = [trace.tokens for trace in result.traces]
    show.say(f"\nTokens       {sum(one.input for one in counted)} in, {sum(one.output for one in counted)} out")
    show.say(f"Cost         {show.dollars(result.cost_nano)}")
    show.say(f"Remaining    {show.dollars(result.remaining_nano)} of {show.dollars(_BUDGET_NANO)}")
    show.say("\nIn the ledger:")
    show.print_table(traces.HEADINGS, [traces.row(trace) for trace in result.traces], "")


def _how_to_call(stage: _Stage, url: str) -> str:
    secret, model = stage.secret.reveal(), stage.source.name
    return f"""
It serves on at {url}/v1 until Ctrl-C. Call it with curl:

    curl {url}/v1/chat/completions \\
      -H 'Authorization: Bearer {secret}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "{_QUESTION}"}}]}}'

or with the OpenAI SDK:

    from openai import OpenAI

    client = OpenAI(base_url="{url}/v1", api_key="{secret}")
    answer = client.chat.completions.create(
        model="{model}", messages=[{{"role": "user", "content": "{_QUESTION}"}}]
    )
    print(answer.choices[0].message.content)
"""


def _first(group: BaseExceptionGroup[Refusal]) -> Refusal:
    for one in group.exceptions:
        return _first(one) if isinstance(one, BaseExceptionGroup) else one
    raise AssertionError("a group has members")
