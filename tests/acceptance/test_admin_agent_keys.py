"""Agent keys over the admin API: made for a member, used, looked at, edited, rotated, stopped and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.acceptance.bureau import Bureau, code, fields
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream

MODEL = "openai-compatible/plain"


@pytest.fixture(scope="module")
def bureau(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        gateway = maker(allow=[shared_upstream.origin])
        gateway.add_provider_key("openai-compatible", "upstream", shared_upstream.url)
        gateway.cli("prices", "set", MODEL, "--input", "1", "--output", "2")
        yield Bureau(gateway).open()


def calls(bureau: Bureau, secret: str) -> int:
    """The status of one call."""
    return bureau.gateway.chat(secret, MODEL).status_code


@pytest.mark.main_job
def test_a_key_is_made_for_a_member_used_seen_and_revoked(bureau: Bureau) -> None:
    """The main job of this door."""
    bob = bureau.user_id("bob")
    wish = {"name": "Bob's agent", "owner_id": bob, "rpm": 50, "budget": {"limit_usd": "1.50"}, "metadata": {"team": 7}}
    made = bureau.done("erin", "POST", "/agent-keys", json=wish)
    assert made["owner_id"] == bob
    assert made["budget"]["limit_usd"] == "1.5"
    bureau.hears(made["secret"])
    assert calls(bureau, made["secret"]) == 200

    usage = bureau.done("erin", "GET", "/usage", params={"agent_key": made["id"], "by": "agent_key,model"})
    [row] = usage["data"]
    assert (row["agent_key"], row["requests"], row["model"]) == ("Bob's agent", 1, "plain")
    cost = Decimal(row["cost_usd"])
    assert cost > 0
    shown = bureau.done("bob", "GET", f"/agent-keys/{made['id']}")
    assert Decimal(shown["spent_usd"]) == cost
    assert Decimal(shown["budget"]["remaining_usd"]) == Decimal("1.5") - cost
    assert shown["by_model"] == [{"model": MODEL, "requests": 1, "cost_usd": row["cost_usd"]}]
    assert shown["requests"] == 1
    assert "secret" not in shown

    [trace] = bureau.done("bob", "GET", "/traces", params={"agent_key": "Bob's agent"})["data"]
    assert (trace["status"], trace["cost_usd"], trace["metadata"]) == ("ok", row["cost_usd"], {"team": 7})
    call = bureau.done("bob", "GET", f"/traces/{trace['request_id']}")
    assert call["attempts"] == [trace]
    summary = bureau.done("bob", "GET", "/traces/summary", params={"agent_key": "Bob's agent"})
    assert (summary["requests"], summary["errors"], summary["cost_usd"]) == (1, 0, row["cost_usd"])

    bureau.done("erin", "POST", f"/agent-keys/{made['id']}/revoke")
    assert calls(bureau, made["secret"]) == 401, "it counts where it was done, before the answer"
    deeds = bureau.done("alice", "GET", "/audit", params={"target": made["id"]})["data"]
    assert [row["deed"] for row in deeds] == ["agent_keys.revoke", "agent_keys.create"]
    assert all(row["actor_name"].startswith("erin@example.org") and row["origin"] == "api" for row in deeds)


def test_a_member_sees_no_calls_of_others(bureau: Bureau) -> None:
    alices = bureau.key()
    bureau.hears(alices["secret"])
    assert calls(bureau, alices["secret"]) == 200
    [trace] = bureau.done("alice", "GET", "/traces", params={"agent_key": alices["id"]})["data"]
    assert code(bureau.ask("bob", "GET", "/traces", params={"agent_key": alices["id"]})) == "insufficient_scope"
    assert code(bureau.ask("bob", "GET", f"/traces/{trace['request_id']}")) == "insufficient_scope"
    assert code(bureau.ask("bob", "GET", "/usage", params={"agent_key": alices["id"]})) == "insufficient_scope"
    everything = [
        *bureau.done("bob", "GET", "/traces")["data"],
        *bureau.done("bob", "GET", "/usage", params={"by": "agent_key"})["data"],
    ]
    assert alices["id"] not in {row["agent_key_id"] for row in everything}
    assert bureau.done("dora", "GET", "/traces")["data"] == []
    assert code(bureau.ask("dora", "GET", f"/traces/{trace['request_id']}")) == "not_found"


def test_calls_of_a_deleted_key_stay_with_the_organization(bureau: Bureau) -> None:
    gone = bureau.key(owner_id=bureau.user_id("bob"))
    bureau.hears(gone["secret"])
    assert calls(bureau, gone["secret"]) == 200
    [trace] = bureau.done("bob", "GET", "/traces", params={"agent_key": gone["id"]})["data"]
    bureau.done("bob", "DELETE", f"/agent-keys/{gone['id']}")
    assert bureau.done("alice", "GET", "/traces", params={"agent_key": gone["name"]})["data"] == [trace]
    assert code(bureau.ask("bob", "GET", f"/traces/{trace['request_id']}")) == "insufficient_scope"


def test_content_is_shown_where_it_is_captured_and_the_look_is_noted(bureau: Bureau) -> None:
    plain, captured = (bureau.key(capture=capture, owner_id=bureau.user_id("bob")) for capture in (False, True))
    for made in (plain, captured):
        bureau.hears(made["secret"])
        assert calls(bureau, made["secret"]) == 200
    seen, kept = (
        bureau.done("bob", "GET", "/traces", params={"agent_key": made["id"]})["data"][0]["request_id"]
        for made in (plain, captured)
    )
    assert code(bureau.ask("bob", "GET", f"/traces/{seen}/content")) == "not_found"
    assert code(bureau.ask("dora", "GET", f"/traces/{kept}/content")) == "not_found"
    [said] = bureau.done("bob", "GET", f"/traces/{kept}/content")["attempts"]
    assert "Who keeps the door?" in said["request"]
    assert said["answer"]
    looks = bureau.done("alice", "GET", "/audit", params={"deed": "traces.content", "result": "ok"})["data"]
    assert [(row["target_id"], row["actor_id"]) for row in looks] == [(kept, bureau.user_id("bob"))]


def test_a_merge_patch_changes_what_it_names(bureau: Bureau) -> None:
    made = bureau.key(rpm=10, rpd=100, budget={"limit_usd": 5, "period": "total"}, models=["a/b", "c/d"])
    path = f"/agent-keys/{made['id']}"
    absent = bureau.done("alice", "PATCH", path, json={"rpd": 200})
    assert (absent["rpm"], absent["rpd"], absent["budget"]["limit_usd"]) == (10, 200, "5")
    null = bureau.done(
        *("alice", "PATCH", path),
        content=b'{"rpm": null, "budget": null, "models": []}',
        headers={"content-type": "application/merge-patch+json"},
    )
    assert (null["rpm"], null["rpd"], null["budget"], null["models"]["mode"]) == (None, 200, None, "all")
    same = bureau.done("alice", "PATCH", path, json={})
    assert same == null
    assert same["updated_at"] == null["updated_at"]


def test_a_merge_patch_reaches_into_a_budget(bureau: Bureau) -> None:
    """Whoever moves the warning, or the period, must not lift the hard limit by not naming it."""
    made = bureau.key(budget={"limit_usd": "5", "soft_usd": "2", "period": "total", "thresholds": [10, 90]})
    path = f"/agent-keys/{made['id']}"

    def patch(budget: Any) -> Any:
        shown = bureau.done("alice", "PATCH", path, json={"budget": budget})["budget"]
        assert shown == bureau.done("alice", "GET", path)["budget"]
        return shown and (shown["limit_usd"], shown["soft_usd"], shown["period"], shown["thresholds"])

    assert patch({"soft_usd": "3"}) == ("5", "3", "total", [10, 90])
    assert patch({"thresholds": [70]}) == ("5", "3", "total", [70])
    assert patch({"soft_usd": None, "period": "month"}) == ("5", None, "month", [70])
    assert patch({"limit_usd": "4"}) == ("4", None, "month", [70])
    assert patch({"thresholds": None}) == ("4", None, "month", [50, 80, 100])
    assert patch({}) == ("4", None, "month", [50, 80, 100])
    for wrong in ({"limit_usd": None}, {"soft_usd": "4.1"}, {"period": None}):
        refused = bureau.ask("alice", "PATCH", path, json={"budget": wrong})
        assert (refused.status_code, {name.partition(".")[0] for name in fields(refused)}) == (422, {"budget"}), wrong
    assert patch({"soft_usd": "1", "limit_usd": None}) == (None, "1", "month", [50, 80, 100])
    assert patch(None) is None
    assert patch({"limit_usd": "9"}) == ("9", None, "month", [50, 80, 100])


def test_a_merge_patch_reaches_into_metadata(bureau: Bureau) -> None:
    made = bureau.key(metadata={"team": "search", "cost": {"centre": 7, "share": 0.5}, "tags": ["a", "b"]})
    path = f"/agent-keys/{made['id']}"

    def patch(metadata: Any) -> Any:
        return bureau.done("alice", "PATCH", path, json={"metadata": metadata})["metadata"]

    assert patch({}) == made["metadata"]
    kept = {"team": "ads", "cost": {"share": 0.5, "unit": "eu"}, "tags": ["c"]}
    assert patch({"team": "ads", "cost": {"centre": None, "unit": "eu"}, "tags": ["c"]}) == kept
    assert patch({"cost": None, "nothing": None, "new": {"a": None, "b": 1}}) == {
        "team": "ads",
        "tags": ["c"],
        "new": {"b": 1},
    }
    refused = bureau.ask("alice", "PATCH", path, json={"metadata": {"more": "x" * 4_090}})
    assert (refused.status_code, fields(refused)) == (422, {"metadata"}), "too large together"
    assert patch({"team": None, "tags": None, "new": None}) == {}


def test_a_key_that_expires_soon_is_marked(bureau: Bureau) -> None:
    def ahead(days: float) -> str:
        return (datetime.now(UTC) + timedelta(days=days)).isoformat()

    soon, later, never = (bureau.key(expires_at=at) for at in (ahead(6.9), ahead(7.1), None))
    assert [one["expires_soon"] for one in (soon, later, never)] == [True, False, False]
    child = bureau.done("alice", "POST", f"/agent-keys/{later['id']}/ephemeral", json={})
    assert not child["expires_soon"], "it was made to be short-lived"
    listed = bureau.done("alice", "GET", "/agent-keys", params={"search": soon["name"]})["data"]
    assert [one["expires_soon"] for one in listed if one["id"] == soon["id"]] == [True]
    path = f"/agent-keys/{soon['id']}"
    assert not bureau.done("alice", "POST", f"{path}/deactivate")["expires_soon"], "it has stopped already"
    assert bureau.done("alice", "POST", f"{path}/activate")["expires_soon"]
    assert not bureau.done("alice", "PATCH", path, json={"expires_at": ahead(30)})["expires_soon"]


READ_ONLY = (
    *("id", "preview", "previews", "status", "created_at", "updated_at", "last_used_at", "spent_usd", "secret"),
    *("organization_id", "is_ephemeral", "parent_id", "requests", "expires_soon"),
)


@pytest.mark.parametrize("field", READ_ONLY)
def test_what_is_read_only_is_not_written(bureau: Bureau, field: str) -> None:
    made = bureau.key()
    before = bureau.done("alice", "GET", f"/agent-keys/{made['id']}")
    answer = bureau.ask("alice", "PATCH", f"/agent-keys/{made['id']}", json={field: before.get(field)})
    assert answer.status_code == 422
    assert fields(answer) == {field}
    assert bureau.done("alice", "GET", f"/agent-keys/{made['id']}") == before


@pytest.mark.parametrize("field", ["name", "scopes", "free_only", "models", "metadata", "capture", "owner_id"])
def test_null_is_no_value_where_there_must_be_one(bureau: Bureau, field: str) -> None:
    made = bureau.key()
    answer = bureau.ask("alice", "PATCH", f"/agent-keys/{made['id']}", json={field: None})
    assert answer.status_code == 422
    assert field in {name.partition(".")[0] for name in fields(answer)}


@pytest.mark.main_job
def test_rotation_shows_the_new_secret_once_and_ends_the_old(bureau: Bureau) -> None:
    made = bureau.key()
    bureau.hears(made["secret"])
    rotated = bureau.done("alice", "POST", f"/agent-keys/{made['id']}/rotate")
    assert rotated["id"] == made["id"]
    assert rotated["secret"] != made["secret"]
    assert calls(bureau, made["secret"]) == 401
    assert calls(bureau, rotated["secret"]) == 200
    again = bureau.done("alice", "POST", f"/agent-keys/{made['id']}/rotate", json={"overlap_s": 600})
    assert len(again["previews"]) == 2
    bureau.hears(again["secret"])
    assert calls(bureau, rotated["secret"]) == 200
    assert bureau.ask("alice", "POST", f"/agent-keys/{made['id']}/rotate", json={"overlap_s": 700_000}).is_error


@pytest.mark.main_job
def test_a_key_stops_and_starts(bureau: Bureau) -> None:
    made = bureau.key()
    bureau.hears(made["secret"])
    path = f"/agent-keys/{made['id']}"
    for verb, status, answers in (("deactivate", "inactive", 401), ("activate", "active", 200)):
        assert bureau.done("alice", "POST", f"{path}/{verb}")["status"] == status
        assert calls(bureau, made["secret"]) == answers, verb
    assert code(bureau.ask("alice", "POST", f"{path}/activate")) == "conflict"


def test_a_key_opens_this_door_as_it_opens_the_other(bureau: Bureau) -> None:
    """Status, expiry and address are judged by the same policy."""
    made = bureau.key(scopes=["gate:usage", "admin:members:read"])
    bureau.hears(made["secret"])
    path = f"/agent-keys/{made['id']}"
    assert bureau.ask(made["secret"], "GET", "/members").status_code == 200
    bureau.done("alice", "PATCH", path, json={"addresses": ["192.0.2.0/24", "2001:db8::/32"]})
    assert code(bureau.ask(made["secret"], "GET", "/members")) == "ip_not_allowed"
    bureau.done("alice", "PATCH", path, json={"addresses": []})
    bureau.done("alice", "POST", f"{path}/deactivate")
    answer = bureau.ask(made["secret"], "GET", "/members")
    assert code(answer) == "invalid_api_key"
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.main_job
def test_an_ephemeral_key_stays_within_its_parent(bureau: Bureau) -> None:
    parent = bureau.key(models=["openai-compatible/plain"], rpm=20)
    path = f"/agent-keys/{parent['id']}/ephemeral"
    child = bureau.done("alice", "POST", path, json={"ttl_s": 120, "rpm": 5})
    assert child["parent_id"] == parent["id"]
    assert child["is_ephemeral"]
    assert child["secret"].startswith("ost_eph_")
    bureau.hears(child["secret"])
    assert calls(bureau, child["secret"]) == 200
    wishes: tuple[dict[str, Any], ...] = (
        *({"rpm": 21}, {"models": []}, {"models": ["openai/gpt-4o"]}),
        {"scopes": ["admin:members:read"]},
    )
    for wider in wishes:
        answer = bureau.ask("alice", "POST", path, json=wider)
        assert answer.status_code == 422, wider
        assert fields(answer) == set(wider)
    assert bureau.ask("alice", "POST", f"/agent-keys/{child['id']}/ephemeral", json={}).status_code == 422
    found = bureau.done("alice", "GET", "/agent-keys", params={"parent_id": parent["id"]})["data"]
    assert [one["id"] for one in found] == [child["id"]]
    bureau.done("alice", "POST", f"/agent-keys/{parent['id']}/revoke")
    assert calls(bureau, child["secret"]) == 401, "the child dies with its parent"


def test_a_lone_ephemeral_key_has_limits_of_its_own(bureau: Bureau) -> None:
    made = bureau.done("bob", "POST", "/ephemeral-keys", json={"name": bureau.name(), "ttl_s": 60, "rpd": 3})
    assert (made["parent_id"], made["rpd"], made["owner_id"]) == (None, 3, bureau.user_id("bob"))
    assert bureau.ask("bob", "POST", "/ephemeral-keys", json={"ttl_s": 59}).status_code == 422


def test_a_name_is_taken_once(bureau: Bureau) -> None:
    made = bureau.key()
    answer = bureau.ask("alice", "POST", "/agent-keys", json={"name": made["name"]})
    assert (answer.status_code, code(answer), fields(answer)) == (409, "conflict", {"name"})
    bureau.done("alice", "DELETE", f"/agent-keys/{made['id']}")
    assert code(bureau.ask("alice", "GET", f"/agent-keys/{made['id']}")) == "not_found"
    bureau.done("alice", "POST", "/agent-keys", json={"name": made["name"]})


OUT_OF_RANGE: list[tuple[dict[str, Any], str]] = [
    ({"rpm": 0}, "rpm"),
    ({"rpm": -1}, "rpm"),
    ({"rpm": 10**30}, "rpm"),
    ({"rpm": 1.5}, "rpm"),
    ({"rpm": "5"}, "rpm"),
    ({"rpm": True}, "rpm"),
    ({"parallel": 0}, "parallel"),
    ({"name": ""}, "name"),
    ({"name": "   "}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"name": "a\u202eb"}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"name": 7}, "name"),
    ({"scopes": []}, "scopes"),
    ({"scopes": ["gate:everything"]}, "scopes"),
    ({"scopes": ["admin:*"]}, "scopes"),
    ({"scopes": "gate:chat"}, "scopes"),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"expires_at": "2026-11-20"}, "expires_at"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
    ({"expires_at": 1_800_000_000}, "expires_at"),
    ({"expires_at": "2027-02-30T00:00:00Z"}, "expires_at"),
    ({"budget": {"limit_usd": "-1"}}, "budget.limit_usd"),
    ({"budget": {"limit_usd": "1e3"}}, "budget.limit_usd"),
    ({"budget": {"limit_usd": "1.0000000001"}}, "budget.limit_usd"),
    ({"budget": {"limit_usd": 1e300}}, "budget.limit_usd"),
    ({"budget": {"limit_usd": "99999999999"}}, "budget.limit_usd"),
    ({"budget": {"limit_usd": True}}, "budget.limit_usd"),
    ({"budget": {"limit_usd": "1", "period": "week"}}, "budget.period"),
    ({"budget": {}}, "budget"),
    ({"budget": {"limit_usd": "1", "thresholds": [80, 50]}}, "budget"),
    ({"budget": {"limit_usd": "1", "thresholds": [50, 50]}}, "budget"),
    ({"budget": {"limit_usd": "1", "thresholds": [0]}}, "budget.thresholds.0"),
    ({"budget": {"limit_usd": "1", "thresholds": [101]}}, "budget.thresholds.0"),
    ({"budget": {"limit_usd": "1", "soft_usd": "2"}}, "budget"),
    ({"models": {"mode": "only", "items": []}}, "models"),
    ({"models": {"mode": "none", "items": ["a/b"]}}, "models"),
    ({"models": {"mode": "some", "items": ["a/b"]}}, "models"),
    ({"models": ["x" * 201]}, "models"),
    ({"models": ["a\nb"]}, "models"),
    ({"models": [" a/b"]}, "models"),
    ({"models": ["a/b\u00a0"]}, "models"),
    ({"models": ["a\u200bb"]}, "models"),
    ({"models": [f"m/{number}" for number in range(501)]}, "models"),
    ({"addresses": ["300.1.1.1"]}, "addresses"),
    ({"addresses": ["10.0.0.1/8"]}, "addresses"),
    ({"addresses": ["::1%eth0"]}, "addresses"),
    ({"addresses": ["fe80::/129"]}, "addresses"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"x": "y" * 5_000}}, "metadata"),
    ({"metadata": {"x": "y" * 1_000_000}}, "metadata"),
    ({"metadata": {"x": "\ud800"}}, "metadata"),
    ({"metadata": {"x": 2**64}}, "metadata"),
    ({"owner_id": "usr_nobody"}, "owner_id"),
    ({"unknown": 1}, "unknown"),
    ({"Name": "x"}, "Name"),
]


@pytest.mark.parametrize(("wrong", "field"), OUT_OF_RANGE, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_is_out_of_range_is_refused_by_name(
    bureau: Bureau, standing: dict[str, Any], method: str, wrong: dict[str, Any], field: str
) -> None:
    path = f"/agent-keys/{standing['id']}" if method == "PATCH" else "/agent-keys"
    named = {"name": bureau.name()} if method == "POST" else {}
    answer = bureau.ask("alice", method, path, json={**named, **wrong})
    assert answer.status_code == 422, answer.text
    assert code(answer) == "invalid_field"
    assert {name.partition(".")[0] for name in fields(answer)} == {field.partition(".")[0]}
    assert field in fields(answer) or "." not in field
    assert bureau.done("alice", "GET", f"/agent-keys/{standing['id']}") == standing


@pytest.fixture(scope="module")
def standing(bureau: Bureau) -> dict[str, Any]:
    """A key that refused edits leave as it is."""
    made = bureau.key(rpm=7)
    found: dict[str, Any] = bureau.done("alice", "GET", f"/agent-keys/{made['id']}")
    return found


def test_a_name_that_looks_the_same_is_another(bureau: Bureau) -> None:
    looking = bureau.key(models=[MODEL.replace("a", "\N{CYRILLIC SMALL LETTER A}")])
    made = bureau.key(models=[MODEL])
    bureau.hears(made["secret"])
    assert calls(bureau, looking["secret"]) == 403
    assert calls(bureau, made["secret"]) == 200
    for name in (f" {MODEL}", f"{MODEL} ", MODEL.upper(), MODEL.replace("a", "\N{CYRILLIC SMALL LETTER A}")):
        refused = bureau.gateway.chat(made["secret"], name)
        assert refused.status_code in {400, 403, 404}, name


def test_a_provider_that_is_none_is_not_taken(bureau: Bureau) -> None:
    """A slip in its name would leave a key that no call gets through with."""
    asked = bureau.ask("erin", "POST", "/agent-keys", json={"name": "slipped", "providers": ["opnai"]})
    assert (asked.status_code, code(asked), fields(asked)) == (422, "invalid_field", {"providers"})
    assert "Near: openai" in asked.text
    made = bureau.done("erin", "POST", "/agent-keys", json={"name": "spelled", "providers": ["openai"]})
    bureau.hears(made["secret"])
    path = f"/agent-keys/{made['id']}"
    for method, where in (("PATCH", path), ("POST", f"{path}/ephemeral")):
        again = bureau.ask("erin", method, where, json={"providers": ["openai", "nosuch"]})
        assert (again.status_code, fields(again)) == (422, {"providers"}), again.text
    assert bureau.done("erin", "PATCH", path, json={"rpm": 5})["providers"]["items"] == ["openai"]
