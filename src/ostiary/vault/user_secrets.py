"""Seals what belongs to a user and to no organization, such as the secret of a second factor."""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.db.database import Transaction
from ostiary.secret import Secret
from ostiary.vault.seal import Place, Seal
from ostiary.vault.seal_store import USERS


@dataclass(frozen=True, slots=True)
class UserSecrets:
    """Under a data key of their own, which `ostiary vault rekey` and the rotation of the master key reach with others.

    What the rooms of people ask for as `orgs.second_factor.Sealing`: the two rooms do not know each other.
    """

    seals: Seal

    async def seal(self, tx: Transaction, user_id: str, secret: Secret, at: int) -> tuple[str, int]:
        """The secret as it may be stored for this user, and the version of the data key it is sealed under."""
        version = await self.seals.newest_version(tx, USERS, at)
        return await self.seals.seal(tx, _place(user_id, version), secret), version

    async def open(self, tx: Transaction, user_id: str, sealed: str, version: int) -> Secret:
        """What was sealed for this user; raises Undecryptable for anything else."""
        return await self.seals.open(tx, _place(user_id, version), sealed)


def _place(user_id: str, version: int) -> Place:
    return Place(USERS, "second_factors", user_id, "sealed", version, "")
