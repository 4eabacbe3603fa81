"""The door of /api: finds the route, judges who asks, and answers in one transaction."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from ostiary.actor import Denied
from ostiary.admin import body, problem
from ostiary.admin.office import Line, Office
from ostiary.admin.routes import ROUTES, Route, Table, check
from ostiary.admin.store import Claim
from ostiary.admin.visit import Replayed, Visit
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.logs import about, get

if TYPE_CHECKING:
    from ostiary.admin.api import Api

Headers = list[tuple[bytes, bytes]]

_SCHEMA: Final = "/api/v1/openapi.json"
_DOCS: Final = frozenset({"/api", "/api/", "/api/docs"})
_MOST_PAIRS: Final = 50
_AT_ONCE: Final = 4
"""Of the database's ten connections: calls need some, however busy the admins are."""
_JSON: Final = (b"content-type", b"application/json")
_CLAIM: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_SAFE: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


@dataclass(slots=True)
class Answer:
    """What is sent: built in memory, because nothing may be said before the transaction has been kept."""

    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take it from an ASGI application."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kept = (b"content-type", b"location")
            self.headers = [(name, value) for name, value in message["headers"] if name in kept]
        else:
            self.body += message.get("body", b"")


class Door:
    """Door two. What answers is built at the first request that is let in: FastAPI costs memory and half a second."""

    def __init__(self, office: Office, routes: Iterable[Route] = ROUTES) -> None:
        self._routes = tuple(routes)
        check(self._routes)
        self._office = office
        self._table = Table(self._routes)
        self._log = get("admin")
        self._api: Api | None = None
        self._building = asyncio.Lock()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._stem = "req_" + os.urandom(8).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, line: Line) -> None:
        """Answer one request; every refusal is a problem of RFC 9457, every fault is logged and a 503."""
        line.request_id = f"{self._stem}{next(self._numbers):08x}"
        try:
            answer = await self._answer(line)
        except Refusal as refusal:
            answer = _refused(refusal, line)
        except asyncio.CancelledError:
            # The caller hung up, or the drain is over. Who still listens hears why.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            answer = _refused(Refusal("service_unavailable", "The gateway is stopping. Try again."), line)
        except Exception:  # noqa: BLE001 - the last resort: logged with its trace, answered as a 503
            with about(line.request_id):
                self._log.exception("request.failed", method=line.method, path=line.path[:200])
            message = "The gateway failed at this request; it is in the log."
            answer = _refused(Refusal("service_unavailable", message), line)
        if not line.is_gone:
            named = [*answer.headers, (b"x-request-id", line.request_id.encode()), *_SAFE]
            await line.answer(answer.status, answer.body, named)

    async def _answer(self, line: Line) -> Answer:
        if line.path == _SCHEMA or line.path in _DOCS:
            return await self._show(line)
        route, target = self._table.find(line.method, line.path)
        office = self._office
        known = await office.identify(line)
        visit = Visit(office, route, known, office.address_of(line), office.clock.now(), target)
        try:
            return await self._serve(visit, line)
        except Refusal as refusal:
            await _note(visit, refusal)
            raise problem.hidden(refusal) from refusal.__cause__

    async def _serve(self, visit: Visit, line: Line) -> Answer:
        visit.organization, query = _organization(line.query)
        async with self._room:
            await visit.admit()
        content = await body.read(line, self._office.body_s)
        parsed = None
        if content:
            body.require_json(line)
            parsed = body.parse(content)
        visit.claim = _claim(line, visit, content)
        api = await self._built()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": visit.route.method,
            "path": line.path,
            "raw_path": line.path.encode(),
            "root_path": "",
            "query_string": query,
            "headers": [(b"content-type", b"application/json")] if content else [],
            "ostiary.visit": visit,
            "ostiary.body": parsed,
        }
        async with self._room:
            # A deed that was begun is brought to its end, whether its caller still listens or not.
            answer = await self._office.database.to_the_end(_do(api, scope, content, visit))
        if visit.route.is_write:
            await self._office.hear()
        return answer

    async def _show(self, line: Line) -> Answer:
        """The description of the routes, for everybody: it holds no data."""
        if line.method not in ("GET", "HEAD"):
            raise Refusal("method_not_allowed", headers=((b"allow", b"GET, HEAD"),))
        api = await self._built()
        if line.path == _SCHEMA:
            return Answer(200, [_JSON], api.schema)
        return Answer(200, [(b"content-type", b"text/html; charset=utf-8")], api.page)

    async def _built(self) -> Api:
        if self._api is None:
            async with self._building:
                if self._api is None:
                    self._api = await asyncio.to_thread(_build, self._routes)
        return self._api


def _build(routes: tuple[Route, ...]) -> Api:
    from ostiary.admin.api import Api  # noqa: PLC0415 - imports FastAPI, which a gateway without admins never needs

    return Api(routes)


async def _do(api: Api, scope: dict[str, Any], content: bytes, visit: Visit) -> Answer:
    answer = Answer()
    pending = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return pending.pop() if pending else {"type": "http.disconnect"}

    try:
        async with visit:
            await api.answer(scope, receive, answer.send)
            await visit.keep(answer.status, _without_secrets(answer))
    except Replayed as replayed:
        kept = replayed.kept
        again = (b"idempotency-replayed", b"true")
        if kept.answer is None:
            return Answer(kept.status, [again])
        return Answer(kept.status, [_JSON, again], msgspec.json.encode(kept.answer))
    return answer


def _organization(query: bytes) -> tuple[str | None, bytes]:
    """The organization that is asked for, and what else is asked."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PAIRS)
    except ValueError:
        raise Refusal("invalid_request", "The query string cannot be read.") from None
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Refusal("invalid_field", "This parameter stands twice.", param=twice[:100])
    asked = dict(pairs)
    return asked.pop("organization", None), urlencode(asked).encode()


async def _note(visit: Visit, refusal: Refusal) -> None:
    """Have the audit log know of what was tried and not allowed."""
    if not visit.is_admitted or not (isinstance(refusal, Denied) or refusal.code == "insufficient_scope"):
        return
    deed = None if isinstance(refusal, Denied) else visit.route.deed
    kind = visit.route.deed.partition(".")[0].removesuffix("s")
    target = (kind, visit.target, "") if visit.target else None
    await audit.denied(visit.office.database, visit.by, refusal, at=visit.at, deed=deed, target=target)


def _claim(line: Line, visit: Visit, content: bytes) -> Claim | None:
    """What an Idempotency-Key stands for: this key's holder, and everything that was asked."""
    given = line.all_of(b"idempotency-key")
    if not given or not visit.route.is_write:
        return None
    if len(given) > 1 or not _CLAIM.fullmatch(given[0]):
        raise Refusal("invalid_field", "Idempotency-Key is 1 to 255 visible ASCII characters.", param="idempotency-key")
    asked = (line.method.encode(), line.path.encode(), line.query, content)
    digest = hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in asked)).digest()
    key = visit.known.key
    return Claim(visit.organization_id, key.id if key else "", given[0].decode(), digest)


def _without_secrets(answer: Answer) -> object:
    """The answer as it may be kept and given again: a secret is in the first one only."""
    if not answer.body:
        return None
    said = msgspec.json.decode(answer.body)
    for one in (said, *said.get("data", ())):
        one.pop("secret", None)
    return said


def _refused(refusal: Refusal, line: Line) -> Answer:
    headers = problem.headers_of(refusal)
    if any(name == b"connection" for name, _ in headers):
        line.keep_alive = False
    kept = [(name, value) for name, value in headers if name != b"connection"]
    return Answer(refusal.status, kept, problem.body_of(refusal, line.request_id))
