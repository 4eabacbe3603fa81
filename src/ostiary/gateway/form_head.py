"""What the head of a form, and those of its parts, may say (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ostiary.errors import Refusal

FORM: Final = "multipart/form-data"
LONGEST_NAME: Final = 200
_CHARSET: Final = r"(?:\s*;\s*charset=\"?utf-8\"?)?"
_BOUNDARY: Final = re.compile(
    rf"multipart/form-data{_CHARSET}\s*;\s*boundary=(?:\"([^\"]{{1,70}})\"|([^\s;\"]{{1,70}})){_CHARSET}\s*",
    re.ASCII | re.IGNORECASE,
)
_MARK: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_PARAMETER: Final = re.compile(r";[ \t]*([A-Za-z*]{1,20})=(?:\"((?:[^\"\\\r\n]|\\.)*)\"|([^\s;\"\\]+))[ \t]*")
_KNOWN: Final = ("name", "filename", "filename*")
_ESCAPED: Final = re.compile(r"\\([\"\\])")
_EXTENDED: Final = re.compile(
    r"[A-Za-z0-9-]{1,40}'[A-Za-z0-9-]*'((?:%[0-9A-Fa-f]{2}|[A-Za-z0-9!#$&+.^_`|~-])+)", re.ASCII
)
"""A value as RFC 5987 has it, which needs no quotes and so cannot end early."""
_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,80}/[A-Za-z0-9!#$&^_.+-]{1,80}(?:[ \t]*;[ \t]*[\x20-\x7e]{0,200})?")
_CODINGS: Final = frozenset({"7bit", "8bit", "binary"})


def boundary_of(content_type: str) -> str:
    """The boundary that a content type names; refuses (415, 400) what is no form, or can be read in two ways."""
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise Refusal("unsupported_media_type", "Send the body as multipart/form-data.")
    found = _BOUNDARY.fullmatch(content_type)
    boundary = (found[1] or found[2]) if found else ""
    if not _MARK.fullmatch(boundary):
        raise malformed("its content type names no boundary, or not as RFC 2046 has it")
    return boundary


def part_of(head: Mapping[str, str]) -> dict[str, str]:
    """The name of a part and what else its Content-Disposition says; refuses what providers may read otherwise."""
    kind = head.get("content-type")
    if kind is not None and (not _TYPE.fullmatch(kind) or kind.lower().startswith("multipart/")):
        raise malformed("the content type of a part is none, or is a form itself")
    if head.get("content-transfer-encoding", "binary").lower() not in _CODINGS:
        raise malformed("a part is encoded; send it as it is")
    return _disposition(head.get("content-disposition", ""))


def written_head(part: Mapping[str, str], kind: str | None) -> str:
    """The head of a part in our own words; a file name's quotes and backslashes as browsers write quotes."""
    shown = {key: value.replace("\\", "%5C").replace('"', "%22") for key, value in part.items()}
    told = "".join(f'; {key}="{value}"' for key, value in shown.items() if key != "filename*")
    if "filename*" in part:
        told += f"; filename*={part['filename*']}"
    return f"Content-Disposition: form-data{told}\r\n" + (f"Content-Type: {kind}\r\n" if kind is not None else "")


def _disposition(text: str) -> dict[str, str]:
    """The parameters of a Content-Disposition, each at most once, and none but those of a form."""
    kind, mark, rest = text.partition(";")
    rest = mark + rest
    found: dict[str, str] = {}
    place = 0
    while kind.strip().lower() == "form-data" and (one := _PARAMETER.match(rest, place)):
        name = one[1].lower()
        if name in found or name not in _KNOWN:
            raise malformed("a part names itself twice or oddly")
        found[name] = one[2] if one[2] is not None else one[3]
        place = one.end()
    name = found.get("name", "")
    if place != len(rest) or not name or len(name) > LONGEST_NAME or not name.isprintable() or "\\" in name:
        raise malformed("a part does not say its name as a form field")
    if not all(value.isprintable() for value in found.values()):
        raise malformed("a file name holds what nobody can see")
    return _with_file_name(found)


def _with_file_name(found: dict[str, str]) -> dict[str, str]:
    """With `filename` for every file: who does not know `filename*` takes the part for a field without it."""
    if "filename*" in found:
        extended = _EXTENDED.fullmatch(found["filename*"])
        if extended is None:
            raise malformed("a `filename*` is empty, or not as RFC 5987 has it")
        found.setdefault("filename", extended[1])
    if "filename" in found:
        found["filename"] = _ESCAPED.sub(r"\1", found["filename"])
        if not found["filename"]:  # a file to some, a field to others
            raise malformed("a file has an empty name")
    return found


def malformed(why: str) -> Refusal:
    """A form that cannot be read, or not in one way only."""
    return Refusal("invalid_request", f"The form is malformed: {why}.")
