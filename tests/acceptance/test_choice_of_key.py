"""Which provider key a call goes out with: own before pool, in turns by weight, used up first, where it was before."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from ostiary.orgs import organizations
from ostiary.secret import Secret
from ostiary.vault import provider_keys
from ostiary.vault.endpoint_store import EndpointTarget
from ostiary.vault.provider_keys import NewProviderKey, ProviderKeyEdit
from tests.acceptance.inside import OPERATOR, rows, set_prices
from tests.acceptance.pair import Pair, pair_of
from tests.servers import behaviours
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange
from tests.servers.waiting import until

pytestmark = pytest.mark.usefixtures("one_day")
"""What is left of a day is worth nothing a moment before its end."""
TURNS = 256
"""So many calls that belong to no conversation go round once, whoever the turns belong to."""
WITHIN = 42
"""Six standard deviations of the share that a weight of three in four gets of the turns: whose each is depends on ids,
which are drawn.
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("choice"), canaries, shell) as made:
        yield made


@pytest.fixture(autouse=True)
def well(pair: Pair) -> Iterator[None]:
    """What one case does to the provider is no matter of the next one."""
    yield
    pair.by_key.clear()


def talk(pair: Pair, model: str, count: int) -> dict[int, str]:
    """Which key each of so many conversations went to, half of them at each gateway."""
    names = {secret: name for name, secret in pair.secrets.items()}
    since = len(pair.upstream.calls)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(pair.ask, model, said(number), at=number % 2) for number in range(count)]
        assert {one.result().status_code for one in asked} == {200}
    found = pair.upstream.calls[since:]
    served = {one.json["messages"][0]["content"]: names[one.key or ""] for one in found if one.answered.wait(30)}
    return {number: served[said(number)] for number in range(count)}


def said(number: int) -> str:
    """What a conversation begins with."""
    return f"conversation {number}"


def embed(pair: Pair, model: str, count: int) -> Counter[str]:
    """Calls that belong to no conversation, all of them at one gateway; by the key they went to."""
    since = len(pair.upstream.calls)
    client, headers = pair.clients[0], pair.caller.bearer
    for number in range(count):
        answer = client.post("/v1/embeddings", json={"model": model, "input": f"text {number}"}, headers=headers)
        assert answer.status_code == 200, answer.text
    return pair.used(since)


def elsewhere(pair: Pair, name: str, provider: str, key: str, **more: Any) -> None:
    """A key that another organization shares with the pool; it may be the operator's."""
    secret = pair.secrets[key] = pair.gateways[0].canaries.plant()

    async def deed(base: Any, tx: Any, _home: Any) -> None:
        at = base.clock.now()
        made = await organizations.create(tx, OPERATOR, name, at)
        wish = NewProviderKey(key, base.catalog.get(provider), Secret(secret), pair.upstream.url, shared=True, **more)
        await provider_keys.add(tx, OPERATOR, made.id, wish, seal=base.seal, egress=base.egress, at=at)

    pair.do(deed)


def edit(pair: Pair, name: str, **changes: Any) -> None:
    """Change one of the keys at home."""

    async def deed(base: Any, tx: Any, organization: Any) -> None:
        key = await provider_keys.show(tx, OPERATOR, organization.id, name, seal=base.seal)
        wish = ProviderKeyEdit(base.catalog.get(key.provider), changes)
        await provider_keys.change(
            tx, OPERATOR, organization.id, name, wish, seal=base.seal, egress=base.egress, at=base.clock.now()
        )

    pair.do(deed)


# ---- own before pool --------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_own_keys_come_before_the_pool_however_high_its_priority(pair: Pair) -> None:
    elsewhere(pair, "Generous", "groq", "of the pool", priority=1_000)
    pair.furnish("groq", "own, first", "own, next", priority=-1_000)
    edit(pair, "own, first", priority=-999)
    assert set(talk(pair, "groq/m", 40).values()) == {"own, first"}
    pair.by_key["own, first"] = behaviours.quota
    assert set(talk(pair, "groq/m", 40).values()) == {"own, next"}
    pair.by_key["own, next"] = behaviours.quota
    assert set(talk(pair, "groq/m", 40).values()) == {"of the pool"}
    del pair.by_key["own, first"]
    pair.reset("own, first")
    assert set(talk(pair, "groq/m", 40).values()) == {"own, first"}, "and it is back as soon as it is well"


# ---- in turns, and one after another ----------------------------------------------------------------------------


def test_turns_are_shared_by_weight_and_as_often_as_they_go_round(pair: Pair) -> None:
    pair.furnish("openrouter", "heavy", weight=3)
    pair.furnish("openrouter", "light")
    first = embed(pair, "openrouter/m", TURNS)
    assert first.total() == TURNS
    assert abs(first["heavy"] - TURNS * 3 // 4) <= WITHIN
    assert embed(pair, "openrouter/m", TURNS) == first, "the turns are whose they were"
    spread = Counter(talk(pair, "openrouter/m", TURNS).values())
    assert spread["heavy"] > spread["light"] > 0, "conversations are shared by the same weights"
    edit(pair, "heavy", weight=1)
    edit(pair, "light", weight=3)
    turned = embed(pair, "openrouter/m", TURNS)
    assert abs(turned["light"] - TURNS * 3 // 4) <= WITHIN, "from the next call on as the edit says"


def test_a_free_key_is_used_up_before_the_next_and_first_again_afterwards(pair: Pair) -> None:
    pair.furnish("mistral", "free 1", "free 2", free_tier=True)
    pair.furnish("mistral", "paid 1", "paid 2")
    assert set(talk(pair, "mistral/m", 40).values()) == {"free 1"}
    pair.by_key["free 1"] = behaviours.quota
    assert set(talk(pair, "mistral/m", 40).values()) == {"free 2"}
    pair.by_key["free 2"] = behaviours.quota
    assert set(talk(pair, "mistral/m", 40).values()) == {"paid 1", "paid 2"}
    for name in ("free 1", "free 2"):
        pair.await_state(name, "exhausted")
    pair.by_key.clear()
    pair.shift(3_601)
    for at in (0, 1):
        pair.ask("mistral/m", f"found out {at}", at=at)
    assert set(talk(pair, "mistral/m", 40).values()) == {"free 1"}


# ---- where it was before ----------------------------------------------------------------------------------------


def test_a_conversation_stays_with_its_key_while_that_is_well_and_the_others_with_theirs(pair: Pair) -> None:
    names = ["north", "east", "south", "west"]
    pair.furnish("xai", *names)
    model, count = "xai/m", 80
    homes = talk(pair, model, count)
    assert set(homes.values()) == set(names)
    assert talk(pair, model, count) == homes
    since = len(pair.upstream.calls)
    for number, home in list(homes.items())[:10]:
        more = [
            {"role": "user", "content": said(number)},
            {"role": "assistant", "content": "so"},
            {"role": "user", "content": "and then?"},
        ]
        for at in (0, 1):
            assert pair.ask(model, at=at, messages=more).status_code == 200
            assert pair.upstream.calls[-1].key == pair.secrets[home], "the same at both gateways, however long it is"
    assert len(pair.upstream.calls) == since + 20
    for fault, state in ((behaviours.status(503), "degraded"), (behaviours.quota, "exhausted")):
        pair.by_key["north"] = fault
        away = talk(pair, model, count)
        assert "north" not in away.values()
        stayed = {number: home for number, home in homes.items() if home != "north"}
        assert {number: away[number] for number in stayed} == stayed, "nobody else has moved"
        until(lambda: [one["state"] for one in pair.health("north")] in ([state], ["unhealthy"]), state)  # noqa: B023 - called at once
        pair.hear()
        since = len(pair.upstream.calls)
        assert talk(pair, model, count) == away, "and who had to leave stays where it went"
        if state == "exhausted":
            assert pair.used(since)["north"] == 0
        pair.by_key.clear()
        pair.reset("north")
        assert talk(pair, model, count) == homes, "until the key is well again"


def test_who_goes_on_from_a_response_comes_to_the_key_that_gave_it_at_every_gateway(pair: Pair) -> None:
    names = ["r1", "r2", "r3", "r4"]
    pair.furnish("deepseek", *names)
    by_secret = {pair.secrets[name]: name for name in names}

    def respond(at: int, **more: Any) -> tuple[str, str]:
        body = {"model": "deepseek/m", "max_output_tokens": 5, **more}
        answer = pair.clients[at].post("/v1/responses", json=body, headers=pair.caller.bearer)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"], by_secret[pair.upstream.calls[-1].key or ""]

    made = [respond(0, input=said(number)) for number in range(16)]
    assert len({key for _, key in made}) > 1
    until(lambda: len(rows(pair.gateways[0], "SELECT id FROM responses")) >= len(made), "them to be written down")
    for number, (id, key) in enumerate(made):
        for at in (0, 1):
            _, went = respond(at, input=f"another beginning {number}", previous_response_id=id)
            assert went == key
    (id, key), other = made[0], next(key for _, key in made if key != made[0][1])
    pair.by_key[key] = behaviours.status(500)
    body = {"model": "deepseek/m", "input": "x", "previous_response_id": id}
    since = len(pair.upstream.calls)
    assert pair.clients[0].post("/v1/responses", json=body, headers=pair.caller.bearer).status_code == 502
    assert set(pair.used(since)) == {key}, "no other key knows it"
    assert other not in pair.used(since)


# ---- accounts, and the last key ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "behaviour", "state"),
    [
        ("fireworks", behaviours.quota, "exhausted"),
        ("together", behaviours.refuse(429, "slow down", None, b"retry-after: 900"), "cooling"),
    ],
)
def test_what_one_key_of_an_account_is_told_counts_for_all_of_it(
    pair: Pair, provider: str, behaviour: Any, state: str
) -> None:
    group, model = [f"{provider} {name}" for name in "abc"], f"{provider}/m"
    alone, namesake = f"{provider} alone", f"{provider} elsewhere"
    pair.furnish(provider, *group, account="acme", strategy="fill")
    pair.furnish(provider, alone, strategy="fill", priority=-1)
    elsewhere(pair, f"Namesake {provider}", provider, namesake, account="acme")
    since = len(pair.upstream.calls)
    pair.by_key |= dict.fromkeys(group, behaviour)
    assert pair.ask(model, "who finds out").status_code == 200
    assert pair.used(since) == {group[0]: 1, alone: 1}, "who finds out does not ask the account again"
    for name in group:
        pair.await_state(name, state)
    pair.hear()
    since = len(pair.upstream.calls)
    assert set(talk(pair, model, 20).values()) == {alone}
    assert pair.used(since) == {alone: 20}, "no other key of the account is asked, at neither gateway"
    pair.by_key[alone] = behaviours.quota
    assert set(talk(pair, model, 20).values()) == {namesake}, "the same name elsewhere is another account"
    pair.by_key.clear()
    pair.reset(*group)
    assert set(talk(pair, model, 20).values()) == {group[0]}


def test_the_last_usable_key_is_not_disabled_and_works_again_by_itself(pair: Pair) -> None:
    pair.furnish("sambanova", "left", "right", strategy="fill")
    model = "sambanova/m"
    asked: Counter[str] = Counter()

    async def turned_down(exchange: Exchange) -> None:
        if b'"max_tokens":1,' in exchange.request.body.replace(b" ", b"") and b"Hi" in exchange.request.body:
            asked[exchange.request.key or ""] += 1
        await behaviours.unauthorized(exchange)

    def tests(name: str) -> int:
        return asked[pair.secrets[name]]

    def is_tried(name: str, times: int, status: int) -> bool:
        assert pair.ask(model, "again").status_code == status
        return tests(name) >= times

    pair.by_key["left"] = turned_down
    until(lambda: is_tried("left", 1, 200), "it to be suspected and tested", 60)
    pair.await_state("left", "disabled")
    pair.by_key["right"] = turned_down
    for times in (1, 2, 3):
        pair.shift(31)  # so soon no key is tested twice
        until(lambda: is_tried("right", times, 502), "the last one to be tested once more", 60)  # noqa: B023 - called at once
    until(lambda: [one["state"] for one in pair.health("right")] in (["degraded"], ["unhealthy"]), "it to be in doubt")
    pair.by_key.clear()
    assert pair.ask(model, "mended").status_code == 200
    pair.await_state("right", None)
    pair.await_state("left", "disabled")


def test_two_gateways_that_each_disable_another_of_two_keys_leave_one(pair: Pair) -> None:
    """Neither can be told of the other's finding in time: nobody can write meanwhile."""
    pair.furnish("novita", "oak", "elm")
    model, gateways = "novita/m", {"oak": 0, "elm": 1}
    for name in gateways:
        id = pair.gateways[0].json("vault", "show", name, "--org", "default")["id"]
        pair.endpoint(f"{name} alone", EndpointTarget("novita", "m", id))

    def is_disabled(name: str) -> bool:
        refused = pair.ask(f"{name} alone", at=gateways[name]).json()["error"]
        return (refused["code"], [one["state"] for one in refused.get("keys", ())]) == ("no_usable_key", ["disabled"])

    url = pair.gateways[0].environment()["OSTIARY_DATABASE_URL"]
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for name in gateways:
            pair.by_key = {name: behaviours.unauthorized}
            until(partial(is_disabled, name), f"{name} to be disabled where it is seen to fail", 60)
        other.execute("ROLLBACK")
    pair.by_key.clear()
    query = "SELECT seq FROM changes JOIN provider_keys USING (id) WHERE noun = 'key_health' AND name = ?"
    until(lambda: all(rows(pair.gateways[0], query, name) for name in gateways), "both to be written down")
    pair.hear()
    answers = [pair.ask(model, said(number), at=number % 2) for number in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    found = [[one["state"] for one in pair.health(name)] for name in gateways]
    assert sorted(found) in ([[], ["disabled"]], [["degraded"], ["disabled"]])


# ---- what others spend ------------------------------------------------------------------------------------------


def test_who_shares_a_key_sees_what_others_spent_by_it_and_not_who(pair: Pair) -> None:
    set_prices(pair.gateways[0], "cerebras/m", input_usd=10, output_usd=30)
    elsewhere(pair, "Sharing", "cerebras", "lent")
    gateway = pair.gateways[0]

    def shown() -> Any:
        return gateway.json("vault", "show", "lent", "--org", "Sharing")

    assert Decimal(str(shown()["spent_usd"])) == 0
    cost = Decimal(0)
    for number in range(3):
        answer = pair.ask("cerebras/m", said(number))
        cost += Decimal(answer.headers["x-ostiary-cost-usd"])
    assert cost > 0
    until(lambda: Decimal(str(shown()["spent_usd"])) == cost, "all of it to be counted")
    assert pair.caller.id not in str(shown())
    assert gateway.json("usage", "--by", "provider-key", "--org", "Sharing") == []
    assert gateway.json("traces", "--org", "Sharing") == [], "a call is its caller's"
