"""The sealers that a gateway holds, made anew when data keys change."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.logs import get
from ostiary.vault.contents import Sealer, sealer_for
from ostiary.vault.seal import Seal


async def renew(
    database: Database, seal: Seal, sealers: dict[str, Sealer], organization_ids: Iterable[str], at: int
) -> None:
    """Give each of these organizations a sealer with its newest data key, in the place of the one it has.

    One whose data key does not open has none from then on: nothing of it is captured, and everybody else goes on.
    """
    for one in list(organization_ids):
        try:
            async with database.transaction() as tx:
                sealer = await sealer_for(tx, seal, one, at)
            sealers[one] = sealer  # not before its data key is there for good
        except Refusal as refusal:
            if refusal.code == "service_unavailable":
                raise
            sealers.pop(one, None)
            get("vault").error("data_key.undecryptable", organization=one, reason=refusal.code)
