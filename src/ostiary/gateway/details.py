"""How this process and the instance are, for the operator alone: looked up when asked, so that calls pay nothing."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

import msgspec

from ostiary.clock import iso
from ostiary.db import versions
from ostiary.errors import Refusal
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.ledger import gateways, operation_store
from ostiary.ledger.gateways import Gateway
from ostiary.ledger.operation_store import JobRow, Undelivered
from ostiary.money import usd_number

VERSION: Final = version("ostiary")
_PATIENCE_S: Final = 3.0
"""Whoever watches wants to hear that the database is away, and not to wait for it."""
_LATE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Instance:
    """What the database says of all gateways. None of it is known while it is away."""

    latency_s: float
    gateways: tuple[Gateway, ...]
    jobs: tuple[JobRow, ...]
    undelivered: Undelivered

    @property
    def live(self) -> int:
        """How many processes share limits and budgets."""
        return sum(one.state == "live" for one in self.gateways)

    @property
    def lost_nano(self) -> int:
        """What gateways hold that nobody hears of any more."""
        return sum(one.leased_nano for one in self.gateways if one.state == "lost")


def require_operator(gate: Gate, exchange: Exchange) -> None:
    """Refuse whoever does not show the operator token; without one in the settings there is no such page."""
    token = gate.watch.token
    if token is None:
        raise Refusal("not_found", f"There is no route {exchange.path[:200]}. The API begins at /v1.")
    shown = exchange.all_of(b"authorization")
    if not shown:
        raise Refusal("missing_api_key", "Send the operator token as 'Authorization: Bearer …'.")
    wanted = f"Bearer {token.reveal()}".encode()
    if len(shown) > 1 or not hmac.compare_digest(shown[0], wanted):
        raise Refusal("invalid_api_key", "This is not the operator token (OSTIARY_OPERATOR_TOKEN).")


async def look(gate: Gate) -> Instance | None:
    """What the database says now, or None when it does not say it in time."""
    asked_at = gate.clock.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE_S), gate.database.read() as tx:
            found = tuple(await gateways.look(tx, gate.clock.now()))
            latency_s = gate.clock.monotonic() - asked_at
            jobs = tuple(await operation_store.list_jobs(tx))
            return Instance(latency_s, found, jobs, await operation_store.count_undelivered(tx))
    except (Refusal, TimeoutError):
        return None


async def details(gate: Gate, exchange: Exchange) -> None:
    """Everything at once, as JSON. `status` is `ok`, or `degraded` with what is wrong in `problems`."""
    instance = await look(gate)
    problems = _problems(gate, instance)
    free, held, leased = gate.watch.purses()
    rations = gate.watch.rations()
    shown: dict[str, Any] = {
        "status": "degraded" if problems else "ok",
        "problems": problems,
        "name": gate.watch.name,
        "owner": gate.spool.owner,
        "version": VERSION,
        "revision": gate.directory.seq,
        "feed_age_s": round(gate.directory.silence_s, 3),
        "database": {
            "kind": gate.database.engine.dialect.name,
            "reachable": instance is not None,
            "latency_ms": round(instance.latency_s * 1000, 1) if instance else None,
            "warning": versions.warning(gate.database),
        },
        "spool": {"unsent": len(gate.spool.unsent), "late": gate.spool.late, "bytes": gate.spool.size},
        "ledger": {"behind": gate.writer.behind},
        "calls": {"open": gate.watch.open_calls},
        "purses": {"free_usd": usd_number(free), "held_usd": usd_number(held), "leased_usd": usd_number(leased)},
        "event_loop": {"worst_lag_ms": round(gate.watch.lag_s * 1000, 1)},
        "gateways": [_gateway(one) for one in instance.gateways] if instance else None,
        "windows": asdict(rations) if rations else None,
        "jobs": [_job(one) for one in instance.jobs] if instance else None,
        "undelivered": asdict(instance.undelivered) if instance else None,
    }
    await exchange.reply(200, msgspec.json.encode(shown))


def _problems(gate: Gate, instance: Instance | None) -> list[str]:
    found = []
    if instance is None:
        found.append("The database does not answer.")
    if gate.directory.silence_s > _LATE_S:
        found.append("The change feed was not heard for a while: keys may have changed.")
    if gate.spool.late:
        found.append(f"{gate.spool.late} settlements wait for the disk.")
    if instance is not None:
        found += [f"The job '{job.name}' fails: {job.error}" for job in instance.jobs if job.error]
        found += [f"Gateway {one.name} ({one.id}) is lost." for one in instance.gateways if _is_missed(one)]
        if instance.undelivered.given_up:
            found.append(f"{instance.undelivered.given_up} notifications were given up.")
    return found


def _is_missed(one: Gateway) -> bool:
    return one.state == "lost" and one.leased_nano > 0


def _gateway(one: Gateway) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "version": one.version,
        "state": one.state,
        "heartbeat_at": iso(one.heartbeat_at),
        "revision": one.revision,
        "behind": one.behind,
        "leased_usd": usd_number(one.leased_nano),
    }


def _job(one: JobRow) -> dict[str, Any]:
    return {
        "name": one.name,
        "ran_at": iso(one.ran_at) if one.ran_at is not None else None,
        "next_at": iso(one.next_at),
        "running_on": one.owner,
        "error": one.error,
    }
