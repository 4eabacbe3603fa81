"""What a call that failed is tried with next: whatever fails, no target waits for the keys of another in vain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ostiary.gateway.ahead import Ahead, next_of, pause_s
from ostiary.gateway.attempt import Failure, failed_on_the_way
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.target import Route, Target, Tier
from ostiary.providers import catalog
from ostiary.providers.transport import Headers, TransportError
from ostiary.providers.verdict import judge
from ostiary.vault.endpoint_store import Endpoint
from tests.fakes import SetClock

PLACES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20)
ROWS = [*catalog.load().providers.values()]
ENDS_AT = 1e12
DRY = Failure(judge(402, None, None), 402)
PASSING = Failure(judge(503, None, None), 503)


def target(place: str, number: int = 0) -> Target:
    row = ROWS[ord(place) - ord("a")]
    key = OpenKey(f"{place}{number}", place, "ours", row, f"https://{place}", (), (), shared=False)
    return Target(key, place, None)


def ahead(targets: list[Target], attempts: int, clock: SetClock, *, is_endpoint: bool = True) -> Ahead:
    endpoint = Endpoint("ep", "ours", "e", "first", attempts - 1, None, (), 0, 0) if is_endpoint else None
    every = tuple(targets)
    return Ahead(Route(((Tier(every),),), (), every, every, attempts, endpoint), every[1:], clock, ENDS_AT)


def tried(targets: list[Target], attempts: int, failure: Failure, *, is_endpoint: bool = True) -> list[Target]:
    """All that one call asks where everything fails alike."""
    clock = SetClock()
    way = ahead(targets, attempts, clock, is_endpoint=is_endpoint)
    asked = [targets[0]]
    while True:
        way.note(asked[-1], failure, is_of_provider=False, may_be_repeated=True)
        found = way.take()
        if found is None:
            return asked
        clock.move(found[1])
        asked.append(found[0])


@given(PLACES, st.integers(1, 10))
def test_every_target_gets_its_attempt_as_long_as_there_are_attempts(places: list[str], attempts: int) -> None:
    targets = [target(place, number) for number, place in enumerate(places)]
    asked = tried(targets, attempts, DRY)
    assert len(asked) == min(attempts, len(targets)), "none is lost, and none is tried twice"
    assert len({one.key.id for one in asked}) == len(asked)
    first = list(dict.fromkeys(places))
    assert list(dict.fromkeys(one.model for one in asked)) == first[:attempts]
    for place in first:
        of_it = [one for one in asked if one.model == place]
        assert of_it == [one for one in targets if one.model == place][: len(of_it)], "its keys in their order"
        others = min(len(first), attempts) - 1
        assert len(of_it) <= max(attempts - others, 1)


@given(PLACES, st.sets(st.sampled_from("abcdef")), st.integers(1, 10))
def test_the_next_is_the_first_unless_all_attempts_are_due_to_others(
    places: list[str], before: set[str], attempts: int
) -> None:
    left = [(place, place) for place in places]
    known = {(place, place) for place in before}
    untried = [place for place in left if place not in known]
    found = next_of(left, known, attempts)
    if not untried or len(set(untried)) < attempts:
        assert found == 0
    else:
        assert left[found] == untried[0]


@given(places=PLACES, attempts=st.integers(1, 10), is_endpoint=st.booleans())
def test_what_failed_for_a_moment_is_tried_again_when_nothing_else_is_left(
    places: list[str], attempts: int, *, is_endpoint: bool
) -> None:
    targets = [target(place, number) for number, place in enumerate(places)]
    asked = tried(targets, attempts, PASSING, is_endpoint=is_endpoint)
    once = asked[: len(targets)]
    assert len({one.key.id for one in once}) == len(once), "each once before any a second time"
    if not is_endpoint:
        assert len(asked) == min(attempts, len(targets)), "only an endpoint has it in its settings"
        return
    assert len(asked) == attempts
    assert all(one is once[number % len(once)] for number, one in enumerate(asked)), "and then in the same order"


@given(st.sampled_from([200, 400, 401, 402, 403, 404, 408, 410, 413, 422, 429, 501]), st.integers(2, 10))
def test_nothing_else_is_tried_again(status: int, attempts: int) -> None:
    assert len(tried([target("a")], attempts, Failure(judge(status, None, {"error": {}}), status))) == 1


def test_what_was_sent_is_not_sent_again() -> None:
    for kind in ("broken", "first_byte_timeout", "idle_timeout", "too_large"):
        failure = failed_on_the_way(TransportError(kind, sent=True, text="x"), 0)
        assert len(tried([target("a")], 4, failure)) == 1
    refused = failed_on_the_way(TransportError("refused", sent=False, text="x"), 0)
    assert len(tried([target("a")], 4, refused)) == 4


@given(st.integers(0, 9), st.floats(0, 1))
def test_a_pause_grows_and_ends_somewhere(number: int, chance: float) -> None:
    longest = min(0.25 * 2**number, 2.0)
    assert longest / 2 <= pause_s(number, chance) <= longest


def told(**fields: str) -> Failure:
    headers = Headers({name.replace("_", "-").encode(): value.encode() for name, value in fields.items()})
    return Failure(judge(503, None, None), 503, headers=headers)


def test_a_provider_that_wants_to_be_left_alone_is() -> None:
    clock = SetClock()
    for failure, least in ((told(retry_after="4"), 4.0), (told(retry_after_ms="3500"), 3.5), (told(), 0.1)):
        way = ahead([target("a")], 3, clock)
        way.note(target("a"), failure, is_of_provider=False, may_be_repeated=True)
        found = way.take()
        assert found is not None
        assert least <= found[1] <= max(least, 0.25)
    for failure in (told(retry_after="60"), told(x_should_retry="false")):
        way = ahead([target("a")], 3, clock)
        way.note(target("a"), failure, is_of_provider=False, may_be_repeated=True)
        assert way.take() is None


def test_a_call_that_took_its_time_is_not_tried_again() -> None:
    clock = SetClock()
    every = (target("a"),)
    endpoint = Endpoint("ep", "ours", "e", "first", 9, None, (), 0, 0)
    route = Route(((Tier(every),),), (), every, every, 10, endpoint)
    for ends_in_s, is_tried in ((600.0, True), (0.1, False)):
        way = Ahead(route, (), clock, clock.monotonic() + ends_in_s)
        way.note(every[0], PASSING, is_of_provider=False, may_be_repeated=True)
        assert (way.take() is not None) is is_tried


def test_a_model_that_is_gone_is_gone_by_every_key_and_its_provider_is_not() -> None:
    gone = Failure(judge(404, None, {"error": {"code": "model_not_found"}}), 404)
    targets = [target("a", 0), target("a", 1), target("b")]
    assert [one.key.id for one in tried(targets, 5, gone)] == ["a0", "b0"]
    assert [one.key.id for one in tried(targets, 5, gone, is_endpoint=False)] == ["a0", "b0"]
    assert [one.key.id for one in tried(targets[:2], 5, gone, is_endpoint=False)] == ["a0"]
