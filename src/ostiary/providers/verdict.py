"""Whose fault a failed attempt was and what comes next: one pure table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from ostiary.providers.quota import is_of_the_day
from ostiary.providers.transport import Failure, TransportError

Scope = Literal["caller", "key", "key_model", "provider", "egress"]
Next = Literal["stop", "next_target", "next_key", "same_key"]
"""Nothing else; another model or provider; another key, here or there; and this very key again where there is none."""
Cause = Literal["bad_key", "denied", "money", "quota", "pace", "failed"]
"""What a failure says of the provider key: it was not accepted, may not use the model, its account is out of money, has
nothing left for the model today, it is at the provider's rate limit, or the provider failed at it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`scope` is who pays for it; `billed`: the provider may charge for it, so its hold stands.

    `code` and `status` are what the caller gets when nothing comes after; `reason` is ours, fit for anybody.
    """

    scope: Scope
    next: Next
    billed: bool
    code: str
    status: int
    reason: str
    cause: Cause | None = None
    """None where it says nothing of the provider key."""


@dataclass(frozen=True, slots=True)
class _Row:
    """Statuses from `low` to `high`, and, where given, one of the marks in the body, said by a provider `of` these."""

    low: int
    high: int
    verdict: Verdict
    marks: frozenset[str] = frozenset()
    body: bool | None = None
    of: frozenset[str] = frozenset()
    """Ids of the catalogue's rows; none is anybody."""


def _caller(code: str, status: int, reason: str) -> Verdict:
    return Verdict("caller", "stop", billed=False, code=code, status=status, reason=reason)


def _unknown_model(code: str, status: int, reason: str) -> Verdict:
    """The mistake of whoever named the model: the caller, an endpoint's target or the catalogue; others may have it."""
    return Verdict("caller", "next_target", billed=False, code=code, status=status, reason=reason)


def _other(scope: Scope, reason: str, cause: Cause | None = "failed") -> Verdict:
    """Not the caller's fault, and nothing was used up: another key may do."""
    return Verdict(scope, "next_key", billed=False, code="provider_error", status=502, reason=reason, cause=cause)


def _passing(reason: str) -> Verdict:
    """The like, and over in a moment as a rule: where there is no other, the same key may do."""
    return replace(_other("provider", reason), next="same_key")


def _spent(reason: str) -> Verdict:
    """The provider may have done the work: a second try would hold the money twice."""
    return Verdict("provider", "stop", billed=True, code="provider_error", status=502, reason=reason, cause="failed")


def _late(next_: Next, reason: str, *, billed: bool) -> Verdict:
    return Verdict("provider", next_, billed=billed, code="provider_timeout", status=504, reason=reason, cause="failed")


_BAD_KEY: Final = frozenset(
    {
        "api_key_invalid",
        "invalid_api_key",
        "incorrect api key",
        "authentication_error",
        "bad request: bad or missing authentication.",  # AI21
    }
)
_NO_MONEY: Final = "out of money"
"""What a message comes to that opens with saying so."""
_MONEY: Final = frozenset(
    {
        _NO_MONEY,
        "arrearage",  # Alibaba's
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "enforced_spend_limit_reached",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
_COUNTRY: Final = frozenset({"unsupported_country_region_territory"})
_NO_ROUTE: Final = frozenset({"not found"})
_GONE: Final = "gone"
"""What a message comes to that opens with saying that there is no such model."""
_NO_MODEL: Final = frozenset({_GONE, "model_not_found", "model_decommissioned", "invalid_model"})
"""OpenAI's, Groq's of a model that was retired, and Mistral's."""
_DAY: Final = "quota of the day"
"""What the details of an error come to that name one."""
_LOCKED: Final = frozenset(
    {
        "service_disabled",
        "consumer_invalid",
        "consumer_suspended",
        "account_state_invalid",
        "api_key_service_blocked",
        "api_key_ip_address_blocked",
        "api_key_http_referrer_blocked",
        "api_key_android_app_blocked",
        "api_key_ios_app_blocked",
        "access_token_scope_insufficient",
    }
)
"""As in google/api/error_reason.proto: no model can be had with such a key."""

_GOOGLE: Final = frozenset({"gemini", "vertex-ai"})
_OPENAI: Final = frozenset({"openai", "azure-openai"})
_MONEY_IS_OUT: Final = _other("key", "the key's account is out of money", "money")
_NOT_ACCEPTED: Final = _other("key", "the provider did not accept the key", "bad_key")
_TOO_FAST: Final = _other("key_model", "the key is at the provider's rate limit", "pace")
_USED_UP: Final = _other("key_model", "the key's quota of the day is used up", "quota")
_ELSEWHERE: Final = _other("egress", "the provider does not serve this country", None)
_TOO_LARGE: Final = "the request is too large for the provider"

_OF_FAMILIES: Final = (
    _Row(400, 400, _ELSEWHERE, _COUNTRY, of=_GOOGLE),
    _Row(403, 403, _MONEY_IS_OUT, frozenset({"billing_disabled"}), of=_GOOGLE),
    _Row(403, 403, _NOT_ACCEPTED, _LOCKED, of=_GOOGLE),
    _Row(429, 429, _USED_UP, frozenset({_DAY}), of=_GOOGLE),
    # More tokens than the key's tier has in a minute: another account's key may take it, and a smaller one fits this.
    _Row(
        413,
        413,
        Verdict("key_model", "next_key", billed=False, code="request_too_large", status=413, reason=_TOO_LARGE),
        frozenset({"rate_limit_exceeded"}),
        of=frozenset({"groq"}),
    ),
    _Row(503, 503, _TOO_FAST, frozenset({"slow_down"}), of=_OPENAI),
)
"""What means something else where these say it than it does elsewhere."""

_ANSWERS: Final = (
    *_OF_FAMILIES,
    # Some say 400 for a bad key; the caller never sees, and never sends, the provider's key.
    _Row(400, 400, _NOT_ACCEPTED, _BAD_KEY),
    # And some say it, or 429, where an account has run dry.
    _Row(400, 400, _MONEY_IS_OUT, _MONEY),
    _Row(400, 400, _unknown_model("invalid_request", 400, "the provider does not know the model"), _NO_MODEL),
    _Row(402, 402, _MONEY_IS_OUT),
    _Row(403, 403, _ELSEWHERE, _COUNTRY),
    _Row(403, 403, _MONEY_IS_OUT, _MONEY),
    _Row(403, 403, _NOT_ACCEPTED, _BAD_KEY),
    _Row(403, 403, _other("key_model", "the provider did not let the key use the model", "denied")),
    _Row(401, 401, _NOT_ACCEPTED),
    # No error object, or the framework's own: nothing there speaks the API, so the base URL is wrong, not the model.
    _Row(404, 404, _other("provider", "the provider has nothing at this address", None), body=False),
    _Row(404, 404, _other("provider", "the provider has nothing at this address", None), _NO_ROUTE),
    _Row(404, 404, _unknown_model("model_not_found", 404, "the provider does not know the model")),
    _Row(405, 405, _other("provider", "the provider does not take this call")),
    _Row(407, 408, _other("provider", "the provider did not take the call")),
    _Row(410, 410, _unknown_model("invalid_request", 400, "the provider has the model no longer")),
    _Row(413, 413, _caller("request_too_large", 413, _TOO_LARGE)),
    _Row(422, 422, _caller("invalid_request", 422, "the provider did not accept the request")),
    _Row(429, 429, _MONEY_IS_OUT, _MONEY),
    _Row(429, 429, _TOO_FAST),
    _Row(400, 499, _caller("invalid_request", 400, "the provider did not accept the request")),
    _Row(504, 504, _late("same_key", "the provider did not answer itself in time", billed=False)),
    _Row(524, 524, _late("same_key", "the provider did not answer itself in time", billed=False)),
    _Row(500, 500, _passing("the provider failed")),
    _Row(502, 503, _passing("the provider failed")),
    _Row(529, 529, _passing("the provider failed")),
    _Row(500, 599, _other("provider", "the provider failed")),
    _Row(300, 399, _other("provider", "the provider redirected the call, which is not followed")),
    _Row(200, 299, _spent("the provider's answer cannot be understood")),
    _Row(0, 999, _other("provider", "the provider answered with a status that means nothing here")),
)
"""The first row that fits is the verdict."""

_FAILURES: Final[Mapping[tuple[Failure, bool], Verdict]] = {
    ("blocked", False): _other("egress", "connections there are not allowed", None),
    ("dns", False): _other("egress", "the provider's host name could not be resolved", None),
    ("refused", False): _passing("the provider could not be connected to"),
    ("tls", False): _other("provider", "the provider's certificate or TLS was not accepted"),
    ("connect_timeout", False): _late("same_key", "the provider could not be connected to in time", billed=False),
    ("total_timeout", False): _late("same_key", "the provider could not be connected to in time", billed=False),
    ("broken", False): _passing("the connection to the provider broke"),
    ("first_byte_timeout", True): _late("stop", "the provider did not begin to answer in time", billed=True),
    ("idle_timeout", True): _late("stop", "the provider stopped answering", billed=True),
    ("total_timeout", True): _late("stop", "the provider's answer took too long", billed=True),
    ("broken", True): _spent("the connection to the provider broke"),
    ("too_large", True): _spent("the provider's answer is too large"),
    ("encoding", True): _spent("the provider's answer is compressed, though it was asked for plain"),
}
_UNFORESEEN: Final = (_other("provider", "the provider was not reached"), _spent("the provider's answer was lost"))
"""By whether it was sent: what is not foreseen is not known to be free of charge."""


def judge(
    status: int | None,
    error: TransportError | None,
    body: Mapping[str, object] | None,
    provider_id: str = "",
) -> Verdict:
    """The verdict on an attempt that failed: with an error, or with a status whose answer is not the one asked for.

    `body` is the JSON object that came with it, None when there was none. A 2xx is judged when it cannot be understood.
    `provider_id` is who said it, by the catalogue's row.
    """
    if error is not None:
        return _FAILURES.get((error.kind, error.sent)) or _UNFORESEEN[error.sent]
    marks = _marks(body, provider_id)
    rows = (row for row in _ANSWERS if not row.of or provider_id in row.of)
    return next(row.verdict for row in rows if _fits(row, status or 0, marks, has_body=body is not None))


def _fits(row: _Row, status: int, marks: frozenset[str], *, has_body: bool) -> bool:
    return (
        row.low <= status <= row.high
        and (not row.marks or not row.marks.isdisjoint(marks))
        and row.body in (None, has_body)
    )


_STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "slow_down": 429,
    "api_error": 500,
    "server_error": 500,
    "server_is_overloaded": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What OpenAI's codes and Anthropic's types come with where there is a status, and mean where there is none."""
_STATUS: Final = re.compile(r"[45][0-9]{2}")


def status_in(error: Mapping[str, object]) -> int:
    """The status of an error that came with 200: what it says, as a number, spelled out or by its word; else 500."""
    said = [error.get(name) for name in ("status_code", "status", "code", "type")]
    for value in said:
        number = int(value) if isinstance(value, str) and _STATUS.fullmatch(value) else value
        if type(number) is int and 400 <= number <= 599:  # noqa: PLR2004 - HTTP's error range
            return number
    words = (value.casefold() for value in said if isinstance(value, str))
    return next((_STATUSES[word] for word in words if word in _STATUSES), 500)


# ---- what the provider says -------------------------------------------------------------------------------------

_MARK_KEYS: Final = ("code", "type", "status", "reason", "error_code", "detail")
_LONGEST_MARK: Final = 64
_ANYBODY: Final[frozenset[str]] = frozenset()
_OPENINGS: Final = tuple(
    (re.compile(opening, re.IGNORECASE), mark, of)
    for opening, mark, of in (
        ("incorrect api key|invalid api key|api key not valid", "incorrect api key", _ANYBODY),
        # As in anthropics/claude-quickstarts#229, zai-org/GLM-5#49 (Z.AI) and continuedev/continue#11443 (Moonshot).
        ("your credit balance is too low|insufficient balance", _NO_MONEY, _ANYBODY),
        ("your account [^.]{1,120} is suspended due to insufficient", _NO_MONEY, _ANYBODY),
        # As in deepwn/addi#13 and continuedev/continue#10758: both with status 400 and no code of their own.
        ("model not exist", _GONE, frozenset({"deepseek"})),
        (r"[^\s]{1,200} is not a valid model id", _GONE, frozenset({"openrouter"})),
        ("user location is not supported", "unsupported_country_region_territory", _GOOGLE),
    )
)


def _marks(body: Mapping[str, object] | None, provider_id: str) -> frozenset[str]:
    """The short words a provider uses for the kind of its error, in lower case.

    Free text counts only by how it opens: further in, it may quote the caller, who must not choose the verdict.
    """
    found: set[str] = set()
    for level in _levels(body):
        words = [level.get(key) for key in _MARK_KEYS]
        found.update(word.casefold() for word in words if isinstance(word, str) and len(word) <= _LONGEST_MARK)
    message = _message(body) or ""
    found.update(mark for opening, mark, of in _OPENINGS if (not of or provider_id in of) and opening.match(message))
    if is_of_the_day(body):
        found.add(_DAY)
    return frozenset(found)


def _levels(body: Mapping[str, object] | None) -> Iterable[Mapping[str, object]]:
    if body is None:
        return
    yield body
    error = body.get("error")
    if isinstance(error, Mapping):
        yield error
        details = error.get("details")
        for detail in details if isinstance(details, list) else [details]:
            if isinstance(detail, Mapping):
                yield detail


def _message(body: Mapping[str, object] | None) -> str | None:
    if body is None:
        return None
    error = body.get("error")
    places = [error.get("message") if isinstance(error, Mapping) else error]
    places += [body.get(key) for key in ("message", "detail", "title")]
    return next((text for text in places if isinstance(text, str) and text), None)


def said(body: Mapping[str, object] | None, secrets: Iterable[str] = ()) -> str | None:
    """The provider's own message from its error body, scrubbed; None when there is none."""
    text = _message(body)
    return None if text is None else scrub(text, secrets)


_LONGEST: Final = 500
_READ: Final = 2_000
_MASK: Final = "***"
_SHORTEST_SECRET: Final = 4
_SECRETS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"(?<![a-z])([a-z]{2,10}://)[^\s/@]{0,256}@", rf"\1{_MASK}@"),
        (r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}", _MASK),
        (r"\b(bearer|basic) +[\w.~+/=*-]{8,}", rf"\1 {_MASK}"),
        (
            r"\b(api[ _-]?key|access[ _-]?token|secret|authorization|password)( provided)?( ?[=:] ?)[^\s,;)}]{6,}",
            rf"\1\2\3{_MASK}",
        ),
        (r"\b(?:sk|gsk|xai|nvapi|pplx|hf|api_org|ost)[-_][\w.*•…-]{3,}", _MASK),
        (r"\b(?:AIza|AQ\.|AKIA|ASIA|ya29\.|eyJ)[\w.*•…-]{6,}", _MASK),
        (
            r"\b(?:pk|rk|csk|fw|key|tok|project|user|team|req)[-_](?=[\w-]{0,64}[\d*])[\w*•…-]{6,}",
            _MASK,
        ),
        (r"\b(?:org|proj|acct)[-_][\w*•…-]{6,}", _MASK),
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", _MASK),
        (r"(?<![\w+=])(?=[\w+=]{0,64}\d)[\w+=]{32,}", _MASK),
    )
)
"""Keys, identifiers of the account that owns one, addresses of people, and anything long that looks like chance."""


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """A provider's text, fit for a caller, a log and the database: no secret, no owner's identifiers, one short line.

    `secrets` are taken out wherever they stand, whatever they look like.
    """
    line = "".join(each if each.isprintable() else " " for each in text[:_READ])
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            line = line.replace(secret, _MASK)
    for pattern, replacement in _SECRETS:
        line = pattern.sub(replacement, line)
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
