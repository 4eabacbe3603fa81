"""Whose fault a failed attempt was: each row of the table, and what must not decide it."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from ostiary.errors import TABLE
from ostiary.providers import catalog
from ostiary.providers.transport import Failure, TransportError
from ostiary.providers.verdict import _OF_FAMILIES, _OPENINGS, judge, said, scrub, status_in
from tests.servers.google_errors import OF_BOTH, OF_THE_DAY, OF_THE_MINUTE

_ANTHROPIC_IS_DRY = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
_ZAI_IS_DRY = "Insufficient balance or no resource package. Please recharge."
_MOONSHOT_IS_DRY = "Your account org-1 <ak-1> is suspended due to insufficient balance, please recharge your account."


def error(**fields: object) -> dict[str, object]:
    return {"error": fields}


@pytest.mark.parametrize(
    ("status", "body", "scope", "code", "answered"),
    [
        (400, error(message="bad", type="invalid_request_error"), "caller", "invalid_request", 400),
        (400, None, "caller", "invalid_request", 400),
        (400, error(status="INVALID_ARGUMENT", details=[{"reason": "API_KEY_INVALID"}]), "key", "provider_error", 502),
        (400, error(message="API key not valid. Please pass a valid API key."), "key", "provider_error", 502),
        (400, {"code": "x", "error": "Incorrect API key provided: xa***"}, "key", "provider_error", 502),
        (400, {"detail": "Bad request: bad or missing authentication."}, "key", "provider_error", 502),
        (400, {"detail": "Bad request: bad or missing authentication. Yes."}, "caller", "invalid_request", 400),
        (400, error(type="invalid_request_error", message=_ANTHROPIC_IS_DRY), "key", "provider_error", 502),
        (400, error(code="Arrearage", message="Access denied, please make sure …"), "key", "provider_error", 502),
        (400, error(message=f"Your prompt says: {_ANTHROPIC_IS_DRY}"), "caller", "invalid_request", 400),
        (401, error(code="invalid_api_key"), "key", "provider_error", 502),
        (401, None, "key", "provider_error", 502),
        (402, None, "key", "provider_error", 502),
        (403, None, "key_model", "provider_error", 502),
        (403, error(code="unsupported_country_region_territory"), "egress", "provider_error", 502),
        (404, error(code="model_not_found"), "caller", "model_not_found", 404),
        (
            404,
            {"status": 404, "title": "Not Found", "detail": "Function 'x': Not found"},
            "caller",
            "model_not_found",
            404,
        ),
        (404, None, "provider", "provider_error", 502),
        (404, {"detail": "Not Found"}, "provider", "provider_error", 502),
        (405, None, "provider", "provider_error", 502),
        (408, None, "provider", "provider_error", 502),
        (413, None, "caller", "request_too_large", 413),
        (415, None, "caller", "invalid_request", 400),
        (422, None, "caller", "invalid_request", 422),
        (429, None, "key_model", "provider_error", 502),
        (429, error(code="rate_limit_exceeded", type="tokens"), "key_model", "provider_error", 502),
        (429, error(code="insufficient_quota"), "key", "provider_error", 502),
        (429, error(code="1113", message=_ZAI_IS_DRY), "key", "provider_error", 502),
        (429, error(message=_MOONSHOT_IS_DRY), "key", "provider_error", 502),
        (429, error(code=None, type="insufficient_quota"), "key", "provider_error", 502),
        (429, error(code="project_spend_limit_exceeded"), "key", "provider_error", 502),
        (429, error(details={"error_code": "enforced_spend_limit_reached"}), "key", "provider_error", 502),
        (500, None, "provider", "provider_error", 502),
        (503, error(message="overloaded"), "provider", "provider_error", 502),
        (504, None, "provider", "provider_timeout", 504),
        (524, None, "provider", "provider_timeout", 504),
        (529, None, "provider", "provider_error", 502),
        (301, None, "provider", "provider_error", 502),
        (101, None, "provider", "provider_error", 502),
        (999, None, "provider", "provider_error", 502),
    ],
)
def test_an_answer_that_is_not_the_one_asked_for(
    status: int, body: dict[str, object] | None, scope: str, code: str, answered: int
) -> None:
    verdict = judge(status, None, body)
    assert (verdict.scope, verdict.code, verdict.status) == (scope, code, answered)
    assert (verdict.next in ("stop", "next_target")) is (scope == "caller")
    assert not verdict.billed


@pytest.mark.parametrize(
    ("status", "body", "next_"),
    [
        (400, error(message="bad", type="invalid_request_error"), "stop"),
        (400, error(code="model_not_found"), "next_target"),
        (400, error(type="invalid_request_error", code="model_decommissioned"), "next_target"),
        (
            400,
            {"object": "error", "message": "Invalid model: m", "type": "invalid_model", "code": "1500"},
            "next_target",
        ),
        (404, error(code="model_not_found"), "next_target"),
        (410, None, "next_target"),
        (410, error(message="The model is no longer available."), "next_target"),
        (413, None, "stop"),
        (422, error(message="x"), "stop"),
        (402, None, "next_key"),
        (401, None, "next_key"),
        (403, None, "next_key"),
        (404, None, "next_key"),
        (408, None, "next_key"),
        (429, None, "next_key"),
        (429, error(code="insufficient_quota"), "next_key"),
        (501, None, "next_key"),
        (505, None, "next_key"),
        (301, None, "next_key"),
        *((passing, None, "same_key") for passing in (500, 502, 503, 504, 524, 529)),
        (200, None, "stop"),
    ],
)
def test_what_comes_next(status: int, body: dict[str, object] | None, next_: str) -> None:
    assert judge(status, None, body).next == next_


def test_a_model_that_is_no_more_is_what_it_was_to_who_named_it() -> None:
    """Only what comes next is another matter: a caller's own `provider/model` is refused as it always was."""
    for status, body, code, answered in (
        (404, error(code="model_not_found"), "model_not_found", 404),
        (400, error(code="model_not_found"), "invalid_request", 400),
        (410, None, "invalid_request", 400),
    ):
        verdict = judge(status, None, body)
        assert (verdict.scope, verdict.cause, verdict.code, verdict.status) == ("caller", None, code, answered)


# ---- what means something of its own at some ----------------------------------------------------------------------


def google(status: str, reason: str | None = None, message: str = "x") -> dict[str, object]:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    return error(message=message, status=status, details=[info] if reason else [])


_GROQ_413 = error(
    message="Request too large for model `m` on tokens per minute", type="tokens", code="rate_limit_exceeded"
)


@pytest.mark.parametrize(
    ("provider", "status", "body", "scope", "cause", "next_"),
    [
        # §1: the money family of 429, its pace family, 503 in both of its words, and what is forbidden.
        ("openai", 429, error(type="insufficient_quota", code="credit_balance_exhausted"), "key", "money", "next_key"),
        ("openai", 429, error(code="organization_spend_limit_exceeded"), "key", "money", "next_key"),
        ("openai", 429, error(code="organization_usage_limit_exceeded"), "key", "money", "next_key"),
        ("openai", 429, error(code="rate_limit_exceeded"), "key_model", "pace", "next_key"),
        ("openai", 429, error(code="slow_down"), "key_model", "pace", "next_key"),
        ("openai", 503, error(code="slow_down"), "key_model", "pace", "next_key"),
        ("azure-openai", 503, error(code="slow_down"), "key_model", "pace", "next_key"),
        ("openai", 503, error(code="server_is_overloaded"), "provider", "failed", "same_key"),
        ("groq", 503, error(code="slow_down"), "provider", "failed", "same_key"),
        ("openai", 401, error(code="invalid_api_key"), "key", "bad_key", "next_key"),
        ("openai", 403, error(code="unsupported_country_region_territory"), "egress", None, "next_key"),
        ("openai", 403, error(code="model_not_found"), "key_model", "denied", "next_key"),
        ("openai", 404, error(code="model_not_found"), "caller", None, "next_target"),
        # §2: Anthropic's types come with these statuses.
        ("anthropic", 400, error(type="invalid_request_error"), "caller", None, "stop"),
        ("anthropic", 401, error(type="authentication_error"), "key", "bad_key", "next_key"),
        ("anthropic", 402, error(type="billing_error"), "key", "money", "next_key"),
        ("anthropic", 403, error(type="permission_error"), "key_model", "denied", "next_key"),
        ("anthropic", 404, error(type="not_found_error"), "caller", None, "next_target"),
        ("anthropic", 413, error(type="request_too_large"), "caller", None, "stop"),
        ("anthropic", 429, error(type="rate_limit_error"), "key_model", "pace", "next_key"),
        (
            "anthropic",
            429,
            error(type="rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            "key",
            "money",
            "next_key",
        ),
        ("anthropic", 500, error(type="api_error"), "provider", "failed", "same_key"),
        ("anthropic", 504, error(type="timeout_error"), "provider", "failed", "same_key"),
        ("anthropic", 529, error(type="overloaded_error"), "provider", "failed", "same_key"),
        # §3: both of Google's wrong keys, and the kinds of its 400 and 403.
        ("gemini", 400, google("INVALID_ARGUMENT", "API_KEY_INVALID"), "key", "bad_key", "next_key"),
        ("gemini", 401, google("UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED"), "key", "bad_key", "next_key"),
        ("gemini", 400, google("INVALID_ARGUMENT"), "caller", None, "stop"),
        (
            "gemini",
            400,
            google("FAILED_PRECONDITION", message="User location is not supported for the API use."),
            "egress",
            None,
            "next_key",
        ),
        ("gemini", 403, google("PERMISSION_DENIED"), "key_model", "denied", "next_key"),
        ("gemini", 403, google("PERMISSION_DENIED", "SERVICE_DISABLED"), "key", "bad_key", "next_key"),
        ("gemini", 403, google("PERMISSION_DENIED", "CONSUMER_SUSPENDED"), "key", "bad_key", "next_key"),
        ("vertex-ai", 403, google("PERMISSION_DENIED", "API_KEY_SERVICE_BLOCKED"), "key", "bad_key", "next_key"),
        ("vertex-ai", 403, google("PERMISSION_DENIED", "BILLING_DISABLED"), "key", "money", "next_key"),
        ("openrouter", 403, google("PERMISSION_DENIED", "SERVICE_DISABLED"), "key_model", "denied", "next_key"),
        ("gemini", 404, google("NOT_FOUND"), "caller", None, "next_target"),
        ("gemini", 429, google("RESOURCE_EXHAUSTED"), "key_model", "pace", "next_key"),
        ("gemini", 429, json.loads(OF_THE_MINUTE)[0], "key_model", "pace", "next_key"),
        ("gemini", 429, json.loads(OF_THE_DAY)[0], "key_model", "quota", "next_key"),
        ("vertex-ai", 429, json.loads(OF_BOTH)[0], "key_model", "quota", "next_key"),
        ("openai-compatible", 429, json.loads(OF_THE_DAY)[0], "key_model", "pace", "next_key"),
        ("gemini", 503, google("UNAVAILABLE"), "provider", "failed", "same_key"),
        # Those who speak OpenAI's dialect with words of their own.
        ("groq", 413, _GROQ_413, "key_model", None, "next_key"),
        ("groq", 413, error(code="request_too_large"), "caller", None, "stop"),
        ("openai", 413, _GROQ_413, "caller", None, "stop"),
        (
            "deepseek",
            400,
            error(message="Model Not Exist", code="invalid_request_error"),
            "caller",
            None,
            "next_target",
        ),
        ("openai", 400, error(message="Model Not Exist"), "caller", None, "stop"),
        ("openrouter", 400, error(message="a/b:free is not a valid model ID", code=400), "caller", None, "next_target"),
        ("openai", 400, error(message="a/b is not a valid model ID"), "caller", None, "stop"),
        ("deepseek", 402, error(message="Insufficient Balance"), "key", "money", "next_key"),
    ],
)
def test_what_each_family_says(
    provider: str, status: int, body: dict[str, object], scope: str, cause: str | None, next_: str
) -> None:
    verdict = judge(status, None, body, provider)
    assert (verdict.scope, verdict.cause, verdict.next) == (scope, cause, next_)
    assert not verdict.billed


def test_what_is_too_large_for_a_keys_tier_is_told_as_that_where_no_key_takes_it() -> None:
    verdict = judge(413, None, _GROQ_413, "groq")
    assert (verdict.code, verdict.status) == ("request_too_large", 413)


def test_every_family_is_of_the_catalogue() -> None:
    known = catalog.load().providers.keys()
    assert {name for row in _OF_FAMILIES for name in row.of} <= known
    assert {name for _, _, of in _OPENINGS for name in of} <= known


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"status_code": 402}, 402),
        ({"code": "503"}, 503),
        ({"code": 429, "type": "server_error"}, 429),
        ({"type": "overloaded_error"}, 529),
        ({"type": "rate_limit_error"}, 429),
        ({"type": "billing_error"}, 402),
        ({"type": "authentication_error"}, 401),
        ({"type": "invalid_request_error"}, 400),
        ({"type": "invalid_request_error", "code": "model_not_found"}, 404),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, 429),
        ({"code": "overloaded", "type": "server_error"}, 500),
        ({"code": "200"}, 500),
        ({"code": True, "type": ["x"]}, 500),
        ({}, 500),
    ],
)
def test_the_status_of_an_error_that_came_with_200(said: dict[str, object], status: int) -> None:
    assert status_in(said) == status


@pytest.mark.parametrize("status", [400, 403, 429])
@pytest.mark.parametrize("said", [_ANTHROPIC_IS_DRY, _ZAI_IS_DRY, _MOONSHOT_IS_DRY])
def test_an_account_that_has_run_dry_is_out_of_money_however_it_says_so(status: int, said: str) -> None:
    assert judge(status, None, error(message=said)).cause == "money"
    assert judge(status, None, error(message=f"You said: {said}")).cause != "money"


@pytest.mark.parametrize("body", [None, {"unexpected": 1}, error(message="x")])
def test_a_200_that_cannot_be_understood_may_have_been_billed(body: dict[str, object] | None) -> None:
    verdict = judge(200, None, body)
    assert (verdict.scope, verdict.next, verdict.billed) == ("provider", "stop", True)
    assert (verdict.code, verdict.status) == ("provider_error", 502)


@pytest.mark.parametrize(
    ("kind", "sent", "scope", "next_", "code", "status"),
    [
        ("refused", False, "provider", "same_key", "provider_error", 502),
        ("dns", False, "egress", "next_key", "provider_error", 502),
        ("tls", False, "provider", "next_key", "provider_error", 502),
        ("blocked", False, "egress", "next_key", "provider_error", 502),
        ("connect_timeout", False, "provider", "same_key", "provider_timeout", 504),
        ("total_timeout", False, "provider", "same_key", "provider_timeout", 504),
        ("broken", False, "provider", "same_key", "provider_error", 502),
        ("first_byte_timeout", True, "provider", "stop", "provider_timeout", 504),
        ("idle_timeout", True, "provider", "stop", "provider_timeout", 504),
        ("total_timeout", True, "provider", "stop", "provider_timeout", 504),
        ("broken", True, "provider", "stop", "provider_error", 502),
        ("too_large", True, "provider", "stop", "provider_error", 502),
        ("encoding", True, "provider", "stop", "provider_error", 502),
    ],
)
def test_a_transport_that_failed(kind: Failure, *, sent: bool, scope: str, next_: str, code: str, status: int) -> None:
    verdict = judge(None, TransportError(kind, sent=sent, text="x"), None)
    assert (verdict.scope, verdict.next, verdict.code, verdict.status) == (scope, next_, code, status)


@pytest.mark.parametrize("kind", get_args(Failure))
@pytest.mark.parametrize("sent", [True, False])
def test_what_was_sent_is_never_tried_twice_nor_free(kind: Failure, *, sent: bool) -> None:
    verdict = judge(None, TransportError(kind, sent=sent, text="x"), None)
    assert verdict.billed is sent
    assert (verdict.next == "stop") is sent


def test_every_status_has_a_verdict_with_a_code_of_ours() -> None:
    for status in range(100, 1000):
        bodies: list[dict[str, object] | None] = [None, {}, {"error": None}, {"error": []}, error(code=5, details="x")]
        for body in bodies:
            verdict = judge(status, None, body)
            assert verdict.code in TABLE
            assert verdict.reason


@pytest.mark.parametrize("words", ["insufficient_quota", "Incorrect API key provided", "api_key_invalid"])
@pytest.mark.parametrize("status", [400, 429])
def test_what_the_provider_quotes_from_the_caller_does_not_decide(status: int, words: str) -> None:
    """A caller who puts such words in a prompt or a field must not get a key punished."""
    quoted = judge(status, None, error(message=f"Invalid value: '{words}'", param=words, code="invalid_value"))
    assert quoted.scope == ("caller" if status == 400 else "key_model")


# ---- the provider's words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-proj-abcd***********wxyz. See", "wxyz"),
        ("Incorrect API key provided: sk-abc", "sk-abc"),
        ("key gsk_0123456789abcdef is revoked", "0123456789abcdef"),
        ("xai-AbCdEf0123 nvapi-AbCdEf0123 pplx-AbCdEf01 hf_AbCdEf0123", "AbCdEf01"),
        ("AIzaSyA0123456789abcdefghijklmnopqrstuv", "0123456789"),
        ("your agent key ost_pat_3kT9AbCdEfGh", "3kT9"),
        ("Rate limit in organization org-AbCdEf123456 on tokens", "AbCdEf"),
        ("project proj_AbCdEf123456 is archived", "AbCdEf"),
        ("ask alice.doe+x@corp.example.org for more", "alice"),
        ("see https://alice:hunter2@internal.example/x", "hunter2"),
        ("header Authorization: Bearer abc.def-ghi012", "abc.def"),
        ('api_key="qwertyuiop"', "qwerty"),
        ("x-api-key: qwertyuiop", "qwerty"),
        ("request 123e4567-e89b-12d3-a456-426614174000 failed", "426614174000"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJzdWIi"),
        ("opaque 0123456789abcdef0123456789ABCDEF01 here", "cdef0123"),
    ],
)
def test_secrets_and_identifiers_are_taken_out(text: str, secret: str) -> None:
    assert secret not in scrub(text)
    assert "***" in scrub(text)


def test_a_known_secret_is_taken_out_whatever_it_looks_like() -> None:
    assert scrub("You sent 'correct horse' twice: correct horse", ["correct horse"]) == "You sent '***' twice: ***"
    assert scrub("a b c", ["", "a"]) == "a b c"


@pytest.mark.parametrize(
    "text",
    [
        "The model `accounts/fireworks/models/deepseek-v4p1-flash-1017-ultrafast` does not exist",
        "max_tokens: 4096 is larger than 2048; unknown key: temperature",
        "code account_deactivated, see https://platform.openai.com/account/api-keys.",
        "This model's maximum context length is 128000 tokens.",
    ],
)
def test_what_helps_the_caller_stays(text: str) -> None:
    assert scrub(text) == text


def test_a_text_becomes_one_short_printable_line() -> None:
    assert scrub("a\r\nFAKE LOG LINE\x1b[31m\x00\u2028b\u202ec") == "a FAKE LOG LINE [31m b c"
    assert len(scrub("wort " * 1_000)) == 500
    assert scrub("") == ""


@pytest.mark.parametrize(
    "piece", ["a", "a-", "a@", "http://", "a.b", "1a", "api key ", "sk-", "=", "key_", "bearer ", "é"]
)
def test_hostile_texts_are_cut_before_they_are_read(piece: str) -> None:
    """A pattern that looks again at every place would not come to an end here."""
    assert len(scrub(piece * 1_000_000)) <= 500


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (error(message="no such model"), "no such model"),
        ({"error": "no such model"}, "no such model"),
        ({"status": 404, "title": "Not Found", "detail": "no such model"}, "no such model"),
        ({"object": "error", "message": "no such model"}, "no such model"),
        (error(message="key sk-abcdef was wrong"), "key *** was wrong"),
        (error(message=5), None),
        ({}, None),
        (None, None),
    ],
)
def test_the_providers_own_message(body: dict[str, object] | None, message: str | None) -> None:
    assert said(body) == message
