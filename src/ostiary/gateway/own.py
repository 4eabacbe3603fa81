"""What a caller may know of itself: what its key may do, how far each limit is used, and what it has spent."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ostiary.agents.store import AgentKey
from ostiary.clock import DAY_MS, iso
from ostiary.gateway.admit import admit_caller
from ostiary.gateway.caller import Caller
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify
from ostiary.ledger import reports
from ostiary.ledger.reports import UsageFilter
from ostiary.limits import store as money
from ostiary.limits.budgets import Budget
from ostiary.limits.local import Pace
from ostiary.money import usd_number
from ostiary.providers.tokens import UNITS

_USAGE_DAYS: Final = 31
_NAMES: Final = {
    "minute": "requests_per_minute",
    "day": "requests_per_day",
    "tokens": "tokens_per_minute",
    "parallel": "parallel_requests",
}


async def key(gate: Gate, exchange: Exchange) -> None:
    """What the credential in hand is: what it may do, what it has used, when each limit resets."""
    caller = await _own(gate, exchange)
    organization = gate.directory.organizations.get(caller.organization_id)
    shown: dict[str, Any] = {"object": "key", "client_id": organization.client_id if organization else None}
    if caller.credential is not None:
        one = caller.credential
        shown |= {"kind": "client_credential", "id": one.id, "name": one.name, "preview": one.preview}
    elif caller.key is not None:
        shown |= _key(caller.key, gate.clock.now()) | {"content_is_captured": caller.is_captured}
    limits = await _limits(gate, caller)
    own = next((one for one in limits if one["id"] == caller.holder_id), {})
    empty = dict.fromkeys((*_NAMES.values(), "budget"))
    shown["limits"] = {name: own.get(name) for name in empty}
    shown["limits_of_others"] = [one for one in limits if one["id"] != caller.holder_id]
    await _reply(exchange, shown)


async def usage(gate: Gate, exchange: Exchange) -> None:
    """The caller's own usage of the last 31 days, per day and model."""
    caller = await _own(gate, exchange)
    since_at = (gate.clock.now() // DAY_MS - _USAGE_DAYS + 1) * DAY_MS
    await gate.writer.flush()
    wanted = UsageFilter(
        since_at,
        agent_key_ids=(caller.key.id,) if caller.key else None,
        credential_id=caller.credential.id if caller.credential else None,
    )
    async with gate.database.read() as tx:
        rows = await reports.sum_usage(tx, caller.organization_id, wanted, ("day", "provider", "model"))
    data = [
        {
            "day": row.day,
            "provider": row.provider,
            "model": row.model,
            "requests": row.requests,
            "errors": row.errors,
            "unpriced": row.unpriced,
            "tokens": row.tokens.counts,
            **{name: getattr(row, name) for name in UNITS},
            "cost_usd": usd_number(row.cost_nano),
        }
        for row in rows
    ]
    total = usd_number(sum(row.cost_nano for row in rows))
    await _reply(exchange, {"object": "list", "since": iso(since_at), "cost_usd": total, "data": data})


async def _own(gate: Gate, exchange: Exchange) -> Caller:
    caller = await identify(exchange, gate.directory)
    admit_caller(caller, gate.clock.now(), "gate:usage", exchange.address)
    return caller


async def _reply(exchange: Exchange, body: Any) -> None:  # noqa: ANN401 - JSON of any shape
    await exchange.reply(200, msgspec.json.encode(body))


def _key(known: AgentKey, now: int) -> dict[str, Any]:
    return {
        "kind": "agent_key",
        "id": known.id,
        "name": known.name,
        "preview": known.previews[0] if known.previews else None,
        "status": known.shown_status(now),
        "expires_at": iso(known.expires_at) if known.expires_at else None,
        "parent_id": known.parent_id,
        "is_ephemeral": known.is_ephemeral,
        "scopes": sorted(known.policy().powers),
        "models": {"mode": known.models.mode, "items": sorted(known.models.items)},
        "providers": {"mode": known.providers.mode, "items": sorted(known.providers.items)},
        "addresses": {"mode": known.addresses.mode, "items": sorted(known.addresses.items)},
        "free_only": known.policy().is_free_only,
        "metadata": known.metadata,
    }


async def _limits(gate: Gate, caller: Caller) -> list[dict[str, Any]]:
    """The limits of everybody whose limits count: the key's own, its parent's, the organization's."""
    await gate.reserve.look(caller.allowance)
    found: dict[str, dict[str, Any]] = {}
    for holder, paces in gate.counters.pace(caller.allowance):
        windows = {_NAMES[name]: _window(pace) for name, pace in paces.items()}
        found[holder.id] = {"scope": holder.scope, "id": holder.id, **windows}
    for scope, holder_id, budget in dict.fromkeys((*caller.allowance.budgets, *caller.warnings)):
        one = found.setdefault(holder_id, {"scope": scope, "id": holder_id})
        one["budget"] = await _budget(gate, scope, holder_id, budget)
    return list(found.values())


def _window(pace: Pace) -> dict[str, Any]:
    return {"limit": pace.limit, "used": pace.used, "remaining": pace.remaining, "resets_in_s": round(pace.reset_s)}


async def _budget(gate: Gate, scope: str, holder_id: str, budget: Budget) -> dict[str, Any]:
    """What is spent according to the ledger, with everything this process has settled written first."""
    now, cap = gate.clock.now(), budget.cap_nano
    period_id = budget.period_at(now)
    await gate.writer.flush()
    async with gate.database.read() as tx:
        accounts = await money.list_accounts(tx, scope, holder_id)
    spent = next((account.spent_nano for account in accounts if account.period_id == period_id), 0)
    resets_at = budget.resets_at(now)
    return {
        "kind": budget.kind,
        "limit_usd": usd_number(cap) if cap is not None else None,
        "soft_limit_usd": usd_number(budget.soft_nano) if budget.soft_nano is not None else None,
        "thresholds_percent": list(budget.thresholds),
        "spent_usd": usd_number(spent),
        "remaining_usd": usd_number(max(cap - spent, 0)) if cap is not None else None,
        "resets_at": iso(resets_at) if resets_at else None,
    }
