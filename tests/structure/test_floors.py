"""Who may import whom: down only, siblings never, no cycle, and every room has its floor."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.structure.house import PACKAGE, ROOT, SOURCE, Module, cycles, graph, imported, modules


def lint_imports(root: Path, source: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_contracts_are_kept() -> None:
    done = lint_imports(ROOT, SOURCE)
    assert done.returncode == 0, done.stdout + done.stderr


VIOLATIONS = {
    "a step up": ("db/upward.py", "from ostiary.gateway import pipeline"),
    "a step up inside a function": ("db/upward.py", "def f():\n    from ostiary.gateway import pipeline"),
    "a sibling": ("vault/sideways.py", "from ostiary.agents import policy"),
    "a room without a floor": ("cellar.py", "import os"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_contracts_would_catch(tmp_path: Path, violation: str) -> None:
    """The contracts of pyproject.toml, on a house of empty rooms with one fault."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert config["contracts"][0]["exhaustive"] is True
    source = tmp_path / "src"
    for module in modules():
        path = source / PACKAGE / module.where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert lint_imports(tmp_path, source).returncode == 0
    where, text = VIOLATIONS[violation]
    (source / PACKAGE / where).write_text(text)
    assert lint_imports(tmp_path, source).returncode == 1


def test_no_cycle_not_even_through_a_function() -> None:
    assert cycles(graph(modules())) == []


def test_a_cycle_through_a_function_would_be_found() -> None:
    texts = {"a": "import b", "b": "def f():\n    from c import x", "c": "def g():\n    import a", "d": "import a"}
    read = [Module(Path(f"{name}.py"), name, text, ast.parse(text)) for name, text in texts.items()]
    assert cycles(graph(read)) == [["a", "b", "c"]]


def test_imports_for_types_alone_do_not_count() -> None:
    text = "if TYPE_CHECKING:\n    import a\nelse:\n    import b"
    assert imported(ast.parse(text)) == {"b"}


def test_packages_hold_one_docstring_and_nothing_else() -> None:
    for module in modules():
        if module.is_init:
            [only] = module.tree.body
            assert isinstance(only, ast.Expr), module.where
            assert ast.get_docstring(module.tree), module.where


SQL = {"select", "insert", "update", "delete", "text", "union", "union_all", "exists", "case", "func", "literal_column"}
DRIVERS = ("sqlite3", "aiosqlite", "asyncpg")


def may_speak_sql(where: str) -> bool:
    return where.endswith("store.py") or where.startswith("db/") or where == "ledger/spool.py"


def speaks_sql(tree: ast.Module) -> set[str]:
    names = imported(tree)
    found = {name for name in names if name.startswith("sqlalchemy") and name.rpartition(".")[2] in SQL}
    found |= {name for name in names if name.partition(".")[0] in DRIVERS}
    found |= {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "exec_driver_sql"
    }
    return found


def test_sql_only_in_stores_the_ground_and_the_spool() -> None:
    spoken = {module.where: speaks_sql(module.tree) for module in modules() if not may_speak_sql(module.where)}
    assert {where: found for where, found in spoken.items() if found} == {}


@pytest.mark.parametrize(
    "text", ["from sqlalchemy import select", "def f():\n    import sqlite3", "tx.exec_driver_sql('SELECT 1')"]
)
def test_sql_elsewhere_would_be_found(text: str) -> None:
    assert speaks_sql(ast.parse(text))


def test_gateway_runs_no_sql() -> None:
    """Rooms are asked for rows only by the directory, which keeps the memory that calls are served from."""
    for module in modules():
        if module.where.startswith("gateway/"):
            assert not any(name.startswith("sqlalchemy") for name in imported(module.tree)), module.where
