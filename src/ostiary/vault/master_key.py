"""Where the master keys come from: a setting, or the file that the embedded default makes at its first start."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from ostiary.db.database import Database
from ostiary.errors import CannotStart
from ostiary.logs import get
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault.seal import MasterKeys, make_key_file, read_key_file

_KEY_FILE: Final = "master.key"


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
    if settings.master_key is not None or not settings.is_embedded or path.exists():
        return MasterKeys.parse(given(settings))
    if database.path is not None and database.path.exists():
        raise CannotStart(
            f"The master key file {path} is missing, and without it nothing in {database.path.name} can be opened. "
            "Put it back from your backup."
        )
    key = make_key_file(path)
    with suppress(OSError):
        get("ostiary").warning("master_key.made", file=str(path), advice="Back it up: without it the vault is lost.")
    return MasterKeys.parse(key)
