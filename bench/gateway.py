"""The gateway under test: prepared through the CLI with every control on, then the real `ostiary serve`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import payload, proc
from bench.target import Target

PROVIDER = "openai-compatible"
_CLI_S = 60.0
_RPM, _RPD, _BUDGET_USD = 50_000_000, 1_000_000_000, 1_000_000
_RATES = ("--input", "0.15", "--output", "0.60")


@dataclass(frozen=True, slots=True)
class House:
    """A prepared installation: one data directory for each process that will serve it."""

    data_dirs: tuple[Path, ...]
    env: Mapping[str, str]
    bearer: str
    model: str

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return f"ostiary ×{len(self.data_dirs)}" if self.is_shared else "ostiary"

    @property
    def is_shared(self) -> bool:
        """Whether several processes serve it."""
        return len(self.data_dirs) > 1

    def command(self, *arguments: str) -> list[str]:
        """`ostiary …` of the environment this bench runs in."""
        return [_ostiary(), *arguments]

    def run(self, *arguments: str, said: str = "") -> str:
        """What a command of the CLI prints; a failure ends the bench with its message."""
        return _run(self.env, self.data_dirs[0], *arguments, said=said)

    def metered(self) -> int:
        """Calls in the ledger."""
        return sum(row["requests"] for row in json.loads(self.run("usage", "--json")))


def prepare(upstream: int, *, work: Path, processes: int = 1) -> House:
    """A key in the vault, a price, and an agent key with every control there is, so that each call is judged by all."""
    data_dirs = tuple(work / f"data-{processes}-{n}" for n in range(processes))
    origin = f"http://127.0.0.1:{upstream}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
    env["OSTIARY_EGRESS_ALLOW"] = origin
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # a second start finds its modules compiled, as everywhere
    if processes > 1:
        env["OSTIARY_DATABASE_URL"] = f"sqlite:///{work}/shared-{processes}.db"
        env["OSTIARY_MASTER_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()

    def run(*arguments: str, said: str = "") -> str:
        return _run(env, data_dirs[0], *arguments, said=said)

    model = f"{PROVIDER}/{payload.MODEL}"
    run(
        *("vault", "add", PROVIDER, "--name", "bench", "--base-url", f"{origin}/v1"),
        *("--secret-stdin", "--shared", "--no-test", "--json"),
        said="sk-bench-upstream-key-000000000000",
    )
    run("prices", "set", model, *_RATES)
    made = run(
        *("keys", "create", "--name", "bench", "--rpm", str(_RPM), "--rpd", str(_RPD)),
        *("--budget-usd", str(_BUDGET_USD), "--models", model, "--providers", PROVIDER),
        *("--ip", "127.0.0.0/8", "--json"),
    )
    return House(data_dirs, env, json.loads(made)["secret"], model)


@contextmanager
def serving(
    house: House, *, work: Path, cores: Sequence[frozenset[int]], under: Sequence[str] = ()
) -> Iterator[Target]:
    """One `ostiary serve` for each data directory, on its core; `under` is a command they are started by."""
    with ExitStack() as stack:
        running, ports, start_s = [], [], 0.0
        for n, data_dir in enumerate(house.data_dirs):
            port = proc.free_port()
            command = [*under, *house.command("serve", "--port", str(port), "--data-dir", str(data_dir))]
            one = stack.enter_context(
                proc.started(
                    f"ostiary-{len(house.data_dirs)}-{n}",
                    command,
                    work=work,
                    cores=cores[n % len(cores)],
                    env=house.env,
                )
            )
            start_s = max(start_s, proc.wait_until_open(one, port, "/health"))
            running.append(one)
            ports.append(port)
        yield Target(house.name, tuple(running), tuple(ports), start_s, house.bearer, house.model)


def _run(env: Mapping[str, str], data_dir: Path, *arguments: str, said: str = "") -> str:
    try:
        done = subprocess.run(
            [_ostiary(), *arguments, "--data-dir", str(data_dir)],
            input=said,
            capture_output=True,
            text=True,
            env=env,
            timeout=_CLI_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise proc.BenchFailed(f"ostiary {' '.join(arguments[:2])} took longer than {_CLI_S:.0f} s.") from error
    if done.returncode != 0:
        raise proc.BenchFailed(
            f"ostiary {' '.join(arguments[:2])} failed (exit {done.returncode}): {done.stderr.strip()[-2000:]}"
        )
    return done.stdout


def _ostiary() -> str:
    found = shutil.which("ostiary", path=str(Path(sys.executable).parent)) or shutil.which("ostiary")
    if found is None:
        raise proc.BenchFailed("ostiary is not installed in this environment. Run the bench by `uv run poe bench`.")
    return found
