"""`ostiary doctor`: checks the settings, the database, the master key and the way to the providers."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import typer

from ostiary import logs
from ostiary.cli import show
from ostiary.cli.checkup import Check, examine_instance
from ostiary.cli.desk import Where, quiet
from ostiary.cli.options import Config, DataDir, Json, Org
from ostiary.errors import CannotStart, Refusal
from ostiary.ground import Ground, ground
from ostiary.orgs import organizations
from ostiary.providers.transport import Transport
from ostiary.settings import Settings
from ostiary.vault import master_key, provider_keys, trial
from ostiary.vault.key_names import names
from ostiary.vault.seal import Undecryptable
from ostiary.vault.store import ProviderKey, list_all_provider_keys

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)

_LITTLE_BYTES: Final = 200_000_000
_OTHERS: Final = 0o077
_SIGNS: Final = {"ok": "ok", "warning": "WARNING", "failed": "FAILED"}


@app.command()
def doctor(*, org: Org = None, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Look at everything a gateway needs. Exit code 1 when something would keep it from working."""
    checks = asyncio.run(_examine(Where(data_dir, org, config)))
    is_well = all(check.status != "failed" for check in checks)
    if json:
        found = [{"name": one.name, "status": one.status, "message": one.message} for one in checks]
        show.print_json({"ok": is_well, "checks": found})
    else:
        rows = [[one.name, _SIGNS[one.status], one.message] for one in checks]
        show.print_table(("what", "how", "more"), rows, "")
    if not is_well:
        raise typer.Exit(1)


async def _examine(where: Where) -> list[Check]:
    try:
        settings = quiet(Settings.load(where.config, data_dir=where.data_dir))
    except CannotStart as error:
        return [Check("settings", "failed", str(error))]
    logs.configure(settings)
    checks = [Check("settings", "ok", "Every setting is understood."), *_examine_folder(settings)]
    if settings.is_embedded and not (settings.data_dir / "ostiary.db").exists():
        return [*checks, Check("database", "ok", "There is none yet; 'ostiary serve' makes it.")]
    async with AsyncExitStack() as stack:
        try:
            base = await stack.enter_async_context(ground(settings))
        except (CannotStart, Refusal) as error:
            message = error.message if isinstance(error, Refusal) else str(error)
            return [*checks, Check("database and master key", "failed", message)]
        checks += [
            Check("database", "ok", f"{base.database.engine.dialect.name}, at this version's schema."),
            Check("master key", "ok", f"{', '.join(names(master_key.given(settings)))} opens this database's vault."),
        ]
        checks += [check async for check in examine_instance(base)]
        checks += [check async for check in _examine_providers(base, where.org)]
    return checks


def _examine_folder(settings: Settings) -> list[Check]:
    folder = settings.data_dir
    if not folder.exists():
        return [Check("data folder", "ok", f"{folder} is not there yet; 'ostiary serve' makes it.")]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [Check("data folder", "failed", f"{folder} cannot be written to.")]
    found = [Check("data folder", "ok", str(folder))]
    if folder.stat().st_mode & _OTHERS:
        found.append(Check("data folder", "warning", f"Others can look into it. Run: chmod 700 {folder}"))
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_BYTES:
        found.append(Check("disk", "warning", f"Only {free // 1_000_000} MB are free; a full disk stops calls."))
    return found


async def _examine_providers(base: Ground, org: str | None) -> AsyncIterator[Check]:
    """The test call of every provider key, or of one organization's, one after the other."""
    async with base.database.read() as tx:
        chosen = None if org is None else await organizations.get(tx, org)
        keys = [key for key in await list_all_provider_keys(tx) if chosen is None or key.organization_id == chosen.id]
    if not keys:
        yield Check("providers", "ok", "There is no provider key yet; 'ostiary vault add' adds one.")
        return
    transport = Transport(base.egress)
    await transport.open()
    try:
        for key in keys:
            yield await _examine_key(base, transport, key)
    finally:
        await transport.close()


async def _examine_key(base: Ground, transport: Transport, key: ProviderKey) -> Check:
    name = f"provider key {key.name}"
    provider = base.catalog.find(key.provider)
    if provider is None:
        return Check(name, "warning", f"This version knows no provider {key.provider!r}.")
    try:
        async with base.database.read() as tx:
            secret = await provider_keys.open_secret(tx, base.seal, key)
    except Undecryptable as error:
        return Check(name, "failed", error.message)
    result = await trial.test(transport, provider, key.base_url, key.fields, secret, key.auth)
    is_well = result.outcome == "valid" or (result.outcome == "unknown" and not provider.test.proves)
    return Check(name, "ok" if is_well else "warning", f"{result.outcome}: {result.message}")
