"""What a page is answered with: HTML, a way to elsewhere, a file; and the headers that every answer has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

Headers = list[tuple[bytes, bytes]]

HTML: Final = (b"content-type", b"text/html; charset=utf-8")
SAFE: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
            b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
]
_LONGEST_SAID: Final = 300
"""Characters, each of which may take twelve in a cookie; browsers drop those of more than 4 KB without a word."""
SAID: Final = "ostiary_said"
"""The cookie that carries a word from one page to the next."""


@dataclass(slots=True)
class Answer:
    """What is sent, whole."""

    status: int = 200
    body: bytes = b""
    headers: Headers = field(default_factory=list)

    def header(self, name: bytes, value: str | bytes) -> Answer:
        """Add a header; itself."""
        self.headers.append((name, value if isinstance(value, bytes) else value.encode("ascii")))
        return self


def html(text: str, status: int = 200) -> Answer:
    """A page or a part of one, which nobody keeps."""
    return Answer(status, text.encode(), [HTML, (b"cache-control", b"no-store"), (b"vary", b"HX-Request")])


def elsewhere(path: str, *, is_partial: bool, said: str | None = None, kind: str = "success") -> Answer:
    """Go there; `said` is what the next page says first. `path` is one of ours."""
    if not path.startswith("/dashboard"):
        path = "/dashboard"
    where = quote(path, safe="/?&=%#:,+-_.~").encode("ascii")
    answer = Answer(200, b"", [(b"hx-redirect", where)]) if is_partial else Answer(303, b"", [(b"location", where)])
    answer.headers.append((b"cache-control", b"no-store"))
    if said is not None:
        value = quote(f"{kind}:{said[:_LONGEST_SAID]}", safe="")
        attributes = "Path=/dashboard; Max-Age=30; HttpOnly; SameSite=Lax"
        answer.headers.append((b"set-cookie", f"{SAID}={value}; {attributes}".encode()))
    return answer


def file(body: bytes, kind: str, name: str) -> Answer:
    """Something to save; `name` is ours."""
    headers = [(b"content-type", kind.encode()), (b"content-disposition", f'attachment; filename="{name}"'.encode())]
    return Answer(200, body, [*headers, (b"cache-control", b"no-store")])
