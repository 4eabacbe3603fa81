"""The first command of the README: one call through a gateway of its own, from nothing, metered and told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import OSTIARY, House
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream

SECRET = re.compile(r"ost_pat_[0-9A-Za-z]{49}")
FIELDS = {"ok", "status", "request_id", "tokens", "cost_usd", "remaining_usd", "agent_key_preview", "elapsed_s"}
POISON = {
    "OSTIARY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "OSTIARY_MASTER_KEY": "short",
    "OSTIARY_PORT": "1",
    "OPENAI_API_KEY": "sk-lying-in-the-environment",
    "http_proxy": "http://127.0.0.1:1",
}
"""What must take no part: a demonstration does not touch what somebody works with."""


@pytest.fixture
def house(tmp_path: Path, canaries: Canaries, shell: Shell) -> House:
    return House(tmp_path, canaries, shell, POISON | {"TMPDIR": str(tmp_path)})


def exact(text: str) -> Any:
    """JSON with its money to the last digit."""
    return json.loads(text, parse_float=Decimal)


@pytest.mark.main_job
def test_one_look_prints_what_was_agreed(house: House) -> None:
    ran = house.cli("demo", "--once", "--json")
    found = exact(ran.out)
    assert set(found) == FIELDS
    assert (found["ok"], found["status"]) == (True, 200)
    assert found["request_id"].startswith("req_")
    assert found["tokens"]["input"] > 0
    assert found["tokens"]["output"] > 0
    assert found["cost_usd"] > 0
    assert found["remaining_usd"] == 5 - found["cost_usd"]
    assert re.fullmatch(r"ost_pat_\w{4}…\w{4}", found["agent_key_preview"])
    assert 0 < found["elapsed_s"] < 30
    assert ran.err == ""
    assert not SECRET.search(ran.out)
    assert not list(house.folder.glob("ostiary-demo-*"))
    assert not house.data_dir.exists()


def test_the_ledger_of_a_kept_folder_agrees(house: House, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    found = exact(house.cli("demo", "--once", "--json", "--data-dir", str(kept)).out)
    house.env = {"OSTIARY_DATA_DIR": str(kept)}
    traces = exact(house.cli("traces", "--json").out)
    assert [trace["stream"] for trace in traces] == [False, True]
    assert {trace["usage_source"] for trace in traces} == {"provider"}
    assert {trace["status"] for trace in traces} == {"ok"}
    assert found["request_id"] in {trace["request_id"] for trace in traces}
    assert sum(trace["cost_usd"] for trace in traces) == found["cost_usd"]
    for kind, count in found["tokens"].items():
        assert sum(trace["tokens"][kind] for trace in traces) == count
    key = exact(house.cli("keys", "show", "demo", "--json").out)
    assert (key["preview"], key["remaining_usd"]) == (found["agent_key_preview"], found["remaining_usd"])
    (sealed,) = house.json("vault", "list")
    assert sealed["provider"] == "sample"
    again = house.cli("demo", "--once", "--data-dir", str(kept), check=False)
    assert again.code == 1
    assert "not empty" in again.err


def test_a_person_sees_answer_tokens_cost_budget_and_trace(house: House) -> None:
    out = house.cli("demo", "--once").out
    assert "Sample provider – no model behind it" in out
    assert out.count("there is no model behind it. You said: Who keeps the door?") == 2
    for word in ("Streamed", "Plain", "Tokens", "Cost", "Remaining", "req_", "sample-chat"):
        assert word in out
    assert not SECRET.search(out)


def test_a_port_that_was_chosen_and_is_taken_is_refused(house: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = house.cli("demo", "--once", "--port", str(taken.getsockname()[1]), check=False)
    assert ran.code == 1
    assert "Choose another by --port" in ran.err


@pytest.mark.parametrize(
    "options", [("--upstream", "http://127.0.0.1:1/v1"), ("--upstream-model", "m"), ("--upstream-key-stdin",)]
)
def test_half_an_upstream_is_not_understood(house: House, options: tuple[str, ...]) -> None:
    assert house.cli("demo", "--once", *options, check=False).code == 2


@pytest.mark.parametrize(
    "url", ["api.example.org", "ftp://api.example.org", "http://[::1/v1", "https://u:hush@a.example"]
)
def test_an_upstream_that_is_no_url_is_not_understood(house: House, url: str) -> None:
    options = ("--upstream", url, "--upstream-model", "m", "--upstream-key-stdin")
    ran = house.cli("demo", "--once", *options, stdin=house.canaries.plant(), check=False)
    assert (ran.code, ran.out) == (2, "")
    assert "--upstream" in ran.err
    assert "plain URL" in ran.err
    assert "hush" not in ran.err


# ---- a real provider ----------------------------------------------------------------------------------------------


def test_a_real_provider_takes_the_place_of_the_sample(house: House, upstream: Upstream) -> None:
    secret = house.canaries.plant()
    ran = house.cli(
        "demo",
        "--once",
        "--json",
        "--upstream",
        upstream.url,
        "--upstream-model",
        "ok",
        "--upstream-key-stdin",
        stdin=secret,
    )
    found = exact(ran.out)
    assert (found["ok"], found["cost_usd"], found["remaining_usd"]) == (True, 0, 5)
    assert found["tokens"]["input"] == 22
    assert {call.key for call in upstream.calls} == {secret}
    assert [call.json["stream"] for call in upstream.calls] == [True, False]
    assert secret not in ran.out + ran.err


def test_what_a_real_provider_refuses_is_said(house: House, upstream: Upstream) -> None:
    upstream.keys = set()
    secret = house.canaries.plant()
    options = ("--upstream", upstream.url, "--upstream-model", "ok", "--upstream-key-stdin")
    ran = house.cli("demo", "--once", "--json", *options, stdin=secret, check=False)
    assert (ran.code, ran.out) == (1, "")
    assert "refused with 50" in ran.err
    assert "Traceback" not in ran.err
    assert secret not in ran.err


# ---- serving on ---------------------------------------------------------------------------------------------------


@contextmanager
def serving_on(house: House) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo as it is started from the README, and what it printed up to its instructions."""
    process = subprocess.Popen(
        [OSTIARY, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=house.environment(),
        cwd=house.folder,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "print(answer" in line:
                break
        watchdog.cancel()
        text = "".join(lines)
        for secret in SECRET.findall(text):
            house.canaries.watch(secret)
        yield process, text
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def test_it_serves_on_and_says_how_to_call_it(house: House) -> None:
    with serving_on(house) as (process, text):
        url = re.findall(r"http://127\.0\.0\.1:\d+/v1", text)[-1]
        (secret,) = set(SECRET.findall(text))
        curl = text[text.index("    curl ") : text.index("or with the OpenAI SDK")]
        (body,) = re.findall(r"-d '(.*)'", curl)
        answer = httpx2.post(
            f"{url}/chat/completions",
            headers={"authorization": f"Bearer {secret}"},
            json=json.loads(body),
            timeout=20,
        )
        assert answer.status_code == 200
        snippet = "\n".join(line.removeprefix("    ") for line in text[text.index("    from openai") :].splitlines())
        ran = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=False)
        assert "no model behind it" in ran.stdout, ran.stderr
        with openai.OpenAI(base_url=url, api_key=secret) as client:
            vectors = client.embeddings.create(model="sample/sample-embedding", input=["a", "b"])
            assert [len(one.embedding) for one in vectors.data] == [8, 8]
        (folder,) = house.folder.glob("ostiary-demo-*")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(40) == 0
        assert not folder.exists()


def test_another_port_is_found_when_the_usual_one_is_taken(house: House) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8420))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which will do
        assert exact(house.cli("demo", "--once", "--json").out)["ok"]
