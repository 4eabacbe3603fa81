"""Whom calls pass over, and who pays for what goes wrong: the key, its model, or nobody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ostiary.errors import Refusal
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.health import Health
from ostiary.gateway.target import Target
from ostiary.providers import catalog
from ostiary.providers.transport import Answer, Headers
from ostiary.providers.verdict import judge
from ostiary.vault.health_store import HealthRow
from tests.fakes import SetClock

ROW = catalog.load().get("openai-compatible")
HOUR_S = 3_600


def opened(id: str, url: str = "https://x", **more: Any) -> OpenKey:
    shared = more.pop("shared", False)
    return OpenKey(id, f"name-{id}", more.pop("organization_id", "ours"), ROW, url, (), (), shared=shared, **more)


class World:
    """Some keys, and what happens to them."""

    def __init__(self, *keys: OpenKey) -> None:
        self.clock = SetClock()
        self.health = Health(self.clock)
        self.keys = {key.id: key for key in keys}
        self.health.know(self.keys)

    def target(self, id: str, model: str = "m") -> Target:
        return Target(self.keys[id], model, None)

    def fail(self, id: str, status: int, model: str = "m", body: dict[str, Any] | None = None, **said: str) -> None:
        headers = Headers({name.replace("_", "-").encode(): text.encode() for name, text in said.items()})
        self.health.failed(self.target(id, model), judge(status, None, body), headers, body or {})

    def order(self, model: str = "m") -> str:
        targets = tuple(self.target(id, model) for id in self.keys)
        return "".join(one.key.id for one in self.health.usable(targets, self.clock.now(), "ours"))

    def refusal(self, model: str = "m", whose: str = "ours") -> Refusal:
        with pytest.raises(Refusal) as caught:
            self.health.usable(tuple(self.target(id, model) for id in self.keys), self.clock.now(), whose)
        return caught.value

    def states(self) -> dict[str, dict[str, str]]:
        return {
            id: {model: one.state for model, one in known.items()} for id, known in self.health.troubles.known.items()
        }


def test_a_callers_mistake_harms_no_key() -> None:
    world = World(opened("a"), opened("b"))
    for status in (400, 404, 413, 422, 418):
        world.fail("a", status, body={"error": {"message": "wrong"}})
    assert not world.health.is_anything_known


def test_a_rate_limit_is_of_the_key_and_the_model() -> None:
    world = World(opened("a"), opened("b"))
    world.fail("a", 429, retry_after="20")
    assert world.order() == "b"
    assert world.order("other") == "ab"
    world.clock.move(20)
    assert world.order() == "ab"


def test_money_is_of_the_key_and_of_all_that_share_its_account() -> None:
    world = World(opened("a", account="acc"), opened("b", account="acc"), opened("c"), opened("d", account="other"))
    world.fail("a", 429, body={"error": {"code": "insufficient_quota", "message": "no money"}})
    assert world.states() == {"a": {"": "exhausted"}, "b": {"": "exhausted"}}
    assert world.order() == world.order("other") == "cd"
    world.clock.move(HOUR_S)
    assert world.order() == "abcd"


def test_the_same_account_name_elsewhere_is_another_account() -> None:
    world = World(opened("a", account="acc"), opened("b", account="acc", organization_id="theirs"))
    world.fail("a", 402)
    assert world.states() == {"a": {"": "exhausted"}}


def test_who_failed_once_comes_after_those_that_are_well() -> None:
    world = World(opened("a"), opened("b"))
    world.fail("a", 500)
    assert world.order() == "ba"
    world.clock.move(30)
    assert world.order() == "ab"


def test_three_failures_and_it_is_passed_over_until_one_call_finds_out() -> None:
    world = World(opened("a"), opened("b"))
    for _ in range(3):
        world.fail("a", 500)
    assert world.order() == "b"
    world.clock.move(5)
    assert world.order() == "ab"
    world.health.trying(world.target("a"))
    assert world.order() == "b", "one call is enough to find out"
    world.health.ended(world.target("a"), "ok", world.clock.now())
    assert world.order() == "ab"
    assert not world.health.is_anything_known


def test_a_call_that_began_before_says_nothing_of_what_came_after() -> None:
    world = World(opened("a"), opened("b"))
    began_at = world.clock.now()
    world.clock.move(1)
    world.fail("a", 429, retry_after="60")
    world.health.ended(world.target("a"), "ok", began_at)
    assert world.order() == "b"


def test_what_a_call_finds_in_the_millisecond_it_began_its_good_end_does_not_undo() -> None:
    world = World(opened("a"), opened("b"))
    began_at = world.clock.now()
    said = {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"20s"}
    world.health.look(world.target("a"), cast(Answer, SimpleNamespace(fields=said, headers=Headers(said))))
    world.health.ended(world.target("a"), "ok", began_at)
    assert world.order() == "b"


def test_the_only_key_is_never_refused_for_failures() -> None:
    world = World(opened("a"))
    for _ in range(9):
        world.fail("a", 503)
    assert world.order() == "a"


def test_twenty_keys_of_a_provider_that_fails_pay_nothing() -> None:
    world = World(*(opened(name) for name in "abcdefghijklmnopqrst"))
    for _ in range(3):
        for id in world.keys:
            world.fail(id, 503)
    assert world.states() == {}
    assert len(world.order()) == 20
    for id in world.keys:
        world.fail(id, 429)
    assert world.states() == {}, "nor for an address that the provider slows down"
    for id in world.keys:
        world.fail(id, 401)
    assert world.states() == {}, "nor for a provider that takes nobody's key any more"
    assert world.health.suspects == set()


def test_a_provider_that_fails_comes_after_another_one() -> None:
    world = World(*(opened(name) for name in "abc"), opened("z", "https://other"))
    for id in "abc":
        world.fail(id, 503)
    assert world.order() == "zabc"
    world.clock.move(5)
    assert world.order() == "abcz"


def test_failures_a_minute_apart_are_no_incident() -> None:
    world = World(opened("a"), opened("b"), opened("c"))
    for id in world.keys:
        world.fail(id, 429, retry_after="200")
        world.clock.move(61)
    assert set(world.states()) == {"a", "b", "c"}


def test_a_credential_is_suspected_and_disabled_only_when_confirmed() -> None:
    world = World(opened("a"), opened("b"))
    world.fail("a", 401)
    assert world.health.suspects == {"a"}
    assert world.order() == "ba"
    assert world.health.confirm("a", "not valid")
    assert world.states() == {"a": {"": "disabled"}}
    world.clock.move(24 * HOUR_S)
    assert world.order() == "b"
    world.health.ended(world.target("a"), "ok", world.clock.now())
    assert world.order() == "b", "what a person must mend only a person takes back"


def test_the_last_usable_key_is_never_disabled() -> None:
    world = World(opened("a"), opened("b"), opened("z", organization_id="theirs"))
    assert world.health.confirm("a", "not valid")
    assert not world.health.confirm("b", "not valid")
    assert world.order() == "bz"


def test_a_key_for_another_server_is_no_spare() -> None:
    world = World(opened("a"), opened("b", url="https://elsewhere"))
    assert not world.health.confirm("a", "not valid")
    assert world.states() == {}


def test_a_private_key_is_no_spare_for_those_who_use_a_shared_one() -> None:
    world = World(opened("a", shared=True), opened("b"))
    assert not world.health.confirm("a", "not valid")
    assert world.health.confirm("b", "not valid"), "its own people may use the shared one"


def test_a_quota_that_is_used_up_is_that_of_all_keys_of_the_account() -> None:
    world = World(opened("a", account="acc"), opened("b", account="acc"), opened("c"))
    said = {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"20s"}
    answer = SimpleNamespace(fields=said, headers=Headers(said))
    world.health.look(world.target("a"), cast(Answer, answer))
    assert world.states() == {"a": {"m": "cooling"}, "b": {"m": "cooling"}}
    assert world.order() == "c"


def test_nothing_usable_says_how_each_key_is_and_when_to_come_back() -> None:
    world = World(opened("a"), opened("b", organization_id="theirs"))
    world.fail("a", 429, retry_after="90")
    world.fail("b", 402)
    refusal = world.refusal()
    assert (refusal.status, refusal.code) == (503, "no_usable_key")
    assert dict(refusal.headers)[b"retry-after"] == b"90"
    assert [(one["provider_key"], one["state"]) for one in refusal.details["keys"]] == [
        ("name-a", "cooling"),
        ("(pool)", "exhausted"),
    ]
    world.health.troubles.shut("a", "does not open")
    world.health.troubles.shut("b", "does not open")
    assert b"retry-after" not in dict(world.refusal().headers)
    assert world.refusal().details["retry_after_s"] is None


def test_what_others_found_is_heard_and_what_is_newer_here_is_not_lost() -> None:
    world = World(opened("a"), opened("b"))
    at = world.clock.now()
    world.health.troubles.hear("a", [HealthRow("a", "", "disabled", 3, "not valid", at, None)])
    assert world.order() == "b"
    world.fail("b", 402)
    world.health.troubles.hear("b", [])
    assert world.states()["b"] == {"": "exhausted"}
    assert [row.state for row in world.health.troubles.rows("b")] == ["exhausted"]
    world.health.troubles.forget("a")
    assert world.order() == "a"


def test_names_that_callers_make_up_do_not_fill_the_memory() -> None:
    world = World(opened("a"), opened("b"))
    world.fail("a", 500)
    for number in range(1_000):
        world.fail("a", 429, f"made-up-{number}", retry_after="20")
        world.clock.move(0.001)
    known = world.health.troubles.of("a")
    assert len(known) == 100
    assert "" in known
    assert "made-up-999" in known, "the newest rest longest"


def test_after_an_incident_those_that_have_not_failed_come_first_and_show_whose_it_is() -> None:
    world = World(*(opened(name) for name in "abcdef"))
    for id in "abc":
        world.fail(id, 429, retry_after="3000")
    assert world.states() == {}, "for all that is known it is the provider"
    assert world.order() == "defabc"
    world.health.ended(world.target("d"), "ok", world.clock.now())
    world.clock.move(1)
    for id in "abc":
        world.fail(id, 429, retry_after="3000")
    assert world.order() == "def", "it was not: another key was answered meanwhile"
    assert set(world.states()) == set("abc")


def test_bad_keys_among_good_ones_are_suspected_once_a_good_one_has_answered() -> None:
    world = World(*(opened(name) for name in "abcdef"))
    for id in "abc":
        world.fail(id, 401)
    assert world.health.suspects == set()
    world.health.ended(world.target("d"), "ok", world.clock.now())
    world.clock.move(1)
    for id in "abc":
        world.fail(id, 401)
    assert world.health.suspects == set("abc")


def test_only_keys_that_were_tried_say_how_many_fail() -> None:
    world = World(*(opened(f"k{number:03}") for number in range(100)))
    for id in list(world.keys)[:20]:
        world.fail(id, 429, retry_after="3000")
    assert world.states() == {}


def test_what_is_being_written_is_not_taken_for_news_of_others() -> None:
    world = World(opened("a"), opened("b"))
    world.fail("a", 402)
    troubles = world.health.troubles
    troubles.telling, troubles.changed = {"a"}, set()
    troubles.hear("a", [])
    assert world.states() == {"a": {"": "exhausted"}}
    troubles.telling = set()
    troubles.hear("a", [])
    assert world.states() == {}


def test_what_others_found_is_written_down_beside_what_is_found_here() -> None:
    world = World(opened("a"), opened("b"))
    at = world.clock.now()
    theirs = [
        HealthRow("a", "", "disabled", 3, "not valid", at, None),
        HealthRow("a", "other", "cooling", 1, "slow", at, at + 60_000),
    ]
    world.fail("a", 429, retry_after="60")
    joined = {row.model: row.state for row in world.health.troubles.joined("a", theirs)}
    assert joined == {"": "disabled", "other": "cooling", "m": "cooling"}
    world.fail("a", 500)
    assert {row.model: row.state for row in world.health.troubles.joined("a", theirs)}[""] == "disabled"
    world.clock.move(61)
    world.health.ended(world.target("a"), "ok", world.clock.now())
    mine = [HealthRow("a", "m", "cooling", 1, "slow", at, at + 60_000)]
    assert world.health.troubles.joined("a", mine) == [], "what is well again here is well again for all"


def test_a_key_that_somebody_has_edited_is_not_what_failed() -> None:
    world = World(opened("a"), opened("b"))
    before = world.target("a")
    world.keys["a"] = opened("a")
    world.health.know(world.keys)
    world.health.failed(before, judge(401, None, None), Headers({}), {})
    assert not world.health.is_anything_known
    assert world.health.suspects == set()
    said = {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1h"}
    world.health.look(before, cast("Answer", SimpleNamespace(fields=said, headers=Headers(said))))
    assert not world.health.is_anything_known, "nor is its quota what was used up"
    assert world.health.remaining.said == {}
    world.health.look(world.target("a"), cast("Answer", SimpleNamespace(fields=said, headers=Headers(said))))
    assert world.states() == {"a": {"m": "cooling"}}


def test_what_a_clock_that_was_ahead_has_written_is_over() -> None:
    world = World(opened("a"), opened("b"))
    world.fail("a", 402)
    world.clock.at -= 5 * 3_600_000
    assert world.order() == "ab"


def test_a_secret_that_does_not_open_here_stays_shut_whatever_others_say() -> None:
    world = World(opened("a"), opened("b"))
    world.health.troubles.shut("a", "does not open")
    world.health.troubles.changed.clear()
    world.health.troubles.hear("a", [])
    assert world.order() == "b"
    world.health.troubles.hear("b", [HealthRow("b", "", "undecryptable", 1, "not there", world.clock.now(), None)])
    assert world.order() == "b", "each gateway knows best what it can open"


def test_what_is_over_at_once_is_not_told() -> None:
    world = World(opened("a"), opened("b"))
    world.fail("a", 429, retry_after_ms="300")
    assert world.order() == "b"
    assert world.health.troubles.changed == set()
    world.fail("a", 429, retry_after="30")
    assert world.health.troubles.changed == {"a"}


def test_an_epoch_lasts_until_anything_is_otherwise() -> None:
    world = World(*(opened(id) for id in "abc"))
    numbers = []

    def another(*, after_s: float = 0) -> bool:
        world.clock.move(after_s)
        numbers.append(world.health.epoch.number(world.clock.now()))
        return numbers[-1] not in numbers[:-1]

    assert another()
    world.fail("a", 429, retry_after="20")
    assert another()
    assert not another(after_s=19)
    assert another(after_s=1), "its rest is over"
    world.health.trying(world.target("a"))
    assert another(), "others keep away"
    world.health.trying(world.target("b"))
    assert not another()
    for id in "abc":
        world.fail(id, 503)
    assert another(), "its provider is in doubt"
    assert another(after_s=5), "and is no longer"
    world.clock.move(-3)
    assert another(), "what was so then is not taken for granted before"
