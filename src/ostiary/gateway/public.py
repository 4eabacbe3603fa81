"""What can be looked up by anybody: health, and the catalogue."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from ostiary.agents.policy import Policy, judge_model, judge_target
from ostiary.clock import SECOND_MS
from ostiary.errors import Refusal
from ostiary.gateway.admit import admit_caller
from ostiary.gateway.caller import Caller
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify_if_any
from ostiary.providers import listing
from ostiary.providers.catalog import Model, Provider
from ostiary.vault.endpoint_store import EVERYBODY, Endpoint, EndpointTarget

_VERSION: Final = version("ostiary")
_CATALOGUED_AT: Final = 1_795_132_800
"""2026-11-20, the day of the catalogue's facts; clients want a number where the provider's own is not known."""
_FREE: Final = ("free_only", "free")
"""The parameter and its short form, as the dashboard and the admin API have it."""
_PARAMETERS: Final = frozenset({"search", "category", *_FREE})


async def health(_gate: Gate, exchange: Exchange) -> None:
    """Whether this process answers; says nothing of what is behind it."""
    await _reply(exchange, {"status": "ok", "version": _VERSION})


async def models(gate: Gate, exchange: Exchange) -> None:
    """Every known model, as OpenAI lists them: endpoints and aliases first, own ones for who may see them."""
    caller = await _reader(gate, exchange)
    named = gate.directory.list_endpoints(caller.organization_id if caller is not None else None)
    known = gate.directory.catalog.models.values()
    data = [_endpoint(gate, one, caller) for one in named] + [_model(gate, one, caller) for one in known]
    await _reply(exchange, {"object": "list", "data": data})


async def model(gate: Gate, exchange: Exchange) -> None:
    """One model, by `provider/model` or by its bare name."""
    caller = await _reader(gate, exchange)
    name = unquote(exchange.path.removeprefix("/v1/models/"))
    endpoint = gate.directory.find_endpoint(caller.organization_id if caller is not None else EVERYBODY, name)
    if endpoint is not None:
        await _reply(exchange, _endpoint(gate, endpoint, caller))
        return
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
    """The operator's aliases, and what they lead to."""
    caller = await _reader(gate, exchange)
    found = [_endpoint(gate, one, caller) for one in gate.directory.list_endpoints(None)]
    await _reply(exchange, {"object": "list", "data": [one | {"object": "alias"} for one in found]})


async def providers(gate: Gate, exchange: Exchange) -> None:
    """The rows of the catalogue; takes `search`, `category` and `free_only`."""
    caller = await _reader(gate, exchange)
    asked = _asked(exchange)
    rows = listing.found(
        gate.directory.catalog,
        asked.get("search", ""),
        asked.get("category"),
        free=_is_free(asked),
        code="invalid_request",
    )
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


def _asked(exchange: Exchange) -> dict[str, str]:
    """The parameters of the query, each at most once; refused by name are those there are not."""
    found = parse_qs(exchange.query.decode("latin-1"), keep_blank_values=True)
    for name, values in found.items():
        if name not in _PARAMETERS:
            raise Refusal("invalid_request", f"There is no parameter {name[:50]!r} here.", param=name[:50])
        if len(values) > 1:
            raise Refusal("invalid_request", f"`{name}` is given more than once.", param=name)
    return {name: values[0] for name, values in found.items()}


def _is_free(asked: dict[str, str]) -> bool:
    given = [name for name in _FREE if name in asked]
    if len(given) > 1:
        raise Refusal("invalid_request", f"`{_FREE[0]}` and `{_FREE[1]}` are the same. Give one.", param=_FREE[0])
    return bool(given) and _switch(given[0], asked[given[0]])


def _switch(name: str, text: str) -> bool:
    if text not in {"true", "false", "1", "0"}:
        raise Refusal("invalid_request", f"`{name}` is true or false.", param=name)
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


def _endpoint(gate: Gate, one: Endpoint, caller: Caller | None) -> dict[str, Any]:
    """An endpoint or alias, in the shape of a model: that is what it is asked for as."""
    shown: dict[str, Any] = {
        "id": one.name,
        "object": "model",
        "created": one.created_at // SECOND_MS,
        "owned_by": "ostiary" if one.is_alias else "organization",
        "strategy": one.strategy,
        "targets": [f"{target.provider}/{target.model}" for target in one.targets],
    }
    if caller is not None:
        shown["usable"] = any(_is_reached(gate, caller, one, target) for target in one.targets)
    return shown


def _is_reached(gate: Gate, caller: Caller, one: Endpoint, target: EndpointTarget) -> bool:
    keys = gate.directory.keys_for(caller.organization_id, target.provider)
    has_key = any(target.provider_key_id in (None, key.id) for key in keys)
    key = f"{target.provider}/{target.model}"
    model = gate.directory.catalog.models.get(key)
    names = (one.name, key, target.model)
    refusal = judge_model(caller.policy, names) or judge_target(
        caller.policy, target.provider, free=model is not None and model.free
    )
    return has_key and refusal is None


def _provider(gate: Gate, one: Provider, caller: Caller | None) -> dict[str, Any]:
    shown = listing.described(one)
    if caller is not None:
        shown["has_key"] = bool(gate.directory.keys_for(caller.organization_id, one.id))
    return shown


def _is_admitted(policy: Policy, one: Model) -> bool:
    return judge_model(policy, (one.key, one.id)) is None and judge_target(policy, one.provider, free=one.free) is None
