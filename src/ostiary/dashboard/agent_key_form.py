"""Agent keys are made and edited by one form; its lists, its checks, and what two tabs must not do to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ostiary.agents import agent_keys, ephemeral_keys
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.agents.fields import checked
from ostiary.agents.policy import SCOPES, choice_of
from ostiary.agents.store import get_rules
from ostiary.dashboard import agent_key_fields as fields
from ostiary.dashboard.agent_key_connect import connect
from ostiary.dashboard.agent_key_fields import CUSTOM, EXPIRIES, KEEP, Values
from ostiary.dashboard.agent_keys import LIST, page_of, tail_of, wants_part
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.orgs import members
from ostiary.orgs.roles import ADMIN_SCOPES, judge_scopes
from ostiary.secret import Secret
from ostiary.vault import aliases, endpoints
from ostiary.vault.store import count_provider_keys

_MOST_FOUND: Final = 40
_UNFIT: Final = 422
_CONFLICT: Final = 409
_WRONG: Final = "Some fields need another look."
_SAID: Final[Mapping[str, str]] = {
    "gate:chat": "call chat completions and the multi-modal endpoints",
    "gate:models": "list models and aliases",
    "gate:usage": "read its own usage",
}


async def new(visit: Visit) -> Answer:
    """The empty form."""
    async with visit.reading() as tx:
        return await _form(visit, tx, None, None)


async def create(visit: Visit) -> Answer:
    """Make the key, and show its secret this once."""
    values = fields.sent(visit.form)
    wish, wrong = fields.wished(values, visit.at)
    if values.is_ephemeral:
        wrong = {name: said for name, said in wrong.items() if name not in ("expires", "expires_at")}
    if not wrong:
        try:
            async with visit.writing() as tx:
                key, secret = await _make(visit, tx, values, wish)
                shown = await connect(visit, tx, key, secret)
            return visit.page("agent_keys/reveal.html", key=key, secret=secret.reveal(), tail=tail_of(visit), **shown)
        except Refusal as refusal:
            visit.refused(refusal)
            wrong = fields.beside(refusal) or {"": refusal.message}
    async with visit.reading() as tx:
        return await _form(visit, tx, None, values, wrong=wrong, status=_UNFIT)


async def edit(visit: Visit) -> Answer:
    """The form of an existing key."""
    async with visit.reading() as tx:
        key = await agent_keys.get(tx, visit.by, "agent_keys.edit", visit.home, visit.names["id"], lock=False)
        return await _form(visit, tx, key, None)


async def change(visit: Visit) -> Answer:
    """Write what was changed; nothing where somebody else has changed the same key since the form was shown."""
    before, typed = fields.recall(visit.form.text("shown")), fields.sent(visit.form)
    if before is None:
        raise Refusal("invalid_request", "The form does not say what it showed. Load the page again.")
    # Not asked for in an edit, so never sent.
    typed = replace(typed, is_ephemeral=before.is_ephemeral, ttl_s=before.ttl_s)
    if not typed.owner_id:
        typed = replace(typed, owner_id=before.owner_id)
    if typed.expires != CUSTOM:
        typed = replace(typed, expires_at=before.expires_at)
    wish, wrong = fields.wished(typed, visit.at, before)
    if typed.owner_id != before.owner_id:
        wish["owner_id"] = typed.owner_id
    meanwhile: list[str] = []
    try:
        async with visit.writing() as tx:
            await agent_keys.keep_member(tx, visit.by, visit.home, wish.get("owner_id"))
            key = await agent_keys.get(tx, visit.by, "agent_keys.edit", visit.home, visit.names["id"])
            meanwhile = fields.differences(before, fields.values_of(key), typed)
            if not wrong and not meanwhile:
                known = visit.hall.catalog
                await agent_keys.change(
                    tx, visit.by, visit.home, key.id, wish, visit.at, grant=judge_scopes, catalog=known
                )
                return visit.go(page_of(visit, key.id), said="The key is saved.")
    except Refusal as refusal:
        visit.refused(refusal)
        wrong = fields.beside(refusal) or {"": refusal.message}
    async with visit.reading() as tx:
        key = await agent_keys.get(tx, visit.by, "agent_keys.edit", visit.home, visit.names["id"], lock=False)
        status = _CONFLICT if meanwhile else _UNFIT
        return await _form(visit, tx, key, typed, wrong=wrong, meanwhile=meanwhile, status=status)


async def find_models(visit: Visit) -> Answer:
    """Models, endpoints and aliases whose names hold what was typed."""
    sought = visit.query.text("sought").casefold()[:200]
    async with visit.reading() as tx:
        named = [("endpoint", one.name) for one in await endpoints.list_(tx, visit.by, visit.home)]
        named += [("alias", one.name) for one in await aliases.list_(tx, visit.by)]
    # The names of calls: an endpoint by its own, a model by provider and name.
    named += [("free model" if one.free else "model", one.key) for one in visit.hall.catalog.models.values()]
    found = [(kind, name) for kind, name in named if sought in name.casefold()]
    return visit.page("agent_keys/models.html", found=found[:_MOST_FOUND], more=max(0, len(found) - _MOST_FOUND))


async def check(visit: Visit) -> Answer:
    """Whether one field, as far as it is typed, could be kept."""
    name, form = visit.query.text("field"), visit.form
    said, is_fine = "", True
    try:
        if name == "addresses" and form.text(name):
            found = checked({name: choice_of(fields.listed(form.text(name)))}, visit.at)[name]
            said = f"Calls from {', '.join(sorted(found.items))} only."  # type: ignore[attr-defined]
        elif name == "metadata" and form.text(name):
            value = checked({name: fields.parse_metadata(form.text(name))}, visit.at)[name]
            said = f"Good JSON: {', '.join(map(str, value)) or 'empty'}."  # type: ignore[call-overload]
    except Refusal as refusal:
        said, is_fine = refusal.message, False
    return visit.page("agent_keys/check.html", text=said, is_fine=is_fine)


async def _make(visit: Visit, tx: Transaction, values: Values, wish: dict[str, object]) -> tuple[AgentKey, Secret]:
    pepper, at, known = visit.hall.seal.pepper, visit.at, visit.hall.catalog
    owner_id = values.owner_id or None
    if not values.is_ephemeral:
        wanted = NewAgentKey(**wish, owner_id=owner_id)  # type: ignore[arg-type]
        return await agent_keys.create(
            tx, visit.by, visit.home, wanted, pepper=pepper, at=at, grant=judge_scopes, catalog=known
        )
    ttl_s = fields.count("ttl_s", values.ttl_s)
    named = {name: value for name, value in wish.items() if name not in ("expires_at", "name")}
    lone = NewEphemeralKey(name=values.name, ttl_s=ttl_s, owner_id=owner_id, fields=named)
    return await ephemeral_keys.create(tx, visit.by, visit.home, None, lone, pepper=pepper, at=at, catalog=known)


async def _form(
    visit: Visit,
    tx: Transaction,
    key: AgentKey | None,
    values: Values | None,
    *,
    wrong: Mapping[str, str] | None = None,
    meanwhile: list[str] | None = None,
    status: int = 200,
) -> Answer:
    """The form, with what was typed where it was sent."""
    rules = await get_rules(tx, visit.home)
    owners = await _owners(visit, tx)
    current = fields.values_of(key) if key else _usual(visit, rules.max_lifetime_ms, owners)
    values = values or current
    wrong = dict(wrong or {})
    is_advanced = bool(wrong) and all(name in fields.ADVANCED for name in wrong)
    elsewhere = wrong.pop("", "") or (_WRONG if wrong and not meanwhile else "")
    known: dict[str, Any] = {
        "key": key,
        "tail": tail_of(visit),
        "values": values,
        "shown": current.text(),
        "meanwhile": meanwhile or [],
        "trouble": elsewhere,
        "wrong": Wrong(fields=wrong),
        "tab": "advanced" if is_advanced else "basic",
        "owners": owners,
        "expiries": _expiries(key, rules.max_lifetime_ms),
        "providers": await _providers(visit, tx, values),
        "kept": [one for one in values.providers or () if one not in visit.hall.catalog.providers],
        "scopes": _scopes(visit, key, values),
        "capture_is_forbidden": rules.capture_is_forbidden,
        "may_capture": not rules.capture_is_forbidden or (key is not None and key.capture),
        "action": f"{LIST}/{key.id}/edit" if key else f"{LIST}/new",
    }
    return visit.page("agent_keys/form.html" if wants_part(visit) else "agent_keys/edit.html", status, **known)


def _usual(visit: Visit, most_ms: int | None, owners: list[tuple[str, str]]) -> Values:
    """What a new key has where nothing is wished for: 30 days, or as long as the organization lets it live."""
    allowed = [name for name, _ in _expiries(None, most_ms)]
    expires = "30d" if "30d" in allowed else next((one for one in reversed(allowed) if one != CUSTOM), CUSTOM)
    ids = [id for id, _ in owners]
    return Values(expires=expires, owner_id=visit.by.id if visit.by.id in ids else (ids or [""])[0])


def _expiries(key: AgentKey | None, most_ms: int | None) -> list[tuple[str, str]]:
    """The choices that the organization lets somebody make."""
    found = [(KEEP, "As it is")] if key else []
    for name, (said, lasts) in EXPIRIES.items():
        if most_ms is None or (lasts is not None and lasts <= most_ms):
            found.append((name, f"In {said}" if key and lasts else said))
    return [*found, (CUSTOM, "Custom …")]


async def _owners(visit: Visit, tx: Transaction) -> list[tuple[str, str]]:
    """Who a key can be made for; nobody to choose from where one may make keys for oneself only."""
    if not (visit.may("agent_keys.create") and visit.may("members.list")):
        return []
    found = await members.list_(tx, visit.by, visit.home)
    mine = [one for one in found if one.user_id == visit.by.id]
    others = [one for one in found if one.user_id != visit.by.id]
    return [
        *((one.user_id, f"Me ({one.email})") for one in mine),
        *((one.user_id, f"{one.name} ({one.email})") for one in others),
    ]


async def _providers(visit: Visit, tx: Transaction, values: Values) -> list[tuple[str, str, bool, bool]]:
    """Each with id, name, whether it is on, and whether there is a key for it in the vault: those first."""
    mine = await count_provider_keys(tx, visit.home)
    rows = visit.hall.catalog.providers.values()
    shown = [one for one in rows if not one.hidden or one.id in mine or one.id in (values.providers or ())]
    shown.sort(key=lambda one: one.id not in mine)
    return [(one.id, one.name, values.allows(one.id), one.id in mine) for one in shown]


def _scopes(visit: Visit, key: AgentKey | None, values: Values) -> list[tuple[str, str, bool]]:
    """Each with what it is for and whether it is on: the gate's, and those of the admin API that can be handed out."""
    found = [(one, said, one in values.scopes) for one, said in _SAID.items()]
    role = visit.by.role
    for one in ADMIN_SCOPES:
        is_held = one in values.scopes or (key is not None and one in key.scopes)
        can_hand_out = judge_scopes(visit.by, visit.by.id, role, [one]) is None
        if is_held or can_hand_out:
            found.append((one, "", one in values.scopes))
    return [*found, *((one, "", True) for one in values.scopes if one not in SCOPES and one not in ADMIN_SCOPES)]
