"""HTTP as nobody should speak it: malformed, oversized, slow, ambiguous requests never get past the edge."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from select import select

import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.agents.policy import choice_of
from tests.acceptance.inside import Key, events, mint
from tests.acceptance.wire import Answer, Wire, get, post, say, took, wire
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream

MODEL = "openai-compatible/ok"
BODY = json.dumps({"model": MODEL, "messages": []}).encode()
CHAT = "/v1/chat/completions"
MEGABYTE = 1_048_576


@pytest.fixture(scope="module")
def key(shared_gateway: Gateway) -> Key:
    (made,) = mint(shared_gateway, NewAgentKey("edge"))
    return made


def refused(answer: Answer, status: int, code: str) -> str:
    assert (answer.status, answer.code) == (status, code), answer.body
    error = answer.json["error"]
    assert error["type"] in {"invalid_request_error", "not_found_error"}
    assert answer.headers["content-type"] == "application/json"
    return str(error["message"])


# ---- one Host, one framing --------------------------------------------------------------------------------------


@pytest.mark.main_job
@pytest.mark.parametrize("lines", [("host: a", "host: b"), ("host: a", "Host: a"), ("host: a", "x-a: b", "HOST: a")])
def test_two_hosts(shared_gateway: Gateway, lines: tuple[str, ...]) -> None:
    assert "Host" in refused(say(shared_gateway, get("/health", *lines)), 400, "invalid_request")


def test_no_host(shared_gateway: Gateway) -> None:
    assert "Host" in refused(say(shared_gateway, b"GET /health HTTP/1.1\r\n\r\n"), 400, "invalid_request")


@pytest.mark.main_job
@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: 4", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "content-length: 4"),
        ("content-length: 4", "content-length: 4"),
        ("content-length: 4", "content-length: 40"),
        ("content-length: 4, 4",),
        ("content-length: +4",),
        ("content-length: -4",),
        ("content-length: 0x4",),
        ("content-length: four",),
        ("content-length: 99999999999999999999999",),
        ("transfer-encoding: chunked", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "transfer-encoding: identity"),
        ("transfer-encoding: xchunked",),
        ("transfer-encoding: chunked, identity",),
        ("transfer-encoding : chunked",),
        ("content-length : 4",),
        (" content-length: 4",),
        ("x-a: 1", " folded: 2", "content-length: 4"),
        ("bad name: 1", "content-length: 4"),
        ("x-nul: \x00", "content-length: 4"),
        ("no colon",),
    ],
)
def test_a_framing_that_can_be_read_in_two_ways(
    shared_gateway: Gateway, shared_upstream: Upstream, key: Key, lines: tuple[str, ...]
) -> None:
    before = len(shared_upstream.calls)
    with wire(shared_gateway) as line:
        line.send(
            get(CHAT, f"authorization: Bearer {key.secret}", *lines, method="POST"), b"0\r\n\r\n" + get("/v1/key")
        )
        refused(line.answer(), 400, "invalid_request")
        assert line.is_closed()
    assert len(shared_upstream.calls) == before


@pytest.mark.main_job
@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n{}\r\n",
        b"-1\r\n",
        b"2 \r\n{}\r\n",
        b"2\r\n{}}\r\n",
        b"2\n{}\n0\n\n",
        b"ffffffffffffffffff\r\n",
        b"\r\n{}\r\n",
    ],
)
def test_a_bad_chunk(shared_gateway: Gateway, shared_upstream: Upstream, key: Key, chunks: bytes) -> None:
    before = len(shared_upstream.calls)
    with wire(shared_gateway) as line:
        line.send(post(key.secret, b"", "transfer-encoding: chunked"))
        time.sleep(0.05)
        line.send(chunks)
        refused(line.answer(), 400, "invalid_request")
        assert line.is_closed()
    assert len(shared_upstream.calls) == before


def test_a_trailer_is_not_a_header(shared_gateway: Gateway, key: Key) -> None:
    chunked = b"%x\r\n%s\r\n0\r\nauthorization: Bearer %s\r\n\r\n" % (len(BODY), BODY, key.secret.encode())
    head = get(CHAT, "content-type: application/json", "transfer-encoding: chunked", method="POST")
    answer = say(shared_gateway, head + chunked)
    assert (answer.status, answer.code) == (401, "missing_api_key")
    honest = post(key.secret, b"", "transfer-encoding: chunked") + chunked
    assert say(shared_gateway, honest).status == 200


def test_endless_trailers_and_chunk_extensions(shared_gateway: Gateway, key: Key) -> None:
    for endless in (b"0\r\nx-a: ", b"1;a="):
        with wire(shared_gateway, 20) as line, pytest.raises(OSError):  # noqa: PT011 - broken pipe or reset
            line.send(post(key.secret, b"", "transfer-encoding: chunked"), endless)
            for _ in range(30):
                line.send(b"x" * 1_048_576)
                time.sleep(0.01)
    assert say(shared_gateway, get()).status == 200


def test_trailers_without_end_are_refused_before_a_megabyte(shared_gateway: Gateway, key: Key) -> None:
    """Many short ones, each of them complete: no single line is too long."""
    for begun in (
        post(key.secret, b"", "transfer-encoding: chunked"),
        post("nobody", b"", "transfer-encoding: chunked"),
    ):
        with wire(shared_gateway, 20) as line:
            line.send(begun, b"1\r\n{\r\n0\r\n")
            with suppress(OSError):  # broken pipe or reset, as soon as it is noticed
                for _ in range(MEGABYTE // 6_000):
                    line.send(b"a: b\r\n" * 1_000)
            assert is_hung_up(line), "it waits for no more of them"
    assert say(shared_gateway, get()).status == 200


def is_hung_up(line: Wire) -> bool:
    """Whether the gateway hangs up in the end, whatever it says before."""
    try:
        while line.socket.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("version", ["2.0", "1.2", "0.9", "9.9", "3"])
def test_other_versions_of_http(shared_gateway: Gateway, version: str) -> None:
    refused(say(shared_gateway, get(version=version)), 400, "invalid_request")


@pytest.mark.main_job
@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"get /health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /he alth HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_not_http(shared_gateway: Gateway, bytes_: bytes) -> None:
    refused(say(shared_gateway, bytes_), 400, "invalid_request")


# ---- too large --------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_a_head_of_thirty_kilobytes_passes_and_of_more_than_thirty_two_does_not(shared_gateway: Gateway) -> None:
    assert say(shared_gateway, get("/health", "x-a: " + "a" * 30_000)).status == 200
    refused(say(shared_gateway, get("/health", "x-a: " + "a" * 33_000)), 431, "headers_too_large")
    many = [f"x-{i}: " + "a" * 1_000 for i in range(40)]
    refused(say(shared_gateway, get("/health", *many)), 431, "headers_too_large")


@pytest.mark.parametrize("piece", [b"a" * 1_000, b"a\r\nx-a: " * 200])
def test_a_head_without_end(shared_gateway: Gateway, piece: bytes) -> None:
    with wire(shared_gateway) as line:
        line.send(b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: ")
        for _ in range(33_000 // len(piece) + 1):
            line.send(piece)
        refused(line.answer(), 431, "headers_too_large")
        assert line.is_closed()


def test_a_hundred_headers_pass_and_a_hundred_and_one_do_not(shared_gateway: Gateway) -> None:
    assert say(shared_gateway, get("/health", *(f"x-{i}: 1" for i in range(99)))).status == 200
    refused(say(shared_gateway, get("/health", *(f"x-{i}: 1" for i in range(100)))), 431, "headers_too_large")


def test_an_oversized_url(shared_gateway: Gateway) -> None:
    refused(say(shared_gateway, get("/v1/models/" + "a" * 33_000)), 431, "headers_too_large")
    refused(say(shared_gateway, get("/health?" + "a" * 33_000)), 431, "headers_too_large")
    assert len(refused(say(shared_gateway, get("/" + "a" * 20_000)), 404, "not_found")) < 1_000
    assert len(refused(say(shared_gateway, get("/v1/models/" + "a" * 20_000)), 404, "model_not_found")) < 1_000


def test_an_edge_limit_counts_for_the_second_request_of_a_connection_too(shared_gateway: Gateway) -> None:
    with wire(shared_gateway) as line:
        line.send(get(CHAT, "content-length: 5", method="POST"))
        assert line.answer().status == 401  # answered before its body has come
        line.send(b"12345", get())
        assert line.answer().status == 200
        line.send(b"GET /health HTTP/1.1\r\nx-a: ")
        for _ in range(33):
            line.send(b"a" * 1_000)
        refused(line.answer(), 431, "headers_too_large")


# ---- too slow ---------------------------------------------------------------------------------------------------


def test_slow_heads_get_408_after_five_seconds(shared_gateway: Gateway) -> None:
    """All at once, since each takes the five seconds: nothing at all, half a head, a drip, a second request.

    Who only waits between two requests is left alone.
    """
    begun = time.monotonic()
    with (
        wire(shared_gateway) as silent,
        wire(shared_gateway) as half,
        wire(shared_gateway) as drip,
        wire(shared_gateway) as second,
        wire(shared_gateway) as late,
        wire(shared_gateway) as idle,
    ):
        idle.send(get())
        assert idle.answer().status == 200
        half.send(b"GET /health HTTP/1.1\r\nhost: x\r\nx-a")
        second.send(get())
        assert second.answer().status == 200
        second.send(b"\r\nGET /heal")
        late.send(get(CHAT, "content-length: 5", method="POST"))
        assert late.answer().status == 401
        late.send(b"12345GET /heal")
        stood_still = dripping(shared_gateway, drip, silent, half, second, late)
        assert 4.5 < took(begun) < 8 + stood_still
        for line in (silent, half, drip, second, late):
            refused(line.answer(), 408, "request_timeout")
            assert line.is_closed()
        assert say(shared_gateway, get()).status == 200
        idle.send(get())
        assert idle.answer().status == 200


def dripping(gateway: Gateway, drip: Wire, *silent: Wire) -> float:
    """Send a head without end, a byte at a time, until all are answered; for how long the machine did not let us.

    Where it is the gateway that stands still, a question beside it waits as long.
    """
    begun, rounds = time.monotonic(), 0
    drip.send(b"GET /")
    unanswered = {line.socket for line in (drip, *silent)}
    while unanswered:
        answered = select(unanswered, [], [], 0.2)[0]
        unanswered.difference_update(answered)
        if answered:
            continue
        rounds += 1
        if drip.socket in unanswered:
            drip.send(b"a")
        assert say(gateway, get()).status == 200
    return took(begun) - 0.2 * rounds


def test_who_sent_while_the_gateway_did_not_run_was_not_slow(gateways: GatewayMaker) -> None:
    gateway = gateways()
    process = gateway.process
    assert process is not None
    with wire(gateway, 20) as half, wire(gateway, 20) as fresh, wire(gateway, 20) as behind:
        half.send(b"GET /health HTTP/1.1\r\nhost: x\r\nx-a")
        behind.send(get())
        assert behind.answer().status == 200
        behind.send(b"GET /heal")
        assert say(gateway, get()).status == 200, "what was sent before is read"
        process.send_signal(signal.SIGSTOP)
        try:
            half.send(b": b\r\n\r\n")
            fresh.send(get())
            time.sleep(7)
        finally:
            process.send_signal(signal.SIGCONT)
        assert half.answer().status == 200
        assert fresh.answer().status == 200
        behind.send(b"th HTTP/1.1\r\nhost: x\r\n\r\n")
        assert behind.answer().status == 200


# ---- many on one connection -------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(shared_gateway: Gateway, key: Key) -> None:
    with wire(shared_gateway) as line:
        line.send(post(key.secret, BODY) + get("/v1/aliases") + post(key.secret, BODY) + get("/nowhere"))
        answers = [line.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 404]
    assert answers[1].json == {"object": "list", "data": []}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4


def test_who_says_that_no_more_will_come_is_answered_all_the_same(shared_gateway: Gateway) -> None:
    """The answer waits for the end of the loop's round, and the caller's end of the line may come before it."""
    for _ in range(50):
        with wire(shared_gateway) as line:
            line.send(get("/health"))
            line.socket.shutdown(socket.SHUT_WR)
            assert line.answer().status == 200
            assert line.is_closed()


def test_a_pipelined_stream_ends_before_the_next_begins(shared_gateway: Gateway, key: Key) -> None:
    streamed = json.dumps({"model": MODEL, "messages": [], "stream": True}).encode()
    with wire(shared_gateway) as line:
        line.send(post(key.secret, streamed) + post(key.secret, BODY) + post(key.secret, streamed))
        first, second, third = line.answer(), line.answer(), line.answer()
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert third.body.endswith(b"data: [DONE]\n\n")
    assert second.json["object"] == "chat.completion"


def test_more_than_sixty_four_waiting_requests_end_the_connection(gateways: GatewayMaker, upstream: Upstream) -> None:
    """While the first is being answered the others wait in memory: they are counted, and read no further."""
    gateway = gateways(allow=[upstream.origin], forked=False)
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    (made,) = mint(gateway, NewAgentKey("many"))
    gated = post(made.secret, json.dumps({"model": "openai-compatible/gated", "messages": []}).encode())
    with wire(gateway) as line:
        line.send(gated)
        upstream.wait_for(1)
        line.send(get() * 64)
        upstream.gate.set()
        assert [line.answer().status for _ in range(65)] == [200] * 65
        upstream.gate.clear()
        line.send(get())
        assert line.answer().status == 200, "and it goes on"
    before = resident_mb(gateway)
    with wire(gateway) as line:
        line.send(gated)
        upstream.wait_for(2)
        with pytest.raises(OSError):  # noqa: PT011 - broken pipe, reset, or nobody reads any more
            line.socket.settimeout(3)
            for _ in range(2_000):
                line.send(get() * 1_000)
        assert resident_mb(gateway) - before < 30
        upstream.gate.set()
        line.socket.settimeout(10)
        try:
            answered = 0
            while line.answer().status == 200:
                answered += 1
        except OSError:
            pass
        assert answered <= 65
        assert line.is_closed()
    assert say(gateway, get()).status == 200


def resident_mb(gateway: Gateway) -> int:
    assert gateway.process
    pages = int(Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // MEGABYTE


def test_rubbish_after_a_request_does_not_take_its_answer(shared_gateway: Gateway, key: Key) -> None:
    with wire(shared_gateway) as line:
        line.send(post(key.secret, BODY) + b"rubbish\r\n\r\n")
        assert line.answer().status == 200
        assert line.is_closed() or line.answer().status == 400


def test_what_does_not_match_its_length_is_the_next_request(shared_gateway: Gateway, key: Key) -> None:
    with wire(shared_gateway) as line:
        line.send(post(key.secret, BODY + get("/v1/aliases"), f"content-length: {len(BODY)}"))
        assert line.answer().status == 200
        assert line.answer().json == {"object": "list", "data": []}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_wants_the_connection_closed_has_it_closed(shared_gateway: Gateway, version: str) -> None:
    with wire(shared_gateway) as line:
        line.send(get("/health", "connection: close", version=version))
        assert line.answer().status == 200
        assert line.is_closed()


def test_http_1_0(shared_gateway: Gateway, key: Key) -> None:
    with wire(shared_gateway) as line:
        line.send(b"GET /health HTTP/1.0\r\n\r\n")
        answer = line.answer()
        assert (answer.status, answer.json["status"]) == (200, "ok")
        assert line.is_closed()
    old = post(key.secret, BODY).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert say(shared_gateway, old).json["object"] == "chat.completion"
    chunked = post(key.secret, b"0\r\n\r\n", "transfer-encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
    refused(say(shared_gateway, chunked), 400, "invalid_request")


def test_an_offer_to_upgrade_is_ignored(shared_gateway: Gateway, key: Key) -> None:
    """Java's client offers h2c with its first request."""
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAABAAMAAABk")
    with wire(shared_gateway) as line:
        line.send(post(key.secret, BODY, *offer))
        assert line.answer().json["object"] == "chat.completion"
        line.send(post(key.secret, BODY))
        assert line.answer().json["object"] == "chat.completion"


def test_expect_100_continue(shared_gateway: Gateway, key: Key) -> None:
    with wire(shared_gateway) as line:
        line.send(post(key.secret, b"", f"content-length: {len(BODY)}", "expect: 100-continue"))
        assert line.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.send(BODY)
        assert line.answer().status == 200
    with wire(shared_gateway) as line:
        line.send(post("nonsense", b"", f"content-length: {len(BODY)}", "expect: 100-continue"))
        assert line.answer().status == 401


# ---- routes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/v1/models/openai/gpt-4o", "GET, HEAD"),
        ("POST", "/v1/key", "GET, HEAD"),
        ("TRACE", "/v1/key", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(shared_gateway: Gateway, method: str, path: str, allow: str) -> None:
    answer = say(shared_gateway, get(path, "content-length: 0", method=method))
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


def test_head_is_get_without_its_body(shared_gateway: Gateway) -> None:
    with wire(shared_gateway) as line:
        line.send(get(method="HEAD") + get())
        head = line.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert line.answer().json["status"] == "ok"


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/v1",
        "/v1/",
        "/v1/chat/completions/",
        "/V1/chat/completions",
        "//v1/chat/completions",
        "/v1/models/",
        "/v1/../v1/key",
        "/v1/chat%2fcompletions/x",
        "/v1;x/key",
        "/.env",
        "/v1/key%00",
        "/%0d%0aset-cookie:%20a=b",
        "*",
    ],
)
def test_an_unknown_path(shared_gateway: Gateway, key: Key, path: str) -> None:
    answer = say(shared_gateway, get(path, f"authorization: Bearer {key.secret}"))
    assert "/v1" in refused(answer, 404, "not_found")
    assert "set-cookie" not in answer.headers


def test_the_root_leads_people_to_the_dashboard(shared_gateway: Gateway) -> None:
    answer = say(shared_gateway, get("/"))
    assert answer.status == 308
    assert answer.headers["location"] == "/dashboard"


def test_the_host_decides_nothing(shared_gateway: Gateway) -> None:
    for line in ("host: evil.example", "host: 127.0.0.1:1", "host:"):
        assert say(shared_gateway, get("/health", line)).status == 200
    assert say(shared_gateway, get("http://evil.example/health", "host: x")).status == 200


def test_every_answer_says_how_to_treat_it(shared_gateway: Gateway, key: Key) -> None:
    for request in (get(), get("/nowhere"), post(key.secret, BODY), post(key.secret, b"{")):
        headers = say(shared_gateway, request).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"].startswith("req_")
        assert "server" not in headers


# ---- whose address ----------------------------------------------------------------------------------------------


def test_forwarded_addresses_are_ignored_where_nobody_is_trusted(shared_gateway: Gateway) -> None:
    near, far = mint(
        shared_gateway,
        NewAgentKey("near", addresses=choice_of(["127.0.0.1"])),
        NewAgentKey("far", addresses=choice_of(["203.0.113.0/24"])),
    )
    for name in ("x-forwarded-for", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip"):
        forged = f"{name}: {'for=' if name == 'forwarded' else ''}203.0.113.9"
        answer = say(shared_gateway, post(near.secret, BODY, forged))
        assert answer.status == 200
        assert events(shared_gateway, answer.headers["x-request-id"])[0]["client_ip"] == "127.0.0.1"
        refusal = say(shared_gateway, post(far.secret, BODY, forged))
        assert (refusal.status, refusal.code) == (403, "ip_not_allowed")


def test_a_trusted_proxy_is_walked_from_the_right(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], env={"OSTIARY_TRUSTED_PROXIES": "127.0.0.0/8, 10.0.0.0/8"})
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    (far,) = mint(gateway, NewAgentKey("far", addresses=choice_of(["203.0.113.0/24"])))
    for lines, status in (
        (("x-forwarded-for: 203.0.113.9",), 200),
        (("x-forwarded-for: 198.51.100.1, 203.0.113.9, 10.1.1.1",), 200),
        (("x-forwarded-for: 198.51.100.1", "x-forwarded-for: 203.0.113.9"), 200),
        (("x-forwarded-for: 203.0.113.9, 198.51.100.1",), 403),
        (("x-forwarded-for: 203.0.113.9, nonsense, 10.1.1.1",), 403),
        ((), 403),
    ):
        answer = say(gateway, post(far.secret, BODY, *lines))
        assert answer.status == status, lines
        if status == 200:
            assert events(gateway, answer.headers["x-request-id"])[0]["client_ip"] == "203.0.113.9"


def test_addresses_of_either_kind_are_let_in_by_their_ranges(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], env={"OSTIARY_TRUSTED_PROXIES": "127.0.0.0/8"})
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    lists = {"v4": "192.0.2.128/25", "mapped": "::ffff:192.0.2.128/121", "v6": "2001:db8:1::/48", "one": "2001:db8::7"}
    wishes = [NewAgentKey(name, addresses=choice_of([text])) for name, text in lists.items()]
    keys = dict(zip(lists, mint(gateway, *wishes), strict=True))
    for address, admitted in (
        ("192.0.2.128", {"v4", "mapped"}),
        ("::ffff:192.0.2.255", {"v4", "mapped"}),
        ("::ffff:c000:2ff", {"v4", "mapped"}),
        ("192.0.2.127", set()),
        ("2001:DB8:1:ffff::1", {"v6"}),
        ("2001:db8:2::1", set()),
        ("2001:0db8:0000::0007", {"one"}),
        ("2001:db8::8", set()),
        ("::192.0.2.128", set()),
    ):
        answers = {
            name: say(gateway, post(key.secret, BODY, f"x-forwarded-for: {address}")) for name, key in keys.items()
        }
        assert {name for name, answer in answers.items() if answer.status == 200} == admitted, address
        assert {answer.code for answer in answers.values() if answer.status != 200} <= {"ip_not_allowed"}


@pytest.mark.parametrize("trusted", ["127.0.0.0/8", ""])
def test_the_admin_door_believes_of_addresses_what_the_other_does(gateways: GatewayMaker, trusted: str) -> None:
    gateway = gateways(env={"OSTIARY_TRUSTED_PROXIES": trusted} if trusted else {})
    gateway.cli("members", "add", "alice@example.org", "--role", "owner")
    options = ("--owner", "alice@example.org", "--scopes", "gate:usage,admin:agent-keys:write")
    client = gateway.client(gateway.create_key("far", *options, "--ip", "203.0.113.0/24"))
    path, forwarded = "/api/v1/agent-keys", {"x-forwarded-for": "198.51.100.1, 203.0.113.9"}
    refused = client.post(path, json={"name": "from nowhere"})
    assert (refused.status_code, refused.json()["code"]) == (403, "ip_not_allowed")
    forged = client.post(path, json={"name": "from the left"}, headers={"x-forwarded-for": "203.0.113.9, 198.51.100.1"})
    assert forged.status_code == 403
    made = client.post(path, json={"name": "from afar"}, headers=forwarded)
    assert made.status_code == (201 if trusted else 403), made.text
    deeds = gateway.json("audit", "list", "--target", "from afar")
    assert [deed["address"] for deed in deeds] == (["203.0.113.9"] if trusted else [])
    if trusted:
        gateway.canaries.watch(made.json()["secret"])
