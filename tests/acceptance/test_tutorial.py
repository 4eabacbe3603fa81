"""The tutorial, done: its commands and its code as they are printed, but for the address of the provider."""

from __future__ import annotations

import io
import json
import re
import shlex
from contextlib import redirect_stdout
from typing import Any

import pytest

from tests.servers.canaries import Canaries
from tests.servers.forks import ROOT
from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream
from tests.servers.wire import TEXT

PAGE = (ROOT / "docs" / "tutorials" / "first-call.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """What is to be typed behind `uv run ostiary`, in order."""
    lines = "\n".join(blocks(page, "sh")).splitlines()
    return [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("uv run ostiary ")]


@pytest.mark.main_job
@pytest.mark.parametrize("page", [PAGE, README], ids=["tutorial", "readme"])
def test_every_command_and_example_works(page: str, gateway: Gateway, upstream: Upstream, canaries: Canaries) -> None:
    secret = ""
    for words in commands(page):
        match words:
            case ["vault", "add", *_]:
                here = ["--base-url", upstream.url, "--secret-stdin"]
                gateway.cli(*words, *here, stdin=canaries.plant("gsk_"))
            case ["keys", "create", *options]:
                secret = gateway.create_key("first", *options[2:])
            case ["serve"]:
                call_as_printed(page, gateway, secret)
            case ["demo", *_]:
                continue  # tests/acceptance/test_demo.py
            case _:
                gateway.cli(*words)
    assert [call.json["model"] for call in upstream.calls] == ["llama-3.1-8b-instant"] * len(upstream.calls)
    assert len(gateway.traces(calls=len(upstream.calls))) == len(upstream.calls) > 0


def call_as_printed(page: str, gateway: Gateway, secret: str) -> None:
    """Both ways that a page shows: curl and the SDK."""
    for body in re.findall(r"-d '(.*)'", page):
        answer = gateway.client(secret).post("/v1/chat/completions", json=json.loads(body))
        assert answer.text.endswith("data: [DONE]\n\n")
    for code in blocks(page, "python"):
        mine = code.replace("http://127.0.0.1:8420/v1", gateway.url).replace("ost_pat_…", secret)
        assert mine.count(secret) == 1
        said, scope = io.StringIO(), dict[str, Any]()
        with redirect_stdout(said):
            exec(compile(mine, "tutorial", "exec"), scope)  # noqa: S102 - it is our own page
        scope["client"].close()
        assert "print" not in mine or said.getvalue().strip() == TEXT


def test_revoked_as_the_tutorial_says_it_stays_out(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("groq", "groq", upstream.url)
    secret = gateway.create_key("first")
    model = "groq/llama-3.1-8b-instant"
    gateway.cli("keys", "revoke", "first")
    gateway.hear()
    assert gateway.chat(secret, model).status_code == 401
    gateway.cli("keys", "activate", "first")
    gateway.hear()
    assert gateway.chat(secret, model).status_code == 200
    gateway.json("keys", "rotate", "first")
    gateway.hear()
    assert gateway.chat(secret, model).status_code == 401
