"""The other nouns of the admin API: organizations, members, webhooks, notifications, gateways, settings, usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.bureau import Bureau, code, fields
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.waiting import until


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        yield Bureau(maker(allow=["http://127.0.0.1:9"], env={"OSTIARY_MAIL_FROM": "door@example.org"})).open()


# ---- organizations ----------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_an_organization_shows_and_changes_its_rules(bureau: Bureau) -> None:
    path = f"/organizations/{bureau.home}"
    wish = {"rpm": 500, "tpm": 10_000, "trace_days": 90, "max_lifetime_s": 86_400 * 60, "allow_unpriced": True}
    edited = bureau.done("erin", "PATCH", path, json=wish)
    assert {name: edited[name] for name in wish} == wish
    lifted = bureau.done("erin", "PATCH", path, json={"rpm": None, "max_lifetime_s": None})
    assert (lifted["rpm"], lifted["max_lifetime_s"], lifted["tpm"]) == (None, None, 10_000)
    assert bureau.done("alice", "GET", path) == lifted
    assert bureau.done("alice", "GET", f"/organizations/{lifted['client_id']}") == lifted
    bureau.done("erin", "PATCH", path, json={"tpm": None, "trace_days": None, "allow_unpriced": False})


def test_an_organization_forbids_that_content_is_kept(bureau: Bureau) -> None:
    path = f"/organizations/{bureau.home}"
    key = f"/agent-keys/{bureau.key(capture=True)['id']}"
    assert bureau.done("alice", "GET", key)["content_is_captured"]
    assert code(bureau.ask("bob", "PATCH", path, json={"capture_is_forbidden": False})) == "insufficient_scope"
    assert bureau.done("erin", "PATCH", path, json={"capture_is_forbidden": True})["capture_is_forbidden"]
    shown = bureau.done("alice", "GET", key)
    assert (shown["capture"], shown["content_is_captured"]) == (True, False)
    refused = bureau.ask("alice", "POST", "/agent-keys", json={"name": bureau.name(), "capture": True})
    assert (refused.status_code, fields(refused)) == (422, {"capture"})
    assert not bureau.done("erin", "PATCH", path, json={"capture_is_forbidden": False})["capture_is_forbidden"]
    assert bureau.done("alice", "GET", key)["content_is_captured"]


def test_its_budget_is_the_owners_to_set(bureau: Bureau) -> None:
    path = f"/organizations/{bureau.home}"
    wish = {"budget": {"limit_usd": "100", "soft_usd": "80", "thresholds": [50, 90]}}
    assert code(bureau.ask("erin", "PATCH", path, json=wish)) == "insufficient_scope"
    edited = bureau.done("alice", "PATCH", path, json=wish)
    assert edited["budget"]["limit_usd"] == "100"
    assert edited["budget"]["thresholds"] == [50, 90]
    merged = bureau.done("alice", "PATCH", path, json={"budget": {"soft_usd": None}})["budget"]
    assert merged == {**edited["budget"], "soft_usd": None}, "what is not named stays, the hard limit above all"
    assert bureau.done("alice", "PATCH", path, json={"budget": None})["budget"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"rpm": 0}, {"trace_days": 0}, {"max_lifetime_s": 10}, {"revocation_is_final": "yes"}),
        *({"capture_is_forbidden": None}, {"capture_is_forbidden": 1}),
        *({"name": ""}, {"client_id": "org_x"}, {"id": "x"}, {"budget": {"limit_usd": "1", "soft_usd": "2"}}),
    ],
    ids=str,
)
def test_a_rule_out_of_range_is_refused(bureau: Bureau, wrong: dict[str, Any]) -> None:
    answer = bureau.ask("alice", "PATCH", f"/organizations/{bureau.home}", json=wrong)
    assert answer.status_code == 422
    assert fields(answer) == set(wrong)


def test_a_rule_counts_for_keys_at_once(bureau: Bureau) -> None:
    path = f"/organizations/{bureau.home}"
    bureau.done("alice", "PATCH", path, json={"revocation_is_final": True, "max_lifetime_s": 86_400})
    made = bureau.key()
    bureau.done("alice", "POST", f"/agent-keys/{made['id']}/revoke")
    assert code(bureau.ask("alice", "POST", f"/agent-keys/{made['id']}/activate")) == "conflict"
    forever = bureau.ask("alice", "POST", "/agent-keys", json={"name": bureau.name(), "expires_at": None})
    assert fields(forever) == {"expires_at"}
    bureau.done("alice", "PATCH", path, json={"revocation_is_final": False, "max_lifetime_s": None})


def test_an_operator_makes_an_organization(bureau: Bureau) -> None:
    name = bureau.name("Org")
    made = bureau.done("olga", "POST", "/organizations", json={"name": name})
    assert made["client_id"].startswith("org_")
    [found] = bureau.done("olga", "GET", "/organizations", params={"search": name})["data"]
    assert found == made
    assert fields(bureau.ask("olga", "POST", "/organizations", json={"name": name})) == {"name"}


# ---- members ----------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_a_member_comes_rises_and_goes_with_their_keys(bureau: Bureau) -> None:
    email = f"{bureau.name('new')}@example.org"
    made = bureau.done("erin", "POST", "/members", json={"email": email.upper(), "name": "New"})
    assert (made["email"], made["role"]) == (email, "member")
    assert bureau.done("alice", "PATCH", f"/members/{email}", json={"role": "admin"})["role"] == "admin"
    key = bureau.key(owner_id=made["id"])
    bureau.done("erin", "DELETE", f"/members/{made['id']}")
    assert bureau.done("alice", "GET", f"/agent-keys/{key['id']}")["status"] == "revoked"
    assert code(bureau.ask("alice", "PATCH", f"/members/{made['id']}", json={"role": "member"})) == "not_found"


def test_roles_are_the_owners_to_give(bureau: Bureau) -> None:
    wish = {"email": f"{bureau.name('boss')}@example.org", "role": "owner"}
    assert code(bureau.ask("erin", "POST", "/members", json=wish)) == "insufficient_scope"
    bob = bureau.user_id("bob")
    assert code(bureau.ask("erin", "PATCH", f"/members/{bob}", json={"role": "owner"})) == "insufficient_scope"
    assert code(bureau.ask("bob", "PATCH", f"/members/{bob}", json={"role": "owner"})) == "insufficient_scope"
    alice = bureau.user_id("alice")
    assert code(bureau.ask("erin", "DELETE", f"/members/{alice}")) == "insufficient_scope"


def test_the_last_owner_stays(bureau: Bureau) -> None:
    alice = bureau.user_id("alice")
    assert code(bureau.ask("alice", "PATCH", f"/members/{alice}", json={"role": "member"})) == "conflict"
    assert code(bureau.ask("alice", "DELETE", f"/members/{alice}")) == "conflict"


@pytest.mark.parametrize("wrong", [{"email": "nobody"}, {"email": "a b@c"}, {"email": "a@b.c", "role": "god"}, {}])
def test_a_member_that_cannot_be_is_refused(bureau: Bureau, wrong: dict[str, str]) -> None:
    assert bureau.ask("alice", "POST", "/members", json=wrong).status_code == 422


# ---- client credentials -----------------------------------------------------------------------------------------


def test_a_client_credential_works_until_it_is_revoked(bureau: Bureau) -> None:
    made = bureau.done("erin", "POST", "/client-credentials", json={"name": bureau.name("server")})
    bureau.hears(made["secret"])
    revoked = bureau.done("erin", "POST", f"/client-credentials/{made['id']}/revoke")
    assert revoked["status"] == "revoked"
    client = bureau.gateway.client(made["secret"])
    until(lambda: client.get("/v1/key").status_code == 401, "the gateway to hear of it")
    assert code(bureau.ask("erin", "POST", f"/client-credentials/{made['id']}/revoke")) == "conflict"


# ---- webhooks and notifications ---------------------------------------------------------------------------------


def test_a_webhook_shows_its_secret_only_when_it_is_new(bureau: Bureau) -> None:
    wish = {"name": bureau.name("hook"), "url": "http://127.0.0.1:9/a", "kinds": ["budget.exceeded"]}
    made = bureau.done("alice", "POST", "/webhooks", json=wish)
    path = f"/webhooks/{made['id']}"
    assert made["secret"].startswith("whsec_")
    assert "secret" not in bureau.done("alice", "GET", path)
    assert bureau.done("alice", "PATCH", path, json={"is_active": False})["secret"] is None
    renewed = bureau.done("alice", "PATCH", path, json={"new_secret": True})
    assert renewed["secret"] not in {None, made["secret"]}
    bureau.done("alice", "DELETE", path)
    assert code(bureau.ask("alice", "GET", path)) == "not_found"


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/latest", "http://localhost/", "https://10.0.0.1/", "ftp://example.org/", "x"),
        *("https://user:pass@example.org/", "https://[::1]/", "http://127.0.0.1:8/"),
    ],
)
def test_a_webhook_leads_to_no_private_address(bureau: Bureau, url: str) -> None:
    answer = bureau.ask("alice", "POST", "/webhooks", json={"name": bureau.name(), "url": url})
    assert (answer.status_code, fields(answer)) == (422, {"url"})


def test_a_test_is_told_and_listed(bureau: Bureau) -> None:
    wish = {"name": bureau.name("hook"), "url": "http://127.0.0.1:9/"}
    made = bureau.done("alice", "POST", "/webhooks", json=wish)
    told = bureau.done("erin", "POST", f"/webhooks/{made['id']}/test")
    assert [way["channel"] for way in told["deliveries"]] == ["webhook"]
    found = bureau.done("erin", "GET", "/notifications", params={"kind": "test"})["data"]
    assert told["id"] in {one["id"] for one in found}
    assert code(bureau.ask("erin", "GET", "/notifications", params={"kind": "gossip"})) == "invalid_field"
    bureau.done("alice", "DELETE", f"/webhooks/{made['id']}")


# ---- the instance -----------------------------------------------------------------------------------------------


def test_an_operator_sees_the_gateways(bureau: Bureau) -> None:
    [one] = bureau.done("olga", "GET", "/gateways")["data"]
    assert (one["state"], one["leased_usd"]) == ("live", "0")
    assert code(bureau.ask("olga", "POST", f"/gateways/{one['id']}/retire")) == "conflict"


def test_an_organization_sees_what_serves_it_and_nothing_more(bureau: Bureau) -> None:
    [whole] = bureau.done("olga", "GET", "/gateways")["data"]
    seen = {"name", "version", "state", "started_at", "heartbeat_at", "revision", "behind"}
    for who in ("alice", "erin", "dora"):
        [one] = bureau.done(who, "GET", "/gateways/serving")["data"]
        assert set(one) == seen
        assert (one["name"], one["version"], one["state"]) == (whole["name"], whole["version"], "live")
        assert code(bureau.ask(who, "GET", "/gateways")) == "insufficient_scope"
        assert code(bureau.ask(who, "POST", f"/gateways/{whole['id']}/retire")) == "insufficient_scope"
    assert code(bureau.ask("bob", "GET", "/gateways/serving")) == "insufficient_scope"


def test_settings_show_no_secret(bureau: Bureau) -> None:
    found = {one["name"]: one for one in bureau.done("olga", "GET", "/settings")["data"]}
    assert found["mail_from"]["value"] == "door@example.org"
    assert found["data_dir"]["value"] == str(bureau.gateway.data_dir)
    for one in found.values():
        assert not (one["is_secret"] and one["value"]), one["name"]
    assert found["master_key"]["is_secret"]


# ---- usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"by": "colour"}, "by"),
        ({"by": ""}, "by"),
        ({"by": "day,"}, "by"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-11-20T00:00:00"}, "since"),
        ({"limit": 1_001}, "limit"),
    ],
)
def test_usage_is_summed_by_what_there_is(bureau: Bureau, params: dict[str, Any], field: str) -> None:
    assert fields(bureau.ask("alice", "GET", "/usage", params=params)) == {field}


def test_usage_of_nothing_is_nothing(bureau: Bureau) -> None:
    found = bureau.done("alice", "GET", "/usage", params={"since": "2026-01-01T00:00:00+02:00"})
    assert (found["data"], found["is_whole"], found["since"]) == ([], True, "2025-12-31T22:00:00Z")
    assert code(bureau.ask("alice", "GET", "/usage", params={"agent_key": "no such"})) == "not_found"


@pytest.mark.parametrize("params", [{"status": "fine"}, {"min_latency_ms": -1}, {"min_cost_usd": "-1"}, {"until": "x"}])
def test_traces_are_filtered_by_what_there_is(bureau: Bureau, params: dict[str, Any]) -> None:
    assert fields(bureau.ask("alice", "GET", "/traces", params=params)) == set(params)
