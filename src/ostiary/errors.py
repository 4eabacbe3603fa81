"""Every refusal the outside can see: one table of code, status, type and message."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table: what a code means on the wire, and when it is given."""

    status: int
    type: str
    message: str
    when: str


_REQUEST: Final = "invalid_request_error"
_AUTH: Final = "authentication_error"
_BUDGET: Final = "budget_error"
_PERMISSION: Final = "permission_error"
_MISSING: Final = "not_found_error"
_CONFLICT: Final = "conflict_error"
_RATE: Final = "rate_limit_error"
_PROVIDER: Final = "provider_error"
_SERVICE: Final = "service_error"

TABLE: Final = MappingProxyType(
    {
        "invalid_request": Kind(
            400, _REQUEST, "The request is malformed.", "body or carrier is malformed; the field is named"
        ),
        "unsupported_parameter": Kind(
            400, _REQUEST, "This parameter is not supported here.", "a field that cannot be honoured safely"
        ),
        "missing_api_key": Kind(
            401, _AUTH, "No API key was sent. Send it as 'Authorization: Bearer <key>'.", "no credential in the request"
        ),
        "invalid_token_format": Kind(
            401,
            _AUTH,
            "This is neither an agent key (ost_pat_…) nor a client credential (client_id:api_key:api_secret).",
            "shape or checksum of the credential is wrong",
        ),
        "invalid_api_key": Kind(
            401,
            _AUTH,
            "This API key is not valid here. Check that it was copied whole and has not expired or been revoked.",
            "unknown, inactive, expired or revoked: alike outside",
        ),
        "budget_exceeded": Kind(402, _BUDGET, "The budget does not allow this call.", "a hard budget is spent or held"),
        "model_not_allowed": Kind(
            403, _PERMISSION, "This key may not use this model.", "model allow-list, or free models only"
        ),
        "provider_not_allowed": Kind(403, _PERMISSION, "This key may not use this provider.", "provider allow-list"),
        "ip_not_allowed": Kind(403, _PERMISSION, "This key may not be used from this address.", "IP allow-list"),
        "insufficient_scope": Kind(
            403, _PERMISSION, "This key lacks the scope for this call.", "scope or role does not cover the deed"
        ),
        "model_not_priced": Kind(
            403,
            _PERMISSION,
            "This model has no price, and the key has a hard budget. An admin can set one with 'ostiary prices set'.",
            "no price known under a hard budget",
        ),
        "model_not_found": Kind(
            404, _MISSING, "No such model.", "unknown to catalogue, endpoints and aliases; near names are given"
        ),
        "not_found": Kind(
            404, _MISSING, "There is nothing here.", "unknown route or id, or one of another organization"
        ),
        "method_not_allowed": Kind(
            405, _REQUEST, "This route does not take this method.", "wrong HTTP method; Allow names the right ones"
        ),
        "request_timeout": Kind(408, _REQUEST, "The request was not received in time.", "head or body came too slowly"),
        "in_use": Kind(409, _CONFLICT, "This is still in use.", "dependents exist; they are listed"),
        "conflict": Kind(
            409, _CONFLICT, "This conflicts with what exists.", "a name is taken or the state does not allow it"
        ),
        "request_too_large": Kind(
            413, _REQUEST, "The request is too large.", "body over 10 MB; a form over 25 MB of audio or 50 MB of images"
        ),
        "unsupported_media_type": Kind(
            415, _REQUEST, "Send the body as application/json.", "content type or encoding is not understood"
        ),
        "invalid_field": Kind(
            422, _REQUEST, "A field has a value that cannot be used.", "a deed was given an unusable value"
        ),
        "rate_limit_exceeded": Kind(429, _RATE, "Rate limit exceeded.", "requests per minute"),
        "daily_rate_limit_exceeded": Kind(429, _RATE, "Daily rate limit exceeded.", "requests per UTC day"),
        "token_limit_exceeded": Kind(429, _RATE, "Token limit exceeded.", "tokens per minute"),
        "too_many_parallel_requests": Kind(429, _RATE, "Too many requests in parallel.", "parallel slots are taken"),
        "headers_too_large": Kind(431, _REQUEST, "The request head is too large.", "over 32 KB or 100 headers"),
        "provider_error": Kind(
            502, _PROVIDER, "The provider did not answer the call.", "all attempts failed; details per attempt"
        ),
        "provider_timeout": Kind(504, _PROVIDER, "The provider did not answer in time.", "the last attempt timed out"),
        "no_provider_key": Kind(
            503,
            _SERVICE,
            "There is no key for this provider in the vault. Add one with 'ostiary vault add'.",
            "shown as no_<provider>_key: the model is known, but no provider key for it exists",
        ),
        "no_usable_key": Kind(
            503, _SERVICE, "No provider key for this model is usable now.", "keys exist, none can be used now"
        ),
        "service_unavailable": Kind(
            503, _SERVICE, "The gateway cannot take this call now. Try again shortly.", "database, disk or drain"
        ),
        "sealed": Kind(
            503, _SERVICE, "The vault is sealed: the master key is not available.", "master key lost while running"
        ),
    }
)


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error of ours
    """A call or deed that is turned down, with everything the answer needs.

    `details` appear beside `message` in the error object; `headers` on the response (lower case, latin-1).
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        provider: str | None = None,
        status: int | None = None,
        **details: Any,  # noqa: ANN401 - details are JSON of any shape
    ) -> None:
        kind = TABLE[code]
        self.kind = kind
        self.code = f"no_{provider.replace('-', '_')}_key" if code == "no_provider_key" and provider else code
        self.status = status or kind.status
        self.message = message or kind.message
        self.param = param
        self.headers = headers
        self.details = details if provider is None else {"provider": provider, **details}
        super().__init__(f"{self.code}: {self.message}")

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """The error object in the shape the official OpenAI SDKs read."""
        error = {"message": self.message, "type": self.kind.type, "param": self.param, "code": self.code}
        return {"error": {**error, "request_id": request_id, **self.details}}


class CannotStart(Exception):  # noqa: N818 - said to a person, not raised at one
    """Something a person must mend before anything runs; the text says what and how. Exit code 1."""
