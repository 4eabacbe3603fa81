"""The browser: one found on the machine, else the headless Chromium that an npm package carries, fonts and all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

from tests.servers import node, tarballs

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "chrome-headless-shell")
_OLDEST = 135
"""The first that opens dialogs by `commandfor`, as the pages do."""
_VERSION = re.compile(r"Chrom\D*(\d+)\.")
_UNPACK_S = 120
_ASK_S = 20
_PROGRAM = """
const fs = require("fs"), zlib = require("zlib"), { pipeline } = require("stream/promises");
const [from, to, ...names] = process.argv.slice(1);
const unpack = (name) => pipeline(
  fs.createReadStream(`${from}/${name}.br`), zlib.createBrotliDecompress(), fs.createWriteStream(`${to}/${name}`));
Promise.all(names.map(unpack)).catch((error) => { console.error(error); process.exit(1); });
"""
# The package's own file names folders of another machine. The machine's fonts, where it has any, come after.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{folder}/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{folder}/cached</cachedir>
  <alias><family>sans-serif</family><prefer><family>Open Sans</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>Open Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


@cache
def executable() -> tuple[Path, dict[str, str]]:
    """The program, and what its environment must hold beside the usual."""
    found = _on_the_machine()
    return (found, {}) if found else _packaged()


def _on_the_machine() -> Path | None:
    paths = (shutil.which(name) for name in _NAMES)
    return next((Path(path) for path in paths if path and _is_able(path)), None)


def _is_able(path: str) -> bool:
    """Whether it starts, and is new enough: a distribution's may be a stub that only says how to install it."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = _VERSION.search(said.stdout)
    return said.returncode == 0 and version is not None and int(version[1]) >= _OLDEST


def _packaged() -> tuple[Path, dict[str, str]]:
    """Unpacked by whoever is first, once for that version."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise RuntimeError(
            f"The packaged Chromium is for Linux on x86-64: install Chromium or Chrome {_OLDEST} or newer on the PATH"
        )
    package = node.package("@sparticuz/chromium")
    version = json.loads((package / "package.json").read_text())["version"]
    way = hashlib.sha256((_PROGRAM + _FONTS).encode()).hexdigest()[:8]
    cached = platformdirs.user_cache_path("ostiary-tests") / f"chromium-{version}-{way}"
    with cached.with_name(f"{cached.name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not cached.exists():
            _unpack(package / "bin", cached)
    fonts = {"FONTCONFIG_FILE": str(cached / "fonts.conf"), "FONTCONFIG_PATH": str(cached)}
    libraries = os.pathsep.join(filter(None, [str(cached / "lib"), os.environ.get("LD_LIBRARY_PATH")]))
    return cached / "chromium", fonts | {"LD_LIBRARY_PATH": libraries}


def _unpack(packed: Path, folder: Path) -> None:
    """Beside its place first, so that what is there is whole."""
    begun = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        archives = ("al2023.tar", "fonts.tar")
        subprocess.run([node.NODE, "-e", _PROGRAM, packed, begun, "chromium", *archives], timeout=_UNPACK_S, check=True)
        for name in archives:
            tarballs.unpack(begun / name, begun)
            (begun / name).unlink()
        (begun / "fonts.conf").write_text(_FONTS.format(folder=folder))
        (begun / "chromium").chmod(0o755)
        begun.rename(folder)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
