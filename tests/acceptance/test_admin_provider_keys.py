"""Provider keys at the admin API: everything that can be done to one, and that its secret is in no answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.bureau import Bureau, code, fields, reachable
from tests.servers import behaviours
from tests.servers.behaviours import chooser
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, GatewayMaker, making
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange, Upstream
from tests.servers.waiting import until

PATH = "/provider-keys"
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with behaviours.serving() as server:
        yield server


@pytest.fixture(scope="module")
def bureau(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, provider: Upstream
) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        yield Bureau(maker(allow=[provider.origin, "http://127.0.0.1:9"])).open()


@pytest.fixture(autouse=True)
def _as_ever(provider: Upstream) -> Iterator[None]:
    yield
    provider.keys = None
    provider.choose = chooser(provider)
    provider.gate.clear()


def wish(bureau: Bureau, provider: Upstream, /, **wished: Any) -> dict[str, Any]:
    """What to ask for: a key that the provider takes."""
    secret = bureau.gateway.canaries.plant("sk-")
    return {
        "name": bureau.name("pkey"), "provider": "vllm", "base_url": provider.url, "secret": secret, **wished
    }  # fmt: skip


def add(bureau: Bureau, provider: Upstream, /, **wished: Any) -> Any:
    return bureau.done("alice", "POST", PATH, json=wish(bureau, provider, **wished))


def sent(provider: Upstream, secret: str) -> int:
    """How often a credential has reached the provider."""
    return sum(request.key == secret for request in provider.received)


# ---- adding -----------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_a_key_is_tested_and_added_with_every_field(bureau: Bureau, provider: Upstream) -> None:
    asked = wish(
        bureau, provider, priority=10, weight=3, free_tier=True, account="acme", tags=["prod"], rpm=60, rpd=1_000,
        tpm=90_000, parallel=4, shared=False, budget={"period": "day", "limit_usd": "10", "soft_usd": "5"},
    )  # fmt: skip
    answer = bureau.ask("erin", "POST", PATH, json=asked)
    assert answer.status_code == 201, answer.text
    assert asked["secret"] not in answer.text
    made = answer.json()
    for name in (
        "name",
        "provider",
        "base_url",
        "priority",
        "weight",
        "free_tier",
        "account",
        "tags",
        "rpm",
        "parallel",
    ):
        assert made[name] == asked[name], name
    assert (made["strategy"], made["status"], made["health"]) == ("fill", "healthy", [])
    assert made["preview"] == f"{asked['secret'][:4]}…{asked['secret'][-3:]}"
    assert made["test"]["outcome"] == "valid"
    assert made["added_by"].startswith("erin@example.org")
    budget = made["budget"]
    assert (budget["period"], budget["limit_usd"], budget["soft_usd"], budget["remaining_usd"]) == (
        "day",
        "10",
        "5",
        "10",
    )
    assert (made["used_by"], made["used_elsewhere"], made["spent_usd"]) == ([], 0, "0")
    shown = bureau.done("alice", "GET", f"{PATH}/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name != "test"}
    assert bureau.done("alice", "GET", f"{PATH}/{made['name']}") == shown
    assert sent(provider, asked["secret"]) == 1
    audit = bureau.ask("alice", "GET", "/audit", params={"target": made["id"]})
    assert asked["secret"] not in audit.text
    assert [row["deed"] for row in audit.json()["data"]] == ["provider_keys.add"]


def test_what_the_provider_turns_down_is_not_saved(bureau: Bureau, provider: Upstream) -> None:
    provider.keys = set()
    asked = wish(bureau, provider)
    answer = bureau.ask("alice", "POST", PATH, json=asked)
    assert (answer.status_code, code(answer), answer.json()["outcome"]) == (422, "invalid_field", "invalid_key")
    assert fields(answer) == {"test"}
    assert asked["secret"] not in answer.text
    assert bureau.ask("alice", "GET", f"{PATH}/{asked['name']}").status_code == 404
    saved = bureau.done("alice", "POST", PATH, json=asked | {"test": False})
    assert saved["test"] is None
    away = bureau.ask("alice", "POST", PATH, json=wish(bureau, provider, base_url="http://127.0.0.1:9/v1"))
    assert away.json()["outcome"] == "network"


def test_what_cannot_be_saved_goes_nowhere(bureau: Bureau, provider: Upstream) -> None:
    taken = add(bureau, provider)
    for wrong, said, field in (
        ({"name": taken["name"]}, "conflict", "name"),
        ({"name": "a\u202eb"}, "invalid_field", "name"),
        ({"provider": "vlm"}, "invalid_field", "provider"),
        ({"base_url": "http://169.254.169.254/v1"}, "invalid_field", "base_url"),
        ({"fields": {"region": "eu"}}, "invalid_field", "fields"),
        ({"auth": "telepathy"}, "invalid_field", "auth"),
        ({"priority": 1_001}, "invalid_field", "priority"),
        ({"priority": "5"}, "invalid_field", "priority"),
        ({"weight": 0}, "invalid_field", "weight"),
        ({"strategy": "chance"}, "invalid_field", "strategy"),
        ({"tags": ["x" * 41]}, "invalid_field", "tags.0"),
        ({"tags": ["a\u0000b"]}, "invalid_field", "tags"),
        ({"account": ""}, "invalid_field", "account"),
        ({"rpm": 0}, "invalid_field", "rpm"),
        ({"budget": {"period": "year", "limit_usd": "1"}}, "invalid_field", "budget.period"),
        ({"budget": {"period": "day"}}, "invalid_field", "budget"),
        ({"budget": {"limit_usd": "1", "soft_usd": "2"}}, "invalid_field", "budget"),
        ({"secrets": "x"}, "invalid_field", "secrets"),
        ({"status": "healthy"}, "invalid_field", "status"),
        ({"sealed": "x"}, "invalid_field", "sealed"),
    ):
        asked = wish(bureau, provider) | wrong
        answer = bureau.ask("alice", "POST", PATH, json=asked)
        assert (code(answer), fields(answer)) == (said, {field}), (wrong, answer.text)
        assert asked["secret"] not in answer.text
        assert sent(provider, asked["secret"]) == 0, wrong


@pytest.mark.parametrize(
    "secret", ["…", "sk-1…789", "***", "sk-***-1", "••••••••", None, 12, ["sk"], "sk-\u200b1", "s k", "x" * 70_000]
)
def test_what_is_no_secret_is_refused_and_not_repeated(bureau: Bureau, provider: Upstream, secret: object) -> None:
    asked = wish(bureau, provider, provider="openai", base_url=provider.url) | {"secret": secret, "test": False}
    answer = bureau.ask("alice", "POST", PATH, json=asked)
    assert (answer.status_code, fields(answer)) == (422, {"secret"}), answer.text
    if isinstance(secret, str) and len(secret) > 3:
        assert secret not in answer.text


def test_a_repeated_write_is_answered_again_without_asking_the_provider(bureau: Bureau, provider: Upstream) -> None:
    asked = wish(bureau, provider)
    headers = {"idempotency-key": bureau.name("once")}
    first = bureau.ask("alice", "POST", PATH, json=asked, headers=headers)
    again = bureau.ask("alice", "POST", PATH, json=asked, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert sent(provider, asked["secret"]) == 1
    other = bureau.ask("alice", "POST", PATH, json=asked | {"weight": 2}, headers=headers)
    assert code(other) == "conflict"


def test_nobody_waits_for_a_provider_that_does_not_answer(bureau: Bureau, provider: Upstream) -> None:
    """No transaction is open meanwhile: on SQLite it would keep every writer out."""

    async def slow(exchange: Exchange) -> None:
        await exchange.gate()
        await behaviours.list_models(exchange)

    provider.choose = lambda _request: slow
    before = len(provider.received)
    with ThreadPoolExecutor(3) as pool:
        asked = [wish(bureau, provider) for _ in range(3)]
        answers = [pool.submit(bureau.ask, "alice", "POST", PATH, json=one) for one in asked]
        until(lambda: len(provider.received) == before + 3, "all three at the provider")
        assert bureau.key(name=bureau.name("meanwhile"))["status"] == "active"
        provider.gate.set()
        assert {one.result().status_code for one in answers} == {201}


def test_of_two_of_one_name_at_once_one_is_saved(bureau: Bureau, provider: Upstream) -> None:
    asked = [wish(bureau, provider, name=name) for name in [bureau.name("race")] * 4]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: bureau.ask("alice", "POST", PATH, json=one), asked))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


# ---- editing ----------------------------------------------------------------------------------------------------


def test_a_patch_changes_what_is_named_and_null_clears(bureau: Bureau, provider: Upstream) -> None:
    made = add(
        bureau, provider, rpm=60, account="acme", tags=["prod"], budget={"period": "month", "limit_usd": "1"},
    )  # fmt: skip
    path = f"{PATH}/{made['id']}"
    before = len(provider.received)
    edited = bureau.done("erin", "PATCH", path, json={"name": f"{made['name']}-x", "priority": -3})
    untouched = made.keys() - {"name", "priority", "updated_at", "test"}
    assert {name: edited[name] for name in untouched} == {name: made[name] for name in untouched}
    assert (edited["priority"], edited["test"]) == (-3, None)
    cleared = bureau.done("erin", "PATCH", path, json={"rpm": None, "account": None, "tags": None, "budget": None})
    assert (cleared["rpm"], cleared["account"], cleared["tags"], cleared["budget"]) == (None, None, [], None)
    for field in ("name", "priority", "weight", "strategy", "shared", "free_tier"):
        assert bureau.ask("erin", "PATCH", path, json={field: None}).status_code == 422, field
    assert len(provider.received) == before, "nothing of that is a reason to call"
    last = bureau.done("alice", "GET", "/audit", params={"target": made["id"]})["data"][0]
    assert last["before"]["rpm"] == 60
    assert last["after"]["rpm"] is None
    assert last["after"]["secret_entered"] is False


def test_fields_are_patched_one_by_one(bureau: Bureau, provider: Upstream) -> None:
    fields = {"organization": "o1", "project": "p1"}
    made = add(bureau, provider, provider="openai", test=False, fields=fields)
    path = f"{PATH}/{made['id']}"
    edited = bureau.done("alice", "PATCH", path, json={"fields": {"project": None}, "test": False})
    assert edited["fields"] == {"organization": "o1"}
    edited = bureau.done("alice", "PATCH", path, json={"fields": {"project": "p2"}, "test": False})
    assert edited["fields"] == {"organization": "o1", "project": "p2"}
    assert bureau.done("alice", "PATCH", path, json={"fields": None, "test": False})["fields"] == {}


def test_a_spend_cap_is_patched_amount_by_amount(bureau: Bureau, provider: Upstream) -> None:
    budget = {"period": "day", "limit_usd": "5", "soft_usd": "2", "thresholds": [90]}
    made = add(bureau, provider, test=False, budget=budget)
    edited = bureau.done("alice", "PATCH", f"{PATH}/{made['id']}", json={"budget": {"soft_usd": "3"}})
    assert edited["budget"] == {**made["budget"], "soft_usd": "3"}
    assert (edited["budget"]["limit_usd"], edited["budget"]["period"]) == ("5", "day")
    edited = bureau.done("alice", "PATCH", f"{PATH}/{made['id']}", json={"budget": {"period": "month"}})
    assert (edited["budget"]["limit_usd"], edited["budget"]["period"]) == ("5", "month")
    assert bureau.done("alice", "PATCH", f"{PATH}/{made['id']}", json={"budget": None})["budget"] is None


def test_a_secret_is_replaced_in_place_once_it_was_tested(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    path = f"{PATH}/{made['id']}"
    good, bad = (bureau.gateway.canaries.plant("sk-") for _ in range(2))
    provider.keys = {good}
    answer = bureau.ask("alice", "PATCH", path, json={"secret": bad})
    assert answer.json()["outcome"] == "invalid_key"
    assert bureau.done("alice", "GET", path)["preview"] == made["preview"]
    edited = bureau.done("alice", "PATCH", path, json={"secret": good})
    assert (edited["id"], edited["preview"], edited["test"]["outcome"]) == (made["id"], f"sk-C…{good[-3:]}", "valid")
    for mask in (edited["preview"], "***"):
        refused = bureau.ask("alice", "PATCH", path, json={"secret": mask, "rpm": 5})
        assert (refused.status_code, fields(refused)) == (422, {"secret"})
    assert bureau.done("alice", "GET", path)["rpm"] is None


def test_another_origin_needs_the_secret_again(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    path = f"{PATH}/{made['id']}"
    answer = bureau.ask("alice", "PATCH", path, json={"base_url": "http://127.0.0.1:9/v1", "test": False})
    assert (answer.status_code, fields(answer)) == (422, {"secret"})
    moved = {"base_url": f"{provider.origin}/v2"}
    tested = bureau.done("alice", "PATCH", path, json=moved)
    assert (tested["base_url"], tested["test"]["outcome"]) == (moved["base_url"], "valid")


def test_a_key_that_does_not_open_is_shown_and_can_be_entered_again(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    path = f"{PATH}/{made['id']}"
    with bureau.database() as database:
        database.execute("UPDATE provider_keys SET sealed = 'gone' WHERE id = ?", (made["id"],))
    assert bureau.done("alice", "GET", path)["status"] == "undecryptable"
    assert bureau.ask("alice", "POST", f"{path}/test").status_code == 503
    assert bureau.done("alice", "PATCH", path, json={"rpm": 5})["rpm"] == 5
    mended = bureau.done("alice", "PATCH", path, json={"secret": bureau.gateway.canaries.plant("sk-")})
    assert mended["status"] == "healthy"
    assert bureau.done("alice", "POST", f"{path}/test")["outcome"] == "valid"


def test_an_edit_of_what_is_deleted_while_it_is_tested_finds_nothing(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    path = f"{PATH}/{made['id']}"
    reached = threading.Event()

    async def slow(exchange: Exchange) -> None:
        reached.set()
        await exchange.gate()
        await behaviours.list_models(exchange)

    provider.choose = lambda _request: slow
    secret = bureau.gateway.canaries.plant("sk-")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(bureau.ask, "alice", "PATCH", path, json={"secret": secret})
        assert reached.wait(10)
        bureau.done("erin", "DELETE", path)
        provider.gate.set()
        assert code(answer.result()) == "not_found"


# ---- testing, resetting, deleting -------------------------------------------------------------------------------


def test_a_stored_key_is_tested(bureau: Bureau, provider: Upstream) -> None:
    asked = wish(bureau, provider)
    path = f"{PATH}/{bureau.done('alice', 'POST', PATH, json=asked)['id']}/test"
    assert bureau.done("erin", "POST", path)["outcome"] == "valid"
    provider.keys = set()
    refused = bureau.ask("erin", "POST", path)
    assert (refused.status_code, refused.json()["outcome"]) == (200, "invalid_key")
    assert asked["secret"] not in refused.text


def test_a_reset_forgets_what_is_held_against_a_key(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    path = f"{PATH}/{made['id']}"
    with bureau.database() as database:
        for model, state in (("", "disabled"), ("ok", "cooling")):
            database.execute(
                "INSERT INTO provider_key_health VALUES (?, ?, ?, 3, 'said so', 1795000000000, NULL)",
                (made["id"], model, state),
            )
    ailing = bureau.done("alice", "GET", path)
    assert (ailing["status"], [one["model"] for one in ailing["health"]]) == ("disabled", [None, "ok"])
    listed = bureau.done("bob", "GET", PATH, params={"status": "disabled"})["data"]
    assert [one["id"] for one in listed] == [made["id"]]
    healthy = bureau.done("erin", "POST", f"{path}/reset")
    assert (healthy["status"], healthy["health"]) == ("healthy", [])
    assert bureau.done("alice", "GET", PATH, params={"status": "disabled"})["data"] == []


def test_what_its_provider_says_is_left_is_told_of_a_key(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider, priority=100)  # no other one is asked before it
    path = f"{PATH}/{made['id']}"
    assert made["quota_left"] == bureau.done("erin", "GET", path)["quota_left"] == []
    provider.choose = lambda _request: behaviours.right(b"x-ratelimit-remaining-tokens-day: 120")
    agent = bureau.done("erin", "POST", "/agent-keys", json={"name": bureau.name("agent")})
    bureau.hears(agent["secret"])
    assert bureau.gateway.chat(agent["secret"], f"{made['provider']}/m").is_success
    until(lambda: bureau.done("erin", "GET", path)["quota_left"], "it to be written down")
    (told,) = bureau.done("erin", "GET", path)["quota_left"]
    words = f"m: 120 tokens a day left, as {told['gateway']} heard at {told['heard_at']}"
    assert told.items() >= {"model": "m", "what": "tokens-day", "remaining": 120, "in_words": words}.items()
    assert (told["limit"], told["resets_at"]) == (None, None)


def test_a_key_in_use_is_deleted_by_force(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    path, endpoint = f"{PATH}/{made['id']}", bureau.name("endpoint")
    with bureau.database() as database:
        database.execute(
            "INSERT INTO endpoints VALUES (?, ?, ?, 'first', 0, NULL, 1, 1)", (endpoint, bureau.home, endpoint)
        )
        database.execute("INSERT INTO endpoint_targets VALUES (?, 0, 'vllm', 'm', ?, 1, 0)", (endpoint, made["id"]))
    assert [one["name"] for one in bureau.done("alice", "GET", path)["used_by"]] == [endpoint]
    answer = bureau.ask("alice", "DELETE", path)
    assert (answer.status_code, code(answer)) == (409, "in_use")
    expected = {"kind": "endpoint", "id": endpoint, "name": endpoint, "how": "named"}
    assert (answer.json()["dependents"], answer.json()["elsewhere"]) == ([expected], 0)
    for wrong in ({"force": "perhaps"}, {"really": "true"}):
        assert bureau.ask("alice", "DELETE", path, params=wrong).status_code == 422
    assert bureau.ask("alice", "DELETE", path, params={"force": "true"}).status_code == 204
    assert bureau.ask("alice", "GET", path).status_code == 404


# ---- lists ------------------------------------------------------------------------------------------------------


def test_lists_are_searched_filtered_sorted_and_turned(bureau: Bureau, provider: Upstream) -> None:
    stem = bureau.name("shelf")
    for number in range(7):
        add(
            bureau, provider, name=f"{stem}-{number}", priority=number % 3, tags=["odd"] if number % 2 else [],
            account=stem, provider="vllm" if number < 5 else "openai-compatible", test=False,
        )  # fmt: skip

    def listed(**params: Any) -> list[str]:
        names, cursor = [], None
        while True:
            asked = {"search": stem, "limit": 2, **params, **({"cursor": cursor} if cursor else {})}
            page = bureau.done("bob", "GET", PATH, params=asked)
            names += [one["name"].rpartition("-")[2] for one in page["data"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return names

    assert listed() == list("0123456")
    assert listed(direction="descending") == list("6543210")
    assert sorted(listed(sort="priority", direction="descending")[:2]) == ["2", "5"]
    assert listed(tag="odd") == list("135")
    assert listed(provider="openai-compatible", sort="name") == list("56")
    assert listed(shared="true") == []
    assert listed(status="disabled") == []
    assert listed(sort="last_used_at") != []
    for wrong in ({"sort": "secret"}, {"shared": "x"}, {"cursor": "x"}, {"limit": 201}, {"secret": "x"}):
        assert bureau.ask("bob", "GET", PATH, params=wrong).status_code == 422, wrong


def test_the_catalogue_counts_the_organization_s_keys(bureau: Bureau, provider: Upstream) -> None:
    def rows(who: str, **params: Any) -> dict[str, Any]:
        found = bureau.done(who, "GET", "/providers", params={"limit": 200, **params})["data"]
        return {one["id"]: one for one in found}

    known = rows("bob")
    assert len(known) >= 20
    assert (known["groq"]["key_shape"], known["vllm"]["key_shape"]) == ("gsk_[a-zA-Z0-9]{52}", None)
    before = known["vllm"]["keys"]
    add(bureau, provider)
    assert rows("bob")["vllm"]["keys"] == before + 1
    assert rows("dora")["vllm"]["keys"] == 0
    assert set(rows("bob", search="mistral")) >= {"mistral"}
    assert {one["has_free"] for one in rows("bob", free="true").values()} == {True}
    assert all("local" in one["categories"] for one in rows("bob", category="local").values())
    assert bureau.ask("bob", "GET", "/providers", params={"category": "shoes"}).status_code == 422
    page = bureau.done("bob", "GET", "/providers", params={"limit": 3})
    next_page = bureau.done("bob", "GET", "/providers", params={"limit": 3, "cursor": page["next_cursor"]})
    assert [one["id"] for one in [*page["data"], *next_page["data"]]] == list(known)[:6]


# ---- others -----------------------------------------------------------------------------------------------------


def test_keys_of_another_organization_are_nowhere(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    secret = bureau.gateway.canaries.plant("sk-")
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "mine"}),
        ("PATCH", "", {"secret": secret}),
        ("POST", "/test", None),
        ("POST", "/reset", None),
        ("DELETE", "", None),
    ):
        options = {"json": body} if body else {}
        for who, params in (("dora", {}), ("dora", {"organization": bureau.home}), ("charlie", {})):
            answer = bureau.ask(who, method, f"{PATH}/{made['id']}{path}", params=params, **options)
            assert code(answer) == "not_found", (who, method, path)
    assert sent(provider, secret) == 0
    assert bureau.done("dora", "GET", PATH)["data"] == []
    fallen = bureau.mint(bureau.name("narrow"), "alice", ["gate:usage", "admin:provider-keys:read"])
    assert code(bureau.ask(fallen, "PATCH", f"{PATH}/{made['id']}", json={"secret": secret})) == "insufficient_scope"
    assert sent(provider, secret) == 0


def test_a_member_sees_keys_and_changes_none(bureau: Bureau, provider: Upstream) -> None:
    made = add(bureau, provider)
    assert made["id"] in [one["id"] for one in bureau.done("bob", "GET", PATH, params={"limit": 200})["data"]]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/reset")):
        assert code(bureau.ask("bob", method, f"{PATH}/{made['id']}{path}")) == "insufficient_scope"
    assert reachable("bob").count("admin:provider-keys:write") == 0


# ---- on every gateway -------------------------------------------------------------------------------------------


@pytest.fixture
def pair(gateways: GatewayMaker, upstream: Upstream, tmp_path: Path) -> tuple[Gateway, Gateway]:
    """Two on one database."""
    env = {"OSTIARY_DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}", "OSTIARY_MASTER_KEY": _MASTER_KEY}
    one, two = (gateways(allow=[upstream.origin], env=env) for _ in range(2))
    return one, two


def test_calls_under_way_end_with_the_old_and_the_next_have_the_new(
    pair: tuple[Gateway, Gateway], upstream: Upstream
) -> None:
    """On every gateway; and so has sharing that is taken back."""
    one, two = pair
    bureau = Bureau(one).settle()
    old, new = one.canaries.plant(), one.canaries.plant()
    body = {"name": "main", "provider": "openai-compatible", "base_url": upstream.url, "secret": old}
    made = bureau.done("alice", "POST", PATH, json=body)
    secret = one.create_key("caller")
    two.hear()

    async def slow(exchange: Exchange) -> None:
        await exchange.gate()
        await behaviours.BY_NAME["ok"](exchange)

    upstream.push(slow, slow)
    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(gateway.chat, secret, "openai-compatible/ok") for gateway in pair]
        upstream.wait_for(2)
        bureau.done("alice", "PATCH", f"{PATH}/{made['id']}", json={"secret": new})
        for gateway in pair:
            gateway.create_key(f"heard-by-{gateway.port}")  # changes are heard in their order
        assert [gateway.chat(secret, "openai-compatible/ok").status_code for gateway in pair] == [200, 200]
        assert [call.key for call in upstream.calls] == [old, old, new, new]
        upstream.gate.set()
        assert [call.result().status_code for call in under_way] == [200, 200]
    elsewhere = one.json("orgs", "create", "Elsewhere")["id"]
    stranger = one.create_key("stranger", "--org", elsewhere)
    for word, status in (("--shared", 200), ("--private", 503)):
        one.cli("vault", "edit", "main", word, "--org", bureau.home)
        _until_answered(two, stranger, status)
    assert [call.key for call in upstream.calls][-1] == new


def _until_answered(gateway: Gateway, secret: str, status: int) -> None:
    until(lambda: gateway.chat(secret, "openai-compatible/ok").status_code == status, f"a {status}")


def test_no_route_takes_or_gives_a_secret_but_the_two(bureau: Bureau) -> None:
    """By the description of the routes: a secret is in what is asked, and never in an answer."""
    described = bureau.gateway.client().get("/api/v1/openapi.json").json()
    schemas = described["components"]["schemas"]
    given = {name for name, one in schemas.items() if "secret" in one.get("properties", {})}
    ours = {name for name in given if json.dumps(schemas[name]).find('"writeOnly": true') >= 0}
    assert len(ours) == 2
    paths = {path: methods for path, methods in described["paths"].items() if "/provider-keys" in path}
    for methods in paths.values():
        for one in methods.values():
            said = json.dumps(one["responses"])
            assert not any(f'schemas/{name}"' in said for name in given)
