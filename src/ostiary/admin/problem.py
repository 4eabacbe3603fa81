"""Refusals as RFC 9457 writes them: `application/problem+json`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec

from ostiary.errors import Refusal

MEDIA_TYPE: Final = "application/problem+json"
_ANYTHING: Final = "There is nothing here: it does not exist, or belongs to another organization."


def hidden(refusal: Refusal) -> Refusal:
    """The same to the outside, whether a thing is not there or not theirs: to the letter, whoever refused it."""
    return Refusal("not_found", _ANYTHING) if refusal.code == "not_found" else refusal


def body_of(refusal: Refusal, request_id: str) -> bytes:
    """The problem as JSON. `errors` names each field that is wrong; further members are the refusal's details."""
    details = dict(refusal.details)
    errors: list[dict[str, Any]] = details.pop("errors", [])
    if not errors and refusal.param is not None:
        errors = [{"field": refusal.param, "message": refusal.message}]
    problem = {
        "type": f"urn:ostiary:error:{refusal.code}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.message,
        "code": refusal.code,
        "request_id": request_id,
        "errors": errors,
    }
    return msgspec.json.encode({**details, **problem})


def headers_of(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """Those of the refusal, and what RFC 6750 wants of a 401: no `error=` when nothing was sent."""
    headers = [(b"content-type", MEDIA_TYPE.encode()), *refusal.headers]
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        sent = refusal.code != "missing_api_key"
        headers.append((b"www-authenticate", b'Bearer error="invalid_token"' if sent else b"Bearer"))
    return headers
