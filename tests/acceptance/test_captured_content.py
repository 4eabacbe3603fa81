"""What is said is kept only where the key says so: redacted, sealed, opened by who may, and written down."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import httpx2
import pytest

from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_PROMPT = "The treasure lies under the third oak."
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


@pytest.mark.main_job
@pytest.mark.parametrize("stream", [False, True])
def test_content_is_kept_only_where_the_key_says_so(gateway: Gateway, upstream: Upstream, *, stream: bool) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    planted = "sk-proj-a1b2c3d4e5f6g7h8i9"
    body = {"messages": [{"role": "user", "content": f"{_PROMPT} My key is {planted}."}], "stream": stream}
    for name, options in (("open", ["--capture"]), ("closed", [])):
        secret = gateway.create_key(name, *options)
        answer = gateway.client(secret).post("/v1/chat/completions", json={**body, "model": _MODEL})
        assert answer.status_code == 200
    until(lambda: len(gateway.json("traces")) == 2, "the ledger")
    ids = {trace["agent_key"]: trace["request_id"] for trace in gateway.json("traces")}
    [said] = gateway.json("traces", "show", ids["open"], "--content")["content"]
    assert _PROMPT in said["request"]
    assert "My key is sk-***." in said["request"]
    assert planted not in said["request"]
    assert ("data: " if stream else '"choices"') in said["answer"]
    assert gateway.cli("traces", "show", ids["closed"], "--content", check=False).code == 1
    assert gateway.json("audit", "list", "--limit", "1")[0]["deed"] == "traces.content"
    with closing(sqlite3.connect(gateway.data_dir / "ostiary.db")) as db:
        assert db.execute("SELECT count(*) FROM contents").fetchone() == (1,)
    for path in gateway.data_dir.rglob("*"):
        if path.is_file():
            assert _PROMPT.encode() not in path.read_bytes(), path


def test_a_child_shows_what_its_parent_must(gateway: Gateway, upstream: Upstream) -> None:
    """It was made before its parent had to, without a wish of its own, and is heard with it from then on."""
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.create_key("parent")
    made = gateway.json("keys", "ephemeral", "parent", "--name", "child")
    gateway.hear()
    unseen = gateway.chat(made["secret"], _MODEL)
    gateway.cli("keys", "edit", "parent", "--capture")
    gateway.hear()
    assert not gateway.json("keys", "show", "child")["capture"]
    body = {"model": _MODEL, "messages": [{"role": "user", "content": _PROMPT}]}
    seen = gateway.client(made["secret"]).post("/v1/chat/completions", json=body)
    assert (unseen.status_code, seen.status_code) == (200, 200)
    until(lambda: len(gateway.json("traces")) == 2, "the ledger")
    [said] = gateway.json("traces", "show", seen.headers["x-request-id"], "--content")["content"]
    assert _PROMPT in said["request"]
    assert '"choices"' in said["answer"]
    assert gateway.cli("traces", "show", unseen.headers["x-request-id"], "--content", check=False).code == 1


def _is_kept(gateway: Gateway, answer: httpx2.Response) -> bool:
    """Whether what was said in a call is there, once the ledger knows of the call."""
    assert answer.status_code == 200, answer.text
    id_ = answer.headers["x-request-id"]
    until(lambda: id_ in {trace["request_id"] for trace in gateway.json("traces")}, "the ledger")
    return gateway.cli("traces", "show", id_, "--content", check=False).code == 0


def test_what_an_organization_forbids_is_kept_by_no_gateway(
    gateways: GatewayMaker, upstream: Upstream, postgres_url: str
) -> None:
    env = {"OSTIARY_DATABASE_URL": postgres_url, "OSTIARY_MASTER_KEY": _MASTER_KEY}
    one, two = (gateways(allow=[upstream.origin], env=env) for _ in range(2))
    one.add_provider_key("openai-compatible", "upstream", upstream.url)
    parent = one.create_key("parent", "--capture")
    child = one.json("keys", "ephemeral", "parent")["secret"]
    body = {"model": _MODEL, "messages": [{"role": "user", "content": _PROMPT}]}
    for forbidden in (True, False):
        option = "--forbid-capture" if forbidden else "--let-capture"
        assert one.json("orgs", "edit", option)["capture_is_forbidden"] is forbidden
        assert one.json("audit", "list", "--limit", "1")[0]["after"] == {"capture_is_forbidden": forbidden}
        for client in (gateway.client(secret) for gateway in (one, two) for secret in (parent, child)):
            _hear(client, is_captured=not forbidden)
            assert client.post("/v1/explain", json=body).json()["content_is_captured"] is not forbidden
            assert _is_kept(one, client.post("/v1/chat/completions", json=body)) is not forbidden
        shown = one.json("keys", "show", "parent")
        assert (shown["capture"], shown["content_is_captured"]) == (True, not forbidden)


def _hear(client: httpx2.Client, *, is_captured: bool) -> None:
    until(lambda: client.get("/v1/key").json()["content_is_captured"] is is_captured, "the gateway to hear")


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_forbidden_meanwhile_is_not_kept_either(gateway: Gateway, upstream: Upstream, *, stream: bool) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret, answers = gateway.create_key("open", "--capture"), list[httpx2.Response]()
    calling = threading.Thread(
        target=lambda: answers.append(gateway.chat(secret, "openai-compatible/gated", stream=stream))
    )
    calling.start()
    upstream.wait_for(1)
    gateway.cli("orgs", "edit", "--forbid-capture")
    gateway.hear()
    upstream.gate.set()
    calling.join(60)
    assert not _is_kept(gateway, answers[0])


def test_no_key_is_set_to_keep_what_is_forbidden(gateway: Gateway) -> None:
    gateway.create_key("open", "--capture")
    gateway.create_key("closed")
    gateway.cli("orgs", "edit", "--forbid-capture")
    for words in (["create", "--name", "other"], ["edit", "closed"], ["ephemeral", "closed"], ["ephemeral", "--alone"]):
        refused = gateway.cli("keys", *words, "--capture", check=False)
        assert refused.code == 1, words
        assert "This organization forbids that prompts and answers are kept." in refused.err, words
    gateway.cli("keys", "edit", "open", "--rpm", "60", "--capture")
    assert gateway.json("keys", "ephemeral", "open")["capture"], "as its parent"
    told = gateway.cli("keys", "show", "open").out
    assert "Prompts and answers would be kept, but its organization forbids it." in told
