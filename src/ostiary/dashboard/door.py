"""The door of /dashboard: finds the page, judges who looks, and answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from html import escape
from importlib import import_module
from typing import Final
from urllib.parse import quote

from ostiary.actor import Denied
from ostiary.dashboard import answers, assets, entrance, forms
from ostiary.dashboard.answers import SAFE, SAID, Answer
from ostiary.dashboard.assets import Assets
from ostiary.dashboard.hall import Hall, Line
from ostiary.dashboard.render import Renderer
from ostiary.dashboard.routes import ANYBODY, ROUTES, SIGNED_IN, Route, Table, check, moved
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.logs import about, get
from ostiary.orgs import sessions

_PATIENCE_S: Final = 60
"""Longer than any page takes; providers are tested on some."""
_TOUCH_MS: Final = 60_000
_PASSING: Final = 503
"""What is away comes back: the same page is worth another look."""

Page = Callable[[Visit], Coroutine[None, None, Answer]]


class Door:
    """Door three. Templates and assets are read at the first page, since many gateways never show one."""

    def __init__(self, hall: Hall, routes: Iterable[Route] = ROUTES) -> None:
        routes = tuple(routes)
        check(routes)
        self._hall = hall
        self._table = Table(routes)
        self._log = get("dashboard")
        self._assets: Assets | None = None
        self._renderer: Renderer | None = None
        self._stem = "req_" + os.urandom(8).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, line: Line) -> None:
        """Answer one request; every refusal is a page that says what to do, every fault is logged and a 503."""
        line.request_id = f"{self._stem}{next(self._numbers):08x}"
        try:
            answer = await self._answer(line)
        except Refusal as refusal:
            answer = self._outside(refusal, line)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            answer = self._outside(Refusal("service_unavailable", "The gateway is stopping. Try again."), line)
        except Exception:  # noqa: BLE001 - the last resort: logged with its trace, answered as a 503
            answer = self._outside(self._failed(line), line)
        if not line.is_gone:
            if not any(name == b"cache-control" for name, _ in answer.headers):
                answer.header(b"cache-control", b"no-store")
            if self._hall.is_https:
                answer.header(b"strict-transport-security", b"max-age=31536000")
            named = [*answer.headers, (b"x-request-id", line.request_id.encode()), *SAFE]
            await line.answer(answer.status, answer.body, named)

    def _failed(self, line: Line) -> Refusal:
        """A fault of ours, logged with its trace; what is said of it tells nothing."""
        with about(line.request_id):
            self._log.exception("page.failed", method=line.method, path=line.path[:200])
        return Refusal("service_unavailable", "The gateway failed at this page; it is in the log.")

    async def _answer(self, line: Line) -> Answer:
        there = moved(line.path)
        if there is not None:
            where = there.encode() + (b"?" + line.query if line.query else b"")
            return Answer(308, b"", [(b"location", where), (b"cache-control", b"no-store")])
        await self._ready()
        if line.path.startswith(assets.PREFIX):
            assert self._assets is not None  # noqa: S101 - it is ready
            return self._assets.answer(line.path, line.query, line.headers.get(b"accept-encoding", b""))
        visit = await self._let_in(line)
        try:
            answer = await self._show(visit)
        except Refusal as refusal:
            await self._note(visit, refusal)
            answer = self._refused(refusal, visit)
        except Exception:  # noqa: BLE001 - logged with its trace; the menu stays, so that one can go elsewhere
            answer = self._refused(self._failed(line), visit)
        if _has_said(visit, answer):
            visit.cookies.append(f"{SAID}=; Path=/dashboard; Max-Age=0")
        answer.headers.extend((b"set-cookie", one.encode("latin-1")) for one in visit.cookies)
        return answer

    async def _let_in(self, line: Line) -> Visit:
        """The visit as far as it is known before anybody is judged."""
        hall = self._hall
        assert self._renderer is not None  # noqa: S101 - it is ready
        route, names = Route("GET", "", ANYBODY, "", ""), dict[str, str]()
        lost: Refusal | None = None
        try:
            route, names = self._table.find(line.method, line.path)
        except Refusal as refusal:
            lost = refusal
        at, address = hall.clock.now(), hall.address_of(line)
        visit = Visit(hall, route, line, self._renderer, at, address, names, forms.read(line.query), forms.Form())
        visit.said = entrance.said_of(line)
        await self._look_who(visit)
        if lost is not None:
            raise _Lost(self._refused(lost, visit))
        return visit

    async def _look_who(self, visit: Visit) -> None:
        """Whom the session stands for at this moment, and in which role; nobody when it is over."""
        token = entrance.token_of(self._hall, visit.line)
        if token is not None:
            async with self._hall.database.read() as tx:
                visit.guest = await entrance.guest_of(tx, token, visit.at, visit.address)

    async def _show(self, visit: Visit) -> Answer:
        route, line = visit.route, visit.line
        if route.is_write:
            entrance.require_own_origin(self._hall, line)
        if route.deed != ANYBODY and visit.guest is None:
            return _sign_in(visit, "session")
        if route.is_write:
            forms.require_form(line.headers.get(b"content-type", b""))
            visit.form = forms.read(await self._body(line))
            await self._look_who(visit)  # while a form came slowly they may have been let go, or given another role
            if route.deed != ANYBODY and visit.guest is None:
                return _sign_in(visit, "session")
        if route.deed != ANYBODY and not entrance.is_of_now(visit):
            return _of_before(visit)
        if route.deed not in (ANYBODY, SIGNED_IN) and route.deed not in visit.by.grants:
            place = visit.here.organization
            visit.by.require(route.deed, place.id if place is not None else None)
        if route.is_guarded and not sessions.is_proved(visit.here.session, visit.at):
            return _sign_in(visit, "proof")
        answer = await self._within(visit)
        if route.is_write:
            await self._hall.hear()
        await self._touch(visit)
        return answer

    async def _within(self, visit: Visit) -> Answer:
        """A deed that was begun is brought to its end, whoever still looks and however long it takes."""
        page: Page = getattr(import_module(f"ostiary.dashboard.{visit.route.module}"), visit.route.function)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._hall.database.to_the_end(page(visit))
        except TimeoutError:
            raise Refusal(
                "service_unavailable", "This takes long, and goes on without you. Look again later."
            ) from None

    async def _body(self, line: Line) -> bytes:
        if int(line.headers.get(b"content-length", b"0")) > forms.MAX_FORM:
            raise Refusal("request_too_large", "The form is larger than 1 MB.")
        found = await line.read_body(self._hall.body_s)
        if len(found) > forms.MAX_FORM:
            raise Refusal("request_too_large", "The form is larger than 1 MB.")
        return found

    async def _touch(self, visit: Visit) -> None:
        """The session goes on; written at most once a minute."""
        guest = visit.guest
        if b"x-ostiary-look" in visit.line.headers:  # the page looks by itself: nobody is there
            return
        if guest is not None and visit.at - guest.session.seen_at >= _TOUCH_MS:
            with suppress(Refusal):  # the page is done, and may hold what is shown once; it is noted at the next look
                async with self._hall.database.transaction() as tx:
                    await sessions.touch(tx, guest.session, visit.at)

    async def _note(self, visit: Visit, refusal: Refusal) -> None:
        """Have the audit log know of what was tried and not allowed."""
        if visit.guest is None or not isinstance(refusal, Denied):
            return
        target = next(iter(visit.names.values()), None)
        kind = visit.route.deed.partition(".")[0].removesuffix("s")
        named = (kind, target, "") if target else None
        await audit.denied(self._hall.database, visit.by, refusal, at=visit.at, target=named)

    def _outside(self, refusal: Refusal, line: Line) -> Answer:
        """Before it is known who looks. A script keeps what was typed."""
        if isinstance(refusal, _Lost):
            return refusal.answer
        if line.headers.get(b"hx-request") == b"true":
            return _toast(refusal, refusal.message)
        if self._renderer is None:
            return _bare(refusal)
        hall, nowhere = self._hall, Route("GET", "", ANYBODY, "", "")
        now, address = hall.clock.now(), hall.address_of(line)
        visit = Visit(hall, nowhere, line, self._renderer, now, address, {}, forms.Form(), forms.Form())
        return self._page(refusal, visit, refusal.message)

    def _refused(self, refusal: Refusal, visit: Visit) -> Answer:
        hidden = Refusal("not_found") if refusal.code == "not_found" else refusal
        said = "There is nothing here: it does not exist, or belongs to another organization."
        message = said if hidden is not refusal else refusal.message
        if visit.is_partial:
            return _toast(refusal, message)
        return self._page(refusal, visit, message)

    def _page(self, refusal: Refusal, visit: Visit, message: str) -> Answer:
        """What a browser shows of a refusal; nothing is asked of the database for it, which may be what is away."""
        is_passing = refusal.status == _PASSING
        said = {"number": refusal.status, "message": message, "is_passing": is_passing}
        answer = visit.page("refused.html", refusal.status, **said, is_look=visit.line.method == "GET")
        answer.headers.extend(refusal.headers)
        return answer

    async def _ready(self) -> None:
        if self._renderer is None:
            self._assets = await asyncio.to_thread(Assets)
            self._renderer = Renderer(self._assets, self._hall.catalog)


class _Lost(Refusal):
    """No such page; answered already, with the menu of who looks."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("not_found")
        self.answer = answer


def _has_said(visit: Visit, answer: Answer) -> bool:
    """Whether this is the page that says the word left for it: no part of one, file or way to elsewhere does.

    A live list may look once more between a deed and the page it leads to; it must not swallow the word.
    """
    if visit.said is None or visit.is_partial or answers.HTML not in answer.headers:
        return False
    return not any(name == b"set-cookie" for name, _ in answer.headers)


def _sign_in(visit: Visit, why: str) -> Answer:
    """To where one signs in; a script shows a dialog instead, so that nothing that was typed is lost."""
    if visit.is_partial:
        return answers.html("", 401).header(b"x-ostiary-sign-in", why).header(b"hx-reswap", "none")
    wanted = visit.line.path if visit.route.method == "GET" else "/dashboard"
    query = f"?{visit.line.query.decode('latin-1')}" if visit.line.query and visit.route.method == "GET" else ""
    where = f"/dashboard/sign-in?why={why}&next={quote(wanted + query, safe='')}"
    return answers.elsewhere(where, is_partial=False)


def _of_before(visit: Visit) -> Answer:
    """To a page of an earlier sign-in, or of another organization. A script asks to sign in again, as above."""
    if visit.is_partial:
        return _sign_in(visit, "page")
    raise Refusal(
        "insufficient_scope", "This form is from an earlier sign-in, or of another organization. Load the page again."
    )


def _toast(refusal: Refusal, message: str) -> Answer:
    """For a script: nothing of the page is replaced, and it is said above it."""
    answer = answers.html("", refusal.status)
    answer.header(b"hx-reswap", "none")
    answer.header(b"hx-trigger", json.dumps({"toast": {"kind": "error", "text": message}}))
    answer.headers.extend(refusal.headers)
    return answer


def _bare(refusal: Refusal) -> Answer:
    """A page without anything around it, for when not even the templates are there."""
    said = escape(refusal.message)
    text = (
        f'<!doctype html><html lang="en"><title>{refusal.status}</title><h1>{refusal.status}</h1><p>{said}</p></html>'
    )
    answer = answers.html(text, refusal.status)
    answer.headers.extend(refusal.headers)
    return answer
