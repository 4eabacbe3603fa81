"""The source as the structure tests see it: modules, their imports, the names they use."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PACKAGE = "ostiary"


@dataclass(frozen=True)
class Module:
    """One file of the product."""

    path: Path
    name: str
    """Dotted, without `.__init__`."""
    text: str
    tree: ast.Module

    @property
    def where(self) -> str:
        """Its path below `src/ostiary/`, as lists of exceptions name it."""
        return self.path.relative_to(SOURCE / PACKAGE).as_posix()

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def is_init(self) -> bool:
        return self.path.name == "__init__.py"


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the product, sorted by path."""
    return tuple(_read(path) for path in sorted((SOURCE / PACKAGE).rglob("*.py")))


def _read(path: Path) -> Module:
    text = path.read_text()
    parts = path.relative_to(SOURCE).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(path, name, text, ast.parse(text))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(tree: ast.AST) -> set[str]:
    """Everything imported, in functions too; `from a import b` gives both `a` and `a.b`. For types only: not."""
    return {name for node in running(tree) for name in _names_of_import(node)}


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def _names_of_import(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)


def used(tree: ast.AST) -> set[str]:
    """Qualified names a module imports or reaches through its imports: `datetime.datetime.now`, `os.environ`."""
    known: dict[str, str] = {}
    for node in running(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name.partition(".")[0]: _bound(alias) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = imported(tree)
    for node in running(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            if first in known:
                found.add(".".join([known[first], *rest]))
    return found


def _bound(alias: ast.alias) -> str:
    return alias.name if alias.asname else alias.name.partition(".")[0]


def graph(read: Iterable[Module]) -> dict[str, set[str]]:
    """Which module imports which, at any depth of code; an import from a package may be of one of its modules."""
    read = tuple(read)
    names = {module.name for module in read}
    return {
        module.name: {name for name in imported(module.tree) if name in names and name != module.name}
        for module in read
        if not module.is_init
    }


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Modules that can reach themselves, in groups that reach one another (Tarjan)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in edges.get(name, ()):
                found.append(sorted(group))

    for name in sorted(edges):
        if name not in number:
            visit(name)
    return found
