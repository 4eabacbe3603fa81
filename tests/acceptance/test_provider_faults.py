"""Everything a provider can do wrong: what the caller hears, what the ledger writes, where the money is afterwards."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2
import pytest
import trustme

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.limits.budgets import Budget
from tests.acceptance.brisk import brisk
from tests.acceptance.inside import USD, Key, add_provider_keys, are_well, events, heal, mint, rows, set_prices, spent
from tests.servers import answers, behaviours
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import Shell
from tests.servers.upstream import Behaviour, Exchange, Upstream
from tests.servers.waiting import until
from tests.servers.wire import (
    ORGANIZATION,
    TEXT,
    chunk,
    completion,
    event,
    framed,
    stream_head,
    usage,
    whole,
)

CHAT = "/v1/chat/completions"
MAX_TOKENS = 100
DEAR_USD = 1_000
"""For a million tokens of output, so that a hold is 10 cents for output, and a cent or so for input."""
CAP = USD * 17 // 100
"""Room for one hold; not for a second one beside the first or after it."""
HOLD = USD // 10
TRUE_COST = 11 * 100_000 + 7 * 1_000_000
_AT_ONCE = 4


@dataclass(frozen=True)
class Fault:
    """What is asked for, and what must come of it. `money`: free, held (all of the hold), counted (more than 0)."""

    model: str
    status: int
    code: str
    reason: str | None = None
    stream: bool = False
    money: str = "free"
    said: str = ""
    seen: int | None = 0
    """The provider's HTTP status in the event; None where it depends on the network's timing."""

    @property
    def name(self) -> str:
        return f"{self.model.partition('/')[2]}{'-streamed' if self.stream else ''}"


HOSTILE = "openai-compatible"
POOR = ("xai", "moonshot")
"""Whose keys have no money: they rest, so they are used for nothing else."""


def lost(model: str, reason: str, seen: int | None = 0, *, stream: bool = False) -> Fault:
    """It may have been billed: the hold is charged, and nothing is tried again."""
    return Fault(f"{HOSTILE}/{model}", 502, "provider_error", reason, stream, "held", seen=seen)


def late(model: str, reason: str, seen: int = 0, *, stream: bool = False) -> Fault:
    return Fault(f"{HOSTILE}/{model}", 504, "provider_timeout", reason, stream, "held", seen=seen)


def theirs(model: str, seen: int, said: str = "", code: str = "provider_error", *, stream: bool = False) -> Fault:
    """The provider's fault or the key's, with an answer: not billed."""
    status = 504 if code == "provider_timeout" else 502
    name = model if "/" in model else f"{HOSTILE}/{model}"
    return Fault(name, status, code, None, stream, said=said, seen=seen)


def ours(status: int, code: str, said: str) -> Fault:
    """The caller's fault, in the provider's words."""
    return Fault(f"{HOSTILE}/status-{status}", status, code, said=said, seen=status)


FAULTS = [
    # no connection: nothing was sent
    Fault("vllm/refused", 502, "provider_error", "refused"),
    Fault("llamacpp/nowhere", 502, "provider_error", "dns"),
    Fault("ollama/tls", 502, "provider_error", "tls"),
    Fault("lmstudio/full", 504, "provider_timeout", "connect_timeout"),
    # too late
    late("stall-first-byte", "first_byte_timeout"),
    late("stall-head", "first_byte_timeout"),
    late("stall-body", "idle_timeout", 200),
    late("stall-first-byte", "first_byte_timeout", stream=True),
    late("drip", "total_timeout", 200, stream=True),
    # errors with a status
    theirs("status-401", 401, "Incorrect API key provided: ***"),
    theirs("status-403", 403, "does not have access"),
    theirs("xai/status-402", 402, "Insufficient balance"),
    theirs("status-429", 429, "requests per min"),
    theirs("moonshot/quota", 429, "quota"),
    theirs("status-500", 500, "Said 500"),
    theirs("status-503", 503, "Said 503", stream=True),
    theirs("status-529", 529, "Said 529"),
    theirs("status-504", 504, "Said 504", "provider_timeout"),
    theirs("redirect", 307),
    ours(400, "invalid_request", "Said 400"),
    ours(404, "model_not_found", "does not exist"),
    ours(413, "request_too_large", "Said 413"),
    ours(422, "invalid_request", "Said 422"),
    # answers that are none
    lost("malformed-json", "malformed", 200),
    lost("wrong-shape", "malformed", 200),
    lost("html", "malformed", 200),
    lost("empty", "malformed", 200),
    lost("drop", "broken"),
    lost("reset", "broken"),
    lost("not-http", "broken"),
    lost("huge-head", "broken"),
    lost("short-body", "broken", 200),
    lost("bad-chunk", "broken", None),
    lost("gigantic-body", "too_large", 200),
    lost("gzipped", "encoding"),
    lost("bomb", "encoding"),
    # streams that end before they say something
    lost("cut-before-content", "broken", 200, stream=True),
    lost("html", "empty_stream", 200, stream=True),
    lost("malformed-json", "not_a_stream", 200, stream=True),
    lost("gzipped", "encoding", stream=True),
    lost("bad-chunk", "broken", None, stream=True),
    theirs("error-first-in-stream", 200, "Overloaded", stream=True),
]


def gigantic_line() -> str:
    """The name of the behaviour that sends a line of 64 MB."""
    return next(name for name in behaviours.BY_NAME if name.startswith("gigantic") and name != "gigantic-body")


FAULTS.append(lost(gigantic_line(), "too_large", 200, stream=True))


@dataclass
class Scene:
    """The gateway, its hostile provider, a key for each fault, and all calls that were made at once."""

    gateway: Gateway
    client: httpx2.Client
    upstream: Upstream
    secrets: list[str]
    keys: dict[str, Key]
    answers: dict[str, Future[httpx2.Response]] = field(default_factory=dict)

    def ask(self, who: str, model: str, *, stream: bool = False, **more: Any) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": MAX_TOKENS, **more}
        return self.client.post(CHAT, json=body | ({"stream": True} if stream else {}), headers=self.keys[who].bearer)


@contextmanager
def broken_places() -> Iterator[dict[str, str]]:
    """Where a connection cannot be made, by provider."""
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield {
            "vllm": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "lmstudio": f"http://127.0.0.1:{full.getsockname()[1]}",
            "ollama": f"https://127.0.0.1:{stack.enter_context(untrusted_tls())}",
            "llamacpp": "https://ostiary-test.invalid",
        }


@contextmanager
def untrusted_tls() -> Iterator[int]:
    """A TLS server whose certificate nobody vouches for; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> Iterator[Scene]:
    """Those that take seconds all at once; beside them the others, so few at a time that none of them is late, too."""
    secrets: list[str] = []
    with broken_places() as places:

        def furnish(gateway: Gateway) -> None:
            wished = [(HOSTILE, "upstream", shared_upstream.url)]
            wished += [("sample", f"sample-{n}", shared_upstream.url) for n in (1, 2, 3)]
            wished += [(provider, f"{provider}-poor", shared_upstream.url) for provider in POOR]
            secrets.extend(add_provider_keys(gateway, *wished, *((name, name, url) for name, url in places.items())))
            models = {fault.model for fault in FAULTS} | {f"{HOSTILE}/{name}" for name in behaviours.BY_NAME}
            set_prices(gateway, *sorted(models), "sample/ok", input_usd=100, output_usd=DEAR_USD)

        allow = [shared_upstream.origin, *(url for url in places.values() if "invalid" not in url)]
        folder = tmp_path_factory.mktemp("faults")
        with (
            brisk(folder, canaries, shell, allow, furnish) as gateway,
            ThreadPoolExecutor(len(FAULTS)) as slow,
            ThreadPoolExecutor(_AT_ONCE) as quick,
        ):
            names = [fault.name for fault in FAULTS] + ["rich", "unlimited"]
            wishes = [NewAgentKey(name, budget=Budget("total", CAP)) for name in names[:-2]]
            wishes += [NewAgentKey("rich", budget=Budget("total", 100 * USD)), NewAgentKey("unlimited")]
            keys = dict(zip(names, mint(gateway, *wishes), strict=True))
            made = Scene(gateway, gateway.client(timeout=60), shared_upstream, secrets, keys)
            for fault in FAULTS:
                pool = slow if "timeout" in (fault.reason or "") else quick
                made.answers[fault.name] = pool.submit(made.ask, fault.name, fault.model, stream=fault.stream)
            yield made


@pytest.fixture(autouse=True)
def well(scene: Scene) -> Iterator[None]:
    """What one case does to the health of the keys is no matter of the next one."""
    yield
    until(lambda: become_well(scene), "the keys to be well again", 60)


def become_well(scene: Scene) -> bool:
    """Whether they are; if not, see to it, as often as a call that is still under way finds another fault."""
    if is_well(scene):
        return True
    heal(scene.gateway)
    mint(scene.gateway, NewAgentKey(f"healed {next(_numbers)}"))  # it is known a moment after what was done before it
    return False


_numbers = count()


def is_well(scene: Scene) -> bool:
    """Whether all keys would be tried, in the order in which they were made."""
    looker = scene.keys["unlimited"]
    return are_well(scene.gateway, looker, f"{HOSTILE}/ok", 1) and are_well(scene.gateway, looker, "sample/ok", 3)


# ---- each fault -------------------------------------------------------------------------------------------------


@pytest.mark.main_job
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_caller_hears_what_happened_and_whose_fault_it_was(scene: Scene, fault: Fault) -> None:
    answer = scene.answers[fault.name].result()
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (fault.status, fault.code), error
    caused = {"invalid_request": "invalid_request_error", "request_too_large": "invalid_request_error"}
    assert error["type"] == {**caused, "model_not_found": "not_found_error"}.get(fault.code, "provider_error")
    (attempt,) = error["attempts"]
    assert attempt["provider"] == fault.model.partition("/")[0]
    assert fault.seen is None or attempt["status"] == (fault.seen or None)
    assert fault.reason in (None, attempt["reason"])
    assert fault.said in error["message"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.main_job
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_ledger_has_it_and_the_money_is_where_it_should_be(scene: Scene, fault: Fault) -> None:
    answer = scene.answers[fault.name].result()
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["status"], row["error_code"]) == ("error", fault.code)
    assert fault.seen in (None, row["http_status"])
    assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("none", 0, 0)
    assert row["held_nano"] >= HOLD
    assert row["cost_nano"] == (row["held_nano"] if fault.money == "held" else 0)
    assert spent(scene.gateway, scene.keys[fault.name]) == row["cost_nano"]
    again = scene.ask(fault.name, f"{HOSTILE}/ok")
    assert again.status_code == (402 if fault.money == "held" else 200)


@pytest.mark.main_job
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_of_the_key_or_its_owner_is_told(scene: Scene, fault: Fault) -> None:
    answer = scene.answers[fault.name].result()
    told = answer.text + str(answer.headers)
    for secret in [*scene.secrets, ORGANIZATION, "billing@owner.example", "UPSTREAM", "Traceback", "aiohttp"]:
        assert secret not in told
    assert not {"set-cookie", "openai-organization", "openai-project"} & set(answer.headers)


def test_no_fault_was_ours(scene: Scene) -> None:
    for answer in scene.answers.values():
        answer.result()
    assert "call.failed" not in scene.gateway.output
    assert "Traceback" not in scene.gateway.output


def test_nothing_of_an_owner_is_written_down(scene: Scene) -> None:
    """Neither in the log, nor in a trace, nor anywhere in the files of the gateway: database, spool, what they log."""
    for answer in scene.answers.values():
        events(scene.gateway, answer.result().headers["x-request-id"])
    shown = [scene.gateway.output, json.dumps(scene.gateway.json("traces", "--limit", "100"))]
    refused = scene.answers["status-401"].result().headers["x-request-id"]
    shown.append(json.dumps(scene.gateway.json("traces", "show", refused)))
    files = {path.name: path.read_bytes() for path in scene.gateway.data_dir.rglob("*") if path.is_file()}
    assert "ostiary.db" in files
    for mark in ("UPSTREAM", "billing@owner.example"):
        assert not [text for text in shown if mark in text]
        assert not [name for name, held in files.items() if mark.encode() in held]


# ---- waiting helps ----------------------------------------------------------------------------------------------


def test_what_the_provider_says_of_waiting_is_passed_on(scene: Scene) -> None:
    assert scene.answers["status-429"].result().headers["retry-after"] == "7"
    assert "retry-after" not in scene.answers["quota"].result().headers


@pytest.mark.parametrize(
    "odd", [b"\xc2\xb2", b"-1", b"soon", b"9" * 5_000, b"Fri, 20 Nov 2026 23:00:00 GMT", b"1.5", b""]
)
def test_an_odd_word_about_waiting_is_not(scene: Scene, odd: bytes) -> None:
    scene.upstream.push(behaviours.refuse(429, "slow down", None, b"retry-after: " + odd))
    answer = scene.ask("unlimited", f"{HOSTILE}/ok")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")
    assert "retry-after" not in answer.headers


# ---- the provider's words ---------------------------------------------------------------------------------------


def test_the_field_and_the_code_that_the_provider_names_are_passed_on(scene: Scene) -> None:
    said = {"message": "too long", "param": "messages[3].content", "code": "context_length_exceeded"}

    async def complain(exchange: Exchange) -> None:
        await behaviours.raw(wire_error(400, {"error": said}), keep=True)(exchange)

    scene.upstream.push(complain)
    error = scene.ask("unlimited", f"{HOSTILE}/ok").json()["error"]
    assert (error["message"], error["param"]) == ("too long", "messages[3].content")
    assert error["attempts"][0]["provider_code"] == "context_length_exceeded"


def wire_error(status: int, body: Any) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d Said\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(data),
        data,
    )


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {"error": None},
        {"error": "plain words"},
        {"error": {"message": {"deep": 1}, "param": 7, "code": ["x"]}},
        {"message": "fastapi", "detail": "Not Found"},
        {"error": {"message": "x" * 100_000}},
        {"error": {"message": "a\r\nset-cookie: b\x1b[31m", "param": "a\r\nb", "code": "a b"}},
    ],
)
def test_an_error_in_any_shape_is_an_error(scene: Scene, body: Any) -> None:
    scene.upstream.push(behaviours.raw(wire_error(400, body), keep=True))
    answer = scene.ask("unlimited", f"{HOSTILE}/ok")
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["message"].isprintable()
    assert 0 < len(error["message"]) <= 600
    assert error["param"] is None


def test_the_credential_is_taken_out_of_whatever_the_provider_says(scene: Scene) -> None:
    async def quote(exchange: Exchange) -> None:
        text = f"I know you: {exchange.request.key}!"
        await behaviours.refuse(400, text)(exchange)

    scene.upstream.push(quote)
    error = scene.ask("unlimited", f"{HOSTILE}/ok").json()["error"]
    assert error["message"] == "I know you: ***!"


# ---- streams that began -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("truncated", "broke off"),
        ("cut-between", "broke off"),
        ("no-end-no-usage", "ended before the answer was complete"),
        ("stall-stream", "broke off (idle_timeout)"),
        ("error-in-stream", "The server had an error, ***"),
    ],
)
def test_a_stream_that_breaks_ends_with_an_error_and_without_its_end_marker(
    scene: Scene, model: str, message: str
) -> None:
    answer = scene.ask("rich", f"{HOSTILE}/{model}", stream=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert "[DONE]" not in answer.text
    assert ORGANIZATION not in answer.text
    assert json.loads(parts[0])["choices"]
    error = json.loads(parts[-1])["error"]
    assert (error["code"], error["type"]) == ("provider_error", "provider_error")
    assert message in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["status"], row["usage_source"], row["http_status"]) == ("error", "estimated", 200)
    assert 0 < row["cost_nano"] < row["held_nano"]
    assert row["first_token_ms"] is not None


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("ok", "provider"),
        ("no-end", "provider"),
        ("no-usage", "estimated"),
        ("always-usage", "provider"),
        ("usage-in-last-chunk", "provider"),
        ("byte-by-byte", "provider"),
        ("odd-events", "provider"),
        ("slow-stream", "provider"),
        ("odd-usage", "estimated"),
        ("continued", "provider"),
    ],
)
def test_a_stream_that_says_all_it_had_to_say_is_right(scene: Scene, model: str, source: str) -> None:
    answer = scene.ask("rich", f"{HOSTILE}/{model}", stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.text.count("[DONE]") == 1
    lines = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:{")]
    lines += [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    said = [choice["delta"].get("content") or "" for line in lines for choice in json.loads(line)["choices"]]
    assert "".join(said) == TEXT
    assert model == "usage-in-last-chunk" or '"usage"' not in answer.text
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["status"], row["usage_source"]) == ("ok", source)
    assert row["cost_nano"] == TRUE_COST if source == "provider" else 0 < row["cost_nano"] < row["held_nano"]


@pytest.mark.parametrize(
    ("model", "source", "cost"),
    [
        ("no-usage", "estimated", None),
        ("odd-usage", "estimated", None),
        ("no-length", "provider", TRUE_COST),
        ("continued", "provider", TRUE_COST),
        ("over-usage", "provider", 11 * 100_000 + 1_000_000 * 1_000_000),
    ],
)
def test_odd_but_right_answers(scene: Scene, model: str, source: str, cost: int | None) -> None:
    answer = scene.ask("unlimited", f"{HOSTILE}/{model}")
    assert answer.json()["choices"][0]["message"]["content"] == TEXT
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["status"], row["usage_source"]) == ("ok", source)
    assert row["cost_nano"] == cost if cost else 0 < row["cost_nano"] <= row["held_nano"]


def test_what_costs_more_than_its_hold_is_charged_in_full_and_marked(scene: Scene) -> None:
    (scene.keys["overrun"],) = mint(scene.gateway, NewAgentKey("overrun", budget=Budget("total", CAP)))
    answer = scene.ask("overrun", f"{HOSTILE}/over-usage")
    assert answer.status_code == 200
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert row["cost_nano"] == 11 * 100_000 + 1_000_000 * 1_000_000
    assert row["over_hold_nano"] == row["cost_nano"] - row["held_nano"] > 0
    assert spent(scene.gateway, scene.keys["overrun"]) == row["cost_nano"]
    assert scene.ask("overrun", f"{HOSTILE}/ok").status_code == 402


def test_an_absurd_count_can_still_be_written_down(scene: Scene) -> None:
    absurd = {"prompt_tokens": 10**40, "completion_tokens": 10**30}
    scene.upstream.push(answers.answer(absurd))
    answer = scene.ask("unlimited", f"{HOSTILE}/ok")
    assert answer.status_code == 200
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert row["cost_nano"] > row["held_nano"]
    assert row["usage_source"] == "provider"


async def belated_answer(exchange: Exchange) -> None:
    """A right answer, and a moment later one that nobody has asked for."""
    await answers.answer()(exchange)
    await asyncio.sleep(0.1)
    poison = json.dumps(completion(exchange.request, usage(), "POISON")).encode()
    await exchange.send(whole(200, poison))


def test_an_answer_that_nobody_asked_for_reaches_nobody(scene: Scene) -> None:
    for answer in scene.answers.values():
        answer.result()
    scene.upstream.push(belated_answer)
    assert "POISON" not in scene.ask("unlimited", f"{HOSTILE}/ok").text
    time.sleep(0.3)
    told = [scene.ask("unlimited", f"{HOSTILE}/ok").text for _ in range(60)]  # each pooled connection has its turn
    assert "POISON" not in "".join(told)


def test_a_connection_that_died_in_the_pool_costs_nobody_a_call(scene: Scene) -> None:
    for _ in range(5):
        assert scene.ask("unlimited", f"{HOSTILE}/closes-idle").status_code == 200
        until(lambda: scene.upstream.calls[-1].connection in scene.upstream.ended, "the connection to be closed")


# ---- another key ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [behaviours.status(503), behaviours.status(401), behaviours.status(429), behaviours.quota],
    ids=["503", "401", "429", "quota"],
)
def test_the_second_key_of_a_provider_takes_over(scene: Scene, fault: Behaviour) -> None:
    scene.upstream.push(fault)
    before = len(scene.upstream.calls)
    answer = scene.ask("unlimited", "sample/ok")
    assert answer.json()["choices"][0]["message"]["content"] == TEXT
    assert (answer.headers["x-ostiary-attempts"], answer.headers["x-ostiary-fallback-from"]) == ("2", "sample")
    assert answer.headers["x-ostiary-provider"] == "sample"
    tried = [request.key for request in scene.upstream.calls[before:]]
    assert tried[:2] == scene.secrets[1:3]
    first, second = events(scene.gateway, answer.headers["x-request-id"], 2)
    assert (first["status"], first["cost_nano"], first["provider_key_name"]) == ("error", 0, "sample-1")
    assert (second["status"], second["cost_nano"], second["provider_key_name"]) == ("ok", TRUE_COST, "sample-2")


def test_one_call_is_one_request_and_one_hold_however_often_it_is_tried(scene: Scene) -> None:
    (key,) = mint(scene.gateway, NewAgentKey("counted", rpm=5, budget=Budget("total", CAP)))
    scene.keys["counted"] = key
    scene.upstream.push(behaviours.status(500), behaviours.status(500))
    answer = scene.ask("counted", "sample/ok")
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "3")
    assert answer.headers["x-ratelimit-remaining-requests"] == "4"
    assert spent(scene.gateway, key) == 0 or spent(scene.gateway, key) == TRUE_COST
    assert [row["cost_nano"] for row in events(scene.gateway, answer.headers["x-request-id"], 3)] == [0, 0, TRUE_COST]


def test_when_every_key_fails_each_is_told_and_nothing_is_charged(scene: Scene) -> None:
    scene.upstream.push(behaviours.status(500), behaviours.status(429), behaviours.status(401))
    answer = scene.ask("unlimited", "sample/ok")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (502, "provider_error")
    assert [attempt["status"] for attempt in error["attempts"]] == [500, 429, 401]
    assert answer.headers["retry-after"] == "7"
    assert [row["cost_nano"] for row in events(scene.gateway, answer.headers["x-request-id"], 3)] == [0, 0, 0]


@pytest.mark.parametrize("fault", ["drop", "malformed-json", "status-400", "gzipped"])
def test_what_may_have_been_billed_or_is_the_callers_own_is_not_tried_again(scene: Scene, fault: str) -> None:
    behaviour = behaviours.BY_NAME.get(fault) or behaviours.status(400)
    scene.upstream.push(behaviour)
    before = len(scene.upstream.calls)
    answer = scene.ask("unlimited", "sample/ok")
    assert answer.status_code in {400, 502}
    assert len(scene.upstream.calls) == before + 1
    assert len(answer.json()["error"]["attempts"]) == 1


async def role_then_error(exchange: Exchange) -> None:
    """A stream whose only event before the error says who speaks."""
    role = event(chunk(exchange.request, {"role": "assistant", "content": ""}))
    await exchange.send(stream_head(), framed(role), framed(event({"error": {"message": "Overloaded"}})), b"0\r\n\r\n")


@pytest.mark.parametrize("fault", [behaviours.BY_NAME["error-first-in-stream"], role_then_error])
def test_a_stream_falls_back_until_its_first_content(scene: Scene, fault: Any) -> None:
    scene.upstream.push(fault)
    answer = scene.ask("unlimited", "sample/ok", stream=True)
    assert answer.headers["x-ostiary-attempts"] == "2"
    assert answer.text.count('"assistant"') == 1
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "Overloaded" not in answer.text
    first, second = events(scene.gateway, answer.headers["x-request-id"], 2)
    assert (first["cost_nano"], second["cost_nano"]) == (0, TRUE_COST)


def test_a_redirect_is_not_followed(scene: Scene) -> None:
    scene.answers["redirect"].result()
    assert not [request for request in scene.upstream.calls if "elsewhere" in request.target]


# ---- what passes in neither direction ---------------------------------------------------------------------------


def test_of_the_callers_headers_nothing_reaches_the_provider(scene: Scene) -> None:
    key = scene.keys["unlimited"]
    sent = {
        **key.bearer,
        "x-api-key": key.secret,
        "cookie": "session=CALLERCOOKIE",
        "user-agent": "OpenAI/Python 3.52",
        "x-stainless-lang": "python",
        "x-stainless-retry-count": "0",
        "openai-organization": "org-CALLER",
        "x-forwarded-for": "203.0.113.9",
        "x-request-id": "req_CALLER",
        "traceparent": "00-CALLER",
        "accept-encoding": "gzip",
        "origin": "https://caller.example",
        "referer": "https://caller.example/",
        "x-ostiary-max-cost-usd": "5",
    }
    body = {"model": f"{HOSTILE}/ok", "messages": [], "max_tokens": 5}
    assert scene.client.post(CHAT + "?a=CALLERQUERY", json=body, headers=sent).status_code == 200
    received = next(request for request in reversed(scene.upstream.calls) if request.json == {**body, "model": "ok"})
    names = {name.lower() for name, _ in received.headers}
    assert names == {"host", "accept-encoding", "authorization", "content-type", "content-length"}
    assert received.header("authorization") == f"Bearer {scene.secrets[0]}"
    assert received.header("accept-encoding") == "identity"
    assert received.target == "/v1/chat/completions"
    told = str(received.headers) + received.body.decode()
    assert key.secret not in told
    assert "CALLER" not in told


@pytest.mark.parametrize("stream", [False, True])
def test_of_the_providers_headers_nothing_reaches_the_caller(scene: Scene, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    answer = scene.ask("unlimited", f"{HOSTILE}/ok", stream=stream)
    assert "UPSTREAM" not in str(answer.headers)
    known = {
        "content-type",
        "x-ostiary-provider",
        "x-ostiary-model",
        "x-ostiary-attempts",
        "x-request-id",
        "x-content-type-options",
        "cache-control",
    }
    framing = {"transfer-encoding", "x-accel-buffering"} if stream else {"content-length", "x-ostiary-cost-usd"}
    assert set(answer.headers) == known | framing


def test_the_sum_of_the_events_is_what_the_accounts_say(scene: Scene) -> None:
    for answer in scene.answers.values():
        answer.result()
    scene.gateway.client(scene.keys["unlimited"].secret).get("/v1/usage")  # everything that is settled is written first
    by_key = rows(
        scene.gateway, "SELECT agent_key_id AS id, sum(cost_nano) AS cost FROM usage_events GROUP BY agent_key_id"
    )
    accounts = rows(
        scene.gateway, "SELECT id, spent_nano FROM accounts WHERE scope = 'agent_key' AND period_id = 'total'"
    )
    known = {row["id"]: row["spent_nano"] for row in accounts}
    assert {row["id"]: row["cost"] for row in by_key if row["cost"]} == {i: n for i, n in known.items() if n}
