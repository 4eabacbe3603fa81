"""A real OpenID provider, npm's `oidc-provider`: whoever gives a name is signed in by it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import node
from tests.servers.canaries import Canaries
from tests.servers.reaper import watch
from tests.servers.waiting import answers, free_port, stop, until_alive

_PROGRAM = Path(__file__).with_suffix(".mjs")
_DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Oidc:
    """A running provider, and the one client it knows."""

    issuer: str
    client_id: str
    client_secret: str

    @property
    def discovery(self) -> str:
        """The URL of what it says about itself."""
        return f"{self.issuer}{_DISCOVERY}"


OidcMaker = Callable[..., Oidc]
"""`oidc(redirect_uri, …)`, with the options of `running`."""


@contextmanager
def running(
    folder: Path,
    canaries: Canaries,
    *redirects: str,
    client_id: str = "ostiary",
    client_secret: str | None = None,
    accounts: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Oidc]:
    """Start it on a free port of the loopback; it is gone when the block ends.

    Codes go to `redirects` alone, for PKCE alone. Bob is `bob`, `bob@example.org`, verified, unless
    `accounts` has other claims for that name: `{"Bob": {"email_verified": False}}`.
    """
    port = free_port()
    log = folder / f"oidc-{port}.log"
    made = Oidc(f"http://127.0.0.1:{port}", client_id, client_secret or canaries.plant())
    wish = {
        "package": (node.package("oidc-provider") / "lib" / "index.js").as_uri(),
        "issuer": made.issuer,
        "port": port,
        "id": made.client_id,
        "secret": made.client_secret,
        "redirects": list(redirects),
        "accounts": dict(accounts or {}),
        "cookies": secrets.token_hex(),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [node.NODE, _PROGRAM],
            env=os.environ | {"OIDC_WISH": json.dumps(wish), "NODE_ENV": "production"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    watch(process)
    try:
        until_alive(process, lambda: answers(port, _DISCOVERY), log)
        yield made
    finally:
        stop(process)


@contextmanager
def making(folder: Path, canaries: Canaries) -> Iterator[OidcMaker]:
    """Starts providers; all of them end with the block."""
    with ExitStack() as started:

        def make(*redirects: str, **options: Any) -> Oidc:
            return started.enter_context(running(folder, canaries, *redirects, **options))

        yield make
