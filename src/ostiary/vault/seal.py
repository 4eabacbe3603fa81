"""Seals credentials, each under a key of its own that is bound to its place; the only importer of Fernet."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostiary.db.database import Database, Transaction
from ostiary.errors import CannotStart, Refusal
from ostiary.logs import get
from ostiary.secret import Secret
from ostiary.vault import seal_store, store
from ostiary.vault.seal_store import OWN, DataKey

_KEY_BYTES: Final = 32
_KEY_SHAPE: Final = re.compile(r"[0-9A-Za-z_-]{43}=")
HOW: Final = "It is 32 random bytes in URL-safe base64; 'openssl rand -base64 32 | tr +/ -_' makes one."
"""Said where something is no master key."""

HELD: Final = "keys:"
"""Before the id of a gateway, in the instance's values: the names of the master keys that it has."""
RETIRED: Final = "retired_master_keys"
"""In the instance's values: the names of master keys that were rotated away, and wrap nothing any more."""
_CANARY: Final = "canary"
_CANARY_TEXT: Final = "The master key opens this database."
_PEPPER: Final = "pepper"
_LENGTH_BYTES: Final = 4
_NAME_DIGITS: Final = 12

_WRONG_KEY: Final = (
    "The master key does not open this database; nothing was changed. Give the key that sealed it by "
    "OSTIARY_MASTER_KEY or OSTIARY_MASTER_KEY_FILE (old and new keys separated by a comma, the newest first)."
)
_LOST: Final = (
    "The vault is sealed: this process has no master key that opens it any more. Give it the one in use by "
    "OSTIARY_MASTER_KEY_FILE, or restart it with the one in use."
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

    __slots__ = ("__again", "__fernets")

    def __init__(
        self,
        keys: Sequence[bytes],
        names: Sequence[str] | None = None,
        again: Callable[[], MasterKeys | None] = lambda: None,
    ) -> None:
        """`again` reads anew from where these keys came; None where they can come from nowhere else."""
        texts = [base64.urlsafe_b64encode(key) for key in keys]
        named = names or [name_of(text.decode()) for text in texts]
        self.__fernets = {name: Fernet(text) for name, text in zip(named, texts, strict=True)}
        self.__again = again

    @classmethod
    def parse(cls, list_text: Secret, again: Callable[[], MasterKeys | None] = lambda: None) -> MasterKeys:
        """Read keys separated by commas or line ends, newest first; raises CannotStart, and never quotes them."""
        texts = split(list_text)
        if not texts:
            raise CannotStart(f"The master key is empty. {HOW}")
        for number, text in enumerate(texts, 1):
            if not _KEY_SHAPE.fullmatch(text):
                raise CannotStart(f"Master key {number} of {len(texts)} is too short or malformed. {HOW}")
        return cls([base64.urlsafe_b64decode(text) for text in texts], [name_of(text) for text in texts], again)

    @property
    def names(self) -> tuple[str, ...]:
        """What the keys are called, in their order."""
        return tuple(self.__fernets)

    def again(self) -> MasterKeys | None:
        """The keys as they are now where these came from."""
        return self.__again()

    def only(self, name: str) -> MasterKeys:
        """One of them, alone."""
        made = MasterKeys([])
        made.__fernets = {name: self.__fernets[name]}
        return made

    def wrap(self, organization_id: str, version: int, data_key: bytes, name: str | None = None) -> str:
        """Seal a data key for its row, by the first key or by the one of that name."""
        fernet = self.__fernets[name or self.names[0]]
        return fernet.encrypt(_joined(organization_id, str(version)) + data_key).decode()

    def unwrap(self, organization_id: str, version: int, wrapped: str) -> bytes:
        """The data key; raises Undecryptable with the wrong master key, or for the wrapping of another row."""
        bound = _joined(organization_id, str(version))
        try:
            opened = MultiFernet(list(self.__fernets.values())).decrypt(wrapped.encode())
        except InvalidToken:
            raise Undecryptable from None
        if not opened.startswith(bound) or len(opened) != len(bound) + _KEY_BYTES:
            raise Undecryptable
        return opened[len(bound) :]

    def rewrap(self, wrapped: str, name: str) -> str | None:
        """The same under the key of that name, what it is bound to included; None where none of the keys opens it."""
        for known in (name, *self.names):
            try:
                opened = self.__fernets[known].decrypt(wrapped.encode())
            except InvalidToken:
                continue
            return wrapped if known == name else self.__fernets[name].encrypt(opened).decode()
        return None


class Seal:
    """Seals and opens secrets in their places.

    Data keys are read anew each time: one made in a transaction that was rolled back is never used.
    """

    def __init__(self, master: MasterKeys) -> None:
        self._master = master
        self._pepper: Secret | None = None
        self._owner: str | None = None
        self._refused = ""

    @property
    def master(self) -> MasterKeys:
        """The master keys in hand."""
        return self._master

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
        version = await seal_store.lock_newest_version(tx, organization_id)
        if version is None:
            [key] = await self.new_data_keys(tx, {organization_id: 1})
            await store.add_data_key(tx, organization_id, 1, key.wrapped, at)
            # Another process may have been first, and it is its key that must not be removed meanwhile.
            version = await seal_store.lock_newest_version(tx, organization_id) or 1
        return version

    async def new_data_keys(self, tx: Transaction, versions: Mapping[str, int]) -> list[DataKey]:
        """Fresh data keys of these organizations, wrapped by the master key that wraps now; nothing is stored yet.

        Refuses with `sealed` where this process has no such key. Until the transaction ends, none is rotated away.
        """
        name = await self._wrapping(tx)
        return [
            DataKey(one, version, self._master.wrap(one, version, os.urandom(_KEY_BYTES), name))
            for one, version in versions.items()
        ]

    async def seal(self, tx: Transaction, place: Place, secret: Secret) -> str:
        """The secret as it may be stored; raises Undecryptable where the data key is missing or does not open."""
        return seal_record(await self.data_key(tx, place.organization_id, place.version), place, secret)

    async def open(self, tx: Transaction, place: Place, text: str) -> Secret:
        """What was sealed in this very place; raises Undecryptable for anything else."""
        return open_record(await self.data_key(tx, place.organization_id, place.version), place, text)

    async def data_key(self, tx: Transaction, organization_id: str, version: int) -> bytes:
        """A data key itself, for who seals too often to ask each time; raises Undecryptable where it does not open."""
        wrapped = await store.find_data_key(tx, organization_id, version)
        if wrapped is None:
            raise Undecryptable
        try:
            return self._master.unwrap(organization_id, version, wrapped)
        except Undecryptable:
            await self._require_open(tx)  # it may have passed to a master key that we do not have yet
        return self._master.unwrap(organization_id, version, wrapped)

    async def renew_instance(self, tx: Transaction, version: int, at: int) -> None:
        """Give the instance's own data key this version, unless it has it, and seal anew what stood under the old."""
        old = await seal_store.lock_own_key(tx, to_change=True)
        if old is None or old.version >= version:
            return
        [new] = await self.new_data_keys(tx, {OWN: version})
        await seal_store.add_data_keys(tx, [new], at)
        for name in (_CANARY, _PEPPER):
            text = await self.open(tx, _own_place(name, old.version), await store.find_instance(tx, name) or "")
            await seal_store.set_value(tx, name, await self.seal(tx, _own_place(name, version), text))
        await seal_store.remove_data_key(tx, OWN, old.version)

    # ---- other master keys while running ------------------------------------------------------------------------

    async def announce(self, tx: Transaction, owner: str) -> None:
        """Say which master keys this gateway has, now and whenever it learns of others.

        Raises CannotStart where a rotation has passed it by while it started.
        """
        self._owner = owner
        own = await seal_store.lock_own_key(tx)
        if own is not None and not self._opens(own):
            raise CannotStart(_WRONG_KEY)
        await seal_store.remove_values_of_gone(tx, HELD)
        await seal_store.set_value(tx, HELD + owner, json.dumps(self._master.names))

    async def learn(self, database: Database) -> None:
        """Read the master keys again from where they came, and announce what is known then."""
        async with database.read() as tx:
            await self._read_again(tx)
        if self._owner is not None:
            async with database.transaction() as tx:
                await seal_store.set_value(tx, HELD + self._owner, json.dumps(self._master.names))

    async def _read_again(self, tx: Transaction) -> bool:
        """Whether other keys were found that open this database; what opens it now is not given up for less."""
        try:
            found = await asyncio.to_thread(self._master.again)
        except CannotStart as error:
            self._say_refused(str(error))
            return False
        if found is None or found.names == self._master.names:
            return False
        own = await seal_store.find_own_key(tx)
        if own is not None and found.rewrap(own.wrapped, found.names[0]) is None:
            self._say_refused(f"{', '.join(found.names)} does not open this database")
            return False
        self._master, self._refused = found, ""
        get("vault").info("master_key.read", keys=found.names)
        return True

    def _say_refused(self, reason: str) -> None:
        if reason != self._refused:
            get("vault").error("master_key.refused", reason=reason)
        self._refused = reason

    async def _require_open(self, tx: Transaction) -> None:
        """Refuse with `sealed` where no key in hand opens the instance's own data key, however often it is read."""
        await self._read_again(tx)
        own = await seal_store.find_own_key(tx)
        if own is not None and not self._opens(own):
            raise Refusal("sealed", _LOST)

    def _opens(self, key: DataKey) -> bool:
        return self._master.rewrap(key.wrapped, self._master.names[0]) is not None

    async def _wrapping(self, tx: Transaction) -> str:
        """The first key, unless it was rotated away, or a live gateway does not have it yet."""
        own = await seal_store.lock_own_key(tx)
        if own is None:
            return self._master.names[0]
        if not self._opens(own):
            await self._require_open(tx)
        retired = json.loads(await seal_store.find_value(tx, RETIRED) or "[]")
        usable = [name for name in self._master.names if name not in retired]
        if not usable:
            raise Refusal("sealed", _LOST)
        held = [json.loads(names) for names in (await seal_store.find_values(tx, HELD)).values()]
        return next((name for name in usable if all(name in names for names in held)), usable[0])

    async def _claim_instance(self, tx: Transaction, at: int) -> None:
        try:
            version = await self.newest_version(tx, OWN, at)
        except Refusal as refusal:
            if refusal.code != "sealed":
                raise
            raise CannotStart(_WRONG_KEY) from None  # another process was first, with another key
        pepper = base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode()
        for name, text in ((_CANARY, _CANARY_TEXT), (_PEPPER, pepper)):
            try:
                sealed = await self.seal(tx, _own_place(name, version), Secret(text))
            except Refusal:
                raise CannotStart(_WRONG_KEY) from None
            await store.add_instance(tx, name, sealed)

    async def _prove_instance(self, tx: Transaction) -> Secret:
        version = await store.find_newest_version(tx, OWN)
        canary = await store.find_instance(tx, _CANARY)
        pepper = await store.find_instance(tx, _PEPPER)
        if version is None or canary is None or pepper is None:
            raise CannotStart(_NO_PROOF)
        try:
            proof = await self.open(tx, _own_place(_CANARY, version), canary)
            opened = await self.open(tx, _own_place(_PEPPER, version), pepper)
        except Refusal:
            if await store.find_newest_version(tx, OWN) not in (None, version):
                return await self._prove_instance(tx)  # it was renewed between two looks
            raise CannotStart(_WRONG_KEY) from None
        if proof.reveal() != _CANARY_TEXT:
            raise CannotStart(_WRONG_KEY)
        return opened


def record_key(data_key: bytes, place: Place) -> Fernet:
    """The key of one place only. Plain Fernet has no associated data, so the place is in the key."""
    derived = HKDF(SHA256(), _KEY_BYTES, salt=None, info=place.info()).derive(data_key)
    return Fernet(base64.urlsafe_b64encode(derived))


def seal_record(data_key: bytes, place: Place, secret: Secret) -> str:
    """The secret as it may be stored in this place."""
    return record_key(data_key, place).encrypt(secret.reveal().encode()).decode()


def open_record(data_key: bytes, place: Place, text: str) -> Secret:
    """What was sealed in this very place; raises Undecryptable for anything else."""
    try:
        return Secret(record_key(data_key, place).decrypt(text.encode()).decode())
    except (InvalidToken, UnicodeError):
        raise Undecryptable from None


def split(list_text: Secret) -> list[str]:
    """The texts of a list of master keys."""
    return [text for text in re.split(r"[,\s]+", list_text.reveal()) if text]


def name_of(text: str) -> str:
    """What a master key is called: `mk_` and some digits of a keyed digest of its 256 random bits."""
    return "mk_" + hmac.new(text.encode(), b"the name of a master key", hashlib.sha256).hexdigest()[:_NAME_DIGITS]


def _own_place(name: str, version: int) -> Place:
    return Place(OWN, "instance", name, "value", version, "")


def _joined(*parts: str) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(_LENGTH_BYTES) + part for part in encoded)
