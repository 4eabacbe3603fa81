"""`ostiary restore`: puts a backup in place, where it fits and nobody serves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from ostiary import logs
from ostiary.cli import progress, show
from ostiary.cli.backup import described
from ostiary.cli.desk import quiet
from ostiary.cli.options import Config, DataDir, Json
from ostiary.clock import SystemClock
from ostiary.ground import empty_ground
from ostiary.orgs import roles
from ostiary.settings import Settings
from ostiary.vault import backups
from ostiary.vault.backups import Restored

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'ostiary backup' made.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the instance that is there.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Put a backup in place. It is checked first: a damaged one, or the wrong master key, changes nothing.

    No gateway may run meanwhile. With SQLite the database that was there is kept beside the new one. What gateways
    have left in the spool is written to the ledger at the next start.
    """
    settings = quiet(Settings.load(config, data_dir=data_dir))
    logs.configure(settings)

    async def deed() -> Restored:
        async with empty_ground(settings) as place:
            with progress.bar(hidden=json) as tell:
                return await backups.restore(place, roles.operator(), file, SystemClock().now(), tell, force=force)

    restored = asyncio.run(deed())
    if json:
        kept = str(restored.kept) if restored.kept else None
        holding = [
            {"id": one.id, "name": one.name, "leased_usd": show.usd(one.leased_nano)} for one in restored.holding
        ]
        show.print_json({"kept": kept, "holding": holding} | described(restored.manifest))
        return
    _say(restored)


def _say(restored: Restored) -> None:
    manifest = restored.manifest
    show.say(f"{sum(manifest.rows.values()):,} rows of {show.when(manifest.made_at)} are back in place.")
    if restored.kept:
        show.say(f"The database that was there is kept as {restored.kept.name}.")
    for one in restored.holding:
        show.say(
            f"Gateway {one.name} held {show.dollars(one.leased_nano)} of budgets when the backup was made. If its "
            f"spool is gone, 'ostiary gateways retire {one.id}' counts that as spent."
        )
    show.say("'ostiary serve' starts it.")
