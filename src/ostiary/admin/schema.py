"""The OpenAPI description: what FastAPI knows of the routes, and what the door adds to every one of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from ostiary.admin import problem
from ostiary.admin.routes import Route

_ABOUT: Final = """Everything an organization can do for itself, and what an operator does for the instance.

Send an agent key with `admin:<noun>:read` or `admin:<noun>:write` scopes as `Authorization: Bearer ost_pat_…`. It does
what its owner may do, within its scopes. Errors are `application/problem+json` (RFC 9457). Money is a text in USD,
exact to nine decimals; times are RFC 3339 in UTC."""

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457; further members say more where there is more to say.",
    "required": ["type", "title", "status", "detail", "code", "request_id", "errors"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "One of the codes in the reference of errors."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_ORGANIZATION: Final = {
    "name": "organization",
    "in": "query",
    "description": "Id, client id or name; without, that of the credential. Only an operator reaches others.",
    "schema": {"type": "string", "maxLength": 200},
}
_IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeating the same request under the same key within 24 hours does nothing more, and gives the "
    "same answer without its secret.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_REPLAYED: Final = {
    "description": "`true` when this is the answer to an earlier request of the same Idempotency-Key.",
    "schema": {"type": "string", "const": "true"},
}
_JSON: Final = "application/json"
_PATCH: Final = "application/merge-patch+json"


def describe(made: dict[str, Any], routes: Iterable[Route]) -> tuple[bytes, dict[str, Any]]:
    """The whole description as JSON, and the same to read."""
    made["info"]["description"] = _ABOUT
    schemas = made["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    made["components"]["responses"] = {
        "Problem": {
            "description": "Refused.",
            "content": {problem.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
    made["components"]["securitySchemes"] = {
        "agent_key": {"type": "http", "scheme": "bearer", "description": "An agent key with `admin:` scopes."}
    }
    for route in routes:
        _complete(made["paths"][route.full_path][route.method.lower()], route)
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode(), made


def _complete(operation: dict[str, Any], route: Route) -> None:
    operation["description"] = f"Scope `{route.scope}`, deed `{route.deed}`."
    operation["security"] = [{"agent_key": []}]
    operation["x-ostiary-deed"] = route.deed
    parameters = operation.setdefault("parameters", [])
    parameters.append(_ORGANIZATION)
    responses = operation["responses"]
    responses.pop("422", None)
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    if route.is_write:
        parameters.append(_IDEMPOTENCY)
        responses[str(route.status)]["headers"] = {"idempotency-replayed": _REPLAYED}
    content = operation.get("requestBody", {}).get("content", {})
    if route.method == "PATCH" and _JSON in content:
        content[_PATCH] = content[_JSON]
