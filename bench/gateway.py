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
from dataclasses import dataclass, replace
from pathlib import Path

from bench import crowd, payload, proc, wide
from bench.target import FALLING, STEADY, Target

PROVIDER = "openai-compatible"
_REFUSING = "vllm"
"""A provider whose key leads where every call is refused."""
_CLI_S = 60.0
_LIMITS = (
    *("--rpm", "50000000", "--rpd", "1000000000", "--tpm", "1000000000", "--parallel", "100000"),
    *("--budget-usd", "10000", "--budget-period", "month"),
)
"""On the key and on its organization: all there is, and nothing of it ever reached."""
_ROUTE = wide.Width().routed()[0]
_RATES = ("--input", "0.15", "--output", "0.60")


@dataclass(frozen=True, slots=True)
class Size:
    """How large an installation is."""

    processes: int = 1
    keys: int = 1
    providers: int = 1
    """From two on: with many keys each, and with endpoints, one of which is measured."""

    @property
    def name(self) -> str:
        """As it stands in the table."""
        shared = f" ×{self.processes}" if self.processes > 1 else ""
        wide = f", {self.width.provider_keys:,} provider keys" if self.width else ""
        return f"ostiary{shared}" + (f", {self.keys:,} keys" if self.keys > 1 else "") + wide

    @property
    def width(self) -> wide.Width | None:
        """What is in its vault beside one key, if anything is."""
        return wide.Width(self.providers) if self.providers > 1 else None


@dataclass(frozen=True, slots=True)
class House:
    """A prepared installation: one data directory for each process that will serve it."""

    size: Size
    data_dirs: tuple[Path, ...]
    env: Mapping[str, str]
    bearer: str
    model: str

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return self.size.name

    @property
    def is_shared(self) -> bool:
        """Whether several processes serve it."""
        return self.size.processes > 1

    def command(self, *arguments: str) -> list[str]:
        """`ostiary …` of the environment this bench runs in."""
        return [_ostiary(), *arguments]

    def run(self, *arguments: str, said: str = "") -> str:
        """What a command of the CLI prints; a failure ends the bench with its message."""
        return _run(self.env, self.data_dirs[0], *arguments, said=said)

    def metered(self) -> int:
        """Calls in the ledger."""
        return sum(row["requests"] for row in json.loads(self.run("usage", "--org", "default", "--json")))


def prepare(upstream: int, *, work: Path, size: Size | None = None) -> House:
    """A key in the vault, a price, and an agent key with every control there is, so that each call is judged by all."""
    size = size or Size()
    work = work / f"house-{size.processes}-{size.keys}-{size.providers}"
    work.mkdir()
    data_dirs = tuple(work / f"data-{n}" for n in range(size.processes))
    origin = f"http://127.0.0.1:{upstream}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
    env["OSTIARY_EGRESS_ALLOW"] = origin
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # a second start finds its modules compiled, as everywhere
    if size.processes > 1:
        env["OSTIARY_DATABASE_URL"] = f"sqlite:///{work}/shared.db"
        env["OSTIARY_MASTER_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()
        # Only there: a process that is asked for its metrics loads what makes them, which one measured alone need not.
        env["OSTIARY_OPERATOR_TOKEN"] = os.urandom(32).hex()

    if size.width is not None:
        wide.write_catalogue(work / "catalogue.toml", size.width)
        env["OSTIARY_CATALOG_FILE"] = str(work / "catalogue.toml")
    return _furnished(House(size, data_dirs, env, "", f"{PROVIDER}/{payload.MODEL}"), origin)


def _furnished(house: House, origin: str) -> House:
    for provider, path in ((PROVIDER, ""), (_REFUSING, payload.FAILING)):
        house.run(
            *("vault", "add", provider, "--name", provider, "--base-url", f"{origin}{path}/v1"),
            *("--secret-stdin", "--shared", "--no-test", "--json"),
            said="sk-bench-upstream-key-000000000000",
        )
        house.run("prices", "set", f"{provider}/{payload.MODEL}", *_RATES)
    refused = f"{_REFUSING}/{payload.MODEL}"
    for name, targets in ((STEADY, (house.model, refused)), (FALLING, (refused, house.model))):
        house.run("endpoints", "create", name, "--target", targets[0], "--target", targets[1])
    house.run("orgs", "edit", *_LIMITS)
    made = house.run(
        *("keys", "create", "--name", "bench", *_LIMITS, "--models", f"{house.model},{STEADY},{FALLING},{_ROUTE}"),
        *("--providers", ",".join((PROVIDER, _REFUSING, *(house.size.width.names if house.size.width else ())))),
        *("--ip", "127.0.0.0/8", "--json"),
    )
    crowd.join(house.size.keys - 1, data_dir=house.data_dirs[0], env=house.env)
    if house.size.width is not None:
        wide.fill(house.size.width, f"{origin}/v1", data_dir=house.data_dirs[0], env=house.env)
        house = replace(house, model=_ROUTE)
    return replace(house, bearer=json.loads(made)["secret"])


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
                    f"{house.name}-{n}",
                    command,
                    work=work,
                    cores=cores[n % len(cores)],
                    env=house.env,
                )
            )
            start_s = max(start_s, proc.wait_until_open(one, port, "/health"))
            running.append(one)
            ports.append(port)
        token = house.env.get("OSTIARY_OPERATOR_TOKEN")
        yield Target(
            name=house.name,
            running=tuple(running),
            ports=tuple(ports),
            start_s=start_s,
            bearer=house.bearer,
            model=house.model,
            falls_back=house.size == Size(),
            token=token,
        )


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
