"""What can be looked up: health, the catalogue, and one's own key and usage."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from ostiary.clock import DAY_MS, iso
from ostiary.errors import Refusal
from ostiary.gateway.admit import admit_caller
from ostiary.gateway.directory import Caller
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify, identify_if_any
from ostiary.ledger import reports
from ostiary.limits import store as money
from ostiary.limits.local import Pace
from ostiary.money import usd_number
from ostiary.providers.catalog import Model, Provider

_VERSION: Final = version("ostiary")
_CATALOGUED_AT: Final = 1_795_132_800
"""2026-11-20, the day of the catalogue's facts; clients want a number where the provider's own is not known."""
_USAGE_DAYS: Final = 31


async def health(_gate: Gate, exchange: Exchange) -> None:
    """Whether this process answers; says nothing of what is behind it."""
    await _reply(exchange, {"status": "ok", "version": _VERSION})


async def models(gate: Gate, exchange: Exchange) -> None:
    """Every known model, as OpenAI lists them."""
    caller = await _reader(gate, exchange)
    known = gate.directory.catalog.models.values()
    await _reply(exchange, {"object": "list", "data": [_model(gate, one, caller) for one in known]})


async def model(gate: Gate, exchange: Exchange) -> None:
    """One model, by `provider/model` or by its bare name."""
    caller = await _reader(gate, exchange)
    name = unquote(exchange.path.removeprefix("/v1/models/"))
    catalog = gate.directory.catalog
    found = catalog.models.get(name)
    if found is None:
        serving = catalog.served_by(name)
        found = catalog.models.get(f"{serving[0]}/{name}") if serving else None
    if found is None:
        near = catalog.near(name)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise Refusal("model_not_found", f"There is no model {name[:200]!r}.{hint}", param="model", near=list(near))
    await _reply(exchange, _model(gate, found, caller))


async def aliases(gate: Gate, exchange: Exchange) -> None:
    """The operator's aliases; there are none before endpoints exist."""
    await _reader(gate, exchange)
    await _reply(exchange, {"object": "list", "data": []})


async def providers(gate: Gate, exchange: Exchange) -> None:
    """The rows of the catalogue; takes `search`, `category` and `free_only`."""
    caller = await _reader(gate, exchange)
    asked = {name: values[-1] for name, values in parse_qs(exchange.scope["query_string"].decode("latin-1")).items()}
    unknown = asked.keys() - {"search", "category", "free_only"}
    if unknown:
        name = min(unknown)
        raise Refusal("invalid_request", f"There is no parameter {name[:50]!r} here.", param=name[:50])
    free_only = _switch(asked.get("free_only", "false"))
    rows = gate.directory.catalog.search(asked.get("search", ""), asked.get("category"), free_only=free_only)
    await _reply(exchange, {"object": "list", "data": [_provider(gate, one, caller) for one in rows]})


async def key(gate: Gate, exchange: Exchange) -> None:
    """What the credential in hand is: what it may do, what it has used, when each limit resets."""
    caller = await _own(gate, exchange)
    await _reply(exchange, await _describe(gate, caller))


async def usage(gate: Gate, exchange: Exchange) -> None:
    """The caller's own usage of the last 31 days, per day and model."""
    caller = await _own(gate, exchange)
    since_at = (gate.clock.now() // DAY_MS - _USAGE_DAYS + 1) * DAY_MS
    await gate.writer.flush()
    async with gate.database.read() as tx:
        rows = await reports.sum_usage(
            tx,
            caller.organization_id,
            agent_key_id=caller.key.id if caller.key else None,
            credential_id=caller.credential.id if caller.credential else None,
            since_at=since_at,
        )
    data = [
        {
            "day": row.day,
            "provider": row.provider,
            "model": row.model,
            "requests": row.requests,
            "errors": row.errors,
            "unpriced": row.unpriced,
            "tokens": msgspec.to_builtins(row.tokens),
            "cost_usd": usd_number(row.cost_nano),
        }
        for row in rows
    ]
    total = usd_number(sum(row.cost_nano for row in rows))
    await _reply(exchange, {"object": "list", "since": iso(since_at), "cost_usd": total, "data": data})


# ---- who may look ---------------------------------------------------------------------------------------------


async def _reader(gate: Gate, exchange: Exchange) -> Caller | None:
    """The caller if one may see their own things here, None for the global list. A bad credential is refused."""
    caller = await identify_if_any(exchange, gate.directory)
    if caller is None:
        if not gate.public_catalog:
            raise Refusal("missing_api_key")
        return None
    try:
        admit_caller(caller, gate.clock.now(), "gate:models", exchange.address)
    except Refusal as refusal:
        if refusal.code == "insufficient_scope":
            return None
        raise
    return caller


async def _own(gate: Gate, exchange: Exchange) -> Caller:
    caller = await identify(exchange, gate.directory)
    admit_caller(caller, gate.clock.now(), "gate:usage", exchange.address)
    return caller


# ---- how things are shown ---------------------------------------------------------------------------------------


async def _reply(exchange: Exchange, body: Any) -> None:  # noqa: ANN401 - JSON of any shape
    await exchange.reply(200, msgspec.json.encode(body))


def _switch(text: str) -> bool:
    if text not in {"true", "false", "1", "0"}:
        raise Refusal("invalid_request", "`free_only` is true or false.", param="free_only")
    return text in {"true", "1"}


def _model(gate: Gate, one: Model, caller: Caller | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": one.key,
        "object": "model",
        "created": _CATALOGUED_AT,
        "owned_by": one.provider,
        "free": one.free,
        "context_window": one.context,
    }
    if caller is not None:
        shown["usable"] = bool(gate.directory.keys_for(caller.organization_id, one.provider)) and (
            caller.policy.models.admits((one.key, one.id)) and caller.policy.providers.admits((one.provider,))
        )
    return shown


def _provider(gate: Gate, one: Provider, caller: Caller | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": one.id,
        "object": "provider",
        "name": one.name,
        "categories": list(one.categories),
        "base_url": one.base_url,
        "operations": sorted(one.operations),
        "callable": one.callable,
        "reason": one.reason or None,
        "free_tier": msgspec.to_builtins(one.free_tier),
        "has_free": one.has_free,
        "fields": msgspec.to_builtins(one.fields),
        "signup_url": one.signup_url,
        "docs_url": one.docs_url,
        "trains_on_data": one.trains_on_data,
    }
    if caller is not None:
        shown["has_key"] = bool(gate.directory.keys_for(caller.organization_id, one.id))
    return shown


async def _describe(gate: Gate, caller: Caller) -> dict[str, Any]:
    shown: dict[str, Any] = {"object": "key", "client_id": gate.directory.client_ids.get(caller.organization_id)}
    if caller.credential is not None:
        one = caller.credential
        return {**shown, "kind": "client_credential", "id": one.id, "name": one.name, "preview": one.preview}
    known = caller.key
    assert known is not None, "a caller is a key or a credential"  # noqa: S101 - for the type checker
    paces = gate.counters.pace(caller.allowance)
    return {
        **shown,
        "kind": "agent_key",
        "id": known.id,
        "name": known.name,
        "preview": known.previews[0] if known.previews else None,
        "status": known.shown_status(gate.clock.now()),
        "expires_at": iso(known.expires_at) if known.expires_at else None,
        "scopes": sorted(known.scopes),
        "models": {"mode": known.models.mode, "items": sorted(known.models.items)},
        "providers": {"mode": known.providers.mode, "items": sorted(known.providers.items)},
        "addresses": {"mode": known.addresses.mode, "items": sorted(known.addresses.items)},
        "free_only": known.free_only,
        "metadata": known.metadata,
        "limits": {
            "requests_per_minute": _window(paces.get("minute")),
            "requests_per_day": _window(paces.get("day")),
            "budget": await _budget(gate, caller),
        },
    }


def _window(pace: Pace | None) -> dict[str, Any] | None:
    if pace is None:
        return None
    return {"limit": pace.limit, "used": pace.used, "remaining": pace.remaining, "resets_in_s": round(pace.reset_s)}


async def _budget(gate: Gate, caller: Caller) -> dict[str, Any] | None:
    """What is spent according to the ledger, with everything this process has settled written first."""
    known = caller.key
    if known is None or known.budget is None:
        return None
    now = gate.clock.now()
    period_id = known.budget.period_at(now)
    await gate.writer.flush()
    async with gate.database.read() as tx:
        accounts = await money.list_accounts(tx, "agent_key", known.id)
    spent = next((account.spent_nano for account in accounts if account.period_id == period_id), 0)
    resets_at = known.budget.resets_at(now)
    return {
        "kind": known.budget.kind,
        "limit_usd": usd_number(known.budget.cap_nano),
        "spent_usd": usd_number(spent),
        "remaining_usd": usd_number(max(known.budget.cap_nano - spent, 0)),
        "resets_at": iso(resets_at) if resets_at else None,
    }
