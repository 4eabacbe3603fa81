"""What a kept response says of its failure is scrubbed, whole and streamed; all else passes as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiary.providers.openai_errors import CleanEvents, UnreadableError, clean

SECRET = "made-of-words-alone"
OWNER = "org-abcdef123456"
TEXT = f"No credit left for {OWNER} with {SECRET}."
FIT = "No credit left for *** with ***."


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


def passed(*pieces: bytes) -> bytes:
    events = CleanEvents((SECRET,))
    return b"".join([*map(events.feed, pieces), events.close()])


def data(whole: bytes) -> Any:
    return json.loads(whole.split(b"data: ")[1])


@pytest.mark.parametrize(
    "body", [b'{"id": "resp_1",  "error": null}', b'{"id":"resp_1"}', b'{"output":[{"error":"x"}]}']
)
def test_what_has_no_error_is_the_same_bytes(body: bytes) -> None:
    assert clean(body, (SECRET,)) == body


@pytest.mark.parametrize(
    "error", [TEXT, {"code": "server_error", "message": TEXT, "owner": OWNER, "param": {"a": OWNER}}]
)
def test_an_error_in_a_whole_answer_is_scrubbed(error: Any) -> None:
    told = json.loads(clean(json.dumps({"id": "resp_1", "status": "failed", "error": error}).encode(), (SECRET,)))
    kept = FIT if isinstance(error, str) else {"code": "server_error", "message": FIT, "param": None}
    assert told == {"id": "resp_1", "status": "failed", "error": kept}


@pytest.mark.parametrize("body", [b"[]", b"Bad key", b"{", b"[" * 100_000, b"\xff"])
def test_what_cannot_be_read_is_not_passed_on(body: bytes) -> None:
    with pytest.raises(UnreadableError):
        clean(body, ())
    if body != b"\xff":
        with pytest.raises(UnreadableError):
            CleanEvents(()).feed(b"data: " + body + b"\n\n")


def test_events_pass_as_they_came_whatever_the_pieces() -> None:
    whole = b": hello\n\n" + event("response.created", response={"error": None}) + event("x.delta", delta="error")
    whole += b"data: [DONE]\n\n"
    assert passed(whole) == passed(*(whole[at : at + 1] for at in range(len(whole)))) == whole


def test_errors_in_events_are_scrubbed() -> None:
    error = {"code": "server_error", "message": TEXT}
    failed = passed(event("response.failed", sequence_number=3, response={"id": "resp_1", "error": error}))
    assert failed.startswith(b"event: response.failed\ndata: ")
    assert failed.endswith(b"}\n\n")
    told = {"id": "resp_1", "error": {"code": "server_error", "message": FIT}}
    assert data(failed) == {"type": "response.failed", "sequence_number": 3, "response": told}
    plain = passed(event("error", code=None, message=TEXT, sequence_number=4))
    assert data(plain) == {"type": "error", "code": None, "message": FIT, "sequence_number": 4}
    named = passed(b"event: error\ndata: " + json.dumps({"message": TEXT}).encode())
    assert data(named) == {"message": FIT}
    spelt = event("x").replace(b'"type": "x"', b'"type": "\\u0065rror", "\\u006dessage": "' + TEXT.encode() + b'"')
    assert data(passed(spelt))["message"] == FIT
