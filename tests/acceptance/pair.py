"""Two gateways on one database, a provider that answers each key as a test says, and what becomes of the keys."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.secret import Secret
from ostiary.vault import aliases, endpoints, provider_keys
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EndpointTarget
from ostiary.vault.provider_keys import NewProviderKey
from tests.acceptance.inside import OPERATOR, Key, do, mint
from tests.servers import behaviours, gateway
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import Shell
from tests.servers.upstream import Behaviour, Received, Upstream
from tests.servers.waiting import until

MODEL = "m"
CHAT = "/v1/chat/completions"
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


@dataclass(slots=True)
class Pair:
    """Both gateways know what was done when a method of this returns."""

    gateways: list[Gateway]
    upstream: Upstream
    caller: Key
    secrets: dict[str, str] = field(default_factory=dict)
    """Of provider keys, by name."""
    by_key: dict[str, Behaviour] = field(default_factory=dict)
    """How the provider answers a key, by name; the others it answers well."""
    clients: list[httpx2.Client] = field(default_factory=list)
    ahead_s: float = 0.0
    numbers: Iterator[int] = field(default_factory=count)

    def furnish(self, provider: str, *names: str, **more: Any) -> None:
        """Provider keys at the upstream."""

        async def deed(base: Any, tx: Any, organization: Any) -> None:
            for name in names:
                secret = self.secrets[name] = self.gateways[0].canaries.plant()
                wish = NewProviderKey(name, base.catalog.get(provider), Secret(secret), self.upstream.url, **more)
                await provider_keys.add(
                    tx, OPERATOR, organization.id, wish, seal=base.seal, egress=base.egress, at=base.clock.now()
                )

        self.do(deed)

    @contextmanager
    def lent(self, provider: str, *names: str, **more: Any) -> Iterator[None]:
        """The like for a while: other cases go on without these keys."""

        async def deed(base: Any, tx: Any, organization: Any) -> None:
            for name in names:
                await provider_keys.remove(tx, OPERATOR, organization.id, name, base.clock.now(), force=True)

        self.furnish(provider, *names, **more)
        try:
            yield
        finally:
            self.do(deed)
            for name in names:
                self.by_key.pop(name, None)

    def endpoint(self, name: str, *targets: EndpointTarget, is_alias: bool = False, **more: Any) -> None:
        """An endpoint, or an alias."""

        async def deed(base: Any, tx: Any, organization: Any) -> None:
            wish, at = NewEndpoint(name, targets, **more), base.clock.now()
            if is_alias:
                await aliases.create(tx, OPERATOR, wish, catalog=base.catalog, at=at)
            else:
                await endpoints.create(tx, OPERATOR, organization.id, wish, catalog=base.catalog, at=at)

        self.do(deed)

    def reset(self, *names: str) -> None:
        """Forget everything that was found out of provider keys."""

        async def deed(base: Any, tx: Any, organization: Any) -> None:
            for name in names:
                await provider_keys.reset(tx, OPERATOR, organization.id, name, base.clock.now())

        self.do(deed)

    def do(self, deed: Callable[..., Any]) -> None:
        do(self.gateways[0], deed)
        self.hear()

    def hear(self) -> None:
        """Until both know what was done so far."""
        (secret,) = mint(self.gateways[0], NewAgentKey(f"heard-{next(self.numbers)}"))
        for client in self.clients:
            until(partial(_knows, client, secret), "a gateway to hear")

    def shift(self, seconds: float) -> None:
        """Let so much time pass for both."""
        self.ahead_s += seconds
        for one in self.gateways:
            fresh = one.clock_file.with_suffix(".new")
            fresh.write_text(str(self.ahead_s))
            fresh.replace(one.clock_file)
        self.hear()

    def pass_to_noon(self) -> None:
        """Let time pass until no day ends soon."""
        self.shift((36 - (time.time() + self.ahead_s) / 3_600 % 24) % 24 * 3_600)

    def ask(self, model: str, text: str = "hi", *, at: int = 0, key: Key | None = None, **more: Any) -> httpx2.Response:
        """One call at one of them."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 5, **more}
        headers = (key or self.caller).bearer | more.pop("headers", {})
        return self.clients[at].post(CHAT, json=body, headers=headers)

    def used(self, since: int) -> Counter[str]:
        """How often each provider key was seen at the provider since so many calls, by name."""
        names = {secret: name for name, secret in self.secrets.items()}
        return Counter(names[request.key or ""] for request in self.upstream.calls[since:])

    def health(self, name: str) -> list[dict[str, Any]]:
        """What the vault says of a key."""
        found: list[dict[str, Any]] = self.gateways[0].json("vault", "show", name, "--org", "default")["health"]
        return found

    def await_state(self, name: str, state: str | None) -> None:
        """Until the vault says that a key is so; None: that nothing is known against it."""
        until(lambda: [one["state"] for one in self.health(name)] == ([state] if state else []), f"{name}: {state}")


def _knows(client: httpx2.Client, key: Key) -> bool:
    return client.get("/v1/key", headers=key.bearer).status_code == 200


def choosing(pair: Pair) -> Callable[[Received], Behaviour]:
    """Answers as the credential has it, and else as the model is called."""
    usual = behaviours.chooser(pair.upstream)

    def pick(request: Received) -> Behaviour:
        shown = (request.key, request.header("x-api-key"), request.header("x-goog-api-key"))
        name = next((name for name, secret in pair.secrets.items() if secret in shown), "")
        return pair.by_key.get(name) or usual(request)

    return pick


@contextmanager
def pair_of(root: Path, canaries: Canaries, shell: Shell) -> Iterator[Pair]:
    """Two gateways on one SQLite database."""
    env = {"OSTIARY_DATABASE_URL": f"sqlite:///{root / 'shared.db'}", "OSTIARY_MASTER_KEY": _MASTER_KEY}
    with gateway.making(root, canaries, shell) as maker, behaviours.serving() as upstream:
        made = [maker(allow=[upstream.origin], env=env, clock=True) for _ in range(2)]
        pair = Pair(made, upstream, Key("", ""), clients=[one.client(timeout=30) for one in made])
        upstream.choose = choosing(pair)
        (pair.caller,) = mint(made[0], NewAgentKey("caller", expires_at=None))
        pair.hear()
        yield pair
