"""What each kind of notification says, to people and to machines (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ostiary.clock import iso
from ostiary.ledger.outbox_store import Notification
from ostiary.limits.budgets import TOTAL
from ostiary.mail import Template
from ostiary.money import show_usd, usd_of

_NANO: Final = "_nano"
_AT: Final = "_at"

_BUDGET: Final = "$Who of the organization $organization has spent $spent of its $limit: $percent %.\n\n$next\n"
_KEY: Final = "$Who of the organization $organization: $reason.\n\n"
_AGAIN: Final = (
    "Other provider keys take its calls, where there are any. From $again on a call may find out whether it is well.\n"
)
_FOOT: Final = (
    "\n-- \nOstiary wrote this by itself. 'ostiary notifications list' shows what else was told, and to whom.\n"
)

_TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType(
    {
        "budget.threshold": Template("$Who has spent $threshold % of its budget", _BUDGET + _FOOT),
        "budget.soft_limit": Template("$Who has passed its soft limit", _BUDGET + _FOOT),
        "budget.exceeded": Template("$Who has used up its budget", _BUDGET + _FOOT),
        "agent_key.expiring": Template(
            "$Who expires in $left",
            "$Who of the organization $organization expires in $left, at $expires.\n\n"
            "Then its calls are refused with 401. To let it live on: ostiary keys edit NAME --expires 30d\n" + _FOOT,
        ),
        "provider_key.unhealthy": Template("$Who keeps failing", _KEY + _AGAIN + _FOOT),
        "provider_key.exhausted": Template("$Who is out of money or quota", _KEY + _AGAIN + _FOOT),
        "provider_key.disabled": Template(
            "$Who is not valid any more",
            _KEY + "It is not used until somebody enters it again: ostiary vault edit NAME --ask-secret\n"
            "or says that it is well: ostiary vault reset NAME\n" + _FOOT,
        ),
        "invitation.accepted": Template(
            "$Who was accepted",
            "$name ($email) accepted the invitation of $invited_by\n"
            "and is now $role of the organization $organization.\n\n"
            "If nobody should have come in by it: ostiary members remove EMAIL\n" + _FOOT,
        ),
        "model.unpriced": Template(
            "$Who has no price",
            "The organization $organization was served by the $who, for which no price is known. Such calls are\n"
            "written down with a cost of 0, and are refused where a hard budget stands.\n\n"
            "The operator can set its price: ostiary prices set PROVIDER/MODEL --input USD --output USD\n"
            "It is told once a day for each model.\n" + _FOOT,
        ),
        "call.over_hold": Template(
            "A call of the $who cost more than was held for it",
            "The call $request_id of the organization $organization cost $cost, where $held was the most that it\n"
            "should have cost. All of it is charged, so a budget may be passed by the difference.\n\n"
            "Look at the price of the $who, and at whether its provider honours max_tokens.\n"
            "It is told once a day for each model.\n" + _FOOT,
        ),
        "test": Template(
            "A test by Ostiary",
            "This is a test that $by asked for. Notifications of the organization $organization arrive here.\n" + _FOOT,
        ),
    }
)

_UNKNOWN: Final = Template("$Who: $kind", "$kind: the $who of the organization $organization.\n" + _FOOT)
"""For what a newer gateway on the same database has written."""

KINDS: Final = tuple(_TEMPLATES)
"""All there are; `test` reaches every webhook, whatever it asks for."""


def letter(notification: Notification) -> tuple[str, str]:
    """Subject and text of the mail."""
    template, words = _TEMPLATES.get(notification.kind), _WORDS.get(notification.kind)
    if template is None or words is None:
        template, words = _UNKNOWN, lambda _: {"kind": notification.kind}
    who = _who(notification)
    usual = {"Who": _capital(who), "who": who, "organization": notification.facts.get("organization", "")}
    return template.write({**usual, **words(notification.facts)})


def headline(notification: Notification) -> str:
    """One line of what happened."""
    return letter(notification)[0]


def presented(notification: Notification) -> dict[str, Any]:
    """The notification as JSON: amounts in USD, times in ISO 8601. The same bytes whenever it is asked for."""
    facts: dict[str, Any] = {}
    for name, value in notification.facts.items():
        if name.endswith(_NANO):
            facts[name.removesuffix(_NANO) + "_usd"] = None if value is None else usd_of(value)
        else:
            facts[name] = iso(value) if name.endswith(_AT) and value is not None else value
    return {
        "id": notification.id,
        "organization_id": notification.organization_id,
        "kind": notification.kind,
        "subject": {
            "kind": notification.subject_kind,
            "id": notification.subject_id,
            "name": notification.subject_name,
        },
        "headline": headline(notification),
        "facts": facts,
        "created_at": iso(notification.created_at),
    }


# ---- words ------------------------------------------------------------------------------------------------------


def _who(notification: Notification) -> str:
    return f"{notification.subject_kind.replace('_', ' ')} '{notification.subject_name}'"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _budget(facts: Mapping[str, Any]) -> dict[str, object]:
    period = "" if facts["period"] == TOTAL else f" for {facts['period']}"
    return {
        "spent": f"${show_usd(facts['spent_nano'])}",
        "limit": f"{facts['limit']} limit of ${show_usd(facts['limit_nano'])}{period}",
        "percent": facts["percent"],
        "threshold": facts["threshold"],
        "next": _next(facts),
    }


def _next(facts: Mapping[str, Any]) -> str:
    """What happens next, as it matters to whoever uses the key."""
    until = f" until {iso(facts['resets_at'])}" if facts["resets_at"] is not None else ""
    raising = "unless somebody raises the limit (ostiary keys edit NAME --budget-usd USD, or ostiary orgs edit)."
    if facts["limit"] == "hard" and facts.get("spares"):
        when = "From now on" if facts["spent_nano"] >= facts["limit_nano"] else "At 100 %"
        return f"{when} other provider keys are used instead, or calls are refused with 503{until}."
    if facts["limit"] == "soft":
        return "Calls go on: a soft limit only warns."
    if facts["refused"]:
        return f"A call was refused with 402, as it could have cost more than is left. So it goes on{until}, {raising}"
    if facts["spent_nano"] >= facts["limit_nano"]:
        return f"Calls that cost something are refused with 402{until}, {raising}"
    return f"At 100 % calls are refused with 402{until}, {raising}"


def _expiring(facts: Mapping[str, Any]) -> dict[str, object]:
    days = facts["days"]
    return {"left": f"{days} day{'s' if days != 1 else ''}", "expires": iso(facts["expires_at"])}


def _key(facts: Mapping[str, Any]) -> dict[str, object]:
    return {"reason": facts["reason"], "again": iso(facts["until_at"]) if facts["until_at"] else "now"}


def _over_hold(facts: Mapping[str, Any]) -> dict[str, object]:
    return {
        "request_id": facts["request_id"],
        "cost": f"${show_usd(facts['cost_nano'])}",
        "held": f"${show_usd(facts['held_nano'])}",
    }


_WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, object]]]] = MappingProxyType(
    {
        "budget.threshold": _budget,
        "budget.soft_limit": _budget,
        "budget.exceeded": _budget,
        "agent_key.expiring": _expiring,
        "provider_key.unhealthy": _key,
        "provider_key.exhausted": _key,
        "provider_key.disabled": _key,
        "invitation.accepted": lambda facts: {name: facts[name] for name in ("name", "email", "role", "invited_by")},
        "model.unpriced": lambda _: {},
        "call.over_hold": _over_hold,
        "test": lambda facts: {"by": facts["by"]},
    }
)
