"""What is said is kept only where the key says so: redacted, sealed, opened by who may, and written down."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_PROMPT = "The treasure lies under the third oak."


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
