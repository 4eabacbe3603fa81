"""What can be looked up by anybody: health, and the catalogue."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from ostiary.agents.policy import Policy, judge_model, judge_target
from ostiary.errors import Refusal
from ostiary.gateway.admit import admit_caller
from ostiary.gateway.caller import Caller
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify_if_any
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
    asked = {name: values[-1] for name, values in parse_qs(exchange.query.decode("latin-1")).items()}
    unknown = asked.keys() - {"search", "category", "free_only"}
    if unknown:
        name = min(unknown)
        raise Refusal("invalid_request", f"There is no parameter {name[:50]!r} here.", param=name[:50])
    free_only = _switch(asked.get("free_only", "false"))
    rows = gate.directory.catalog.search(asked.get("search", ""), asked.get("category"), free_only=free_only)
    await _reply(exchange, {"object": "list", "data": [_provider(gate, one, caller) for one in rows]})


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
            _is_admitted(caller.policy, one)
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


def _is_admitted(policy: Policy, one: Model) -> bool:
    return judge_model(policy, (one.key, one.id)) is None and judge_target(policy, one.provider, free=one.free) is None
