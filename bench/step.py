"""`python -m bench.step [NAME…]`: CPU µs of single steps of a call, in this process; for claims of a few µs.

`routing` is more than a step: what all that finds the way of a call costs where there are many keys, against one.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from time import process_time
from timeit import Timer

import uvloop

from bench import payload, routing
from ostiary.agents import credential, policy
from ostiary.clock import SystemClock
from ostiary.db.database import Database
from ostiary.gateway.call import is_too_deep
from ostiary.ledger.events import Event, pack
from ostiary.ledger.spool import Spool, free_name
from ostiary.limits.budgets import TOTAL, AccountKey, Bid, Budget
from ostiary.limits.local import Allowance, Holder, LocalCounters
from ostiary.limits.purse import Purses
from ostiary.limits.reserve import Reserve
from ostiary.providers import catalog
from ostiary.providers.openai import OpenAI
from ostiary.providers.prices import Override, PriceBook
from ostiary.providers.tokens import Tokens
from ostiary.secret import Secret

_REPEATS = 7
_CALLS = 2_000
_IN_FLIGHT = 64
_RICH = 10**17
"""More nano-dollars than a bench spends."""
_WHEN = 1_763_600_000_000
_ROUTING = "routing"

Step = Callable[[], object]
AsyncStep = Callable[[int], Coroutine[object, object, None]]


def steps() -> Mapping[str, Step]:
    """Every step that never waits, ready to be called."""
    key = credential.mint("pat").reveal()
    pepper = Secret("bench-pepper-0123456789abcdef-0123456789")
    known = policy.Policy(networks=policy.parse_networks(["127.0.0.0/8"]), models=policy.choice_of([payload.MODEL]))
    dialect, provider = OpenAI(), catalog.load().get("openai-compatible")
    asked, answered = payload.request(), payload.answer()
    ask = dialect.read_ask("chat", asked)
    stream, event = dialect.watch(dialect.read_ask("chat", payload.request(stream=True))), payload.event(" word")
    rates = {"input": 150_000_000, "output": 600_000_000}
    book = PriceBook([Override(provider.id, payload.MODEL, rates, "bench")])
    price = book.find(provider, payload.MODEL)
    if price is None:
        raise LookupError("the bench's own price is not found")
    used = Tokens(input=payload.INPUT_TOKENS, output=payload.OUTPUT_TOKENS)
    record = _event()
    return {
        "credential.parse": lambda: credential.parse(key),
        "credential.digest": lambda: credential.digest(pepper, key),
        "policy.judge_caller": lambda: policy.judge_caller(known, now=_WHEN, scope="gate:chat", address="127.0.0.1"),
        "policy.judge_model": lambda: policy.judge_model(known, (payload.MODEL,)),
        "call.is_too_deep": lambda: is_too_deep(asked),
        "openai.read_ask": lambda: dialect.read_ask("chat", asked),
        "openai.write_body": lambda: dialect.write_body(ask, provider, payload.MODEL, None),
        "openai.read_answer": lambda: dialect.read_answer(answered),
        "openai.feed (an event)": lambda: stream.feed(event),
        "prices.find": lambda: book.find(provider, payload.MODEL),
        "prices.bound_nano": lambda: price.bound_nano(900, 256),
        "prices.cost_nano": lambda: price.cost_nano(used),
        "events.pack": lambda: pack(record),
    }


def waiting_steps(folder: Path) -> Mapping[str, AsyncStep]:
    """Every step that may wait, as a run of so many calls."""

    async def reserve(count: int) -> None:
        """Take a hold and settle it, with money at hand: no database is asked."""
        clock = SystemClock()
        purses = Purses(Database(f"sqlite:///{folder}/none.db"), "bench", clock)
        purse = purses.get(AccountKey("agent_key", "key_bench", TOTAL))
        purse.leased = purse.free = purse.cap = _RICH
        purse.is_known = True
        holders = (Holder("agent_key", "key_bench", 10**9, 10**9), Holder("organization", "orgn_bench"))
        allowance = Allowance("key_bench", holders, (("agent_key", "key_bench", Budget("total", _RICH)),))
        bid = Bid(135_000, 256, 600_000_000, may_shrink=False)
        keeper = Reserve(clock, LocalCounters(clock), purses)
        for _ in range(count):
            (await keeper.take(allowance, bid)).settle(100_000)

    async def spool(count: int) -> None:
        """Hold and settle in the spool, 64 calls at a time: its thread counts too."""
        book, event = Spool(folder, free_name(), "normal"), _event()

        async def one() -> None:
            for _ in range(count // _IN_FLIGHT):
                hold_id, held = book.hold(event)
                await held
                await book.settle(hold_id, event)

        try:
            await asyncio.gather(*(one() for _ in range(_IN_FLIGHT)))
        finally:
            await book.close(remove=True)

    return {"reserve.take + settle": reserve, "spool.hold + settle": spool}


def _event() -> Event:
    """What a call leaves behind."""
    return Event(
        request_id="req_0000000000000000000000",
        attempt=1,
        organization_id="org_0000000000000000000000",
        agent_key_id="key_0000000000000000000000",
        agent_key_name="bench",
        credential_id=None,
        operation="chat",
        provider="openai-compatible",
        model_asked=payload.MODEL,
        model=payload.MODEL,
        provider_key_id="vk_0000000000000000000000",
        provider_key_name="bench",
        stream=False,
        started_at=_WHEN,
        client_ip="127.0.0.1",
        metadata={},
        held_nano=288_600,
        leased=(("agent_key", "key_0000000000000000000000", TOTAL),),
        price_version="bench",
        cost_nano=99_000,
        usage_source="provider",
        status="ok",
        http_status=200,
        input_tokens=payload.INPUT_TOKENS,
        output_tokens=payload.OUTPUT_TOKENS,
        latency_ms=12,
    )


def _cost_us(step: Step) -> float:
    """CPU µs of one call: the least of several repeats, for nothing makes a step faster than it is."""
    timer = Timer(step, timer=process_time)
    return min(timer.repeat(_REPEATS, _CALLS)) / _CALLS * 1e6


def _waiting_cost_us(step: AsyncStep) -> float:
    """The same for a step that waits, on the loop the gateway runs on; all threads of the process count."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        costs = []
        for _ in range(_REPEATS):
            before = process_time()
            runner.run(step(_CALLS))
            costs.append(process_time() - before)
    return min(costs) / _CALLS * 1e6


def main() -> None:
    """Print a line for each step, or for each whose name holds one of the words given."""
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of steps; none: all")
    asked = parser.parse_args().names
    with tempfile.TemporaryDirectory(prefix="ostiary-bench-") as folder:
        plain, waiting = steps(), waiting_steps(Path(folder))
        known = (*plain, *waiting, _ROUTING)
        chosen = [name for name in known if not asked or any(part in name for part in asked)]
        if not chosen:
            parser.error(f"no such step; there are {', '.join(known)}")
        for name in chosen:
            if name == _ROUTING:
                routing.show(Path(folder))
                continue
            cost = _cost_us(plain[name]) if name in plain else _waiting_cost_us(waiting[name])
            print(f"{name:24} {cost:8.2f} µs")


if __name__ == "__main__":
    main()
