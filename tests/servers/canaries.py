"""Secrets that must never be seen again, and the sweep that looks for them."""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ostiary.agents import credential

PATTERN = re.compile(rb"CANARY[0-9a-f]{24}")
"""What every planted provider secret holds."""
OURS = re.compile(rb"ost_[a-z]+_[0-9A-Za-z]{49}")
"""How every credential of ours looks, watched or not; the checksum tells those that were minted from examples."""
REGISTER = "planted.canaries"
"""The list of secrets we did not choose (minted agent keys); the one file that holds them by right."""
INPUT_SUFFIX = ".secret"
"""What a test itself writes as an input with a secret in it (a key file, a config) ends in this, and is not swept."""
_PART = 1 << 20
_OVERLAP = 256
_SHORTEST = 16
_HEART = 24
_BLOCK = 8


def plant(prefix: str = "") -> str:
    """A new provider secret; wherever its pattern turns up in the clear, a secret has leaked.

    Without a prefix it looks like nobody's key, so that no redactor hides who wrote it.
    """
    return f"{prefix}CANARY{secrets.token_hex(12)}"


@dataclass(slots=True)
class Canaries:
    """The secrets a test session has seen. `watch` what the product minted; `plant` what goes into the vault."""

    register: Path
    seen: set[str] = field(default_factory=set)

    def plant(self, prefix: str = "") -> str:
        """A new provider secret, watched."""
        return self.watch(plant(prefix))

    def watch(self, secret: str) -> str:
        """Look for this secret, too, when the session ends; gives it back. A client credential's id is no secret."""
        parts = {part for part in secret.split(":") if not part.startswith("org_")}
        with self.register.open("a") as file:
            file.writelines(f"{part}\n" for part in parts - self.seen)
        self.seen |= parts
        return secret


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret in the clear: where, and enough around it to find the writer."""

    where: str
    around: str

    def __str__(self) -> str:
        return f"{self.where}: …{self.around}…"


def registered(root: Path) -> set[str]:
    """Every secret that any worker has watched below `root`."""
    found: set[str] = set()
    for register in root.rglob(REGISTER):
        found.update(line for line in register.read_text().splitlines() if len(line) >= _SHORTEST)
    return found


class Sweeper:
    """Looks for many secrets at once, and for their base64 at each of its three alignments.

    A secret of 16 bytes or more, wherever it stands, covers one whole block of 8 bytes: so only every eighth place of a
    text is looked up.
    """

    def __init__(self, watched: Iterable[str]) -> None:
        self._by_block: defaultdict[int, set[bytes]] = defaultdict(set)
        for secret in {_heart(secret).encode() for secret in watched}:
            for text in (secret, *_base64_forms(secret)):
                for start in range(len(text) - _BLOCK + 1):
                    self._by_block[_number(text[start : start + _BLOCK])].add(text)
        self._numbers = frozenset(self._by_block)

    def spans(self, text: bytes) -> set[tuple[int, int]]:
        """Where in the text there are secrets."""
        found = {match.span() for match in PATTERN.finditer(text)}
        found |= {match.span() for match in OURS.finditer(text) if credential.parse(match.group().decode())}
        blocks = memoryview(text)[: len(text) // _BLOCK * _BLOCK].cast("Q")
        if self._numbers.isdisjoint(blocks):
            return found
        for start, block in zip(range(0, len(text), _BLOCK), blocks, strict=False):
            for secret in self._by_block.get(block, ()):
                at = text.find(secret, max(0, start - len(secret)), start + len(secret))
                if at >= 0:
                    found.add((at, at + len(secret)))
        return found

    def search_text(self, where: str, text: str) -> list[Leak]:
        """Secrets in what a test has printed or logged."""
        read = text.encode(errors="replace")
        return [_leak(where, read, span) for span in sorted(self.spans(read))]

    def search_file(self, path: Path) -> Iterator[Leak]:
        """Secrets in a file, also across the borders of the parts it is read in."""
        with path.open("rb") as file:
            before = b""
            while part := file.read(_PART):
                text = before + part
                yield from (_leak(str(path), text, span) for span in self.spans(text) if span[1] > len(before))
                before = text[-_OVERLAP:]


def _number(block: bytes) -> int:
    return int.from_bytes(block, sys.byteorder)


def _heart(secret: str) -> str:
    """The middle of a secret: a line that cuts it short leaks it all the same, a preview does not."""
    spare = len(secret) - _HEART
    return secret if spare <= 0 else secret[spare // 2 : spare // 2 + _HEART]


def _base64_forms(secret: bytes) -> Iterator[bytes]:
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + secret)
        # The first and the last group depend on the neighbours; what lies between does not.
        inner = whole[4 if shift else 0 : -4]
        yield inner[:_HEART]
        yield inner[:_HEART].replace(b"+", b"-").replace(b"/", b"_")


def sweep(root: Path, watched: Iterable[str]) -> list[Leak]:
    """Read every file below `root`, databases, logs and spools alike, for secrets in the clear."""
    sweeper = Sweeper(watched)
    return [leak for path in _files(root) for leak in sweeper.search_file(path)]


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if name != REGISTER and not name.endswith(INPUT_SUFFIX) and path.is_file() and not path.is_symlink():
                yield path


def _leak(where: str, text: bytes, span: tuple[int, int]) -> Leak:
    start, end = span
    around = text[max(0, start - 80) : start] + b"<<" + text[start : start + 10] + b">>" + text[end : end + 40]
    return Leak(where, around.decode(errors="replace").replace("\n", "⏎"))
