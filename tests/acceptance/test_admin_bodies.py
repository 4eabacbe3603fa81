"""Hostile bodies and heads at the admin API: refused in its own shape, cheaply, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.bureau import Bureau, code, fields
from tests.acceptance.wire import get, post, say, wire
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

pytestmark = pytest.mark.main_job

PATH = "/api/v1/agent-keys"
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        yield Bureau(maker()).open()


@pytest.fixture(autouse=True)
def nothing_is_changed(bureau: Bureau) -> Iterator[None]:
    before = _kept(bureau)
    yield
    assert _kept(bureau) == before


def _kept(bureau: Bureau) -> list[dict[str, Any]]:
    """The agent keys without when they were last used: each request of a test is a use."""
    page = bureau.done("alice", "GET", "/agent-keys")
    assert page["next_cursor"] is None
    return [{name: value for name, value in key.items() if name != "last_used_at"} for key in page["data"]]


def nested(levels: int) -> bytes:
    return b'{"name":"x","metadata":{"x":' + b"[" * levels + b"]" * levels + b"}}"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\x00", 400),
        (b'{"name":"x"} {"name":"y"}', 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"name":"\xff"}', 400),
        ('{"name":"x"}'.encode("utf-16"), 400),
        (b'{"name":"x","name":"y"}', 400),
        (b'{"name":"x","budget":{"limit_usd":"1","limit_usd":"100"}}', 400),
        (b'{"name":"x","n\\u0061me":"y"}', 400),
        (b'{"name":"x","rpm":NaN}', 400),
        (b'{"name":"x","rpm":Infinity}', 400),
        (b'{"name":"x","rpm":-Infinity}', 400),
        (b'{"name":"x","rpm":' + b"9" * 5_000 + b"}", 400),
        (b'{"name":"x","budget":{"limit_usd":1e99999999999999999999}}', 400),
        (b'{"name":"x","budget":{"limit_usd":1e999999999}}', 422),
        (b'{"name":"x","metadata":{"x":1e999}}', 422),
        (nested(70), 400),
        (nested(40), 422),
        (b"[" * 500_000, 400),
        (b'{"a":' * 100_000, 400),
        (b"[]", 422),
        (b'"name"', 422),
        (b"5", 422),
        (b"null", 422),
        (b"", 422),
        (b"{}", 422),
        (b'{"name":"x","__proto__":{}}', 422),
        (b'{"name":"x","constructor":{}}', 422),
        (b'{"name":"x","metadata":{"x":"' + b"y" * (MEGABYTE - 100) + b'"}}', 422),
        (b'{"name":"x","metadata":{' + b",".join(b'"%d":0' % n for n in range(50_000)) + b"}}", 422),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_body_is_refused_with_a_reason(bureau: Bureau, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    answer = bureau.ask("alice", "POST", "/agent-keys", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert code(answer) == ("invalid_request" if status == 400 else "invalid_field")
    assert len(answer.content) < 8_000, "a refusal does not give back what was sent"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"name":"x","rpm":' + b"9" * 5_000 + b"}", f"The body is not JSON: {'9' * 30}… is out of range."),
        (b'{"name":"x","models":[""]}', "models.names.0: String should have at least 1 character."),
        (b'{"name":"x","models":{"mode":"some"}}', "models.choice.mode: Input should be 'all', 'only' or 'none'."),
    ],
    ids=["number", "names", "choice"],
)
def test_a_refusal_speaks_of_what_was_sent(bureau: Bureau, body: bytes, says: str) -> None:
    headers = {"content-type": "application/json"}
    assert bureau.ask("alice", "POST", "/agent-keys", content=body, headers=headers).json()["detail"] == says


@pytest.mark.parametrize("kind", [None, "text/plain", "application/xml", "application/merge-patch+json"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_calls_itself_json(bureau: Bureau, kind: str | None, method: str) -> None:
    if (kind, method) == ("application/merge-patch+json", "PATCH"):
        kind = "application/json; charset=latin-1"
    path = "/agent-keys/alice's" if method == "PATCH" else "/agent-keys"
    headers = {"content-type": kind} if kind else {}
    answer = bureau.ask("alice", method, path, content=b'{"name":"x"}', headers=headers)
    assert (answer.status_code, code(answer)) == (415, "unsupported_media_type")


def test_a_compressed_body_is_not_unpacked(bureau: Bureau) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = bureau.ask("alice", "POST", "/agent-keys", content=b"\x1f\x8b", headers=headers)
    assert code(answer) == "unsupported_media_type"


@pytest.mark.parametrize("size", [MEGABYTE + 1, 9 * MEGABYTE])
def test_a_body_over_a_megabyte_is_refused(bureau: Bureau, size: int) -> None:
    secret = bureau.secrets["alice"]
    with wire(bureau.gateway) as line:  # by its length alone, before a byte of it
        line.send(post(secret, b"", f"content-length: {size}", path=PATH))
        assert line.answer().status == 413
    answer = say(bureau.gateway, *chunked(secret, b"x" * size))
    assert answer.status == 413
    assert answer.json["code"] == "request_too_large"


def chunked(secret: str, body: bytes) -> list[bytes]:
    head = post(secret, b"", "transfer-encoding: chunked", path=PATH)
    return [head, b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n"]


def test_who_may_not_is_refused_before_the_body_is_read(bureau: Bureau) -> None:
    with wire(bureau.gateway) as line:
        line.send(post("ost_pat_nonsense", b"", "content-length: 1000000", path=PATH))
        assert line.answer().status == 401
    with wire(bureau.gateway) as line:
        line.send(post(bureau.secrets["charlie"], b"", "content-length: 1000000", path=PATH))
        assert line.answer().status == 404


def test_who_hangs_up_in_the_middle_leaves_nothing(bureau: Bureau) -> None:
    with wire(bureau.gateway) as line:
        line.send(post(bureau.secrets["alice"], b"", "content-length: 100", path=PATH), b'{"name":"half')
        line.reset()
    assert bureau.ask("alice", "GET", "/agent-keys/half").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_a_method_that_a_path_does_not_take_is_named(bureau: Bureau, method: str) -> None:
    answer = bureau.ask("alice", method, "/agent-keys")
    assert (answer.status_code, code(answer)) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_a_body_where_none_is_taken_is_refused(bureau: Bureau) -> None:
    for method, path in (("GET", "/agent-keys"), ("POST", "/agent-keys/alice's/activate")):
        answer = bureau.ask("alice", method, path, json={"name": "x"})
        assert (answer.status_code, fields(answer)) == (422, {"body"}), path


@pytest.mark.parametrize(
    "path", ["/agent-keys/", "/agent-keys/a/b/c", "//agent-keys", "/agent-keys%2f", "/agent%2Dkeys/"]
)
def test_a_path_leads_where_it_says_or_nowhere(bureau: Bureau, path: str) -> None:
    answer = bureau.ask("alice", "GET", path)
    assert code(answer) == "not_found"


@pytest.mark.parametrize(
    "id", ["%00", "..", "%2e%2e", "%ff", "a%0d%0ab", "%F0%9F%94%91", "'%20OR%201=1--", "x" * 5_000]
)
def test_an_id_that_is_none_is_not_there(bureau: Bureau, id: str) -> None:
    answer = say(bureau.gateway, get(f"{PATH}/{id}", f"authorization: Bearer {bureau.secrets['alice']}"))
    assert answer.status in {400, 404}


def test_a_credential_in_the_url_is_refused(bureau: Bureau) -> None:
    secret = bureau.secrets["alice"]
    answer = bureau.ask(None, "GET", f"/agent-keys?api_key={secret}")
    assert (answer.status_code, code(answer)) == (400, "invalid_request")
    assert secret not in answer.text


def test_two_credentials_are_one_too_many(bureau: Bureau) -> None:
    answer = bureau.ask("alice", "GET", "/agent-keys", headers={"x-api-key": bureau.secrets["erin"]})
    assert (answer.status_code, code(answer)) == (400, "invalid_request")


def test_a_secret_in_the_wrong_place_is_not_given_back(bureau: Bureau) -> None:
    """Who pastes one into a field reads of the field, not of the secret: answers end up in tickets."""
    secret = bureau.secrets["bob"]
    for body in ({"name": "x", "rpm": secret}, {"name": "x", "budget": secret}, {"name": "x", "scopes": {"a": secret}}):
        answer = bureau.ask("alice", "POST", "/agent-keys", json=body)
        assert answer.status_code == 422
        assert secret not in answer.text
