"""The documentation as one plain page: no script, no style, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any


def render(described: dict[str, Any]) -> bytes:
    """HTML of the OpenAPI description."""
    info = described["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        *(f"<p>{escape(text)}</p>" for text in info["description"].split("\n\n")),
        "<p><a href=/api/v1/openapi.json>/api/v1/openapi.json</a> is the same for machines.</p>",
    ]
    noun = ""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != noun:
                noun = operation["tags"][0]
                parts.append(f"<h2>{escape(noun)}</h2>")
            parts += _operation(path, method, operation)
    return "\n".join(parts).encode()


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h3><code>{method.upper()} {escape(path)}</code></h3><p>{escape(operation['summary'])}</p>"
    yield from (f"<p>{escape(text)}</p>" for text in operation["description"].split("\n\n"))
    for parameter in operation["parameters"]:
        said = escape(parameter.get("description", ""))
        yield f"<li><code>{escape(parameter['name'])}</code> ({parameter['in']}) {said}"
    for title, found in (("Takes", operation.get("requestBody", {})), ("Answers", _answered(operation))):
        names = {_name(one["schema"]) for one in found.get("content", {}).values()}
        if names:
            yield f"<p>{title} <code>{escape(', '.join(sorted(names)))}</code></p>"


def _answered(operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for status, one in operation["responses"].items() if status != "default")
    return found


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", schema.get("type", ""))).rpartition("/")[2]
