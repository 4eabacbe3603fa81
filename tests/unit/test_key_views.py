"""What is said of a key in plain words, for states that a test of the whole would have to wait for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ostiary.agents.policy import Choice
from ostiary.agents.records import AgentKey
from ostiary.cli import key_views
from ostiary.cli.beside import Pace
from ostiary.cli.key_views import NO_TRAFFIC, Sight
from ostiary.limits.budgets import Budget
from tests.people import DAY, HOUR, NOW

USD = 1_000_000_000
SCOPES = frozenset({"gate:chat"})
KEY = AgentKey(
    id="key_1",
    organization_id="orgn_1",
    owner_id=None,
    name="ci",
    status="active",
    expires_at=NOW + 6 * DAY + HOUR,
    scopes=SCOPES,
    rpm=None,
    rpd=None,
    models=Choice(),
    providers=Choice(),
    free_only=False,
    addresses=Choice(),
    metadata={},
    budget=None,
    previews=("ost_pat_abcd…wxyz",),
    created_at=NOW,
    updated_at=NOW,
    last_used_at=None,
)
SIGHT = Sight(
    key=KEY,
    at=NOW,
    owner=None,
    spent_nano=0,
    beside=(),
    pace=Pace(),
    traffic=NO_TRAFFIC,
    by_model={},
    children=(),
    secrets=(),
)


def told(spent: int = 0, **changed: Any) -> str:
    sight = replace(SIGHT, key=replace(KEY, **changed), spent_nano=spent)
    return "\n".join(key_views.tell(sight))


def test_a_key_without_limits_says_so() -> None:
    text = told()
    assert "ci (ost_pat_abcd…wxyz) is active. It belongs to nobody." in text
    assert "$0 this month; it has no budget of its own." in text
    assert "It has no limits of requests or tokens of its own." in text
    assert "It was never used." in text
    assert "It expires in 6 days, 2026-" in text


def test_what_is_over_is_told_as_over() -> None:
    text = told(6 * USD, budget=Budget("month", 5 * USD, 4 * USD), expires_at=NOW - HOUR)
    assert "is expired." in text
    assert "It expired 1 hour ago, " in text
    assert "$6 of $5 this month; $0 left." in text
    assert "It is over its soft limit of $4." in text
    assert "Its budget is spent: calls that cost are refused." in text


def test_a_budget_that_only_warns_blocks_nothing() -> None:
    text = told(3 * USD, budget=Budget("total", None, 4 * USD, ()), expires_at=None)
    assert "$3 in total; nothing blocks it." in text
    assert "It warns at its soft limit of $4." in text
    assert "refused" not in text
    assert "Somebody is told" not in text
    assert "begins anew" not in text
    assert "It never expires." in text


def test_what_a_key_may_not_do_is_said() -> None:
    text = told(
        scopes=frozenset({"admin:usage:read"}),
        models=Choice("none"),
        providers=Choice("only", frozenset({"groq", "openai"})),
        free_only=True,
        capture=True,
    )
    assert "It may not call anything." in text
    assert "In the admin API, as far as its owner's role goes: admin:usage:read." in text
    assert "No models at all." in text
    assert "Only at these providers: groq, openai." in text
    assert "Only models that cost nothing." in text
    assert "Prompts and answers are kept, redacted." in text


def test_what_an_organization_forbids_to_keep_is_said() -> None:
    sight = replace(SIGHT, key=replace(KEY, capture=True), capture_is_forbidden=True)
    assert "Prompts and answers would be kept, but its organization forbids it." in "\n".join(key_views.tell(sight))
    assert not key_views.details(sight)["content_is_captured"]
    assert key_views.details(replace(sight, capture_is_forbidden=False))["content_is_captured"]
    child = replace(KEY, parent=replace(KEY, capture=True))
    assert key_views.details(replace(SIGHT, key=child))["content_is_captured"]
    assert not key_views.details(SIGHT)["content_is_captured"]


def test_a_child_without_its_parent_is_told_as_revoked() -> None:
    text = told(parent_id="key_0", is_ephemeral=True)
    assert "is revoked. It is a child of a key that is gone." in text
    assert "never more than its parent may" in text
