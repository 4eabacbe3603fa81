"""Which provider keys draw on the same quota: those of one account of an organization at a provider."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ostiary.gateway.caller import OpenKey


class Accounts:
    """Of all keys there are."""

    def __init__(self) -> None:
        self.keys: Mapping[str, OpenKey] = {}
        self._members: dict[tuple[str, str, str], list[str]] = {}

    def know(self, keys: Mapping[str, OpenKey]) -> None:
        """All keys there are, after any of them changed."""
        self.keys = keys
        members: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
        for key in keys.values():
            if key.account:
                members[key.organization_id, key.provider.id, key.account].append(key.id)
        self._members = dict(members)

    def sharing(self, key: OpenKey) -> Sequence[str]:
        """The ids of those of the key's account, its own among them; it alone where it has none."""
        if not key.account:
            return [key.id]
        return self._members.get((key.organization_id, key.provider.id, key.account), [key.id])
