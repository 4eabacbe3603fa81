"""The door of the admin API itself: what it shows to everybody, what it costs, and how it closes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.acceptance.bureau import Bureau, code
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

pytestmark = pytest.mark.main_job


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Bureau]:
    with making(tmp_path_factory.mktemp("bureau"), canaries, shell) as maker:
        yield Bureau(maker()).open()


def test_the_description_is_for_everybody(bureau: Bureau) -> None:
    answer = bureau.gateway.client().get("/api/v1/openapi.json")
    described = answer.json()
    assert described["openapi"].startswith("3.1")
    assert {one["type"] for one in described["components"]["securitySchemes"].values()} == {"http"}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["security"] == [{"agent_key": []}], path
            assert "default" in operation["responses"], path
            names = {parameter["name"] for parameter in operation["parameters"]}
            assert ("Idempotency-Key" in names) == (method != "get"), path
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_only_answers_that_make_a_secret_have_a_place_for_it(bureau: Bureau) -> None:
    described = bureau.gateway.client().get("/api/v1/openapi.json").json()
    schemas = described["components"]["schemas"]
    secrets = {name: schema["properties"].get("secret") for name, schema in schemas.items() if "properties" in schema}
    holders = {name for name, secret in secrets.items() if secret is not None and "writeOnly" not in str(secret)}
    assert holders == {"MadeKey", "MadeCredential", "MadeWebhook"}
    showing = {
        operation["operationId"]
        for methods in described["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        if any(f'/{name}"' in json.dumps(response) for name in holders)
    }
    assert showing == {
        *("agent_keys_create", "agent_keys_rotate", "agent_keys_ephemeral", "agent_keys_lone_ephemeral"),
        *("client_credentials_create", "webhooks_create", "webhooks_change"),
    }


def test_the_documentation_needs_nothing_from_elsewhere(bureau: Bureau) -> None:
    for path in ("/api/docs", "/api", "/api/"):
        answer = bureau.gateway.client().get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "POST /api/v1/agent-keys" in answer.text
        assert not re.search(r"<script|https?://|\son\w+=|style=", answer.text)
    assert bureau.gateway.client().post("/api/docs").status_code == 405
    assert bureau.gateway.client().head("/api/docs").content == b""


def test_every_answer_is_safe_to_keep_from_browsers_and_caches(bureau: Bureau) -> None:
    answers = [
        bureau.ask("alice", "GET", "/agent-keys"),
        bureau.ask(None, "GET", "/agent-keys"),
        bureau.ask("alice", "GET", "/nowhere"),
        bureau.gateway.client().get("/api/v1/openapi.json"),
    ]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["x-request-id"].startswith("req_")
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_an_error_is_a_problem(bureau: Bureau) -> None:
    answer = bureau.ask("alice", "POST", "/agent-keys", json={"rpm": 0, "colour": "red"})
    problem = answer.json()
    assert problem["type"] == "urn:ostiary:error:invalid_field"
    assert problem["title"]
    assert problem["status"] == 422
    assert {one["field"] for one in problem["errors"]} == {"name", "rpm", "colour"}


def test_the_other_door_is_another(bureau: Bureau) -> None:
    client = bureau.gateway.client(bureau.secrets["alice"])
    assert client.get("/apix").json()["error"]["code"] == "not_found"
    assert code(bureau.ask("alice", "GET", "/v1/models")) == "not_found"
    assert client.get("/v1/api/v1/agent-keys").json()["error"]["code"] == "not_found"


def test_head_is_get_without_its_body(bureau: Bureau) -> None:
    answer = bureau.ask("alice", "HEAD", "/agent-keys")
    assert (answer.status_code, answer.content) == (200, b"")
