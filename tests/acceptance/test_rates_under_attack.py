"""Several processes on one database, hammered: no window is ever passed, in sum and in any minute, and none is lost."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostiary.orgs import organizations
from tests.acceptance.cluster import Cluster
from tests.acceptance.inside import OPERATOR, do
from tests.servers import answers, gateway
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import Shell
from tests.servers.upstream import Behaviour, Exchange, Upstream
from tests.servers.waiting import until
from tests.servers.wire import LAST, framed, stream_head, streams, usage
from tests.servers.wire import events as stream_events

_MODEL = "openai-compatible/ok"
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="
_PROCESSES = 4
_DAY_S = 86_400
_SERVED, _REFUSED = 200, 429
_TRUE_TOKENS = 18
"""What each answer of the upstream says it used."""


class Time:
    """One clock for all processes: a test moves it, or lets it run fast."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._least = self._most = 0.0
        self.move(0.0)

    def move(self, ahead: float) -> None:
        """Be so far ahead of the machine; to processes a moment between this call and its end."""
        self._most = ahead
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(ahead))
        fresh.replace(self.file)
        self._least = ahead

    @property
    def ahead(self) -> float:
        """How far it is ahead of the machine."""
        return self._most

    def before(self) -> float:
        """No process has seen an earlier time than this, from now on."""
        return time.time() + self._least

    def after(self) -> float:
        """No process has seen a later time than this, until now."""
        return time.time() + self._most

    @contextmanager
    def running(self, fast: float) -> Iterator[None]:
        """Let it run so many times as fast as the machine's while the block runs."""
        over, begun, base = threading.Event(), time.monotonic(), self.ahead

        def run() -> None:
            while not over.wait(0.02):
                self.move(base + (time.monotonic() - begun) * (fast - 1))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt: it was judged at some moment from `sent` to `heard`."""

    sent: float
    heard: float
    answer: httpx2.Response

    @property
    def is_served(self) -> bool:
        return self.answer.status_code == _SERVED


@dataclass(slots=True)
class World:
    """Four gateways on one database, their provider, and their common time."""

    gateways: Sequence[Gateway]
    upstream: Upstream
    time: Time
    url: str
    """Of their database."""
    names: Iterator[int] = field(default_factory=itertools.count)

    def key(self, *options: str) -> str:
        """A new agent key that all of them know."""
        secret = self.gateways[0].create_key(f"key-{next(self.names)}", "--expires", "never", *options)
        self.hear()
        return secret

    def hear(self) -> None:
        """Until all of them know what was done so far, and are sure of their time."""
        secret = self.gateways[0].create_credential(f"all-heard-{next(self.names)}")
        for one in self.gateways:
            client = one.client(secret)
            until(lambda client=client: client.get("/v1/key").status_code == _SERVED, "a process to hear", 30)  # type: ignore[misc]

    def most_leased(self) -> int:
        """The largest part of any window that a process has."""
        found = Cluster(self.gateways, self.url).sql("SELECT MAX(amount) AS most FROM window_leases")
        return int(found[0]["most"] or 0)

    def shift(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self.time.move(self.time.ahead + seconds)
        self.hear()

    def ask(self, number: int, secret: str, **more: Any) -> Tried:
        """One call at one of the processes."""
        sent = self.time.before()
        answer = self.gateways[number % _PROCESSES].chat(secret, more.pop("model", _MODEL), **more)
        return Tried(sent, self.time.after(), answer)

    def hammer(self, secrets: Sequence[str], go_on: Callable[[int], bool], pause_s: float, **more: Any) -> list[Tried]:
        """Two callers at each process, each with the next of the secrets, while `go_on` says so of what was tried."""
        tried: list[Tried] = []

        def run(number: int) -> None:
            gateway, secret = self.gateways[number % _PROCESSES], secrets[number // _PROCESSES % len(secrets)]
            body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **more}
            with httpx2.Client(headers={"authorization": f"Bearer {secret}"}, timeout=30) as client:
                while go_on(len(tried)):
                    sent = self.time.before()
                    answer = client.post(f"{gateway.url}/chat/completions", json=body)
                    tried.append(Tried(sent, self.time.after(), answer))
                    time.sleep(pause_s)

        with ThreadPoolExecutor(2 * _PROCESSES) as pool:
            for one in [pool.submit(run, number) for number in range(2 * _PROCESSES)]:
                one.result()
        return tried

    def limit_organization(self, **limits: int | None) -> None:
        """Edit the organization's own limits; all of them have heard."""

        async def deed(base: Any, tx: Any, organization: Any) -> None:
            await organizations.change(tx, OPERATOR, organization.id, limits, base.clock.now())

        do(self.gateways[0], deed)
        self.hear()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    shared_upstream: Upstream,
) -> Iterator[World]:
    root = tmp_path_factory.mktemp("rates")
    url = f"sqlite:///{root / 'shared.db'}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.url(server.make())
    env = {"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY": _MASTER_KEY}
    shared = Time(root / "clock")
    with gateway.making(root, canaries, shell) as maker:
        for _ in range(_PROCESSES):
            one = maker(allow=[shared_upstream.origin], env=env, clock=True, start=False)
            one.clock_file.symlink_to(shared.file)
        maker.made[0].start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Gateway.start, maker.made[1:]))
        maker.made[0].add_provider_key("openai-compatible", "upstream", shared_upstream.url)
        made = World(maker.made, shared_upstream, shared, url)
        made.hear()
        yield made


def served(tried: Sequence[Tried]) -> list[Tried]:
    """Those that were served; the others were refused, or their process was not sure of its time."""
    codes = {one.answer.status_code for one in tried}
    assert {_SERVED, _REFUSED} <= codes <= {_SERVED, _REFUSED, 503}, codes
    return [one for one in tried if one.is_served]


def most_in(tried: Sequence[Tried], seconds: float) -> int:
    """The most calls that were served for certain within any so many seconds: begun and over in them."""
    return max(
        sum(1 for other in tried if other.sent >= one.sent and other.heard <= one.sent + seconds) for one in tried
    )


def refusal(one: Tried, code: str) -> dict[str, Any]:
    """The error of a refused call, which says when to try again."""
    error: dict[str, Any] = one.answer.json()["error"]
    assert (one.answer.status_code, error["code"]) == (_REFUSED, code), error
    assert int(one.answer.headers["retry-after"]) == error["retry_after_s"] >= 1
    return error


# ---- requests a minute ------------------------------------------------------------------------------------------


def test_sixty_a_minute_are_sixty_in_any_minute(world: World) -> None:
    """600 attempts from four processes over two boundaries of the clock's minute."""
    secret = world.key("--rpm", "60")
    heard, attempts, spread_s = len(world.upstream.calls), 600, 135
    begun = world.time.before()
    with world.time.running(8):
        tried = world.hammer(
            [secret], lambda count: count < attempts or world.time.before() < begun + spread_s, spread_s / 8 / 75
        )
    good = served(tried)
    assert len(tried) >= attempts
    assert most_in(good, 60) <= 60
    assert most_in(good, 10_000) == len(good) <= 60 * ((tried[-1].heard - begun) // 60 + 1)
    assert len(good) >= 2 * 45, "and little was wasted"
    assert len(world.upstream.calls) - heard == len(good), "what was refused cost nobody anything"
    for one in tried:
        if one.answer.status_code == _REFUSED:
            error = refusal(one, "rate_limit_exceeded")
            assert (error["scope"], error["limit"]) == ("agent_key", 60)
            assert error["retry_after_s"] <= 60
    for one in good:
        limit, left, reset = (
            one.answer.headers[f"x-ratelimit-{word}-requests"] for word in ("limit", "remaining", "reset")
        )
        assert limit == "60"
        assert 0 <= int(left) < 60
        assert 0 <= int(reset.removesuffix("s")) <= 60


def test_refusals_consume_nothing_and_the_organization_counts_beside_the_key(world: World) -> None:
    keys = [world.key("--rpm", "20") for _ in range(2)]
    world.limit_organization(rpm=4)
    try:
        tried = [world.ask(number, keys[number // _PROCESSES % 2]) for number in range(4 * _PROCESSES)]
        good = served(tried)
        assert most_in(good, 60) <= 4
        assert len(good) >= 4
        assert {one.answer.headers["x-ratelimit-limit-requests"] for one in good} == {"4"}, "the least is told"
        for one in tried:
            if one.answer.status_code == _REFUSED:
                error = refusal(one, "rate_limit_exceeded")
                assert (error["scope"], error["limit"]) == ("organization", 4), "the keys' own were never reached"
                assert "of the organization" in error["message"]
    finally:
        world.limit_organization(rpm=None)
    again = [world.ask(number, keys[number // _PROCESSES % 2]) for number in range(20 * _PROCESSES)]
    good += served(again)
    if again[-1].heard - good[0].sent < 60:
        assert len(good) == 2 * 20, "all that the keys had, but what was served"
    assert most_in(good, 60) <= 2 * 20
    world.shift(61)
    assert [world.ask(number, keys[0]).answer.status_code for number in range(_PROCESSES)] == [_SERVED] * _PROCESSES


# ---- requests a day ---------------------------------------------------------------------------------------------


def test_a_day_ends_at_midnight_for_all(world: World) -> None:
    secret = world.key("--rpd", "20")
    midnight = (world.time.before() // _DAY_S + 1) * _DAY_S
    world.shift(midnight - world.time.before() - 60)
    tried = world.hammer([secret], lambda count: count < 60, 0.01)
    with world.time.running(8):
        tried += world.hammer([secret], lambda count: count < 120 or world.time.before() < midnight + 60, 0.03)
    for _ in range(10):  # a process that did not run meanwhile has kept what it leased of the day
        if len(served(tried)) < 40:
            tried += world.hammer([secret], lambda count: count < 40, 0.05)
    good = served(tried)
    before = [one for one in good if one.heard < midnight]
    after = [one for one in good if one.sent >= midnight]
    assert len(before) <= 20
    assert len(after) <= 20
    assert len(good) == 40, "both days, and all of both"
    for one in tried:
        if one.answer.status_code == _REFUSED:
            wait = refusal(one, "daily_rate_limit_exceeded")["retry_after_s"]
            ends = midnight if one.heard < midnight else midnight + _DAY_S
            if one.heard < midnight or one.sent >= midnight:
                assert ends - one.heard <= wait <= ends - one.sent + 1


def test_a_day_outlives_processes_that_are_killed(world: World) -> None:
    now = world.time.before()
    world.shift((_DAY_S * 3 // 2 - now % _DAY_S) % _DAY_S)  # noon: the day does not end meanwhile
    secret = world.key("--rpd", "9")
    assert [world.ask(number, secret).answer.status_code for number in range(6)] == [_SERVED] * 6
    for one in world.gateways[:2]:
        one.kill()
        one.start()
    world.hear()
    rest = [world.ask(number, secret).answer.status_code for number in range(6 * _PROCESSES)]
    assert rest.count(_SERVED) == 3
    assert set(rest) == {_SERVED, _REFUSED}


# ---- tokens a minute --------------------------------------------------------------------------------------------


def test_tokens_are_trued_up_and_never_passed_in_any_minute(world: World) -> None:
    secret = world.key("--tpm", "1000")
    one_by_one = [world.ask(number, secret, max_tokens=100) for number in range(20)]
    assert {one.answer.status_code for one in one_by_one} == {_SERVED}, "each thought to use a good hundred, used 18"
    for one in one_by_one:
        limit, left, reset = (
            one.answer.headers[f"x-ratelimit-{word}-tokens"] for word in ("limit", "remaining", "reset")
        )
        assert limit == "1000"
        assert 0 <= int(left) < 1_000
        assert 0 <= int(reset.removesuffix("s")) <= 60
    too_large = world.ask(0, secret, max_tokens=2_000)
    assert "No call may be as large" in refusal(too_large, "token_limit_exceeded")["message"]
    begun = world.time.before()
    with world.time.running(8):
        tried = world.hammer([secret], lambda count: count < 400 or world.time.before() < begun + 100, 0.15)
    good = served([*one_by_one, *tried])
    assert most_in(good, 60) * _TRUE_TOKENS <= 1_000
    assert len(good) * _TRUE_TOKENS >= 1_000, "and little was wasted"
    for one in tried:
        if one.answer.status_code == _REFUSED:
            assert refusal(one, "token_limit_exceeded")["limit"] == 1_000


def test_tokens_used_above_their_estimate_are_known_to_all(world: World) -> None:
    """An answer much longer than was thought leaves so much less to the other processes."""
    secret = world.key("--tpm", "4000")
    with answering(world.upstream, answers.answer(usage(completion_tokens=3_489))):
        assert world.ask(0, secret, max_tokens=100).is_served
    until(lambda: world.most_leased() >= 3_500, "what it has used to be everybody's knowledge")
    with answering(world.upstream, answers.answer(usage(completion_tokens=289))):
        rest = [world.ask(number, secret, max_tokens=300) for number in range(24) if number % _PROCESSES]
    taken = 3_500 + 300 * sum(one.is_served for one in rest)
    assert taken <= 4_000
    assert {one.answer.status_code for one in rest} <= {_SERVED, _REFUSED}


@contextmanager
def answering(upstream: Upstream, behaviour: Behaviour) -> Iterator[None]:
    """The upstream answers every call so while the block runs."""
    choose = upstream.choose
    upstream.choose = lambda request: choose(request) if request.method == "GET" else behaviour
    try:
        yield
    finally:
        upstream.choose = choose


# ---- calls at once ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Meter:
    """Counts what is open at the upstream; in its one loop, so exactly."""

    open: int = 0
    most: int = 0

    def around(self, behaviour: Behaviour) -> Behaviour:
        """The same, counted."""

        async def speak(exchange: Exchange) -> None:
            self.open += 1
            self.most = max(self.most, self.open)
            try:
                await behaviour(exchange)
            finally:
                self.open -= 1

        return speak


@contextmanager
def metered(upstream: Upstream, behaviour: Behaviour) -> Iterator[Meter]:
    """Every call is answered so while the block runs, and counted."""
    meter = Meter()
    with answering(upstream, meter.around(behaviour)):
        yield meter


async def unhurried(exchange: Exchange) -> None:
    """A right answer that takes its time; its end is the last that is done."""
    request = exchange.request
    if streams(request):
        *parts, last = stream_events(request, usage())
        await exchange.send(stream_head(), *map(framed, parts))
        await exchange.pause(0.1)
        await exchange.send(framed(last), LAST)
    else:
        await exchange.pause(0.1)
        await answers.answer()(exchange)


@pytest.mark.parametrize("stream", [False, True])
def test_never_more_at_once_than_allowed(world: World, *, stream: bool) -> None:
    secret = world.key("--parallel", "3")
    end = time.monotonic() + 4
    with metered(world.upstream, unhurried) as meter:
        tried = world.hammer([secret], lambda count: count < 60 or time.monotonic() < end, 0.005, stream=stream)
        until(lambda: not meter.open, "all of them over")
    assert meter.most == 3, "never more, and as many as allowed"
    assert served(tried)
    for one in tried:
        if one.answer.status_code == _REFUSED:
            assert refusal(one, "too_many_parallel_requests")["limit"] == 3


def test_slots_come_back_after_a_hang_up_and_after_a_death(world: World) -> None:
    secret = world.key("--parallel", "3")
    heard = len(world.upstream.calls)
    with metered(world.upstream, _gated_streams) as meter:
        opened = [_stream(world, number, secret) for number in range(3)]
        world.upstream.wait_for(heard + 3)
        assert meter.open == 3
        for number in range(_PROCESSES):
            refusal(world.ask(number, secret), "too_many_parallel_requests")
        opened[0].close()
        until(lambda: meter.open == 2, "the hang-up")
        _await_slot(world, secret, range(_PROCESSES))
        world.gateways[1].kill()
        until(lambda: meter.open == 1, "the death")
        _await_slot(world, secret, (0, 2, 3))
        world.gateways[1].start()
        others = [_stream(world, number, secret) for number in (1, 3)]
        assert meter.open == 3, "what it held is to be had again"
        refusal(world.ask(0, secret), "too_many_parallel_requests")
        for one in (opened[2], *others):
            one.close()
        until(lambda: not meter.open, "the others")
        _await_slot(world, secret, range(_PROCESSES))
        assert meter.most == 3
    world.hear()


async def _gated_streams(exchange: Exchange) -> None:
    """Streams wait, whole answers are given at once."""
    await (answers.gated if streams(exchange.request) else answers.answer())(exchange)


def _stream(world: World, number: int, secret: str) -> httpx2.Response:
    """A stream that goes on until it is closed, as soon as a process gives it a slot."""
    client = world.gateways[number].client(secret)
    body = {"model": _MODEL, "messages": [], "stream": True}
    found: list[httpx2.Response] = []

    def is_open() -> bool:
        answer = client.send(client.build_request("POST", "/v1/chat/completions", json=body), stream=True)
        if answer.status_code != _SERVED:
            answer.close()
            return False
        found.append(answer)
        return True

    until(is_open, "a slot", 20)
    return found[0]


def _await_slot(world: World, secret: str, numbers: Iterable[int]) -> None:
    for number in numbers:
        until(lambda number=number: world.ask(number, secret).is_served, f"a slot at process {number}", 20)  # type: ignore[misc]
