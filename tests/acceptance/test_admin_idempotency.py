"""A write that is sent twice is done once, whoever is in a hurry, and its secret is shown once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.bureau import Bureau, code, fields
from tests.servers.canaries import Canaries
from tests.servers.gateway import GatewayMaker, making
from tests.servers.shell import Shell

_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        yield Bureau(maker()).open()


def under(key: str) -> dict[str, str]:
    return {"idempotency-key": key}


def count(bureau: Bureau, name: str) -> int:
    """Keys of that name, dead ones too."""
    return len(bureau.done("alice", "GET", "/agent-keys", params={"search": name})["data"])


@pytest.mark.main_job
def test_the_same_again_gives_the_same_answer_without_the_secret(bureau: Bureau) -> None:
    wish = {"name": bureau.name("twice"), "metadata": {"ratio": 0.1, "secret": "not one"}}
    first = bureau.ask("alice", "POST", "/agent-keys", json=wish, headers=under("one"))
    again = bureau.ask("alice", "POST", "/agent-keys", json=wish, headers=under("one"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    made = first.json()
    secret = made.pop("secret")
    assert again.json() == made
    assert count(bureau, wish["name"]) == 1  # type: ignore[arg-type]
    with bureau.database() as database:
        [(kept,)] = database.execute("SELECT answer FROM idempotency WHERE key = 'one'").fetchall()
    assert json.loads(kept) == made
    assert secret not in kept


def test_another_request_under_the_same_key_is_refused(bureau: Bureau) -> None:
    name = bureau.name("other")
    made = bureau.done("alice", "POST", "/agent-keys", json={"name": name}, headers=under("two"))
    for method, path, body in (
        ("POST", "/agent-keys", {"name": bureau.name()}),
        ("POST", "/agent-keys", {"name": name, "rpm": 1}),
        ("POST", f"/agent-keys/{made['id']}/revoke", {}),
        ("PATCH", f"/agent-keys/{made['id']}", {"name": name}),
        ("POST", f"/agent-keys?organization={bureau.home}", {"name": name}),
    ):
        answer = bureau.ask("alice", method, path, json=body, headers=under("two"))
        assert (answer.status_code, code(answer)) == (409, "conflict"), path
    assert bureau.done("alice", "GET", f"/agent-keys/{made['id']}")["status"] == "active"


def test_a_key_is_its_holders_own(bureau: Bureau) -> None:
    """Somebody else under the same key is somebody else."""
    answers = [
        bureau.ask(who, "POST", "/agent-keys", json={"name": bureau.name()}, headers=under("shared"))
        for who in ("alice", "erin", "bob", "dora")
    ]
    assert [answer.status_code for answer in answers] == [201] * 4
    assert not any("idempotency-replayed" in answer.headers for answer in answers)


def test_what_failed_may_be_tried_again(bureau: Bureau) -> None:
    name = bureau.name("taken")
    bureau.done("alice", "POST", "/agent-keys", json={"name": name})
    wish = {"json": {"name": name}, "headers": under("three")}
    assert bureau.ask("alice", "POST", "/agent-keys", **wish).status_code == 409
    bureau.done("alice", "DELETE", f"/agent-keys/{name}")
    assert bureau.ask("alice", "POST", "/agent-keys", **wish).status_code == 201


def test_a_deletion_is_repeated_like_anything_else(bureau: Bureau) -> None:
    made = bureau.key()
    path = f"/agent-keys/{made['id']}"
    answers = [bureau.ask("alice", "DELETE", path, headers=under("gone")) for _ in range(2)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert bureau.ask("alice", "DELETE", path).status_code == 404


@pytest.mark.parametrize("key", ["", "a" * 256, "ä", "two words", "tab\there"])
def test_a_key_that_is_none_is_refused(bureau: Bureau, key: str) -> None:
    answer = bureau.ask("alice", "POST", "/ephemeral-keys", headers={"idempotency-key": key.encode()})
    assert answer.status_code == 422
    assert fields(answer) == {"idempotency-key"}


def at_once(bureau: Bureau, times: int) -> None:
    """One wish from many sides: one deed, one secret, one row in the log."""
    name = bureau.name("rush")

    def ask(_: int) -> tuple[int, bool, bool]:
        client = bureau.gateway.client(bureau.secrets["alice"])
        answer = client.post("/api/v1/agent-keys", json={"name": name}, headers=under(f"rush-{name}"))
        secret = answer.json().get("secret")
        if secret:
            bureau.gateway.canaries.watch(secret)
        return answer.status_code, "idempotency-replayed" in answer.headers, bool(secret)

    with ThreadPoolExecutor(times) as pool:
        answers = list(pool.map(ask, range(times)))
    assert sorted(answers) == [(201, False, True)] + [(201, True, False)] * (times - 1)
    [made] = bureau.done("alice", "GET", "/agent-keys", params={"search": name})["data"]
    deeds = bureau.done("alice", "GET", "/audit", params={"target": made["id"]})["data"]
    assert [deed["deed"] for deed in deeds] == ["agent_keys.create"]


def test_many_at_once_are_one_deed(bureau: Bureau) -> None:
    at_once(bureau, 16)


def test_many_at_once_are_one_deed_on_postgresql(gateways: GatewayMaker, postgres_url: str) -> None:
    env = {"OSTIARY_DATABASE_URL": postgres_url, "OSTIARY_MASTER_KEY": _MASTER_KEY}
    at_once(Bureau(gateways(env=env)).settle(), 16)


def test_after_a_day_a_key_is_forgotten(gateways: GatewayMaker) -> None:
    bureau = Bureau(gateways(clock=True)).settle()
    wish = {"json": {"name": "daily"}, "headers": under("day")}
    made = bureau.done("alice", "POST", "/agent-keys", **wish)
    bureau.gateway.shift(23 * 3_600)
    assert bureau.done("alice", "POST", "/agent-keys", **wish)["id"] == made["id"]
    bureau.gateway.shift(25 * 3_600)
    answer = bureau.ask("alice", "POST", "/agent-keys", **wish)
    assert (answer.status_code, fields(answer)) == (409, {"name"}), "it was tried anew, and the name is taken"
