"""The gateway as its users meet it: the real process, from outside."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from tests.servers.canaries import Canaries
from tests.servers.forks import CLI, ROOT, Process
from tests.servers.reaper import watch
from tests.servers.shell import Ran, Shell
from tests.servers.waiting import answers, free_port, stop, tail, until, until_alive

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""`verify` of clients that speak plain HTTP, each of which would else read all certificates of the machine: 35 ms."""
CLOCK = "tests.clock_entry"
PATIENT = "tests.patient_entry"
OSTIARY = Path(sys.executable).with_name("ostiary")
_TRIES = 3
_OWN_GROUND = {"OSTIARY_DATABASE_URL", "OSTIARY_MASTER_KEY", "OSTIARY_MASTER_KEY_FILE"}
_NOT_YET = (httpx2.codes.UNAUTHORIZED, httpx2.codes.SERVICE_UNAVAILABLE)
_START_S = 60
_KILLED_S = 60
"""Who writes to a disk that stands still is gone only when that goes on."""
_WRITTEN_S = 0.15
"""In which a quiet gateway has moved what it settled to the ledger, and what nobody expects there, too."""


class CommandError(AssertionError):
    """A command of the CLI that should have passed."""


@dataclass(slots=True)
class House:
    """One data directory and the environment around it: where `ostiary` commands act, with or without a gateway."""

    folder: Path
    canaries: Canaries
    shell: Shell
    env: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        """`--data-dir`."""
        return self.folder / "data"

    def environment(self) -> dict[str, str]:
        """What a process gets: no setting but the test's, so that a developer's own change nothing."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("OSTIARY_", "PYTEST_", "COV_"))
        }
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return kept | {"OSTIARY_DATA_DIR": str(self.data_dir), "COLUMNS": "200", "NO_COLOR": "1", **self.env}

    def cli(self, *words: str, stdin: str | None = None, check: bool = True) -> Ran:
        """Run `ostiary …`; fails the test when the command does, unless told not to `check`."""
        ran = self.shell.run(words, self.environment(), self.folder, stdin or "")
        if check and ran.code:
            raise CommandError(f"ostiary {' '.join(words)} → {ran.code}\n{ran.out}\n{ran.err}")
        return ran

    def json(self, *words: str, stdin: str | None = None) -> Any:
        """Run `ostiary … --json` and read what it prints. A secret in it is watched from then on."""
        found = self.cli(*words, "--json", stdin=stdin).json
        if isinstance(found, dict) and isinstance(found.get("secret"), str):
            self.canaries.watch(found["secret"])
        return found

    def add_provider_key(self, provider: str, name: str, base_url: str | None = None, secret: str | None = None) -> str:
        """Put a key in the vault, untested; its secret, which nobody must ever see again."""
        secret = secret or self.canaries.plant()
        where = ["--base-url", base_url] if base_url else []
        self.cli("vault", "add", provider, "--name", name, *where, "--no-test", "--secret-stdin", stdin=secret)
        return secret

    def create_key(self, name: str, *options: str) -> str:
        """Mint an agent key; its secret."""
        secret: str = self.json("keys", "create", "--name", name, *options)["secret"]
        return secret

    def create_credential(self, name: str) -> str:
        """Mint a client credential; the triple."""
        secret: str = self.json("credentials", "create", "--name", name)["secret"]
        return secret


@dataclass(slots=True)
class Gateway(House):
    """A running `ostiary serve`, and the house it serves."""

    args: Sequence[str] = ()
    entry: str = ""
    """The module that runs in place of `ostiary serve`: `tests.clock_entry`, whose time `shift` moves, and others."""
    forked: bool = True
    """Whether it is spared importing: see `tests/servers/forks.py`. Else it starts as a user's does."""
    port: int = 0
    process: Process | None = None
    _clients: list[httpx2.Client] = field(default_factory=list)
    _heard: Iterator[int] = field(default_factory=count)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The `base_url` of an SDK."""
        return f"{self.origin}/v1"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "gateway.log"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def clock_file(self) -> Path:
        """Where its clock reads how far it is ahead."""
        return self.folder / "clock"

    def client(self, secret: str | None = None, **options: Any) -> httpx2.Client:
        """An HTTP client of this gateway, with a credential; closed when the gateway is."""
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        options = {"base_url": self.origin, "timeout": 60, "verify": NO_TLS, **options}
        client = httpx2.Client(headers=headers, **options)
        self._clients.append(client)
        return client

    def chat(self, secret: str, model: str, **more: Any) -> httpx2.Response:
        """One plain chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": "Who keeps the door?"}], **more}
        return self.client(secret).post("/v1/chat/completions", json=body)

    def create_key(self, name: str, *options: str) -> str:
        """Mint an agent key; its secret, known to the gateway already if it runs."""
        return self._known(House.create_key(self, name, *options))

    def create_credential(self, name: str) -> str:
        """Mint a client credential; the triple, known to the gateway already if it runs."""
        return self._known(House.create_credential(self, name))

    def hear(self) -> None:
        """Wait until the gateway has heard of everything that was done so far: changes are heard in their order."""
        self.create_credential(f"heard-{next(self._heard)}")

    def _known(self, secret: str) -> str:
        if self.is_running:
            bearer = {"authorization": f"Bearer {secret}"}
            with httpx2.Client(base_url=self.origin, headers=bearer, verify=NO_TLS, timeout=60) as client:
                until(lambda: client.get("/v1/key").status_code not in _NOT_YET, "the gateway to hear")
        return secret

    def start(self) -> None:
        """Start it and wait until it is healthy. Starting again after its end is a restart on the same data."""
        for left in reversed(range(_TRIES)):
            self.port = self.port or free_port()
            try:
                self._start_once()
            except RuntimeError:
                if not left or "address already in use" not in tail(self.log).lower():
                    raise
                self.port = 0
            else:
                return

    def _start_once(self) -> None:
        self.spawn()
        assert self.process
        try:
            until_alive(self.process, lambda: answers(self.port), self.log, _START_S)
        except BaseException:
            stop(self.process)
            raise

    def spawn(self) -> Process:
        """Start it and wait for nothing: for tests of a start that fails."""
        self.port = self.port or free_port()
        words = [*([] if self.entry else ["serve"]), "--port", str(self.port), *self.args]
        env = self.environment() | {"CLOCK_FILE": str(self.clock_file)}
        if self.forked:
            entry = f"{self.entry}:main" if self.entry else CLI
            self.process = self.shell.forks.fork(entry, words, env, self.folder, self.log)
        else:
            program = [sys.executable, "-m", self.entry] if self.entry else [OSTIARY]
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(
                    [*program, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=env | {"PYTHONPATH": str(ROOT)},
                    cwd=self.folder,
                )
        return watch(self.process)

    def shift(self, seconds: float) -> None:
        """Move its clock so far ahead of the machine's, in all, and wait until it has found its way there.

        To a gateway that was moved by more than a minute it seems that it heard nothing for so long, and it refuses
        calls with 503 until it has.
        """
        assert self.entry == CLOCK, "start the gateway with clock=True"
        fresh = self.clock_file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self.clock_file)
        if self.is_running:
            self.hear()

    def stop(self) -> int:
        """SIGTERM, as an orchestrator does; its exit code."""
        assert self.process
        return stop(self.process, 40)

    def kill(self) -> None:
        """SIGKILL: nothing is closed, nothing is said."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_KILLED_S)

    def restart(self) -> None:
        """End it as an orchestrator does, then start it on the same data, environment and port."""
        self.stop()
        self.start()

    def traces(self, *options: str, calls: int = 1) -> list[dict[str, Any]]:
        """All events of the ledger, newest first, once there are so many: a gateway moves them there when it can."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            found[:] = self.json("traces", "--limit", "0", *options)
            return len(found) >= calls

        if self.is_running:
            time.sleep(_WRITTEN_S)
        until(are_there, f"{calls} events in the ledger")
        return found

    def close(self) -> None:
        """End what a test left open."""
        for client in self._clients:
            client.close()
        if self.process and self.is_running:
            with suppress(ProcessLookupError):
                stop(self.process, 40)


@contextmanager
def making(
    folder: Path, canaries: Canaries, shell: Shell, template: Path | None = None, *, forked: bool = True
) -> Iterator[GatewayMaker]:
    """Makes gateways below `folder`; all of them end with the block."""
    maker = GatewayMaker(folder, canaries, shell, template, forked)
    try:
        yield maker
    finally:
        for gateway in maker.made:
            gateway.close()


@dataclass(slots=True)
class GatewayMaker:
    """Makes gateways, each with a data directory of its own unless `folder` is given."""

    root: Path
    canaries: Canaries
    shell: Shell
    template: Path | None = None
    """A data directory after its first start, to copy: making the schema anew each time would take half a second."""
    forked: bool = True
    made: list[Gateway] = field(default_factory=list)

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        allow: Sequence[str] = (),
        clock: bool = False,
        entry: str = "",
        forked: bool = True,
        folder: Path | None = None,
        start: bool = True,
    ) -> Gateway:
        """A gateway; `allow` are the origins it may connect to, `args` go behind `ostiary serve`.

        `entry` is the module that runs in its place; `clock` says the one whose time the test moves.

        With `start=False` it stands before an empty folder, and its first start is its own.
        """
        folder = folder or self.root / f"gateway-{len(self.made)}"
        folder.mkdir(parents=True, exist_ok=True)
        allowed = {"OSTIARY_EGRESS_ALLOW": ",".join(allow)} if allow else {}
        house_env = {**allowed, **(env or {})}
        entry = entry or (CLOCK if clock else "")
        gateway = Gateway(folder, self.canaries, self.shell, house_env, args, entry, self.forked and forked)
        self.made.append(gateway)
        if start:
            if self.template and not (gateway.data_dir.exists() or gateway.env.keys() & _OWN_GROUND):
                shutil.copytree(self.template, gateway.data_dir)
            gateway.start()
        return gateway
