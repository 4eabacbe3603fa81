"""Several gateways on one database, each with a data directory of its own; and an auditor of their books."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.clock import date_of, month_of
from ostiary.db.database import Database, Transaction
from ostiary.limits.budgets import Budget, Kind
from ostiary.orgs import organizations
from tests.acceptance import inside
from tests.acceptance.crowd import MODEL
from tests.acceptance.inside import OPERATOR, Key
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.wire import COMPLETION_TOKENS, PROMPT_TOKENS

MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="
COST = (PROMPT_TOKENS + COMPLETION_TOKENS) * 1_000
"""Nano-dollars of every answer: $1 per million tokens either way."""
GATED = "openai-compatible/gated"


@dataclass(slots=True)
class JumpyGateway(Gateway):
    """`tests.jumpy_entry` in place of `ostiary serve`: its calendar can be set forward and back."""

    entry: str = "tests.jumpy_entry"

    def jump(self, seconds: float) -> None:
        """Set its calendar so far ahead of the machine's."""
        fresh = self.clock_file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self.clock_file)


@dataclass(slots=True)
class Books:
    """What the authority says when nothing is under way any more."""

    events: dict[str, int]
    """What each call cost, by request id."""
    spent: dict[tuple[str, str, str], int]
    leased: int
    open_leases: int
    sources: Counter[str]

    def check(self, answered: Mapping[str, int]) -> None:
        """Every answered call is there once and at its cost; nothing is leased; see `read_books` for the sums."""
        missing = answered.keys() - self.events.keys()
        assert not missing, f"{len(missing)} answered calls are not in the ledger"
        assert {name: self.events[name] for name in answered} == dict(answered)
        assert (self.leased, self.open_leases) == (0, 0)

    def spent_by(self, id_: str, period_id: str = "total") -> int:
        """What was spent of an account."""
        return sum(nano for (_, whose, period), nano in self.spent.items() if (whose, period) == (id_, period_id))


@dataclass(slots=True)
class Cluster:
    """The gateways and their database."""

    gateways: Sequence[Gateway]
    url: str
    names: Iterator[int] = field(default_factory=lambda: iter(range(1_000)))

    def __getitem__(self, number: int) -> Gateway:
        return self.gateways[number]

    def sql(self, query: str, **values: object) -> list[dict[str, Any]]:
        """What the database says."""
        return asyncio.run(self._run(query, values, writes=False))

    def tamper(self, query: str, **values: object) -> None:
        """Change a row behind everybody's back."""
        asyncio.run(self._run(query, values, writes=True))

    async def _run(self, query: str, values: Mapping[str, object], *, writes: bool) -> list[dict[str, Any]]:
        database = Database(self.url)
        try:
            async with database.transaction() if writes else database.read() as tx:
                found = await tx.execute(text(query), values)
                return [dict(row) for row in found.mappings()] if found.returns_rows else []
        finally:
            await database.close()

    # ---- deeds of the operator ----------------------------------------------------------------------------------

    def furnish(self, upstream: Upstream) -> None:
        """A provider key, and a price for what it serves."""
        inside.add_provider_keys(self[0], ("openai-compatible", "upstream", upstream.url))
        inside.set_prices(self[0], MODEL, GATED)

    def mint(self, cap_nano: int | None = None, kind: Kind = "total") -> Key:
        """A key that every gateway knows, with a hard budget if one is given."""
        budget = Budget(kind, cap_nano) if cap_nano is not None else None
        key = inside.mint(self[0], NewAgentKey(f"k{next(self.names)}", expires_at=None, budget=budget))[0]
        self.hear()
        return key

    def budget(self, key: Key, cap_nano: int | None) -> None:
        """Set, change or (with None) lift the hard budget of a key, and every gateway has heard of it."""
        wished = {"budget": Budget("total", cap_nano) if cap_nano is not None else None}

        def change(tx: Transaction, organization_id: str, at: int) -> Awaitable[object]:
            return agent_keys.change(tx, OPERATOR, organization_id, key.id, wished, at)

        self._do(change)

    def budget_of_all(self, cap_nano: int) -> str:
        """Set the hard budget of the organization; its id."""

        def change(tx: Transaction, organization_id: str, at: int) -> Awaitable[object]:
            return organizations.change(tx, OPERATOR, organization_id, {"budget": Budget("total", cap_nano)}, at)

        return self._do(change)

    def _do(self, change: Callable[[Transaction, str, int], Awaitable[object]]) -> str:
        async def deed(base: Any, tx: Transaction, organization: organizations.Organization) -> str:
            await change(tx, organization.id, base.clock.now())
            return organization.id

        done = inside.do(self[0], deed)
        self.hear()
        return done

    def hear(self) -> None:
        """Wait until every gateway has heard of all that was done: a new key makes whoever meets it look."""
        key = inside.mint(self[0], NewAgentKey(f"heard-{next(self.names)}"))[0]
        for gateway in self.gateways:
            answer = gateway.client(key.secret).get("/v1/key")
            assert answer.status_code == 200, answer.text

    # ---- the end ------------------------------------------------------------------------------------------------

    def end(self) -> Books:
        """Stop every gateway as an orchestrator does, and read the books."""
        with ThreadPoolExecutor(len(self.gateways)) as pool:
            assert set(pool.map(lambda one: one.stop() if one.is_running else 0, self.gateways)) == {0}
        for gateway in self.gateways:
            assert list((gateway.data_dir / "spool").iterdir()) == []
        return self.read_books()

    def read_books(self) -> Books:
        """Read them, and check that the accounts and the sums by the hour say what the events say."""
        events = self.sql("SELECT * FROM usage_events")
        accounts = self.sql("SELECT scope, id, period_id, spent_nano, leased_nano FROM accounts")
        leases = self.sql("SELECT * FROM leases")
        sums: Counter[tuple[str, str, str]] = Counter()
        for event in events:
            whose = [(scope, event[f"{scope}_id"]) for scope in ("organization", "agent_key", "provider_key")]
            held_at = event["held_at"] or event["started_at"]
            for scope, id_ in whose:
                for period in ("total", month_of(held_at), *([date_of(held_at)] if scope == "provider_key" else [])):
                    sums[scope, id_, period] += event["cost_nano"]
        spent = {(row["scope"], row["id"], row["period_id"]): row["spent_nano"] for row in accounts}
        assert {key: nano for key, nano in spent.items() if nano} == {key: nano for key, nano in sums.items() if nano}
        hourly = self.sql("SELECT SUM(cost_nano) AS cost FROM usage_hours")[0]["cost"]
        assert (hourly or 0) == sum(event["cost_nano"] for event in events)
        assert len({event["request_id"] for event in events}) == len(events), "no call was tried twice here"
        return Books(
            {event["request_id"]: event["cost_nano"] for event in events},
            spent,
            sum(row["leased_nano"] for row in accounts),
            len(leases),
            Counter(event["usage_source"] for event in events),
        )


def founded(made: GatewayMaker, upstream: Upstream, url: str, count: int, **options: Any) -> Cluster:
    """So many gateways on a fresh database; the first makes the schema, the others start together."""
    env = {"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY": MASTER_KEY}
    gateways = [
        made(allow=[upstream.origin], env=env | {"OSTIARY_NAME": f"gate-{number}"}, start=False, **options)
        for number in range(count)
    ]
    gateways[0].start()
    with ThreadPoolExecutor(max(count - 1, 1)) as pool:
        list(pool.map(lambda one: one.start(), gateways[1:]))
    cluster = Cluster(gateways, url)
    cluster.furnish(upstream)
    return cluster


@contextmanager
def jumpy(like: GatewayMaker, upstream: Upstream, url: str, count: int, ahead_s: float) -> Iterator[Cluster]:
    """The same of gateways whose calendars can be set, and are so far ahead from the start."""
    gateways = []
    for number in range(count):
        folder = like.root / f"jumpy-{number}"
        folder.mkdir()
        env = {
            "OSTIARY_DATABASE_URL": url,
            "OSTIARY_MASTER_KEY": MASTER_KEY,
            "OSTIARY_EGRESS_ALLOW": upstream.origin,
            "OSTIARY_NAME": f"gate-{number}",
        }
        gateways.append(JumpyGateway(folder, like.canaries, like.shell, env))
    cluster = Cluster(gateways, url)
    try:
        for gateway in gateways:
            gateway.jump(ahead_s)
            gateway.start()
        cluster.furnish(upstream)
        yield cluster
    finally:
        for gateway in gateways:
            gateway.close()
