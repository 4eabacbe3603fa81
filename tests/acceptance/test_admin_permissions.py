"""Every route of the admin API, as everybody: what happens follows from the table of roles and deeds alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import pytest

from ostiary.admin.routes import PREFIX, ROUTES, Route, check
from ostiary.errors import CannotStart
from ostiary.orgs import roles
from ostiary.orgs.roles import ADMIN_SCOPES
from tests.acceptance.bureau import PEOPLE, Bureau, code, reachable, role_of
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.waiting import until

NOBODY: Final = "no_such_thing"
OUTSIDE: Final = ("charlie", "dora")


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        yield Bureau(maker(allow=["http://127.0.0.1:9"])).open()


@dataclass(frozen=True, slots=True)
class Example:
    """How a route is asked for what it can do: a thing to do it to, and a body."""

    target: Callable[[Bureau], str] | None = None
    body: Callable[[Bureau], dict[str, Any]] | None = None


def bobs_key(bureau: Bureau) -> str:
    """Bob's, so that he may do to it what a member may do to what is their own."""
    return str(bureau.key(owner_id=bureau.user_id("bob"))["id"])


def stopped_key(bureau: Bureau) -> str:
    id = bobs_key(bureau)
    bureau.done("alice", "POST", f"/agent-keys/{id}/deactivate")
    return id


def credential(bureau: Bureau) -> str:
    return str(bureau.done("alice", "POST", "/client-credentials", json={"name": bureau.name()})["id"])


def member(bureau: Bureau) -> str:
    email = f"{bureau.name('guest')}@example.org"
    return str(bureau.done("alice", "POST", "/members", json={"email": email})["id"])


def new_webhook(bureau: Bureau) -> dict[str, Any]:
    """With the room for one: an organization has twenty at most."""
    for one in bureau.done("alice", "GET", "/webhooks")["data"][5:]:
        bureau.done("alice", "DELETE", f"/webhooks/{one['id']}")
    return {"name": bureau.name(), "url": "http://127.0.0.1:9/"}


def webhook(bureau: Bureau) -> str:
    return str(bureau.done("alice", "POST", "/webhooks", json=new_webhook(bureau))["id"])


def new_provider_key(bureau: Bureau) -> dict[str, Any]:
    where = {"provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1"}
    return {"name": bureau.name(), **where, "test": False}


def provider_key(bureau: Bureau) -> str:
    return str(bureau.done("alice", "POST", "/provider-keys", json=new_provider_key(bureau))["id"])


def named(bureau: Bureau) -> dict[str, Any]:
    return {"name": bureau.name()}


def new_endpoint(bureau: Bureau) -> dict[str, Any]:
    return {"name": bureau.name(), "targets": [{"provider": "openai", "model": "gpt-5"}]}


def endpoint(bureau: Bureau) -> str:
    return str(bureau.done("alice", "POST", "/endpoints", json=new_endpoint(bureau))["id"])


def alias(bureau: Bureau) -> str:
    return str(bureau.done("olga", "POST", "/aliases", json=new_endpoint(bureau))["id"])


def always(**body: Any) -> Callable[[Bureau], dict[str, Any]]:
    return lambda _: body


EXAMPLES: Final[dict[tuple[str, str], Example]] = {
    ("POST", "/agent-keys"): Example(body=named),
    ("GET", "/agent-keys/{id}"): Example(bobs_key),
    ("PATCH", "/agent-keys/{id}"): Example(bobs_key, always(rpm=60)),
    ("DELETE", "/agent-keys/{id}"): Example(bobs_key),
    ("POST", "/agent-keys/{id}/rotate"): Example(bobs_key, always(overlap_s=60)),
    ("POST", "/agent-keys/{id}/deactivate"): Example(bobs_key),
    ("POST", "/agent-keys/{id}/activate"): Example(stopped_key),
    ("POST", "/agent-keys/{id}/revoke"): Example(bobs_key),
    ("POST", "/agent-keys/{id}/ephemeral"): Example(bobs_key, always(ttl_s=60)),
    ("POST", "/ephemeral-keys"): Example(body=always(ttl_s=60)),
    ("POST", "/client-credentials"): Example(body=named),
    ("POST", "/client-credentials/{id}/revoke"): Example(credential),
    ("POST", "/members"): Example(body=lambda bureau: {"email": f"{bureau.name()}@example.org"}),
    ("PATCH", "/members/{id}"): Example(member, always(role="admin")),
    ("DELETE", "/members/{id}"): Example(member),
    ("POST", "/organizations"): Example(body=named),
    ("GET", "/organizations/{id}"): Example(lambda bureau: bureau.home),
    ("PATCH", "/organizations/{id}"): Example(lambda bureau: bureau.home, always(trace_days=90)),
    ("POST", "/endpoints"): Example(body=new_endpoint),
    ("GET", "/endpoints/{id}"): Example(endpoint),
    ("PATCH", "/endpoints/{id}"): Example(endpoint, always(retries=1)),
    ("DELETE", "/endpoints/{id}"): Example(endpoint),
    ("POST", "/aliases"): Example(body=new_endpoint),
    ("GET", "/aliases/{id}"): Example(alias),
    ("PATCH", "/aliases/{id}"): Example(alias, always(retries=1)),
    ("DELETE", "/aliases/{id}"): Example(alias),
    ("POST", "/provider-keys"): Example(body=new_provider_key),
    ("GET", "/provider-keys/{id}"): Example(provider_key),
    ("PATCH", "/provider-keys/{id}"): Example(provider_key, always(priority=5)),
    ("DELETE", "/provider-keys/{id}"): Example(provider_key),
    ("POST", "/provider-keys/{id}/test"): Example(provider_key),
    ("POST", "/provider-keys/{id}/reset"): Example(provider_key),
    ("POST", "/webhooks"): Example(body=new_webhook),
    ("GET", "/webhooks/{id}"): Example(webhook),
    ("PATCH", "/webhooks/{id}"): Example(webhook, always(is_active=False)),
    ("DELETE", "/webhooks/{id}"): Example(webhook),
    ("POST", "/webhooks/{id}/test"): Example(webhook),
}
"""Of every route that takes more than its path; the others are asked as they are."""
UNSEEN: Final = {
    ("GET", "/traces/{id}"),
    ("GET", "/traces/{id}/content"),
    ("POST", "/gateways/{id}/retire"),
}
"""Whose things nobody makes by asking: even who may is told that there is none."""
EVERYBODYS: Final = {("GET", "/aliases/{id}")}
"""Whose things belong to no organization: who sees what of them is in `test_admin_endpoints.py`."""


def asked(bureau: Bureau, route: Route, who: str | None, **params: str) -> httpx2.Response:
    """The route, with everything it needs to do what it does."""
    example = EXAMPLES.get((route.method, route.path), Example())
    target = example.target(bureau) if example.target else NOBODY
    options = {"json": example.body(bureau)} if example.body else {}
    return bureau.ask(who, route.method, route.path.replace("{id}", target), params=params, **options)


def expected(route: Route, who: str) -> int:
    """What follows from the table. A key has no scope that its owner's role could not reach."""
    grants = roles.ROLES[role_of(who)]
    if not any(deed in grants for deed in ADMIN_SCOPES[route.scope]):
        return httpx2.codes.FORBIDDEN
    if who in OUTSIDE:
        return httpx2.codes.NOT_FOUND
    if route.deed not in grants:
        return httpx2.codes.FORBIDDEN
    return httpx2.codes.NOT_FOUND if (route.method, route.path) in UNSEEN else route.status


def label(route: Route) -> str:
    return f"{route.method} {route.path}"


every_route: Final = pytest.mark.parametrize("route", ROUTES, ids=label)


@pytest.mark.parametrize("who", PEOPLE)
@every_route
def test_what_happens_follows_from_the_table(bureau: Bureau, route: Route, who: str) -> None:
    params = {"organization": bureau.home} if who == "dora" else {}
    answer = asked(bureau, route, who, **params)
    assert answer.status_code == expected(route, who), answer.text
    if answer.is_error:
        assert code(answer) in {"not_found", "insufficient_scope"}


@pytest.mark.main_job
@every_route
def test_nobody_is_let_in_without_a_credential(bureau: Bureau, route: Route) -> None:
    answer = asked(bureau, route, None)
    assert answer.status_code == httpx2.codes.UNAUTHORIZED
    assert code(answer) == "missing_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


@every_route
def test_a_key_without_the_scope_is_told_which(bureau: Bureau, route: Route, lacking: Callable[[str], str]) -> None:
    answer = asked(bureau, route, lacking(route.scope))
    assert answer.status_code == httpx2.codes.FORBIDDEN
    assert code(answer) == "insufficient_scope"
    assert answer.json()["scope"] == route.scope


@pytest.fixture(scope="module")
def lacking(bureau: Bureau) -> Callable[[str], str]:
    """A key of Olga, who may everything, with every scope but one and what is stored with it."""
    minted: dict[str, str] = {}

    def mint(scope: str) -> str:
        if scope not in minted:
            noun = scope.rpartition(":")[0]
            without = {scope, f"{noun}:write"}
            scopes = [one for one in reachable("olga") if one not in without]
            minted[scope] = bureau.mint(bureau.name("lacking"), "olga", scopes)
        return minted[scope]

    return mint


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if "{id}" in route.path and (route.method, route.path) not in EVERYBODYS],
    ids=label,
)
def test_what_is_elsewhere_looks_like_what_is_nowhere(bureau: Bureau, route: Route) -> None:
    """Byte for byte, but for the id of the request."""
    example = EXAMPLES.get((route.method, route.path))
    there = bureau.secrets["dora"]
    options = {"json": example.body(bureau)} if example and example.body else {}
    said = []
    for target in (example.target(bureau) if example and example.target else bureau.home, NOBODY):
        answer = bureau.ask(there, route.method, route.path.replace("{id}", target), **options)
        own = answer.headers["x-request-id"].encode()
        headers = sorted((name, value) for name, value in answer.headers.items() if name != "x-request-id")
        said.append((answer.status_code, headers, answer.content.replace(own, b"")))
    assert said[0] == said[1]
    assert said[0][0] == expected(route, "dora")


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "{id}" in route.path and route.deed.startswith("agent_keys.")], ids=label
)
def test_a_member_reaches_their_own_keys_only(bureau: Bureau, route: Route) -> None:
    example = EXAMPLES[route.method, route.path]
    alices = bureau.key()["id"]
    before = bureau.done("alice", "GET", f"/agent-keys/{alices}")
    options = {"json": example.body(bureau)} if example.body else {}
    told = []
    for target in (alices, NOBODY):
        answer = bureau.ask("bob", route.method, route.path.replace("{id}", target), **options)
        told.append((answer.status_code, answer.content.replace(answer.headers["x-request-id"].encode(), b"")))
    assert told[0] == told[1], "what is another's looks like what is nowhere"
    assert told[0][0] == httpx2.codes.NOT_FOUND
    assert bureau.done("alice", "GET", f"/agent-keys/{alices}") == before


def test_a_client_credential_opens_nothing(bureau: Bureau) -> None:
    made = bureau.done("alice", "POST", "/client-credentials", json={"name": bureau.name()})
    bureau.hears(made["secret"])
    answers = [bureau.ask(made["secret"], route.method, route.full_path.removeprefix(PREFIX)) for route in ROUTES]
    assert {(answer.status_code, code(answer)) for answer in answers} == {(403, "insufficient_scope")}


def test_an_ephemeral_key_opens_nothing(bureau: Bureau) -> None:
    admin = bureau.key(scopes=["gate:usage", "admin:members:read"])
    path = f"/agent-keys/{admin['id']}/ephemeral"
    refused = bureau.ask("alice", "POST", path, json={"scopes": ["admin:members:read"]})
    assert refused.status_code == 422
    child = bureau.done("alice", "POST", path, json={"scopes": ["gate:usage"]})
    bureau.hears(child["secret"])
    assert code(bureau.ask(child["secret"], "GET", "/members")) == "insufficient_scope"


def test_a_key_without_an_owner_opens_nothing(bureau: Bureau) -> None:
    """No scope can be given to one; one that came by it all the same reaches no organization."""
    refused = bureau.gateway.cli(
        *("keys", "create", "--name", bureau.name(), "--scopes", "admin:members:read", "--org", bureau.home),
        check=False,
    )
    assert refused.code == 1
    secret = bureau.mint(bureau.name("orphan"), "alice", ["gate:usage", "admin:members:read"])
    with bureau.database() as database:
        database.execute("UPDATE agent_keys SET owner_id = NULL WHERE name LIKE 'orphan-%'")
        key_id = database.execute("SELECT id FROM agent_keys WHERE name LIKE 'orphan-%'").fetchone()[0]
    bureau.done("alice", "PATCH", f"/agent-keys/{key_id}", json={"rpm": 5})  # so that the gateway hears of it
    until(lambda: bureau.ask(secret, "GET", "/members").status_code == httpx2.codes.NOT_FOUND, "the owner to be gone")


# ---- granted within granter -------------------------------------------------------------------------------------


def test_nobody_hands_out_more_than_they_have(bureau: Bureau) -> None:
    """Neither to themselves, nor by a key of somebody with more."""
    alice = bureau.user_id("alice")
    wish = {"name": bureau.name(), "scopes": ["admin:members:write"]}
    assert code(bureau.ask("erin", "POST", "/agent-keys", json=wish | {"owner_id": alice})) == "insufficient_scope"
    owners = bureau.key(scopes=["admin:members:write"])
    for method, path, body in (
        ("POST", f"/agent-keys/{owners['id']}/rotate", {}),
        ("PATCH", f"/agent-keys/{bobs_key(bureau)}", {"owner_id": alice, "scopes": ["admin:members:write"]}),
    ):
        answer = bureau.ask("erin", method, path, json=body)
        assert code(answer) == "insufficient_scope", answer.text
    narrow = bureau.mint(bureau.name("narrow"), "alice", ["gate:usage", "admin:agent-keys:write"])
    answer = bureau.ask(narrow, "POST", "/agent-keys", json={"name": bureau.name(), "scopes": ["admin:usage:read"]})
    assert code(answer) == "insufficient_scope", answer.text
    assert code(bureau.ask(narrow, "POST", f"/agent-keys/{owners['id']}/rotate")) == "insufficient_scope"


@pytest.mark.main_job
def test_a_role_that_is_taken_away_is_gone_at_once(bureau: Bureau) -> None:
    """The next request already: the right to a deed is looked up in the transaction of the deed."""
    email = f"{bureau.name('fallen')}@example.org"
    member = bureau.done("alice", "POST", "/members", json={"email": email, "role": "admin"})
    secret = bureau.mint(bureau.name("fallen"), email.partition("@")[0], reachable("erin"))
    assert bureau.ask(secret, "GET", "/members").status_code == httpx2.codes.OK
    bureau.done("alice", "PATCH", f"/members/{member['id']}", json={"role": "member"})
    assert code(bureau.ask(secret, "GET", "/members")) == "insufficient_scope"
    bureau.done("alice", "DELETE", f"/members/{member['id']}")
    assert bureau.ask(secret, "GET", "/agent-keys").status_code in {httpx2.codes.NOT_FOUND, httpx2.codes.UNAUTHORIZED}


# ---- what the log knows -----------------------------------------------------------------------------------------


def test_what_was_tried_in_vain_is_in_the_audit_log(bureau: Bureau) -> None:
    narrow = bureau.mint(bureau.name("curious"), "alice", ["gate:usage", "admin:usage:read"])
    victim = bureau.key()["id"]
    bureau.ask(narrow, "POST", f"/agent-keys/{victim}/revoke")
    found = bureau.done("alice", "GET", "/audit", params={"target": victim, "result": "denied"})["data"]
    assert [(row["deed"], row["after"]["code"]) for row in found] == [("agent_keys.revoke", "insufficient_scope")]
    assert "curious" in found[0]["actor_name"]


# ---- the table itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["", "agent_keys.steal", "users.operator"])
def test_a_route_without_a_deed_stops_the_start(deed: str) -> None:
    with pytest.raises(CannotStart, match="GET /api/v1/secrets"):
        check([*ROUTES, Route("GET", "/secrets", deed, "agent_keys", "list_")])


def test_every_route_leads_somewhere_and_no_other_does(bureau: Bureau) -> None:
    described = bureau.gateway.client().get(f"{PREFIX}/openapi.json").json()
    served = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert served == {(route.method, route.full_path) for route in ROUTES}
    assert code(bureau.ask("olga", "GET", "/provider-secrets")) == "not_found"
