"""The bench of pages asks for pages that are there, and by names that they read."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import httpx2
import pytest

from bench import pages
from ostiary.dashboard.routes import ANYBODY, HOME, ROUTES, Table
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

_GIVEN = Namespace(events=60, keys=12, provider_keys=12)
LEFT_OUT = {route.path: "for who has not signed in" for route in ROUTES if route.deed == ANYBODY}
LEFT_OUT["/operator/prices/recost/{id}"] = "how far a recost is, from memory: there is none to look at"
"""Pages that the bench does not ask for, with the reason."""


def route_of(page: str) -> tuple[str, str]:
    """The method and path of the row in the table that answers an address of the bench."""
    route, _ = Table().find("GET", HOME + page.partition("?")[0])
    return route.method, route.path


def test_every_page_is_asked_for_and_no_other() -> None:
    asked = {route_of(page)[1] for page in pages.PAGES}
    there = {route.path for route in ROUTES if not route.is_write}
    assert asked == there - LEFT_OUT.keys()
    assert len(set(pages.PAGES)) == len(pages.PAGES)


@dataclass(frozen=True, slots=True)
class Bench:
    """A gateway on a small database that the bench has filled, and somebody who looks at its pages."""

    client: httpx2.Client
    named: dict[str, str]
    notes: Path

    def look(self, page: str) -> tuple[int, set[str]]:
        """What a page answers, and what it looked for in its address."""
        self.notes.write_text("")
        answer = self.client.get(HOME + page.format_map(self.named))
        return answer.status_code, set(self.notes.read_text().split())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    notes = folder / "read"
    with making(folder, canaries, shell, started) as maker:
        gateway = maker(entry="tests.reading_entry", env={"READ_FILE": str(notes)})
        for words, said in pages.COMMANDS:
            gateway.cli(*words, stdin=said)
        asyncio.run(pages.fill(gateway.data_dir / "ostiary.db", _GIVEN))
        client = gateway.client()
        pages.sign_in(client)
        yield Bench(client, pages.find_named(client), notes)


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_is_there_and_reads_what_it_is_asked_by(bench: Bench, page: str) -> None:
    status, read = bench.look(page)
    assert status == httpx2.codes.OK
    assert set(parse_qs(page.partition("?")[2])) <= read
