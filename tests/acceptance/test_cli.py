"""The commands as people and scripts run them: what they print, what they refuse, and how they end."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from tests.servers.behaviours import chooser, status
from tests.servers.canaries import Canaries
from tests.servers.gateway import OSTIARY, Gateway, GatewayMaker, House
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SECRET = re.compile(r"ost_pat_[0-9A-Za-z]{49}")
TRIPLE = re.compile(r"org_\w{22}:ost_ck_\w{49}:ost_cs_\w{49}")


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> House:
    """One data directory for all tests here; each uses names of its own."""
    return House(tmp_path_factory.mktemp("cli"), canaries, shell, {"OSTIARY_EGRESS_ALLOW": shared_upstream.origin})


@pytest.fixture
def empty(tmp_path: Path, canaries: Canaries, shell: Shell) -> House:
    """A folder in which nothing was ever done."""
    return House(tmp_path, canaries, shell)


@pytest.fixture(autouse=True)
def _any_key_again(shared_upstream: Upstream) -> Iterator[None]:
    yield
    shared_upstream.keys = None
    shared_upstream.choose = chooser(shared_upstream)


def refused(house: House, *words: str, stdin: str | None = None, code: int = 1) -> str:
    """What a command says that does not pass: on standard error, in one go, without a traceback."""
    ran = house.cli(*words, stdin=stdin, check=False)
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err
    assert ran.out == ""
    return ran.err


# ---- agent keys ---------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_a_created_key_shows_its_secret_once(house: House) -> None:
    made = house.json(
        "keys", "create", "--name", "once", "--budget-usd", "2.5", "--rpm", "60", "--rpd", "1000",
        "--models", "gpt-4o,openai/gpt-4o-mini", "--providers", "openai", "--ip", "192.0.2.0/24", "--ip", "::1",
        "--metadata", '{"team": "search"}', "--expires", "12h", "--scopes", "gate:chat", "--free-only",
    )  # fmt: skip
    assert SECRET.fullmatch(made["secret"])
    assert made["preview"] == f"{made['secret'][:12]}…{made['secret'][-4:]}"
    assert made["id"].startswith("key_")
    expected = {
        "name": "once",
        "status": "active",
        "budget_usd": 2.5,
        "budget_period": "month",
        "spent_usd": 0,
        "remaining_usd": 2.5,
        "rpm": 60,
        "rpd": 1000,
        "models": {"mode": "only", "items": ["gpt-4o", "openai/gpt-4o-mini"]},
        "providers": {"mode": "only", "items": ["openai"]},
        "ip": {"mode": "only", "items": ["192.0.2.0/24", "::1/128"]},
        "metadata": {"team": "search"},
        "scopes": ["gate:chat"],
        "free_only": True,
    }
    assert {name: made[name] for name in expected} == expected
    assert ISO.fullmatch(made["expires_at"])
    shown = house.cli("keys", "show", "once", "--json")
    listed = house.cli("keys", "list", "--json")
    assert made["secret"] not in shown.out + listed.out
    assert shown.json.items() >= {name: value for name, value in made.items() if name != "secret"}.items()
    assert made["id"] in [key["id"] for key in listed.json]
    assert house.json("keys", "show", made["id"]) == shown.json


def test_an_edit_changes_what_is_given_and_clears_by_word(house: House) -> None:
    house.create_key("edited", "--budget-usd", "1", "--rpm", "5", "--models", "a,b", "--metadata", '{"a": 1}')
    before = house.json("keys", "show", "edited")
    after = house.json("keys", "edit", "edited", "--name", "renamed", "--rpd", "9")
    changed = {name for name in after.keys() & before.keys() if before[name] != after[name]}
    assert changed <= {"name", "rpd", "updated_at"}
    assert (after["name"], after["rpd"], after["id"]) == ("renamed", 9, before["id"])
    total = house.json("keys", "edit", "renamed", "--budget-period", "total")
    assert (total["budget_usd"], total["budget_period"]) == (1, "total")
    assert house.json("keys", "edit", "renamed", "--budget-usd", "3")["budget_period"] == "total"
    cleared = house.json(
        "keys", "edit", "renamed", "--budget-usd", "none", "--rpm", "none", "--models", "all", "--metadata", "none",
        "--expires", "never", "--providers", "none", "--no-free-only",
    )  # fmt: skip
    assert (cleared["budget_usd"], cleared["remaining_usd"], cleared["rpm"], cleared["expires_at"]) == (None,) * 4
    assert (cleared["models"], cleared["metadata"]) == ({"mode": "all", "items": []}, {})
    assert cleared["providers"] == {"mode": "none", "items": []}
    assert cleared["rpd"] == 9


def test_a_provider_that_is_none_is_not_taken(house: House, tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(
        '[[provider]]\nid = "ours"\nname = "Ours"\ncategories = ["llm"]\nbase_url = "https://ours.example/v1"\n'
        'operations = ["chat"]\n'
    )
    theirs = House(house.folder, house.canaries, house.shell, {**house.env, "OSTIARY_CATALOG_FILE": str(file)})
    refused = house.cli("keys", "create", "--name", "slipped", "--providers", "groq,opnai", check=False)
    assert (refused.code, refused.out) == (1, "")
    assert "There is no provider 'opnai'. Near: openai" in refused.err
    assert house.cli("keys", "show", "slipped", check=False).code == 1

    theirs.create_key("of a row", "--providers", "ours,groq")  # the operator's own file counts
    edited = house.cli("keys", "edit", "of a row", "--providers", "ours,nosuch", check=False)
    assert (edited.code, "There is no provider 'nosuch'." in edited.err) == (1, True)
    # Without the file, what is stored stays as it was; so does what a child is handed on.
    assert house.json("keys", "edit", "of a row", "--rpm", "7")["providers"]["items"] == ["groq", "ours"]
    assert house.json("keys", "edit", "of a row", "--providers", "ours,openai")["providers"]["items"] == [
        "openai",
        "ours",
    ]
    child = house.json("keys", "ephemeral", "of a row")
    house.canaries.watch(child["secret"])
    assert child["providers"]["items"] == ["openai", "ours"]
    refused = house.cli("keys", "ephemeral", "--alone", "--providers", "nosuch", check=False)
    assert (refused.code, "There is no provider 'nosuch'." in refused.err) == (1, True)


def test_a_key_goes_through_its_life(house: House) -> None:
    first = house.create_key("mortal")
    turned = house.json("keys", "rotate", "mortal", "--overlap", "1h")
    assert SECRET.fullmatch(turned["secret"])
    assert turned["secret"] != first
    assert len(turned["previews"]) == 2
    assert house.json("keys", "deactivate", "mortal")["status"] == "inactive"
    assert house.json("keys", "revoke", "mortal")["status"] == "revoked"
    assert "is revoked" in refused(house, "keys", "revoke", "mortal")
    assert house.json("keys", "activate", "mortal")["status"] == "active"
    assert house.json("keys", "delete", "mortal") == {"id": turned["id"], "name": "mortal", "deleted": True}
    assert "no such agent key" in refused(house, "keys", "show", "mortal")


def test_bad_values_of_a_key_are_refused_by_name(house: House) -> None:
    house.create_key("taken")
    assert "'taken' already" in refused(house, "keys", "create", "--name", "taken")
    assert "1 year" in refused(house, "keys", "create", "--name", "x", "--expires", "2y")
    assert "'10.0.0.1/8'" in refused(house, "keys", "create", "--name", "x", "--ip", "10.0.0.1/8")
    assert "admin:keys" in refused(house, "keys", "create", "--name", "x", "--scopes", "admin:keys")
    assert "gate:fly" in refused(house, "keys", "create", "--name", "x", "--scopes", "gate:fly")
    assert "no such member" in refused(house, "keys", "create", "--name", "x", "--owner", "nobody@example.org")
    assert "--budget-usd" in refused(house, "keys", "create", "--name", "x", "--budget-usd", "five", code=2)
    assert "no such agent key" in refused(house, "keys", "edit", "nobody", "--rpm", "1")


def test_tables_for_people_hold_no_secret(house: House) -> None:
    ran = house.cli("keys", "create", "--name", "for people")
    (secret,) = SECRET.findall(ran.out)
    house.canaries.watch(secret)
    table = house.cli("keys", "list").out
    assert "for people" in table
    assert secret not in table + house.cli("keys", "show", "for people").out


# ---- the vault ----------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_a_provider_key_is_tested_sealed_and_never_shown(house: House, shared_upstream: Upstream) -> None:
    secret = house.canaries.plant("sk-")
    shared_upstream.keys = {secret}
    made = house.json(
        "vault",
        "add",
        "vllm",
        "--name",
        "tested",
        "--base-url",
        shared_upstream.url,
        "--secret-stdin",
        stdin=f"{secret}\n",
    )
    assert made["test"]["outcome"] == "valid"
    assert made["id"].startswith("pkey_")
    assert (made["name"], made["provider"], made["base_url"]) == ("tested", "vllm", shared_upstream.url)
    assert made["preview"] == f"{secret[:4]}…{secret[-3:]}"
    assert (made["status"], made["shared"]) == ("healthy", False)
    everything = [house.cli("vault", "show", "tested", "--json"), house.cli("vault", "list", "--json")]
    everything += [house.cli("vault", "show", "tested"), house.cli("vault", "list")]
    assert all(secret not in ran.out + ran.err for ran in everything)
    assert everything[0].json == {name: value for name, value in made.items() if name != "test"}
    tested = house.json("vault", "test", "tested")
    assert (tested["name"], tested["outcome"]) == ("tested", "valid")
    shared_upstream.keys = set()
    failed = house.cli("vault", "test", "tested", "--json", check=False)
    assert (failed.code, failed.json["outcome"]) == (1, "invalid_key")
    assert secret not in failed.out


def test_what_fails_its_test_is_not_saved(house: House, shared_upstream: Upstream) -> None:
    secret = house.canaries.plant()
    shared_upstream.keys = set()
    add = ("vault", "add", "vllm", "--name", "failing", "--base-url", shared_upstream.url, "--secret-stdin")
    said = refused(house, *add, stdin=secret)
    assert "invalid_key" in said
    assert "--no-test" in said
    assert secret not in said
    shared_upstream.keys = None
    shared_upstream.choose = lambda _request: status(500)
    assert "unknown" in refused(house, *add, stdin=secret)
    assert "failing" not in house.cli("vault", "list").out
    kept = house.json(*add, "--no-test", stdin=secret)
    assert kept["test"] is None


def test_a_key_that_looks_otherwise_is_remarked_on_and_taken(house: House, shared_upstream: Upstream) -> None:
    add = ("vault", "add", "groq", "--secret-stdin")
    odd, remark = house.canaries.plant(), "It does not look like a key of Groq: they usually begin with 'gsk_'."
    ran = house.cli(*add, "--name", "odd", "--no-test", "--json", stdin=odd)
    assert (ran.json["name"], remark in ran.err, odd in ran.err) == ("odd", True, False)
    usual = house.canaries.watch("gsk_" + (house.canaries.plant() * 2)[:52])
    assert house.cli(*add, "--name", "usual", "--no-test", stdin=usual).err == ""
    edited = house.cli("vault", "edit", "usual", "--no-test", "--secret-stdin", stdin=odd)
    assert remark in edited.err
    assert house.cli("vault", "edit", "usual", "--priority", "1").err == ""
    shared_upstream.keys = {odd}
    proved = house.cli(*add, "--name", "proved", "--base-url", shared_upstream.url, stdin=odd)
    assert (proved.err, "accepts the key" in proved.out) == ("", True), "what the provider says counts for more"


def test_nothing_goes_to_a_provider_before_the_rest_is_in_order(house: House, shared_upstream: Upstream) -> None:
    secret = house.canaries.plant()
    house.add_provider_key("vllm", "occupied", shared_upstream.url, secret)
    shared_upstream.received.clear()
    add = ("vault", "add", "vllm", "--base-url", shared_upstream.url, "--secret-stdin")
    assert "'occupied' already" in refused(house, *add, "--name", "occupied", stdin=secret)
    assert "no field 'region'" in refused(house, *add, "--name", "x", "--field", "region=eu", stdin=secret)
    assert "blanks" in refused(house, *add, "--name", "x", stdin=f"{secret} {secret}")
    assert shared_upstream.received == []


def test_bad_input_to_the_vault_is_refused(house: House, shared_upstream: Upstream) -> None:
    add = ("vault", "add", "openai", "--name", "x", "--no-test")
    assert "openai" in refused(house, "vault", "add", "opnai", "--name", "x", "--secret-stdin", stdin="k")
    assert "is empty" in refused(house, *add, "--secret-stdin")
    assert "--secret-stdin" in refused(house, *add, code=2)
    assert "longer than" in refused(house, *add, "--secret-stdin", stdin="k" * 70_000)
    assert "OSTIARY_EGRESS_ALLOW" in refused(
        house, *add, "--secret-stdin", "--base-url", "http://127.0.0.1:9/v1", stdin="k"
    )
    assert "--base-url" in refused(
        house, "vault", "add", "openai-compatible", "--name", "x", "--secret-stdin", stdin="k"
    )
    assert "no such provider key" in refused(house, "vault", "show", "nobody")
    assert "no such provider key" in refused(house, "vault", "delete", "nobody", "--force")
    assert shared_upstream.origin not in house.cli("vault", "list").out or "x" not in [
        key["name"] for key in house.json("vault", "list")
    ]


def test_a_provider_key_is_edited_in_place(house: House, shared_upstream: Upstream) -> None:
    house.add_provider_key("openai", "original")
    before = house.json("vault", "show", "original")
    renamed = house.json("vault", "edit", "original", "--name", "edited-key", "--shared")
    assert (renamed["id"], renamed["name"], renamed["shared"]) == (before["id"], "edited-key", True)
    assert renamed["test"] is None
    one = house.json("vault", "edit", "edited-key", "--field", "project=p1", "--no-test")
    assert (one["fields"], one["shared"]) == ({"project": "p1"}, True)
    more = house.json("vault", "edit", "edited-key", "--field", "organization=o1", "--private", "--no-test")
    assert (more["fields"], more["shared"]) == ({"organization": "o1", "project": "p1"}, False)
    assert house.json("vault", "edit", "edited-key", "--field", "project=", "--no-test")["fields"] == {
        "organization": "o1"
    }
    moved = refused(house, "vault", "edit", "edited-key", "--base-url", shared_upstream.url, "--no-test")
    assert "Enter it again" in moved
    new = house.canaries.plant()
    again = house.json("vault", "edit", "edited-key", "--base-url", shared_upstream.url, "--secret-stdin", stdin=new)
    assert (again["base_url"], again["test"]["outcome"]) == (shared_upstream.url, "valid")
    assert [request.key for request in shared_upstream.received if request.key == new] == [new]
    assert "ostiary/fast" in refused(house, "vault", "delete", "edited-key"), "sharing it has made the aliases"
    assert house.json("vault", "delete", "edited-key", "--force")["deleted"]
    assert "no such provider key" in refused(house, "vault", "show", "edited-key")


# ---- organizations, members, credentials, prices ------------------------------------------------------------------


def test_the_organization_is_the_only_one_until_there_are_several(empty: House) -> None:
    house = empty
    (first,) = house.json("orgs", "list")
    assert first["name"] == "default"
    assert re.fullmatch(r"org_\w{22}", first["client_id"])
    house.create_key("of-default")
    made = house.json("orgs", "create", "dora")
    assert made["name"] == "dora"
    assert "dora" in refused(house, "orgs", "create", "--name", "dora")
    said = refused(house, "keys", "list")
    assert "default, dora" in said
    assert "--org" in said
    assert [key["name"] for key in house.json("keys", "list", "--org", "default")] == ["of-default"]
    for name in ("dora", made["id"], made["client_id"]):
        assert house.json("keys", "list", "--org", name) == []
    assert "no such agent key" in refused(house, "keys", "show", "of-default", "--org", "dora")
    assert "no such organization" in refused(house, "keys", "list", "--org", "charlie")
    assert [one["name"] for one in house.json("orgs", "list", "--org", "dora")] == ["dora"]


def test_members_have_roles_and_the_last_owner_stays(house: House) -> None:
    alice = house.json("members", "add", "Alice@Example.org", "--name", "Alice", "--role", "owner")
    assert (alice["email"], alice["role"], alice["name"]) == ("alice@example.org", "owner", "Alice")
    assert house.json("members", "add", "--email", "bob@example.org")["role"] == "member"
    assert "last owner" in refused(house, "members", "role", "alice@example.org", "member")
    assert house.json("members", "role", "bob@example.org", "owner")["role"] == "owner"
    assert house.json("members", "role", "alice@example.org", "--role", "admin")["role"] == "admin"
    assert "owner, admin or member" in refused(house, "members", "role", "bob@example.org", "king")
    assert "such as" in refused(house, "members", "add", "not an address")
    assert {one["email"]: one["role"] for one in house.json("members", "list")} == {
        "alice@example.org": "admin",
        "bob@example.org": "owner",
    }
    made = house.json("keys", "create", "--name", "bobs", "--owner", "bob@example.org")
    assert made["owner_id"] == next(one["id"] for one in house.json("members", "list") if one["name"] == "bob")


def test_a_client_credential_is_a_triple_shown_once(house: House) -> None:
    made = house.json("credentials", "create", "--name", "backend")
    assert TRIPLE.fullmatch(made["secret"])
    assert made["id"].startswith("cred_")
    assert (made["status"], made["name"]) == ("active", "backend")
    listed = house.cli("credentials", "list", "--json")
    assert made["secret"] not in listed.out
    assert [one["preview"] for one in listed.json] == [made["preview"]]
    assert "already" in refused(house, "credentials", "create", "backend")
    assert house.json("credentials", "revoke", "backend")["status"] == "revoked"
    assert "revoked already" in refused(house, "credentials", "revoke", "backend")
    assert "no such client credential" in refused(house, "credentials", "revoke", "nobody")


def test_prices_are_set_and_shown_exactly(house: House) -> None:
    assert house.json("prices", "show") == []
    published = house.json("prices", "show", "openai/gpt-4o-mini")
    assert published["version"].startswith("genai-prices")
    made = house.cli(
        "prices", "set", "openai/gpt-4o-mini", "--input", "0.123456789", "--output", "2", "--request", "0.01", "--json"
    )
    (step,) = json.loads(made.out, parse_float=Decimal)["steps"]
    assert (step["input"], step["output"], step["request"]) == (Decimal("0.123456789"), 2, Decimal("0.01"))
    assert [one["model"] for one in house.json("prices", "show")] == ["gpt-4o-mini"]
    assert house.json("prices", "show", "openai/gpt-4o-mini") == made.json
    assert house.json("prices", "show", "openai/no-such-model")["steps"] == []
    assert "openai" in refused(house, "prices", "set", "opnai/x", "--input", "1", "--output", "1")
    assert "PROVIDER/MODEL" in refused(house, "prices", "set", "gpt", "--input", "1", "--output", "1")
    assert "million" in refused(house, "prices", "set", "openai/x", "--input", "200000000", "--output", "1")


# ---- usage and traces ---------------------------------------------------------------------------------------------


def test_usage_and_traces_of_nothing_are_empty(house: House) -> None:
    assert house.json("traces") == house.json("usage", "--since", "1h") == []
    assert "no call" in house.cli("traces").out
    assert "Nothing was called" in house.cli("usage").out
    assert "no such agent key" in refused(house, "traces", "--key", "nobody")


@pytest.mark.usefixtures("one_day")
@pytest.mark.main_job
def test_what_was_called_is_in_traces_and_usage(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", "openai-compatible/ok", "--input", "1", "--output", "2")
    secret, other = gateway.create_key("busy", "--budget-usd", "1"), gateway.create_key("idle")
    until(lambda: gateway.chat(other, "openai-compatible/ok").status_code == 200, "the gateway has heard")
    for _ in range(2):
        assert gateway.chat(secret, "openai-compatible/ok").status_code == 200
    until(lambda: len(gateway.json("traces", "--key", "busy")) == 2, "the ledger has the calls")
    found = gateway.json("traces")
    newest = found[0]
    assert newest.keys() >= {
        "request_id", "attempt", "agent_key", "model", "status", "tokens", "cost_usd", "usage_source"
    }  # fmt: skip
    assert [trace["at"] for trace in found] == sorted((trace["at"] for trace in found), reverse=True)
    assert (newest["agent_key"], newest["attempt"], newest["status"]) == ("busy", 1, "ok")
    assert (newest["tokens"]["input"], newest["tokens"]["output"]) == (11, 7)
    assert newest["cost_usd"] == pytest.approx(0.000025)
    assert newest["usage_source"] == "provider"
    assert gateway.json("traces", "--limit", "1") == [newest]
    assert len(gateway.json("traces", "--limit", "0")) == len(found)
    assert {trace["agent_key"] for trace in gateway.json("traces", "--key", "idle")} == {"idle"}
    rows = {row["agent_key"]: row for row in gateway.json("usage")}
    assert rows["busy"]["requests"] == 2
    assert rows["busy"]["cost_usd"] == pytest.approx(0.00005)
    assert (rows["busy"]["tokens"]["input"], rows["busy"]["provider"]) == (22, "openai-compatible")
    assert gateway.json("keys", "show", "busy")["spent_usd"] == pytest.approx(0.00005)
    assert "busy" in gateway.cli("traces").out
    assert "Cost of all: $" in gateway.cli("usage", "--key", "busy").out
    gateway.cli("keys", "delete", "busy")
    assert len(gateway.json("traces", "--key", "busy")) == 2


# ---- settings, master key, doctor, serve --------------------------------------------------------------------------


def test_the_first_command_makes_a_private_folder_and_key(empty: House, tmp_path: Path) -> None:
    house = empty
    first, second = house.cli("orgs", "list"), house.cli("orgs", "list")
    assert "Back it up" in first.err
    assert second.err == ""
    assert stat.S_IMODE((house.data_dir / "master.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(house.data_dir.stat().st_mode) == 0o700
    elsewhere = tmp_path / "elsewhere"
    house.cli("orgs", "create", "x", "--data-dir", str(elsewhere))
    assert (elsewhere / "ostiary.db").exists()
    assert len(house.json("orgs", "list")) == 1


def test_what_keeps_from_starting_is_said_in_one_line(empty: House, tmp_path: Path) -> None:
    house = empty
    house.env = {"OSTIARY_DATABSE_URL": "x"}
    assert "OSTIARY_DATABASE_URL" in refused(house, "keys", "list")
    house.env = {"OSTIARY_DATABASE_URL": f"sqlite:///{tmp_path}/own.db"}
    assert "OSTIARY_MASTER_KEY" in refused(house, "keys", "list")
    assert not (tmp_path / "own.db").exists()
    house.env = {"OSTIARY_MASTER_KEY": "short"}
    assert "too short" in refused(house, "keys", "list")
    house.env = {"OSTIARY_DATABASE_URL": "mysql://x"}
    assert "postgresql://" in refused(house, "keys", "list")
    house.env = {}
    assert "cannot be read" in refused(house, "serve", "--config", str(tmp_path / "none.toml"))
    assert "cannot be made" in refused(house, "orgs", "list", "--data-dir", "/dev/null/x")


def test_the_doctor_finds_what_is_wrong(empty: House, upstream: Upstream) -> None:
    house = empty
    house.env["OSTIARY_EGRESS_ALLOW"] = upstream.origin
    assert house.json("doctor")["ok"]
    assert not house.data_dir.exists()
    secret = house.add_provider_key("vllm", "good", upstream.url)
    house.add_provider_key("vllm", "bad", upstream.url)
    upstream.keys = {secret}
    found = {check["name"]: check for check in house.json("doctor")["checks"]}
    assert (found["database"]["status"], found["master key"]["status"]) == ("ok", "ok")
    assert found["provider key good"]["status"] == "ok"
    assert found["provider key bad"]["status"] == "warning"
    assert "invalid_key" in found["provider key bad"]["message"]
    assert "provider key bad" in house.cli("doctor").out
    key = house.data_dir / "master.key"
    key.chmod(0o644)
    ran = house.cli("doctor", "--json", check=False)
    assert (ran.code, ran.json["ok"]) == (1, False)
    assert any("master.key" in check["message"] for check in ran.json["checks"] if check["status"] == "failed")
    house.env["OSTIARY_PROT"] = "1"
    ran = house.cli("doctor", "--json", check=False)
    assert (ran.code, ran.json["checks"][0]["name"], ran.json["checks"][0]["status"]) == (1, "settings", "failed")


def test_one_gateway_serves_a_folder_and_a_port(gateways: GatewayMaker) -> None:
    first = gateways()
    assert f"process {first.process.pid if first.process else 0}" in refused(first, "serve", "--port", "0")
    other = House(first.folder, first.canaries, first.shell, {"OSTIARY_DATA_DIR": str(first.folder / "other")})
    assert "Choose another by --port" in refused(other, "serve", "--port", str(first.port))
    assert first.stop() == 0


def outside(house: House, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The installed program in a shell line, from its start."""
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("ostiary", str(OSTIARY))],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=house.environment(),
        cwd=house.folder,
        check=False,
    )


def test_the_installed_program_is_what_the_tests_run(house: House) -> None:
    made = outside(house, "ostiary keys create --name from-a-shell --json")
    assert made.returncode == 0
    house.canaries.watch(json.loads(made.stdout)["secret"])
    assert house.json("keys", "show", "from-a-shell")["id"] == json.loads(made.stdout)["id"]
    assert outside(house, "ostiary keys show nobody").returncode == 1
    assert outside(house, "ostiary keys nonsense").returncode == 2


def test_a_pipe_that_closes_early_ends_quietly(house: House) -> None:
    ran = outside(house, "(ostiary keys list --json; echo $? >code) | head -c 1")
    assert "Traceback" not in ran.stderr
    assert ran.stdout == "["
    assert (house.folder / "code").read_text().strip() in {"0", "1"}


def test_a_secret_is_asked_for_without_showing_it(house: House) -> None:
    secret = house.canaries.plant()
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [OSTIARY, "vault", "add", "openai", "--name", "asked", "--no-test"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=house.environment(),
        cwd=house.folder,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"API key of OpenAI: " not in shown:  # and before it, what such keys look like
            shown += os.read(ours, 1_000)
        os.write(ours, f"{secret}\n".encode())
        assert process.wait(30) == 0
        with suppress(OSError):  # how Linux says that the other end is closed
            while piece := os.read(ours, 1_000):
                shown += piece
        os.close(ours)
    assert secret.encode() not in shown
    assert b"Keys of OpenAI usually begin with 'sk-'." in shown
    assert house.json("vault", "show", "asked")["preview"] == f"{secret[:4]}…{secret[-3:]}"


@pytest.mark.main_job
def test_commands_work_on_postgresql(empty: House, postgres_url: str) -> None:
    house = empty
    master = base64.urlsafe_b64encode(os.urandom(32)).decode()
    house.env = {"OSTIARY_DATABASE_URL": postgres_url, "OSTIARY_MASTER_KEY": house.canaries.watch(master)}
    made = house.json("keys", "create", "--name", "on-postgres", "--budget-usd", "1")
    assert house.json("keys", "edit", "on-postgres", "--rpm", "3")["id"] == made["id"]
    house.add_provider_key("openai", "kept")
    assert [key["status"] for key in house.json("vault", "list")] == ["healthy"]
    assert house.json("prices", "set", "openai/x", "--input", "1", "--output", "1") in house.json("prices", "show")
    assert house.json("usage") == house.json("traces") == []
    assert "postgresql" in next(one["message"] for one in house.json("doctor")["checks"] if one["name"] == "database")
    house.env["OSTIARY_MASTER_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()
    assert "master key" in refused(house, "keys", "list")
