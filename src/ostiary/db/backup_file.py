"""The file of a backup: a whole SQLite database, and behind it what it is, with a digest of it all."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec

from ostiary.errors import CannotStart

Progress = Callable[[str, int, int], None]
"""Told of long work as it goes on: what is being done, how much of it is done, and of how much."""

_FORMAT: Final = 1
_MAGIC: Final = b"OSTIARY-BACKUP-1"
_LENGTH_BYTES: Final = 8
_FOOT_BYTES: Final = len(_MAGIC) + _LENGTH_BYTES
_LONGEST: Final = 1_000_000
_PIECE: Final = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself. The master keys are named, as `mk_` and a digest, and not in it."""

    format: int = _FORMAT
    made_at: int
    version: str
    schema: str
    database: str
    """What it was copied from: `sqlite` or `postgresql`."""
    rows: dict[str, int]
    master_keys: tuple[str, ...]
    size: int = 0
    """Of the database in it, in bytes."""
    sha256: str = ""
    signature: str = ""
    """By a secret that is itself sealed in the database: who lacks the master key cannot alter a backup unseen."""


def is_signed(manifest: Manifest, secret: str) -> bool:
    """Whether this very manifest, and so this very database, was signed with the secret."""
    return hmac.compare_digest(_sign(manifest, secret), manifest.signature)


def finish(path: Path, manifest: Manifest, secret: str, progress: Progress) -> Manifest:
    """Turn a database nobody has open into a backup: the manifest, complete and signed, goes behind it."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        digest = _digest(file, size, None, "sealing", progress)
        whole = msgspec.structs.replace(manifest, size=size, sha256=digest)
        whole = msgspec.structs.replace(whole, signature=_sign(whole, secret))
        text = msgspec.json.encode(whole)
        file.seek(size)
        file.write(text + len(text).to_bytes(_LENGTH_BYTES) + _MAGIC)
        file.flush()
        os.fsync(file.fileno())
    return whole


def read_manifest(path: Path) -> Manifest:
    """What a file says of itself; raises CannotStart for one that is no backup, or not all of one."""
    try:
        with path.open("rb") as file:
            text, at = _read_tail(file)
    except OSError as error:
        raise CannotStart(f"{path} cannot be read: {error.strerror}.") from None
    if text is None:
        raise CannotStart(
            f"{path} is not a backup of Ostiary, or only the beginning of one. Nothing was changed; take another copy."
        )
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError:
        manifest = None
    if manifest is None or manifest.size != at:
        raise _damaged(path)
    if manifest.format != _FORMAT:
        raise CannotStart(f"{path} was made by a newer Ostiary ({manifest.version}). Upgrade; nothing was changed.")
    return manifest


def extract(path: Path, manifest: Manifest, target: Path, progress: Progress) -> None:
    """Copy the database out of a backup to a new file of our own; raises CannotStart when it is damaged."""
    target.touch(0o600, exist_ok=False)
    with path.open("rb") as file, target.open("wb") as copy:
        if _digest(file, manifest.size, copy, "reading", progress) != manifest.sha256:
            raise _damaged(path)


def _read_tail(file: IO[bytes]) -> tuple[bytes | None, int]:
    """The manifest's text and where it begins, which is where the database ends; None where there is none."""
    end = file.seek(0, os.SEEK_END)
    if end < _FOOT_BYTES:
        return None, 0
    file.seek(end - _FOOT_BYTES)
    length, magic = int.from_bytes(file.read(_LENGTH_BYTES)), file.read()
    at = end - _FOOT_BYTES - length
    if magic != _MAGIC or length > _LONGEST or at < 0:
        return None, 0
    file.seek(at)
    return file.read(length), at


def _digest(file: IO[bytes], size: int, copy: IO[bytes] | None, what: str, progress: Progress) -> str:
    digest = hashlib.sha256()
    done = 0
    file.seek(0)
    while done < size:
        piece = file.read(min(_PIECE, size - done))
        if not piece:
            break
        digest.update(piece)
        if copy is not None:
            copy.write(piece)
        done += len(piece)
        progress(what, done, size)
    return digest.hexdigest()


def _sign(manifest: Manifest, secret: str) -> str:
    bare = msgspec.json.encode(msgspec.structs.replace(manifest, signature=""), order="deterministic")
    return hmac.new(secret.encode(), b"ostiary backup\0" + bare, hashlib.sha256).hexdigest()


def _damaged(path: Path) -> CannotStart:
    return CannotStart(f"{path} is damaged: its digest is not that of what is in it. Nothing was changed.")
