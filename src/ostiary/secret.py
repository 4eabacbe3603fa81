"""A value that never prints itself."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

_MASK = "***"
_SHORTEST_SHOWN = 12


class Secret:
    """Holds a credential; `reveal()` is the only way to its text, and easy to search for."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself. Use it on the way to a provider, a seal or the one answer that shows it."""
        return self.__value

    def preview(self) -> str:
        """First four … last three; nothing of a secret under twelve characters."""
        text = self.__value
        return f"{text[:4]}…{text[-3:]}" if len(text) >= _SHORTEST_SHOWN else "…"

    def __repr__(self) -> str:
        return _MASK

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.__value.encode(), other.__value.encode())

    def __hash__(self) -> int:
        return hash(self.__value)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:  # noqa: ANN401 - the signature is object's
        raise TypeError("a Secret is not pickled or copied")
