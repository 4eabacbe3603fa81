"""`python -m bench.pages`: how long pages take on a full SQLite database: many keys, months of calls."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from ostiary.clock import DAY_MS
from ostiary.db.database import Database
from ostiary.ids import new_id
from ostiary.ledger import writer
from ostiary.ledger.events import Event, Status

_DAYS: Final = 90
_BATCH: Final = 5_000
_GOAL_MS: Final = 300
EMAIL: Final = "alice@example.org"
PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - of a database that is deleted
_PORT: Final = 8_797
_MODELS: Final = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4"),
    ("groq", "llama-3.3-70b-versatile"),
    ("mistral", "mistral-large-latest"),
    ("gemini", "gemini-2.5-flash"),
)
_BUSY: Final = 5
"""The number of an agent key and of a provider key that are called often."""
PAGES: Final = (
    *("", "/jump?q=agent-9", "/keys", "/keys?q=agent-77", "/keys?sort=requests", "/vault", "/endpoints", "/models"),
    *("/traces", "/traces?period=all", "/traces?period=30d&status=error", "/traces?period=30d&agent_key=agent-00005"),
    *("/traces?period=30d&provider_key=pkey-7", "/traces?period=30d&endpoint=fast", "/traces?min_latency_ms=20000"),
    *("/traces/summary", "/traces/summary?period=30d", "/traces/summary?period=30d&model=gpt-4o", "/traces/{trace}"),
    *("/usage", "/usage?by=agent_key", "/usage?by=agent_key&period=90d", "/usage?by=provider_key", "/usage?by=member"),
    *("/usage?by=provider&period=90d", "/usage?agent_key=agent-00005", "/usage/csv", "/usage/csv?by=provider_key"),
    *("/audit", "/audit/{audit}", "/settings/members", "/settings/members/{member}", "/settings/members/agents"),
    *("/settings", "/settings/gateways", "/playground"),
    *(f"/keys/key_{_BUSY:022}", f"/keys/key_{_BUSY:022}/edit", f"/keys/key_{_BUSY:022}/delete", "/keys/new"),
    *(f"/keys/key_{_BUSY:022}/menu", f"/keys/key_{_BUSY:022}/revoke"),
    *("/keys/models?sought=gpt", f"/vault/pkey_{_BUSY:022}", f"/vault/pkey_{_BUSY:022}/edit", "/vault/providers"),
    *("/vault/new?provider=openai", "/vault/import", "/endpoints/new", "/endpoints/keys?provider=openai"),
    *("/endpoints/{endpoint}", "/endpoints/aliases/new", "/endpoints/aliases/{alias}", "/models/names?model=gpt"),
    *("/playground/calls/{trace}", "/account", "/settings/notifications", "/settings/webhooks"),
    *("/settings/webhooks/{webhook}", "/settings/credentials", "/operator", "/operator/organizations"),
    *("/operator/pool", "/operator/aliases", "/operator/prices", "/operator/prices/recost"),
    *(
        "/operator/prices/model?provider=openai&model=gpt-4o",
        "/operator/gateways",
        "/operator/gateways/{gateway}",
        "/operator/master-key",
    ),
)
"""Every page somebody who has signed in can open, and what its filters make of the longest ones."""
COMMANDS: Final = (
    (("members", "add", EMAIL, "--role", "owner"), ""),
    (("users", "set-password", EMAIL, "--secret-stdin"), PASSWORD),
    (("users", "operator", EMAIL), ""),
    (("endpoints", "create", "fast", "--target", "openai/gpt-4o", "--fallback", "groq/llama-3.3-70b-versatile"), ""),
    (("aliases", "create", "ostiary/fast", "--target", "openai/gpt-4o"), ""),
    (("webhooks", "create", "hooks", "--url", "https://hooks.example/ostiary"), ""),
)
"""What `ostiary` is told, and with what input, before the rest is filled in."""
_LINKED: Final = {
    "trace": ("/traces?period=all", '/traces/(req_[^"/?]+)'),
    "audit": ("/audit", "/audit/([0-9]+)"),
    "member": ("/settings/members", '/members/(usr_[^"/?]+)'),
    "endpoint": ("/endpoints", '/endpoints/(endp_[^"/?]+)'),
    "alias": ("/endpoints", '/endpoints/aliases/(endp_[^"/?]+)'),
    "webhook": ("/settings/webhooks", '/settings/webhooks/(wh_[^"/?]+)'),
    "gateway": ("/operator/gateways", '/operator/gateways/([a-z]+_[^"/?]+)'),
}
"""Which page leads to what an address names, and by which link."""


def main() -> None:
    """Fill, serve, ask, print; the folder is deleted at the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--provider-keys", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=40, help="of each address")
    parser.add_argument("--folder", type=Path, help="keep the database here, and use the one that is there")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="ostiary-pages-"))
    try:
        _run(folder, given)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def _run(folder: Path, given: argparse.Namespace) -> None:
    env = {**os.environ, "OSTIARY_DATA_DIR": str(folder)}
    ostiary = str(Path(sys.executable).with_name("ostiary"))
    path = folder / "ostiary.db"
    if not path.exists():
        for words, said in COMMANDS:
            subprocess.run([ostiary, *words], env=env, input=said, text=True, check=True, capture_output=True)
        began = time.perf_counter()
        asyncio.run(fill(path, given))
        print(f"filled in {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1e9:.1f} GB", flush=True)
    with _serving(ostiary, env, folder) as origin:
        slow = _ask(origin, given.repeats)
    if slow:
        sys.exit(f"p95 of {_GOAL_MS} ms or more: {', '.join(slow)}")


# ---- filling ----------------------------------------------------------------------------------------------------


async def fill(path: Path, given: argparse.Namespace) -> None:
    """Keys, provider keys and calls, as many as `given` says."""
    database = Database(f"sqlite:///{path}")
    chance = random.Random(1)  # noqa: S311 - the same figures every time
    now = time.time_ns() // 1_000_000
    async with database.transaction() as tx:
        organization = (await tx.exec_driver_sql("SELECT id FROM organizations")).scalar_one()
        owner = (await tx.exec_driver_sql("SELECT id FROM users")).scalar_one()
        keys = [(f"key_{number:022}", f"agent-{number:05}") for number in range(given.keys)]
        await tx.exec_driver_sql(_AGENT_KEY, [(id_, organization, owner, name, now, now) for id_, name in keys])
        vault = [
            (f"pkey_{number:022}", f"pkey-{number}", _MODELS[number % 6][0]) for number in range(given.provider_keys)
        ]
        await tx.exec_driver_sql(
            _PROVIDER_KEY, [(id_, organization, name, provider, now, now) for id_, name, provider in vault]
        )
    by_provider: dict[str, list[tuple[str, str]]] = {}
    for id_, name, provider in vault:
        by_provider.setdefault(provider, []).append((id_, name))
    weights = [1 / (rank + 1) ** 0.9 for rank in range(len(keys))]
    began = now - _DAYS * DAY_MS
    for start in range(0, given.events, _BATCH):
        callers = chance.choices(keys, weights, k=min(_BATCH, given.events - start))
        events = [
            _event(began + number * (now - began) // given.events, organization, key, by_provider, chance)
            for number, key in enumerate(callers, start)
        ]
        async with database.transaction() as tx:
            await writer.write_events(tx, "spool_bench", events)
    await database.close()


_AGENT_KEY: Final = (
    "INSERT INTO agent_keys (id, organization_id, owner_id, name, status, scopes, models_mode, models, providers_mode,"
    " providers, free_only, addresses_mode, addresses, metadata, capture, is_ephemeral, created_at, updated_at)"
    " VALUES (?, ?, ?, ?, 'active', '[\"gate:chat\"]', 'all', '[]', 'all', '[]', 0, 'all', '[]', '{}', 0, 0, ?, ?)"
)
_PROVIDER_KEY: Final = (
    "INSERT INTO provider_keys (id, organization_id, name, provider, base_url, origin, fields, sealed, sealed_version,"
    " preview, shared, status, created_at, updated_at)"
    " VALUES (?, ?, ?, ?, 'https://p.example', 'https://p.example', '{}', '', 1, 'sk-a…xyz', 0, 'healthy',"
    " ?, ?)"
)


def _event(
    at: int, organization: str, key: tuple[str, str], vault: dict[str, list[tuple[str, str]]], chance: random.Random
) -> Event:
    luck = chance.random()
    provider, model = _MODELS[(hash(key[0]) + (luck > 0.7)) % len(_MODELS)]
    provider_key = chance.choice(vault[provider])
    given, made = int(chance.lognormvariate(6, 1)), int(chance.lognormvariate(5, 1))
    cost, latency = given * 2_500 + made * 10_000, int(chance.lognormvariate(6.5, 0.9))
    status: Status = "ok" if luck < 0.985 else "error" if luck < 0.995 else "cancelled"
    return Event(
        new_id("req", at), 1, organization, key[0], key[1], None, "chat", provider, model, model, provider_key[0],
        provider_key[1], False, at, "192.0.2.1", {"team": "search"}, cost * 3, (), "p1", cost, "provider", status, 200,
        None, given, made, latency_ms=latency, first_token_ms=latency // 3, held_at=at,
        timings={"identify_us": 9, "admit_us": 12, "attempt_us": latency * 1_000},
        endpoint="fast" if luck < 0.2 else None,
    )  # fmt: skip


# ---- asking -----------------------------------------------------------------------------------------------------


@contextmanager
def _serving(ostiary: str, env: dict[str, str], folder: Path) -> Iterator[str]:
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen([ostiary, "serve", "--port", str(_PORT)], env=env, stdout=log, stderr=log)
        origin = f"http://127.0.0.1:{_PORT}"
        try:
            for _ in range(600):
                try:
                    if httpx2.get(f"{origin}/health").status_code == httpx2.codes.OK:
                        break
                except httpx2.HTTPError:
                    time.sleep(0.1)
            yield origin
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _ask(origin: str, repeats: int) -> list[str]:
    slow = []
    with httpx2.Client(base_url=origin, timeout=120) as client:
        sign_in(client)
        named = find_named(client)
        print(f"{'':48} {'p50 ms':>8} {'p95 ms':>8}")
        for page in PAGES:
            taken = _times(client, page.format_map(named), repeats)
            p95 = taken[-(-len(taken) * 95 // 100) - 1]
            print(f"{page or '/':48} {taken[len(taken) // 2]:8.1f} {p95:8.1f}", flush=True)
            if not p95 < _GOAL_MS:  # an address that answers with an error has no time: NaN
                slow.append(page or "/")
    return slow


def sign_in(client: Any) -> None:  # noqa: ANN401 - an HTTP client
    """As the owner."""
    origin = str(client.base_url).rstrip("/")
    form = {"email": EMAIL, "password": PASSWORD}
    answer = client.post("/dashboard/sign-in", data=form, headers={"origin": origin})
    assert answer.status_code == httpx2.codes.SEE_OTHER, answer.text[:500]  # noqa: S101 - a bench


def find_named(client: Any) -> dict[str, str]:  # noqa: ANN401 - an HTTP client
    """One of each thing that an address of `PAGES` names; `none` where no page leads to one."""
    found = {name: re.search(link, client.get(f"/dashboard{page}").text) for name, (page, link) in _LINKED.items()}
    return {name: match[1] if match else "none" for name, match in found.items()}


def _times(client: Any, page: str, repeats: int) -> list[float]:  # noqa: ANN401 - an HTTP client
    """The first look compiles templates and is left out."""
    taken = []
    for number in range(repeats + 1):
        began = time.perf_counter()
        answer = client.get(f"/dashboard{page}")
        if answer.status_code != httpx2.codes.OK:
            return [float("nan")]
        if number:
            taken.append((time.perf_counter() - began) * 1_000)
    return sorted(taken)


if __name__ == "__main__":
    main()
