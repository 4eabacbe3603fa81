"""What stands in `deploy/` is what the product understands, and gives it no more than it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from ostiary.settings import Settings, describe
from tests.structure.house import ROOT

DEPLOY: Final = ROOT / "deploy"
FILES: Final = sorted(path for path in DEPLOY.iterdir() if path.is_file())
NAMES: Final = {one.variable for one in describe()} | {f"{one.variable}_FILE" for one in describe() if one.is_secret}
PORT: Final = str(Settings().port)


def text(name: str) -> str:
    """A file, without its comments."""
    lines = (DEPLOY / name).read_text().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False, allow_no_value=True, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read_string((DEPLOY / "ostiary.service").read_text())
    return parser


def test_all_of_it_is_there() -> None:
    assert {path.name for path in FILES} == {
        *("Dockerfile", "Dockerfile.dockerignore", "compose.yaml", "ostiary.service", "ostiary.env"),
        *("Caddyfile", "nginx.conf"),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_settings_are_called_as_they_are(path: Any) -> None:
    found = set(re.findall(r"\bOSTIARY_[A-Z_]+\b", path.read_text()))
    assert found <= NAMES


def test_the_guide_speaks_of_settings_and_files_that_are_there() -> None:
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    assert set(re.findall(r"\bOSTIARY_[A-Z_]+\b", page)) <= NAMES
    assert {(ROOT / name).exists() for name in re.findall(r"\bdeploy/[A-Za-z.]+\.[a-z]+\b", page)} == {True}


def lint(name: str, path: Path) -> str:
    """What a linter says of a file, both from packages; nothing where all is well."""
    words = {
        "Dockerfile": ["hadolint", "--no-color", str(path)],
        "compose.yaml": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)],
    }[name]
    program = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    return ran.stdout + ran.stderr if ran.returncode else ""


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_linters_find_nothing(name: str) -> None:
    assert lint(name, DEPLOY / name) == ""


@pytest.mark.parametrize(
    ("name", "right", "wrong", "said"),
    [
        ("Dockerfile", "\nWORKDIR /src\n", "\nWORKDIR src\n", "DL3000"),
        ("Dockerfile", "COPY --from=uv /uv", "COPY --from=vu /uv vu", "DL3021"),
        ("Dockerfile", "&& useradd", "&& sudo useradd", "DL3004"),
        ("compose.yaml", "cap_drop:", "cap_dorp:", "'cap_dorp' was unexpected"),
        ("compose.yaml", "read_only: true", "read_only: [true]", "read_only"),
    ],
)
def test_linters_would_find_what_is_wrong(tmp_path: Path, name: str, right: str, wrong: str, said: str) -> None:
    whole = (DEPLOY / name).read_text()
    assert right in whole
    path = tmp_path / name
    path.write_text(whole.replace(right, wrong, 1))
    assert said in " ".join(lint(name, path).split())


def test_the_image_is_built_from_the_lock_and_run_by_nobody() -> None:
    stages = text("Dockerfile").split("\nFROM ")
    assert len(stages) == 4, "settings, uv, the build, and what is run"
    build, last = stages[-2], stages[-1]
    assert all("--locked" in line for line in build.splitlines() if "uv sync" in line)
    assert build.count("uv sync") == 2
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert "uv" not in re.findall(r"[\w/.-]+", last), "what builds does not come along"
    assert "COPY . " not in last
    assert 'ENTRYPOINT ["ostiary"]' in last
    assert f"EXPOSE {PORT}" in last
    assert f":{PORT}/health" in last
    assert "ghcr.io/astral-sh/uv:${UV}" in text("Dockerfile")
    for line in re.findall(r"^(?:FROM|COPY --from=)\s*(\S+)", text("Dockerfile"), re.MULTILINE):
        assert "latest" not in line


def test_nothing_secret_goes_into_the_image() -> None:
    lines = text("Dockerfile.dockerignore").split()
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert let_in == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "hatch_build.py", "src", "frontend"}
    assert all((ROOT / name).exists() for name in let_in)


def test_services_are_given_no_more_than_they_need() -> None:
    services = compose()["services"]
    gateway = services["gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc"}, name
        assert not [one for one in service.get("volumes", []) if one.startswith(("/", "."))], name
        assert not re.search(r":(latest)?$", service.get("image", "image:1")), name
    assert [name for name, one in services.items() if "ports" in one] == ["gateway"]
    assert gateway["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert services["database"]["networks"] == services["valkey"]["networks"] == ["back"]
    assert compose()["networks"]["back"] == {"internal": True}
    assert int(gateway["stop_grace_period"].removesuffix("s")) > Settings().drain_s


def test_secrets_are_files_and_each_is_there_for_who_reads_it() -> None:
    composed = compose()
    for name, service in composed["services"].items():
        given = {str(value) for value in service.get("environment", {}).values()}
        read = {value.removeprefix("/run/secrets/") for value in given if value.startswith("/run/secrets/")}
        assert read == set(service.get("secrets", [])), name
        assert read <= composed["secrets"].keys()
        for variable in service.get("environment", {}):
            secret = variable.removesuffix("_FILE") in {one.variable for one in describe() if one.is_secret}
            assert not secret or variable.endswith("_FILE"), variable
    assert set(composed["volumes"]) == {"gateway", "database"}


HARDENED: Final = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
    "StateDirectoryMode": "0700",
    "User": "ostiary",
}


@pytest.mark.parametrize("name", HARDENED)
def test_the_unit_is_hardened(name: str) -> None:
    assert unit()["Service"][name] == HARDENED[name]


def test_the_unit_starts_and_stops_a_gateway() -> None:
    service = unit()["Service"]
    assert service["ExecStart"].endswith("/bin/ostiary serve")
    assert int(service["TimeoutStopSec"]) > Settings().drain_s
    assert service["Environment"] == f"OSTIARY_DATA_DIR=%S/{service['StateDirectory']}"
    assert service["EnvironmentFile"] == "-/etc/ostiary/ostiary.env"


def test_the_units_settings_are_read() -> None:
    lines = [line.partition("=") for line in text("ostiary.env").split()]
    found = Settings.load(environment={name: value for name, _, value in lines})
    assert found.public_url == "https://gate.example.org"
    assert [str(one) for one in found.trusted_proxies] == ["127.0.0.1/32", "::1/128"]


def test_proxies_pass_streams_on_as_they_come_and_say_who_calls() -> None:
    nginx = text("nginx.conf")
    for line in (
        *(
            "proxy_buffering off;",
            "proxy_request_buffering off;",
            "proxy_http_version 1.1;",
            "proxy_next_upstream off;",
        ),
        *(
            "proxy_set_header Host $http_host;",
            "proxy_set_header X-Forwarded-For $remote_addr;",
            f"server 127.0.0.1:{PORT};",
        ),
    ):
        assert nginx.count(line) == 1, line
    assert nginx.count("{") == nginx.count("}")
    caddy = text("Caddyfile")
    assert "flush_interval -1" in caddy
    assert f"reverse_proxy 127.0.0.1:{PORT} " in caddy
    assert caddy.count("{") == caddy.count("}")
