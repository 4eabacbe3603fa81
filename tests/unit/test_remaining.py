"""What gateways remember of quotas: of which keys, for how long, and with whom it is shared."""

from __future__ import annotations

import pytest

from ostiary.gateway.accounts import Accounts
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.remaining import Remaining
from ostiary.gateway.target import Target
from ostiary.providers import catalog
from ostiary.vault.quota_store import QuotaRow
from ostiary.vault.quota_words import current, in_words

ROW = catalog.load().get("openai-compatible")
AT = 1_795_305_540_000  # 2026-11-21T23:59:00Z


def opened(id: str, account: str = "", organization_id: str = "ours") -> OpenKey:
    return OpenKey(id, id, organization_id, ROW, "https://x", (), (), shared=False, account=account)


def remembering(*keys: OpenKey) -> Remaining:
    accounts = Accounts()
    accounts.know({key.id: key for key in keys})
    return Remaining(accounts)


def hear(some: Remaining, id: str, remaining: int, model: str = "m", at: int = AT) -> None:
    said = {"remaining": remaining, "limit": 100, "reset": 60}
    some.hear(id, model, {f"x-ratelimit-{name}-requests".encode(): b"%d" % value for name, value in said.items()})
    some.take_in(at)


def low(some: Remaining, *keys: OpenKey, model: str = "m", at: int = AT) -> list[str]:
    return [key.id for key in keys if some.is_low(Target(key, model, None), at)]


def test_who_is_nearly_dry_is_so_for_a_model_and_until_there_is_more() -> None:
    a, b = opened("a"), opened("b")
    some = remembering(a, b)
    hear(some, "a", 9)
    hear(some, "b", 10)
    assert low(some, a, b) == ["a"]
    assert low(some, a, b, model="other") == []
    assert some.turn_at(AT) == AT + 60_000
    assert low(some, a, b, at=AT + 60_000) == []
    before = some.changes
    some.take_in(AT + 60_000)
    assert (some.low, some.changes) == ({}, before + 1)
    hear(some, "a", 9)
    hear(some, "a", 99)
    assert low(some, a) == []


def test_an_account_is_one_quota() -> None:
    ours, too, alone, theirs = opened("a", "acc"), opened("b", "acc"), opened("c"), opened("d", "acc", "theirs")
    some = remembering(ours, too, alone, theirs)
    hear(some, "a", 9)
    assert low(some, ours, too, alone, theirs) == ["a", "b"]
    hear(some, "b", 50)
    assert low(some, ours, too, alone, theirs) == []


def test_what_an_edited_key_had_left_says_nothing_of_it() -> None:
    a, b = opened("a"), opened("b")
    some = remembering(a, b)
    hear(some, "a", 9)
    hear(some, "b", 9)
    some.hear("a", "other", {b"x-ratelimit-remaining-requests": b"1"})
    some.forget("a")
    assert low(some, a, b) == ["b"]
    assert list(some.news) == [("b", "m")]
    assert not some.said


def test_who_is_not_known_and_who_says_nothing_are_not_remembered() -> None:
    some = remembering(opened("a"))
    hear(some, "gone", 9)
    some.hear("a", "m", {b"content-type": b"text/plain"})
    assert not some.said
    some.hear("a", "m", {b"x-ratelimit-remaining-requests": b"soon"})
    some.take_in(AT)
    assert (some.low, some.news, some.changes) == ({}, {}, 0)


def test_names_that_callers_make_up_do_not_fill_the_memory() -> None:
    some = remembering(opened("a"))
    for number in range(5_100):
        some.hear("a", f"m{number}", {
            b"x-ratelimit-remaining-requests": b"1",
            b"x-ratelimit-limit-requests": b"100",
            b"x-ratelimit-reset-requests": b"60",
        })  # fmt: skip
    some.take_in(AT)
    assert len(some.low) == len(some.news) == 5_000


@pytest.mark.parametrize(
    ("what", "most", "resets_at", "said"),
    [
        ("requests", 100, None, "m: 1,200 of 100 requests left, as east heard at 2026-11-21T23:59:00Z"),
        ("tokens-day", None, AT + 60_000, "m: 1,200 tokens a day left until 2026-11-22T00:00:00Z, as east heard at"),
        ("input-tokens", None, None, "m: 1,200 input tokens left, as"),
        ("requests-hour", None, None, "m: 1,200 requests an hour left, as"),
    ],
)
def test_it_is_said_in_plain_words(what: str, most: int | None, resets_at: int | None, said: str) -> None:
    assert in_words(QuotaRow("key", "m", what, 1_200, most, resets_at, AT, "east")).startswith(said)


def test_what_is_over_is_not_said() -> None:
    until = QuotaRow("key", "m", "requests", 1, 2, AT + 5, AT, "east")
    unsaid = QuotaRow("key", "m", "tokens", 1, 2, None, AT, "east")
    assert current([until, unsaid], AT + 4) == [until, unsaid]
    assert current([until, unsaid], AT + 5) == [unsaid]
    assert current([until, unsaid], AT + 3_600_000) == []
