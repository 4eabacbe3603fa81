"""What finding the way of a call costs in a wide vault: 1,200 keys of 60 providers and 200 endpoints, against one."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import process_time, thread_time

from bench import payload, wide
from bench.wide import Width
from ostiary.agents.policy import Policy
from ostiary.gateway import slots
from ostiary.gateway.bid import bid_on
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller, OpenKey
from ostiary.gateway.choose import choose
from ostiary.gateway.directory import Directory
from ostiary.gateway.health import Health
from ostiary.gateway.keyring import Keyring
from ostiary.gateway.plan import plan
from ostiary.gateway.target import Target
from ostiary.ground import Ground, ground
from ostiary.limits.budgets import Budget
from ostiary.limits.local import Allowance
from ostiary.orgs import organizations, roles
from ostiary.providers.openai import OpenAI
from ostiary.providers.transport import Headers
from ostiary.providers.verdict import judge
from ostiary.settings import Settings
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import ProviderKeyEdit

GOAL_US = 5.0
_ORIGIN = "http://127.0.0.1:9"
_PAIRS = 41
_CALLS = 500
_TALKS = 500
"""Different conversations, so that all slots and all names have their turn."""
_FRESH = 5
"""Callers whose first call for a name is taken the time of."""
_REPEATS = 9
_BUDGET = Budget("total", 10**17)
_FAILING: Sequence[tuple[int, Mapping[bytes, bytes]]] = (
    (503, {}),
    (429, {b"retry-after": b"3600"}),
    (402, {}),
    (403, {}),
)
"""What providers say when a key is in trouble: degraded, cooling, exhausted, denied one model."""


@dataclass(frozen=True, slots=True)
class World:
    """An installation as one gateway knows it, and who calls."""

    base: Ground
    width: Width
    directory: Directory
    caller: Caller

    @property
    def keys(self) -> list[OpenKey]:
        """Every provider key that the caller may use, own before the pool."""
        home = self.caller.organization_id
        return [key for name in self.width.names for key in self.directory.keys_for(home, name)]


@asynccontextmanager
async def opened(folder: Path, width: Width) -> AsyncIterator[World]:
    """An installation of this width, made by the deeds that people do, and read as a gateway that starts reads it."""
    async with ground(_settings(folder, width)) as base:
        await wide.furnish(base, width, f"{_ORIGIN}/v1")
        directory = Directory(base.database, base.seal, base.catalog, base.clock)
        await directory.load()
        directory.warm()
        async with base.database.read() as tx:
            home = (await organizations.list_(tx, roles.operator()))[0].id
        caller = Caller(home, Policy(), Allowance("key_bench", budgets=(("agent_key", "key_bench", _BUDGET),)))
        yield World(base, width, directory, caller)


def _settings(folder: Path, width: Width) -> Settings:
    folder.mkdir()
    catalogue = folder / "catalogue.toml"
    wide.write_catalogue(catalogue, width)
    return Settings.load(
        environment={"OSTIARY_EGRESS_ALLOW": _ORIGIN}, data_dir=folder / "data", catalog_file=catalogue
    )


# ---- every call -------------------------------------------------------------------------------------------------


def names_of(width: Width) -> Mapping[str, Sequence[str]]:
    """What may stand in `model`, by its kind."""
    return {
        f"a model at one of {width.providers} providers": width.direct(),
        f"a bare name that {wide.SEVERAL} serve": [wide.SEVERALS],
        f"a bare name that all {width.providers} serve": [payload.MODEL],
        f"one of {width.routes} endpoints, split over three": width.routed(),
        f"one of {width.aliases} aliases": width.aliased(),
    }


def calls_for(names: Sequence[str]) -> list[Call]:
    """As many conversations, each with a name of these in its turn."""
    return [_call(names[n % len(names)], n) for n in range(_TALKS)]


def _call(name: str, n: int) -> Call:
    body = json.loads(payload.request(model=name))
    body["messages"][1]["content"] = f"{n} {body['messages'][1]['content']}"
    return Call("chat", OpenAI().read_ask("chat", json.dumps(body).encode()), None)


def find_ways(world: World, calls: Sequence[Call], count: int) -> None:
    """All that a call does whose cost could depend on how many keys there are; what the provider does is left out."""
    directory, caller, clock = world.directory, world.caller, world.base.clock
    health = directory.health
    for n in range(count):
        call = calls[n % len(calls)]
        route = plan(caller, call, directory)
        order = choose(route, call, health, clock.now(), caller.organization_id, route.every)
        bid_on(call, order.reach)
        target = order.first
        if health.is_anything_known:
            health.trying(target)
        health.ended(target, "ok", 0)


@dataclass(frozen=True, slots=True)
class Added:
    """CPU µs of a call with one key and with many: the least of all, and the median of what each pair differs by.

    A machine that does other work besides is slower at times, by half or more, and never faster.
    """

    before_us: float
    after_us: float
    median_us: float

    @property
    def least_us(self) -> float:
        """What the quietest moments of both differ by."""
        return self.after_us - self.before_us

    def line(self, kind: str) -> str:
        """As a line of the list."""
        mark = "" if self.median_us <= GOAL_US else f"  MISSED (goal ≤ {GOAL_US:g})"
        return (
            f"  {kind:44} {self.before_us:6.2f} → {self.after_us:6.2f}"
            f"  added {self.least_us:6.2f}, median of pairs {self.median_us:6.2f}{mark}"
        )


def added_us(one: World, many: World, names: Sequence[str], *, in_trouble: bool) -> Added:
    """Pairs of short runs, so that what slows the machine slows both; every other pair begins with the other one."""
    forget_troubles(many)
    if in_trouble:
        make_troubles(many)
    plain, wanted = calls_for(one.width.direct()), calls_for(names)
    pairs = []
    for n in range(_PAIRS + 1):
        if n % 2:
            after, before = _us(many, wanted), _us(one, plain)
        else:
            before, after = _us(one, plain), _us(many, wanted)
        if n:  # the first only warms up
            pairs.append((before, after))
    return Added(
        min(before for before, _ in pairs),
        min(after for _, after in pairs),
        statistics.median(after - before for before, after in pairs),
    )


def make_troubles(world: World) -> None:
    """One key in twenty, of each provider another one, is what `_FAILING` makes of it."""
    for n, name in enumerate(world.width.names):
        keys = world.directory.keys_for(world.caller.organization_id, name)
        status, said = _FAILING[n % len(_FAILING)]
        for key in keys[n % 20 :: 20]:
            target = Target(key, payload.MODEL, None)
            world.directory.health.failed(target, judge(status, None, {}), Headers(dict(said)), {})


def forget_troubles(world: World) -> None:
    """As if nothing had ever failed."""
    for key in world.keys:
        world.directory.health.troubles.forget(key.id)


def _us(world: World, calls: Sequence[Call]) -> float:
    before = process_time()
    find_ways(world, calls, _CALLS)
    return (process_time() - before) / _CALLS * 1e6


@contextmanager
def _without_collector() -> Iterator[None]:
    """As `timeit` does it: what others left behind is not this one's cost."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


# ---- after a change ---------------------------------------------------------------------------------------------


def first_us(world: World, name: str, *, is_new: bool) -> float:
    """CPU µs of a caller's first call for a name after a change; `is_new`: nobody asked for it since the start."""
    took = []
    for n in range(_FRESH):
        fresh = replace(world, caller=replace(world.caller))
        if is_new:
            for one in vars(slots).values():
                if hasattr(one, "cache_clear"):
                    one.cache_clear()
        call = _call(name, n)
        before = process_time()
        find_ways(fresh, [call], 1)
        took.append(process_time() - before)
        del fresh
    return statistics.median(took) * 1e6


async def shelved_ms(world: World) -> tuple[float, float]:
    """CPU ms for which the loop is held when anything changes: the keys put in order, and of that, told to health."""
    health = Health(world.base.clock)
    ring = Keyring(world.base.seal, world.base.catalog, health)
    async with world.base.database.read() as tx:
        await ring.load(tx)
    keys = {key.id: key for key in world.keys}
    return _median_ms(ring.shelve), _median_ms(lambda: health.know(keys))


async def heard_ms(world: World) -> float:
    """CPU ms on the loop for hearing that one provider key was edited, the reading of the database included."""
    by, took = roles.operator(), []
    for n, key in zip(range(_REPEATS), world.keys, strict=False):
        edit = ProviderKeyEdit(key.provider, {"weight": n + 10})
        async with world.base.database.transaction() as tx:
            await provider_keys.change(
                tx,
                by,
                key.organization_id,
                key.id,
                edit,
                seal=world.base.seal,
                egress=world.base.egress,
                at=world.base.clock.now(),
            )
        before = thread_time()
        await world.directory.catch_up()
        took.append(thread_time() - before)
    return statistics.median(took) * 1e3


def _median_ms(work: Callable[[], object]) -> float:
    took = []
    for _ in range(_REPEATS):
        before = process_time()
        work()
        took.append(process_time() - before)
    return statistics.median(took) * 1e3


# ---- all of it --------------------------------------------------------------------------------------------------


def show(folder: Path, width: Width | None = None) -> None:
    """Print every figure as soon as it is there."""
    asyncio.run(_show(folder, width or Width()))


async def _show(folder: Path, width: Width) -> None:
    least = Width(providers=1, keys=1, routes=0, aliases=0)
    async with opened(folder / "one", least) as one, opened(folder / "many", width) as many:
        print(_title(width))
        with _without_collector():
            for line in chain(_every_call(one, many), _first_calls(many)):
                print(line, flush=True)
        shelved, told = await shelved_ms(many)
        print(f"\nThe loop is held for {shelved:.2f} ms by any change (of that, Health.know {told:.2f} ms);")
        print(f"hearing that a provider key was edited takes {await heard_ms(many):.2f} ms on the loop in all.")


def _title(width: Width) -> str:
    return (
        f"{width.provider_keys:,} keys of {width.providers} providers, {width.routes + width.aliases} endpoints and "
        f"aliases, against one key; {_PAIRS} interleaved pairs of {_CALLS:,} calls"
    )


def _every_call(one: World, many: World) -> Iterator[str]:
    for in_trouble in (False, True):
        yield ""
        yield f"CPU µs a call, {'one key in twenty in trouble' if in_trouble else 'all keys well'}"
        for kind, names in names_of(many.width).items():
            yield added_us(one, many, names, in_trouble=in_trouble).line(kind)
    forget_troubles(many)


def _first_calls(many: World) -> Iterator[str]:
    yield ""
    yield "CPU µs of a caller's first call after a change, and for a name nobody asked for since the start"
    for kind, names in names_of(many.width).items():
        again, new = first_us(many, names[0], is_new=False), first_us(many, names[0], is_new=True)
        yield f"  {kind:44} {again:10,.0f}  {new:10,.0f}"
