"""A provider as others write and fail on the wire: aimock, whose answers and faults a test writes by model name."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.servers.canaries import Canaries
from tests.servers.reaper import watch
from tests.servers.waiting import answers, free_port, stop, until_alive

Fixture = dict[str, Any]
"""`{"match": {…}, "response": {…}}`, as aimock's own files have them; the first that fits answers."""


@dataclass(frozen=True, slots=True)
class Aimock:
    """A running server: where it is, and the keys it takes."""

    origin: str
    keys: tuple[str, ...]
    client: httpx2.Client
    """Asks the server itself."""

    @property
    def url(self) -> str:
        """The base URL of a provider key."""
        return f"{self.origin}/v1"

    def fail_next(self, status: int, message: str, code: str | None = None) -> None:
        """Answer the next call with an error, whatever it asks for; the one after it as usual."""
        body = {"status": status, "body": {"message": message, "type": "server_error", "code": code}}
        self.client.post("/__aimock/error", json=body).raise_for_status()

    def received(self, model: str) -> list[dict[str, Any]]:
        """What it was asked of a model, oldest first: `path`, `headers` without credentials, `body`, `response`."""
        entries = self.client.get("/__aimock/journal").raise_for_status().json()
        return [entry for entry in entries if (entry["body"] or {}).get("model") == model]


@contextmanager
def running(folder: Path, canaries: Canaries, fixtures: Sequence[Fixture], *, keys: int = 1) -> Iterator[Aimock]:
    """Start it on a free port of the loopback, taking so many keys; it is gone when the block ends.

    What no fixture fits is refused, so that a test never passes by an answer that nobody wrote.
    """
    from tests.servers import node

    taken, port = tuple(canaries.plant() for _ in range(keys)), free_port()
    told, log = folder / "fixtures.json", folder / "aimock.log"
    told.write_text(json.dumps({"fixtures": list(fixtures)}))
    program = node.package("@copilotkit/aimock") / "dist" / "cli.js"
    options: list[str | Path] = [
        "--port",
        str(port),
        "--fixtures",
        told,
        "--strict",
        "--validate-on-load",
        "--log-level",
        "warn",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [node.NODE, program, *options],
            env=os.environ | {"AIMOCK_API_KEYS": ",".join(taken)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    watch(process)
    try:
        until_alive(process, lambda: answers(port), log)
        origin, bearer = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {taken[0]}"}
        with httpx2.Client(base_url=origin, headers=bearer, timeout=60) as client:
            yield Aimock(origin, taken, client)
    finally:
        stop(process)
