"""Log lines are structured, carry the request id, and let no secret and no terminal code pass."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from ostiary import logs
from ostiary.secret import Secret
from ostiary.settings import Settings

SECRETS = [
    "ost_pat_" + "aB3" * 16 + "x",
    "ost_ck_" + "Zz9" * 10,
    "ost_cs_" + "Zz9" * 10,
    "sk-proj-abcDEF0123456789",
    "sk-ant-api03-abcDEF0123456789",
    "sk_live_abcDEF0123456789",
    "gsk_abcDEF0123456789",
    "xai-abcDEF0123456789",
    "nvapi-abcDEF0123456789",
    "AIzaSyA0123456789abcdefghijk",
    "gAAAAABh0123456789abcdefghijklmnop==",
]


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines(restored: None) -> io.StringIO:  # noqa: ARG001 - a fixture for its effect
    stream = io.StringIO()
    logs.configure(Settings(log_format="json"), stream)
    return stream


def only(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_time_level_logger_and_what_was_said(lines: io.StringIO) -> None:
    logs.get("ostiary.app").info("listening", port=8420)
    line = only(lines)
    assert line["at"].endswith("Z")
    assert (line["level"], line["logger"], line["event"], line["port"]) == ("info", "ostiary.app", "listening", 8420)


def test_lines_within_a_request_carry_its_id(lines: io.StringIO) -> None:
    with logs.about("req_1"):
        logs.get("ostiary").info("inside")
        logging.getLogger("a.library").warning("inside %d", 2)
    logs.get("ostiary").info("outside")
    assert [json.loads(line).get("request_id") for line in lines.getvalue().splitlines()] == ["req_1", "req_1", None]


def test_levels_below_the_chosen_one_are_silent(lines: io.StringIO) -> None:
    logs.get("ostiary").debug("quiet")
    logging.getLogger("a.library").debug("quiet")
    assert lines.getvalue() == ""


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "frame", ["{}", "key={}", "Authorization: Bearer {}", '{{"api_key": "{}"}}', "https://x/?key={}", "({}, 2)"]
)
def test_what_looks_like_a_credential_is_masked_in_any_frame(secret: str, frame: str) -> None:
    assert secret not in logs.redact(frame.format(secret))
    assert secret[-12:] not in logs.redact(frame.format(secret))


@pytest.mark.parametrize(
    "text",
    [
        "Bearer hunter2hunter2",
        "basic dXNlcjpwYXNz",
        "postgresql://ostiary:hunter2hunter2@db/x",
        "password=hunter2hunter2",
        "'x-api-key': 'hunter2hunter2'",
        "master_key = hunter2hunter2",
        "client_secret=hunter2hunter2&x=1",
    ],
)
def test_carriers_of_credentials_are_masked_whatever_they_carry(text: str) -> None:
    assert "hunter2" not in logs.redact(text)
    assert "dXNlcjpwYXNz" not in logs.redact(text)
    assert "***" in logs.redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "ost_pat_3kT9…x2Qa",
        "gpt-4o-mini",
        "the bearer of news",
        "http://127.0.0.1:9000/v1",
        "task-3 is done",
        "a@b.example",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert logs.redact(text) == text


def test_values_are_masked_by_name_type_and_depth(lines: io.StringIO) -> None:
    logs.get("ostiary").info(
        "called",
        secret="canary-1",
        provider_api_key="canary-2",
        held=Secret("canary-3"),
        headers={"Authorization": "canary-4", "accept": "x", "inner": [{"password": "canary-5"}]},
        pairs=[("x", Secret("canary-6"))],
        raw=SECRETS[0].encode(),
        input_tokens=5,
    )
    assert "canary" not in lines.getvalue()
    assert SECRETS[0] not in lines.getvalue()
    assert only(lines)["headers"]["accept"] == "x"
    assert only(lines)["input_tokens"] == 5


def test_tracebacks_are_redacted_and_show_no_locals(lines: io.StringIO) -> None:
    hidden = "canary-local"
    try:
        int(f"refused {SECRETS[0]}")
    except ValueError:
        logs.get("ostiary").exception("broke")
    assert hidden not in lines.getvalue()
    assert SECRETS[0] not in lines.getvalue()
    assert "refused ost_pat_***" in only(lines)["exception"]


def test_a_secret_cut_by_the_length_limit_is_still_masked(lines: io.StringIO) -> None:
    logs.get("ostiary").info("long", text="x " * 1_992 + SECRETS[0])
    assert SECRETS[0][:20] not in lines.getvalue()


def test_a_line_cannot_be_forged_nor_a_terminal_driven(restored: None) -> None:  # noqa: ARG001 - for its effect
    stream = io.StringIO()
    logs.configure(Settings(log_format="console"), stream)
    hostile = "x\n23:59:59 info forged\r\x1b[2J\x9b31m\u2028\u202e"
    logs.get("ostiary").info(hostile, value=hostile, **{hostile: 1})
    logging.getLogger("uvicorn").warning("%s", hostile)
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert not set(text) & set("\r\x1b\x9b\u2028\u202e")


def test_a_console_line_reads_from_left_to_right(restored: None) -> None:  # noqa: ARG001 - for its effect
    stream = io.StringIO()
    logs.configure(Settings(log_format="console"), stream)
    logs.get("ostiary.app").warning("slow disk", ms=12, path="/a b", no=None)
    assert stream.getvalue()[13:] == 'warning  ostiary.app                  slow disk  ms=12 path="/a b" no=null\n'


def test_what_cannot_be_shown_does_not_break_the_call(lines: io.StringIO) -> None:
    class Awkward:
        def __str__(self) -> str:
            raise RuntimeError("no")

    deep: list[Any] = []
    deep.append(deep)
    logs.get("ostiary").info("odd", value=Awkward())
    logs.get("ostiary").info("deep", value=deep, number=float("nan"), big=10**30)
    assert "deep" in lines.getvalue()


def test_a_closed_sink_does_not_break_the_call(restored: None) -> None:  # noqa: ARG001 - for its effect
    stream = io.StringIO()
    logs.configure(Settings(), stream)
    stream.close()
    logs.get("ostiary").info("into nothing")
