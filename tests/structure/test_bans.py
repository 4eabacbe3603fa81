"""What may be used where: the promises that rest on there being one place for a thing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.structure.house import ROOT, SOURCE, functions, modules, used

ENVIRONMENT = ("os.environ", "os.getenv", "os.putenv")
WALL_CLOCK = (
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
)
FERNET = ("cryptography.fernet",)
CLIENTS = ("aiohttp", "httpx", "httpx2", "requests", "urllib.request", "urllib3", "http.client")

PLACES: dict[tuple[str, ...], tuple[str, ...]] = {
    ENVIRONMENT: ("settings.py",),
    WALL_CLOCK: ("clock.py",),
    FERNET: ("vault/seal.py",),
    CLIENTS: ("providers/transport.py", "providers/egress.py"),
}
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "cli/sample.py": ("aiohttp.web", "a server of its own, which connects to nobody"),
}
"""What else a file may use, with the reason."""


def uses(tree: ast.Module, banned: tuple[str, ...]) -> set[str]:
    return {name for name in used(tree) if any(name == ban or name.startswith(f"{ban}.") for ban in banned)}


@pytest.mark.parametrize("banned", PLACES, ids=lambda names: names[0])
def test_each_thing_has_its_place(banned: tuple[str, ...]) -> None:
    places = PLACES[banned]
    found = {
        (module.where, name)
        for module in modules()
        if module.where not in places
        for name in uses(module.tree, banned)
        if not is_exception(module.where, name)
    }
    assert found == set()


def is_exception(where: str, name: str) -> bool:
    allowed, _ = EXCEPTIONS.get(where, ("", ""))
    return bool(allowed) and (name.startswith(allowed) or name == allowed.partition(".")[0])


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("from os import environ as e", ENVIRONMENT),
        ("import os\ndef f():\n    return os.environ['X']", ENVIRONMENT),
        ("from datetime import datetime, UTC\ndatetime.now(UTC)", WALL_CLOCK),
        ("import datetime as d\nd.datetime.now()", WALL_CLOCK),
        ("from time import time", WALL_CLOCK),
        ("def f():\n    from cryptography.fernet import Fernet", FERNET),
        ("import aiohttp.client", CLIENTS),
    ],
)
def test_it_would_be_found(text: str, banned: tuple[str, ...]) -> None:
    assert uses(ast.parse(text), banned)


CONNECTS = {"create_connection", "open_connection", "open_unix_connection", "sock_connect"}


def connects(tree: ast.Module) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & CONNECTS


def test_sockets_are_opened_by_the_client_alone() -> None:
    """Where a socket is opened the egress guard has judged the address: that is in `providers/`, in one module."""
    found = [module.where for module in modules() if connects(module.tree)]
    assert all(where.startswith("providers/") for where in found)
    assert len(found) <= 1, found


def test_a_socket_elsewhere_would_be_found() -> None:
    assert connects(ast.parse("async def f(loop):\n    await loop.sock_connect(raw, (host, 80))"))


MONEY = re.compile(r"(?i)(nano|usd|cost|price|budget|spent|leased|headroom)")


def money_as_float(tree: ast.Module) -> set[int]:
    """Lines on which something named like money is a float, made one, or divided with a remainder lost."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=target, annotation=annotation) if MONEY.search(ast.unparse(target)):
                lines |= {node.lineno} if "float" in ast.unparse(annotation) else set()
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if MONEY.search(name):
                lines |= {node.lineno} if "float" in ast.unparse(annotation) else set()
            case ast.Call(func=ast.Name(id="float"), args=[argument]) if MONEY.search(ast.unparse(argument)):
                lines.add(node.lineno)
            case ast.BinOp(op=ast.Div()) if MONEY.search(ast.unparse(node)):
                lines.add(node.lineno)
    for function in functions(tree):
        if function.returns and MONEY.search(function.name) and "float" in ast.unparse(function.returns):
            lines.add(function.lineno)
    return lines


def test_money_is_never_a_float() -> None:
    assert {module.where: found for module in modules() if (found := money_as_float(module.tree))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "def f(cost_nano: float): ...",
        "def cost() -> float: ...",
        "float(usd)",
        "spent_nano / 10",
        "class A:\n    cap_usd: float | None",
    ],
)
def test_a_float_would_be_found(text: str) -> None:
    assert money_as_float(ast.parse(text))


NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "core", "handler", "service"}


def test_no_module_is_named_after_nothing() -> None:
    found = {part for module in modules() for part in module.name.split(".")}
    assert {name for name in found if NAMES & set(name.split("_"))} == set()


def test_nothing_is_global() -> None:
    for module in modules():
        assert not any(isinstance(node, ast.Global) for node in ast.walk(module.tree)), module.where


SILENCED = re.compile(r"#\s*noqa(?P<rest>.*)")
REASONED = re.compile(r": [A-Z]+\d+(, ?[A-Z]+\d+)* - \S.+")


def everything() -> list[Path]:
    """Our own Python, tests and docs included, but this file, which holds examples of what is wrong."""
    folders = (SOURCE, ROOT / "tests", ROOT / "bench", ROOT / "docs")
    return [path for folder in folders for path in folder.rglob("*.py") if path != Path(__file__)]


def test_a_silenced_rule_says_why() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in everything()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := SILENCED.search(line)) and not REASONED.fullmatch(match["rest"].rstrip())
    ]
    assert found == []


def test_nothing_is_left_undone_or_skipped() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|pytest\.mark\.(skip|xfail)\b|pytest\.(skip|xfail)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in everything()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert found == []
