"""When providers say that a key may be used again, in all the ways they say it."""

from __future__ import annotations

import pytest

from ostiary.providers.quota import is_spent, resets_at, spent_until
from ostiary.providers.transport import Headers

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


def test_whether_any_is_used_up_is_seen_without_reading_the_head() -> None:
    assert is_spent({b"x-ratelimit-remaining-tokens": b"0"})
    assert not is_spent({b"x-ratelimit-remaining-tokens": b"10", b"retry-after": b"0"})
