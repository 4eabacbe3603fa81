"""Builds the whole from the settings; the only place where concrete parts are chosen."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, Final, cast

from ostiary.admin import store as answers
from ostiary.admin.door import Door as AdminDoor
from ostiary.admin.office import Known, Line, Office
from ostiary.agents import ephemeral_keys
from ostiary.clock import Clock
from ostiary.dashboard import hall
from ostiary.dashboard.door import Door as DashboardDoor
from ostiary.dashboard.letters import Post
from ostiary.dashboard.oidc_provider import Oidc
from ostiary.db.changes import Change
from ostiary.db.database import Database
from ostiary.db.migrate import make_folder
from ostiary.errors import CannotStart, Refusal
from ostiary.gateway.address import address_of
from ostiary.gateway.caller import address_in
from ostiary.gateway.directory import Directory
from ostiary.gateway.edge import sweep_connections
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.explain import explain_call
from ostiary.gateway.gate import Gate
from ostiary.gateway.health_watch import HealthWatch
from ostiary.gateway.identify import identify
from ostiary.gateway.marks import Marks
from ostiary.gateway.quota_watch import QuotaWatch
from ostiary.gateway.routes import Door
from ostiary.gateway.unheard import unheard
from ostiary.gateway.watch import Watch
from ostiary.ground import Ground, ground, only_one
from ostiary.jobs import Job, Jobs
from ostiary.ledger import alerts, anchors, retention
from ostiary.ledger.alerts import Refused
from ostiary.ledger.collector import reach
from ostiary.ledger.events import Event
from ostiary.ledger.otlp import Otlp
from ostiary.ledger.outbox import Outbox, Send, by_mail
from ostiary.ledger.spans import Address
from ostiary.ledger.spool import Spool, free_name
from ostiary.ledger.telemetry import Telemetry
from ostiary.ledger.writer import Writer, adopt, nobody
from ostiary.limits import store as money
from ostiary.limits import upkeep
from ostiary.limits.local import LocalCounters
from ostiary.limits.onlook import Onlooker
from ostiary.limits.purse import Purses
from ostiary.limits.ration import Rations
from ostiary.limits.reserve import Reserve
from ostiary.logs import configure, get
from ostiary.mail import Mailer, Server
from ostiary.orgs import roles, sessions, set_up
from ostiary.providers.openai import OpenAI
from ostiary.providers.transport import Transport
from ostiary.server import bind, serve_and_drain, server_of, stop, url_of
from ostiary.settings import Settings
from ostiary.vault import aliases
from ostiary.vault.webhooks import by_webhook

Keeper = Callable[[], Coroutine[None, None, None]]
"""Something that runs beside the doors until the end."""

_NEW_OBJECTS: Final = 20_000
_PAGES_AT_ONCE: Final = 4
_PAGES_S: Final = 15
"""How many pages look into the database at once, and for how long each: calls wait for none of them."""


async def serve(
    settings: Settings,
    clock: Clock | None = None,
    on_ready: Callable[[str, str | None], Awaitable[None]] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `on_ready` is awaited once it answers.

    It is told the gateway's URL and, as long as nobody can sign in to the dashboard, the link by which somebody may
    become the first. When it raises, the gateway stops and the exception passes on: a demonstration ends by itself.
    """
    configure(settings)
    async with AsyncExitStack() as stack:
        make_folder(settings.data_dir)
        stack.enter_context(only_one(settings.data_dir))
        listener = stack.enter_context(bind(settings.host, settings.port))
        base = await stack.enter_async_context(ground(settings, clock))
        gate, keepers = await _build(base, stack)
        async with base.database.transaction() as tx:
            await aliases.make_first(tx, roles.system(), catalog=base.catalog, at=base.clock.now())
        pool = base.database.beside(_PAGES_AT_ONCE, _PAGES_S)
        stack.push_async_callback(pool.close)
        post = Post()
        stack.push_async_callback(post.close)
        server = server_of(_doors(base, gate, pool, post), settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, server)
            stack.callback(loop.remove_signal_handler, number)
        async with _alone(), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(keep()) for keep in keepers]
            running.append(tasks.create_task(sweep_connections(server.server_state)))
            serving = tasks.create_task(serve_and_drain(server, listener))
            try:
                await server.ready.wait()
                _settle_memory()
                url = url_of(listener)
                get("ostiary").info("serving", url=url, version=version("ostiary"), data_dir=str(settings.data_dir))
                if on_ready is not None:
                    await on_ready(url, await _set_up_link(base, url))
                await serving
            finally:
                stop(server)
                await serving
                for task in running:
                    task.cancel()
    get("ostiary").info("stopped")


async def _set_up_link(base: Ground, url: str) -> str | None:
    """Works once, for a day; whoever starts last on a database nobody has signed up at has the one that works."""
    async with base.database.transaction() as tx:
        token = await set_up.link_token(tx, base.clock.now())
    return f"{base.settings.public_url or url}/dashboard/set-up#{token.reveal()}" if token is not None else None


async def _build(base: Ground, stack: AsyncExitStack) -> tuple[Gate, list[Keeper]]:
    """The gate, and what must keep running beside it. What is opened here is closed by the stack, last first."""
    clock, database, folder = base.clock, base.database, base.settings.data_dir / "spool"
    owner = free_name()
    telemetry = await _telemetry(base, stack, owner)
    await adopt(database, folder, clock, telemetry.hear if telemetry is not None else nobody)
    spool = Spool(folder, owner, base.settings.spool_sync)
    writer = Writer(database, spool, clock)
    stack.push_async_callback(writer.close)
    async with database.transaction() as tx:
        await money.add_owner(tx, spool.owner, base.settings.name, version("ostiary"), clock.now())
        await base.seal.announce(tx, spool.owner)
    purses = Purses(database, spool.owner, clock)
    counters = LocalCounters(clock, is_shared=True)
    rations = Rations(database, counters, spool.owner, clock)
    stack.push_async_callback(_give_back, database, rations)
    directory = await _directory(base, purses, rations)
    writer.position = lambda: directory.seq
    writer.charged = directory.soft.hear
    marks = Marks(database, clock)
    stack.push_async_callback(marks.write)
    refused = Refused()
    gate = Gate(
        clock=clock,
        directory=directory,
        dialect=OpenAI(),
        counters=counters,
        reserve=Reserve(clock, counters, purses, rations, refused.note),
        spool=spool,
        transport=await _transport(base, stack),
        writer=writer,
        marks=marks,
        database=database,
        public_catalog=base.settings.public_catalog,
        trusted_proxies=base.settings.trusted_proxies,
        uploads=base.settings.data_dir / "uploads",
        keeps_parents=telemetry is not None,
        watch=Watch(
            base.settings.name,
            base.settings.operator_token,
            purses=purses.totals,
            top_ups=lambda: purses.top_ups,
            rations=lambda: rations.state,
        ),
    )
    _let_hear(telemetry, gate)
    jobs = Jobs(database, spool.owner, clock, await _jobs(base, stack, refused))
    keepers = (writer, purses, rations, marks, jobs, telemetry, *_on_keys(base, gate, stack))
    beside = [listen.run for listen in keepers if listen is not None]
    return gate, [*beside, directory.listen, partial(gate.watch.run, clock), partial(gate.books.run, directory, clock)]


async def _give_back(database: Database, rations: Rations) -> None:
    """End every lease. What a call was leasing when it was cut off is leased first: later nobody would take it back."""
    await database.settle()
    await rations.close()


def _on_keys(base: Ground, gate: Gate, stack: AsyncExitStack) -> tuple[HealthWatch, QuotaWatch]:
    """What learns beside the calls how provider keys are; what is left to be written down is written at the end."""
    quotas = QuotaWatch(gate.directory.health, base.database, base.clock, base.settings.name)
    stack.push_async_callback(quotas.write)
    return HealthWatch(gate.directory, base.database, gate.transport, base.seal, base.clock), quotas


async def _telemetry(base: Ground, stack: AsyncExitStack, owner: str) -> Telemetry | None:
    """The way of spans to the collector of the settings, if there is one; what is left is sent at the end.

    Raises CannotStart where there is one, and the part that sends spans is not installed.
    """
    collector = await stack.enter_async_context(reach(base.settings))
    if collector is None:
        return None
    ours = version("ostiary")
    about = {"service.name": "ostiary", "service.version": ours, "service.instance.id": owner}
    made = Telemetry(collector, Otlp({**about, "ostiary.gateway.name": base.settings.name}, ours), base.clock)
    stack.push_async_callback(made.close)
    return made


def _let_hear(telemetry: Telemetry | None, gate: Gate) -> None:
    """Spans are made of what the ledger has got, and of what the gateway knows beside that."""
    if telemetry is None:
        return

    def address(event: Event) -> Address | None:
        keys = gate.directory.keys_for(event.organization_id, event.provider)
        return next((address_in(key) for key in keys if key.id == event.provider_key_id), None)

    telemetry.address_of = address
    telemetry.calls.still_open = gate.books.ids
    telemetry.calls.settled = lambda: gate.spool.settled
    telemetry.calls.written = lambda: gate.writer.written
    gate.writer.wrote = telemetry.hear
    gate.watch.spans = lambda: telemetry.counts


async def _directory(base: Ground, purses: Purses, rations: Rations) -> Directory:
    """The memory of this process, full; the purses and rations hear of the changes that it hears of."""
    directory = Directory(base.database, base.seal, base.catalog, base.clock)

    def changed(change: Change) -> None:
        if change.noun in ("agent_key", "organization", "provider_key"):
            purses.mark_changed(change.noun, change.id)
            rations.mark_changed(change.id)

    directory.on_change(changed)
    await directory.load()
    await asyncio.to_thread(directory.warm)
    return directory


async def _transport(base: Ground, stack: AsyncExitStack) -> Transport:
    transport = Transport(base.egress)
    await transport.open()
    stack.push_async_callback(transport.close)
    return transport


@asynccontextmanager
async def standing(base: Ground) -> AsyncIterator[Gate]:
    """A gate as it serves, but that nobody comes to and nothing runs beside; gone with all that it held."""
    async with AsyncExitStack() as stack:
        yield (await _build(base, stack))[0]


@asynccontextmanager
async def judging(base: Ground) -> AsyncIterator[Gate]:
    """The same for who wants to know what gateways would do, and must not take what these have leased for taken."""
    async with standing(base) as gate:
        counters = LocalCounters(base.clock, is_shared=True)
        onlooker = Onlooker(base.database, counters, base.clock)
        yield replace(gate, counters=counters, reserve=gate.reserve.beside(counters, onlooker))


async def _jobs(base: Ground, stack: AsyncExitStack, refused: Refused) -> list[Job]:
    """Everything that runs by the clock."""
    database, settings = base.database, base.settings
    anchor = partial(anchors.anchor, database, settings.data_dir / anchors.FILE, settings.name)
    stack.push_async_callback(anchors.at_stop, anchor, base.clock)
    # With a transport of its own: what a webhook does costs calls nothing.
    outbox = Outbox(database, base.clock, senders(base, await _transport(base, stack)), refused)
    return [
        Job("audit anchor", 3_600, anchor, is_everywhere=True),
        Job("outbox", 1, outbox.run, is_everywhere=True),
        Job("expiring keys", 3_600, partial(alerts.tell_of_expiring, database)),
        Job("ended ephemeral keys", 3_600, partial(ephemeral_keys.prune, database)),
        Job("silent gateways", 15, partial(upkeep.tend, database)),
        Job("old traces", 3_600, partial(retention.remove_old, database)),
        Job("old notifications", 86_400, partial(alerts.prune, database)),
        Job("old answers", 3_600, partial(answers.prune, database)),
        Job("ended sessions", 3_600, partial(sessions.prune, database)),
    ]


def senders(base: Ground, transport: Transport) -> dict[str, Send]:
    """How notifications leave this process; no mail without a server for it. Raises CannotStart on a bad setting."""
    ways = {alerts.WEBHOOK: by_webhook(base.database, base.seal, transport, base.clock)}
    url, sender = base.settings.smtp_url, base.settings.mail_from
    if url is not None:
        if sender is None:
            raise CannotStart("OSTIARY_MAIL_FROM must be set where OSTIARY_SMTP_URL is: it is who mails are from.")
        ways[alerts.MAIL] = by_mail(Mailer(Server.parse(url), sender))
    return ways


def _doors(base: Ground, gate: Gate, pool: Database, post: Post) -> Callable[[Exchange], Awaitable[None]]:
    """Three doors at one address; the path alone says which is meant, and none knows of the others."""

    async def identified(line: Line) -> Known:
        caller = await identify(cast("Exchange", line), gate.directory)
        gate.marks.note(caller.key.id if caller.key else None, None, base.clock.now())
        return caller

    def address(line: Line | hall.Line) -> str | None:
        peer = cast("Exchange", line).peer
        trusted = gate.trusted_proxies
        return address_of(peer, line.all_of(b"x-forwarded-for"), trusted) if trusted else peer

    office = Office(
        clock=base.clock,
        database=base.database,
        seal=base.seal,
        egress=base.egress,
        catalog=base.catalog,
        transport=gate.transport,
        settings=base.settings,
        identify=identified,
        address_of=address,
        flush=partial(_flush, gate),
        hear=gate.directory.hear_now,
    )
    calls, admin = Door(gate), AdminDoor(office)
    pages = DashboardDoor(_hall(base, gate, pool, post, address))

    def door(exchange: Exchange) -> Awaitable[None]:
        """Hands on without a frame of its own: on the path of a call each one is felt."""
        path = exchange.path
        if path.startswith("/v1/"):
            return calls(exchange)
        if path == "/api" or path.startswith("/api/"):
            return admin(exchange)
        if path in ("/", "/dashboard") or path.startswith("/dashboard/"):
            return pages(exchange)
        return calls(exchange)

    return door


async def _flush(gate: Gate) -> None:
    """What this process knows and the database does not yet, for who is about to look."""
    await gate.writer.flush()
    await gate.marks.write_few()


def _hall(
    base: Ground, gate: Gate, pool: Database, post: Post, address: Callable[[hall.Line], str | None]
) -> hall.Hall:
    """What the pages need, with connections of their own, and what they ask of the gateway: what a call would do."""

    async def explain(key_id: str, body: bytes, operation: str | None, address: str) -> dict[str, Any]:
        caller = gate.directory.find_holder(key_id)
        if caller is None:
            raise Refusal(
                "conflict", "Nothing opens this key now: it is stopped, or has no secret. Activate or rotate it."
            )
        return await explain_call(gate, caller, unheard(body, address, operation))

    url, sender = base.settings.smtp_url, base.settings.mail_from
    return hall.Hall(
        clock=base.clock,
        database=pool,
        seal=base.seal,
        egress=base.egress,
        catalog=base.catalog,
        transport=gate.transport,
        settings=base.settings,
        address_of=address,
        flush=partial(_flush, gate),
        hear=gate.directory.hear_now,
        explain=explain,
        mailer=Mailer(Server.parse(url), sender) if url is not None and sender is not None else None,
        post=post,
        oidc=Oidc.of(base.settings, gate.transport, base.egress, base.clock),
    )


def _settle_memory() -> None:
    """What start-up made stays for good: the collector need not walk it again, nor run at every few calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """What ended one of several tasks, without the group around it: a person reads it."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group.exceptions[0].__cause__
