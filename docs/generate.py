"""Rewrites the parts of the documentation that the code already knows; with `--check`, only says which have drifted."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

from typer.main import get_command

from ostiary import errors, settings
from ostiary.admin import routes as admin
from ostiary.cli import main as cli
from ostiary.cli import options
from ostiary.orgs import roles
from ostiary.providers import catalog

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = ROOT / "src" / "ostiary"
_REFERENCE: Final = "docs/reference"
_CATEGORY_NAMES: Final = {"llm": "LLM"}


def main() -> int:
    """Write every generated part, or with `--check` compare it; 1 when something was to be done."""
    drifted = []
    for path, marker, make in PARTS:
        file = ROOT / path
        old = file.read_text()
        new = put(old, marker, make())
        if new != old:
            drifted.append(f"{path}, {marker}")
            if "--check" not in sys.argv[1:]:
                file.write_text(new)
    for part in drifted:
        print(f"{part}: not as the code says. Run: uv run poe docs" if "--check" in sys.argv else f"{part}: rewritten")
    return 1 if drifted and "--check" in sys.argv else 0


def put(page: str, marker: str, text: str) -> str:
    """The page with `text` between `<!-- marker -->` and `<!-- /marker -->`."""
    start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page lacks {start.strip()} … {end}")
    return f"{before}{start}{text.strip()}\n{end}{after}"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    names = list(head)
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- ARCHITECTURE.md --------------------------------------------------------------------------------------------


def tree() -> str:
    """Every module with its sentence, the lowest floor first."""
    return "\n".join(["```", *_tree_lines(), "```"])


def _tree_lines() -> Iterator[str]:
    leaves = sorted(path for path in SOURCE.glob("*.py") if path.stem not in {"__init__", "app"})
    yield from (_tree_line(path.name, sentence(path)) for path in leaves)
    for room in floors():
        folder = SOURCE / room
        if folder.is_dir():
            yield ""
            yield _tree_line(f"{room}/", sentence(folder / "__init__.py"))
            yield from _room_lines(folder, depth=1)
        elif room == "app":
            yield ""
            yield _tree_line("app.py", sentence(SOURCE / "app.py"))


def _tree_line(name: str, said: str) -> str:
    return f"{name:<28} {said}"


def _room_lines(folder: Path, depth: int) -> Iterator[str]:
    indent = "    " * depth
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix == ".py" and path.name != "__init__.py":
            yield _tree_line(indent + path.name, sentence(path))
        elif path.is_dir() and (path / "__init__.py").exists() and path.name != "versions":
            yield _tree_line(f"{indent}{path.name}/", sentence(path / "__init__.py"))


def sentence(path: Path) -> str:
    """A module's docstring."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def floors() -> list[str]:
    """Rooms as the import contracts order them, the lowest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [layers] = [c["layers"] for c in config["tool"]["importlinter"]["contracts"] if c["id"] == "floors"]
    return [room.strip(" ()") for layer in reversed(layers) for room in layer.split("|")]


def floor_plan() -> str:
    """The floors as one line, the highest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [layers] = [c["layers"] for c in config["tool"]["importlinter"]["contracts"] if c["id"] == "floors"]
    return "```\n" + "\n".join(layer for layer in layers if not layer.startswith("(")) + "\n```"


# ---- reference --------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """Every setting."""
    rows = [
        (f"`{one.variable}`", f"`{one.name}`", says(one.says), _default(one.default)) for one in settings.describe()
    ]
    return table(("variable", "in the file", "what it does", "default"), rows)


def _default(value: str | None) -> str:
    return f"`{value.lower() if value in {'True', 'False'} else value}`" if value else ""


def says(text: str) -> str:
    """A sentence of the code in a table."""
    return " ".join(text.split())


def errors_page() -> str:
    """Every refusal."""
    rows = [
        (kind.status, f"`{code}`", f"`{kind.type}`", says(kind.when), says(kind.message))
        for code, kind in sorted(errors.TABLE.items(), key=lambda item: item[1].status)
    ]
    return table(("HTTP", "code", "type", "when", "message, where nothing more is known"), rows)


def permissions_page() -> str:
    """Roles by deeds."""
    names = list(roles.ROLES)
    rows = [(f"`{deed}`", *(roles.ROLES[role].get(deed, "–") for role in names)) for deed in roles.DEEDS]
    return table(("deed", *names), rows)


def providers_page() -> str:
    """The catalogue: what can be called, how it is signed in to, and what only is shown."""
    rows = catalog.load().search()
    called = [row for row in rows if row.callable]
    other = [row for row in rows if not row.callable]
    return "\n\n".join(
        [
            f"{len(called)} providers can be called.",
            table(_PROVIDER_HEAD, map(_provider_row, called)),
            "## Signing in",
            _SIGNING_IN,
            table(("id", "`--field`", "`--auth`", "other addresses"), map(_needs_row, called)),
            "## Not yet",
            f"{len(other)} are listed only, and refused by `vault add`.",
            table(("id", "name", "categories", "documentation", "why"), [_refused_row(row) for row in other]),
        ]
    )


_PROVIDER_HEAD: Final = (
    "id",
    "name, where keys are made",
    "documentation",
    "categories",
    "operations",
    "base URL",
    "free",
    "trains on data",
    "not verified",
)
_SIGNING_IN: Final = (
    "What is asked for beside the key; the ways to sign in, the usual one first, with the header that a call by it "
    "carries; and other addresses of the provider's own, for `--base-url`. A way that is not built yet is refused by "
    "`vault add`, with the reason that stands here."
)


def _provider_row(row: catalog.Provider) -> tuple[object, ...]:
    name = f"[{row.name}]({row.signup_url})" if row.signup_url else row.name
    where = f"`{row.base_url}`" if row.base_url else "given with the key"
    trains = {True: "yes", False: "no", None: ""}[row.trains_on_data]
    operations = ", ".join(one for one in get_args(catalog.Operation) if one in row.operations)
    unverified = ", ".join(row.unverified)
    return f"`{row.id}`", name, _docs(row), _shelves(row), operations, where, _free(row), trains, unverified


def _docs(row: catalog.Provider) -> str:
    return f"[{urlsplit(row.docs_url).hostname}]({row.docs_url})" if row.docs_url else ""


def _shelves(row: catalog.Provider) -> str:
    return ", ".join(_CATEGORY_NAMES.get(name, name.capitalize()) for name in row.categories)


def _free(row: catalog.Provider) -> str:
    tier = row.free_tier
    if tier is None or tier.kind in {"none", "local"}:
        return "everything" if tier and tier.kind == "local" else ""
    limits = f": {tier.limits}" if tier.limits else ""
    return f"{tier.kind.replace('_', ' ')}{limits} ({tier.as_of or 'not verified'})"


def _needs_row(row: catalog.Provider) -> tuple[object, ...]:
    regions = [f"`{name}` `{url}`" for name, url in row.regions.items()]
    return f"`{row.id}`", _fields(row.fields), "; ".join(map(_method, row.auth)), "; ".join(regions)


def _fields(fields: Iterable[catalog.Field]) -> str:
    return "; ".join(f"`{one.name}` {one.label}{'' if one.required else ' (may be left out)'}" for one in fields)


def _method(one: catalog.AuthMethod) -> str:
    fields = f", with {_fields(one.fields)}" if one.fields else ""
    how = f": `{one.header}: {one.format.replace('{key}', 'KEY')}`" if one.callable else f" – {one.reason}"
    return f"`{one.id}` {one.label}{fields}{how}"


def _refused_row(row: catalog.Provider) -> tuple[object, ...]:
    return f"`{row.id}`", row.name, _shelves(row), _docs(row), row.reason


def cli_page() -> str:
    """Every command, with its arguments and options, as `--help` has them."""
    nouns: Any = get_command(cli.app)
    return "\n\n".join(part for noun, stub in nouns.commands.items() for part in _command(noun, _load(noun), stub.help))


def _load(noun: str) -> Any:
    return get_command(importlib.import_module(f"ostiary.cli.{noun.replace('-', '_')}").app)


def _command(name: str, command: Any, summary: str = "") -> Iterator[str]:
    title = f"`ostiary {name}`"
    if hasattr(command, "commands"):
        yield f"## {title}\n\n{says(summary or command.help)}"
        for verb, inner in command.commands.items():
            yield from _command(f"{name} {verb}", inner)
        return
    level = "###" if " " in name else "##"
    usage = " ".join(filter(None, [f"ostiary {name}", *(_placeholder(p) for p in command.params)]))
    yield f"{level} {title}\n\n{paragraphs(command.help or summary)}\n\n```\n{usage}\n```"
    rows = [_option_row(param) for param in command.params if not _is_everywhere(param)]
    if rows:
        yield table(("", "what it does", "default"), rows)


def paragraphs(text: str) -> str:
    """A help text with its line breaks taken out."""
    return "\n\n".join(says(part) for part in re.split(r"\n\s*\n", text))


def _is_everywhere(param: Any) -> bool:
    """Whether the head of the page has said it for all commands; completion is the shell's business."""
    aliases: tuple[Any, ...] = (options.Org, options.DataDir, options.Json)
    common = {alias.__metadata__[0].help for alias in aliases}
    return param.name in {"help", "install_completion", "show_completion"} or getattr(param, "help", None) in common


def _placeholder(param: Any) -> str:
    """How an argument is written; nothing for an option."""
    if param.param_type_name != "argument":
        return ""
    name = (param.metavar or param.name).upper()
    return f"{name}…" if param.nargs != 1 else name


def _value(param: Any) -> str:
    """What an option takes, in the words of the command line."""
    if param.is_flag:
        return ""
    choices = get_args(param.type_descriptor.annotation)
    if get_origin(param.type_descriptor.annotation) is Literal:
        return " " + "|".join(choices)
    return f" {param.metavar or param.opts[-1].rpartition('-')[2].upper()}"


def _option_row(param: Any) -> tuple[str, str, str]:
    """One line of the table of a command."""
    many = " …" if getattr(param, "multiple", False) else ""
    name = _placeholder(param) or ", ".join([*param.opts, *param.secondary_opts]) + _value(param) + many
    shown = isinstance(param.default, str | int) and not isinstance(param.default, bool)
    default = "required" if param.required else str(param.default) if shown else ""
    return f"`{name}`", says(getattr(param, "help", "") or ""), default


def api_page() -> str:
    """Every route of the admin API."""
    rows = [
        (f"`{route.method} {route.full_path}`", says(_answer(route).partition("\n")[0]), f"`{route.scope}`")
        for route in admin.ROUTES
    ]
    return table(("route", "what it does", "scope"), rows)


def _answer(route: admin.Route) -> str:
    return getattr(importlib.import_module(f"ostiary.admin.{route.module}"), route.function).__doc__ or ""


PARTS: Final[tuple[tuple[str, str, Callable[[], str]], ...]] = (
    ("ARCHITECTURE.md", "tree", tree),
    ("ARCHITECTURE.md", "floors", floor_plan),
    (f"{_REFERENCE}/settings.md", "settings", settings_page),
    (f"{_REFERENCE}/errors.md", "errors", errors_page),
    (f"{_REFERENCE}/permissions.md", "permissions", permissions_page),
    (f"{_REFERENCE}/providers.md", "providers", providers_page),
    (f"{_REFERENCE}/cli.md", "cli", cli_page),
    (f"{_REFERENCE}/api.md", "routes", api_page),
)

if __name__ == "__main__":
    sys.exit(main())
