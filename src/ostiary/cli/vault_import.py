"""`ostiary vault import`: the provider keys of an .env file, each tested, shown, and sealed when you say so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ostiary import logs
from ostiary.cli import progress, show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Org
from ostiary.db.backup_file import Progress
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.names import LONGEST_NAME
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import entry, imports, provider_keys
from ostiary.vault.imports import EnvFile, KeyLine
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey

_AT_ONCE: Final = 8
_COLUMNS: Final = ("line", "variable", "provider", "preview", "base_url", "outcome", "message")
_MOST_NAMES: Final = 1_000


@dataclass(slots=True)
class _Candidate:
    """A line with a key of a provider, and what became of it."""

    line: KeyLine
    outcome: str = "untested"
    message: str = ""
    may_be_saved: bool = True
    name: str = ""
    rehearsed: ProviderKey | None = None
    saved: ProviderKey | None = None

    def end(self, outcome: str, message: str) -> None:
        """It is not saved, and why."""
        self.outcome, self.message, self.may_be_saved = outcome, message, False

    @property
    def has_failed(self) -> bool:
        """Whether somebody has to do something about it; what is in the vault already is well."""
        return not self.may_be_saved and self.outcome != "skipped"

    def described(self) -> dict[str, Any]:
        """For machines; the preview is all there is of the secret."""
        return {
            "line": self.line.number,
            "variable": self.line.variable,
            "provider": self.line.provider.id,
            "preview": self.line.secret.preview(),
            "base_url": logs.redact(self.line.base_url) if self.line.base_url else None,
            "outcome": self.outcome,
            "message": self.message,
            "saved": self.saved is not None,
            "id": self.saved.id if self.saved else None,
            "name": self.saved.name if self.saved else None,
        }


@dataclass(slots=True)
class _Import:
    """A file on its way into the vault."""

    file: EnvFile
    candidates: list[_Candidate]

    @property
    def ready(self) -> list[_Candidate]:
        """Those that may be saved."""
        return [one for one in self.candidates if one.may_be_saved]


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="A file of NAME=VALUE.")
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Save without asking.")] = False,
    no_test: Annotated[bool, typer.Option("--no-test", help="Save without testing the connections.")] = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Put the provider keys of an .env file into the vault: found by the names of variables, tested, shown, asked.

    A key that is in the vault already is skipped. The file is only read. Exit code 1 when a key could not be saved.
    """
    if json and not yes:
        raise typer.BadParameter("There is nobody to ask: add --yes.", param_hint="--json")
    text = imports.text_of(_content(file))

    async def deed(desk: Desk) -> _Import:
        found = imports.read(text, desk.ground.catalog.providers.values())
        work = _Import(found, [_Candidate(line) for line in found.keys])
        with progress.bar(hidden=json) as tell:
            await _prepare(desk, work, tell, is_tested=not no_test)
        if not json:
            _print(work)
        if work.ready and not (yes or typer.confirm(f"Save {_keys(len(work.ready))} in the vault?")):
            raise typer.Exit(1)
        for one in work.ready:
            await _save(desk, one)
        return work

    work = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(_described(work))
    else:
        _advise(file, work)
    if any(one.has_failed for one in work.candidates):
        raise typer.Exit(1)


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(imports.LARGEST + 1)


# ---- before anybody is asked ------------------------------------------------------------------------------------


async def _prepare(desk: Desk, work: _Import, tell: Progress, *, is_tested: bool) -> None:
    """What cannot be saved or is there already is found first; then the others are tested, some at a time."""
    seen: dict[tuple[str, Secret], _Candidate] = {}
    for one in work.candidates:
        twin = seen.setdefault((one.line.provider.id, one.line.secret), one)
        if twin is not one:
            one.end("skipped", f"the same key as {twin.line.variable}")
        else:
            await _rehearse(desk, one)
    await _refuse_inward(desk, work.ready)
    if is_tested:
        async with entry.calling(desk.ground.egress) as transport:
            await _test_all(transport, work.ready, tell)


async def _rehearse(desk: Desk, one: _Candidate) -> None:
    async def save(tx: Transaction) -> ProviderKey | None:
        organization = await desk.organization(tx)
        twin = await provider_keys.find_twin(
            tx, desk.by, organization.id, one.line.provider.id, one.line.secret, seal=desk.ground.seal
        )
        if twin is not None:
            one.end("skipped", f"is in the vault already, as {twin.name!r}")
            return None
        one.name = await _free_name(tx, desk, organization.id, one.line.variable)
        return await _add(tx, desk, organization.id, one)

    try:
        one.rehearsed = await entry.rehearse(desk.ground.database, save)
    except Refusal as refusal:
        if refusal.code != "invalid_field":
            raise
        one.end("refused", refusal.message)


async def _refuse_inward(desk: Desk, candidates: Sequence[_Candidate]) -> None:
    by_id = {one.rehearsed.id: one for one in candidates if one.rehearsed is not None}
    keys = [(one.line.provider, one.rehearsed) for one in candidates if one.rehearsed is not None]
    for id, refusal in (await entry.find_inward(desk.ground.egress, keys)).items():
        by_id[id].end("refused", refusal.message)


async def _free_name(tx: Transaction, desk: Desk, organization_id: str, variable: str) -> str:
    """The variable's own name, with a number behind it where a key is called so already."""
    taken = {key.name for key in await provider_keys.list_(tx, desk.by, organization_id)}
    stem = variable[: LONGEST_NAME - len(f"-{_MOST_NAMES}")]
    names = (stem, *(f"{stem}-{number}" for number in range(2, _MOST_NAMES)))
    return next((name for name in names if name not in taken), stem)


async def _add(tx: Transaction, desk: Desk, organization_id: str, one: _Candidate) -> ProviderKey:
    wish = NewProviderKey(one.name, one.line.provider, one.line.secret, one.line.base_url, one.line.fields)
    ground = desk.ground
    return await provider_keys.add(
        tx, desk.by, organization_id, wish, seal=ground.seal, egress=ground.egress, at=desk.at
    )


async def _test_all(transport: Transport, candidates: Sequence[_Candidate], tell: Progress) -> None:
    room, done = asyncio.Semaphore(_AT_ONCE), 0

    async def test(one: _Candidate, key: ProviderKey) -> None:
        nonlocal done
        async with room:
            result = await entry.probe(transport, one.line.provider, key, one.line.secret)
        one.outcome, one.message = result.outcome, result.message
        one.may_be_saved = entry.may_be_saved(one.line.provider, result)
        done += 1
        tell("testing", done, len(candidates))

    async with asyncio.TaskGroup() as tasks:
        for one in candidates:
            if one.rehearsed is not None:
                tasks.create_task(test(one, one.rehearsed))


# ---- the deed, and what is said ---------------------------------------------------------------------------------


async def _save(desk: Desk, one: _Candidate) -> None:
    """In a transaction of its own: one that fails now takes no other with it."""
    try:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            one.saved = await _add(tx, desk, organization.id, one)
    except Refusal as refusal:
        one.end("refused", refusal.message)


def _print(work: _Import) -> None:
    rows = [one.described() for one in work.candidates]
    show.print_table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows], "No key of a provider is in it.")
    for line in work.file.others:
        show.say(f"Line {line.number}{f', {line.variable}' if line.variable else ''}: {line.note}. Left alone.")


def _advise(file: Path, work: _Import) -> None:
    saved = [one for one in work.candidates if one.saved is not None]
    skipped = [one for one in work.candidates if one.outcome == "skipped"]
    failed = [one for one in work.candidates if one.has_failed]
    show.say(f"{len(saved)} saved, {len(skipped)} skipped, {len(failed)} not saved.")
    for one in failed:
        show.warn(f"{one.line.variable}: {one.outcome}. {one.message}")
    kept = [one.line.number for one in (*saved, *skipped)]
    if kept:
        lines = ", ".join(str(number) for number in sorted(kept))
        show.say(f"The secrets still stand in {file.name}, in the clear. Remove {_lines(len(kept))} {lines}.")


def _described(work: _Import) -> dict[str, Any]:
    unknown = [{"line": one.number, "variable": one.variable or None, "note": one.note} for one in work.file.others]
    return {"keys": [one.described() for one in work.candidates], "unknown": unknown}


def _keys(count: int) -> str:
    return f"{count} key{'' if count == 1 else 's'}"


def _lines(count: int) -> str:
    return "line" if count == 1 else "lines"
