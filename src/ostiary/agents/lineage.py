"""What a child may have of its parent's powers when it is made (pure); at each call, the policy says it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ostiary.agents.policy import Choice, Network, parse_networks
from ostiary.agents.records import AgentKey
from ostiary.errors import Refusal

POWERS: Final = (
    "scopes",
    "rpm",
    "rpd",
    "tpm",
    "parallel",
    "models",
    "providers",
    "free_only",
    "addresses",
    "metadata",
    "capture",
)
"""What a child has of its parent where nothing else is said. The budget is not among them: it spends the parent's."""


def require_narrower(values: Mapping[str, Any], parent: AgentKey) -> None:
    """Refuse what would let a child do more than its parent, and name the field."""
    for name, value in values.items():
        is_within = _WITHIN.get(name)
        if is_within is not None and not is_within(value, getattr(parent, name)):
            raise Refusal(
                "invalid_field",
                f"{name} would let the ephemeral key do more than its parent, {parent.name!r}, may.",
                param=name,
            )


def _is_choice_within(child: Choice, parent: Choice) -> bool:
    if parent.mode == "all" or child.mode == "none":
        return True
    return child.mode == parent.mode == "only" and child.items <= parent.items


def _are_addresses_within(child: Choice, parent: Choice) -> bool:
    if parent.mode != "only" or child.mode != "only":
        return _is_choice_within(child, parent)
    allowed = parse_networks(sorted(parent.items))
    return all(any(_is_part(one, other) for other in allowed) for one in parse_networks(sorted(child.items)))


def _is_part(one: Network, other: Network) -> bool:
    if one.version == other.version:
        return int(one.network_address) & int(other.netmask) == int(other.network_address) and (
            one.prefixlen >= other.prefixlen
        )
    return False


def _is_at_most(child: int | None, parent: int | None) -> bool:
    return parent is None or (child is not None and child <= parent)


def _is_slice(child: Any, parent: Any) -> bool:  # noqa: ANN401 - a Budget, or none
    """A slice may be larger than what the parent has left, never than what it may spend at all."""
    if child is None or child.cap_nano is None or parent is None or parent.cap_nano is None:
        return True
    return bool(child.cap_nano <= parent.cap_nano)


_WITHIN: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {
        "expires_at": _is_at_most,
        "scopes": lambda child, parent: child <= parent,
        "rpm": _is_at_most,
        "rpd": _is_at_most,
        "tpm": _is_at_most,
        "parallel": _is_at_most,
        "models": _is_choice_within,
        "providers": _is_choice_within,
        "free_only": lambda child, parent: child or not parent,
        "addresses": _are_addresses_within,
        "capture": lambda child, parent: child or not parent,
        "budget": _is_slice,
    }
)
"""`capture` is a power the other way round: what a parent must let be seen, its child cannot hide."""
