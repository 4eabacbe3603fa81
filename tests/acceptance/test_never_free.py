"""What a provider did not count, counted as nothing, or wrapped around an error: paid for once, and never twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.limits.budgets import Budget
from tests.acceptance.brisk import brisk
from tests.acceptance.inside import (
    USD,
    Key,
    add_provider_keys,
    are_well,
    events,
    events_of,
    heal,
    mint,
    set_prices,
    spent,
)
from tests.acceptance.wire import Wire, post, wire
from tests.servers import answers, behaviours
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import Shell
from tests.servers.upstream import Behaviour, Exchange, Upstream
from tests.servers.waiting import until
from tests.servers.wire import DONE, LAST, chunk, compact, completion, event, framed, stream_head, usage, whole
from tests.servers.wire import events as stream_events

CHAT = "/v1/chat/completions"
CAP = 10 * USD
TRUE_COST = 11 * 100_000 + 7 * 1_000_000
INPUT_COST = 11 * 100_000


@dataclass
class Scene:
    """The gateway, and a provider with two keys."""

    gateway: Gateway
    upstream: Upstream
    looker: Key
    """Who only asks what a call would do."""

    def key(self, name: str, **wish: Any) -> Key:
        (made,) = mint(self.gateway, NewAgentKey(name, **{"budget": Budget("total", CAP), **wish}))
        return made

    def ask(self, key: Key, path: str = CHAT, **more: Any) -> httpx2.Response:
        body = {"model": "sample/ok", **more}
        if path == CHAT:
            body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, **body}
        return self.gateway.client().post(path, json=body, headers=key.bearer)


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> Iterator[Scene]:
    def furnish(gateway: Gateway) -> None:
        add_provider_keys(gateway, *(("sample", f"sample-{number}", shared_upstream.url) for number in (1, 2)))
        models = ("ok", "gated", "stall-first-byte", "slow-stream")
        set_prices(gateway, *(f"sample/{name}" for name in models), input_usd=100, output_usd=1_000)

    folder, allow = tmp_path_factory.mktemp("never-free"), [shared_upstream.origin]
    with brisk(folder, canaries, shell, allow, furnish, patient=True) as gateway:
        (looker,) = mint(gateway, NewAgentKey("looker"))
        yield Scene(gateway, shared_upstream, looker)


@pytest.fixture(autouse=True)
def well(scene: Scene) -> Iterator[None]:
    """What one case does to the health of the keys is no matter of the next one."""
    yield
    if not is_well(scene):
        heal(scene.gateway)
        until(lambda: is_well(scene), "the keys to be well again")


def is_well(scene: Scene) -> bool:
    """Whether both keys would be tried, in the order in which they were made."""
    return are_well(scene.gateway, scene.looker, "sample/ok", 2)


# ---- counts that are none ---------------------------------------------------------------------------------------

NOTHING: dict[str, Any] = {
    "zero": usage(prompt_tokens=0, completion_tokens=0, total_tokens=0),
    "zero in detail": usage(
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        prompt_tokens_details={"cached_tokens": 0},
        completion_tokens_details={"reasoning_tokens": 0},
    ),
    "zero with a total": usage(prompt_tokens=0, completion_tokens=0),
    "empty": {"unknown": 1},
    "a word": "n/a",
    "a list": [1],
    "no numbers": {"prompt_tokens": None, "completion_tokens": None},
    "negative": usage(prompt_tokens=-11, completion_tokens=-7, total_tokens=-18),
    "fractions": usage(prompt_tokens=0.5, completion_tokens=0.25),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", list(NOTHING))
def test_a_count_of_nothing_is_estimated(scene: Scene, name: str, *, stream: bool) -> None:
    key = scene.key(f"{name} {stream}")
    scene.upstream.push(answers.answer(NOTHING[name]))
    answer = scene.ask(key, stream=stream)
    assert answer.status_code == 200
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["status"], row["usage_source"]) == ("ok", "estimated")
    assert 0 < row["cost_nano"] <= row["held_nano"]
    assert row["output_tokens"] > 0
    assert spent(scene.gateway, key) == row["cost_nano"]


@pytest.mark.main_job
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_total_alone_is_a_count(scene: Scene, *, stream: bool) -> None:
    key = scene.key(f"total {stream}")
    scene.upstream.push(answers.answer({"total_tokens": 18}))
    answer = scene.ask(key, stream=stream)
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["usage_source"], row["input_tokens"] + row["output_tokens"]) == ("provider", 18)
    assert row["cost_nano"] >= 18 * 100_000


@pytest.mark.main_job
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_words_that_were_counted_as_none_are_not_free(scene: Scene, *, stream: bool) -> None:
    """The input is counted, the output is said to be nothing, and there are words."""
    key = scene.key(f"no output {stream}")
    scene.upstream.push(answers.answer(usage(completion_tokens=0, total_tokens=11)))
    answer = scene.ask(key, stream=stream)
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert row["cost_nano"] > INPUT_COST
    assert row["output_tokens"] > 0


@pytest.mark.parametrize("figures", [None, {"prompt_tokens": 0, "total_tokens": 0}], ids=["none", "zero"])
def test_embeddings_that_were_not_counted(scene: Scene, figures: Any) -> None:
    async def speak(exchange: Exchange) -> None:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        body = {"object": "list", "data": data, "model": "ok"} | ({"usage": figures} if figures else {})
        await exchange.send(whole(200, json.dumps(body).encode()))

    key = scene.key(f"embeddings {figures}")
    scene.upstream.push(speak)
    answer = scene.ask(key, "/v1/embeddings", input="a few words to be embedded")
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["status"], row["usage_source"]) == ("ok", "estimated")
    assert 0 < row["cost_nano"] <= row["held_nano"]


async def usage_twice(exchange: Exchange) -> None:
    """The count comes in every chunk, growing, and the last one is nothing."""
    request = exchange.request
    parts = stream_events(request, None)[:-1]
    counts = [usage(completion_tokens=made) for made in (3, 7)] + [usage(prompt_tokens=0, completion_tokens=0)]
    told = [event(chunk(request, None, usage=figures)) for figures in counts]
    await exchange.send(stream_head(), *map(framed, [*parts, *told, DONE]), LAST)


def test_a_count_that_comes_again_counts_once(scene: Scene) -> None:
    key = scene.key("twice")
    scene.upstream.push(usage_twice)
    answer = scene.ask(key, stream=True)
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["usage_source"], row["cost_nano"]) == ("provider", TRUE_COST)


# ---- errors with status 200 -------------------------------------------------------------------------------------


def said(body: Any) -> Behaviour:
    """A 200 with this JSON."""

    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(200, json.dumps(body).encode()))

    return speak


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("error", [{"message": "Overloaded"}, "Overloaded", {"message": "Overloaded", "code": 503}])
def test_an_error_with_status_200_is_free_and_tried_again(scene: Scene, error: Any, *, stream: bool) -> None:
    key = scene.key(f"error {error} {stream}")
    scene.upstream.push(said({"error": error}))
    answer = scene.ask(key, stream=stream)
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "2")
    assert "Overloaded" not in answer.text
    first, second = events(scene.gateway, answer.headers["x-request-id"], 2)
    assert (first["status"], first["http_status"], first["cost_nano"]) == ("error", 200, 0)
    assert (second["status"], second["cost_nano"]) == ("ok", TRUE_COST)
    assert spent(scene.gateway, key) == TRUE_COST


def test_an_error_with_status_200_that_is_the_callers_is_not_tried_again(scene: Scene) -> None:
    key = scene.key("own error")
    heard = len(scene.upstream.calls)
    scene.upstream.push(said({"error": {"message": "max_tokens is too large", "code": 400}}))
    answer = scene.ask(key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert len(scene.upstream.calls) == heard + 1
    assert spent(scene.gateway, key) == 0


@pytest.mark.parametrize("name", ["whole", "stream"])
def test_an_error_with_a_count_is_charged_as_it_was_counted(scene: Scene, name: str) -> None:
    """Cut off in the middle by the provider, which says what it used: it bills that."""
    key = scene.key(f"counted error {name}")

    async def whole_error(exchange: Exchange) -> None:
        body = completion(exchange.request, usage(), "half a sen") | {"error": {"message": "Overloaded", "code": 502}}
        await exchange.send(whole(200, compact(body)))

    async def stream_error(exchange: Exchange) -> None:
        request = exchange.request
        fault = event(chunk(request, {}, "error", usage=usage(), error={"message": "Overloaded", "code": 502}))
        await exchange.send(stream_head(), *map(framed, [*stream_events(request, None)[:3], fault]), LAST)

    scene.upstream.push(whole_error if name == "whole" else stream_error)
    answer = scene.ask(key, stream=name == "stream")
    until(lambda: spent(scene.gateway, key), "a charge")
    first = events_of(scene.gateway, key, 1 if name == "stream" else 2)[0]
    assert (first["status"], first["cost_nano"], first["usage_source"]) == ("error", TRUE_COST, "provider")
    assert answer.status_code == 200


async def counted_then_error(exchange: Exchange) -> None:
    """Words, their count, and then an error."""
    request = exchange.request
    counted = event(chunk(request, None, usage=usage()))
    fault = event({"error": {"message": "The server had an error"}})
    await exchange.send(stream_head(), *map(framed, [*stream_events(request, None)[:3], counted, fault]), LAST)


def test_a_stream_that_errs_after_its_count_is_charged_as_it_was_counted(scene: Scene) -> None:
    key = scene.key("counted, then error")
    scene.upstream.push(counted_then_error)
    answer = scene.ask(key, stream=True)
    assert "[DONE]" not in answer.text
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert (row["status"], row["usage_source"], row["cost_nano"]) == ("error", "provider", TRUE_COST)
    assert spent(scene.gateway, key) == TRUE_COST


# ---- who hangs up -----------------------------------------------------------------------------------------------


async def only_a_head(exchange: Exchange) -> None:
    """A head, and then nothing."""
    await exchange.send(stream_head())
    await exchange.stall()


async def half_a_body(exchange: Exchange) -> None:
    """Half of an answer that is not streamed."""
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    await exchange.stall()


async def all_but_the_end(exchange: Exchange) -> None:
    """Everything, the count too, but not the end marker."""
    await exchange.send(stream_head(), *map(framed, stream_events(exchange.request, usage())[:-1]))
    await exchange.stall()


@dataclass(frozen=True)
class Stage:
    """Where a caller goes: what the provider does at each attempt, and how much of the answer is seen before."""

    behaviours: tuple[Behaviour, ...]
    stream: bool = True
    seen: bytes = b""
    source: str = "none"
    free: int = 0
    """Attempts before, that cost nothing."""


STAGES = {
    "before the head": Stage((behaviours.BY_NAME["stall-first-byte"],)),
    "before the head of a whole answer": Stage((behaviours.BY_NAME["stall-first-byte"],), stream=False),
    "after the head": Stage((only_a_head,)),
    "in a whole answer": Stage((half_a_body,), stream=False),
    "after the first words": Stage((answers.gated,), seen=b"The", source="estimated"),
    "before the end": Stage((all_but_the_end,), seen=b'"stop"', source="provider"),
    "in the second attempt": Stage((behaviours.status(503), answers.gated), seen=b"The", source="estimated", free=1),
    "in the second attempt, unanswered": Stage(
        (behaviours.status(429), behaviours.BY_NAME["stall-first-byte"]), stream=False, free=1
    ),
}


@pytest.mark.parametrize("budget", [Budget("total", CAP), None], ids=["budget", "no budget"])
@pytest.mark.parametrize("stage", list(STAGES))
def test_whoever_goes_pays_once_and_everything_else_comes_back(scene: Scene, stage: str, budget: Budget | None) -> None:
    """One slot, and so few tokens that the estimate would not fit twice: the next call shows that both are back."""
    want, key = STAGES[stage], scene.key(f"{stage} {budget}", budget=budget, parallel=1)
    heard = len(scene.upstream.calls)
    scene.upstream.push(*want.behaviours)
    body = {"model": "sample/ok", "messages": [], "max_tokens": 100, "stream": want.stream}
    with wire(scene.gateway) as line:
        line.send(post(key.secret, json.dumps(body).encode()))
        received = scene.upstream.wait_for(heard + len(want.behaviours))
        if want.seen:
            line.until(want.seen)
        assert scene.ask(key).json()["error"]["code"] == "too_many_parallel_requests"
        line.reset()
    assert received.abandoned.wait(30)
    *before, last = events_of(scene.gateway, key, want.free + 1)
    assert [row["cost_nano"] for row in before] == [0] * want.free
    assert (last["status"], last["usage_source"]) == ("cancelled", want.source)
    expected: dict[str, Callable[[int], bool]] = {
        "none": lambda cost: cost == last["held_nano"],
        "estimated": lambda cost: 0 < cost < last["held_nano"],
        "provider": lambda cost: cost == TRUE_COST,
    }
    assert expected[want.source](last["cost_nano"])
    assert spent(scene.gateway, key) == last["cost_nano"]
    assert scene.ask(key).status_code == 200, "the slot is back"
    until(lambda: spent(scene.gateway, key) == last["cost_nano"] + TRUE_COST, "the next call")


def test_one_who_goes_without_reading_what_was_all_said_pays_once(scene: Scene) -> None:
    key = scene.key("unread", parallel=1)
    heard = len(scene.upstream.calls)
    body = json.dumps({"model": "sample/ok", "messages": [], "max_tokens": 100, "stream": True}).encode()
    for number in range(8):
        with wire(scene.gateway) as line:
            line.send(post(key.secret, body))
            assert scene.upstream.wait_for(heard + number + 1).answered.wait(30)
            _settled(scene, key, number + 1)
            line.reset()
    assert spent(scene.gateway, key) == 8 * TRUE_COST


def _settled(scene: Scene, key: Key, count: int) -> None:
    assert {row["status"] for row in events_of(scene.gateway, key, count)} == {"ok"}


def test_a_child_who_goes_is_paid_for_once_by_itself_and_once_by_its_parent(scene: Scene) -> None:
    parent = scene.key("parent")
    made = scene.gateway.json("keys", "ephemeral", "parent", "--name", "child", "--budget-usd", "1", "--ttl", "1h")
    child = Key(made["id"], made["secret"])
    scene.gateway.hear()
    scene.upstream.push(answers.gated)
    with wire(scene.gateway) as line:
        _go_after(line, child, b"The")
    (row,) = events_of(scene.gateway, child, 1)
    assert row["cost_nano"] > 0
    assert spent(scene.gateway, child) == spent(scene.gateway, parent) == row["cost_nano"]


def _go_after(line: Wire, key: Key, seen: bytes) -> None:
    line.send(post(key.secret, b'{"model":"sample/ok","messages":[],"max_tokens":100,"stream":true}'))
    line.until(seen)
    line.reset()
