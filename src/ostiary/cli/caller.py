"""A chat completion as a client makes it: real HTTP, streamed or plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ostiary.errors import Refusal
from ostiary.providers.transport import Answer, Transport, TransportError
from ostiary.secret import Secret

Write = Callable[[str], None]

_OK: Final = 200
_MOST: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    request_id: str
    text: str


async def call(
    transport: Transport,
    url: str,
    secret: Secret,
    model: str,
    question: str,
    *,
    stream: bool,
    write: Write | None,
) -> Reply:
    """Ask, and pass the answer to `write` as it comes. Raises Refusal with what the gateway said instead."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}], "stream": stream}
    headers = [("authorization", f"Bearer {secret.reveal()}"), ("content-type", "application/json")]
    write = write or _nowhere
    try:
        answer = await transport.send("POST", f"{url}/v1/chat/completions", headers, msgspec.json.encode(body))
        if answer.status != _OK:
            raise _refused(answer.status, await answer.read(_MOST))
        text = await _streamed(answer, write) if stream else await _plain(answer, write)
    except TransportError as error:
        raise Refusal("service_unavailable", f"The gateway broke off: {error.text}.") from error
    write("\n")
    return Reply(answer.headers.get("x-request-id", ""), text)


async def _streamed(answer: Answer, write: Write) -> str:
    """Server-sent events, put together from whatever pieces they come in."""
    text, rest = "", b""
    async for chunk in answer.chunks(_MOST):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                piece = _content(msgspec.json.decode(line.removeprefix(b"data: ")), "delta")
                text += piece
                write(piece)
    return text


async def _plain(answer: Answer, write: Write) -> str:
    text = _content(msgspec.json.decode(await answer.read(_MOST)), "message")
    write(text)
    return text


def _content(body: Any, part: str) -> str:  # noqa: ANN401 - JSON of any shape
    if "error" in body:
        raise Refusal("provider_error", str(body["error"].get("message")))
    choices = body.get("choices") or [{}]
    return choices[0].get(part, {}).get("content") or ""


def _refused(status: int, body: bytes) -> Refusal:
    try:
        message = msgspec.json.decode(body)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        message = "without saying why"
    return Refusal("provider_error", f"The call was refused with {status}: {message}")


def _nowhere(_text: str) -> None:
    return None
