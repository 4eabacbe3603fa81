"""`python -m bench.ledger`: how long lists and sums take when there are millions of events, on SQLite."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command

from ostiary.clock import DAY_MS
from ostiary.db.database import Database, Transaction
from ostiary.db.migrate import alembic_config, migrate
from ostiary.ids import new_id
from ostiary.ledger import audit_store, reports, writer
from ostiary.ledger.events import Event
from ostiary.ledger.reports import Dimension, Filter, UsageFilter

_ORG = "org_" + "1" * 22
_DAYS = 90
_END = 20_600 * DAY_MS
_BEGIN = _END - _DAYS * DAY_MS
_KEYS = 300
_OTHERS = 20
"""Organizations that share one event in twenty."""
_MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4"),
    ("groq", "llama-3.3-70b-versatile"),
    ("mistral", "mistral-large-latest"),
    ("google", "gemini-2.5-flash"),
)
_RARE = ("deepseek", "deepseek-chat")
_GOAL_MS = 300
_BATCH = 1_000


@dataclass(frozen=True)
class Key:
    """An agent key and what it calls."""

    id: str
    name: str
    models: tuple[tuple[str, str], ...]


def main() -> None:
    """Fill, measure, print; the file is deleted at the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--audit", type=int, default=100_000, help="rows of the audit log")
    parser.add_argument("--repeats", type=int, default=60, help="of each question, with chosen values")
    parser.add_argument("--keep", action="store_true", help="leave the file there, for --file")
    parser.add_argument("--file", type=Path, help="ask an earlier file instead of filling one")
    parser.add_argument("--folder", type=Path, help="where to make the file; usual: a temporary folder")
    given = parser.parse_args()
    if given.file is not None:
        asyncio.run(_ask(given.file, given.repeats))
        return
    folder = Path(tempfile.mkdtemp(prefix="ostiary-ledger-", dir=given.folder))
    try:
        asyncio.run(_run(folder, given))
    finally:
        if not given.keep:
            shutil.rmtree(folder)


async def _run(folder: Path, given: argparse.Namespace) -> None:
    chance = random.Random(1)  # noqa: S311 - the same figures every time
    await _write_cost(folder / "few.db", chance)
    path = folder / "many.db"
    database = Database(f"sqlite:///{path}")
    async with database.transaction() as tx:
        await tx.run_sync(_first_revision)
    await database.close()
    began = time.perf_counter()
    _fill(path, given, chance)
    print(f"{given.events:,} events and {given.audit:,} audit rows written in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    database = Database(f"sqlite:///{path}")
    await migrate(database)
    await database.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        hours, days = (
            db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - our own tables
            for name in ("usage_hours", "usage_days")
        )
    print(f"migrated and summed up in {time.perf_counter() - began:.0f} s: {hours:,} hours, {days:,} days")
    print(f"{path.stat().st_size / 1e9:.1f} GB\n", flush=True)
    await _ask(path, given.repeats)


async def _ask(path: Path, repeats: int) -> None:
    database = Database(f"sqlite:///{path}")
    async with database.read() as tx:
        rows = await reports.sum_usage(tx, _ORG, UsageFilter(), ("agent_key", "provider", "model"))
    models: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row.agent_key_id and row.provider and row.model:
            models.setdefault(row.agent_key_id, []).append((row.provider, row.model))
    keys = [Key(id_, id_, tuple(called)) for id_, called in sorted(models.items())]
    try:
        await _measure(database, keys, repeats, random.Random(2))  # noqa: S311 - the same every time
    finally:
        await database.close()


# ---- what writing costs -----------------------------------------------------------------------------------------


async def _write_cost(path: Path, chance: random.Random) -> None:
    """By how many keys share a batch of a thousand: each has its own accounts and sums."""
    database = Database(f"sqlite:///{path}")
    await migrate(database)
    for keys in (1, 20, 1_000):
        taken = []
        for batch in range(40):
            events = [_event(_END + batch * _BATCH + number, chance.randrange(keys)) for number in range(_BATCH)]
            began = time.perf_counter()
            async with database.transaction() as tx:
                await writer.write_events(tx, "spool_x", events)
            taken.append(time.perf_counter() - began)
        taken.sort()
        print(f"writing, {keys:5,} keys in a batch of {_BATCH:,}: {taken[20] * 1e6 / _BATCH:6.1f} us an event (p50)")
    await database.close()
    path.unlink()  # noqa: ASYNC240 - nothing else runs


def _event(at: int, key: int) -> Event:
    return Event(
        new_id("req", at), 1, _ORG, f"key_{key:05}", f"agent-{key}", None, "chat", "openai", "gpt-4o",
        _MODELS[key % 2][1], f"pkey_{key % 3}", "main", False, at, "192.0.2.1", {"team": "search"}, 500_000, (),
        "genai-prices 0.2.3", 1_000 + key, "provider", "ok", 200, None, 100, 50, latency_ms=420, first_token_ms=80,
        timings={"identify_us": 10, "admit_us": 12, "reserve_us": 9, "attempt_us": 420_000}, held_at=at,
    )  # fmt: skip


# ---- many of them -----------------------------------------------------------------------------------------------


def _first_revision(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's Connection
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


def _keys(chance: random.Random) -> list[Key]:
    found = []
    for number in range(_KEYS):
        models = chance.sample(_MODELS, chance.choice((1, 1, 1, 2, 2, 3)))
        found.append(Key(new_id("key", _BEGIN + number), f"agent-{number:03}", tuple(models)))
    return found


_COLUMNS = (
    *("request_id", "attempt", "owner", "organization_id", "agent_key_id", "agent_key_name", "operation", "provider"),
    *("model_asked", "model", "provider_key_id", "provider_key_name", "input_tokens", "output_tokens", "held_nano"),
    *("cost_nano", "price_version", "usage_source", "status", "http_status", "error_code", "stream", "started_at"),
    *("latency_ms", "first_token_ms", "timings", "client_ip", "metadata"),
)


def _fill(path: Path, given: argparse.Namespace, chance: random.Random) -> None:
    keys = _keys(chance)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-500000; BEGIN")
        marks = ", ".join("?" * len(_COLUMNS))
        db.executemany(
            f"INSERT INTO usage_events ({', '.join(_COLUMNS)}) VALUES ({marks})",  # noqa: S608 - our own columns
            _rows(keys, given.events, chance),
        )
        db.executemany(
            "INSERT INTO audit (at, organization_id, actor_kind, actor_id, actor_name, deed, target_kind, target_id,"
            " target_name, after, origin, result)"
            " VALUES (?, ?, 'user', ?, ?, ?, 'agent_key', ?, ?, '{\"rpm\": 60}', 'api', 'ok')",
            _deeds(keys, given.audit, chance),
        )
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode=WAL")


def _rows(keys: list[Key], count: int, chance: random.Random) -> Iterator[tuple[object, ...]]:
    """Some keys call much more than others; most answers are quick and cheap, a few are neither."""
    weights = [1 / (rank + 1) ** 0.9 for rank in range(len(keys))]
    for start in range(0, count, _BATCH):
        callers = chance.choices(keys, weights, k=min(_BATCH, count - start))
        for number, key in enumerate(callers, start):
            at = _BEGIN + number * (_END - _BEGIN) // count
            luck = chance.random()
            provider, model = _RARE if luck < 0.0005 else key.models[int(luck * len(key.models))]
            status = "ok" if luck < 0.985 else "error" if luck < 0.995 else "cancelled"
            given, made = int(chance.lognormvariate(6, 1)), int(chance.lognormvariate(5, 1))
            cost, latency = given * 2_500 + made * 10_000, int(chance.lognormvariate(6.5, 0.9))
            organization = f"org_{number // 20 % _OTHERS:022}" if number % 20 == 0 else _ORG
            yield (
                *(new_id("req", at), 1, "spool_x", organization, key.id, key.name, "chat", provider),
                *(model, model, f"pkey_{provider}_{number % 2}", f"{provider} {number % 2}", given, made, cost * 3),
                *(cost, "genai-prices 0.2.3", "provider", status, 200, None, False, at, latency, latency // 3),
                *('{"identify_us": 9, "admit_us": 12, "attempt_us": 420000}', "192.0.2.1", '{"team": "search"}'),
            )


def _deeds(keys: list[Key], count: int, chance: random.Random) -> Iterator[tuple[object, ...]]:
    for number in range(count):
        key = chance.choice(keys)
        at = _BEGIN + number * (_END - _BEGIN) // count
        deed = chance.choice(("agent_keys.edit", "agent_keys.create", "agent_keys.rotate"))
        person = f"usr_{number % 40:022}"
        yield (at, _ORG if number % 10 else None, person, f"{person}@example.org", deed, key.id, key.name)


# ---- how long it takes ------------------------------------------------------------------------------------------

Question = Callable[[Transaction], Awaitable[object]]


async def _measure(database: Database, keys: list[Key], repeats: int, chance: random.Random) -> None:
    print(f"{'':44} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms':>8}")
    slow = []
    for name, ask in (*_traces(keys, chance), *_usage(), *_sums(chance), *_audit()):
        taken = []
        busy = time.process_time()
        for _ in range(repeats):
            question = ask()
            began = time.perf_counter()
            async with database.read() as tx:
                await question(tx)
            taken.append((time.perf_counter() - began) * 1000)
        taken.sort()
        p95 = taken[-(-len(taken) * 95 // 100) - 1]
        busy = (time.process_time() - busy) * 1000 / repeats
        print(f"{name:44} {taken[len(taken) // 2]:8.1f} {p95:8.1f} {busy:8.1f}", flush=True)
        if p95 >= _GOAL_MS and not name.startswith("summary"):
            slow.append(name)
    if slow:
        sys.exit(f"p95 of {_GOAL_MS} ms or more: {', '.join(slow)}")


def _traces(keys: list[Key], chance: random.Random) -> Iterator[tuple[str, Callable[[], Question]]]:
    def some_time() -> int:
        return chance.randrange(_BEGIN, _END)

    def one(model: tuple[str, str]) -> Filter:
        return Filter(model=model[1])

    wanted: dict[str, Callable[[], Filter]] = {
        "none": Filter,
        "agent key": lambda: Filter(agent_key_ids=(chance.choice(keys).id,)),
        "ten agent keys": lambda: Filter(agent_key_ids=[key.id for key in chance.sample(keys, 10)]),
        "status": lambda: Filter(status=chance.choice(("ok", "error", "cancelled", "unknown"))),
        "period": lambda: Filter(since_at=(at := some_time()), until_at=at + DAY_MS),
        "model": lambda: one(chance.choice((*_MODELS, _RARE))),
        "a model that is rare": lambda: one(_RARE),
        "a model nobody called": lambda: Filter(model="nothing"),
        "provider": lambda: Filter(provider=chance.choice((*_MODELS, _RARE))[0]),
        "min latency, 0.1 to 100 s": lambda: Filter(min_latency_ms=int(10 ** chance.uniform(2, 5))),
        "min cost, $0.0001 to $10": lambda: Filter(min_cost_nano=int(10 ** chance.uniform(5, 10))),
        "key, model, period, latency": lambda: Filter(
            agent_key_ids=((key := chance.choice(keys)).id,),
            model=chance.choice(key.models)[1],
            since_at=some_time(),
            min_latency_ms=int(10 ** chance.uniform(3, 5)),
        ),
    }
    for name, make in wanted.items():
        yield f"traces by {name}", lambda make=make: _list(make(), None)  # type: ignore[misc]
    place = reports.Place(0, "", 0)
    yield "traces, a page further on", lambda: _list(Filter(), place._replace(started_at=some_time()))
    yield (
        "traces by latency, a page further on",
        lambda: _list(Filter(min_latency_ms=8_000), place._replace(started_at=some_time())),
    )


def _list(wanted: Filter, after: reports.Place | None) -> Question:
    return lambda tx: reports.list_traces(tx, _ORG, wanted, after=after, limit=200)


def _usage() -> Iterator[tuple[str, Callable[[], Question]]]:
    kinds: tuple[tuple[Dimension, ...], ...] = (("day",), ("model",), ("agent_key",), ("provider_key",))
    for name, since_at in (("30 days", _END - 30 * DAY_MS), ("all", 0)):
        for by in (*kinds, ("day", "model"), reports.USUAL):
            said = ", ".join(by)
            yield f"usage, {name}, by {said}"[:44], lambda by=by, at=since_at: _sum(UsageFilter(at), by)  # type: ignore[misc]


def _sum(wanted: UsageFilter, by: tuple[Dimension, ...]) -> Question:
    return lambda tx: reports.sum_usage(tx, _ORG, wanted, by, limit=200)


def _sums(chance: random.Random) -> Iterator[tuple[str, Callable[[], Question]]]:
    yield "share of every key", lambda: lambda tx: reports.list_traffic(tx, _ORG, _END)
    for name, since_at in (("a day", _END - DAY_MS), ("30 days", _END - 30 * DAY_MS), ("all", 0)):
        yield f"summary, {name}", lambda at=since_at: lambda tx: reports.sum_traces(tx, _ORG, Filter(since_at=at))  # type: ignore[misc]
    yield (
        "summary, a day, failed ones",
        lambda: (
            lambda tx: reports.sum_traces(
                tx, _ORG, Filter(status="error", since_at=(at := chance.randrange(_BEGIN, _END)), until_at=at + DAY_MS)
            )
        ),
    )


def _audit() -> Iterator[tuple[str, Callable[[], Question]]]:
    yield "audit of an organization", lambda: lambda tx: audit_store.list_audit(tx, _ORG, limit=200)
    yield "audit of all", lambda: lambda tx: audit_store.list_audit(tx, limit=200)


if __name__ == "__main__":
    main()
