"""Seals credentials, each under a key of its own that is bound to its place; the only importer of Fernet."""

from __future__ import annotations

import base64
import os
import re
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostiary.db.database import Database, Transaction
from ostiary.errors import CannotStart, Refusal
from ostiary.secret import Secret
from ostiary.vault import store

_KEY_BYTES: Final = 32
_KEY_SHAPE: Final = re.compile(r"[0-9A-Za-z_-]{43}=")
_LONGEST_FILE: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_HOW: Final = "It is 32 random bytes in URL-safe base64; 'openssl rand -base64 32 | tr +/ -_' makes one."

_INSTANCE: Final = "-"
"""The organization id under which the instance's own data key stands; no organization is called so."""
_CANARY: Final = "canary"
_CANARY_TEXT: Final = "The master key opens this database."
_PEPPER: Final = "pepper"
_LENGTH_BYTES: Final = 4

_WRONG_KEY: Final = (
    "The master key does not open this database; nothing was changed. Give the key that sealed it by "
    "OSTIARY_MASTER_KEY or OSTIARY_MASTER_KEY_FILE (old and new keys separated by a comma, the newest first)."
)
_NO_PROOF: Final = (
    "The database holds sealed credentials, but the rows that prove the master key are missing; nothing was changed. "
    "Restore a backup of the whole database."
)


class Undecryptable(Refusal):
    """A ciphertext that does not open in its place: moved, altered, or its data key is gone. Others still open."""

    def __init__(self) -> None:
        super().__init__(
            "no_usable_key",
            "A stored credential does not open: it was changed outside Ostiary, or its data key is missing. "
            "Enter it again with 'ostiary vault edit', or restore a backup.",
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret lives. One that is moved to another place, in any of these, does not open there."""

    organization_id: str
    table: str
    row: str
    field: str
    version: int
    """The version of the organization's data key that seals it."""
    origin: str
    """The origin the secret may be sent to; empty where it is sent nowhere."""

    def info(self) -> bytes:
        """The place as bytes; each part says its own length, so that no two places read alike."""
        return _joined(*(str(getattr(self, field.name)) for field in fields(self)))


class MasterKeys:
    """The keys that wrap data keys: the first wraps, each opens. They are never stored."""

    __slots__ = ("__fernet",)

    def __init__(self, keys: list[bytes]) -> None:
        self.__fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])

    @classmethod
    def parse(cls, list_text: Secret) -> MasterKeys:
        """Read keys separated by commas or line ends, newest first; raises CannotStart, and never quotes them."""
        texts = [text for text in re.split(r"[,\s]+", list_text.reveal()) if text]
        if not texts:
            raise CannotStart(f"The master key is empty. {_HOW}")
        for number, text in enumerate(texts, 1):
            if not _KEY_SHAPE.fullmatch(text):
                raise CannotStart(f"Master key {number} of {len(texts)} is too short or malformed. {_HOW}")
        return cls([base64.urlsafe_b64decode(text) for text in texts])

    def wrap(self, organization_id: str, version: int, data_key: bytes) -> str:
        """Seal a data key for its row."""
        return self.__fernet.encrypt(_joined(organization_id, str(version)) + data_key).decode()

    def unwrap(self, organization_id: str, version: int, wrapped: str) -> bytes:
        """The data key; raises Undecryptable with the wrong master key, or for the wrapping of another row."""
        bound = _joined(organization_id, str(version))
        try:
            opened = self.__fernet.decrypt(wrapped.encode())
        except InvalidToken:
            raise Undecryptable from None
        if not opened.startswith(bound) or len(opened) != len(bound) + _KEY_BYTES:
            raise Undecryptable
        return opened[len(bound) :]


class Seal:
    """Seals and opens secrets in their places.

    Data keys are read anew each time: one made in a transaction that was rolled back is never used.
    """

    def __init__(self, master: MasterKeys) -> None:
        self._master = master
        self._pepper: Secret | None = None

    @property
    def pepper(self) -> Secret:
        """What credentials of callers are digested with; known once `open_instance` has passed."""
        if self._pepper is None:
            raise RuntimeError("open_instance comes first")
        return self._pepper

    async def open_instance(self, database: Database, at: int) -> None:
        """Prove that the master key is this database's, or make an empty database ours.

        Raises CannotStart, having changed nothing, when it is the wrong key or the proof is missing or spoilt.
        """
        async with database.read() as tx:
            is_new = await store.is_unsealed(tx, (_CANARY, _PEPPER))
        if is_new:
            # Two processes may both come here: the rows of the first stand, the second is checked against them.
            async with database.transaction() as tx:
                await self._claim_instance(tx, at)
        async with database.read() as tx:
            self._pepper = await self._prove_instance(tx)

    async def newest_version(self, tx: Transaction, organization_id: str, at: int) -> int:
        """The version of the data key to seal with now; makes the organization's first one."""
        version = await store.find_newest_version(tx, organization_id)
        if version is None:
            version = 1
            wrapped = self._master.wrap(organization_id, version, os.urandom(_KEY_BYTES))
            await store.add_data_key(tx, organization_id, version, wrapped, at)
        return version

    async def seal(self, tx: Transaction, place: Place, secret: Secret) -> str:
        """The secret as it may be stored; raises Undecryptable where the data key is missing or does not open."""
        return (await self._key_of(tx, place)).encrypt(secret.reveal().encode()).decode()

    async def open(self, tx: Transaction, place: Place, text: str) -> Secret:
        """What was sealed in this very place; raises Undecryptable for anything else."""
        fernet = await self._key_of(tx, place)
        try:
            return Secret(fernet.decrypt(text.encode()).decode())
        except (InvalidToken, UnicodeError):
            raise Undecryptable from None

    async def data_key(self, tx: Transaction, organization_id: str, version: int) -> bytes:
        """A data key itself, for who seals too often to ask each time; raises Undecryptable where it does not open."""
        wrapped = await store.find_data_key(tx, organization_id, version)
        if wrapped is None:
            raise Undecryptable
        return self._master.unwrap(organization_id, version, wrapped)

    async def _key_of(self, tx: Transaction, place: Place) -> Fernet:
        return record_key(await self.data_key(tx, place.organization_id, place.version), place)

    async def _claim_instance(self, tx: Transaction, at: int) -> None:
        version = await self.newest_version(tx, _INSTANCE, at)
        pepper = base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode()
        for name, text in ((_CANARY, _CANARY_TEXT), (_PEPPER, pepper)):
            try:
                sealed = await self.seal(tx, _own_place(name, version), Secret(text))
            except Undecryptable:
                raise CannotStart(_WRONG_KEY) from None
            await store.add_instance(tx, name, sealed)

    async def _prove_instance(self, tx: Transaction) -> Secret:
        version = await store.find_newest_version(tx, _INSTANCE)
        canary = await store.find_instance(tx, _CANARY)
        pepper = await store.find_instance(tx, _PEPPER)
        if version is None or canary is None or pepper is None:
            raise CannotStart(_NO_PROOF)
        try:
            proof = await self.open(tx, _own_place(_CANARY, version), canary)
            opened = await self.open(tx, _own_place(_PEPPER, version), pepper)
        except Undecryptable:
            raise CannotStart(_WRONG_KEY) from None
        if proof.reveal() != _CANARY_TEXT:
            raise CannotStart(_WRONG_KEY)
        return opened


def record_key(data_key: bytes, place: Place) -> Fernet:
    """The key of one place only. Plain Fernet has no associated data, so the place is in the key."""
    derived = HKDF(SHA256(), _KEY_BYTES, salt=None, info=place.info()).derive(data_key)
    return Fernet(base64.urlsafe_b64encode(derived))


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
        raise CannotStart(f"The master key file {path} holds no master key. {_HOW}")
    return Secret(text.decode())


def make_key_file(path: Path) -> Secret:
    """Write a new master key, readable by its owner only; raises CannotStart where there is a file already."""
    key = base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        raise CannotStart(f"The master key file {path} cannot be made: {error.strerror}.") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would look like a lost one at the next start
        raise CannotStart(f"The master key file {path} cannot be written: {error.strerror}.") from None
    return Secret(key)


def _own_place(name: str, version: int) -> Place:
    return Place(_INSTANCE, "instance", name, "value", version, "")


def _joined(*parts: str) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(_LENGTH_BYTES) + part for part in encoded)
