"""What an operator sees: /metrics, /health/details, `ostiary gateways` and the doctor, of real processes."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.cluster import Cluster
from tests.servers.canaries import Canaries
from tests.servers.gateway import NO_TLS, Gateway, GatewayMaker, making
from tests.servers.postgres import Postgres
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_TOKEN = "0123456789abcdef0123456789abcdef-operator"
_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="
_PAGES = ("/metrics", "/health/details")
T = TypeVar("T")


@dataclass
class Watched:
    """A gateway whose operator has a token."""

    gateway: Gateway
    secret: str

    def get(self, path: str, token: str | None = _TOKEN) -> httpx2.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx2.get(self.gateway.origin + path, headers=headers, timeout=20, verify=NO_TLS)

    def details(self) -> dict[str, Any]:
        answer = self.get("/health/details")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def numbers(self) -> dict[str, float]:
        """Every sample by its name and labels, as Prometheus would write it in a query."""
        answer = self.get("/metrics")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            sample.name + "".join(f"[{name}={value}]" for name, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


def _in_time(read: Callable[[], T], is_heard: Callable[[T], object]) -> T:
    """What was read when the database was heard in time, which it is not where the machine stands still for so long."""
    found: list[T] = []

    def look() -> object:
        found[:] = [read()]
        return is_heard(found[0])

    until(look, "the database to be heard in time")
    return found[0]


def _details(watched: Watched) -> dict[str, Any]:
    return _in_time(watched.details, lambda found: found["database"]["reachable"])


def _numbers(watched: Watched) -> dict[str, float]:
    return _in_time(watched.numbers, lambda found: found["ostiary_database_up"])


@pytest.fixture(scope="module")
def lodge(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path, shared_upstream: Upstream
) -> Iterator[Watched]:
    """One for all tests that only look."""
    with making(tmp_path_factory.mktemp("lodge"), canaries, shell, started) as maker:
        yield _watch(maker, shared_upstream)


def _watch(gateways: GatewayMaker, upstream: Upstream, **env: str) -> Watched:
    gateway = gateways(allow=[upstream.origin], env={"OSTIARY_OPERATOR_TOKEN": _TOKEN, "OSTIARY_NAME": "lodge", **env})
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    for model in ("ok", "gated", "status-500"):
        gateway.cli("prices", "set", f"openai-compatible/{model}", "--input", "1", "--output", "1")
    return Watched(gateway, gateway.create_key("a", "--budget-usd", "5", "--expires", "never"))


@pytest.fixture
def watched(gateways: GatewayMaker, upstream: Upstream) -> Watched:
    """On the embedded database."""
    return _watch(gateways, upstream)


@pytest.fixture
def pg_watched(gateways: GatewayMaker, upstream: Upstream, postgres_url: str) -> Watched:
    """On PostgreSQL."""
    return _watch(gateways, upstream, OSTIARY_DATABASE_URL=postgres_url, OSTIARY_MASTER_KEY=_KEY)


# ---- who may look -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", _PAGES)
def test_without_a_token_in_the_settings_there_is_no_such_page(gateway: Gateway, path: str) -> None:
    nothing = httpx2.get(f"{gateway.origin}/nothing-here")
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer None"}):
        answer = httpx2.get(gateway.origin + path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert answer.json()["error"]["message"] == nothing.json()["error"]["message"].replace("/nothing-here", path)


@pytest.mark.parametrize("path", _PAGES)
def test_only_the_operator_token_opens_it(lodge: Watched, path: str) -> None:
    assert lodge.get(path).status_code == 200
    missing = lodge.get(path, None)
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
    for wrong in (_TOKEN[:-1], _TOKEN + "x", _TOKEN.upper(), "x", lodge.secret):
        answer = lodge.get(path, wrong)
        assert answer.status_code == 401, wrong
        assert _TOKEN not in answer.text
    basic = httpx2.get(lodge.gateway.origin + path, auth=("operator", _TOKEN))
    assert basic.status_code == 401
    assert httpx2.get(f"{lodge.gateway.origin}{path}?token={_TOKEN}").status_code in {400, 401}
    assert lodge.get("/v1/key").status_code == 401, "it opens nothing else"
    assert _TOKEN not in lodge.gateway.output


def test_a_weak_token_stops_the_start_and_is_not_shown(gateways: GatewayMaker) -> None:
    gateway = gateways(start=False, env={"OSTIARY_OPERATOR_TOKEN": "a weak one"})
    process = gateway.spawn()
    assert process.wait(20) == 1
    assert "OSTIARY_OPERATOR_TOKEN: must be 32" in gateway.output
    assert "a weak one" not in gateway.output


def test_the_token_may_come_from_a_file(gateways: GatewayMaker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(_TOKEN + "\n")
    file.chmod(0o600)
    gateway = gateways(env={"OSTIARY_OPERATOR_TOKEN_FILE": str(file)})
    assert Watched(gateway, "").get("/metrics").status_code == 200


# ---- metrics ----------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_calls_tokens_cost_and_refusals_are_counted(watched: Watched) -> None:
    before = watched.numbers()
    assert "ostiary_calls_total[operation=chat][status=2xx]" not in before
    answers = [watched.gateway.chat(watched.secret, _MODEL, max_tokens=5) for _ in range(3)]
    assert watched.gateway.chat(watched.secret, "openai-compatible/status-500").status_code == 502
    assert watched.gateway.chat(watched.secret, "no-such-model").status_code == 404
    assert watched.gateway.chat("ost_pat_nonsense", _MODEL).status_code == 401
    found = _numbers(watched)
    assert found["ostiary_calls_total[operation=chat][status=2xx]"] == 3
    assert found["ostiary_calls_total[operation=chat][status=4xx]"] == 2
    assert found["ostiary_calls_total[operation=chat][status=5xx]"] == 1
    assert found["ostiary_refusals_total[code=model_not_found]"] == 1
    assert found["ostiary_refusals_total[code=invalid_token_format]"] == 1
    assert found["ostiary_attempts_total[operation=chat][provider=openai-compatible][status=ok]"] == 3
    assert found["ostiary_attempts_total[operation=chat][provider=openai-compatible][status=error]"] >= 1
    usage = [answer.json()["usage"] for answer in answers]
    assert found["ostiary_tokens_total[kind=input]"] == sum(one["prompt_tokens"] for one in usage)
    assert found["ostiary_tokens_total[kind=output]"] == sum(one["completion_tokens"] for one in usage)
    cost = sum(Decimal(answer.headers["x-ostiary-cost-usd"]) for answer in answers)
    assert found["ostiary_cost_usd_total"] == pytest.approx(float(cost), abs=1e-12)
    assert found["ostiary_info[name=lodge][version=0.1.0]"] == 1
    assert found["ostiary_database_up"] == 1
    assert found["ostiary_gateways_live"] == 1
    assert found["ostiary_process_resident_memory_bytes"] > 1e7
    assert 0 <= found["ostiary_event_loop_lag_seconds"] < 60
    assert found["ostiary_feed_age_seconds"] >= 0
    until(lambda: watched.numbers()["ostiary_feed_age_seconds"] < 5, "it to have heard of changes just now", 30)


def test_names_keep_to_the_custom(lodge: Watched) -> None:
    text = lodge.get("/metrics").text
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"ostiary_[a-z_]+", family.name), family.name
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
    assert not re.search(r"_(ms|milliseconds|kb|nano)\b", text)


def test_open_calls_are_seen_while_they_are_open(watched: Watched, upstream: Upstream) -> None:
    calling = threading.Thread(target=watched.gateway.chat, args=(watched.secret, "openai-compatible/gated"))
    calling.start()
    upstream.wait_for(1)
    assert watched.numbers()["ostiary_open_calls"] == 1
    upstream.gate.set()
    calling.join(20)
    assert watched.numbers()["ostiary_open_calls"] == 0


def test_no_name_of_a_caller_is_a_label(lodge: Watched) -> None:
    """Labels live long, in other systems: no key, no model that a caller may choose, nothing without bound."""
    lodge.gateway.chat(lodge.secret, "openai-compatible/made-up-by-the-caller")
    lodge.gateway.chat(lodge.secret, "made-up/by-the-caller")
    text = lodge.get("/metrics").text
    assert "made-up" not in text
    assert lodge.secret[:16] not in text
    assert "ost_pat" not in text


# ---- details ----------------------------------------------------------------------------------------------------


def test_details_say_how_it_is(lodge: Watched) -> None:
    lodge.gateway.chat(lodge.secret, _MODEL, max_tokens=5)
    found: dict[str, Any] = {}

    def is_well() -> bool:
        """What stands still for a moment has heard nothing for that long, and says so."""
        found.update(lodge.details())
        return not found["problems"] and found["feed_age_s"] < 5 and found["database"]["latency_ms"] < 3000

    until(is_well, "a moment in which nothing stands still", 30)
    assert (found["status"], found["problems"]) == ("ok", [])
    assert (found["name"], found["version"]) == ("lodge", "0.1.0")
    assert (found["database"]["kind"], found["database"]["reachable"]) == ("sqlite", True)
    bugged = (3, 7, 0) <= sqlite3.sqlite_version_info <= (3, 51, 2)
    assert bool(found["database"]["warning"]) == (
        bugged and sqlite3.sqlite_version_info not in {(3, 44, 6), (3, 50, 7)}
    )
    assert (found["windows"]["live"], found["windows"]["is_sure"]) == (1, True)
    [live] = found["gateways"]
    assert (live["name"], live["state"], live["id"]) == ("lodge", "live", found["owner"])
    assert found["revision"] > 0
    until(lambda: lodge.details()["spool"]["unsent"] == 0, "the ledger to have it all")


def test_a_job_that_fails_and_a_gateway_that_is_lost_are_problems(watched: Watched) -> None:
    database = watched.gateway.data_dir / "ostiary.db"
    _run(
        database,
        "INSERT OR REPLACE INTO jobs (name, next_at, ran_at, error)"
        " VALUES ('a job of the test', 9999999999999, 1, 'it fell')",
    )
    _run(
        database,
        "INSERT INTO owners (id, name, version, started_at, heartbeat_at) VALUES ('spool_x', 'cellar', '0', 1, 1)",
    )
    _run(
        database,
        "INSERT INTO leases (owner, scope, id, period_id, amount_nano, used_nano)"
        " VALUES ('spool_x', 'agent_key', 'k', 'total', 2000000000, 500000000)",
    )
    found = _details(watched)
    assert found["status"] == "degraded"
    assert any("it fell" in problem for problem in found["problems"])
    assert any("cellar" in problem for problem in found["problems"])
    numbers = _numbers(watched)
    assert numbers["ostiary_job_failing[job=a job of the test]"] == 1
    assert numbers["ostiary_gateways_lost_usd"] == 1.5
    checks = {(one["name"], one["status"]): one["message"] for one in watched.gateway.json("doctor")["checks"]}
    assert "it fell" in checks["jobs", "warning"]
    assert "cellar was lost with $1.5" in checks["gateways", "warning"]
    assert "Nobody is told" in checks["notifications", "warning"]


def test_while_the_database_is_away_it_says_so_soon(pg_watched: Watched, postgres: Postgres) -> None:
    assert _details(pg_watched)["database"] | {"latency_ms": 0} == {
        "kind": "postgresql",
        "reachable": True,
        "latency_ms": 0,
        "warning": None,
    }
    postgres.freeze()
    try:
        found = pg_watched.details()
        assert (found["status"], found["database"]["reachable"]) == ("degraded", False)
        assert found["gateways"] is None
        numbers = pg_watched.numbers()
        assert numbers["ostiary_database_up"] == 0
        assert "ostiary_gateways_live" not in numbers
    finally:
        postgres.thaw()
    until(lambda: pg_watched.details()["database"]["reachable"], "the database to be back", 30)


# ---- gateways ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def two(
    request: pytest.FixtureRequest, gateways: GatewayMaker, upstream: Upstream, tmp_path: Path
) -> tuple[Gateway, Gateway]:
    """Two gateways on one database."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    env = {"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY": _KEY}
    return (
        gateways(allow=[upstream.origin], env={**env, "OSTIARY_NAME": "east"}),
        gateways(allow=[upstream.origin], env={**env, "OSTIARY_NAME": "west"}),
    )


def _listed(gateway: Gateway, *options: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in gateway.json("gateways", "list", *options)}


def test_all_gateways_are_listed_with_what_they_know(two: tuple[Gateway, Gateway]) -> None:
    east, west = two
    east.create_key("a")
    west.hear()
    found: dict[str, dict[str, Any]] = {}

    def is_known() -> bool:
        found.update(_listed(east))
        return all(one["behind"] == 0 and one["heard_s"] < 15 for one in found.values())

    until(is_known, "both to have said what they know", 40)
    assert {name: one["state"] for name, one in found.items()} == {"east": "live", "west": "live"}
    assert found["east"]["revision"] == found["west"]["revision"] > 0
    assert found["west"]["version"] == "0.1.0"
    shown = east.cli("gateways", "list").out
    assert "east" in shown
    assert "live" in shown
    west.stop()
    assert _listed(east).keys() == {"east"}
    assert _listed(east, "--all")["west"]["state"] == "closed"


def test_a_live_gateway_is_not_retired_nor_one_that_is_not_there(two: tuple[Gateway, Gateway]) -> None:
    east, west = two
    ran = east.cli("gateways", "retire", "west", check=False)
    assert (ran.code, "lives" in ran.err) == (1, True)
    ran = east.cli("gateways", "retire", "north", check=False)
    assert (ran.code, "no such gateway" in ran.err) == (1, True)
    west.stop()
    ran = east.cli("gateways", "retire", "west", check=False)
    assert (ran.code, "stopped" in ran.err) == (1, True)


# ---- the doctor -------------------------------------------------------------------------------------------------


def test_the_doctor_hears_a_clock_that_is_wrong(gateways: GatewayMaker, postgres_url: str) -> None:
    env = {"OSTIARY_DATABASE_URL": postgres_url, "OSTIARY_MASTER_KEY": _KEY}
    gateway = gateways(env={**env, "OSTIARY_NAME": "hasty"}, clock=True)
    until(lambda: _of_clocks(gateway)[0] == "ok", "the doctor to hear of its time in time", 60)
    gateway.shift(30)

    def is_told() -> bool:
        """It says what time it is every five seconds; by then the doctor has it that much less ahead."""
        status, message = _of_clocks(gateway)
        return status == "warning" and re.search(r"hasty is (2[789]|30)\.\d s ahead of", message) is not None

    until(is_told, "the doctor to look soon after it was said", 60)


def test_the_doctor_says_whose_clock_it_has_not_heard(pg_watched: Watched, postgres_url: str) -> None:
    """One that hangs, or was killed a moment ago: here one of which there is no more than a heartbeat."""
    Cluster([], postgres_url).tamper(
        "INSERT INTO owners (id, name, version, started_at, heartbeat_at) VALUES ('spool_x', 'cellar', '0', 1, :at)",
        at=int((time.time() + 3600) * 1000),
    )
    warnings = [one["message"] for one in pg_watched.gateway.json("doctor")["checks"] if one["status"] == "warning"]
    assert any(said.startswith("cellar counts as live, but was not heard") for said in warnings), warnings


def _of_clocks(gateway: Gateway) -> tuple[str, str]:
    """How the doctor finds the clocks, and in what words."""
    clocks = [one for one in gateway.json("doctor")["checks"] if one["name"] == "clocks"]
    return (clocks[0]["status"], clocks[0]["message"]) if clocks else ("", "")


def test_the_doctor_names_the_master_key_and_sqlite(lodge: Watched) -> None:
    found = {one["name"]: one["message"] for one in lodge.gateway.json("doctor")["checks"]}
    assert re.search(r"\bmk_[0-9a-f]{12}\b", found["master key"])
    assert sqlite3.sqlite_version in found["SQLite"]


def _run(path: Path, query: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as db, db:
        db.execute(query)
