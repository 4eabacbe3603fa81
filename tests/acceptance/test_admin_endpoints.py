"""Endpoints and aliases at the admin API, as each person meets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.bureau import Bureau, code, fields
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

MINI = {"provider": "openai", "model": "gpt-5-mini"}
LLAMA = {"provider": "groq", "model": "llama-3.3-70b-versatile", "weight": 2}
PLAIN = {"provider_key_id": None, "weight": 1, "is_fallback": False}


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    """With a key for OpenAI that is Home's own, and one for Groq that Elsewhere shares."""
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        gateway = maker()
        bureau = Bureau(gateway).open()
        for provider, place, how in (("openai", bureau.home, ()), ("groq", bureau.elsewhere, ("--shared",))):
            gateway.cli(
                *("vault", "add", provider, "--name", f"my {provider}", "--org", place, *how),
                *("--no-test", "--secret-stdin"),
                stdin=canaries.plant(),
            )
        yield bureau


def endpoint(bureau: Bureau, **wished: Any) -> Any:
    """A fresh one, made by Erin."""
    return bureau.done("erin", "POST", "/endpoints", json={"name": bureau.name("chat"), "targets": [MINI], **wished})


def alias(bureau: Bureau, **wished: Any) -> Any:
    """A fresh one, made by Olga."""
    wish = {"name": f"ostiary/{bureau.name('quick')}", "targets": [LLAMA], **wished}
    return bureau.done("olga", "POST", "/aliases", json=wish)


# ---- what is made is what is shown ------------------------------------------------------------------------------


@pytest.mark.main_job
def test_an_endpoint_is_made_shown_edited_and_deleted(bureau: Bureau) -> None:
    name = bureau.name("chat")
    wish = {
        "name": name,
        "targets": [MINI, LLAMA, MINI | {"model": "gpt-5-nano", "is_fallback": True}],
        "strategy": "split",
        "retries": 3,
        "timeout_ms": 30_000,
    }
    made = bureau.done("erin", "POST", "/endpoints", json=wish)
    assert made.pop("hints") == []
    assert made["id"].startswith("endp_")
    assert made["targets"] == [PLAIN | given for given in wish["targets"]]  # type: ignore[attr-defined]
    assert {name: made[name] for name in ("name", "strategy", "retries", "timeout_ms")} == {
        name: wish[name] for name in ("name", "strategy", "retries", "timeout_ms")
    }
    shown = bureau.done("bob", "GET", f"/endpoints/{name}")
    assert shown == made | {"provider_keys": [], "used_by": {"agent_keys": []}}
    path = f"/endpoints/{made['id']}"
    edited = bureau.done("alice", "PATCH", path, json={"timeout_ms": None, "retries": 0})
    assert (edited["timeout_ms"], edited["retries"], edited["targets"]) == (None, 0, made["targets"])
    turned = bureau.done("alice", "PATCH", path, json={"targets": edited["targets"][1:], "strategy": "first"})
    assert turned["targets"] == made["targets"][1:]
    assert "'split' only" in turned["hints"][0]
    bureau.done("erin", "DELETE", path)
    assert code(bureau.ask("erin", "GET", path)) == "not_found"
    assert code(bureau.ask("erin", "DELETE", path)) == "not_found"


def test_what_is_usual_need_not_be_said(bureau: Bureau) -> None:
    made = endpoint(bureau)
    assert (made["strategy"], made["retries"], made["timeout_ms"]) == ("first", 2, None)
    assert made["targets"] == [MINI | PLAIN]


def test_a_gateway_hears_of_it_as_a_change(bureau: Bureau) -> None:
    made = endpoint(bureau)
    bureau.done("erin", "PATCH", f"/endpoints/{made['id']}", json={"retries": 1})
    one = alias(bureau)
    with bureau.database() as database:
        heard = database.execute(
            "SELECT organization_id, id FROM changes WHERE noun = 'endpoint' ORDER BY seq"
        ).fetchall()
    assert heard[-3:] == [(bureau.home, made["id"]), (bureau.home, made["id"]), (None, one["id"])]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": None}, "name"),
    ({"name": "openai/gpt-5"}, "name"),
    ({"name": "ostiary/mine"}, "name"),
    ({"name": "a,b"}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"targets": []}, "targets"),
    ({"targets": None}, "targets"),
    ({"targets": [MINI] * 51}, "targets"),
    ({"targets": [MINI, MINI]}, "targets.1"),
    ({"targets": [MINI | {"is_fallback": True}]}, "targets"),
    ({"targets": [{"model": "gpt-5"}]}, "targets.0.provider"),
    ({"targets": [MINI | {"provider": "openia"}]}, "targets.0.provider"),
    ({"targets": [MINI | {"weight": 0}]}, "targets.0.weight"),
    ({"targets": [MINI | {"weight": "2"}]}, "targets.0.weight"),
    ({"targets": [MINI | {"weight": 1.5}]}, "targets.0.weight"),
    ({"targets": [MINI | {"colour": "red"}]}, "targets.0.colour"),
    ({"targets": [MINI | {"provider_key_id": "my groq"}]}, "targets.0.provider_key_id"),
    ({"strategy": "random"}, "strategy"),
    ({"strategy": None}, "strategy"),
    ({"retries": 10}, "retries"),
    ({"retries": None}, "retries"),
    ({"timeout_ms": 99}, "timeout_ms"),
    ({"timeout_ms": 600_001}, "timeout_ms"),
    ({"organization_id": "x"}, "organization_id"),
    ({"id": "endp_x"}, "id"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG, ids=lambda value: str(value)[:60])
def test_what_cannot_be_is_refused_and_changes_nothing(bureau: Bureau, wrong: dict[str, Any], field: str) -> None:
    """Whether it is made or edited, as an endpoint or, where it is no alias's name either, as an alias."""
    made, one = endpoint(bureau), alias(bureau)
    new = {"name": bureau.name("wrong"), "targets": [MINI], **wrong}
    asked = [("erin", "POST", "/endpoints", new), ("erin", "PATCH", f"/endpoints/{made['id']}", wrong)]
    if wrong != {"name": "ostiary/mine"} and field != "targets.0.provider_key_id":
        asked += [("olga", "POST", "/aliases", new), ("olga", "PATCH", f"/aliases/{one['id']}", wrong)]
    for who, method, path, body in asked:
        answer = bureau.ask(who, method, path, json=body)
        assert answer.status_code == 422, (method, path, answer.text)
        assert fields(answer) == {field}
    for kept, path in ((made, "/endpoints"), (one, "/aliases")):
        now = bureau.done("olga", "GET", f"{path}/{kept['id']}")
        assert {name: now[name] for name in kept if name != "hints"} == {
            name: value for name, value in kept.items() if name != "hints"
        }


def test_a_name_is_taken_once(bureau: Bureau) -> None:
    made = endpoint(bureau)
    wish = {"name": made["name"], "targets": [MINI]}
    answer = bureau.ask("alice", "POST", "/endpoints", json=wish)
    assert (code(answer), fields(answer)) == ("conflict", {"name"})
    assert bureau.done("dora", "POST", "/endpoints", json=wish)["name"] == made["name"]
    assert bureau.done("olga", "POST", "/aliases", json=wish)["name"] == made["name"]


def test_a_repeated_write_is_done_once(bureau: Bureau) -> None:
    name = bureau.name("once")
    options = {"json": {"name": name, "targets": [LLAMA]}, "headers": {"idempotency-key": name}}
    first = bureau.ask("erin", "POST", "/endpoints", **options)
    again = bureau.ask("erin", "POST", "/endpoints", **options)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert len(bureau.done("erin", "GET", "/endpoints", params={"search": name})["data"]) == 1


# ---- lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["ascending", "descending"])
@pytest.mark.parametrize("sort", ["name", "created_at"])
def test_pages_hold_everything_once_in_order(bureau: Bureau, sort: str, direction: str) -> None:
    stem = bureau.name("listed")
    made = [endpoint(bureau, name=f"{stem} {letter}")["name"] for letter in "bdace"]
    found: list[str] = []
    params: dict[str, Any] = {"search": stem.upper(), "sort": sort, "direction": direction, "limit": 2}
    while True:
        page = bureau.done("bob", "GET", "/endpoints", params=params)
        found += [one["name"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    expected = sorted(made) if sort == "name" else made
    assert found == (expected if direction == "ascending" else expected[::-1])


def test_a_list_is_searched_by_target_and_filtered_by_provider(bureau: Bureau) -> None:
    stem = bureau.name("found")
    endpoint(bureau, name=f"{stem} mini")
    endpoint(bureau, name=f"{stem} llama", targets=[LLAMA])

    def names(**params: str) -> list[str]:
        found = bureau.done("alice", "GET", "/endpoints", params={"sort": "name", "limit": "200", **params})["data"]
        return [one["name"].removeprefix(f"{stem} ") for one in found if one["name"].startswith(stem)]

    assert names() == ["llama", "mini"]
    assert names(search="groq/LLAMA-3.3") == ["llama"]
    assert names(provider="openai") == ["mini"]
    assert names(provider="open") == []


@pytest.mark.parametrize("path", ["/endpoints", "/aliases"])
@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 201}, {"sort": "targets"}, {"colour": "red"}, {"cursor": "abc"}]
)
def test_what_a_list_does_not_take_is_refused(bureau: Bureau, path: str, params: dict[str, Any]) -> None:
    alias(bureau)
    endpoint(bureau)
    answer = bureau.ask("olga", "GET", path, params=params)
    assert (answer.status_code, fields(answer)) == (422, set(params))


# ---- provider keys ----------------------------------------------------------------------------------------------


def provider_key_id(bureau: Bureau, name: str) -> str:
    with bureau.database() as database:
        return str(database.execute("SELECT id FROM provider_keys WHERE name = ?", (name,)).fetchone()[0])


def test_a_target_names_a_key(bureau: Bureau) -> None:
    own, pool = (provider_key_id(bureau, f"my {provider}") for provider in ("openai", "groq"))
    targets = [MINI | {"provider_key_id": "my openai"}, LLAMA | {"provider_key_id": pool}]
    made = endpoint(bureau, targets=targets)
    assert [target["provider_key_id"] for target in made["targets"]] == [own, pool]
    assert made["hints"] == [
        "Weights count with the strategy 'split' only; by 'first' the targets are tried in their order."
    ]
    shown = bureau.done("erin", "GET", f"/endpoints/{made['id']}")
    assert shown["provider_keys"] == [
        {"id": own, "name": "my openai", "is_usable": True},
        {"id": pool, "name": None, "is_usable": True},
    ]
    again = bureau.done("erin", "PATCH", f"/endpoints/{made['id']}", json={"targets": shown["targets"]})
    assert again["targets"] == shown["targets"]


def test_an_alias_names_keys_of_the_pool_only(bureau: Bureau) -> None:
    wish = {"name": bureau.name("pooled"), "targets": [MINI | {"provider_key_id": "my openai"}]}
    answer = bureau.ask("olga", "POST", "/aliases", json=wish)
    assert (code(answer), fields(answer)) == ("invalid_field", {"targets.0.provider_key_id"})
    made = alias(bureau, targets=[LLAMA | {"provider_key_id": "my groq"}])
    pool = provider_key_id(bureau, "my groq")
    for who, name in (("olga", "my groq"), ("dora", "my groq"), ("alice", None), ("bob", None)):
        shown = bureau.done(who, "GET", f"/aliases/{made['id']}")
        assert shown["provider_keys"] == [{"id": pool, "name": name, "is_usable": True}], who


# ---- hints ------------------------------------------------------------------------------------------------------


def test_what_may_not_be_meant_is_said(bureau: Bureau) -> None:
    made = endpoint(bureau, name="gpt-5-nano", targets=[MINI | {"model": "gpt-5-mimi"}, MINI | {"provider": "mistral"}])
    shadow, typo, *others = made["hints"]
    assert "'openai/gpt-5-nano' is the model" in shadow
    assert "'gpt-5-mimi'" in typo
    assert "gpt-5-mini" in typo
    assert any("no key for mistral" in hint for hint in others)


# ---- who uses it ------------------------------------------------------------------------------------------------


def used(bureau: Bureau, id: str, key_id: str, organization_id: str, at: int) -> None:
    """What a gateway writes when a key has called an endpoint."""
    with bureau.database() as database:
        row = (id, organization_id, key_id, at)
        database.execute("INSERT INTO endpoint_uses VALUES (?, ?, ?, ?)", row)


def test_an_endpoint_says_which_agent_keys_use_it(bureau: Bureau) -> None:
    made = endpoint(bureau)
    alices = bureau.key(models=["gpt-5", made["name"]])
    bobs = bureau.key(owner_id=bureau.user_id("bob"))
    old = bureau.key()
    with bureau.database() as database:
        now = database.execute("SELECT max(at) FROM changes").fetchone()[0]
    used(bureau, made["id"], bobs["id"], bureau.home, now)
    used(bureau, made["id"], old["id"], bureau.home, now - 31 * 86_400_000)
    path = f"/endpoints/{made['id']}"
    found = {one["id"]: one for one in bureau.done("alice", "GET", path)["used_by"]["agent_keys"]}
    assert set(found) == {alices["id"], bobs["id"]}
    assert (found[alices["id"]]["is_named"], found[alices["id"]]["last_used_at"]) == (True, None)
    assert found[bobs["id"]]["is_named"] is False
    assert found[bobs["id"]]["last_used_at"].endswith("Z")
    assert [one["id"] for one in bureau.done("bob", "GET", path)["used_by"]["agent_keys"]] == [bobs["id"]]
    narrow = bureau.mint(bureau.name("narrow"), "alice", ["gate:usage", "admin:endpoints:read"])
    assert bureau.done(narrow, "GET", path)["used_by"] is None


def test_an_alias_tells_each_organization_of_its_own(bureau: Bureau) -> None:
    made = alias(bureau)
    mine = bureau.key(models=[made["name"]])
    hers = bureau.done("dora", "POST", "/agent-keys", json={"name": bureau.name("hers"), "models": [made["name"]]})
    for who, expected in (("alice", [mine]), ("dora", [hers]), ("bob", []), ("olga", [mine, hers])):
        found = bureau.done(who, "GET", f"/aliases/{made['id']}")["used_by"]["agent_keys"]
        assert {one["id"] for one in found} == {one["id"] for one in expected}, who


@pytest.mark.parametrize("noun", ["endpoints", "aliases"])
def test_what_agent_keys_name_is_in_use(bureau: Bureau, noun: str) -> None:
    who, made = ("erin", endpoint(bureau)) if noun == "endpoints" else ("olga", alias(bureau))
    key = bureau.key(models=[made["name"]])
    path = f"/{noun}/{made['id']}"
    for method, options in (("DELETE", {}), ("PATCH", {"json": {"name": bureau.name("other")}})):
        answer = bureau.ask(who, method, path, **options)
        assert (answer.status_code, code(answer)) == (409, "in_use")
        [dependent] = answer.json()["dependents"]
        assert dependent == {
            "kind": "agent_key",
            "id": key["id"],
            "name": key["name"],
            "organization_id": bureau.home,
        }
        assert key["name"] in answer.json()["detail"]
    assert bureau.done(who, "PATCH", path, json={"retries": 1})["retries"] == 1
    renamed = bureau.done(who, "PATCH", path, json={"name": bureau.name("other")}, params={"force": "true"})
    assert renamed["id"] == made["id"]
    bureau.done(who, "PATCH", path, json={"name": made["name"]})
    bureau.done(who, "DELETE", path, params={"force": "true"})
    assert code(bureau.ask(who, "GET", path)) == "not_found"


def test_a_list_of_dependents_shows_what_may_be_seen(bureau: Bureau) -> None:
    made = endpoint(bureau)
    bureau.key(models=[made["name"]])
    narrow = bureau.mint(bureau.name("narrow"), "alice", ["gate:usage", "admin:endpoints:write"])
    answer = bureau.ask(narrow, "DELETE", f"/endpoints/{made['id']}")
    assert (code(answer), answer.json()["dependents"]) == ("in_use", [])
    assert answer.json()["detail"].startswith("1 agent key may use")


# ---- who may ----------------------------------------------------------------------------------------------------


def test_endpoints_are_for_admins_to_change_and_for_members_to_see(bureau: Bureau) -> None:
    made = endpoint(bureau)
    path = f"/endpoints/{made['id']}"
    assert made["id"] in {one["id"] for one in bureau.done("bob", "GET", "/endpoints", params={"limit": 200})["data"]}
    for method, where, body in (
        ("POST", "/endpoints", {"name": bureau.name(), "targets": [MINI]}),
        ("PATCH", path, {"retries": 0}),
        ("DELETE", path, None),
    ):
        options = {"json": body} if body else {}
        assert code(bureau.ask("bob", method, where, **options)) == "insufficient_scope"
        expected = {"charlie": "not_found", "dora": "not_found"} if where == path else {"charlie": "not_found"}
        for who, said in expected.items():
            assert code(bureau.ask(who, method, where, **options)) == said, (who, method)
    for who in ("charlie", "dora"):
        assert code(bureau.ask(who, "GET", path)) == "not_found"
        assert code(bureau.ask(who, "GET", "/endpoints", params={"organization": bureau.home})) == "not_found"
    assert bureau.done("olga", "GET", path, params={"organization": bureau.home})["id"] == made["id"]


def test_aliases_are_for_the_operator_to_change_and_for_all_to_see(bureau: Bureau) -> None:
    made = alias(bureau)
    path = f"/aliases/{made['id']}"
    for who in ("alice", "erin", "bob", "dora"):
        assert bureau.done(who, "GET", path)["name"] == made["name"]
        assert (
            bureau.done(who, "GET", path.replace(made["id"], made["name"].removeprefix("ostiary/")))["id"] == made["id"]
        )
        assert made["id"] in {one["id"] for one in bureau.done(who, "GET", "/aliases", params={"limit": 200})["data"]}
        assert code(bureau.ask(who, "POST", "/aliases", json={"name": "x", "targets": [MINI]})) == "insufficient_scope"
        assert code(bureau.ask(who, "POST", "/aliases/make")) == "insufficient_scope"
        assert code(bureau.ask(who, "PATCH", path, json={"retries": 0})) == "insufficient_scope"
        assert code(bureau.ask(who, "DELETE", path)) == "insufficient_scope"
        assert code(bureau.ask(who, "GET", f"/endpoints/{made['id']}")) == "not_found"
    assert code(bureau.ask("charlie", "GET", path)) == "not_found"
    tried = bureau.done("alice", "GET", "/audit", params={"target": made["id"], "result": "denied"})["data"]
    assert {row["deed"] for row in tried} == {"aliases.edit", "aliases.delete"}
    with bureau.database() as database:
        query = "SELECT deed, organization_id FROM audit WHERE target_id = ? AND result = 'ok'"
        assert database.execute(query, (made["id"],)).fetchall() == [("aliases.create", None)]


# ---- out of the catalogue ---------------------------------------------------------------------------------------


def test_aliases_are_made_over_the_pool(bureau: Bureau) -> None:
    made = bureau.done("olga", "POST", "/aliases/make")["data"]
    names = {one["name"] for one in made}
    assert names <= {"ostiary/fast", "ostiary/smart", "ostiary/cheap"}  # a pool with nothing but Groq has no embeddings
    assert all({target["provider"] for target in one["targets"]} == {"groq"} for one in made)
    there = {one["name"] for one in bureau.done("bob", "GET", "/aliases", params={"search": "ostiary/"})["data"]}
    assert there >= {"ostiary/fast", "ostiary/smart", "ostiary/cheap"}
    assert bureau.done("olga", "POST", "/aliases/make")["data"] == []


def test_an_agent_key_may_be_for_an_endpoint_or_alias_alone(bureau: Bureau) -> None:
    """Their names pass wherever a list of models is given."""
    names = [endpoint(bureau)["name"], alias(bureau)["name"]]
    key = bureau.key(models=names)
    assert key["models"] == {"mode": "only", "items": sorted(names)}
