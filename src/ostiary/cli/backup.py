"""`ostiary backup`: the whole instance in one file, while gateways serve."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ostiary.cli import progress, show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import Config, DataDir, Json
from ostiary.db.backup_file import Manifest
from ostiary.errors import CannotStart
from ostiary.ground import has_instance
from ostiary.settings import Settings
from ostiary.vault import backups, master_key
from ostiary.vault.backups import Place

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make; it must not exist.")],
    *,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write keys, prices, budgets and the ledger to one file, checked, while gateways go on serving.

    The master key is named in it, and is not in it: keep that elsewhere. The same file serves SQLite and PostgreSQL.
    """
    settings = Settings.load(config, data_dir=data_dir)
    if not asyncio.run(has_instance(settings)):  # the wrong folder must not give a backup of a new and empty instance
        raise CannotStart(f"There is no instance to back up: no database by these settings ({settings.data_dir}).")

    async def deed(desk: Desk) -> Manifest:
        base = desk.ground
        place = Place(base.database, base.settings.data_dir, master_key.given(base.settings))
        with progress.bar(hidden=json) as tell:
            return await backups.make(place, desk.by, file, desk.at, tell)

    made = at_desk(Where(data_dir, None, config), deed)
    if json:
        show.print_json({"file": str(file)} | described(made))
        return
    show.say(f"{file} holds {sum(made.rows.values()):,} rows, checked. It opens with the master key")
    show.say(f"{', '.join(made.master_keys)}, which is not in it: keep that elsewhere.")


def described(made: Manifest) -> dict[str, Any]:
    """What a backup says of itself, as JSON."""
    return {
        "made_at": show.when(made.made_at),
        "version": made.version,
        "schema": made.schema,
        "database": made.database,
        "master_keys": list(made.master_keys),
        "rows": made.rows,
        "bytes": made.size,
        "sha256": made.sha256,
    }
