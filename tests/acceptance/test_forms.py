"""Forms with files: hostile ones are refused in words, right ones arrive as they were, and none stays on the disk."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from tests.acceptance import inside
from tests.servers.behaviours import status
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.operations import form_of
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

MODEL = b"openai-compatible/whisper"
MARK = "----boundary0123"
MB = 1024 * 1024


@pytest.fixture(scope="module", name="key")
def the_key(shared_gateway: Gateway) -> inside.Key:
    return inside.mint(shared_gateway, NewAgentKey(name="forms"))[0]


def part(name: str, value: bytes, *, file: str | None = None, head: str = "", mark: str = MARK) -> bytes:
    told = f'; filename="{file}"' if file is not None else ""
    return f'--{mark}\r\nContent-Disposition: form-data; name="{name}"{told}\r\n{head}\r\n'.encode() + value + b"\r\n"


FILE = part("file", b"ID3sound", file="a.mp3")
NAME = part("model", MODEL)
END = f"--{MARK}--\r\n".encode()
RIGHT = NAME + FILE + END


def send(gateway: Gateway, key: inside.Key, body: Any, kind: str | None = None, path: str = "transcriptions") -> Any:
    headers = {"content-type": kind or f"multipart/form-data; boundary={MARK}"}
    return gateway.client(key.secret).post(f"/v1/audio/{path}", content=body, headers=headers)


@pytest.mark.main_job
@pytest.mark.parametrize(
    "body",
    [
        NAME + FILE + END,
        FILE + NAME + END,
        b"\r\n" + FILE + NAME + END,
        FILE + NAME + END + b"an epilogue",
        NAME + part("file", b"ID3sound", file="a.mp3", head="Content-Type: audio/mpeg\r\n") + END,
        NAME.replace(b'"model"', b"model") + FILE + END,
        NAME + part("file", b"ID3sound", file="ä;b=c.mp3") + END,
        NAME + part("file", b"ID3sound", file='a\\"b\\\\') + END,
        NAME + FILE.replace(b'filename="a.mp3"', b"filename*=UTF-8''%C3%A4.mp3") + END,
        NAME + FILE.replace(b'filename="a.mp3"', b"filename=\"a.mp3\"; filename*=UTF-8''%C3%A4.mp3") + END,
    ],
)
def test_right_forms_arrive_whatever_their_order(
    shared_gateway: Gateway, shared_upstream: Upstream, key: inside.Key, body: bytes
) -> None:
    answer = send(shared_gateway, key, body)
    assert answer.status_code == 200, answer.text
    arrived = form_of(shared_upstream.calls[-1])
    assert arrived.keys() == {"file", "model"}
    assert arrived["model"] == [(None, b"whisper")]
    assert arrived["file"][0][1] == b"ID3sound"


def test_other_fields_pass_untouched_and_what_looks_like_a_boundary_is_data(
    shared_gateway: Gateway, shared_upstream: Upstream, key: inside.Key
) -> None:
    sound = b"\r\n--" + MARK.encode()[:-1] + b"\r\n" + bytes(range(256)) + b"\r\n----\r\n--"
    fields = [("prompt", "Öpen\r\nthe door".encode()), ("timestamp_granularities[]", b"word")]
    fields += [("timestamp_granularities[]", b"segment"), ("x_of_their_own", b"\x00\x01 ")]
    whole = b"".join(part(name, value) for name, value in fields)
    answer = send(shared_gateway, key, part("file", sound, file="a.mp3") + whole + NAME + END)
    assert answer.status_code == 200, answer.text
    arrived = form_of(shared_upstream.calls[-1])
    assert arrived["file"] == [("a.mp3", sound)]
    assert arrived["timestamp_granularities[]"] == [(None, b"word"), (None, b"segment")]
    assert [arrived[name][0][1] for name in ("prompt", "x_of_their_own")] == [fields[0][1], fields[3][1]]


TWO = part("model", b"a") + part("model", b"b")
LONG = f'--{MARK}\r\nContent-Disposition: form-data; name="{"x" * 4_000}"\r\n\r\nv\r\n'.encode()
NESTED = part("file", b"--in\r\n\r\nx\r\n--in--", file="a", head="Content-Type: multipart/mixed; boundary=in\r\n")
SMUGGLED = part("zz", b"x").replace(b'"zz"', b'"zz"; filename*="a; name=model; x=y"')
CODED = part("file", b"AAAA", file="a", head="Content-Transfer-Encoding: base64\r\n")


@pytest.mark.main_job
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "last boundary"),
        (NAME + FILE, "last boundary"),
        (RIGHT[:-8], "last boundary"),
        (END, "`model`"),
        (FILE + END, "`model`"),
        (NAME + END, "`file`"),
        (NAME + part("file", b"text") + END, "`file`"),
        (NAME + FILE + FILE + END, "`file`"),
        (TWO + FILE + END, "`model`"),
        (part("model", MODEL, file="m.txt") + FILE + END, "`model`"),
        (part("model", b"\xff") + FILE + END, "`model`"),
        (part("model", b"") + FILE + END, "`model`"),
        (part("model", b"m" * 300) + FILE + END, "`model`"),
        (part("model", b"m\nn") + FILE + END, "`model`"),
        (LONG + NAME + FILE + END, "header"),
        (NAME + b"".join(part("x", b"") for _ in range(10_000)) + FILE + END, "128 parts"),
        (NAME + NESTED + END, "form itself"),
        (NAME + CODED + END, "encoded"),
        (NAME.replace(b"form-data", b"attachment") + FILE + END, "field"),
        (NAME.replace(b'name="model"', b'name="x"; name="model"') + FILE + END, "twice"),
        (NAME.replace(b'name="model"', b'name="x"; naem="model"') + FILE + END, "oddly"),
        (NAME.replace(b'name="model"', b'name="mo\ndel"') + FILE + END, "field"),
        (NAME.replace(b"Content-Disposition: form-data; name", b"X: y; name") + FILE + END, "field"),
        (f"--{MARK}\r\n".encode() + b"A: b\r\n" * 20 + b"\r\nx\r\n" + NAME + FILE + END, "header"),
        (f"--{MARK}\r\n".encode() + b"A" * 200_000, "header"),
        (b"--other\r\n" + RIGHT, "malformed"),
        (RIGHT.replace(b"\r\n", b"\n"), "malformed"),
        (NAME + part("response_format", b"json") * 2 + FILE + END, "more than once"),
        (NAME + part("prompt", b"x" * 300_000) + FILE + END, "longer than"),
        (NAME + FILE + SMUGGLED + END, "`filename*`"),
        (NAME + FILE.replace(b'filename="a.mp3"', b"filename*=UTF-8''") + END, "`filename*`"),
        (NAME + FILE.replace(b"a.mp3", b"") + END, "empty name"),
        (NAME + FILE + part("zz", b"x", file="a") + END, "`zz` cannot be a file here; send files as `file`."),
        (NAME + part("image", b"x", file="a") + END, "`image` cannot be a file here"),
        (NAME + FILE + part("stream", b"yes") + END, "`stream` must be true or false"),
        (NAME + FILE + part("stream", b"") + END, "`stream` must be true or false"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_forms_are_refused_in_words(
    shared_gateway: Gateway, shared_upstream: Upstream, key: inside.Key, body: bytes, says: str
) -> None:
    before = len(shared_upstream.calls)
    answer = send(shared_gateway, key, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalid_request"
    assert says in answer.json()["error"]["message"]
    assert len(shared_upstream.calls) == before


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (f"multipart/form-data; boundary={MARK}; charset=utf-8", 200),
        (f'Multipart/Form-Data; charset="UTF-8"; boundary="{MARK}"', 200),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'b' * 71}", 400),
        ('multipart/form-data; boundary="a b "', 400),
        ("multipart/form-data; boundary=a; boundary=b", 400),
        ("multipart/mixed; boundary=a", 415),
        ("application/json", 415),
        ("text/plain", 415),
    ],
)
def test_a_content_type_is_read_in_one_way_or_refused(
    shared_gateway: Gateway, key: inside.Key, kind: str, code: int
) -> None:
    assert send(shared_gateway, key, RIGHT, kind).status_code == code


def test_a_model_that_is_not_allowed_is_refused_before_anything_is_sent(
    shared_gateway: Gateway, shared_upstream: Upstream
) -> None:
    secret = shared_gateway.create_key("narrow", "--models", "openai-compatible/other")
    before = len(shared_upstream.calls)
    answer = shared_gateway.client(secret).post(
        "/v1/audio/transcriptions", content=RIGHT, headers={"content-type": f"multipart/form-data; boundary={MARK}"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    assert len(shared_upstream.calls) == before


def test_files_of_an_edit_are_its_images(shared_gateway: Gateway, shared_upstream: Upstream, key: inside.Key) -> None:
    before = len(shared_upstream.calls)
    body = NAME + part("image[]", b"PNG", file="a.png") + part("zz", b"x", file="b.png") + END
    headers = {"content-type": f"multipart/form-data; boundary={MARK}"}
    answer = shared_gateway.client(key.secret).post("/v1/images/edits", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "zz")
    assert "`image` or `image[]` or `mask`" in answer.json()["error"]["message"]
    assert len(shared_upstream.calls) == before


# ---- large ones -------------------------------------------------------------------------------------------------


def _large(size: int) -> Iterator[bytes]:
    yield NAME + f'--{MARK}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
    block = os.urandom(65_536)
    for _ in range(size // len(block)):
        yield block
    yield b"\r\n" + END


def _memory(gateway: Gateway) -> int:
    assert gateway.process
    return int(psutil.Process(gateway.process.pid).memory_info().rss)


def _left(gateway: Gateway) -> list[str]:
    """Files of uploads that a process still holds or that have a name."""
    assert gateway.process
    folder = gateway.data_dir / "uploads"
    named = [str(one) for one in folder.iterdir()] if folder.exists() else []
    held = [one.path for one in psutil.Process(gateway.process.pid).open_files()]
    links = [str(one.resolve()) for one in Path(f"/proc/{gateway.process.pid}/fd").iterdir()]
    return named + [one for one in (*held, *links) if str(folder) in one]


def test_memory_does_not_grow_with_the_file(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], forked=False)  # a forked one seems to grow as it parts from the others
    inside.add_provider_keys(gateway, ("openai-compatible", "upstream", upstream.url))
    key = inside.mint(gateway, NewAgentKey(name="large"))[0]
    assert send(gateway, key, RIGHT).status_code == 200
    before = _memory(gateway)
    for _ in range(3):
        answer = send(gateway, key, _large(24 * MB))
        assert answer.status_code == 200, answer.text
    assert len(form_of(upstream.calls[-1])["file"][0][1]) == 24 * MB
    assert _memory(gateway) - before < 15 * MB
    until(lambda: not _left(gateway), "the files to go")


@pytest.mark.parametrize("declared", [True, False])
def test_what_is_too_large_is_refused(shared_gateway: Gateway, key: inside.Key, *, declared: bool) -> None:
    body = b"".join(_large(26 * MB))
    answer = send(shared_gateway, key, body if declared else (body[at : at + MB] for at in range(0, len(body), MB)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "25 MB" in answer.json()["error"]["message"]
    until(lambda: not _left(shared_gateway), "the files to go")


def test_a_form_at_a_route_for_json_stays_small(shared_gateway: Gateway, key: inside.Key) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={MARK}", **key.bearer}
    answer = shared_gateway.client().post("/v1/chat/completions", content=b"".join(_large(12 * MB)), headers=headers)
    assert answer.status_code in (413, 415)


def test_who_hangs_up_in_the_middle_leaves_nothing_behind(shared_gateway: Gateway, key: inside.Key) -> None:
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key.secret}\r\n"
        f"content-type: multipart/form-data; boundary={MARK}\r\ncontent-length: {20 * MB}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", shared_gateway.port)) as caller:
        caller.sendall(head)
        for number, piece in enumerate(_large(20 * MB)):
            caller.sendall(piece)
            if number == 40:
                break
        until(lambda: bool(_left(shared_gateway)), "the file")
    until(lambda: not _left(shared_gateway), "the file to go")


def test_a_large_form_is_sent_again_to_the_next_key(
    gateway: Gateway, upstream: Upstream, keys: Callable[[], inside.Key]
) -> None:
    key = keys()
    upstream.push(status(503))
    answer = send(gateway, key, _large(2 * MB))
    assert answer.status_code == 200, answer.text
    first, second = upstream.calls
    assert form_of(first)["file"] == form_of(second)["file"]
    assert first.key != second.key
    assert answer.headers["x-ostiary-attempts"] == "2"


@pytest.fixture(name="keys")
def the_keys(gateway: Gateway, upstream: Upstream) -> Callable[[], inside.Key]:
    def make() -> inside.Key:
        inside.add_provider_keys(gateway, *(("openai-compatible", name, upstream.url) for name in ("one", "two")))
        return inside.mint(gateway, NewAgentKey(name="twice"))[0]

    return make
