"""`ostiary` on a machine whose name server leads some names to addresses inside: the product itself asks the system's.

Run as `python -m tests.inward_entry vault add …` for a command, and by `gateways(entry="tests.inward_entry")` as
`--port N` for `ostiary serve`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from ostiary.cli import main as cli
from ostiary.providers import egress

LEADING: Final = {
    "inside.example": ("10.0.0.7",),
    "half-inside.example": ("93.184.216.34", "192.168.1.1"),
    "metadata.example": ("::ffff:169.254.169.254",),
    "listed.example": ("127.0.0.1",),
    "rebound.example": ("10.0.0.7",),
    "rebound-to-metadata.example": ("::ffff:169.254.169.254",),
    "nowhere.example": (),
    "silent.example": None,
}
"""Where names lead; one that leads to None is never told."""
REBOUND: Final = {host: iter([("93.184.216.34",)]) for host in ("rebound.example", "rebound-to-metadata.example")}
"""What names lead to when they are first asked for; afterwards where `LEADING` says."""
_ask_system = egress._ask_system


async def _look_up(host: str, port: int) -> Sequence[str]:
    if host not in LEADING:
        return await _ask_system(host, port)
    addresses = next(REBOUND.get(host, iter(())), LEADING[host])
    if addresses is None:
        await asyncio.Event().wait()
    if not addresses:
        raise OSError("no such host")
    return addresses


def main() -> None:
    """What `ostiary` does, but for who is asked for names."""
    egress._ask_system = _look_up
    if sys.argv[1:2] == ["--port"]:
        sys.argv.insert(1, "serve")
    cli.run()


if __name__ == "__main__":
    main()
