"""An agent key as it is shown: what it may do, what it has used, and what happens next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ostiary.agents import pages_store, store
from ostiary.agents.pages_store import RECENT_DAYS
from ostiary.agents.policy import Choice
from ostiary.agents.records import AgentKey, KeySecret
from ostiary.cli import beside, show, words
from ostiary.cli.beside import Other, Pace
from ostiary.clock import DAY_MS, day_ends
from ostiary.db.database import Transaction
from ostiary.ledger import reports
from ostiary.ledger.reports import Traffic
from ostiary.ledger.usage_store import UsageFilter
from ostiary.orgs.store import find_user_by_id
from ostiary.secret import Secret

_MOST_SHOWN: Final = 20
_USES: Final = {"gate:chat": "call models", "gate:models": "list models", "gate:usage": "look up its own use"}
NO_TRAFFIC: Final = Traffic(0, 0.0)


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that is shown of one key beyond the key itself."""

    key: AgentKey
    at: int
    owner: str | None
    spent_nano: int
    beside: tuple[Other, ...]
    """Whose limits a call must fit as well."""
    pace: Pace
    traffic: Traffic
    """Requests of the last 30 days, and their share of all."""
    by_model: Mapping[str, tuple[int, int]]
    """Requests and nano-dollars of the last 30 days."""
    children: tuple[AgentKey, ...]
    secrets: tuple[KeySecret, ...]
    capture_is_forbidden: bool = False
    """Whether its organization lets nobody keep what was asked and answered."""


async def look(tx: Transaction, key: AgentKey, at: int) -> Sight:
    """Read it all."""
    children = await store.list_children(tx, key.id)
    owner = None if key.owner_id is None else await find_user_by_id(tx, key.owner_id)
    return Sight(
        key=key,
        at=at,
        owner=owner.email if owner else None,
        spent_nano=(await pages_store.list_spent(tx, [key], at))[key.id],
        beside=tuple([one async for one in beside.look(tx, key, at)]),
        pace=await beside.pace_of(tx, key, at),
        traffic=(await reports.list_traffic(tx, key.organization_id, at, [key.id])).get(key.id, NO_TRAFFIC),
        by_model=await _by_model(tx, key, at),
        children=tuple(children),
        secrets=tuple(await store.list_secrets(tx, key.id)),
        capture_is_forbidden=(await store.get_rules(tx, key.organization_id)).capture_is_forbidden,
    )


async def _by_model(tx: Transaction, key: AgentKey, at: int) -> dict[str, tuple[int, int]]:
    """The dearest first."""
    wanted = UsageFilter(day_ends(at) - RECENT_DAYS * DAY_MS, agent_key_ids=[key.id])
    rows = await reports.sum_usage(tx, key.organization_id, wanted, ("provider", "model"))
    return {f"{row.provider}/{row.model}": (row.requests, row.cost_nano) for row in rows}


# ---- for machines -----------------------------------------------------------------------------------------------


def summary(key: AgentKey, at: int, spent_nano: int, traffic: Traffic) -> dict[str, Any]:
    """One key as a list has it."""
    cap = key.budget.cap_nano if key.budget else None
    return {
        "id": key.id,
        "name": key.name,
        "preview": key.previews[0] if key.previews else None,
        "previews": list(key.previews),
        "status": key.shown_status(at),
        "owner_id": key.owner_id,
        "ephemeral": key.is_ephemeral,
        "parent_id": key.parent_id,
        "parent": key.parent.name if key.parent else None,
        "expires_at": show.when(key.expires_at),
        "expires_soon": key.expires_soon(at),
        "scopes": sorted(key.scopes),
        "budget_usd": show.usd(cap),
        "soft_budget_usd": show.usd(key.budget.soft_nano if key.budget else None),
        "budget_period": key.budget.kind if key.budget else None,
        "alert_at": list(key.budget.thresholds) if key.budget else [],
        "spent_usd": show.usd(spent_nano),
        "remaining_usd": None if cap is None else show.usd(max(cap - spent_nano, 0)),
        "rpm": key.rpm,
        "rpd": key.rpd,
        "tpm": key.tpm,
        "parallel": key.parallel,
        "models": _chosen(key.models),
        "providers": _chosen(key.providers),
        "ip": _chosen(key.addresses),
        "free_only": key.free_only,
        "capture": key.capture,
        "metadata": dict(key.metadata),
        "requests": traffic.requests,
        "share_percent": traffic.percent,
        "created_at": show.when(key.created_at),
        "updated_at": show.when(key.updated_at),
        "last_used_at": show.when(key.last_used_at),
    }


def details(sight: Sight) -> dict[str, Any]:
    """One key with everything around it."""
    key, at = sight.key, sight.at
    resets_at = key.budget.resets_at(at) if key.budget else None
    return {
        **summary(key, at, sight.spent_nano, sight.traffic),
        "owner": sight.owner,
        "content_is_captured": key.is_captured and not sight.capture_is_forbidden,
        "budget_resets_at": show.when(resets_at),
        "beside": [beside.shown(other, at) for other in sight.beside],
        "limits": beside.windows(key, sight.pace, at),
        "by_model": [
            {"model": name, "requests": requests, "cost_usd": show.usd(nano)}
            for name, (requests, nano) in sight.by_model.items()
        ],
        "children": [
            {
                "id": child.id,
                "name": child.name,
                "status": child.shown_status(at),
                "expires_at": show.when(child.expires_at),
            }
            for child in sight.children
        ],
        "secrets": [{"preview": one.preview, "expires_at": show.when(one.expires_at)} for one in sight.secrets],
    }


def _chosen(choice: Choice) -> dict[str, object]:
    return {"mode": choice.mode, "items": sorted(choice.items)}


async def described(tx: Transaction, key: AgentKey, at: int) -> dict[str, Any]:
    """One key as a list has it, read anew."""
    spent = await pages_store.list_spent(tx, [key], at)
    traffic = await reports.list_traffic(tx, key.organization_id, at, [key.id])
    return summary(key, at, spent[key.id], traffic.get(key.id, NO_TRAFFIC))


def with_secret(described: dict[str, Any], secret: Secret) -> dict[str, Any]:
    """The one time that a secret is shown."""
    return {"id": described.pop("id"), "secret": secret.reveal(), **described}


def print_once(described: Mapping[str, Any], *, json: bool, done: str) -> None:
    """What `with_secret` made."""
    if json:
        show.print_json(described)
        return
    show.say(f"The agent key {described['name']!r} is {done}. Its secret is shown this once; keep it now:\n")
    show.say(f"    {described['secret']}\n")
    print_summary({name: value for name, value in described.items() if name != "secret"}, json=False)


def print_summary(described: Mapping[str, Any], *, json: bool) -> None:
    """One key, a line a field."""
    if json:
        show.print_json(described)
        return
    flat = dict(described)
    for name in ("models", "providers", "ip"):
        choice = flat[name]
        flat[name] = choice["items"] if choice["mode"] == "only" else choice["mode"]
    show.print_fields(flat)


# ---- for people -------------------------------------------------------------------------------------------------


def tell(sight: Sight) -> Iterator[str]:
    """The same in plain words, a line each."""
    key = sight.key
    status = key.shown_status(sight.at)
    owner = f"It belongs to {sight.owner}." if sight.owner else "It belongs to nobody."
    if key.parent_id is not None:
        owner = f"It is a child of {key.parent.name if key.parent else 'a key that is gone'}. {owner}"
    yield f"{key.name} ({', '.join(key.previews)}) is {status}. {owner}"
    yield from _section("What it may do", _powers(sight))
    yield from _section("What it has used", _uses(sight))
    yield from _section("What happens next", _next(sight))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield ""
    yield title
    for line in lines:
        yield f"  {line}"


def _powers(sight: Sight) -> Iterator[str]:
    key = sight.key
    admin = sorted(scope for scope in key.scopes if scope not in _USES)
    uses = [says for scope, says in _USES.items() if scope in key.scopes]
    yield f"It may {', '.join(uses)}." if uses else "It may not call anything."
    if admin:
        yield f"In the admin API, as far as its owner's role goes: {', '.join(admin)}."
    yield _limited("models", key.models, "Any model", "Only these models")
    if key.free_only:
        yield "Only models that cost nothing."
    yield _limited("providers", key.providers, "At any provider", "Only at these providers")
    yield _limited("addresses", key.addresses, "From any address", "Only from these addresses")
    if key.parent_id is not None:
        yield "And never more than its parent may at that moment."
    if key.is_captured:
        yield (
            "Prompts and answers would be kept, but its organization forbids it."
            if sight.capture_is_forbidden
            else "Prompts and answers are kept, redacted."
        )
    if key.metadata:
        yield f"Written to each trace: {show.cell(dict(key.metadata))}."


def _limited(noun: str, choice: Choice, every: str, only: str) -> str:
    match choice.mode:
        case "all":
            return f"{every}."
        case "none":
            return f"No {noun} at all."
        case "only":
            return f"{only}: {', '.join(sorted(choice.items))}."


def _uses(sight: Sight) -> Iterator[str]:
    key = sight.key
    yield from _money(sight)
    for rate in beside.rates(key, sight.pace):
        yield f"{rate[0].upper()}{rate[1:]}."
    if not beside.has_rates(key):
        yield "It has no limits of requests or tokens of its own."
    for other in sight.beside:
        yield from beside.told(other)
    requests = sight.traffic.requests
    share = f", {sight.traffic.percent} % of all" if requests else ""
    yield f"{_requests(requests)} in the last {RECENT_DAYS} days{share}."
    for name, (count, nano) in list(sight.by_model.items())[:_MOST_SHOWN]:
        yield f"  {name}: {_requests(count)}, {show.dollars(nano)}"
    if key.last_used_at is not None:
        yield f"Last used {words.away(key.last_used_at, sight.at)}."
    else:  # its use is written down every half minute, its calls at once
        yield "Last used just now." if requests else "It was never used."


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def _money(sight: Sight) -> Iterator[str]:
    budget, spent = sight.key.budget, sight.spent_nano
    if budget is None:
        yield f"{show.dollars(spent)} this month; it has no budget of its own."
    else:
        yield f"{beside.sum_of(budget, spent)}."
        if budget.soft_nano is not None:
            over = "is over" if spent >= budget.soft_nano else "warns at"
            yield f"It {over} its soft limit of {show.dollars(budget.soft_nano)}."
        if budget.thresholds:
            yield f"Somebody is told at {', '.join(str(one) for one in budget.thresholds)} %."


def _next(sight: Sight) -> Iterator[str]:
    key, at = sight.key, sight.at
    if key.expires_at is None:
        yield "It never expires."
    else:
        verb = "expires" if key.expires_at > at else "expired"
        yield f"It {verb} {words.away(key.expires_at, at)}, {show.when(key.expires_at)}."
    yield from _budget_ahead(sight)
    if key.rpd is not None:
        yield f"Its requests of the day begin anew {words.away(day_ends(at), at)}, {show.when(day_ends(at))}."
    for one in sight.secrets:
        if one.expires_at is not None and one.expires_at > at:
            yield f"The old secret {one.preview} stops {words.away(one.expires_at, at)}."
    living = [child for child in sight.children if child.shown_status(at) == "active"]
    if living:
        yield f"Ephemeral keys that end with it: {len(living):,}."
    for child in living[:_MOST_SHOWN]:
        yield f"  {child.name}, expires {words.away(child.expires_at or at, at)}"


def _budget_ahead(sight: Sight) -> Iterator[str]:
    budget = sight.key.budget
    if budget is None:
        return
    if budget.cap_nano is not None:
        is_spent = sight.spent_nano >= budget.cap_nano
        yield (
            "Its budget is spent: calls that cost are refused."
            if is_spent
            else ("When its budget is spent, calls that cost are refused.")
        )
    resets_at = budget.resets_at(sight.at)
    if resets_at is not None:
        yield f"Its budget begins anew {words.away(resets_at, sight.at)}, {show.when(resets_at)}."
