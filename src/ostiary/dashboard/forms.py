"""What was typed into a form, read strictly, and what was wrong with it, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from ostiary.errors import Refusal

MAX_FORM: Final = 1024 * 1024
_MOST_FIELDS: Final = 5_000
_KIND: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True)
class Form:
    """The fields of a form or of a query, by name; the empty one where nothing was sent."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """One value, without the blanks around it. Browsers end lines with CR LF; we do not."""
        found = self.values.get(name)
        return found[-1].replace("\r\n", "\n").strip() if found else default

    def raw(self, name: str) -> str:
        """One value exactly as it was typed: passwords have blanks."""
        found = self.values.get(name)
        return found[-1] if found else ""

    def all(self, name: str) -> list[str]:
        """Every value of a name that is no blank: checkboxes, picked options."""
        return [value.strip() for value in self.values.get(name, ()) if value.strip()]

    def lines(self, name: str) -> list[str]:
        """What was listed in one field, by line or comma."""
        return [part.strip() for part in self.text(name).replace("\n", ",").split(",") if part.strip()]

    def has(self, name: str) -> bool:
        """Whether a box is ticked, or a field was sent at all."""
        return name in self.values

    def number(self, name: str, *, at_least: int = 1) -> int | None:
        """A whole number, None where nothing was typed; refuses what is none."""
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 15) or int(text) < at_least:  # noqa: PLR2004 - digits
            raise Refusal("invalid_field", f"Give a whole number from {at_least}.", param=name)
        return int(text)


def read(text: bytes) -> Form:
    """A form or query as browsers write it; refuses what is none, and floods."""
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refusal("invalid_request", "The form cannot be read.") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if "\0" in value:
            raise Refusal("invalid_field", "This holds a character that no text has.", param=name[:100])
        values.setdefault(name, []).append(value)
    return Form(values)


def require_form(kind: bytes) -> None:
    """Refuses a body that is no form."""
    if kind.decode("latin-1").partition(";")[0].strip().lower() != _KIND:
        raise Refusal("unsupported_media_type", f"Send the form as {_KIND}.")


@dataclass(frozen=True, slots=True)
class Wrong:
    """What a refused form is shown with: what is said, and beside which field."""

    message: str = ""
    name: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    def said(self, name: str) -> str:
        """What is wrong with a field; empty when nothing is."""
        return self.fields.get(name, "") or (self.message if name == self.name else "")

    @property
    def elsewhere(self) -> str:
        """What is wrong with none of the fields in particular."""
        return "" if self.name or self.fields else self.message


def wrong(refusal: Refusal, names: Mapping[str, str] | None = None) -> Wrong:
    """A refusal as a form shows it; `names` says which field of the form stands for which of the deed's."""
    names = names or {}
    errors = refusal.details.get("errors") or []
    if errors:
        said = {names.get(one["field"], one["field"]): one["message"] for one in errors}
        return Wrong(refusal.message, fields=said)
    return Wrong(refusal.message, names.get(refusal.param or "", refusal.param or ""))
