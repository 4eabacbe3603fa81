"""The master key, for the operator: which keys are in use, what is under each, and going over to another."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import CannotStart, Refusal
from ostiary.logs import get
from ostiary.vault import custody, rotation
from ostiary.vault.master_key import Keeper
from ostiary.vault.rotation import Rotated, Vault

_WAIT_S: Final = 20
"""Longer than gateways are waited for. A rotation that takes longer goes on by itself, and the page shows how far."""
_TRIES: Final = 20
_PAUSE_S: Final = 0.1


async def show(visit: Visit) -> Answer:
    """As it is; asked again every second while the page is looked at, so it is the progress of a rotation, too."""
    async with visit.reading() as tx:
        found = await custody.look(tx, visit.by, visit.hall.seal, visit.at)
    return visit.page(
        "operator/master_key_state.html" if visit.is_partial else "operator/master_key.html",
        custody=found,
        **_asked(visit),
    )


def _asked(visit: Visit) -> dict[str, Any]:
    """What the form of a rotation shows: where the keys are, and the name to type, of the first of them."""
    file = Keeper(visit.hall.settings).file
    return {"key_file": None if file is None else file.name, "first_key": visit.hall.seal.master.names[0]}


async def rotate(visit: Visit) -> Answer:
    """Go over to another master key while gateways serve; with keys of the operator's own, to the first of them."""
    place = f"{HOME}/operator/master-key"
    try:
        done = await asyncio.wait_for(visit.hall.database.to_the_end(_rotated(visit)), _WAIT_S)
    except TimeoutError:
        return visit.go(place, said="The rotation goes on; this page shows how far it is.", kind="info")
    except Refusal as refusal:
        return visit.page("operator/rotate_form.html", refusal.status, wrong=visit.refused(refusal), **_asked(visit))
    said = f"The vault is under the master key {done.key} alone: {done.opened} data keys open with it."
    if done.undecryptable:
        return visit.go(place, said=f"{said} {len(done.undecryptable)} open with no key at hand.", kind="warning")
    rest = "Back up the new key file." if done.is_dropped else "Take the old keys out of the setting of every gateway."
    return visit.go(place, said=f"{said} {rest}")


async def _rotated(visit: Visit) -> Rotated:
    """Said in the log, too, when it fails: whoever began it may look no more."""
    hall = visit.hall
    vault = Vault(hall.database, hall.seal, Keeper(hall.settings), hall.clock)

    def go_on(_what: str, _done: int, _total: int) -> None:
        if hall.database.is_closing:  # calls that are settled wait for the pages' database to close
            raise Refusal("service_unavailable", "The gateway is stopping. Rotate again: it goes on from there.")

    try:
        done = await rotation.rotate(vault, visit.by, go_on)
    except CannotStart as error:
        get("dashboard").warning("master_key.not_rotated", reason=str(error))
        raise Refusal("conflict", str(error)) from None
    except Refusal as refusal:
        get("dashboard").warning("master_key.not_rotated", reason=refusal.message)
        raise
    for _ in range(_TRIES):  # what was there before must not stay in SQLite's log
        if await hall.database.fold_log():
            break
        await hall.clock.sleep(_PAUSE_S)
    return done
