"""When providers say that a key may be used again, in all the ways they say it."""

from __future__ import annotations

import json

import pytest

from ostiary.providers.quota import Left, is_of_the_day, is_spent, left, resets_at, spent_until
from ostiary.providers.transport import Headers
from tests.servers.google_errors import OF_BOTH, OF_THE_DAY, OF_THE_MINUTE, RETRY_S

AT = 1_795_305_540_000  # 2026-11-21T23:59:00Z


def headers(**said: str) -> Headers:
    return Headers({name.replace("_", "-").encode(): text.encode() for name, text in said.items()})


@pytest.mark.parametrize(
    ("text", "after_ms"),
    [
        ("7", 7_000),
        ("0.5", 500),
        ("Sat, 21 Nov 2026 23:59:30 GMT", 30_000),
        ("2026-11-21T23:59:30Z", 30_000),
        ("6m0s", 360_000),
        ("1h2m3.5s", 3_723_500),
        ("1795305600", 60_000),
        ("1795305600000", 60_000),
    ],
)
def test_a_moment_in_every_spelling(text: str, after_ms: int) -> None:
    assert resets_at(headers(retry_after=text), None, AT) == AT + after_ms


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "1e9", "2026-11-21T23:58:00Z", "99999999999999999", "Feb 30"])
def test_what_is_past_or_means_nothing_says_nothing(text: str) -> None:
    assert resets_at(headers(retry_after=text), None, AT) is None


def test_the_plain_word_counts_more_than_windows() -> None:
    windows = {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "20s"}
    assert resets_at(headers(**windows), None, AT) == AT + 20_000
    assert resets_at(headers(retry_after="3", **windows), None, AT) == AT + 3_000
    assert resets_at(headers(retry_after="3", retry_after_ms="2500", **windows), None, AT) == AT + 2_500


def test_google_says_it_in_the_body() -> None:
    body = {"error": {"code": 429, "details": [{"@type": "x"}, {"@type": "RetryInfo", "retryDelay": "34.5s"}]}}
    assert resets_at(headers(), body, AT) == AT + 34_500
    for odd in ({}, {"error": "no"}, {"error": {"details": "no"}}, {"error": {"details": [None, {"retryDelay": 5}]}}):
        assert resets_at(headers(), odd, AT) is None


def test_a_quota_of_the_day_is_back_when_it_is_midnight_in_california() -> None:
    hour, midnight = 3_600_000, AT + 60_000  # the latter of UTC
    for body in (OF_THE_DAY, OF_BOTH):
        (said,) = json.loads(body)
        assert is_of_the_day(said)
        assert resets_at(headers(retry_after="22"), said, AT) == midnight + 7 * hour, "in summer"
        assert resets_at(headers(), said, midnight + 7 * hour) == midnight + 8 * hour, "in winter: whichever is next"
        assert resets_at(headers(), said, midnight + 8 * hour) == midnight + 31 * hour
    (said,) = json.loads(OF_THE_MINUTE)
    assert not is_of_the_day(said)
    assert resets_at(headers(), said, AT) == AT + RETRY_S * 1_000


@pytest.mark.parametrize(
    "violations",
    [None, "no", [None], [{"quotaId": 5}], [{"quotaId": "RequestsPerMinute"}], [{"quotaId": "PerDayparting"}], [{}]],
)
def test_what_names_no_quota_of_the_day_is_none(violations: object) -> None:
    assert not is_of_the_day({"error": {"details": [{"violations": violations}]}})
    assert not is_of_the_day({"violations": [{"quotaId": "GenerateRequestsPerDay"}]})


def test_of_several_windows_that_are_used_up_the_last_one_counts() -> None:
    said = headers(
        x_ratelimit_remaining_requests="0",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_remaining_tokens="0",
        x_ratelimit_reset_tokens="6m0s",
        anthropic_ratelimit_requests_remaining="5",
        anthropic_ratelimit_requests_reset="2026-11-22T23:59:00Z",
    )
    assert spent_until(said, AT) == AT + 360_000
    assert spent_until(headers(x_ratelimit_remaining_requests="1", x_ratelimit_reset_requests="1s"), AT) is None


@pytest.mark.parametrize(
    ("remaining", "reset", "value", "after_ms"),
    [
        # OpenAI's, as protocols.md has them, and those who give the window's length: Cerebras and SambaNova.
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "6m0s", 360_000),
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "825ms", 825),
        ("x-ratelimit-remaining-requests-day", "x-ratelimit-reset-requests-day", "11726.2840924263", 11_726_284),
        ("x-ratelimit-remaining-tokens-minute", "x-ratelimit-reset-tokens-minute", "26.28409242630005", 26_284),
        ("x-ratelimit-remaining-requests-hour", "x-ratelimit-reset-requests-hour", "60", 60_000),
        (
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
            "2026-11-22T00:00:00Z",
            60_000,
        ),
        ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset", "2026-11-22T00:00:00Z", 60_000),
        ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset", "9", 9_000),
        ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset", "9", 9_000),
        ("x-ratelimit-remaining", "x-ratelimit-reset", "1795305600000", 60_000),
        ("ratelimit-remaining", "ratelimit-reset", "30", 30_000),
    ],
)
@pytest.mark.parametrize("none", ["0", "0.0", "0.00"])
def test_each_family_is_read_however_it_writes_that_none_is_left(
    remaining: str, reset: str, value: str, after_ms: int, none: str
) -> None:
    fields = {remaining.encode(): none.encode(), reset.encode(): value.encode()}
    assert is_spent(fields)
    assert spent_until(Headers(fields), AT) == AT + after_ms


@pytest.mark.parametrize("some", ["1", "10", "0.5", "100", "-1", "", ".", "none", "-0"])
def test_what_is_not_nothing_is_no_reason_to_rest(some: str) -> None:
    fields = {b"x-ratelimit-remaining-tokens": some.encode(), b"x-ratelimit-reset-tokens": b"60"}
    assert not is_spent(fields)
    assert spent_until(Headers(fields), AT) is None


def test_who_does_not_say_when_there_is_more_is_not_left_alone() -> None:
    assert spent_until(headers(x_ratelimit_remaining_tokens="0"), AT) is None


def test_whether_any_is_used_up_is_seen_without_reading_the_head() -> None:
    assert is_spent({b"x-ratelimit-remaining-tokens": b"0"})
    assert not is_spent({b"x-ratelimit-remaining-tokens": b"10", b"retry-after": b"0"})


# ---- how much is left -------------------------------------------------------------------------------------------


def test_what_is_left_is_read_of_every_family() -> None:
    openai = headers(
        x_ratelimit_limit_requests="60",
        x_ratelimit_remaining_requests="59",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_limit_tokens="150000",
        x_ratelimit_remaining_tokens="149984",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert left(openai, AT) == [
        Left("requests", 59, 60, AT + 1_000),
        Left("tokens", 149_984, 150_000, AT + 360_000),
    ]
    anthropic = headers(
        anthropic_ratelimit_input_tokens_limit="50000",
        anthropic_ratelimit_input_tokens_remaining="4000",
        anthropic_ratelimit_input_tokens_reset="2026-11-22T00:00:00Z",
    )
    assert left(anthropic, AT) == [Left("input-tokens", 4_000, 50_000, AT + 60_000)]
    cerebras = headers(x_ratelimit_remaining_requests_day="14398.0", x_ratelimit_reset_requests_day="33011.382867")
    assert left(cerebras, AT) == [Left("requests-day", 14_398, None, AT + 33_011_383)]
    both = headers(x_ratelimit_remaining="3", ratelimit_remaining="5", ratelimit_limit="9")
    assert left(both, AT) == [Left("requests", 3, None, None)], "the first word counts"


@pytest.mark.parametrize("text", ["", "-1", "many", "1e9", "9" * 16, "0x10", "1,000"])
def test_an_amount_that_is_none_says_nothing(text: str) -> None:
    assert left(headers(x_ratelimit_remaining_requests=text), AT) == []
    known = left(headers(x_ratelimit_remaining_requests="1", x_ratelimit_limit_requests=text), AT)
    assert known == [Left("requests", 1, None, None)]


@pytest.mark.parametrize(
    ("one", "is_low"),
    [
        (Left("requests", 9, 100, AT + 1), True),
        (Left("requests", 0, 1, AT + 1), True),
        (Left("requests", 10, 100, AT + 1), False),
        (Left("requests", 9, 100, AT), False),
        (Left("requests", 9, 100, None), False),
        (Left("requests", 9, None, AT + 1), False),
        (Left("requests", 0, 0, AT + 1), False),
    ],
)
def test_nearly_dry_is_less_than_a_tenth_until_there_is_more(one: Left, *, is_low: bool) -> None:
    assert one.is_low(AT) is is_low
