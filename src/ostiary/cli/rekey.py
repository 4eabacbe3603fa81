"""`ostiary vault rekey`: new data keys, and every record sealed anew under them."""

from __future__ import annotations

from typing import Any

import typer

from ostiary.cli import progress, show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.master_key import fold_log, vault_of
from ostiary.cli.options import DataDir, Json, Org
from ostiary.orgs import organizations
from ostiary.vault import rekey as data_keys
from ostiary.vault.rekey import Rekeyed


def rekey(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Seal everything anew under a new data key, of one organization or (without --org) of all, while gateways serve.

    When it is cut off, run it again and it goes on. Old data keys are removed when nothing uses them any more.
    Exit code 1 when a record does not open: it is named and stays as it is, and the rest is done.
    """

    async def deed(desk: Desk) -> Rekeyed:
        organization_id = None
        if desk.org is not None:
            async with desk.ground.database.read() as tx:
                organization_id = (await organizations.get(tx, desk.org)).id
        with progress.bar(hidden=json) as tell:
            done = await data_keys.rekey(vault_of(desk), desk.by, organization_id, tell)
        await fold_log(desk)
        return done

    done = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(_described(done))
    else:
        _say(done)
    if done.undecryptable:
        raise typer.Exit(1)


def _described(done: Rekeyed) -> dict[str, Any]:
    return {
        "organizations": done.organizations,
        "resumed": done.is_resumed,
        "resealed": done.resealed,
        "opened": done.opened,
        "undecryptable": done.undecryptable,
        "undecryptable_records": done.named,
        "old_data_keys_removed": done.removed,
        "waits_for_gateways": list(done.waits_for),
    }


def _say(done: Rekeyed) -> None:
    show.say(f"{done.resealed:,} records were sealed anew. Checked: {done.opened:,} open.")
    if done.waits_for:
        show.say(
            f"Old data keys are kept, because {', '.join(done.waits_for)} may still bring what was sealed under them. "
            "Run this again when it has come back, or was retired."
        )
    else:
        show.say(f"{done.removed:,} old data keys were not needed any more, and are gone.")
    for name in done.named:
        show.warn(f"{name} does not open, and was left as it is.")
    if done.undecryptable > len(done.named):
        show.warn(f"So do {done.undecryptable - len(done.named):,} more.")
