"""The body of a request, read within bounds and as strictly as JSON can be."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final, NoReturn

from ostiary.admin.office import Line
from ostiary.errors import Refusal

MAX_BODY: Final = 1024 * 1024
_DEEPEST: Final = 64
_MOST_DIGITS: Final = 18
_LONGEST_NUMBER: Final = 1_000
_JSON: Final = "application/json"
_PATCH: Final = "application/merge-patch+json"


async def read(line: Line, wait_s: float) -> bytes:
    """The whole body, at most 1 MB; `wait_s` is for all of it. Raises CancelledError when the caller hangs up."""
    if int(line.headers.get(b"content-length", b"0")) > MAX_BODY:
        raise _too_large()
    found = await line.read_body(wait_s)
    if len(found) > MAX_BODY:
        raise _too_large()
    return found


def require_json(line: Line) -> None:
    """Refuses a body that does not call itself JSON; a merge patch may be called so as well."""
    kind, _, parameters = line.headers.get(b"content-type", b"").decode("latin-1").partition(";")
    allowed = (_JSON, _PATCH) if line.method == "PATCH" else (_JSON,)
    charset = parameters.strip().lower().replace('"', "")
    if kind.strip().lower() not in allowed or charset not in ("", "charset=utf-8"):
        raise Refusal("unsupported_media_type", f"Send the body as {' or '.join(allowed)}, in UTF-8.")
    if line.headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        raise Refusal("unsupported_media_type", "Send the body as it is, without a content encoding.")


def _loads(text: str) -> Any:  # noqa: ANN401 - JSON of any shape
    return json.loads(
        text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_fraction, parse_int=_whole
    )


def parse(body: bytes) -> Any:  # noqa: ANN401 - JSON of any shape
    """The value a body spells. Fractions become Decimal, so that money stays exact.

    Refuses what two parsers could read differently: a name twice in one object, NaN, other encodings.
    """
    try:
        value = _loads(body.decode())
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError as error:
        raise Refusal("invalid_request", f"The body is not UTF-8 (byte {error.start}).") from None
    except ValueError as error:
        raise Refusal("invalid_request", f"The body is not JSON: {str(error)[:200]}.") from None
    if _is_deeper(value, _DEEPEST):
        raise _too_deep()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Refusal("invalid_request", "A name stands twice in one object.", param=twice[:100])
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _whole(text: str) -> int:
    """Python would refuse it too, in words of its own."""
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"{text[:30]}… is out of range")
    return int(text)


def _fraction(text: str) -> Decimal | int:
    """As JSON has it, 5.0 and 5e0 are whole numbers."""
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text[:30]} is out of range") from None
    return int(number) if number.adjusted() < _MOST_DIGITS and number == number.to_integral_value() else number


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels <= 0 or any(_is_deeper(one, levels - 1) for one in inner)


def _too_large() -> Refusal:
    return Refusal("request_too_large", f"The body is larger than {MAX_BODY // 1024 // 1024} MB.")


def _too_deep() -> Refusal:
    return Refusal("invalid_request", f"The body is nested deeper than {_DEEPEST} levels.")
