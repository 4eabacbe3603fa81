"""The admin API as its users meet it: an organization with everybody in it, each with a key of their own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import httpx2

from ostiary.admin.routes import PREFIX
from ostiary.orgs import roles
from ostiary.orgs.roles import ADMIN_SCOPES
from tests.servers.gateway import Gateway
from tests.servers.waiting import until

ROLES: Final = {"alice": "owner", "erin": "admin", "bob": "member"}
PEOPLE: Final = ("olga", "alice", "erin", "bob", "charlie", "dora")
"""Olga runs the instance, Alice owns the organization, Erin is an admin and Bob a member of it; Charlie was let go
without anybody telling his key, and Dora owns another organization."""


@dataclass(slots=True)
class Bureau:
    """A gateway with two organizations, and a key for each person with every scope there is."""

    gateway: Gateway
    secrets: dict[str, str] = field(default_factory=dict)
    home: str = ""
    elsewhere: str = ""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _clients: dict[str, httpx2.Client] = field(default_factory=dict)

    def open(self) -> Bureau:
        """Let everybody in, and one out again."""
        gateway = self.gateway
        self.settle()
        self.elsewhere = gateway.json("orgs", "create", "Elsewhere")["id"]
        for name, role in (("olga", "member"), ("charlie", "admin")):
            gateway.cli("members", "add", f"{name}@example.org", "--role", role, "--org", self.home)
        gateway.cli("members", "operator", "olga@example.org")
        gateway.cli("members", "add", "dora@example.org", "--role", "owner", "--org", self.elsewhere)
        for name in ("olga", "charlie", "dora"):
            place = self.elsewhere if name == "dora" else self.home
            self.secrets[name] = self.mint(f"{name}'s", name, reachable(name), place)
        self.forget("charlie")
        return self

    def settle(self) -> Bureau:
        """Let those in who belong here, and nobody else."""
        gateway = self.gateway
        self.home = gateway.json("orgs", "list")[0]["id"]
        for name, role in ROLES.items():
            gateway.cli("members", "add", f"{name}@example.org", "--role", role, "--org", self.home)
            self.secrets[name] = self.mint(f"{name}'s", name, reachable(name))
        return self

    def mint(self, name: str, owner: str, scopes: Iterable[str], org: str | None = None) -> str:
        """A key made by the operator's command; its secret, known to the gateway."""
        made: str = self.gateway.json(
            *("keys", "create", "--name", name, "--owner", f"{owner}@example.org"),
            *("--scopes", ",".join(scopes), "--org", org or self.home),
        )["secret"]
        self.hears(made)
        return made

    def hears(self, secret: str) -> None:
        """Wait until the gateway knows a credential with the scope `gate:usage`."""
        client = self.gateway.client(secret)
        until(lambda: client.get("/v1/key").status_code == httpx2.codes.OK, "the gateway to hear")

    def forget(self, name: str) -> None:
        """Take a membership away behind everybody's back: no deed, no change told."""
        with self.database() as database:
            done = database.execute(
                "DELETE FROM members WHERE user_id = (SELECT id FROM users WHERE email = ?)", (f"{name}@example.org",)
            )
            assert done.rowcount == 1

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """What somebody with a shell on the machine may do."""
        path = self.gateway.data_dir / "ostiary.db"
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            yield connection

    def name(self, stem: str = "thing") -> str:
        """One that nothing has yet."""
        return f"{stem}-{next(self._numbers)}"

    def ask(self, who: str | None, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request, by somebody's name or with a secret."""
        secret = self.secrets.get(who, who) if who else None
        client = self._clients.get(secret or "")
        if client is None:
            client = self._clients[secret or ""] = self.gateway.client(secret)
        if "json" in options:  # half characters too, which no client would encode by itself
            options["content"] = json.dumps(options.pop("json")).encode()
            options["headers"] = {"content-type": "application/json", **options.get("headers", {})}
        answer = client.request(method, PREFIX + path, **options)
        if answer.content and answer.headers["content-type"] == "application/json":
            secret = answer.json().get("secret")
            if secret:
                self.gateway.canaries.watch(secret)
        return answer

    def done(self, who: str, method: str, path: str, **options: Any) -> Any:
        """What a request that must succeed answers."""
        answer = self.ask(who, method, path, **options)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def key(self, **wished: Any) -> Any:
        """A fresh agent key, made by Alice."""
        return self.done("alice", "POST", "/agent-keys", json={"name": self.name("key"), **wished})

    def user_id(self, name: str) -> str:
        """Somebody's id."""
        found = self.done("alice", "GET", "/members", params={"search": f"{name}@example.org"})["data"]
        user_id: str = found[0]["id"]
        return user_id


def role_of(name: str) -> str:
    """The role somebody has, or had, where they belong."""
    return {"olga": "operator", "charlie": "admin", "dora": "owner"}.get(name) or ROLES[name]


def reachable(name: str) -> tuple[str, ...]:
    """Every scope that the role of somebody reaches: no more can be given."""
    grants = roles.ROLES[role_of(name)]
    reached = [scope for scope, deeds in ADMIN_SCOPES.items() if any(deed in grants for deed in deeds)]
    return ("gate:chat", "gate:models", "gate:usage", *reached)


def code(answer: httpx2.Response) -> str:
    """The code of a problem, which is one as RFC 9457 has it."""
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == answer.status_code
    assert said["request_id"] == answer.headers["x-request-id"]
    return str(said["code"])


def fields(answer: httpx2.Response) -> set[str]:
    """Which fields a refusal names."""
    return {one["field"] for one in answer.json()["errors"]}
