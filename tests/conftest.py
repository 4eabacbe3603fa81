"""What every test may ask for: real servers, the gateway, people, canaries; and the sweep when all is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import behaviours, canaries, gateway, llama, oidc, postgres, receiver, shell, valkey
from tests.servers.canaries import REGISTER, Canaries, Leak
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.llama import Llama
from tests.servers.oidc import OidcMaker
from tests.servers.postgres import Postgres
from tests.servers.receiver import Receiver
from tests.servers.shell import Shell
from tests.servers.smtp import Smtp
from tests.servers.upstream import Upstream
from tests.servers.waiting import until_the_day_is_young

if TYPE_CHECKING:  # Playwright takes a third of a second to import, which most runs have no use for
    from tests.servers.browser import Browser, Window, Windows

# How long an example takes says something of the machine, which other tests keep busy, and nothing of what is tested.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What has passed passes again: the same examples in every run. `poe fuzz` looks for other ones.
settings.register_profile("same", _UNHURRIED, derandomize=True)
settings.register_profile("afresh", _UNHURRIED, max_examples=1_000)
settings.load_profile("same")

_LEAKS = pytest.StashKey[list[Leak]]()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The loop under async tests; the product's own is uvloop, tried in tests/acceptance."""
    return "asyncio"


@pytest.fixture
def one_day() -> None:
    """For tests that count by the day or the month: none ends while they run."""
    until_the_day_is_young()


@pytest.fixture(scope="session", name="canaries")
def the_canaries(tmp_path_factory: pytest.TempPathFactory) -> Canaries:
    """Secrets to plant, and what to watch for: `canaries.plant()` for the vault, `canaries.watch(minted)`."""
    return Canaries(tmp_path_factory.mktemp("canaries") / REGISTER)


@pytest.fixture(scope="session", name="postgres")
def the_postgres(canaries: Canaries) -> Iterator[Postgres]:
    """A real PostgreSQL, one for each worker of the suite."""
    with postgres.running(canaries) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A fresh, empty database in it, as OSTIARY_DATABASE_URL."""
    name = postgres.make()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(scope="session", name="valkey")
def the_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey; its URL."""
    with valkey.running(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session", name="llama")
def the_llama(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Iterator[Llama]:
    """A real llama.cpp server that chats."""
    with llama.running(tmp_path_factory.mktemp("llama"), canaries) as server:
        yield server


@pytest.fixture(scope="session")
def llama_embeddings(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Iterator[Llama]:
    """A real llama.cpp server that makes embeddings."""
    with llama.running(tmp_path_factory.mktemp("llama"), canaries, embedding=True) as server:
        yield server


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A provider that does what the test tells it: see `tests/servers/behaviours.py`."""
    with behaviours.serving() as server:
        yield server


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    """The same for all tests of a file, beside `shared_gateway`; it chooses by model name, pushes would mix."""
    with behaviours.serving() as server:
        yield server


@pytest.fixture
def smtp() -> Iterator[Smtp]:
    """A real SMTP server that takes every letter."""
    with Smtp().running() as server:
        yield server


@pytest.fixture(name="receiver")
def the_receiver() -> Iterator[Receiver]:
    """Somebody's server that webhooks post to: it takes what is signed, fresh and new."""
    with receiver.running() as server:
        yield server


@pytest.fixture(name="oidc")
def the_oidc(tmp_path: Path, canaries: Canaries) -> Iterator[OidcMaker]:
    """Starts real OpenID providers: `oidc(redirect_uri, accounts={…})`."""
    with oidc.making(tmp_path, canaries) as maker:
        yield maker


@pytest.fixture(scope="session", name="browser")
def the_browser() -> Iterator[Browser]:
    """A real browser, one for each worker of the suite; tests use `window`."""
    from tests.servers import browser

    with browser.running() as one:
        yield one


@pytest.fixture
def windows(browser: Browser, tmp_path: Path) -> Iterator[Windows]:
    """What opens a window for each person, when one is not enough."""
    from tests.servers.browser import opening

    with opening(browser, tmp_path) as opened:
        yield opened


@pytest.fixture
def window(windows: Windows) -> Window:
    """What the test looks through; whatever goes wrong in it unasked fails the test."""
    return windows()


@pytest.fixture(scope="session", name="shell")
def the_shell() -> Iterator[Shell]:
    """What `ostiary` commands are run by; tests use `gateway.cli(…)`."""
    with shell.running() as one:
        yield one


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Path:
    """A data directory after its first start."""
    house = gateway.House(tmp_path_factory.mktemp("started"), canaries, shell)
    house.cli("keys", "list")
    return house.data_dir


@pytest.fixture
def gateways(tmp_path: Path, canaries: Canaries, shell: Shell, started: Path) -> Iterator[GatewayMaker]:
    """Starts real gateways: `gateways(allow=[upstream.origin], env={…}, clock=True)`."""
    with gateway.making(tmp_path, canaries, shell, started) as maker:
        yield maker


@pytest.fixture(name="gateway")
def the_gateway(gateways: GatewayMaker, upstream: Upstream) -> Gateway:
    """A fresh gateway that may reach `upstream`, with nothing in its vault."""
    return gateways(allow=[upstream.origin])


@pytest.fixture(scope="module")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    started: Path,
    shared_upstream: Upstream,
) -> Iterator[Gateway]:
    """One gateway for all tests of a file, whose vault holds a key for `shared_upstream`, named `upstream`.

    Give each test an agent key of its own. Calls go to `openai-compatible/NAME`, NAME being a behaviour's.
    """
    with gateway.making(tmp_path_factory.mktemp("shared"), canaries, shell, started) as maker:
        made = maker(allow=[shared_upstream.origin])
        made.add_provider_key("openai-compatible", "upstream", shared_upstream.url)
        yield made


# ---- what `poe test` asks and what it leaves to `poe test-thorough` ----------------------------------------------


@pytest.hookimpl(tryfirst=True)  # before `-m` is heeded
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is thorough: see docs/decisions/0019-two-runs-of-the-suite.md."""
    for item in items:
        if _is_thorough(item):
            item.add_marker(pytest.mark.thorough)


def _is_thorough(item: pytest.Item) -> bool:
    """Whether it asks more of a part than its main job, on PostgreSQL what is asked on SQLite, or after the rigs."""
    call = getattr(item, "callspec", None)  # of those with parameters only
    if call is not None and "postgresql" in call.params.values():
        return True
    folder = item.path.parent.name
    return folder == "servers" or (folder == "acceptance" and item.get_closest_marker("main_job") is None)


# ---- the canary sweep -------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Begin without leaks."""
    config.stash[_LEAKS] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """When all is done: read everything the suite left on disk; a secret in the clear fails the run."""
    config = session.config
    if hasattr(config, "workerinput"):
        return  # a worker of xdist: its controller sweeps for all
    root = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    watched = canaries.registered(root)
    leaks = canaries.sweep(root, watched)
    sweeper = canaries.Sweeper(watched)
    for report in _reports(config):
        for title, text in report.sections:
            leaks += sweeper.search_text(f"{report.nodeid}, {title}", text)
    config.stash[_LEAKS] = leaks
    if leaks:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which secrets were found, and where."""
    leaks = config.stash[_LEAKS]
    if leaks:
        terminalreporter.section("secrets in the clear", sep="!", red=True)
        for leak in leaks[:50]:
            terminalreporter.line(str(leak))


def _reports(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    found = [report for reports in reporter.stats.values() for report in reports] if reporter else []
    return [report for report in found if isinstance(report, pytest.TestReport)]
