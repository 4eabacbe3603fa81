"""Everything a provider has ever done to a gateway, by name: a request's `model` picks one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.servers import answers, faults
from tests.servers.upstream import Behaviour, Exchange, Received, Upstream
from tests.servers.wire import ORGANIZATION, completion, usage, whole

# ---- errors, as providers word them -----------------------------------------------------------------------------


def refuse(status: int, message: str, code: str | None = None, *lines: bytes) -> Behaviour:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}

    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(status, json.dumps(body).encode(), *lines))

    return speak


def said(status: int, body: bytes, *lines: bytes) -> Behaviour:
    """A whole answer with exactly this body."""

    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(status, body, *lines))

    return speak


def right(*lines: bytes) -> Behaviour:
    """A right answer, with these lines in its head."""

    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(200, json.dumps(completion(exchange.request, usage())).encode(), *lines))

    return speak


def raw(*parts: bytes, keep: bool = False) -> Behaviour:
    """Exactly these bytes."""

    async def speak(exchange: Exchange) -> None:
        exchange.keep = keep
        await exchange.send(*parts)

    return speak


async def unauthorized(exchange: Exchange) -> None:
    """OpenAI's own 401: it quotes the key and says whose it is."""
    text = f"Incorrect API key provided: {exchange.request.key}. Owner {ORGANIZATION}, billing@owner.example."
    await refuse(401, text, "invalid_api_key")(exchange)


def status(number: int) -> Behaviour:
    """The usual words for a status."""
    retry = (b"retry-after: 7", b"x-ratelimit-remaining-requests: 0")
    known = {
        401: unauthorized,
        402: refuse(402, "Insufficient balance", "insufficient_balance"),
        403: refuse(403, f"Project of {ORGANIZATION} does not have access to this model", "model_not_found"),
        404: refuse(404, "The model does not exist or you do not have access to it.", "model_not_found"),
        429: refuse(
            429, f"Rate limit reached in organization {ORGANIZATION} on requests per min", "rate_limit", *retry
        ),
    }
    return known.get(number) or refuse(number, f"Said {number} by {ORGANIZATION}", None)


quota: Final = refuse(429, f"You exceeded your current quota, {ORGANIZATION}", "insufficient_quota")
"""The 429 that no waiting helps against."""


async def list_models(exchange: Exchange) -> None:
    """What `GET /models` gives."""
    data = [{"id": name, "object": "model", "owned_by": "upstream"} for name in exchange.upstream.models]
    await exchange.send(whole(200, json.dumps({"object": "list", "data": data}).encode()))


# ---- names ------------------------------------------------------------------------------------------------------

_NAMED: Final = {
    name.replace("_", "-"): behaviour
    for module in (answers, faults)
    for name, behaviour in vars(module).items()
    if inspect.iscoroutinefunction(behaviour)
}
BY_NAME: Final[dict[str, Behaviour]] = {"ok": answers.answer(), "quota": quota, **_NAMED}
"""Model names that pick a behaviour; `status-NNN` does, too. Any other name is answered well."""


def chooser(upstream: Upstream) -> Callable[[Received], Behaviour]:
    """How `upstream` picks a behaviour for a request."""

    def pick(request: Received) -> Behaviour:
        if upstream.keys is not None and request.key not in upstream.keys:
            return unauthorized
        if request.method == "GET" and "/responses/" not in request.target:
            return list_models
        name = request.model.rpartition("/")[2]
        if name.startswith("status-"):
            return status(int(name.removeprefix("status-")))
        return BY_NAME.get(name, BY_NAME["ok"])

    return pick


@contextmanager
def serving(port: int = 0) -> Iterator[Upstream]:
    """An upstream with all of these behaviours. Fails the test that made one of them stumble."""
    upstream = Upstream()
    upstream.choose = chooser(upstream)
    with upstream.running(port):
        yield upstream
    assert not upstream.faults, f"the upstream itself went wrong: {upstream.faults}"
