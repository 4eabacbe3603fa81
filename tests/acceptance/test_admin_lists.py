"""Lists of the admin API: pages that neither repeat nor lose, searched, filtered and sorted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.bureau import Bureau, code, fields
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

NAMES = [f"{letter}{number}" for letter in "abc" for number in range(4)]


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    """With twelve keys that are called `a0` to `c3`: those of `b` are Bob's, `c0` is stopped and `c1` revoked."""
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        bureau = Bureau(maker()).open()
        bob = bureau.user_id("bob")
        for name in NAMES:
            owner = {"owner_id": bob} if name.startswith("b") else {}
            bureau.done("alice", "POST", "/agent-keys", json={"name": f"listed {name}", **owner})
        bureau.done("alice", "POST", "/agent-keys/listed c0/deactivate")
        bureau.done("alice", "POST", "/agent-keys/listed c1/revoke")
        yield bureau


def walk(bureau: Bureau, who: str, path: str, **params: Any) -> list[dict[str, Any]]:
    """All pages, one after another."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = bureau.done(who, "GET", path, params={**params, **cursor})
        assert len(page["data"]) <= params.get("limit", 50)
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("direction", ["ascending", "descending"])
@pytest.mark.parametrize("sort", ["created_at", "name", "owner", "status", "requests"])
@pytest.mark.parametrize("limit", [1, 5, 12, 200])
def test_pages_hold_everything_once_in_order(bureau: Bureau, sort: str, direction: str, limit: int) -> None:
    found = walk(bureau, "alice", "/agent-keys", search="listed", sort=sort, direction=direction, limit=limit)
    names = [key["name"].removeprefix("listed ") for key in found]
    assert sorted(names) == NAMES
    emails = {bureau.user_id("alice"): "alice", bureau.user_id("bob"): "bob"}
    values = [emails[key["owner_id"]] if sort == "owner" else key[sort] for key in found]
    assert values == sorted(values, reverse=direction == "descending")


def test_what_is_added_meanwhile_moves_no_page(bureau: Bureau) -> None:
    first = bureau.done("alice", "GET", "/agent-keys", params={"search": "listed", "sort": "name", "limit": 4})
    made = bureau.done("alice", "POST", "/agent-keys", json={"name": "listed a00"})
    params = {"search": "listed", "sort": "name", "limit": 4, "cursor": first["next_cursor"]}
    second = bureau.done("alice", "GET", "/agent-keys", params=params)
    assert [key["name"] for key in second["data"]] == [f"listed b{number}" for number in range(4)]
    bureau.done("alice", "DELETE", f"/agent-keys/{made['id']}")


@pytest.mark.main_job
@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"status": "inactive"}, ["c0"]),
        ({"status": "revoked"}, ["c1"]),
        ({"search": "listed b"}, ["b0", "b1", "b2", "b3"]),
        ({"search": "LISTED B2"}, ["b2"]),
        ({"search": "listed %"}, []),
        ({"search": "listed _2"}, []),
        ({"search": "listed", "status": "active", "sort": "name", "limit": "2"}, ["a0", "a1"]),
    ],
)
def test_a_list_is_searched_and_filtered(bureau: Bureau, params: dict[str, str], expected: list[str]) -> None:
    found = bureau.done("alice", "GET", "/agent-keys", params={"search": "listed", **params})["data"]
    assert sorted(key["name"].removeprefix("listed ") for key in found) == expected


def test_a_key_is_found_by_its_preview_and_by_its_owner(bureau: Bureau) -> None:
    one = bureau.done("alice", "GET", "/agent-keys/listed a2")
    for sought in (one["preview"].removeprefix("ost_pat_"), one["preview"][-4:]):
        found = bureau.done("alice", "GET", "/agent-keys", params={"search": sought})["data"]
        assert one["id"] in {key["id"] for key in found}
    bobs = bureau.done("alice", "GET", "/agent-keys", params={"owner_id": bureau.user_id("bob")})["data"]
    assert {key["name"] for key in bobs} >= {"listed b0", "listed b3"}
    assert {key["owner_id"] for key in bobs} == {bureau.user_id("bob")}


def test_a_member_lists_their_own(bureau: Bureau) -> None:
    found = walk(bureau, "bob", "/agent-keys", limit=2)
    assert {key["owner_id"] for key in found} == {bureau.user_id("bob")}
    assert {key["name"] for key in found} >= {f"listed b{number}" for number in range(4)}
    alices = {"owner_id": bureau.user_id("alice")}
    assert bureau.done("bob", "GET", "/agent-keys", params=alices)["data"] == []


LISTS = ("/agent-keys", "/client-credentials", "/members", "/audit", "/notifications", "/webhooks", "/traces")


@pytest.mark.parametrize("path", [*LISTS, "/organizations", "/gateways"])
@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 201}, {"limit": "x"}, {"page": 1}, {"cursor": "x" * 2_000}])
def test_what_a_list_does_not_take_is_refused(bureau: Bureau, path: str, params: dict[str, Any]) -> None:
    answer = bureau.ask("olga", "GET", path, params=params)
    assert answer.status_code == 422
    assert fields(answer) == set(params)


def test_a_parameter_stands_once(bureau: Bureau) -> None:
    answer = bureau.ask("alice", "GET", "/agent-keys?limit=1&limit=2")
    assert (answer.status_code, fields(answer)) == (422, {"limit"})


def forged(*said: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "!!!!",
        "ä",
        forged(),
        forged("name ascending"),
        forged("name ascending", 5, "key_1"),
        forged("name ascending", ["a"], "key_1"),
        forged("name ascending", "a", "key_1", "more"),
        forged("name descending", "a", "key_1"),
        forged("created_at ascending", "a", "key_1"),
        forged("name ascending", None, None),
        base64.urlsafe_b64encode(b"[" * 600).decode(),
    ],
)
def test_a_cursor_of_ones_own_making_is_refused(bureau: Bureau, cursor: str) -> None:
    answer = bureau.ask("alice", "GET", "/agent-keys", params={"sort": "name", "cursor": cursor})
    assert (answer.status_code, fields(answer)) == (422, {"cursor"})


def test_a_cursor_leads_nowhere_else(bureau: Bureau) -> None:
    """It only says where to go on; whose keys they are is judged as ever."""
    page = bureau.done("alice", "GET", "/agent-keys", params={"limit": 1})
    found = bureau.done("dora", "GET", "/agent-keys", params={"limit": 200, "cursor": page["next_cursor"]})["data"]
    assert {key["name"] for key in found} <= {"dora's"}


def test_members_and_credentials_come_in_pages(bureau: Bureau) -> None:
    for number in range(5):
        bureau.done("alice", "POST", "/client-credentials", json={"name": f"listed {number}"})
    found = walk(bureau, "alice", "/client-credentials", search="listed", limit=2)
    assert [one["name"] for one in found] == [f"listed {number}" for number in range(5)]
    bureau.done("alice", "POST", f"/client-credentials/{found[0]['id']}/revoke")
    revoked = walk(bureau, "alice", "/client-credentials", status="revoked")
    assert [one["id"] for one in revoked] == [found[0]["id"]]
    members = walk(bureau, "alice", "/members", sort="role", limit=1)
    assert [one["role"] for one in members][:2] == ["owner", "admin"]
    assert {one["email"] for one in members} == {f"{name}@example.org" for name in ("alice", "erin", "bob", "olga")}


def test_the_audit_log_comes_in_pages_newest_first(bureau: Bureau) -> None:
    found = walk(bureau, "alice", "/audit", limit=7)
    assert [row["seq"] for row in found] == sorted((row["seq"] for row in found), reverse=True)
    assert len(found) == len({row["seq"] for row in found}) > 14
    created = walk(bureau, "alice", "/audit", deed="agent_keys.create", actor=bureau.user_id("alice"), limit=5)
    assert {row["deed"] for row in created} == {"agent_keys.create"}
    newest = found[0]["at"]
    assert walk(bureau, "alice", "/audit", since=newest)
    assert walk(bureau, "alice", "/audit", until="2020-01-01T00:00:00Z") == []


def test_a_foreign_organization_lists_nothing_of_ours(bureau: Bureau) -> None:
    found = json.dumps([walk(bureau, "dora", path) for path in LISTS])
    assert "listed" not in found
    assert bureau.home not in found
    for path in LISTS:
        said = [bureau.ask("dora", "GET", path, params={"organization": one}) for one in (bureau.home, "no such")]
        assert [code(answer) for answer in said] == ["not_found"] * 2
        assert len({answer.content.replace(answer.headers["x-request-id"].encode(), b"") for answer in said}) == 1


def test_an_operator_reaches_every_organization(bureau: Bureau) -> None:
    names = {one["name"] for one in walk(bureau, "olga", "/organizations", limit=1)}
    assert "Elsewhere" in names
    for sought in (bureau.elsewhere, "Elsewhere"):
        found = walk(bureau, "olga", "/members", organization=sought)
        assert [one["email"] for one in found] == ["dora@example.org"]
    assert code(bureau.ask("olga", "GET", "/members", params={"organization": "no such"})) == "not_found"
