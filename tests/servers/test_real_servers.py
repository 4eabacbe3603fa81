"""PostgreSQL, Valkey and llama.cpp start from packages alone, and are the real thing."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import httpx2
import pytest
import redis

from tests.servers import postgres as postgres_server
from tests.servers.llama import Llama
from tests.servers.postgres import Postgres


async def test_postgres_gives_each_test_a_database_of_its_own(postgres: Postgres, postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    await postgres.execute("CREATE TABLE only_here (x int)", name)
    with pytest.raises(asyncpg.UndefinedTableError):
        await postgres.execute("SELECT * FROM only_here")


def test_valkey(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as client:
        assert client.set("door", "shut")
        assert client.get("door") == b"shut"


def test_llama_chats_and_counts(llama: Llama) -> None:
    body = {"model": llama.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0}
    answer = httpx2.post(
        f"{llama.url}/chat/completions", json=body, headers={"authorization": f"Bearer {llama.key}"}, timeout=20
    )
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert httpx2.post(f"{llama.url}/chat/completions", json=body, timeout=20).status_code == 401


def test_llama_embeds(llama_embeddings: Llama) -> None:
    answer = httpx2.post(
        f"{llama_embeddings.url}/embeddings",
        json={"model": llama_embeddings.model, "input": ["one", "two"]},
        headers={"authorization": f"Bearer {llama_embeddings.key}"},
        timeout=20,
    ).json()
    assert len(answer["data"]) == 2
    assert len(answer["data"][0]["embedding"]) == 64
    assert answer["usage"]["prompt_tokens"] > 0


def test_the_data_are_in_memory_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_server, "_MEMORY", tmp_path)
    monkeypatch.setattr(postgres_server, "_ROOM", 1)
    with postgres_server._home(tmp_path / "disk") as home:
        assert home.parent == tmp_path
        assert home.name != "disk"
    assert not home.exists()
    monkeypatch.setattr(postgres_server, "_ROOM", 1 << 60)
    with postgres_server._home(tmp_path / "disk") as home:
        assert home == tmp_path / "disk"


def test_what_a_killed_run_left_in_memory_goes_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "_MEMORY", tmp_path)
    monkeypatch.setattr(postgres_server, "_ROOM", 1)
    left = tmp_path / f"{postgres_server._PREFIX}left"
    left.mkdir()
    (left / postgres_server._LOCK).touch()
    (left / "data").touch()
    beginning = tmp_path / f"{postgres_server._PREFIX}beginning"
    beginning.mkdir()
    with postgres_server._home(tmp_path / "disk") as first:
        assert not left.exists()
        with postgres_server._home(tmp_path / "disk") as second:
            assert first.exists()
            assert second != first
    assert list(tmp_path.iterdir()) == [beginning]
