"""The documentation says what the code says, and its links lead somewhere."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ostiary import errors, settings
from ostiary.orgs import roles
from tests.structure.house import ROOT, Module, modules

REFERENCE = ROOT / "docs" / "reference"


def generate(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "docs" / "generate.py", *options],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of the project that the documentation is made from, to spoil."""
    for folder in ("docs", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("ARCHITECTURE.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_generated_parts_are_as_the_code_says() -> None:
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


SPOILT = (
    ("ARCHITECTURE.md", "Exact US dollars", "Rough US dollars"),
    ("docs/reference/settings.md", "OSTIARY_PORT", "OSTIARY_PROT"),
    ("docs/reference/errors.md", "`model_not_found`", "`model_lost`"),
    ("docs/reference/permissions.md", "| `members.role` | all | all | – |", "| `members.role` | all | all | all |"),
    ("docs/reference/providers.md", "https://api.openai.com/v1", "https://api.openai.com/v2"),
    ("docs/reference/cli.md", "--budget-usd", "--budget-eur"),
)


def test_drift_is_seen_and_mended(copy: Path) -> None:
    right = {page: (copy / page).read_text() for page, _, _ in SPOILT}
    for page, old, new in SPOILT:
        assert old in right[page]
        (copy / page).write_text(right[page].replace(old, new))
    seen = generate(copy, "--check")
    assert seen.returncode == 1
    assert all(f"{page}, " in seen.stdout for page in right)
    assert generate(copy).returncode == 0
    assert {page: (copy / page).read_text() for page in right} == right


@pytest.mark.parametrize("code", errors.TABLE)
def test_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in (REFERENCE / "errors.md").read_text()


@pytest.mark.parametrize("setting", settings.describe(), ids=lambda one: str(one.name))
def test_setting_is_documented(setting: settings.Described) -> None:
    assert f"`{setting.variable}`" in (REFERENCE / "settings.md").read_text()
    assert setting.says.endswith(".")


def test_deeds_are_documented() -> None:
    page = (REFERENCE / "permissions.md").read_text()
    assert all(f"`{deed}`" in page for deed in roles.DEEDS)


def is_one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and not re.search(r"[.!?] +[A-Z]", text) and text == text.strip()


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.where))
def test_module_begins_with_one_sentence(module: Module) -> None:
    said = ast.get_docstring(module.tree)
    assert said, "no docstring"
    assert is_one_sentence(said), said


@pytest.mark.parametrize("text", ["No end", "Two. Sentences.", "Two\nlines."])
def test_other_docstrings_would_be_seen(text: str) -> None:
    assert not is_one_sentence(text)


def test_tree_names_every_module() -> None:
    """Each module's sentence stands in the tree, word for word; revisions of the schema are history, not rooms."""
    tree = (ROOT / "ARCHITECTURE.md").read_text()
    for module in modules():
        if not module.is_init and "versions/" not in module.where and module.where != "db/migrations/env.py":
            assert re.search(rf"{module.path.name} +{re.escape(ast.get_docstring(module.tree) or '')}\n", tree), (
                module.where
            )


PAGES = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if ".venv" not in path.parts]
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)#]*)(#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            assert anchor[1:] in anchors(path), f"{target}{anchor}"


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.+)$", path.read_text())
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_pages_exist(page: Path) -> None:
    """`ostiary NOUN VERB` in a page is a command that the reference knows."""
    known = (REFERENCE / "cli.md").read_text()
    for block in re.findall(r"`([^`]+)`", page.read_text()):
        for noun, verb in re.findall(r"\bostiary ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+(?:-[a-z]+)*))?", block):
            assert f"`ostiary {noun}`" in known, block
            if verb and f"## `ostiary {noun} " in known:
                assert f"`ostiary {noun} {verb}`" in known, block


def test_decisions_are_numbered_short_and_listed() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for path in records:
        assert path.read_text().count("\n") <= 60, path.name
        assert path.name in listed


def test_readme_holds_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install uv && uv run ostiary demo" in readme
    assert "pip install uv && uv run poe test" in readme
    assert "pip install uv && uv run poe test\nuv run poe test-thorough\n" in (ROOT / ".ci" / "run").read_text()
    assert "python3 -m venv" in readme


def test_the_two_runs_of_the_suite_leave_nothing_out() -> None:
    tasks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["poe"]["tasks"]
    quick = tasks["test"]["cmd"]
    assert quick.endswith(" -m 'not thorough'")
    assert tasks["test-thorough"]["sequence"][-1]["cmd"] == quick.replace("'not thorough'", "thorough")


def test_paths_in_readme_and_contributing_exist() -> None:
    """What a reader is told to run or open is there."""
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"):
        for path in re.findall(r"\b((?:tests|docs|src|bench)/[\w./-]+\w)", (ROOT / name).read_text()):
            assert (ROOT / path).exists(), f"{name}: {path}"
