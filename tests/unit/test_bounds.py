"""What is learned of how long an answer may be, from the words in which providers refuse one as too long."""

from __future__ import annotations

import pytest

from ostiary.gateway.bounds import Bounds

ASKED = 32_768
OPENAI = (
    "max_tokens is too large: 32768. This model supports at most 16384 completion tokens, whereas you provided 32768."
)
ANTHROPIC = (
    "max_tokens: 32768 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet-20241022"
)
DEEPSEEK = "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"
VLLM = (
    "This model's maximum context length is 16384 tokens. However, you requested 32778 tokens "
    "(10 in the messages, 32768 in the completion). Please reduce the length of the messages or completion."
)


@pytest.mark.parametrize(("message", "named"), [(OPENAI, 16_384), (ANTHROPIC, 8_192), (DEEPSEEK, 8_192)])
def test_the_limit_that_is_named_is_the_next_to_try(message: str, named: int) -> None:
    bounds = Bounds()
    assert bounds.learn("p", "m", ASKED, message) == named
    assert bounds.fit("p", "m", ASKED) == named
    assert bounds.fit("p", "m", 100) == 100, "what is less than the limit stays"
    assert bounds.fit("p", "other", ASKED) == bounds.fit("other", "m", ASKED) == ASKED


@pytest.mark.parametrize(
    "message",
    [
        VLLM,
        "`max_tokens` must be less than or equal to 8192.",
        "max_output_tokens is too large",
        "max_tokens must be at most 65536",
    ],
)
def test_where_no_limit_of_an_answer_is_named_less_is_tried(message: str) -> None:
    bound = Bounds().learn("p", "m", ASKED, message)
    assert bound is not None
    assert 64 <= bound < ASKED


def test_a_context_is_shared_with_the_prompt_so_its_length_is_too_much() -> None:
    bound = Bounds().learn("p", "m", ASKED, VLLM)
    assert bound is not None
    assert bound < 16_384


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Invalid value for 'temperature'.",
        "messages: at least 2048 are one too many",
        "The model does not exist.",
        "image_url must be at most 2000 pixels",
    ],
)
def test_what_is_about_something_else_teaches_nothing(message: str) -> None:
    bounds = Bounds()
    assert bounds.learn("p", "m", ASKED, message) is None
    assert bounds.fit("p", "m", ASKED) == ASKED


def test_it_ends_somewhere() -> None:
    bounds, bound, tries = Bounds(), ASKED, 0
    while (lower := bounds.learn("p", "m", bound, "max_tokens")) is not None:
        assert 64 <= lower < bound
        bound, tries = lower, tries + 1
    assert tries <= 10


def test_no_more_is_remembered_than_fits() -> None:
    bounds = Bounds()
    for number in range(25_000):
        bounds.learn("p", f"m{number}", ASKED, OPENAI)
    remembered = sum(bounds.fit("p", f"m{number}", ASKED) != ASKED for number in range(25_000))
    assert 0 < remembered <= 10_000
