"""Callers who hang up, or hardly read: the provider is told to stop, the call is settled once, the rest comes back."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from select import select
from typing import Any

import httpx2
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.limits.budgets import Budget
from tests.acceptance.brisk import brisk
from tests.acceptance.inside import USD, Key, add_provider_keys, events, events_of, mint, rows, set_prices, spent
from tests.acceptance.wire import Wire, get, post, say, took, wire
from tests.servers.canaries import Canaries
from tests.servers.gateway import NO_TLS, Gateway
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange, Received, Upstream
from tests.servers.waiting import require_prompt, until
from tests.servers.wire import LAST, chunk, event, framed, stream_head, usage
from tests.servers.wire import events as stream_events

MODEL = "openai-compatible/ok"
CAP = USD * 17 // 100
"""Room for one hold of a little over 10 cents, not for two."""
TRUE_COST = 11 * 100_000 + 7 * 1_000_000
GOING: list[Callable[[Wire], None]] = [lambda line: line.socket.close(), lambda line: line.reset()]
"""How clients go: with a word, and without."""
WAYS = pytest.mark.parametrize("go", GOING, ids=["closes", "resets"])


@dataclass
class Scene:
    """The gateway, its provider, and as many keys as are asked for."""

    gateway: Gateway
    upstream: Upstream

    def key(self, name: str, **wish: Any) -> Key:
        (made,) = mint(self.gateway, NewAgentKey(name, **{"budget": Budget("total", CAP), "rpm": 100, **wish}))
        return made

    def next_call(self) -> Callable[[], Received]:
        """What gives the next call that the provider hears."""
        count = len(self.upstream.calls) + 1
        return lambda: self.upstream.wait_for(count)

    def remaining(self, key: Key) -> tuple[int, int]:
        """Requests of this minute, and nano-dollars, that a key has left."""
        with httpx2.Client(base_url=self.gateway.origin, headers=key.bearer, verify=NO_TLS, timeout=20) as client:
            limits = client.get("/v1/key").json()["limits"]
        return limits["requests_per_minute"]["remaining"], round(float(limits["budget"]["remaining_usd"]) * USD)

    def require_settled(self, key: Key, cost: int) -> None:
        """The key has paid so much and no more; all else that it had can be held again."""
        assert spent(self.gateway, key) == cost
        assert self.remaining(key)[1] == CAP - cost
        answer = self.gateway.chat(key.secret, MODEL, max_tokens=100)
        assert answer.status_code == (200 if CAP - cost >= USD * 12 // 100 else 402)


def furnished(upstream: Upstream) -> Callable[[Gateway], None]:
    def furnish(gateway: Gateway) -> None:
        add_provider_keys(gateway, ("openai-compatible", "upstream", upstream.url))
        models = [f"openai-compatible/{name}" for name in ("ok", "gated", "slow-stream", "stall-first-byte")]
        set_prices(gateway, *models, input_usd=100, output_usd=1_000)

    return furnish


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> Iterator[Scene]:
    """Whose gateway waits for providers as long as it always does: here only callers give up."""
    folder, furnish = tmp_path_factory.mktemp("hang-up"), furnished(shared_upstream)
    with brisk(folder, canaries, shell, [shared_upstream.origin], furnish, patient=True) as gateway:
        yield Scene(gateway, shared_upstream)


@pytest.fixture(scope="module")
def hasty(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> Iterator[Scene]:
    """Whose gateway has little patience with slow callers."""
    folder, furnish = tmp_path_factory.mktemp("hasty"), furnished(shared_upstream)
    allow = [shared_upstream.origin]
    with brisk(
        folder, canaries, shell, allow, furnish, TOTAL_S="60", BODY_S="1.5", STALLED_S="1.5", LINGER_S="8"
    ) as gateway:
        yield Scene(gateway, shared_upstream)


def body(model: str = MODEL, **more: Any) -> bytes:
    messages = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 100, **more}).encode()


# ---- each stage -------------------------------------------------------------------------------------------------


@WAYS
def test_while_sending_the_body(scene: Scene, go: Callable[[Wire], None]) -> None:
    key = scene.key(f"body {GOING.index(go)}")
    before = len(scene.upstream.calls)
    for sent in (0, 10):
        with wire(scene.gateway) as line:
            line.send(post(key.secret, body()[:sent], f"content-length: {len(body())}"))
            time.sleep(0.05)
            go(line)
    time.sleep(0.2)
    assert len(scene.upstream.calls) == before
    assert scene.remaining(key) == (100, CAP)
    events_of(scene.gateway, key, 0)


@pytest.mark.main_job
@WAYS
@pytest.mark.parametrize("stream", [False, True])
def test_before_the_provider_answers(scene: Scene, go: Callable[[Wire], None], stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    key = scene.key(f"early {GOING.index(go)} {stream}")
    call = scene.next_call()
    with wire(scene.gateway) as line:
        line.send(post(key.secret, body("openai-compatible/stall-first-byte", stream=stream)))
        received = call()
        go(line)
    assert received.abandoned.wait(30)
    (row,) = events_of(scene.gateway, key, 1)
    assert (row["status"], row["usage_source"], row["http_status"]) == ("cancelled", "none", 0)
    assert row["cost_nano"] == row["held_nano"] > 0
    scene.require_settled(key, row["cost_nano"])


async def only_a_head(exchange: Exchange) -> None:
    """A head, who speaks, and nothing more."""
    role = event(chunk(exchange.request, {"role": "assistant", "content": ""}))
    await exchange.send(stream_head(), framed(role))
    await exchange.stall()


@WAYS
def test_after_the_providers_head(scene: Scene, go: Callable[[Wire], None]) -> None:
    key = scene.key(f"head {GOING.index(go)}")
    scene.upstream.push(only_a_head)
    call = scene.next_call()
    with wire(scene.gateway) as line:
        line.send(post(key.secret, body(stream=True)))
        received = call()
        time.sleep(0.1)
        go(line)
    assert received.abandoned.wait(30)
    (row,) = events_of(scene.gateway, key, 1)
    assert (row["status"], row["usage_source"]) == ("cancelled", "none")
    assert row["cost_nano"] == row["held_nano"]


@pytest.mark.main_job
@WAYS
def test_in_the_middle_of_the_stream(scene: Scene, go: Callable[[Wire], None]) -> None:
    key = scene.key(f"middle {GOING.index(go)}")
    call = scene.next_call()
    with wire(scene.gateway) as line:
        line.send(post(key.secret, body("openai-compatible/gated", stream=True)))
        line.until(b"The")
        go(line)
    assert call().abandoned.wait(30)
    (row,) = events_of(scene.gateway, key, 1)
    assert (row["status"], row["usage_source"], row["http_status"]) == ("cancelled", "estimated", 200)
    assert 0 < row["cost_nano"] < row["held_nano"]
    scene.require_settled(key, row["cost_nano"])


async def all_but_the_end(exchange: Exchange) -> None:
    """Everything, usage too, but not the end marker."""
    await exchange.send(stream_head(), *map(framed, stream_events(exchange.request, usage())[:-1]))
    await exchange.stall()


@WAYS
def test_just_before_the_end(scene: Scene, go: Callable[[Wire], None]) -> None:
    key = scene.key(f"end {GOING.index(go)}")
    scene.upstream.push(all_but_the_end)
    call = scene.next_call()
    with wire(scene.gateway) as line:
        line.send(post(key.secret, body(stream=True, stream_options={"include_usage": True})))
        line.until(b'"completion_tokens"')  # who is told has what it used counted
        go(line)
    assert call().abandoned.wait(30)
    (row,) = events_of(scene.gateway, key, 1)
    assert (row["status"], row["usage_source"], row["cost_nano"]) == ("cancelled", "provider", TRUE_COST)
    scene.require_settled(key, TRUE_COST)


async def half_a_body(exchange: Exchange) -> None:
    """Half of an answer that is not streamed."""
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    await exchange.stall()


def test_in_the_middle_of_a_whole_answer(scene: Scene) -> None:
    key = scene.key("whole")
    scene.upstream.push(half_a_body)
    call = scene.next_call()
    with wire(scene.gateway) as line:
        line.send(post(key.secret, body()))
        received = call()
        time.sleep(0.05)
    assert received.abandoned.wait(30)
    (row,) = events_of(scene.gateway, key, 1)
    assert (row["status"], row["usage_source"], row["cost_nano"]) == ("cancelled", "none", row["held_nano"])


def test_at_any_moment_a_call_is_settled_once_and_paid_for(scene: Scene) -> None:
    """Each caller goes a little later than the one before."""
    key = scene.key("any moment", budget=Budget("total", 100 * USD), rpm=None)
    before = len(scene.upstream.calls)
    callers = 18
    for moment in range(callers):
        with wire(scene.gateway) as line:
            line.send(post(key.secret, body("openai-compatible/slow-stream" if moment % 2 else MODEL, stream=True)))
            time.sleep(moment * (0.03 if moment % 2 else 0.0005))
            GOING[moment % 3 == 0](line)
    time.sleep(0.3)
    until(lambda: all(call.abandoned.is_set() or call.answered.is_set() for call in scene.upstream.calls), "the end")
    heard = len(scene.upstream.calls) - before
    until(lambda: len(rows(scene.gateway, "SELECT 1 FROM usage_events WHERE agent_key_id = ?", key.id)) >= heard, "all")
    until(lambda: spent(scene.gateway, key) == _cost(scene, key), "a moment at which nothing is being written")
    found = rows(scene.gateway, "SELECT * FROM usage_events WHERE agent_key_id = ?", key.id)
    assert heard <= len(found) <= callers
    assert len({row["request_id"] for row in found}) == len(found)
    assert all(row["cost_nano"] <= row["held_nano"] for row in found)
    assert sum(row["cost_nano"] > 0 for row in found) >= heard
    assert {row["status"] for row in found} <= {"ok", "cancelled"}


def _cost(scene: Scene, key: Key) -> int:
    """What all calls of a key came to."""
    found = rows(scene.gateway, "SELECT sum(cost_nano) AS cost FROM usage_events WHERE agent_key_id = ?", key.id)
    return int(found[0]["cost"] or 0)


# ---- while waiting for money ------------------------------------------------------------------------------------


def test_in_the_line_for_money(scene: Scene) -> None:
    key = scene.key("line")
    call = scene.next_call()
    with wire(scene.gateway) as holder, wire(scene.gateway) as waiting:
        holder.send(post(key.secret, body("openai-compatible/gated")))
        first = call()
        waiting.send(post(key.secret, body()))
        time.sleep(0.3)
        waiting.reset()
        for _ in range(2):  # who answers this has heard of what came before it
            assert say(scene.gateway, get()).status == 200
        scene.upstream.gate.set()
        assert holder.answer().status == 200
    scene.upstream.gate.clear()
    assert first.answered.wait(30)
    time.sleep(0.3)
    (row,) = events_of(scene.gateway, key, 1)
    assert row["cost_nano"] == TRUE_COST
    assert scene.upstream.calls[-1] is first
    assert scene.remaining(key) == (99, CAP - TRUE_COST)


# ---- one connection, one call after the other -------------------------------------------------------------------


async def end_without_ending(exchange: Exchange) -> None:
    """A right stream whose HTTP does not end after its end marker."""
    await exchange.send(stream_head(), *map(framed, stream_events(exchange.request, usage())))
    await exchange.pause(0.8)
    await exchange.send(LAST)


def test_the_second_call_of_a_connection_is_watched_while_the_first_is_still_being_put_away(scene: Scene) -> None:
    key = scene.key("second", budget=Budget("total", USD))
    scene.upstream.push(end_without_ending)
    with wire(scene.gateway) as line:
        line.send(post(key.secret, body(stream=True)))
        assert line.answer().body.endswith(b"data: [DONE]\n\n")
        call = scene.next_call()
        line.send(post(key.secret, body("openai-compatible/gated")))
        received = call()
        time.sleep(1.0)  # the first is put away now
    assert received.abandoned.wait(30)
    first, second = events_of(scene.gateway, key, 2)
    assert (first["status"], second["status"]) == ("ok", "cancelled")


# ---- slow ones --------------------------------------------------------------------------------------------------


async def flood(exchange: Exchange) -> None:
    """Words without end, as fast as they are taken."""
    words = framed(event(chunk(exchange.request, {"content": "word " * 2_000})))
    await exchange.send(stream_head())
    while True:
        await exchange.send(words)
        await asyncio.sleep(0)


def test_a_reader_who_does_not_read_is_cut_off(hasty: Scene) -> None:
    key = hasty.key("slow reader")
    hasty.upstream.push(flood)
    call = hasty.next_call()
    with wire(hasty.gateway) as line:
        begun = time.monotonic()
        line.send(post(key.secret, body(stream=True)))
        line.until(b"word")
        assert call().abandoned.wait(30)
        assert took(begun) > 1.2
    (row,) = events_of(hasty.gateway, key, 1)
    assert (row["status"], row["usage_source"]) == ("cancelled", "estimated")
    assert row["cost_nano"] == row["held_nano"]  # it had sent more than was allowed
    assert hasty.gateway.client().get("/health").status_code == 200


def test_a_slow_reader_who_reads_is_left_alone(hasty: Scene) -> None:
    async def long(exchange: Exchange) -> None:
        words = framed(event(chunk(exchange.request, {"content": "word " * 2_000})))
        await exchange.send(
            stream_head(), *[words] * 3_000, *map(framed, stream_events(exchange.request, usage())), LAST
        )

    for number in range(4):
        key = hasty.key(f"patient reader {number}", budget=Budget("total", USD))
        hasty.upstream.push(long)
        with wire(hasty.gateway) as line:
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            line.send(post(key.secret, body(stream=True)))
            has_ended, longest_s = read_slowly(line)
        if has_ended or longest_s < 1:  # else it was this reader that stood still, which says nothing
            break
    assert has_ended
    (row,) = events_of(hasty.gateway, key, 1)
    assert (row["status"], row["cost_nano"]) == ("ok", TRUE_COST)


def read_slowly(line: Wire) -> tuple[bool, float]:
    """Read a stream, slowly for its first seconds: whether its end came, and the longest time between two pieces.

    A third of what the kernel holds has to go before more is taken, several times.
    """
    begun = read_at = time.monotonic()
    longest_s, end = 0.0, b""
    while b"[DONE]" not in end:
        try:
            piece = line.socket.recv(65_536)
        except ConnectionResetError:
            piece = b""
        longest_s, read_at = max(longest_s, took(read_at)), time.monotonic()
        if not piece:
            return False, longest_s
        end = end[-10:] + piece
        if took(begun) < 3.0:
            time.sleep(0.02)
    return True, longest_s


def test_a_body_that_comes_too_slowly(hasty: Scene) -> None:
    before = len(hasty.upstream.calls)

    def trial(number: int) -> list[float]:
        key = hasty.key(f"slow body {number}")
        begun = time.monotonic()
        with wire(hasty.gateway) as line:
            line.send(post(key.secret, body()[:5], f"content-length: {len(body())}"))
            for byte in body()[5:15]:
                line.send(bytes([byte]))
                if select([line.socket], [], [], 0.12)[0]:  # it has its answer: this caller stood still
                    break
            answer = line.answer()
            taken = took(begun)
            assert (answer.status, answer.code) == (408, "request_timeout")
            assert line.is_closed()
        assert len(hasty.upstream.calls) == before
        assert hasty.remaining(key) == (100, CAP)
        return [taken]

    require_prompt(trial, 4, callers=0)


def test_the_rest_of_a_refused_body_is_thrown_away_but_not_for_ever(hasty: Scene) -> None:
    with wire(hasty.gateway) as line:
        line.send(get("/v1/chat/completions", "content-length: 5000000", method="POST"), b"x" * 1_000_000)
        assert line.answer().status == 401
        line.send(b"x" * 4_000_000, get())
        assert line.answer().status == 200
        begun = time.monotonic()
        line.send(get("/v1/chat/completions", "content-length: 5000000", method="POST"), b"x" * 1_000)
        assert line.answer().status == 401
        assert line.is_closed()
        assert took(begun) > 7.5


def test_nobody_who_left_was_our_fault(scene: Scene, hasty: Scene) -> None:
    for word in ("call.failed", "Traceback", "Exception in ASGI", "never retrieved"):
        assert word not in scene.gateway.output + hasty.gateway.output


def test_what_was_written_down_and_what_was_answered_agree(scene: Scene) -> None:
    key = scene.key("last")
    answer = scene.gateway.chat(key.secret, MODEL, max_tokens=5)
    assert events(scene.gateway, answer.headers["x-request-id"])[0]["cost_nano"] == TRUE_COST
    accounts = "SELECT coalesce(sum(leased_nano), 0) FROM accounts"
    leases = "SELECT coalesce(sum(amount_nano - used_nano), 0) FROM leases"
    (sums,) = rows(scene.gateway, f"SELECT ({accounts}) AS leased, ({leases}) AS held")  # of one moment
    assert sums["leased"] == sums["held"]
