"""`ostiary master-key`: the key that everything in the vault is sealed under."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import typer

from ostiary.cli import progress, show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import Config, DataDir, Json
from ostiary.errors import CannotStart
from ostiary.ground import has_instance
from ostiary.settings import Settings
from ostiary.vault import rotation
from ostiary.vault.master_key import Keeper
from ostiary.vault.rotation import Rotated, Vault

_TRIES: Final = 20
_PAUSE_S: Final = 0.1

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.callback()
def master_key() -> None:
    """The key that everything in the vault is sealed under."""


@app.command()
def rotate(*, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Go over to a new master key while gateways serve; when it is cut off, run it again and it goes on.

    With the embedded database a new key is made, and the old one is gone from the key file in the end. Where the key
    comes from a setting, put a new one in front of it first; the old one opens nothing afterwards, and can go.
    Exit code 1 when something in the vault opens with no master key at hand: it is named, and the rest is rotated.
    """
    settings = Settings.load(config, data_dir=data_dir)
    if not asyncio.run(has_instance(settings)):  # the wrong folder must not become a new and empty instance
        raise CannotStart(f"There is no vault here: no database by these settings ({settings.data_dir}).")

    async def deed(desk: Desk) -> Rotated:
        vault = vault_of(desk)
        with progress.bar(hidden=json) as tell:
            done = await rotation.rotate(vault, desk.by, tell)
        await fold_log(desk)
        return done

    done = at_desk(Where(data_dir, None, config), deed)
    if json:
        show.print_json(_described(done))
    else:
        _say(done)
    if done.undecryptable:
        raise typer.Exit(1)


async def fold_log(desk: Desk) -> None:
    """What was there before must not stay in SQLite's log; who reads just now is waited for, a moment."""
    for _ in range(_TRIES):
        if await desk.ground.database.fold_log():
            return
        await desk.ground.clock.sleep(_PAUSE_S)


def vault_of(desk: Desk) -> Vault:
    """What the keys of an open installation are changed with."""
    base = desk.ground
    return Vault(base.database, base.seal, Keeper(base.settings), base.clock)


def _described(done: Rotated) -> dict[str, Any]:
    return {
        "master_key": done.key,
        "retired": list(done.retired),
        "resumed": done.is_resumed,
        "rewrapped": done.rewrapped,
        "opened": done.opened,
        "undecryptable": list(done.undecryptable),
        "old_keys_dropped": done.is_dropped,
    }


def _say(done: Rotated) -> None:
    show.say(f"The vault is under the master key {done.key} alone. Checked: {done.opened} data keys open with it.")
    if done.is_dropped:
        show.say("Back up the new key file: without it the vault is lost.")
    else:
        show.say("The old keys open nothing any more: take them out of the setting, of every gateway and here.")
    if done.retired:
        show.say("Keep your copy of the old key for as long as you keep backups that were made before this.")
        show.say("If the old key has leaked, run 'ostiary vault rekey' too: data keys are the same as before.")
    for name in done.undecryptable:
        show.warn(f"The data key of {name} opens with no master key at hand, and was left as it is.")
