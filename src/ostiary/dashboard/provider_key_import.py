"""The provider keys of a pasted .env text: recognised by the names of the variables, tested, and kept where ticked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from ostiary import logs
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.provider_keys import VAULT
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.names import LONGEST_NAME
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import entry, imports, provider_keys
from ostiary.vault.imports import EnvFile, KeyLine
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey

_AT_ONCE: Final = 8
_MOST: Final = 40
"""So many are tested while a page waits."""
_MOST_NAMES: Final = 1_000
_MORE: Final = "Paste at most 40 keys at once, or use 'ostiary vault import FILE'."


@dataclass(slots=True)
class Candidate:
    """A line with a key of a provider, and what became of it."""

    line: KeyLine
    name: str = ""
    outcome: str = "untested"
    message: str = ""
    may_be_saved: bool = True
    """Whether it can be ticked; what a test speaks against can be, but is not by itself."""
    rehearsed: ProviderKey | None = None

    def end(self, outcome: str, message: str) -> None:
        """It cannot be saved, and why."""
        self.outcome, self.message, self.may_be_saved = outcome, message, False

    @contextmanager
    def refused_by(self, visit: Visit) -> Iterator[None]:
        """A refusal is told beside it, and takes no other with it."""
        try:
            yield
        except Refusal as refusal:
            visit.refused(refusal)
            self.end("refused", refusal.message)

    @property
    def mark(self) -> str:
        """What stands for it in the form; nothing of the secret that its preview does not show."""
        return f"{self.line.number} {self.line.variable} {self.preview}"

    @property
    def preview(self) -> str:
        """What may be shown of the secret."""
        return self.line.secret.preview()

    @property
    def base_url(self) -> str:
        """Where it goes, if that was said; credentials in an address are not shown."""
        return logs.redact(self.line.base_url) if self.line.base_url else ""

    @property
    def is_good(self) -> bool:
        """Whether it is ticked from the start."""
        return self.may_be_saved and self.outcome in ("valid", "unknown")


async def show(visit: Visit) -> Answer:
    """Where to paste the text."""
    return visit.page("provider_keys/import.html")


async def look(visit: Visit) -> Answer:
    """What was recognised in the text, each tested; nothing is saved by it."""
    file = _read(visit)
    if len(file.keys) > _MOST:
        said = f"There are {len(file.keys)} keys in this text. {_MORE}"
        return visit.page("provider_keys/import_found.html", 422, file=None, found=(), wrong=Wrong(said))
    found = [Candidate(line) for line in file.keys]
    taken = await _names(visit)
    seen: dict[tuple[str, Secret], Candidate] = {}
    for one in found:
        twin = seen.setdefault((one.line.provider.id, one.line.secret), one)
        if twin is not one:
            one.end("skipped", f"The same key as {twin.line.variable}.")
        else:
            one.name = _free_name(one.line.variable, taken)
            await _rehearse(visit, one)
    await _refuse_inward(visit, found)
    async with entry.calling(visit.hall.egress) as transport:
        await _test_all(transport, [one for one in found if one.may_be_saved])
    return visit.page("provider_keys/import_found.html", file=file, found=found)


async def save(visit: Visit) -> Answer:
    """Seal what was ticked, each in a transaction of its own: one that fails takes no other with it."""
    file, form = _read(visit), visit.form
    found = {one.mark: one for one in map(Candidate, file.keys)}
    ticked = form.all("keep")
    if not ticked or any(mark not in found for mark in ticked):
        said = "The text has changed since it was tested. Test it again." if ticked else "Tick what to keep."
        return visit.page("provider_keys/import_said.html", 422, message=said, failed=(), saved=0)
    kept = [found[mark] for mark in dict.fromkeys(ticked)]
    for one in kept:
        one.name = form.text(f"name.{one.line.number}") or one.line.variable
        with one.refused_by(visit):
            one.rehearsed = await entry.rehearse(visit.hall.database, partial(_add, visit=visit, one=one))
    await _refuse_inward(visit, kept)
    for one in kept:
        if one.may_be_saved:
            with one.refused_by(visit):
                async with visit.writing() as tx:
                    await _add(tx, visit, one)
    failed = [one for one in kept if not one.may_be_saved]
    saved = len(kept) - len(failed)
    if failed:
        return visit.page("provider_keys/import_said.html", 422, message="", failed=failed, saved=saved)
    words = f"{saved} key{' is' if saved == 1 else 's are'} in the vault. Remove their lines from the file now."
    return visit.go(VAULT, said=words)


def _read(visit: Visit) -> EnvFile:
    visit.by.require("provider_keys.add", visit.home)
    return imports.read(visit.form.raw("text"), visit.hall.catalog.providers.values())


async def _names(visit: Visit) -> set[str]:
    async with visit.reading() as tx:
        return {key.name for key in await provider_keys.list_(tx, visit.by, visit.home)}


def _free_name(variable: str, taken: set[str]) -> str:
    """The variable's own name, with a number behind it where a key is called so already."""
    stem = variable[: LONGEST_NAME - len(f"-{_MOST_NAMES}")]
    names = (stem, *(f"{stem}-{number}" for number in range(2, _MOST_NAMES)))
    found = next((name for name in names if name not in taken), stem)
    taken.add(found)
    return found


async def _rehearse(visit: Visit, one: Candidate) -> None:
    """What could not be saved, or is there already, is told without asking the provider."""

    async def deed(tx: Transaction) -> ProviderKey | None:
        row, secret = one.line.provider, one.line.secret
        twin = await provider_keys.find_twin(tx, visit.by, visit.home, row.id, secret, seal=visit.hall.seal)
        if twin is not None:
            one.end("skipped", f"Is in the vault already, as {twin.name}.")
            return None
        return await _add(tx, visit, one)

    with one.refused_by(visit):
        one.rehearsed = await entry.rehearse(visit.hall.database, deed)


async def _refuse_inward(visit: Visit, found: Collection[Candidate]) -> None:
    """What goes by a name that leads where we do not connect."""
    by_id = {one.rehearsed.id: one for one in found if one.rehearsed is not None}
    keys = [(one.line.provider, one.rehearsed) for one in found if one.rehearsed is not None]
    for id, refusal in (await entry.find_inward(visit.hall.egress, keys)).items():
        with by_id[id].refused_by(visit):
            raise refusal


async def _add(tx: Transaction, visit: Visit, one: Candidate) -> ProviderKey:
    line, hall = one.line, visit.hall
    wish = NewProviderKey(one.name, line.provider, line.secret, line.base_url, line.fields)
    return await provider_keys.add(tx, visit.by, visit.home, wish, seal=hall.seal, egress=hall.egress, at=visit.at)


async def _test_all(transport: Transport, found: Collection[Candidate]) -> None:
    """Some at a time, in no transaction."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def test(one: Candidate, key: ProviderKey) -> None:
        async with room:
            result = await entry.probe(transport, one.line.provider, key, one.line.secret)
        one.outcome, one.message = result.outcome, result.message

    async with asyncio.TaskGroup() as tasks:
        for one in found:
            if one.rehearsed is not None:
                tasks.create_task(test(one, one.rehearsed))
