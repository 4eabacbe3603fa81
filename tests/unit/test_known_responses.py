"""What a gateway remembers of responses is bounded, and never another organization's."""

from __future__ import annotations

from ostiary.gateway.known_responses import Bound, KnownResponses

ONE, TWO = Bound("pk_1", "openai", "m"), Bound("pk_2", "openai", "m")


def test_a_response_belongs_to_its_organization() -> None:
    known = KnownResponses()
    known.note("org_a", "resp_1", ONE)
    assert known.find("org_a", "resp_1") == ONE
    assert known.find("org_b", "resp_1") is None
    known.note("org_b", "resp_1", TWO)
    assert known.find("org_a", "resp_1") == ONE


def test_the_last_used_are_kept() -> None:
    known = KnownResponses(most=2)
    for name in ("a", "b"):
        known.note("org", name, ONE)
    assert known.find("org", "a")
    known.note("org", "c", TWO)
    assert (known.find("org", "a"), known.find("org", "b"), known.find("org", "c")) == (ONE, None, TWO)


def test_a_miss_is_remembered_for_a_second_and_by_its_organization() -> None:
    known = KnownResponses()
    known.miss("org_a", "a", 10.0)
    assert known.is_missed("org_a", "a", 10.9)
    assert not known.is_missed("org_b", "a", 10.9)
    assert not known.is_missed("org_a", "a", 11.0)
    known.miss("org_a", "a", 20.0)
    known.note("org_a", "a", ONE)
    assert not known.is_missed("org_a", "a", 20.1)


def test_misses_are_bounded() -> None:
    known = KnownResponses(most=2)
    for name in ("a", "b", "c"):
        known.miss("org", name, 10.0)
    assert [known.is_missed("org", name, 10.1) for name in ("a", "b", "c")] == [False, True, True]


def test_what_was_deleted_is_forgotten() -> None:
    known = KnownResponses()
    known.note("org", "a", ONE)
    known.forget("org", "a")
    known.forget("org", "a")
    assert known.find("org", "a") is None
