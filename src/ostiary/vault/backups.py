"""Backups: the whole instance in one file, checked before it counts, and put back only where it fits."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ostiary.actor import Actor
from ostiary.clock import moment
from ostiary.db import backup_file, copying
from ostiary.db.backup_file import Manifest, Progress
from ostiary.db.copying import Found
from ostiary.db.database import Database
from ostiary.db.migrate import HEAD, migrate
from ostiary.errors import CannotStart, Refusal
from ostiary.ledger import anchors, audit, chain, gateways, operation_store
from ostiary.ledger.gateways import Gateway
from ostiary.secret import Secret
from ostiary.vault import key_names
from ostiary.vault.seal import MasterKeys, Seal

_LIVE_MS: Final = 15_000
_SECURED: Final = "The instance"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, where the old database is kept, and gateways that held money when the backup was made."""

    manifest: Manifest
    kept: Path | None
    holding: tuple[Gateway, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is, or shall be: its database, its folder, and the text of the master keys in hand."""

    database: Database
    folder: Path
    master: Secret


# ---- making -----------------------------------------------------------------------------------------------------


async def make(place: Place, by: Actor, file: Path, at: int, progress: Progress) -> Manifest:
    """Write the whole instance, as of one moment, to a new file; gateways may go on serving meanwhile.

    The file appears under its name when it is whole and has been checked, and not before.
    """
    by.require("backups.make", None)
    _require_free(file)
    with copying.said_plainly(str(file)), _workroom(file.parent, "backup") as room:
        copy = room / "copy.db"
        rows = await copying.copy_out(place.database, copy, progress)
        found = await asyncio.to_thread(copying.examine, copy, progress)
        odd = sorted(name for name, _ in rows.items() ^ found.rows.items())
        if odd:
            raise CannotStart(f"The copy of {odd[0]} is not what the database holds. Nothing was written; try again.")
        pepper = (await _prove(copy, place.master, at)).pepper.reveal()
        await asyncio.to_thread(copying.make_single, copy)
        manifest = await asyncio.to_thread(backup_file.finish, copy, _manifest(place, found, at), pepper, progress)
        await _tell(place.database, by, "backups.make", file.name, manifest, at)
        _publish(copy, file)
    return manifest


def _manifest(place: Place, found: Found, at: int) -> Manifest:
    return Manifest(
        made_at=at,
        version=version("ostiary"),
        schema=found.schema,
        database=place.database.engine.dialect.name,
        rows=dict(found.rows),
        master_keys=key_names.names_in_use(place.master, found.wrapped),
    )


def _publish(copy: Path, file: Path) -> None:
    """Give the file its name, unless somebody else has taken it meanwhile."""
    try:
        file.hardlink_to(copy)
    except FileExistsError:
        raise _exists(file) from None
    except OSError:  # a file system without hard links
        _require_free(file)
        copy.rename(file)
    copying.sync_folder(file.parent)


def _require_free(file: Path) -> None:
    if file.exists():
        raise _exists(file)


def _exists(file: Path) -> Refusal:
    return Refusal("conflict", f"{file} exists already, and is not overwritten. Give another name.", param="file")


# ---- putting back -----------------------------------------------------------------------------------------------


async def restore(place: Place, by: Actor, file: Path, at: int, progress: Progress, *, force: bool) -> Restored:
    """Put a backup in the place of what is there; with `force` only where something is, and never below a gateway.

    Everything is checked before anything is changed. Spools in the data folder stay: the next start adopts them, and
    what they settle is inserted once, whether or not the backup has it already.
    """
    by.require("backups.restore", None)
    manifest = backup_file.read_manifest(file)
    _require_fit(manifest, place.master)
    is_empty = await copying.is_empty(place.database)
    if not is_empty and not force:
        raise Refusal(
            "conflict",
            "There is an instance already; nothing was changed. --force puts the backup in its place.",
            param="force",
        )
    if not is_empty and place.database.path is None:
        await _require_no_gateway(place.database, at)
    path = place.database.path
    with copying.said_plainly(_SECURED), _workroom(path.parent if path else place.folder, "restore") as room:
        fresh = room / "fresh.db"
        await asyncio.to_thread(backup_file.extract, file, manifest, fresh, progress)
        seal = await _require_whole(fresh, file, manifest, place.master, at, progress)
        holding = await _bring_up(fresh, seal, by, file.name, manifest, at)
        if path is None:
            await copying.load(place.database, fresh, at, progress)
            anchors.set_aside(place.folder / anchors.FILE, at)
            return Restored(manifest, None, holding)
        kept = path.with_name(f"{path.name}.before-restore-{moment(at):%Y%m%dT%H%M%S}")
        await asyncio.to_thread(copying.make_single, fresh)
        await asyncio.to_thread(copying.put_in_place, fresh, path, kept)
    anchors.set_aside(place.folder / anchors.FILE, at)
    return Restored(manifest, None if is_empty else kept, holding)


def _require_fit(manifest: Manifest, master: Secret) -> None:
    if manifest.schema > HEAD:
        raise CannotStart(
            f"The backup was made by a newer Ostiary ({manifest.version}, schema {manifest.schema}; this one knows "
            f"{HEAD}). Upgrade Ostiary; nothing was changed."
        )
    in_hand = key_names.names(master)
    missing = sorted(set(manifest.master_keys) - set(in_hand))
    if missing:
        raise CannotStart(
            f"The backup needs the master key {', '.join(missing)}, and this is {', '.join(in_hand)}. Give the right "
            "one by OSTIARY_MASTER_KEY or OSTIARY_MASTER_KEY_FILE, or put its file in place; nothing was changed."
        )


async def _require_no_gateway(database: Database, at: int) -> None:
    """Several gateways may share a server, on other machines."""
    async with database.read() as tx:
        live = await operation_store.list_open_names(tx, at - _LIVE_MS)
    if live:
        raise Refusal(
            "conflict",
            f"A gateway uses this database: {', '.join(live)}. Stop it first; one that was killed counts as gone after "
            "15 seconds. Nothing was changed.",
        )


async def _require_whole(
    fresh: Path, file: Path, manifest: Manifest, master: Secret, at: int, progress: Progress
) -> Seal:
    found = await asyncio.to_thread(copying.examine, fresh, progress)
    if found.schema != manifest.schema or dict(found.rows) != manifest.rows:
        raise CannotStart(f"{file} does not hold what it says it does. Nothing was changed.")
    seal = await _prove(fresh, master, at)
    if not backup_file.is_signed(manifest, seal.pepper.reveal()):
        raise CannotStart(
            f"{file} was altered after it was made, by somebody without the master key. Nothing was changed."
        )
    return seal


async def _bring_up(fresh: Path, seal: Seal, by: Actor, name: str, manifest: Manifest, at: int) -> tuple[Gateway, ...]:
    """Bring the copy to this version's schema, and write down in it that it was restored."""
    database = copying.file_database(fresh)
    try:
        await migrate(database)
        database.chain_key = chain.key_of(seal.pepper)
        await _tell(database, by, "backups.restore", name, manifest, at)
        async with database.read() as tx:
            return tuple(one for one in await gateways.look(tx, at) if one.leased_nano)
    finally:
        await database.close()


# ---- both -------------------------------------------------------------------------------------------------------


async def _prove(copy: Path, master: Secret, at: int) -> Seal:
    """Open the canary in a copy; raises CannotStart with a master key that is not its own."""
    database = copying.file_database(copy)
    seal = Seal(MasterKeys.parse(master))
    try:
        await seal.open_instance(database, at)
    finally:
        await database.close()
    return seal


async def _tell(database: Database, by: Actor, deed: str, name: str, manifest: Manifest, at: int) -> None:
    async with database.transaction() as tx:
        await audit.write(
            tx,
            by,
            deed,
            "backup",
            manifest.sha256[:16],
            name,
            organization_id=None,
            after={"made_at": manifest.made_at, "sha256": manifest.sha256, "rows": sum(manifest.rows.values())},
            at=at,
        )


@contextmanager
def _workroom(beside: Path, what: str) -> Iterator[Path]:
    """A folder for half-made files, for nobody else's eyes, on the same disk as what they become."""
    if not beside.is_dir():
        raise CannotStart(f"There is no folder {beside}.")
    room = Path(tempfile.mkdtemp(prefix=f".ostiary-{what}-", dir=beside))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
