"""`ostiary scan`: finds credentials that lie about in files, ours by checksum and those of providers by shape."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ostiary.agents import credential, store
from ostiary.cli import progress, show
from ostiary.cli.desk import Desk, Where, at_desk, quiet
from ostiary.cli.options import DataDir, Json
from ostiary.db.backup_file import Progress
from ostiary.db.database import Transaction
from ostiary.errors import CannotStart, Refusal
from ostiary.ground import has_instance
from ostiary.providers import catalog
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault.scanning import Found, Known, Ours, Scanner, text_of

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)

_LARGEST: Final = 5_000_000
_OFTEN: Final = 50
_SINGLE: Final = r"ost_(?:pat|eph|ck|cs|inv)_[0-9A-Za-z]{49}"
_OURS: Final = re.compile(rf"org_[0-9A-Za-z]{{22}}:{_SINGLE}:{_SINGLE}|{_SINGLE}")
_KINDS: Final = {
    "pat": "agent key",
    "eph": "ephemeral key",
    "client": "client credential",
    "ck": "part of a client credential",
    "cs": "part of a client credential",
    "inv": "invite",
}
_UNKNOWN: Final = "not known here"


@dataclass(frozen=True, slots=True)
class _Place:
    """A credential in a file."""

    path: str
    found: Found

    @property
    def is_ours(self) -> bool:
        return not self.found.providers


@dataclass(frozen=True, slots=True)
class _Holder:
    """Whose one of our credentials is, and whether it opens anything."""

    name: str
    status: str
    organization_id: str


@dataclass(slots=True)
class _Tally:
    """Files, by what became of them."""

    scanned: int = 0
    too_large: int = 0
    binary: int = 0
    links: int = 0
    unreadable: int = 0


@dataclass(slots=True)
class _Scan:
    """A walk through files."""

    scanner: Scanner
    tell: Progress
    places: list[_Place] = field(default_factory=list)
    tally: _Tally = field(default_factory=_Tally)

    def walk(self, roots: Iterable[Path]) -> None:
        """Look into every file. A link is followed only where it was named itself: inside it could lead anywhere."""
        for number, (path, is_named) in enumerate(self._files(roots)):
            if number % _OFTEN == 0:
                self.tell(f"{number:,} files", number, 0)
            self._look(path, follow=is_named)

    def _files(self, roots: Iterable[Path]) -> Iterator[tuple[str, bool]]:
        """Every file, in a fixed order, and whether it was named itself."""
        for root in roots:
            if not root.is_dir():
                yield str(root), True
                continue
            for folder, folders, names in os.walk(root, onerror=self._closed):
                folders[:] = sorted(name for name in folders if name != ".git")
                yield from ((os.path.join(folder, name), False) for name in sorted(names))  # noqa: PTH118 - as below

    def _closed(self, _error: OSError) -> None:
        self.tally.unreadable += 1

    def _look(self, path: str, *, follow: bool) -> None:
        try:
            about = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - paths of a walk are texts
            if stat.S_ISLNK(about.st_mode):
                self.tally.links += 1
            elif stat.S_ISREG(about.st_mode) and about.st_size > _LARGEST:
                self.tally.too_large += 1
            elif stat.S_ISREG(about.st_mode):
                self._read(path)
        except OSError:
            self.tally.unreadable += 1

    def _read(self, path: str) -> None:
        with open(path, "rb") as file:  # noqa: PTH123 - paths of a walk are texts, there may be a million
            text = text_of(file.read(_LARGEST))
        if text is None:
            self.tally.binary += 1
            return
        self.tally.scanned += 1
        self.places += [_Place(_shown_path(path), found) for found in self.scanner.find(text)]


@app.command()
def scan(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", exists=True, help="Files, or folders with all in them.")
    ],
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not look up in the database whether a found key is known.")
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Look for credentials in files: path, line and preview of each, never the secret. Exit code 1 when one is found.

    Left out are `.git`, links, binary files and those over 5 MB. A provider's key is told by its shape, which only
    some have; ours have a checksum and are never mistaken.
    """
    settings = quiet(Settings.load(None, data_dir=data_dir))
    shelf = catalog.load(more=settings.catalog_file)
    with progress.bar(hidden=json) as tell:
        work = _Scan(Scanner(ours(), shelf.providers.values()), tell)
        work.walk(paths)
    secrets = {place.found.secret for place in work.places if place.is_ours}
    holders = None if offline or not secrets else _look_up(settings, secrets)
    if json:
        show.print_json(_described(work, holders))
    else:
        _print(work, holders)
    if work.places:
        raise typer.Exit(1)


def ours() -> Ours:
    """How our own credentials are found."""
    return Ours(_OURS, _judge)


def _judge(text: str) -> Known | None:
    """What is ours by its checksum; of a triple that is none, the parts are looked at by themselves."""
    parsed = credential.parse(text)
    if parsed is None and ":" in text:
        return next((known for part in text.split(":")[1:] if (known := _judge(part))), None)
    return Known(_KINDS[parsed.kind], credential.preview(text)) if parsed else None


def _shown_path(path: str) -> str:
    """A path that can be printed, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# ---- what is known here -----------------------------------------------------------------------------------------


def _look_up(settings: Settings, secrets: set[Secret]) -> dict[Secret, _Holder] | None:
    """Whose they are, by the database at hand; None where there is none that opens."""
    try:
        if not asyncio.run(has_instance(settings)):  # to look must not make an instance
            show.warn("There is no database here: whether a key is known is not said.")
            return None
        return at_desk(Where(settings.data_dir), lambda desk: _find_holders(desk, secrets))
    except (CannotStart, Refusal) as refused:
        message = refused.message if isinstance(refused, Refusal) else str(refused)
        show.warn(f"Whether a key is known is not said: {message}")
        return None


async def _find_holders(desk: Desk, secrets: set[Secret]) -> dict[Secret, _Holder]:
    pepper = desk.ground.seal.pepper
    wanted = {credential.digest(pepper, secret.reveal()): secret for secret in secrets}
    async with desk.ground.database.read() as tx:
        known = await _holders_by_digest(tx, desk.at)
    return {secret: known[digest] for digest, secret in wanted.items() if digest in known}


async def _holders_by_digest(tx: Transaction, at: int) -> dict[bytes, _Holder]:
    keys = {key.id: key for key in await store.list_all_agent_keys(tx)}
    holders: dict[bytes, _Holder] = {}
    for secret in await store.list_all_secrets(tx):
        key = keys.get(secret.agent_key_id)
        if key is not None:
            is_over = secret.expires_at is not None and secret.expires_at <= at
            status = "rotated away" if is_over else key.shown_status(at)
            holders[secret.digest] = _Holder(key.name, status, key.organization_id)
    for client in await store.list_all_client_credentials(tx):
        status = "active" if client.revoked_at is None else "revoked"
        holders[client.digest] = _Holder(client.name, status, client.organization_id)
    return holders


# ---- what is said -----------------------------------------------------------------------------------------------


def _described(work: _Scan, holders: dict[Secret, _Holder] | None) -> dict[str, Any]:
    tally = work.tally
    return {
        "found": [_described_place(place, holders) for place in work.places],
        "scanned": tally.scanned,
        "skipped": {name: getattr(tally, name) for name in ("too_large", "binary", "links", "unreadable")},
    }


def _described_place(place: _Place, holders: dict[Secret, _Holder] | None) -> dict[str, Any]:
    found, holder = place.found, (holders or {}).get(place.found.secret)
    return {
        "path": place.path,
        "line": found.line,
        "kind": found.kind,
        "preview": found.preview,
        "providers": list(found.providers),
        "known": None if holders is None or not place.is_ours else holder is not None,
        "name": holder.name if holder else None,
        "status": holder.status if holder else None,
        "organization_id": holder.organization_id if holder else None,
    }


def _print(work: _Scan, holders: dict[Secret, _Holder] | None) -> None:
    for place in work.places:
        found = place.found
        whose = f" of {' or '.join(found.providers)}" if found.providers else ""
        show.say(f"{place.path}:{found.line}: {found.kind}{whose} {found.preview}{_standing(place, holders)}")
    tally = work.tally
    left = ", ".join(
        f"{count:,} {what}"
        for count, what in (
            (tally.too_large, "over 5 MB"),
            (tally.binary, "binary"),
            (tally.links, "links"),
            (tally.unreadable, "not readable"),
        )
        if count
    )
    show.say(f"{tally.scanned:,} files, {len(work.places):,} credentials.{f' Left out: {left}.' if left else ''}")
    if work.places:
        show.say("Whoever can read these files can use them: rotate or revoke each, then remove it.")


def _standing(place: _Place, holders: dict[Secret, _Holder] | None) -> str:
    """What is known of a credential of ours; a part of one is never looked up alone."""
    if holders is None or not place.is_ours:
        return ""
    holder = holders.get(place.found.secret)
    return f", {holder.name!r} here, {holder.status}" if holder else f", {_UNKNOWN}"
