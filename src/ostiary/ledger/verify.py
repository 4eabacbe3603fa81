"""Walks the audit log from its first row to its last, and says where somebody has been at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from ostiary.clock import iso
from ostiary.db.database import Database
from ostiary.ledger import anchors, chain
from ostiary.ledger import audit_store as store
from ostiary.ledger.anchors import Anchor
from ostiary.ledger.audit_store import Found
from ostiary.ledger.chain import Head, Key
from ostiary.secret import Secret

_BATCH: Final = 2_000
_SHOWN: Final = 20
_NUMBERS: Final = frozenset({"seq", "at", "number"})

Progress = Callable[[str, int, int], None]


class Fault(msgspec.Struct, frozen=True):
    """One thing that is not as it was written. `seq` is the row, where it is about one."""

    seq: int | None
    chain: str | None
    number: int | None
    what: str


class Report(msgspec.Struct, frozen=True):
    """What a walk has found. Of many faults the first ones are kept, in the order of the rows."""

    rows: int
    chains: int
    older_rows: int
    begun_at: int | None
    anchors: int
    anchored_at: int | None
    faults: tuple[Fault, ...]
    more: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed."""
        return not self.faults


async def verify(database: Database, key: Secret, files: Sequence[Path], progress: Progress) -> Report:
    """Prove every row, in batches, while deeds go on being written; `files` are anchor files, of any gateway.

    A row is one link of its organization's chain and of the whole log. So what was changed, put in, taken out or moved
    shows at the next row, and what was cut from the end shows at the head, which cannot be made without the key.
    """
    walk = Walk(key, files)
    while not walk.is_over:
        await walk.go_on(database)
        progress("audit rows", walk.rows, walk.total)
    return walk.report()


class Walk:
    """The same in portions, for who cannot wait for all of it."""

    def __init__(self, key: Secret, files: Sequence[Path]) -> None:
        proof = Key(key)
        self._walk = _Walk(proof, anchors.load(files, proof))
        self._last: int | None = None
        self.total = 0
        self.is_over = False

    @property
    def rows(self) -> int:
        """How many are behind us."""
        return self._walk.rows

    async def go_on(self, database: Database) -> None:
        """Prove the next batch."""
        walk = self._walk
        async with database.read() as tx:
            before = await store.find_end(tx)  # first: rows up to there are there to be read
            rows = await store.list_raw(tx, self._last, _BATCH)
            after = await store.find_end(tx)
        if walk.rows == 0:
            walk.begin(before.head or after.head)
        end = after.head
        for row in rows:
            walk.take(row, end)
            self._last = row["place"]
        self.total = max(walk.rows, after.last_seq)
        if not rows:
            walk.end(before)
            self.is_over = True

    def report(self) -> Report:
        """What was found so far; the end is judged when it is over."""
        return self._walk.report()


@dataclass(slots=True)
class _Walk:
    key: Key
    known: anchors.Anchors
    rows: int = 0
    older_rows: int = 0
    seq: int = 0
    head: Head | None = None
    link: str = ""
    ends: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    wanted: dict[tuple[str, int], list[tuple[Anchor, Path]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    more: int = 0

    def begin(self, head: Head | None) -> None:
        """Before the first row."""
        self.head = head
        if head is not None:
            self.link = self.key.begin(head.older, head.begun_at)
        for found in self.known.newest.values():
            for one, path in found:
                self.wanted.setdefault((one.chain, one.number), []).append((one, path))

    def take(self, row: Mapping[str, Any], end: Head | None) -> None:
        """One row, in the order in which they were written."""
        place: int = row["place"]
        older = self.head.older if self.head else 0
        self.rows += 1
        self.older_rows += place <= older
        if self.head and place > (due := max(self.seq, older) + 1):
            self._fault(due, None, None, f"{_span('row', due, place - 1)} missing")
        self.seq = max(self.seq, place)
        name, number = _place_in_chain(row)
        if name is None or number is None or row["hash"] is None:
            self._fault(place, name, number, "stands in no chain: it was not written by Ostiary")
            return
        last, previous = self.ends.get(name, (0, b""))
        reason = self._judge(row, last, number, previous)
        if reason is None and end is not None and place > end.seq:
            reason = "stands behind the end of the log"
        if reason is None:
            reason = self._compare(name, number, row["hash"])
        if reason is not None:
            self._fault(place, name, number, reason)
        if number > last:
            self.ends[name] = (number, row["hash"])
        self.link = self.key.link(self.link, row["hash"])

    def _judge(self, row: Mapping[str, Any], last: int, number: int, previous: bytes) -> str | None:
        if number <= last:
            return f"stands behind row {last} of its chain: it was put there or moved"
        if number > last + 1:
            return f"{_span('row', last + 1, number - 1)} missing before it in its chain"
        if self.key.hash(previous, row) != row["hash"] or not _are_right(row.get("types")):
            return "was changed, or does not stand where it was written"
        return None

    def _compare(self, name: str, number: int, hash_: bytes) -> str | None:
        for one, path in self.wanted.pop((name, number), ()):
            if one.hash != hash_.hex():
                return f"is not the row that was anchored on {iso(one.at)} in {path.name}"
        return None

    def end(self, found: Found) -> None:
        """Behind the last row."""
        if found.head is None:
            what = "is missing" if found.text is None else "cannot be read"
            self._fault(None, None, None, f"the end of the log {what}: it was removed or changed in the database")
        elif found.head.seq > self.seq:
            self._fault(self.seq + 1, None, None, f"{_span('row', self.seq + 1, found.head.seq)} missing from the end")
        elif found.head.link != self.link and not self.faults:
            self._fault(None, None, None, "the end of the log does not belong to these rows: some were removed from it")
        for (name, number), found_in in sorted(self.wanted.items()):
            one, path = found_in[0]
            last = self.ends.get(name, (0, b""))[0]
            if number > last:
                said = f"had {number} rows on {iso(one.at)}, says {path.name}, and now has {last}"
                self._fault(one.seq, name, number, f"missing: the chain {said}")
        for what in self.known.faults:
            self._fault(None, None, None, what)

    def report(self) -> Report:
        """What was found."""
        return Report(
            rows=self.rows,
            chains=len(self.ends),
            older_rows=self.older_rows,
            begun_at=self.head.begun_at if self.head else None,
            anchors=self.known.lines,
            anchored_at=self.known.at,
            faults=tuple(self.faults),
            more=self.more,
        )

    def _fault(self, seq: int | None, name: str | None, number: int | None, what: str) -> None:
        if len(self.faults) < _SHOWN:
            self.faults.append(Fault(seq, name, number, what))
        else:
            self.more += 1


def _place_in_chain(row: Mapping[str, Any]) -> tuple[str | None, int | None]:
    name, number = row["chain"], row["number"]
    is_number = number is not None and number.isdigit()
    return None if name is None else name.decode(errors="replace"), int(number) if is_number else None


@lru_cache(maxsize=256)
def _are_right(types: str | None) -> bool:
    """Whether SQLite keeps each value as what it was written as: it would keep anything in any column."""
    if types is None:
        return True
    first, *others = types.split(" ")
    return first == "blob" and all(
        found == ("integer" if name in _NUMBERS else "text") or (found == "null" and name not in _NUMBERS)
        for name, found in zip(chain.FIELDS, others, strict=True)
    )


def _span(noun: str, first: int, last: int) -> str:
    return f"{noun} {first} is" if first == last else f"{noun}s {first} to {last} are"
