"""What notifications say: every kind has words, for people and for machines, and knows no more than its facts."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from ostiary.ledger.letters import KINDS, headline, letter, presented
from ostiary.ledger.outbox_store import Notification

AT = 1_795_000_000_000
BUDGET: dict[str, Any] = {
    "limit": "hard",
    "limit_nano": 10_000_000_000,
    "spent_nano": 8_020_000_000,
    "threshold": 80,
    "percent": 80,
    "period": "2026-11",
    "resets_at": 1_796_083_200_000,
    "refused": False,
    "organization": "Home",
}
FACTS: dict[str, dict[str, Any]] = {
    "budget.threshold": BUDGET,
    "budget.soft_limit": {**BUDGET, "limit": "soft", "threshold": 100},
    "budget.exceeded": {**BUDGET, "spent_nano": 10_000_000_000, "threshold": 100, "percent": 100},
    "agent_key.expiring": {"days": 7, "expires_at": AT + 600_000_000, "organization": "Home"},
    "provider_key.unhealthy": {"reason": "the provider failed", "until_at": AT + 5_000, "organization": "Home"},
    "provider_key.exhausted": {"reason": "its account is out of money", "until_at": None, "organization": "Home"},
    "provider_key.disabled": {"reason": "it is not valid", "until_at": None, "organization": "Home"},
    "invitation.accepted": {
        "email": "frank@example.org",
        "name": "Frank",
        "role": "admin",
        "invited_by": "alice@example.org",
        "organization": "Home",
    },
    "model.unpriced": {"request_id": "req_1", "agent_key": "ci", "organization": "Home"},
    "call.over_hold": {
        "request_id": "req_1",
        "agent_key": "ci",
        "cost_nano": 2_000_000_000,
        "held_nano": 1_000_000_000,
        "organization": "Home",
    },
    "test": {"by": "operator", "organization": "Home"},
}


def told(kind: str, **facts: object) -> Notification:
    name = "openai/gpt" if kind in {"model.unpriced", "call.over_hold"} else "ci bot"
    subject_kind = "model" if "/" in name else "agent_key"
    return Notification("ntf_1", "orgn_1", kind, subject_kind, "key_1", name, {**FACTS.get(kind, {}), **facts}, AT)


def test_every_kind_is_here() -> None:
    assert FACTS.keys() == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_words(kind: str) -> None:
    subject, text = letter(told(kind))
    assert subject == headline(told(kind))
    assert "$" not in subject
    assert "\n" not in subject
    assert "Home" in text
    assert not {line for line in text.splitlines() if len(line) > 200}


def test_a_threshold_says_how_much_of_what_and_what_happens_next() -> None:
    subject, text = letter(told("budget.threshold"))
    assert subject == "Agent key 'ci bot' has spent 80 % of its budget"
    assert "spent $8.02 of its hard limit of $10 for 2026-11: 80 %" in text
    assert "refused with 402 until 2026-12-01T00:00:00Z" in text


def test_a_soft_limit_says_that_calls_go_on() -> None:
    subject, text = letter(told("budget.soft_limit"))
    assert "soft limit" in subject
    assert "Calls go on" in text
    assert "402" not in text


def test_exceeded_says_why() -> None:
    assert "A call was refused with 402" in letter(told("budget.exceeded", refused=True))[1]
    assert "Calls that cost something are refused" in letter(told("budget.exceeded"))[1]


def test_a_budget_in_total_never_begins_anew() -> None:
    _, text = letter(told("budget.exceeded", period="total", resets_at=None))
    assert "until" not in text
    assert "total" not in text


@pytest.mark.parametrize(("days", "words"), [(7, "7 days"), (1, "1 day,")])
def test_days_are_counted_as_people_do(days: int, words: str) -> None:
    assert words in letter(told("agent_key.expiring", days=days))[1]


def test_what_a_newer_gateway_tells_of_is_passed_on() -> None:
    subject, text = letter(told("provider_key.unheard_of", organization="Home"))
    assert subject == "Agent key 'ci bot': provider_key.unheard_of"
    assert "Home" in text


def test_a_provider_key_says_why_and_what_to_do() -> None:
    assert "From 2026-11-18T11:06:45Z on a call may find out" in letter(told("provider_key.unhealthy"))[1]
    assert "From now on a call" in letter(told("provider_key.exhausted"))[1]
    disabled = letter(told("provider_key.disabled"))[1]
    assert "it is not valid." in disabled
    assert "ostiary vault reset" in disabled


def test_an_accepted_invitation_says_who_has_come_as_what_and_by_whom() -> None:
    accepted = replace(told("invitation.accepted"), subject_kind="invitation", subject_name="frank@example.org")
    subject, text = letter(accepted)
    assert subject == "Invitation 'frank@example.org' was accepted"
    assert "Frank (frank@example.org) accepted the invitation of alice@example.org\nand is now admin of" in text


def test_machines_get_dollars_and_iso_times() -> None:
    shown = presented(told("budget.threshold"))
    assert shown["facts"]["spent_usd"] == Decimal("8.02")
    assert shown["facts"]["limit_usd"] == 10
    assert shown["facts"]["resets_at"] == "2026-12-01T00:00:00Z"
    assert shown["subject"] == {"kind": "agent_key", "id": "key_1", "name": "ci bot"}
    assert not {name for name in shown["facts"] if name.endswith("_nano")}


def test_a_name_with_line_ends_stays_in_its_line() -> None:
    evil = replace(told("budget.threshold"), subject_name="ci\r\nBcc: eve@example.net")
    assert "\r" not in "".join(letter(evil))
    assert "\nBcc" not in letter(evil)[1]
