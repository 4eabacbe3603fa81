"""The door of the dashboard, over raw HTTP and in the browser: every route of the table, whoever knocks and however."""

from __future__ import annotations

import gzip
import html
import http.client
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Final

import httpx2
import pytest

from ostiary.dashboard.routes import ANYBODY, HOME, MOVED, ROUTES, SIGNED_IN, Route
from ostiary.db import schema
from ostiary.orgs import roles
from tests.acceptance import corpus
from tests.acceptance.lobby import Lobby
from tests.acceptance.pages import PASSWORD
from tests.servers import gateway as gateways_of
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

PEOPLE: Final = ("olga", "alice", "bob", "charlie", "dora")
STATIC: Final = f"{HOME}/static/"
NAME: Final = re.compile(r"\{([a-z_]+)\}")
UNKNOWN: Final = "agk_0000000000000000000000"
SAFE: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
}
NEVER_WRITTEN: Final = frozenset({"sessions", "contents"})
"""Tables that looking, or being refused, may add to."""
_MOST_FIRST: Final = 200_000
GUARDED: Final = tuple(route for route in ROUTES if route.is_guarded)
GRAVE: Final = ("delete", "rotate", "share", "role", "apply", "secret")
"""How the addresses of deeds end that take something away for good, or hand something out."""
_LARGE: Final = (2_000, 1_200)
_LOOK_MS: Final = 1_000
"""So often the page of the master key looks."""
_LOOKS_MS: Final = 3_500
"""In this time it looks three times."""
_TIME: Final = re.compile(r"<time\b.*?</time>", re.DOTALL)
_EXACT: Final = re.compile(
    r'^<time datetime="[\d-]{10}T[\d:]{8}Z" title="[\d-]{10} [\d:]{8} UTC">(just now|in \d+ \w+|\d+ \w+ ago)</time>$'
)
_AGO: Final = re.compile(r"just now|\b\d+ (?:min|h|d|mo|y) ago|\bin \d+ (?:min|h|d|mo|y)\b")
_UNSEEN: Final = re.compile(r"<(script|template|option)\b.*?</\1>", re.DOTALL)
_TAG: Final = re.compile(r"<[^>]*>")
_AN_HOUR_AGO: Final = "UPDATE sessions SET proved_at = proved_at - 3600000 WHERE user_id = ?"


class Place(Lobby):
    """The lobby with a thing of every kind in it, by noun."""

    things: Mapping[str, str]
    clients: dict[str | None, httpx2.Client]

    def as_(self, name: str | None) -> httpx2.Client:
        """Somebody's browser, as far as HTTP goes; every answer it gets is checked for its headers."""
        if name not in self.clients:
            self.clients[name] = self.client(name)
            self.clients[name].event_hooks = {"response": [self._checked]}
        return self.clients[name]

    def ask(self, name: str | None, route: Route, ids: Mapping[str, str], *, partial: bool = False) -> httpx2.Response:
        """One request to a route, with a form that says nothing."""
        path = filled(route, ids)
        headers = {"hx-request": "true"} if partial else {}
        client = self.as_(name)
        return (
            client.post(path, data={"x": "y"}, headers=headers) if route.is_write else client.get(path, headers=headers)
        )

    def choices(self, route: Route) -> Iterator[dict[str, str]]:
        """Every way to fill the names of a route with ids of things that are there."""
        names = NAME.findall(route.path)
        ids = [id_ for noun, id_ in self.things.items() if noun != "secret"]
        for chosen in product(ids, repeat=len(names)):
            yield dict(zip(names, chosen, strict=True))

    def _checked(self, answer: httpx2.Response) -> None:
        answer.read()
        where = f"{answer.request.method} {answer.request.url}"
        for name, value in SAFE.items():
            assert answer.headers.get_list(name) == [value], (where, name)
        [policy] = answer.headers.get_list("content-security-policy")
        assert policy.startswith("default-src 'none'"), where
        assert "unsafe" not in policy, where
        assert "frame-ancestors 'none'" in policy, where
        if answer.request.url.path.startswith(STATIC) and answer.is_success:
            return
        assert answer.headers.get("cache-control") == "no-store", where
        assert "access-control-allow-origin" not in answer.headers, where
        assert not [secret for secret in self.gateway.canaries.seen if secret in answer.text], where


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    started: Path,
    shared_upstream: Upstream,
) -> Iterator[Place]:
    with gateways_of.making(tmp_path_factory.mktemp("door"), canaries, shell, started) as maker:
        made = Place(maker(allow=[shared_upstream.origin]))
        made.open(*PEOPLE)
        things = made.within(lambda base: corpus.fill(made, base, shared_upstream.url))
        secret = things.pop("agent_key_secret")
        client = made.gateway.client(secret)
        until(lambda: client.get("/v1/key").status_code == httpx2.codes.OK, "the gateway to hear")
        said = client.post(
            "/v1/chat/completions",
            json={"model": f"openai-compatible/{corpus.MODEL}", "messages": [{"role": "user", "content": corpus.EVIL}]},
        )
        assert said.status_code == httpx2.codes.OK, said.text
        things["request"] = said.headers["x-request-id"]
        until(lambda: _is_written(made, things["request"]), "the call in the ledger")
        with made.database() as database:
            [things["gateway"]] = database.execute("SELECT id FROM owners ORDER BY started_at DESC").fetchone()
        made.things, made.clients = things, {}
        yield made


def _is_written(place: Place, request_id: str) -> bool:
    with place.database() as database:
        found = database.execute("SELECT count(*) FROM usage_events WHERE request_id = ?", (request_id,))
        return bool(found.fetchone()[0])


def filled(route: Route, ids: Mapping[str, str]) -> str:
    """The address of a route, with ids in the place of names."""
    return NAME.sub(lambda found: ids[found[1]], route.full_path)


def told(route: Route) -> str:
    """A route, as a test fails with it."""
    return f"{route.method} {route.full_path} ({route.deed})"


# ---- who may -----------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_nobody_is_sent_to_sign_in(place: Place) -> None:
    for route in ROUTES:
        answer = place.ask(None, route, dict.fromkeys(NAME.findall(route.path), UNKNOWN))
        if route.deed == ANYBODY:
            assert answer.status_code < 500, told(route)
            continue
        assert answer.status_code == httpx2.codes.SEE_OTHER, told(route)
        assert answer.headers["location"].startswith(f"{HOME}/sign-in?why=session&next="), told(route)
        part = place.ask(None, route, dict.fromkeys(NAME.findall(route.path), UNKNOWN), partial=True)
        assert (part.status_code, part.headers["x-ostiary-sign-in"], part.text) == (401, "session", ""), told(route)


def test_a_role_that_lacks_the_deed_is_refused_whatever_is_asked_for(place: Place) -> None:
    for name, role in (("bob", "member"), ("alice", "owner")):
        for route in (one for one in ROUTES if one.deed not in (ANYBODY, SIGNED_IN, *roles.ROLES[role])):
            for ids in place.choices(route):
                answer = place.ask(name, route, ids)
                assert answer.status_code in (403, 404), (name, told(route), answer.status_code)
                assert corpus.MARK not in answer.text.replace("&#39;", "'").split("<main")[-1], (name, told(route))


def test_who_belongs_nowhere_reaches_nothing(place: Place) -> None:
    for route in (one for one in ROUTES if one.deed not in (ANYBODY, SIGNED_IN)):
        for ids in place.choices(route):
            answer = place.ask("charlie", route, ids)
            assert answer.status_code in (403, 404), (told(route), answer.status_code)
            assert corpus.MARK not in answer.text, told(route)


def test_another_organizations_things_look_like_none(place: Place) -> None:
    before = rows_of(place)
    for route in (one for one in ROUTES if "{" in one.path and one.path != "/settings/{part}"):  # a part of the page
        unknown = place.ask("dora", route, dict.fromkeys(NAME.findall(route.path), UNKNOWN))
        for ids in place.choices(route):
            if place.things["alias"] in ids.values():
                continue  # aliases are everybody's to see
            answer = place.ask("dora", route, ids)
            shown = answer.text
            for value in ids.values():
                shown = re.sub(rf"(?<![\w-]){re.escape(value)}(?![\w-])", UNKNOWN, shown)
            assert (answer.status_code, shown) == (unknown.status_code, unknown.text), (told(route), ids)
            assert answer.status_code >= 400 or not route.is_write, (told(route), ids)
            assert corpus.MARK not in shown, (told(route), ids)
    assert rows_of(place) == before


def rows_of(place: Place) -> dict[str, str]:
    """What the home organization has, as a digest by table."""
    found = {}
    with place.database() as database:
        for table in schema.metadata.sorted_tables:
            if "organization_id" in table.c and table.name not in NEVER_WRITTEN:
                columns = ", ".join(column.name for column in table.c if column.name != "last_used_at")
                query = f"SELECT {columns} FROM {table.name} WHERE organization_id = ?"  # noqa: S608 - our own names
                rows = database.execute(query, (place.home,))
                found[table.name] = sha256(repr(sorted(map(repr, rows))).encode()).hexdigest()
    return found


# ---- who has not proved of late who they are ----------------------------------------------------------------------


@pytest.fixture
def stale(place: Place) -> Iterator[httpx2.Client]:
    """Olga, who may do everything, an hour after she signed in."""
    client = place.client("olga")
    with place.database() as database:
        database.execute(_AN_HOUR_AGO, (place.ids["olga"],))
    yield client
    place.clients.pop("olga", None)  # hers is as old now
    with place.database() as database:  # what a deed that was let through has made
        database.execute("DELETE FROM invitations WHERE email = 'new@example.org'")
        database.execute("DELETE FROM provider_keys WHERE name = 'ours'")


def deeds_of(place: Place) -> int:
    """How many deeds were ever done."""
    with place.database() as database:
        return int(database.execute("SELECT max(seq) FROM audit").fetchone()[0])


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.path)
def test_a_grave_deed_takes_a_recent_sign_in(place: Place, stale: httpx2.Client, route: Route) -> None:
    before, done = rows_of(place), deeds_of(place)
    for ids in place.choices(route):
        path = filled(route, ids)
        answer = stale.post(path, data={"x": "y"})
        assert answer.status_code == httpx2.codes.SEE_OTHER, ids
        assert answer.headers["location"].startswith(f"{HOME}/sign-in?why=proof&next="), ids
        part = stale.post(path, data={"x": "y"}, headers={"hx-request": "true"})
        assert (part.status_code, part.headers["x-ostiary-sign-in"], part.text) == (401, "proof", ""), ids
    assert (rows_of(place), deeds_of(place)) == (before, done)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/settings/members/invite", {"email": "new@example.org", "role": "admin"}),
        ("/settings/members/invite", {"email": "new@example.org", "role": "owner"}),
        ("/vault/new?provider=openai", {"name": "ours", "shared": "1", "anyway": "1"}),
    ],
    ids=["invite an admin", "invite an owner", "add what is shared"],
)
def test_a_deed_that_is_grave_only_sometimes_takes_one_then(
    place: Place, stale: httpx2.Client, path: str, form: dict[str, str]
) -> None:
    given = {**form, "provider": "openai", "secret": place.gateway.canaries.plant()} if "name" in form else form
    done = deeds_of(place)
    answer = stale.post(f"{HOME}{path}", data=given, headers={"hx-request": "true"})
    assert (answer.status_code, answer.headers.get("x-ostiary-sign-in"), answer.text) == (401, "proof", "")
    assert deeds_of(place) == done
    less = {"role": "member"} if "role" in given else {"shared": ""}
    quiet = {name: value for name, value in (given | less).items() if value}
    answer = stale.post(f"{HOME}{path}", data=quiet, headers={"hx-request": "true"})
    assert answer.status_code < 400, answer.text[:500]
    assert deeds_of(place) > done


def test_what_takes_a_secret_away_or_hands_one_out_is_grave() -> None:
    grave = {f"{one.path}" for one in ROUTES if one.is_write and one.path.rpartition("/")[2] in GRAVE}
    assert {one.path for one in GUARDED} >= grave
    assert len(grave) > 10


# ---- how it is asked ---------------------------------------------------------------------------------------------


@pytest.mark.main_job
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": ""},
        {"origin": "\x00javascript:"[1:] + "//127.0.0.1"},
    ],
    ids=lambda headers: ",".join(f"{name}={value}" for name, value in headers.items()),
)
def test_a_form_from_elsewhere_does_nothing(place: Place, headers: dict[str, str]) -> None:
    client = place.as_("alice")
    before = rows_of(place)
    for route in (one for one in ROUTES if one.is_write):
        ids = next(place.choices(route))
        path = filled(route, ids)
        answer = client.post(path, data={"email": "x", "password": "y"}, headers=headers)
        assert answer.status_code == httpx2.codes.FORBIDDEN, told(route)
        assert "set-cookie" not in answer.headers, told(route)
    assert rows_of(place) == before


def test_a_form_without_its_token_does_nothing(place: Place) -> None:
    client = place.as_("alice")
    for route in (one for one in ROUTES if one.is_write and one.deed != ANYBODY):
        ids = next(place.choices(route))
        path = filled(route, ids)
        for token in ("", "0" * 43, place.as_("dora").headers["x-csrf-token"]):
            answer = client.post(path, data={"csrf": token}, headers={"x-csrf-token": token})
            assert answer.status_code == httpx2.codes.FORBIDDEN, (told(route), token)
        wrong = client.post(path, content=b'{"a":1}', headers={"content-type": "application/json"})
        assert wrong.status_code == httpx2.codes.UNSUPPORTED_MEDIA_TYPE, told(route)
        many = client.post(path, files={"a": b"b"})
        assert many.status_code == httpx2.codes.UNSUPPORTED_MEDIA_TYPE, told(route)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"a=" + b"x" * 2_000_000, 413),
        (b"email=a%00b", 422),
        (b"&".join(b"a%d=" % number for number in range(5_001)), 400),
        (b"a=%ff%fe", 400),
        ("ä=ö".encode(), 400),
    ],
    ids=["2 MB", "NUL", "5001 fields", "no UTF-8", "no ASCII"],
)
def test_a_form_that_is_none_is_refused(place: Place, body: bytes, status: int) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for name, path in ((None, f"{HOME}/sign-in"), ("alice", f"{HOME}/sign-out"), ("alice", f"{HOME}/organization")):
        answer = place.as_(name).post(path, content=body, headers=form)
        assert answer.status_code == status, (path, answer.text)
    assert place.as_("alice").get(HOME).status_code == httpx2.codes.OK


@pytest.mark.parametrize("query", ["a=%ff", "a=&" * 5_001, "a=%00"], ids=["no UTF-8", "flood", "NUL"])
def test_an_address_that_cannot_be_read_is_refused(place: Place, query: str) -> None:
    assert place.as_("alice").get(f"{HOME}?{query}").status_code in (400, 422)


def test_a_look_at_the_head_is_a_look_without_the_page(place: Place) -> None:
    for route in (
        one for one in ROUTES if not one.is_write and "{" not in one.path and one.deed in (ANYBODY, SIGNED_IN)
    ):
        whole, head = place.as_("alice").get(route.full_path), place.as_("alice").head(route.full_path)
        assert (head.status_code, head.content) == (whole.status_code, b""), told(route)
        assert head.headers.get("content-type") == whole.headers.get("content-type"), told(route)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused_and_the_right_ones_named(place: Place, method: str) -> None:
    answer = place.as_("alice").request(method, f"{HOME}/sign-in")
    assert answer.status_code == httpx2.codes.METHOD_NOT_ALLOWED
    assert answer.headers["allow"] == "GET, POST"


def test_a_cookie_opens_no_call_and_a_key_opens_no_page(place: Place) -> None:
    cookies = place.as_("alice").cookies
    plain = place.gateway.client(cookies=dict(cookies))
    assert plain.get("/v1/key").json()["error"]["code"] == "missing_api_key"
    assert plain.post("/v1/chat/completions", json={"model": "x", "messages": []}).status_code == 401
    secret = place.gateway.create_key("bearer", "--org", place.home)
    answer = place.gateway.client(secret).get(f"{HOME}/keys", follow_redirects=False)
    assert answer.status_code == httpx2.codes.SEE_OTHER
    header = {"cookie": "; ".join(f"__Host-{name}={value}" for name, value in cookies.items())}
    assert place.gateway.client().get(HOME, headers=header, follow_redirects=False).status_code == 303


@pytest.mark.parametrize("between", ["a list that looks by itself", "a file", "a way to elsewhere"])
def test_what_a_deed_left_to_say_is_said_by_the_next_page_and_by_no_other(place: Place, between: str) -> None:
    client = place.client("alice")
    said = client.post(f"{HOME}/account/name", data={"name": "Alice"}, headers={"hx-request": "true"})
    assert said.headers["hx-redirect"] == f"{HOME}/account"
    if between == "a list that looks by itself":
        assert client.get(f"{HOME}/keys", headers={"hx-request": "true", "x-ostiary-look": "1"}).is_success
    elif between == "a file":
        assert "attachment" in client.get(f"{HOME}/usage/csv").headers["content-disposition"]
    else:
        assert client.get(f"{HOME}/sign-in").status_code == httpx2.codes.SEE_OTHER
    told = '<meta name="said" content="Your name is changed." data-kind="success">'
    assert told in client.get(f"{HOME}/account").text
    assert told not in client.get(f"{HOME}/account").text


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "",
        "..%2f..%2fsettings.py",
        "../../settings.py",
        "%2e%2e/%2e%2e/settings.py",
        "..\\..\\settings.py",
        "app.js%00.css",
        ".stamp",
        "/etc/passwd",
        "app.js/../../door.py",
    ],
)
def test_nothing_but_assets_is_handed_out(place: Place, path: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", place.gateway.port, timeout=30)) as raw:
        raw.request("GET", STATIC + path)
        answer = raw.getresponse()
        body = answer.read()
    assert answer.status in (400, 404), body[:200]
    assert b"import" not in body
    assert b"root:" not in body


def test_assets_are_kept_and_only_as_they_are_now(place: Place) -> None:
    page = place.as_(None).get(f"{HOME}/sign-in").text
    [current] = re.findall(rf'src="({STATIC}app\.js\?v=[0-9a-f]+)"', page)
    kept = place.as_(None).get(current)
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert kept.headers["content-type"].startswith("text/javascript")
    assert "immutable" not in place.as_(None).get(f"{STATIC}app.js?v=000000000000").headers["cache-control"]
    assert "set-cookie" not in kept.headers


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example/dashboard",
        "https://evil.example/dashboard",
        "/\\evil.example",
        "/dashboard\r\nset-cookie: a=b",
        "/dashboard\n\n<script>alert(1)</script>",
        "javascript:alert(1)",
        "/dashboard/../..//evil.example",
        "/dashboard\t//evil.example",
    ],
)
def test_one_is_only_ever_sent_to_our_own_pages(place: Place, wanted: str) -> None:
    answer = place.as_("alice").get(f"{HOME}/sign-in", params={"next": wanted})
    assert answer.status_code == httpx2.codes.SEE_OTHER
    where = answer.headers["location"]
    assert str(httpx2.URL(f"{place.gateway.origin}{HOME}/sign-in").join(where)).startswith(f"{place.gateway.origin}/")
    assert where.startswith(HOME)
    assert not re.search(r"[\s<>\"\\]", where)
    assert "a=b" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("old", MOVED)
def test_addresses_of_old_lead_to_pages(place: Place, old: str) -> None:
    answer = place.as_("olga").get(old)
    assert answer.status_code == httpx2.codes.PERMANENT_REDIRECT
    there = place.as_("olga").get(answer.headers["location"])
    assert there.status_code == httpx2.codes.OK, (old, there.status_code)


def test_a_first_look_brings_little(place: Place) -> None:
    """All that a browser fetches for the page that has most, compressed as it travels, and the page as if it were."""
    client = place.as_("alice")
    page = client.get(HOME).text
    fetched = {
        one.replace("&amp;", "&").partition("#")[0]
        for one in re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', page)
    }
    assert {Path(one.partition("?")[0]).name for one in fetched} >= {"app.css", "app.js", "icons.svg", "theme.js"}
    size = len(gzip.compress(page.encode()))
    for one in sorted(fetched):
        answer = client.get(one, headers={"accept-encoding": "gzip"})
        assert answer.status_code == httpx2.codes.OK
        size += answer.num_bytes_downloaded
        if one.partition("?")[0].endswith(".css"):
            for font in set(re.findall(r"url\([\"']?([^)\"']+\.woff2[^)\"']*)", answer.text)):
                size += client.get(str(httpx2.URL(f"http://x{one}").join(font).raw_path.decode())).num_bytes_downloaded
    assert size <= _MOST_FIRST, f"{size:,} bytes"


# ---- when something is away --------------------------------------------------------------------------------------


def test_while_the_database_is_locked_the_page_says_so_and_then_goes_on(place: Place, window: Window) -> None:
    page = place.enter(window, "olga", "/operator/organizations")
    page.get_by_role("button", name="Create organization").click()
    name = page.get_by_role("dialog").get_by_label("Name")
    name.fill("Patience")
    window.expect("503")
    with closing(sqlite3.connect(place.gateway.data_dir / "ostiary.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        page.get_by_role("button", name="Create", exact=True).click()
        expect(
            page.get_by_text("The database is not available. Nothing was changed; try again shortly.")
        ).to_be_visible()
        other.execute("ROLLBACK")
    expect(name).to_have_value("Patience")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("Patience is made.")).to_be_visible()


def test_a_look_is_not_lost_because_the_session_cannot_be_marked_as_used(place: Place) -> None:
    client = place.as_("alice")
    with place.database() as database:
        database.execute("UPDATE sessions SET seen_at = seen_at - 120000")
    with closing(sqlite3.connect(place.gateway.data_dir / "ostiary.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert client.get(HOME).status_code == httpx2.codes.OK
        other.execute("ROLLBACK")


def test_a_restart_is_said_and_got_over_without_loading_the_page_again(place: Place, window: Window) -> None:
    page = place.enter(window, "olga", "/operator/organizations")
    page.get_by_role("button", name="Create organization").click()
    name = page.get_by_role("dialog").get_by_label("Name")
    name.fill("Endurance")
    place.gateway.stop()
    window.expect("ERR_CONNECTION_REFUSED", "Failed to fetch")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("The gateway does not answer.")).to_be_visible()
    place.gateway.start()
    expect(name).to_have_value("Endurance")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("Endurance is made.")).to_be_visible()


def test_a_live_page_says_once_that_the_gateway_is_away_and_once_that_it_is_back(place: Place, window: Window) -> None:
    clock = window.page.clock
    clock.install()
    page = place.enter(window, "olga", "/operator/master-key")
    window.expect("ERR_CONNECTION_REFUSED", "Failed to fetch")
    # Its time stands still, so that what is said stays, however long the gateway takes to end and to begin.
    clock.pause_at(datetime.now(UTC) + timedelta(seconds=10))
    place.gateway.stop()
    away = page.get_by_text("This page goes on looking.")
    for _ in range(3):
        with page.expect_event("requestfailed"):
            clock.run_for(_LOOK_MS)
        expect(away).to_have_count(1)
    place.gateway.start()
    clock.run_for(_LOOK_MS)
    expect(page.get_by_text("The gateway answers again.")).to_be_visible()
    clock.resume()


def test_who_has_to_sign_in_again_on_a_live_page_can_type_in_peace(place: Place, window: Window) -> None:
    page = place.enter(window, "olga", "/operator/master-key")
    window.expect("401")
    with place.database() as database:
        mine = (place.ids["olga"], place.things["session"])
        database.execute("DELETE FROM sessions WHERE user_id = ? AND id <> ?", mine)
    place.clients.pop("olga", None)
    password = page.get_by_label("Password")
    expect(password).to_be_visible()
    password.fill(PASSWORD)
    page.wait_for_timeout(_LOOKS_MS)
    expect(password).to_have_value(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(password).to_be_hidden()
    page.wait_for_timeout(_LOOKS_MS)
    expect(password).to_be_hidden()


# ---- what others have written ------------------------------------------------------------------------------------


def test_nothing_that_anybody_wrote_ever_runs(place: Place, window: Window) -> None:
    """Every page that can be looked at, in the browser: an alert, or a script that the policy stops, is a fault."""
    page = place.enter(window, "olga")
    seen, broken = 0, list[str]()
    for route in (one for one in ROUTES if not one.is_write):
        for path in _there(place, route, broken):
            page.goto(f"{place.gateway.origin}{path}")
            seen += page.locator("body").inner_text().count("alert(")
            try:
                window.check()
            except AssertionError as fault:
                broken.append(f"{path}: {fault}")
    assert broken == []
    assert seen > 10  # it was there to be run


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("", (corpus.EVIL, corpus.SAID, f"{corpus.EVIL} olga")),
        ("/account", ("<embed", corpus.AGENT, corpus.EVIL)),
        ("/settings/members", (corpus.INVITED, corpus.EVIL)),
        ("/settings/members/{user}", ("<embed", corpus.EVIL)),
        ("/settings/notifications", (corpus.EVIL, corpus.SAID, corpus.INVITED, f"<i>{corpus.MARK}")),
        ("/settings/webhooks", (corpus.EVIL,)),
        ("/settings", (corpus.EVIL,)),
        ("/operator/organizations", (corpus.EVIL,)),
        ("/operator/gateways/{lost}", (corpus.EVIL, "<i>1.0</i>")),
        ("/operator/prices", (corpus.EVIL, corpus.MODEL)),
        ("/operator/aliases", (corpus.MODEL,)),
        ("/endpoints", (corpus.EVIL, corpus.MODEL)),
        ("/endpoints/{endpoint}", (corpus.EVIL, corpus.MODEL)),
        ("/models?provider=openai-compatible", (corpus.EVIL, corpus.MODEL)),
        ("/vault", (corpus.EVIL, corpus.SAID)),
        ("/vault/{ailing}", (corpus.EVIL, corpus.SAID)),
        ("/vault/{fielded}", (corpus.EVIL, corpus.FIELD, corpus.PARTS[2])),
        ("/vault/{fielded}/edit", (corpus.EVIL, corpus.FIELD, corpus.PARTS[2])),
        ("/keys/{agent_key}", (corpus.EVIL,)),
        ("/traces/{request}", (corpus.EVIL, corpus.MODEL)),
        ("/usage?by=agent_key", (corpus.EVIL,)),
        ("/audit", (corpus.EVIL,)),
        ("/audit/{row}", (corpus.EVIL,)),
        ("/jump?q=%3Cimg", (corpus.EVIL,)),
    ],
)
def test_what_others_wrote_is_shown_letter_by_letter(place: Place, path: str, texts: tuple[str, ...]) -> None:
    """So that the test above has looked at it: on the page, escaped, and nowhere as it stands."""
    page = place.as_("olga").get(f"{HOME}{path.format(**place.things)}").text
    shown = html.unescape(page)
    for text in texts:
        assert text in shown, text
        assert text not in page, text


def test_every_time_says_exactly_when_to_who_hovers(place: Place) -> None:
    """Wherever a page says how long ago, or how soon, it does so in a `<time>` that has the second of it."""
    seen, bare, broken = 0, list[str](), list[str]()
    for route in (one for one in ROUTES if not one.is_write):
        for path in _there(place, route, broken):
            page = place.as_("olga").get(path).text
            times = _TIME.findall(page)
            seen += len(times)
            bare += [f"{path}: {one}" for one in times if _EXACT.search(one) is None]
            bare += [f"{path}: {one}" for one in _AGO.findall(_TAG.sub(" ", _TIME.sub("", _UNSEEN.sub("", page))))]
    assert (bare, broken) == ([], [])
    assert seen > 50


def test_no_page_scrolls_sideways_on_a_telephone_or_a_large_screen(place: Place, window: Window) -> None:
    """Every page there is, with the longest names anybody could give."""
    sideways, broken = list[str](), list[str]()
    window.open(f"{place.gateway.origin}{HOME}/sign-in")
    for who in (None, "olga"):
        page = place.enter(window, who) if who else window.page
        for route in (one for one in ROUTES if not one.is_write and (one.deed == ANYBODY) is (who is None)):
            for path in _there(place, route, broken, who):
                window.narrow()
                page.goto(f"{place.gateway.origin}{path}")
                sideways += [f"{path}, narrow"] if window.scrolls_sideways else []
                window.wide(*_LARGE)
                sideways += [f"{path}, large"] if window.scrolls_sideways else []
    assert (broken, sideways) == ([], [])


def _there(place: Place, route: Route, broken: list[str], who: str | None = "olga") -> set[str]:
    """The addresses of a page that show something."""
    found = set()
    for ids in place.choices(route):
        path = filled(route, ids)
        answer = place.as_(who).get(path)
        is_lost = who is not None and "/sign-in?" in answer.headers.get("location", "")
        if answer.status_code >= 500 or is_lost:
            broken.append(f"{path}: {answer.status_code}")
        if answer.is_success and "text/html" in answer.headers.get("content-type", ""):
            found.add(path)
    return found
