"""The admin API against its own description: Schemathesis sends what it allows, and what it forbids."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostiary.admin.routes import ROUTES
from tests.acceptance.bureau import Bureau, reachable
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

_MOST_S = 540
"""A bound for what hangs; what is sent is bounded by its number, so that a slow machine sends no less."""
_CONFIG = """
[parameters]
organization = "{organization}"
"""
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
)
"""All but the one that wants everything of the right shape accepted: names are taken, cursors not given out."""


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        yield Bureau(maker(allow=["http://127.0.0.1:9"])).open()


def test_the_api_is_as_it_is_described(bureau: Bureau, tmp_path: Path) -> None:
    """As an operator who may everything, and whose own key is elsewhere, so that it outlives what is done here."""
    bureau.gateway.cli("members", "add", "olga@example.org", "--org", bureau.elsewhere)
    secret = bureau.mint("tester", "olga", reachable("olga"), bureau.elsewhere)
    (tmp_path / "schemathesis.toml").write_text(_CONFIG.format(organization=bureau.home))
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            *("run", f"{bureau.gateway.origin}/api/v1/openapi.json", "--header", f"Authorization: Bearer {secret}"),
            *("--checks", ",".join(_CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", "5"),
            *("--request-timeout", "60", "--suppress-health-check", "too_slow"),
            *("--seed", "1", "--no-color", "--continue-on-failure"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=_MOST_S,
        check=False,
    )
    said = ran.stdout.replace(secret, "***")
    assert ran.returncode == 0, said[-10_000:]
    generated = re.search(r"(\d+) generated", said)
    assert generated, said[-10_000:]
    assert int(generated[1]) > 10 * len(ROUTES)
    client = bureau.gateway.client(secret)
    assert client.get("/v1/key").status_code == 200, "it was signed in to the end"
    assert "request.failed" not in bureau.gateway.output
