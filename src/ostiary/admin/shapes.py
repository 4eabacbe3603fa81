"""What requests and answers are made of: amounts, moments, choices, and lists in pages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    WithJsonSchema,
)

from ostiary.admin.visit import Visit
from ostiary.agents.policy import Choice
from ostiary.clock import SECOND_MS, iso
from ostiary.money import MAX_NANO, NANO_PER_USD, nano_of, show_usd
from ostiary.providers.tokens import Tokens

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_AMOUNT: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")
_LATEST_YEAR: Final = 9_000


def _visit(request: Request) -> Visit:
    found: Visit = request.scope["ostiary.visit"]
    return found


Asking = Annotated[Visit, Depends(_visit)]
Id = Annotated[str, Path(description="The id, or the name where there is one without a slash.")]


class Asked(BaseModel):
    """What a body holds: nothing else, and each thing of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Sought(BaseModel):
    """What a query string holds, where everything is text."""

    model_config = ConfigDict(extra="forbid")


class Shown(BaseModel):
    """What an answer holds."""

    model_config = ConfigDict(extra="forbid")


ABSENT: Any = Field(default_factory=lambda: None)
"""Of a merge patch: a field that is not named stays as it is; None would be a value."""


# ---- money ------------------------------------------------------------------------------------------------------


def _nano(value: object) -> int:
    """Exact: the body's fractions were read as decimals, and an amount with more than nine of them is refused."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError('an amount in USD is written as "12.5" or 12.5')  # noqa: TRY004 - what pydantic reports
    if isinstance(value, str) and not _AMOUNT.fullmatch(value):
        raise ValueError('an amount in USD is written as "12.5", with nine decimals at most')
    try:
        return nano_of(value)
    except ValueError:
        raise ValueError(f"{str(value)[:40]} is not 0 to {MAX_NANO // NANO_PER_USD} USD of nine decimals") from None


Usd = Annotated[
    int,
    BeforeValidator(_nano),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$"},
                {"type": "number", "minimum": 0, "maximum": MAX_NANO // NANO_PER_USD},
            ],
            "description": "USD, exact to nine decimals; as a text it survives every JSON parser.",
            "examples": ["12.5"],
        }
    ),
]
"""An amount that is given, in nano-dollars from here on."""

ShownUsd = Annotated[
    str,
    Field(pattern=r"^-?[0-9]+(\.[0-9]{1,9})?$", description="USD, exact, as a text.", examples=["12.5"]),
]
"""An amount that is shown."""


def usd(nano: int) -> str:
    """Nano-dollars as they are shown."""
    return show_usd(nano)


def maybe_usd(nano: int | None) -> str | None:
    """The same, where there may be none."""
    return None if nano is None else show_usd(nano)


# ---- tokens -----------------------------------------------------------------------------------------------------


class ShownTokens(Shown):
    """Tokens by kind: `input` includes the cached ones, `output` the reasoning, both the audio."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    audio: int


def tokens(counted: Tokens) -> ShownTokens:
    """As they are shown."""
    return ShownTokens(**{name: getattr(counted, name) for name in ShownTokens.model_fields})


# ---- times ------------------------------------------------------------------------------------------------------


def _at(value: object) -> int:
    if not isinstance(value, str) or not _MOMENT.fullmatch(value) or int(value[:4]) > _LATEST_YEAR:
        raise ValueError("a time is written as 2026-11-20T22:53:17Z")
    moment = datetime.fromisoformat(value.upper())
    return int(moment.astimezone(UTC).timestamp() * SECOND_MS)


Moment = Annotated[
    int,
    BeforeValidator(_at),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-12-31T00:00:00Z"]}),
]
"""A time that is given (RFC 3339, with its zone), in milliseconds from here on."""

ShownMoment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def when(at: int | None) -> str | None:
    """A time as it is shown, in UTC."""
    return None if at is None else iso(at)


# ---- choices and metadata ---------------------------------------------------------------------------------------

Item = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Chosen(BaseModel):
    """All, only these, or none."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mode: Literal["all", "only", "none"]
    items: Annotated[list[Item], Field(max_length=500)] = []

    @classmethod
    def of(cls, choice: Choice) -> Chosen:
        """As it is shown."""
        return cls(mode=choice.mode, items=sorted(choice.items))


def choice_of(value: Chosen | list[str]) -> Choice:
    """What was chosen. A bare list is the shorthand of forms: naming nothing means all."""
    if isinstance(value, Chosen):
        return Choice(value.mode, frozenset(value.items))
    return Choice("only", frozenset(value)) if value else Choice()


def _spelling(value: object) -> str:
    """Which of both spellings is meant, so that a refusal speaks of that one."""
    return "names" if isinstance(value, list) else "choice"


GivenChoice = Annotated[
    Annotated[Chosen, Tag("choice")] | Annotated[list[Item], Field(max_length=500), Tag("names")],
    Discriminator(_spelling),
    Field(description="A bare list is the shorthand of `only`; an empty one means `all`."),
]


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """Fractions, which were read as decimals, as what every JSON library makes of them."""
    match value:
        case Decimal():
            number = float(value)
            if not math.isfinite(number):
                raise ValueError("a number is out of range")
            return number
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


Metadata = Annotated[dict[str, JsonValue], BeforeValidator(_plain)]


def merged(known: object, patch: object) -> object:
    """An object with a patch laid over it (RFC 7396): null takes a name away, and an object is merged in its turn."""
    if not isinstance(patch, Mapping):
        return patch
    kept = dict(known) if isinstance(known, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = merged(kept.get(name), value)
    return kept


# ---- secrets ----------------------------------------------------------------------------------------------------

OnceShown = Annotated[
    str | None,
    Field(description="Shown in this answer and never again; absent when a write is repeated."),
]
