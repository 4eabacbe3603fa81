"""What each field of an endpoint or alias may hold, and what its maker should know of it (pure)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from ostiary.errors import Refusal
from ostiary.limits.wishes import is_whole
from ostiary.names import checked_name
from ostiary.providers.catalog import Catalog
from ostiary.vault.endpoint_store import Endpoint, EndpointTarget

MOST_TARGETS: Final = 50
MOST_WEIGHT: Final = 1_000
MOST_RETRIES: Final = 9
SHORTEST_TIMEOUT_MS: Final = 100
LONGEST_TIMEOUT_MS: Final = 600_000
USUAL_RETRIES: Final = 2

_OURS: Final = "ostiary"
"""What the names of the operator's aliases begin with."""
_WORDS: Final = frozenset({"all", "none"})
"""What a list of allowed models means by itself."""
_NEAR: Final = 3


def checked_route_name(text: str, catalog: Catalog, *, is_alias: bool) -> str:
    """A name as it may stand in `model`, in a URL and in a list of allowed models.

    An endpoint or alias is looked for before a model is, so none may hide what `provider/model` says exactly.
    """
    name = checked_name(text)
    if name.startswith("/") or name.endswith("/") or "//" in name:
        raise _wrong("name", "A name stands in `model`: no part of it between slashes may be empty.")
    if "," in name or name in _WORDS:
        raise _wrong("name", "A name stands in lists of allowed models: it has no comma, and is not 'all' or 'none'.")
    first, slash, rest = name.partition("/")
    begins = first.casefold()
    if slash and begins == _OURS and (not is_alias or first != _OURS):
        other = f"Call it {rest!r}" if not is_alias else f"Write {_OURS}/{rest}"
        raise _wrong("name", f"Names that begin with {_OURS}/ are the operator's aliases. {other}.")
    provider = next((one for one in catalog.providers.values() if one.id.casefold() == begins), None)
    if slash and provider is not None:
        message = (
            f"{provider.id}/… always means a model of {provider.name} itself. Choose a name that begins otherwise."
        )
        raise _wrong("name", message)
    return name


def checked(wished: Mapping[str, object], catalog: Catalog, *, is_alias: bool) -> dict[str, Any]:
    """The fields as they are stored; refuses with `invalid_field` and names the field.

    Whether the keys that targets name may be used is not asked here: `provider_key_id` passes as it is given.
    """
    values: dict[str, Any] = {}
    for name, value in wished.items():
        if name == "name":
            values[name] = checked_route_name(_text(name, value), catalog, is_alias=is_alias)
        elif name == "targets":
            values[name] = _targets(value, catalog)
        elif name in _CHECKS:
            values[name] = _CHECKS[name](name, value)
        else:
            raise _wrong(name, f"{name!r} is not a field of an endpoint that can be set.")
    return values


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, f"{name} must be text.")
    return value


def _strategy(name: str, value: object) -> str:
    if value not in ("first", "split"):
        raise _wrong(name, "A strategy is 'first' (the first healthy target, in order) or 'split' (by weight).")
    return str(value)


def _retries(name: str, value: object) -> int:
    return _within(name, value, 0, MOST_RETRIES, f"{name} must be 0 to {MOST_RETRIES} further attempts.")


def _timeout(name: str, value: object) -> int | None:
    says = f"{name} must be {SHORTEST_TIMEOUT_MS} ms to {LONGEST_TIMEOUT_MS // 1_000} s, or nothing."
    return None if value is None else _within(name, value, SHORTEST_TIMEOUT_MS, LONGEST_TIMEOUT_MS, says)


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = MappingProxyType(
    {"strategy": _strategy, "retries": _retries, "timeout_ms": _timeout}
)


def _within(name: str, value: object, least: int, most: int, says: str) -> int:
    if not is_whole(value) or not least <= value <= most:
        raise _wrong(name, says)
    return value


# ---- targets ----------------------------------------------------------------------------------------------------


def _targets(value: object, catalog: Catalog) -> tuple[EndpointTarget, ...]:
    given = tuple(value) if isinstance(value, Iterable) else ()
    if not 1 <= len(given) <= MOST_TARGETS or not all(isinstance(one, EndpointTarget) for one in given):
        raise _wrong("targets", f"An endpoint leads to 1 to {MOST_TARGETS} targets.")
    found = tuple(_target(f"targets.{number}", one, catalog) for number, one in enumerate(given))
    if all(one.is_fallback for one in found):
        raise _wrong("targets", "A fallback stands in for another target: at least one must not be a fallback.")
    return found


def require_distinct(targets: Iterable[EndpointTarget]) -> None:
    """Refuse the same target twice, once it is known which keys are meant."""
    seen: set[tuple[str, str, str | None]] = set()
    for number, one in enumerate(targets):
        what = (one.provider, one.model, one.provider_key_id)
        if what in seen:
            raise _wrong(f"targets.{number}", f"{_said(one)} is a target twice. Give it a higher weight instead.")
        seen.add(what)


def _target(place: str, one: EndpointTarget, catalog: Catalog) -> EndpointTarget:
    provider = catalog.find(one.provider)
    if provider is None:
        try:
            catalog.get(one.provider)
        except Refusal as refusal:
            message = f"{refusal.message} A target is a model of a provider, not another endpoint or alias."
            raise _wrong(f"{place}.provider", message) from None
    elif not provider.callable:
        raise _wrong(f"{place}.provider", f"{provider.name} cannot be called yet: {provider.reason}")
    weight = _within(f"{place}.weight", one.weight, 1, MOST_WEIGHT, f"A weight is 1 to {MOST_WEIGHT}.")
    return EndpointTarget(
        one.provider,
        checked_name(one.model, f"{place}.model"),
        one.provider_key_id,
        weight,
        bool(one.is_fallback),
    )


def _said(one: EndpointTarget) -> str:
    return f"{one.provider}/{one.model}"


# ---- what its maker should know ---------------------------------------------------------------------------------


def hints(one: Endpoint, catalog: Catalog, aliases: Collection[str], keyed: Collection[str]) -> tuple[str, ...]:
    """What works but may not be meant, in words. `keyed` are the providers for which there is a provider key."""
    return (*_of_name(one, catalog, aliases), *_of_targets(one, catalog), *_of_keys(one, keyed))


def _of_name(one: Endpoint, catalog: Catalog, aliases: Collection[str]) -> Iterator[str]:
    noun = "alias" if one.is_alias else "endpoint"
    serving = catalog.served_by(one.name)
    if serving:
        direct = f"{serving[0]}/{one.name}"
        yield f"{one.name!r} is also the name of a model: who asks for it gets this {noun}. {direct!r} is the model."
    if not one.is_alias and one.name in aliases:
        yield f"There is an alias {one.name!r} too: in this organization it means this endpoint."


def _of_targets(one: Endpoint, catalog: Catalog) -> Iterator[str]:
    listed = {model.provider for model in catalog.models.values()}
    for target in one.targets:
        known = target.provider in catalog.served_by(target.model)
        if known or target.provider not in listed:  # of some providers nobody lists the models
            continue
        prefix = f"{target.provider}/"
        near = [name.removeprefix(prefix) for name in catalog.near(_said(target), 12) if name.startswith(prefix)]
        like = f" Near: {', '.join(near[:_NEAR])}." if near else ""
        yield f"The catalogue does not know {target.model!r} at {target.provider}: check its spelling and price.{like}"
    plain = [target for target in one.targets if not target.is_fallback]
    if one.strategy == "first" and any(target.weight != 1 for target in one.targets):
        yield "Weights count with the strategy 'split' only; by 'first' the targets are tried in their order."
    elif one.strategy == "split" and len(plain) == 1:
        yield "There is one target to split between: all calls go there."


def _of_keys(one: Endpoint, keyed: Collection[str]) -> Iterator[str]:
    whose = "in the pool" if one.is_alias else "that this organization may use"
    for provider in dict.fromkeys(target.provider for target in one.targets):
        if provider not in keyed:
            yield f"There is no key for {provider} {whose} yet, so its targets are passed over."


def _wrong(param: str, message: str) -> Refusal:
    return Refusal("invalid_field", message, param=param)
