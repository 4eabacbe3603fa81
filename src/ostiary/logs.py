"""Structured lines with a request id; the redactor no secret passes."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TextIO

import msgspec

from ostiary.clock import SystemClock, moment
from ostiary.secret import Secret
from ostiary.settings import Settings

# Where rich is installed structlog takes it along, for tracebacks that print every local variable: 3 MB we never use.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402 - what stands before decides what it takes along
from structlog.stdlib import BoundLogger, ProcessorFormatter  # noqa: E402 - as above
from structlog.typing import EventDict, Processor  # noqa: E402 - as above

del sys.modules["rich"]
if _rich is not None:
    sys.modules["rich"] = _rich

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("ostiary_request_id", default=None)
"""Set by the gateway at the head of each request; every line written in its context carries it."""

_MASK: Final = "***"
_MAX_TEXT: Final = 4_000
_MAX_TRACE: Final = 20_000
_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 100
_NAME_WIDTH: Final = 28

_SECRETS: Final = (
    (re.compile(r"\b(ost_(?:pat|eph|ck|cs|inv)_)[0-9A-Za-z]{9,}"), rf"\1{_MASK}"),
    (re.compile(r"\b(sk|rk|pk|gsk|xai|nvapi|hf|fw|csk|pplx|r8|tgp|ghp|gho|glpat)([-_])[\w-]{8,}"), rf"\1\2{_MASK}"),
    (re.compile(r"\b(whsec_)[\w+/=]{20,}"), rf"\1{_MASK}"),
    (re.compile(r"\bAIza[\w-]{20,}"), f"AIza{_MASK}"),
    (re.compile(r"\bgAAAA[\w=-]{20,}"), f"gAAAA{_MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)(\s+)(?!\*\*\*)[\w.~+/=:-]{4,}"), rf"\1\2{_MASK}"),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{_MASK}@"),
    (
        re.compile(
            r"(?i)(['\"]?\b(?:authorization|x-api-key|api[-_]?key|x-goog-api-key|api[-_]?secret|client[-_]?secret|"
            r"secret|password|passwd|master[-_]?key)['\"]?\s*[=:]\s*['\"]?)(?!\*\*\*|bearer|basic)[^\s'\",;&}]{4,}"
        ),
        rf"\1{_MASK}",
    ),
)
_SECRET_NAME: Final = re.compile(
    r"(?i)^(.*[-_])?(authorization|api[-_]?key|secret|password|passwd|cookie|master[-_]?key|pepper|data[-_]?key)s?$"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_PLAIN: Final = re.compile(r"[\w./:@+*…-]+")


def get(name: str) -> BoundLogger:
    """The logger of a module: `log = logs.get(__name__)`; what is said is one short event and named values."""
    logger: BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def about(request_id: str) -> Iterator[None]:
    """Lines within carry this request id."""
    token = REQUEST_ID.set(request_id)
    try:
        yield
    finally:
        REQUEST_ID.reset(token)


def redact(text: str) -> str:
    """A text without what looks like a credential, and without what would act on a terminal."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return plain(text)


def plain(text: str) -> str:
    """A text whose control characters, new lines and tabs apart, are spelled out."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Sends every line of this process, ours and the libraries', through the redactor to `stream` (standard error)."""
    shared: list[Processor] = [_stamp, _name_request]
    render = _as_json if settings.log_format == "json" else _as_line
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _clean,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.raiseExceptions = False  # a full disk or a closed pipe must not print the line it could not write
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=False,
    )


def _stamp(logger: Any, method: str, event: EventDict) -> EventDict:  # noqa: ANN401 - structlog's own signature
    record: logging.LogRecord | None = event.get("_record")
    name: str = record.name if record else getattr(logger, "name", "ostiary")
    level = record.levelname.lower() if record else method
    at = moment(SystemClock().now()).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"at": at, "level": "error" if level == "exception" else level, "logger": name, **event}


def _name_request(_logger: Any, _method: str, event: EventDict) -> EventDict:  # noqa: ANN401 - as above
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def _clean(_logger: Any, _method: str, event: EventDict) -> EventDict:  # noqa: ANN401 - as above
    return {redact(name): _clean_value(name, value, 0) for name, value in event.items()}


def _clean_value(name: str, value: object, depth: int) -> object:
    if isinstance(value, Secret) or (name and _SECRET_NAME.match(name) and value is not None):
        return _MASK
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:_MAX_ITEMS]
        return {redact(str(key)): _clean_value(str(key), inner, depth + 1) for key, inner in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean_value("", inner, depth + 1) for inner in list(value)[:_MAX_ITEMS]]
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
    limit = _MAX_TRACE if name == "exception" else _MAX_TEXT
    clean = redact(text[: 4 * limit])  # before the last cut, which could leave half a secret that looks like none
    return clean if len(clean) <= limit else clean[:limit] + "…"


def _as_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:  # noqa: ANN401 - as above
    return msgspec.json.encode(event).decode()


def _as_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:  # noqa: ANN401 - as above
    """`23:06:15.123 info     ostiary.app  listening  host=127.0.0.1`; only a traceback takes lines of its own."""
    at, level, name = (str(event.pop(key)) for key in ("at", "level", "logger"))
    said = _one_line(str(event.pop("event", "")))
    trace = event.pop("exception", None)
    rest = " ".join(f"{_one_line(key)}={_shown(value)}" for key, value in event.items())
    line = f"{at[11:23]} {level:<8} {name:<{_NAME_WIDTH}} {said}  {rest}".rstrip()
    return line if trace is None else line + "\n" + "\n".join(f"  | {part}" for part in str(trace).splitlines())


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if _PLAIN.fullmatch(text) else msgspec.json.encode(text).decode() if isinstance(value, str) else text
