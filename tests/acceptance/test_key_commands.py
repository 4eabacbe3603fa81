"""What the commands of keys, organizations and members do with every control, and say of it in plain words."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, GatewayMaker, House
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

EPHEMERAL = re.compile(r"ost_eph_[0-9A-Za-z]{49}")
_MODEL = "openai-compatible/ok"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> House:
    """One data directory for all tests here; each uses names, or an organization, of its own."""
    made = House(tmp_path_factory.mktemp("keys"), canaries, shell)
    made.cli("members", "add", "alice@example.org", "--role", "owner")
    made.cli("members", "add", "bob@example.org")
    return made


@pytest.fixture
def fresh(tmp_path: Path, canaries: Canaries, shell: Shell) -> House:
    """A data directory of the test's own: with a second organization, every command must name one."""
    return House(tmp_path, canaries, shell)


def refused(house: House, *words: str, code: int = 1) -> str:
    """What a command says that does not pass."""
    ran = house.cli(*words, check=False)
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err
    return ran.err


def names(house: House, *options: str) -> list[str]:
    """Keys as `keys list` has them."""
    return [key["name"] for key in house.json("keys", "list", *options)]


@pytest.mark.main_job
def test_every_control_is_set_shown_and_lifted(house: House) -> None:
    made = house.json(
        "keys", "create", "--name", "full", "--budget-usd", "5", "--soft-budget-usd", "4", "--budget-period", "total",
        "--alert-at", "10,90", "--rpm", "60", "--rpd", "1000", "--tpm", "50000", "--parallel", "4", "--capture",
        "--owner", "bob@example.org", "--scopes", "gate:chat,admin:agent-keys:write",
    )  # fmt: skip
    shown = house.json("keys", "show", "full")
    expected = {
        "soft_budget_usd": 4,
        "budget_period": "total",
        "alert_at": [10, 90],
        "tpm": 50_000,
        "parallel": 4,
        "capture": True,
        "ephemeral": False,
        "scopes": ["admin:agent-keys:read", "admin:agent-keys:write", "gate:chat"],
    }
    for described in (made, shown):
        assert {name: described[name] for name in expected} == expected
    assert shown["owner"] == "bob@example.org"
    assert shown["limits"]["requests_per_minute"] == {"limit": 60, "used": 0, "remaining": 60, "resets_at": None}
    assert shown["limits"]["requests_per_day"]["resets_at"].endswith("T00:00:00Z")
    assert shown["budget_resets_at"] is None
    lifted = house.json(
        "keys", "edit", "full", "--budget-usd", "none", "--tpm", "none", "--parallel", "none", "--no-capture",
        "--alert-at", "none",
    )  # fmt: skip
    assert (lifted["budget_usd"], lifted["soft_budget_usd"], lifted["alert_at"]) == (None, 4, [])
    assert (lifted["tpm"], lifted["parallel"], lifted["capture"], lifted["rpm"]) == (None, None, False, 60)
    assert house.json("keys", "edit", "full", "--owner", "alice@example.org")["owner_id"] != made["owner_id"]


@pytest.mark.parametrize(
    ("options", "says", "code"),
    [
        (("--budget-usd", "5", "--soft-budget-usd", "6"), "soft limit", 1),
        (("--budget-usd", "5", "--alert-at", "80,50"), "rising", 1),
        (("--budget-usd", "5", "--alert-at", "0,50"), "1 to 100", 1),
        (("--budget-usd", "5", "--alert-at", "50,101"), "1 to 100", 1),
        (("--budget-usd", "5", "--alert-at", "1,2,3,4,5,6,7,8,9,10,11"), "at most 10", 1),
        (("--budget-usd", "5", "--alert-at", "fifty"), "percents", 2),
        (("--alert-at", "50"), "--budget-usd", 2),
        (("--tpm", "0"), "whole number", 2),
        (("--parallel", "-1"), "whole number", 2),
        (("--scopes", "admin:members:read"), "owner", 1),
        (("--scopes", "admin:members:read", "--owner", "bob@example.org"), "member", 1),
        (("--scopes", "admin:nothing:read", "--owner", "bob@example.org"), "admin:nothing:read", 1),
        (("--metadata", f'{{"a": "{"x" * 5000}"}}'), "4096", 1),
    ],
)
def test_what_a_control_cannot_be_is_refused(house: House, options: tuple[str, ...], says: str, code: int) -> None:
    assert says in refused(house, "keys", "create", "--name", "wrong", *options, code=code)
    assert "wrong" not in names(house)


def test_a_list_is_searched_filtered_and_sorted(house: House) -> None:
    secret = house.create_key("zebra one", "--owner", "bob@example.org")
    house.create_key("aardvark two", "--owner", "alice@example.org")
    house.cli("keys", "revoke", "aardvark two")
    assert names(house, "--search", "ZEBRA") == ["zebra one"]
    assert names(house, "--search", secret[-4:]) == ["zebra one"]
    assert "aardvark two" in names(house, "--status", "revoked")
    assert "zebra one" not in names(house, "--status", "revoked")
    in_order = names(house, "--sort", "name")
    assert in_order.index("aardvark two") < in_order.index("zebra one")
    assert names(house, "--sort", "name", "--desc") == in_order[::-1]
    assert "zebra one" in names(house, "--owner", "bob@example.org")
    assert "aardvark two" not in names(house, "--owner", "bob@example.org")
    assert "no such agent key" in house.cli("keys", "list", "--search", "xyzzy").out
    refused(house, "keys", "list", "--status", "asleep", code=2)
    refused(house, "keys", "list", "--sort", "secret", code=2)


def test_a_list_marks_what_expires_soon(house: House) -> None:
    house.create_key("ends soon", "--expires", "6d")
    house.create_key("ends later", "--expires", "8d")
    marked = {key["name"]: key["expires_soon"] for key in house.json("keys", "list", "--search", "ends ")}
    assert marked == {"ends soon": True, "ends later": False}
    lines = house.cli("keys", "list", "--search", "ends ").out.splitlines()
    assert [line.split("  ")[0] for line in lines if "Z (soon)" in line] == ["ends soon"]


# ---- ephemeral keys -------------------------------------------------------------------------------------------------


def test_a_child_is_made_shown_and_ended_with_its_parent(house: House) -> None:
    parent = house.json("keys", "create", "--name", "ci", "--rpm", "60", "--budget-usd", "5", "--models", "a,b")
    child = house.json(
        "keys", "ephemeral", "ci", "--ttl", "15m", "--name", "job 7", "--rpm", "5", "--budget-usd", "1", "--models", "a"
    )
    assert EPHEMERAL.fullmatch(child["secret"])
    assert (child["ephemeral"], child["parent_id"], child["parent"]) == (True, parent["id"], "ci")
    assert (child["budget_usd"], child["budget_period"], child["rpm"]) == (1, "total", 5)
    shown = house.json("keys", "show", "ci")
    assert [(one["name"], one["status"]) for one in shown["children"]] == [("job 7", "active")]
    (beside,) = house.json("keys", "show", "job 7")["beside"]
    minute = {"limit": 60, "used": 0, "remaining": 60, "resets_at": None}
    limits = {"requests_per_minute": minute}
    assert beside == {"whose": "Its parent, ci", "budget_usd": 5, "spent_usd": 0, "limits": limits}
    assert "rpm" in refused(house, "keys", "ephemeral", "ci", "--rpm", "61")
    assert "rpm" in refused(house, "keys", "ephemeral", "ci", "--rpm", "none")
    assert "models" in refused(house, "keys", "ephemeral", "ci", "--models", "a,c")
    assert "60 to 86400" in refused(house, "keys", "ephemeral", "ci", "--ttl", "2d")
    assert "no children" in refused(house, "keys", "ephemeral", "job 7")
    assert "not rotated" in refused(house, "keys", "rotate", "job 7")
    refused(house, "keys", "ephemeral", code=2)
    refused(house, "keys", "ephemeral", "ci", "--alone", code=2)
    house.cli("keys", "revoke", "ci")
    assert house.json("keys", "show", "job 7")["status"] == "revoked"
    assert "revoked" in refused(house, "keys", "ephemeral", "ci")
    house.cli("keys", "delete", "ci")
    assert not {"ci", "job 7"} & set(names(house))


def test_one_without_a_parent(house: House) -> None:
    alone = house.json("keys", "ephemeral", "--alone", "--ttl", "90s", "--rpm", "3", "--owner", "bob@example.org")
    assert (alone["parent_id"], alone["rpm"], alone["ephemeral"]) == (None, 3, True)
    assert alone["name"].startswith("ephemeral-")


# ---- in plain words -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_day")
def test_a_key_is_told_in_plain_words(gateways: GatewayMaker, upstream: Upstream) -> None:
    """What it may do, what it has used, and what happens next – after real calls."""
    gateway = gateways(allow=[upstream.origin])
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "1000", "--output", "2000")
    gateway.cli("orgs", "edit", "--budget-usd", "100", "--rpd", "5000")
    secret = gateway.create_key(
        "told", "--budget-usd", "50", "--soft-budget-usd", "40", "--rpm", "60", "--rpd", "1000", "--tpm", "90000",
        "--models", _MODEL, "--ip", "127.0.0.0/8", "--expires", "7d", "--metadata", '{"team": "search"}',
    )  # fmt: skip
    other = gateway.create_key("other")
    for one in (secret, secret, secret, other):
        assert gateway.chat(one, _MODEL).status_code == 200
    child = gateway.json("keys", "ephemeral", "told", "--ttl", "15m")
    until(lambda: _requests(gateway) == (3, 1), "the ledger to have it", 10)
    told = gateway.cli("keys", "show", "told").out
    for line in (
        "told (ost_pat_",
        "is active.",
        "Only these models: openai-compatible/ok.",
        "At any provider.",
        "Only from these addresses: 127.0.0.0/8.",
        "team=search",
        "of $50 this month;",
        "It warns at its soft limit of $40.",
        "Somebody is told at 50, 80, 100 %.",
        "Its organization, default: $",
        "Its organization, default: 4 of 5,000 requests today. A call must fit this too.",
        "3 of 60 requests in the last minute.",
        "3 of 1,000 requests today.",
        "of 90,000 tokens in the last minute.",
        "3 requests in the last 30 days, 75.0 % of all.",
        "openai-compatible/ok: 3 requests, $",
        "It expires in 6 days",
        "Its budget begins anew in ",
        "Its requests of the day begin anew in ",
        "Ephemeral keys that end with it: 1.",
        f"{child['name']}, expires in 14 minutes",
    ):
        assert line in told, (line, told)
    assert "It was never used." not in told, "its use is written down later than its calls"
    assert "openai-compatible/ok: 1 request, $" in gateway.cli("keys", "show", "other").out
    assert secret not in told
    shown = gateway.json("keys", "show", "told")
    assert (shown["requests"], shown["share_percent"]) == (3, 75.0)
    assert shown["limits"]["requests_per_day"]["used"] == 3
    called = gateway.client(secret).get("/v1/key").json()
    own, (others,) = called["limits"], called["limits_of_others"]
    for name, window in shown["limits"].items():
        assert (window["limit"], window["used"]) == (own[name]["limit"], own[name]["used"]), "as the caller is told"
    day = shown["beside"][0]["limits"]["requests_per_day"]
    assert (day["limit"], day["used"], day["remaining"]) == (5_000, 4, 4_996)
    assert {name: others["requests_per_day"][name] for name in ("limit", "used", "remaining")} == {
        name: day[name] for name in ("limit", "used", "remaining")
    }
    assert "Its parent, told: 3 of 60 requests in the last minute." in gateway.cli("keys", "show", child["name"]).out
    assert shown["by_model"][0]["requests"] == 3
    assert shown["spent_usd"] == shown["by_model"][0]["cost_usd"] > 0
    (row,) = [key for key in gateway.json("keys", "list") if key["name"] == "told"]
    assert (row["requests"], row["share_percent"], row["spent_usd"]) == (3, 75.0, shown["spent_usd"])
    turned = gateway.json("keys", "rotate", "told", "--overlap", "24h")
    assert f"The old secret {shown['preview']} stops in 23 hours." in gateway.cli("keys", "show", "told").out
    assert turned["secret"] not in gateway.cli("keys", "show", "told").out
    gateway.cli("keys", "revoke", "told")
    assert "is revoked." in gateway.cli("keys", "show", "told").out
    assert "It is a child of told. " in gateway.cli("keys", "show", child["name"]).out


def _requests(gateway: Gateway) -> tuple[int, ...]:
    found = {key["name"]: key["requests"] for key in gateway.json("keys", "list")}
    return found["told"], found["other"]


# ---- organizations and members --------------------------------------------------------------------------------------


def test_when_a_key_was_last_used_is_written_now_and_then(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], clock=True)
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret = gateway.create_key("caller")

    def used() -> str | None:
        at: str | None = gateway.json("keys", "show", "caller")["last_used_at"]
        return at

    assert used() is None
    assert "It was never used." in gateway.cli("keys", "show", "caller").out
    assert gateway.chat(secret, _MODEL).status_code == 200
    gateway.shift(31)
    until(lambda: used() is not None, "the first mark", 10)
    first = used()
    assert gateway.chat(secret, _MODEL).status_code == 200
    gateway.shift(62)
    until(lambda: used() != first, "the second", 10)
    assert (used() or "") > (first or "")
    second = used()
    begun, marks = time.monotonic(), {second}
    for ahead in range(64, 76, 2):
        assert gateway.chat(secret, _MODEL).status_code == 200
        gateway.shift(ahead)
        marks.add(used())
    passed_s = time.monotonic() - begun + 12
    assert len(marks) - 1 <= passed_s // 30 + 1, "a key in use is not written down all the time"
    gateway.stop()
    assert (used() or "") > (second or ""), "and when it ends"
    assert "Last used" in gateway.cli("keys", "show", "caller").out


def test_an_organization_is_edited_and_shown(fresh: House) -> None:
    fresh.cli("orgs", "create", "Rules")
    edited = fresh.json(
        "orgs", "edit", "Rules", "--budget-usd", "100", "--soft-budget-usd", "80", "--rpm", "600", "--tpm", "1000000",
        "--parallel", "50", "--max-lifetime", "30d", "--revocation-is-final", "--trace-days", "90",
        "--content-days", "2w", "--allow-unpriced",
    )  # fmt: skip
    expected = {
        "budget_usd": 100,
        "soft_budget_usd": 80,
        "spent_usd": 0,
        "remaining_usd": 100,
        "rpm": 600,
        "rpd": None,
        "parallel": 50,
        "max_lifetime": "30 days",
        "revocation_is_final": True,
        "allow_unpriced": True,
        "trace_days": 90,
        "content_days": 14,
    }
    assert {name: edited[name] for name in expected} == expected
    assert fresh.json("orgs", "show", "Rules") == edited == fresh.json("orgs", "show", "--org", "Rules")
    there = ("--org", "Rules")
    assert "30 days" in refused(fresh, "keys", "create", "--name", "x", "--expires", "never", *there)
    fresh.cli("keys", "create", "--name", "x", *there)
    fresh.cli("keys", "revoke", "x", *there)
    assert "final" in refused(fresh, "keys", "activate", "x", *there)
    lifted = fresh.json("orgs", "edit", "Rules", "--max-lifetime", "none", "--revocation-is-not-final", "--name", "Lax")
    assert (lifted["max_lifetime"], lifted["revocation_is_final"], lifted["name"]) == (None, False, "Lax")
    assert fresh.json("keys", "activate", "x", "--org", "Lax")["status"] == "active"
    assert "1 hour" in refused(fresh, "orgs", "edit", "Lax", "--max-lifetime", "5m")
    assert "'default' already" in refused(fresh, "orgs", "edit", "Lax", "--name", "default")
    refused(fresh, "orgs", "edit", "Lax", code=2)
    refused(fresh, "orgs", "show", "Lax", "--org", "Lax", code=2)
    assert "no such organization" in refused(fresh, "orgs", "show", "nowhere")


def test_who_leaves_takes_no_key_along(fresh: House) -> None:
    fresh.cli("orgs", "create", "Leavers")
    there = ("--org", "Leavers")
    fresh.cli("members", "add", "carol@example.org", "--role", "owner", *there)
    fresh.cli("members", "add", "dave@example.org", *there)
    fresh.create_key("dave's", "--owner", "dave@example.org", *there)
    fresh.create_key("kept", "--owner", "dave@example.org", *there)
    fresh.cli("keys", "edit", "kept", "--owner", "carol@example.org", *there)
    removed = fresh.json("members", "remove", "dave@example.org", *there)
    assert [key["name"] for key in removed["revoked_keys"]] == ["dave's"]
    status = {key["name"]: key["status"] for key in fresh.json("keys", "list", *there)}
    assert status == {"dave's": "revoked", "kept": "active"}
    assert "has left" in refused(fresh, "keys", "activate", "dave's", *there)
    assert "last owner" in refused(fresh, "members", "remove", "carol@example.org", *there)
    assert "no such member" in refused(fresh, "members", "remove", "dave@example.org", *there)


def test_operators_are_made_by_the_operator(fresh: House) -> None:
    fresh.cli("members", "add", "alice@example.org", "--role", "owner")
    gateways_key = ("keys", "create", "--scopes", "admin:gateways:write", "--owner", "alice@example.org", "--name")
    assert "does not reach" in refused(fresh, *gateways_key, "too early")
    assert fresh.json("members", "operator", "alice@example.org")["is_operator"] is True
    fresh.cli(*gateways_key, "runs it")
    assert fresh.json("members", "operator", "alice@example.org", "--off")["is_operator"] is False
    assert "no user" in refused(fresh, "members", "operator", "nobody@example.org")
