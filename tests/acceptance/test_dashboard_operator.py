"""The operator's pages: organizations, pool, aliases, prices, gateways, master key; for nobody but the operator."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from ostiary.dashboard.routes import HOME, ROUTES
from ostiary.ground import Ground
from ostiary.orgs import organizations, roles
from ostiary.vault import aliases
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EndpointTarget
from tests.acceptance.lobby import BY, HOSTILE, Lobby
from tests.acceptance.pages import HOLD_ALL
from tests.servers import gateway as gateways_of
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import GatewayMaker
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until


@pytest.fixture(scope="module")
def lobby(
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    started: Path,
    shared_upstream: Upstream,
) -> Iterator[Lobby]:
    """Olga runs it, Alice owns the organization, and both organizations share a key with the pool."""
    with gateways_of.making(tmp_path_factory.mktemp("operator"), canaries, shell, started) as maker:
        # Patient, as some tests keep all from the database for as long as the page is waited for.
        made = Lobby(maker(allow=[shared_upstream.origin], entry=gateways_of.PATIENT)).open(
            "olga", "alice", "dora", elsewhere=HOSTILE
        )

        async def share(base: Ground) -> None:
            async with base.database.transaction() as tx:
                for org, name in ((made.home, "shared here"), (made.elsewhere, HOSTILE)):
                    url = {"base_url": shared_upstream.url}
                    await made.add_provider_key(base, tx, org, "openai-compatible", name, shared=True, **url)
                await made.add_provider_key(base, tx, made.home, "groq", "of its own")

        made.within(share)
        yield made


def test_an_organization_is_made_found_and_opened(lobby: Lobby, window: Window) -> None:
    page = lobby.enter(window, "olga", "/operator/organizations")
    page.get_by_role("button", name="Create organization").click()
    dialog = page.get_by_role("dialog", name="Create organization")
    dialog.get_by_label("Name").fill("x" * 10_000)
    window.expect("422")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    assert dialog.get_by_label("Name").input_value() == "x" * 10_000
    page.mouse.move(0, 0)
    window.axe("refused organization")
    dialog.get_by_label("Name").fill("default")
    window.expect("409")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_text("There is an organization named 'default' already.")).to_be_visible()
    dialog.get_by_label("Name").fill("Acme <b>&</b>")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("Acme <b>&</b> is made.")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="Acme <b>&</b>")
    row.get_by_role("button", name="Open").click()
    page.wait_for_url(lobby.url())
    expect(page.get_by_label("Organization", exact=True)).to_have_text(re.compile("Acme"))
    page.goto(lobby.url("/operator/organizations"))
    expect(page.get_by_role("link", name="You are here")).to_be_visible()
    page.get_by_role("searchbox", name="Search name or client id").fill("nothing like it")
    expect(page.get_by_text("No organization fits")).to_be_visible()
    expect(page).to_have_url(re.compile(r"q=nothing"))
    page.reload()
    expect(page.get_by_text("No organization fits")).to_be_visible()


def test_the_pool_shows_what_everybody_shares_and_leads_to_it(lobby: Lobby, window: Window) -> None:
    page = lobby.enter(window, "olga", "/operator/pool")
    expect(page.get_by_text("2 shown of 2")).to_be_visible()
    expect(page.get_by_text("of its own")).to_have_count(0)
    page.get_by_role("searchbox").fill("shared here")
    expect(page.get_by_text("1 shown of 1 that fit, 2 in all")).to_be_visible()
    page.goto(lobby.url("/operator/pool?health=ill"))
    expect(page.get_by_text("No key fits")).to_be_visible()
    page.goto(lobby.url("/operator/pool"))
    row = page.get_by_role("row").filter(has_text=HOSTILE).first
    with page.expect_request("**/operator/open") as asked:
        row.get_by_role("button", name="Open").click()
    answer = asked.value.response()
    assert answer is not None
    assert answer.headers["hx-redirect"].startswith("/dashboard/vault/")


async def _create(base: Ground, *wishes: NewEndpoint) -> None:
    async with base.database.transaction() as tx:
        for wish in wishes:
            await aliases.create(tx, BY, wish, catalog=base.catalog, at=base.clock.now())


def test_aliases_are_made_listed_and_edited(gateways: GatewayMaker, window: Window) -> None:
    lobby = Lobby(gateways()).open("olga")

    async def share(base: Ground) -> None:
        async with base.database.transaction() as tx:
            await lobby.add_provider_key(base, tx, lobby.home, "groq", "main", shared=True)

    page = lobby.enter(window, "olga", "/operator/aliases")
    expect(page.get_by_text("Share a provider key with the pool first.")).to_be_visible()
    window.axe("no alias, no pool")
    window.picture("operator-aliases-empty")
    page.get_by_role("link", name="To the pool").click()
    page.get_by_role("navigation", name="Operator").get_by_role("link", name="Aliases").click()
    page.get_by_role("button", name="Make usual aliases").click()
    expect(page.get_by_text("There is nothing to make")).to_be_visible()
    lobby.within(share)
    page.reload()
    expect(page.get_by_text("No alias yet")).to_be_visible()
    window.axe("no alias")
    page.get_by_role("button", name="Make usual aliases").last.click()
    expect(page.get_by_text(re.compile("^Made ostiary/fast, "))).to_be_visible()
    expect(page).to_have_url(lobby.url("/operator/aliases"))
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="ostiary/fast")).to_contain_text("From the catalogue")
    expect(rows.filter(has_text="ostiary/fast")).to_contain_text("usable")
    page.get_by_role("link", name="ostiary/smart").click()
    expect(page.get_by_role("heading", name="ostiary/smart", level=1)).to_be_visible()
    page.get_by_label("Retries").fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.goto(lobby.url("/operator/aliases"))
    expect(rows.filter(has_text="ostiary/smart")).to_contain_text("Edited")
    page.get_by_role("link", name="Create alias").click()
    expect(page.get_by_role("button", name="Create alias")).to_be_visible()


def test_an_alias_says_where_it_leads_and_why_it_is_not_usable(gateways: GatewayMaker, window: Window) -> None:
    lobby = Lobby(gateways()).open("olga")
    targets = [EndpointTarget("groq", HOSTILE, weight=3), EndpointTarget("mistral", "mistral-small-latest")]

    async def fill(base: Ground) -> None:
        async with base.database.transaction() as tx:
            await lobby.add_provider_key(base, tx, lobby.home, "groq", HOSTILE, shared=True)
            await lobby.add_provider_key(base, tx, lobby.home, "openai", "of its own")
            await organizations.create(tx, roles.operator(), "Another", base.clock.now())
        openai = EndpointTarget("openai", "gpt-5-mini")
        await _create(base, NewEndpoint(HOSTILE, targets, "split"), NewEndpoint("ostiary/own", [openai]))

    lobby.within(fill)
    page = lobby.enter(window, "olga", "/operator/aliases")
    split, alone = (page.locator("tbody tr").filter(has_text=name) for name in (HOSTILE, "ostiary/own"))
    for text in ("Your own", f"75 %groq/{HOSTILE}", "25 %mistral/mistral-small-latest", "1 of 2 targets"):
        expect(split).to_contain_text(text)
    expect(alone).to_contain_text("no key of its providers in the pool")  # this organization's own is not everybody's
    window.axe("aliases")
    window.picture("operator-aliases-filled-light")
    window.dark()
    window.picture("operator-aliases-filled-dark")
    window.light()
    window.narrow()
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("operator-aliases-filled-narrow")
    window.wide()
    with lobby.database() as database:
        database.execute("UPDATE provider_keys SET status = 'undecryptable' WHERE provider = 'groq'")
    page.reload()
    expect(split).to_contain_text("groq: 1 undecryptable")
    page.get_by_role("searchbox").fill("own")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_text("1 shown of 1 that fit, 2 in all")).to_be_visible()
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_text("No alias fits")).to_be_visible()
    window.axe("no alias fits")
    many = [NewEndpoint(f"many {number:02}", targets) for number in range(60)]
    lobby.within(lambda base: _create(base, *many))
    page.goto(lobby.url("/operator/aliases?q=many"))
    expect(page.get_by_text("50 shown of 60 that fit")).to_be_visible()
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_text("10 shown of 60 that fit")).to_be_visible()
    expect(page.get_by_role("link", name="many 59")).to_be_visible()


def test_a_price_is_set_and_nobody_elses_is_written_over(lobby: Lobby, windows: Windows) -> None:
    window, other = windows(), windows()
    page = lobby.enter(window, "olga", "/operator/prices")
    page.get_by_role("button", name="Look up or set a price").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Provider").select_option("openai")
    dialog.get_by_label("Model").fill("gpt/5 & co")
    window.axe("look up")
    dialog.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="gpt/5 & co")).to_be_visible()
    expect(page.get_by_text("No price is known")).to_be_visible()
    mine = other.open(lobby.url("/sign-in")) and lobby.enter(other, "olga", "/operator/prices")
    mine.goto(page.url)
    page.get_by_label("Input tokens").fill("much")
    window.expect("422")
    page.get_by_role("button", name="Set price").click()
    expect(page.get_by_text("'much' is not an amount in USD.")).to_be_visible()
    page.mouse.move(0, 0)
    window.axe("refused price")
    page.get_by_label("Input tokens").fill("1.25")
    window.expect("422")
    page.get_by_role("button", name="Set price").click()
    expect(page.get_by_text("The price of output is missing; 0 is a price.")).to_be_visible()
    page.get_by_label("Output tokens").fill("$10")
    page.get_by_role("button", name="Set price").click()
    expect(page.get_by_text("The price of openai/gpt/5 & co is set.")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="gpt/5 & co")
    expect(row).to_contain_text("$1.25")
    expect(row).to_contain_text("$10")
    mine.get_by_label("Input tokens").fill("3")
    mine.get_by_label("Output tokens").fill("4")
    other.expect("409")
    mine.get_by_role("button", name="Set price").click()
    expect(mine.get_by_text("Somebody has set this price meanwhile")).to_be_visible()
    expect(mine.get_by_text("input tokens $1.25 (yours: $3)")).to_be_visible()
    assert mine.get_by_label("Output tokens").input_value() == "4"
    mine.mouse.move(0, 0)
    other.axe("conflict")
    mine.get_by_role("button", name="Set price").click()
    expect(mine.get_by_text("The price of openai/gpt/5 & co is set.")).to_be_visible()
    mine.get_by_role("link", name="gpt/5 & co").click()
    expect(mine.get_by_label("Input tokens")).to_have_value("3")
    expect(mine.get_by_label("Read from a cache")).to_have_value("")
    other.picture("operator-price")
    mine.goto(lobby.url("/operator/prices/model?provider=openai&model=gpt-4o"))
    expect(mine.get_by_text("A published price")).to_be_visible()


def test_past_calls_are_put_right_after_a_preview(lobby: Lobby, window: Window) -> None:
    gateway = lobby.gateway
    secret = gateway.create_key("caller", "--org", lobby.home)
    said = gateway.chat(secret, "openai-compatible/echo")
    assert said.status_code == 200, said.text
    page = lobby.enter(window, "olga", "/operator/prices/recost")
    page.get_by_label("Model").fill("echo")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("Nothing would change.")).to_be_visible()
    gateway.cli("prices", "set", "openai-compatible/echo", "--input", "1000", "--output", "1000")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("1 call of the last 7 days would change")).to_be_visible()
    page.mouse.move(0, 0)
    window.axe("preview")
    window.picture("operator-recost-preview")
    page.get_by_role("button", name="Put them right").click()
    apply = page.get_by_role("dialog").get_by_role("button", name="Put them right")
    expect(apply).to_be_disabled()
    window.axe("put right")
    page.get_by_label("Type recost to confirm").fill("recost")
    apply.click()
    expect(page.get_by_text("One call was put right.")).to_be_visible()
    assert float(gateway.traces("--org", lobby.home)[0]["cost_usd"]) > 0


def over(client: httpx2.Client, said: httpx2.Response) -> httpx2.Response:
    """What came of a recost, whose page does not wait for it for long: asked again and again, as by the page."""
    answers = [said]

    def is_over() -> bool:
        further = re.search(r'hx-get="([^"]+/recost/[^"]+)"', answers[-1].text)
        if further is not None:
            answers.append(client.get(further[1]))
        return further is None

    until(is_over, "the end of a recost")
    return answers[-1]


def test_a_recost_that_takes_long_says_how_far_it_is(lobby: Lobby, window: Window) -> None:
    """Held up by somebody who writes: the page does not wait for it, and has what came of it when it is done."""
    gateway = lobby.gateway
    secret = gateway.create_key("held up", "--org", lobby.home)
    assert gateway.chat(secret, "openai-compatible/echo").status_code == 200
    gateway.cli("prices", "set", "openai-compatible/echo", "--input", "2000", "--output", "2000")
    page = lobby.enter(window, "olga", "/operator/prices/recost")
    page.get_by_label("Model").fill("echo")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Put them right").click()
    page.get_by_label("Type recost to confirm").fill("recost")
    with lobby.database() as database:
        database.execute("BEGIN IMMEDIATE")
        with page.expect_response("**/recost/apply"):
            page.get_by_role("dialog").get_by_role("button", name="Put them right").click()
        page.evaluate(HOLD_ALL)  # the gateway does not wait for as long as looking may take
    expect(page.get_by_role("progressbar", name="Putting calls right")).to_be_visible()
    window.picture("operator-recost-progress")
    page.evaluate("letGo()")
    expect(page.get_by_text(re.compile("calls? (was|were) put right"))).to_be_visible()
    page.wait_for_url(lobby.url("/operator/prices"))


def test_a_recost_that_runs_is_not_begun_once_more_beside_itself(lobby: Lobby) -> None:
    client, place = lobby.client("olga"), f"{HOME}/operator/prices/recost"
    secret = lobby.gateway.create_key("held up twice", "--org", lobby.home)
    assert lobby.gateway.chat(secret, "openai-compatible/echo").status_code == 200
    wished = {"since": "7", "model": "echo"}
    assert client.post(place, data=wished).status_code == 200  # what is counted is written by now
    with lobby.database() as database, ThreadPoolExecutor() as threads:
        database.execute("BEGIN IMMEDIATE")
        said = threads.map(lambda form: client.post(f"{place}/apply", data=form), [wished, wished, {"since": "30"}])
        names = [re.findall(f'hx-get="{place}/([^"]+)"', one.text) for one in said]
    assert len(names[0]) == 1
    assert names[1] == names[0]
    assert len(names[2]) == 1
    assert names[2] != names[0]
    for [name] in names:
        over(client, client.get(f"{place}/{name}"))


def test_a_recost_that_fails_halfway_says_what_it_did(lobby: Lobby) -> None:
    """It goes from one organization to the next, and the books of the last of them cannot be written."""
    gateway = lobby.gateway
    gateway.cli("prices", "set", "openai-compatible/echo", "--input", "3000", "--output", "3000")
    for organization in (lobby.home, lobby.elsewhere):
        secret = gateway.create_key("halfway", "--org", organization)
        assert gateway.chat(secret, "openai-compatible/echo").status_code == 200
    gateway.cli("prices", "set", "openai-compatible/echo", "--input", "4000", "--output", "4000")
    client, place = lobby.client("olga"), f"{HOME}/operator/prices/recost"
    wished = {"since": "7", "model": "echo"}
    assert client.post(place, data=wished).status_code == 200  # what is counted is written by now
    last = max(lobby.home, lobby.elsewhere)
    with lobby.database() as database:
        database.execute(
            "CREATE TRIGGER broken BEFORE UPDATE OF cost_nano ON usage_events"
            f" WHEN NEW.organization_id = '{last}' BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    try:
        said = over(client, client.post(f"{place}/apply", data=wished))
    finally:
        with lobby.database() as database:
            database.execute("DROP TRIGGER broken")
    assert said.status_code == 503
    found = re.search(r"The gateway failed at this; it is in the log\. (\w+) calls? (?:was|were) looked at", said.text)
    assert found is not None, said.text
    assert "starting it again puts right the rest" in said.text
    assert "Nothing was changed" not in said.text
    assert "recost.failed" in gateway.output
    said = over(client, client.post(f"{place}/apply", data=wished))
    assert "put%20right" in said.headers["set-cookie"]


def test_a_recost_that_is_not_known_here_leaves_the_page_as_it_is(lobby: Lobby) -> None:
    client = lobby.client("olga")
    assert client.get(f"{HOME}/operator/prices/recost/recost_unknown").status_code == 204


def test_a_lost_gateway_is_retired_by_its_name(lobby: Lobby, window: Window) -> None:
    # Not silent for a day: what such a one holds of a month long over counts as spent, by a job that runs every 15 s.
    old = round((time.time() - 600) * 1_000)
    with lobby.database() as database:
        database.execute(
            "INSERT INTO owners (id, name, version, started_at, heartbeat_at, revision) VALUES (?, ?, ?, ?, ?, ?)",
            ("own_lost", HOSTILE, "0.0.1", old, old, 1),
        )
        database.execute(
            "INSERT INTO accounts (scope, id, period_id, cap_nano, spent_nano, leased_nano) VALUES (?, ?, ?, ?, ?, ?)",
            ("organization", lobby.home, "2020-01", 9_000_000_000, 0, 2_500_000_000),
        )
        database.execute(
            "INSERT INTO leases (owner, scope, id, period_id, amount_nano, used_nano, charged_nano)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            ("own_lost", "organization", lobby.home, "2020-01", 2_500_000_000, 0, 0),
        )
    page = lobby.enter(window, "olga", "/operator")
    expect(page.get_by_text("was lost with money of budgets")).to_be_visible()
    page.goto(lobby.url("/operator/gateways"))
    row = page.get_by_role("row").filter(has_text=HOSTILE)
    expect(row).to_contain_text("lost")
    expect(row).to_contain_text("$2.50")
    window.picture("operator-gateways-lost")
    row.get_by_role("link").click()
    page.get_by_role("button", name="Retire").click()
    dialog = page.get_by_role("dialog", name="Retire this gateway?")
    expect(dialog.get_by_role("button", name="Retire")).to_be_disabled()
    window.axe("retire")
    window.picture("operator-gateway-retire")
    dialog.get_by_label("to confirm").fill(HOSTILE)
    dialog.get_by_role("button", name="Retire").click()
    expect(page.get_by_text("What it held counts as spent.")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text=HOSTILE)).to_contain_text("retired")
    page.get_by_role("link", name=re.compile("^(?!<img)")).and_(page.locator("table a")).first.click()
    expect(page.get_by_text("It lives. Stop it where it runs")).to_be_visible()


def test_the_master_key_is_rotated_while_the_gateway_serves(lobby: Lobby, window: Window) -> None:
    gateway = lobby.gateway
    secret = gateway.create_key("before", "--org", lobby.home)
    page = lobby.enter(window, "olga", "/operator/master-key")
    first = page.locator("tbody tr").first
    expect(first).to_contain_text("in use")
    name = first.locator("td").first.inner_text()
    page.get_by_role("button", name="Rotate").first.click()
    rotate = page.get_by_role("button", name="Rotate now")
    expect(rotate).to_be_disabled()
    window.axe("rotate")
    window.picture("operator-master-key-rotate")
    page.get_by_label(f"Type {name} to confirm").fill(name)
    rotate.click()
    expect(page.get_by_text("Back up the new key file.")).to_be_visible()
    expect(page.locator("tbody tr").first).not_to_contain_text(name)
    expect(page.locator("tbody tr").first).to_contain_text("in use")
    expect(page.locator("tbody tr").filter(has_text=name)).to_contain_text("retired")
    window.picture("operator-master-key-rotated")
    assert gateway.chat(secret, "openai-compatible/echo").status_code == 200
    assert name not in (gateway.data_dir / "master.key").read_text()


@pytest.mark.parametrize("name", ["alice", "dora"])
def test_an_owner_is_no_operator(lobby: Lobby, name: str) -> None:
    client = lobby.client(name)
    for route in (one for one in ROUTES if one.path.startswith("/operator")):
        path = route.full_path.replace("{id}", "own_lost")
        if route.is_write:
            answer = client.post(path, data={"name": "x", "organization": lobby.home, "since": "7"})
        else:
            answer = client.get(path)
        assert answer.status_code in (403, 404), (route, answer.text)
        assert "own_lost" not in answer.text
    assert "/dashboard/operator" not in client.get("/dashboard").text


def test_lists_are_turned_by_pages_that_keep_their_filters(lobby: Lobby, window: Window) -> None:
    async def add(base: Ground) -> None:
        async with base.database.transaction() as tx:
            for number in range(60):
                await organizations.create(tx, BY, f"Many {number:03}", base.clock.now())

    lobby.within(add)
    page = lobby.enter(window, "olga", "/operator/organizations")
    page.goto(lobby.url("/operator/organizations?q=many"))
    expect(page.get_by_text("50 shown of 60 that fit")).to_be_visible()
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_text("10 shown of 60 that fit")).to_be_visible()
    expect(page.get_by_role("cell", name="Many 059", exact=True)).to_be_visible()
    page.get_by_role("link", name="First page").click()
    expect(page.get_by_role("cell", name="Many 000", exact=True)).to_be_visible()
