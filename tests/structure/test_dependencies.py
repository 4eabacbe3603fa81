"""Few dependencies: what is declared is used, what is used is declared."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.structure.house import PACKAGE, ROOT, imported, modules

UNSEEN = {
    "aiosqlite": "SQLAlchemy's driver, named in a URL",
    "asyncpg": "SQLAlchemy's driver, named in a URL",
}
"""Needed, but imported by others."""
SHARED = {"opentelemetry": "opentelemetry-proto"}
"""Names that several packages put modules under, and the one that ours come from."""


def declared() -> set[str]:
    """Those of the extras, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return {re.split(r"[\[>=<;~! ]", one, maxsplit=1)[0].lower() for one in wanted}


def used() -> set[str]:
    names = {name.partition(".")[0] for module in modules() for name in imported(module.tree)}
    foreign = names - sys.stdlib_module_names - {PACKAGE, "", "__future__"}
    known = packages_distributions()
    return {SHARED.get(name, known[name][0]).lower().replace("_", "-") for name in foreign}


def test_what_is_used_is_declared() -> None:
    assert used() - declared() == set()


def test_what_is_declared_is_used() -> None:
    assert declared() - used() - UNSEEN.keys() == set()


def test_exceptions_are_still_needed() -> None:
    assert UNSEEN.keys() <= declared() - used()
