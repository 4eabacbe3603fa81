"""The file that holds master keys: made, read and replaced as a whole, and its owner's only."""

from __future__ import annotations

import base64
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from ostiary.errors import CannotStart
from ostiary.secret import Secret
from ostiary.vault.seal import HOW

_KEY_BYTES: Final = 32
_LONGEST_FILE: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OWNERS: Final = stat.S_IRUSR | stat.S_IWUSR


def new_key() -> Secret:
    """A new master key, as a line of text."""
    return Secret(base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode())


def read_key_file(path: Path) -> Secret:
    """The text of a master key file; raises CannotStart when it is missing, no file, or others may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CannotStart(f"The master key file {path} cannot be read: {error.strerror}.") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise CannotStart(f"The master key file {path} is not a file.")
        if mode & _OTHERS:
            raise CannotStart(f"Others than its owner may read the master key file {path}. Run: chmod 600 '{path}'")
        text = os.read(descriptor, _LONGEST_FILE + 1)
    finally:
        os.close(descriptor)
    if len(text) > _LONGEST_FILE or not text.isascii():
        raise CannotStart(f"The master key file {path} holds no master key. {HOW}")
    return Secret(text.decode())


def make_key_file(path: Path) -> Secret:
    """Write a new master key, readable by its owner only; raises CannotStart where there is a file already."""
    key = new_key()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNERS)
    except OSError as error:
        raise CannotStart(f"The master key file {path} cannot be made: {error.strerror}.") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{key.reveal()}\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would look like a lost one at the next start
        raise CannotStart(f"The master key file {path} cannot be written: {error.strerror}.") from None
    return key


def replace_key_file(path: Path, keys: list[Secret]) -> None:
    """Put other keys in the place of those in the file: whoever reads it finds the old ones or the new, and no mix.

    It has reached the disk when this returns. Raises CannotStart where it cannot be written; then it is as it was.
    """
    path = path.resolve()  # a link stays one
    fresh = path.with_name(f".{path.name}.new")
    try:
        before = path.stat()
        fresh.unlink(missing_ok=True)  # of somebody who was killed
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNERS)
        with os.fdopen(descriptor, "w") as file:
            if before.st_uid != os.geteuid():
                os.fchown(descriptor, before.st_uid, before.st_gid)  # root replaces it for whoever serves
            file.write("".join(f"{key.reveal()}\n" for key in keys))
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise CannotStart(f"The master key file {path} cannot be replaced: {error.strerror}.") from None
