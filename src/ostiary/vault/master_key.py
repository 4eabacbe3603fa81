"""Where the master keys come from: a setting, or the file that the embedded default makes at its first start."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ostiary.db.database import Database
from ostiary.db.migrate import open_lock
from ostiary.errors import CannotStart, Refusal
from ostiary.logs import get
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault.key_file import make_key_file, read_key_file, replace_key_file
from ostiary.vault.seal import MasterKeys, split

_KEY_FILE: Final = "master.key"
_LOCK: Final = "rotation.lock"


def given(settings: Settings) -> Secret:
    """The text of the operator's master keys; makes none, and raises CannotStart where there is none."""
    if settings.master_key is not None:
        return settings.master_key
    if not settings.is_embedded:
        raise CannotStart(
            "OSTIARY_MASTER_KEY or OSTIARY_MASTER_KEY_FILE must be set: with a database of your own the master key "
            "is yours to keep, and every gateway on it needs the same."
        )
    return read_key_file(settings.data_dir / _KEY_FILE)


def find_or_make(settings: Settings, database: Database) -> MasterKeys:
    """The operator's keys; only the embedded default makes one of its own, at its first start."""
    path = settings.data_dir / _KEY_FILE
    keeper = Keeper(settings)
    if settings.master_key is not None or not settings.is_embedded or path.exists():
        return MasterKeys.parse(given(settings), keeper.keys)
    if database.path is not None and database.path.exists():
        raise CannotStart(
            f"The master key file {path} is missing, and without it nothing in {database.path.name} can be opened. "
            "Put it back from your backup."
        )
    key = make_key_file(path)
    with suppress(OSError):
        get("ostiary").warning("master_key.made", file=str(path), advice="Back it up: without it the vault is lost.")
    return MasterKeys.parse(key, keeper.keys)


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where the master keys of an installation are kept, and can be read again while it runs."""

    settings: Settings

    @property
    def file(self) -> Path | None:
        """The key file that is ours to write; None where the keys come from a setting, which is the operator's."""
        is_ours = self.settings.master_key is None and self.settings.is_embedded
        return self.settings.data_dir / _KEY_FILE if is_ours else None

    def read(self) -> Secret:
        """The keys as they are kept now: the file that a setting names may have changed since the start."""
        if self.settings.master_key is None:
            return given(self.settings)
        now = Settings.load(self.settings.config, data_dir=self.settings.data_dir)
        return now.master_key or self.settings.master_key

    def keys(self) -> MasterKeys:
        """The same, ready for use; raises CannotStart when they cannot be read."""
        return MasterKeys.parse(self.read(), self.keys)

    def put_before(self, key: Secret) -> None:
        """Add a new first key to the file."""
        self._write([key, *map(Secret, split(self.read()))])

    def keep_first(self) -> None:
        """Drop all keys but the first from the file."""
        self._write([Secret(split(self.read())[0])])

    def _write(self, keys: list[Secret]) -> None:
        if self.file is None:
            raise RuntimeError("a setting is the operator's to change")
        replace_key_file(self.file, keys)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One rotation at a time in a data folder: two could each make a key, and drop the other's."""
        with open_lock(self.settings.data_dir / _LOCK) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refusal("conflict", "Keys are being rotated here already. Wait until that has ended.") from None
            yield
