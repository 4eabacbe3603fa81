"""When a file or function is too long, the room is wrong: split by meaning, not by number."""

from __future__ import annotations

import ast
from functools import cache

from tests.structure.house import functions, graph, modules

FILE, CALL_FILE, FUNCTION, TYPICAL = 400, 200, 50, 30

LONGER_FILES: dict[str, tuple[int, str]] = {
    "db/schema.py": (800, "every table on one page"),
    "gateway/directory.py": (320, "not a step: the memory the steps read, kept by the change feed"),
}
LONGER_FUNCTIONS: dict[str, tuple[int, str]] = {}


@cache
def path_of_a_call() -> frozenset[str]:
    """The modules of the gateway that its pipeline imports, at any remove."""
    edges = graph(modules())
    found: set[str] = set()
    pending = ["ostiary.gateway.pipeline"]
    while pending:
        name = pending.pop()
        if name.startswith("ostiary.gateway.") and name not in found:
            found.add(name)
            pending += edges.get(name, ())
    return frozenset(module.where for module in modules() if module.name in found)


def limit_of(where: str) -> int:
    return CALL_FILE if where in path_of_a_call() else FILE


def is_generated(where: str) -> bool:
    return where.startswith("db/migrations/versions/")


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, decorators left out: options of a command are data."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_files() -> None:
    found = {m.where: m.lines for m in modules() if not is_generated(m.where)}
    limits = {where: LONGER_FILES.get(where, (limit_of(where), ""))[0] for where in found}
    assert {where: lines for where, lines in found.items() if lines > limits[where]} == {}


def test_functions() -> None:
    found = {
        f"{module.where}:{function.name}": length(function)
        for module in modules()
        if not is_generated(module.where)
        for function in functions(module.tree)
    }
    limits = {name: LONGER_FUNCTIONS.get(name, (FUNCTION, ""))[0] for name in found}
    assert {name: lines for name, lines in found.items() if lines > limits[name]} == {}
    lengths = sorted(found.values())
    assert lengths[len(lengths) * 9 // 10] <= TYPICAL


def test_the_path_of_a_call_is_found() -> None:
    steps = {
        f"gateway/{name}.py" for name in ("pipeline", "identify", "call", "admit", "plan", "attempt", "relay", "settle")
    }
    assert steps <= path_of_a_call()


def test_exceptions_are_still_needed() -> None:
    files = {m.where: m.lines for m in modules()}
    for where, (_, reason) in LONGER_FILES.items():
        assert files[where] > limit_of(where), f"{where} has become short enough"
        assert reason
    lengths = {f"{m.where}:{f.name}": length(f) for m in modules() for f in functions(m.tree)}
    for name, (_, reason) in LONGER_FUNCTIONS.items():
        assert lengths[name] > FUNCTION, f"{name} has become short enough"
        assert reason
