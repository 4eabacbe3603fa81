"""What `ostiary endpoints` and `ostiary aliases` do, print and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostiary.cli import targets
from ostiary.vault.endpoints import EndpointTarget
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, GatewayMaker, House
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> House:
    """One data directory for all tests here; each uses names of its own."""
    made = House(tmp_path_factory.mktemp("endpoints"), canaries, shell)
    made.add_provider_key("openai", "main key")
    return made


@pytest.fixture
def fresh(tmp_path: Path, canaries: Canaries, shell: Shell) -> House:
    """A data directory of the test's own."""
    return House(tmp_path, canaries, shell)


def refused(house: House, *words: str, code: int = 1) -> str:
    """What a command says that does not pass."""
    ran = house.cli(*words, check=False)
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err
    assert ran.out == ""
    return ran.err


def said(one: dict[str, Any]) -> list[str]:
    """The targets of one as they would be written."""
    return [
        ("fallback " if target["is_fallback"] else "") + targets.written(EndpointTarget(**target))
        for target in one["targets"]
    ]


# ---- how a target is written ------------------------------------------------------------------------------------

SPELLINGS = [
    ("openai/gpt-5-mini", EndpointTarget("openai", "gpt-5-mini")),
    ("groq/llama-3.3-70b:weight=2", EndpointTarget("groq", "llama-3.3-70b", weight=2)),
    ("openrouter/meta-llama/llama-3.3-70b:free", EndpointTarget("openrouter", "meta-llama/llama-3.3-70b:free")),
    ("openrouter/a/b:free:weight=10", EndpointTarget("openrouter", "a/b:free", weight=10)),
    ("openai@main/gpt-5-mini", EndpointTarget("openai", "gpt-5-mini", "main")),
    ("openai@a b: c@d/gpt-5:weight=3", EndpointTarget("openai", "gpt-5", "a b: c@d", 3)),
    ("cloudflare@main/@cf/meta/llama-3.1-8b", EndpointTarget("cloudflare", "@cf/meta/llama-3.1-8b", "main")),
    ("cloudflare/@cf/meta/llama-3.1-8b", EndpointTarget("cloudflare", "@cf/meta/llama-3.1-8b")),
    ("vertex/claude-sonnet@20250514", EndpointTarget("vertex", "claude-sonnet@20250514")),
    ("openai/ft:gpt-4o:acme::id:weight=1", EndpointTarget("openai", "ft:gpt-4o:acme::id")),
    ("x/m:weight=", EndpointTarget("x", "m:weight=")),
]


@pytest.mark.parametrize(("text", "meant"), SPELLINGS)
def test_a_target_is_read_as_it_is_meant_and_written_as_it_is_read(text: str, meant: EndpointTarget) -> None:
    assert targets.target(text) == meant
    assert targets.target(targets.written(meant)) == meant


@pytest.mark.parametrize("text", ["", "gpt-5", "openai/", "/gpt-5", "openai@/gpt-5", "@main/gpt-5", "openai/ "])
def test_what_is_no_target_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not a target such as"):
        targets.target(text)


@pytest.mark.parametrize(
    ("text", "ms", "shown"),
    [("500ms", 500, "500ms"), ("30s", 30_000, "30s"), ("2m", 120_000, "2m"), ("none", None, None)],
)
def test_a_timeout_is_read_and_shown(text: str, ms: int | None, shown: str | None) -> None:
    assert targets.timeout(text).value == ms
    assert targets.shown_timeout(ms) == shown


# ---- endpoints --------------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_an_endpoint_is_made_shown_edited_and_deleted(house: House) -> None:
    made = house.json(
        "endpoints", "create", "chat",
        "--target", "openai/gpt-5-mini", "--target", "groq/llama-3.3-70b-versatile:weight=2",
        "--fallback", "mistral/mistral-small-latest", "--strategy", "split", "--retries", "3", "--timeout", "30s",
    )  # fmt: skip
    assert said(made) == [
        "openai/gpt-5-mini",
        "groq/llama-3.3-70b-versatile:weight=2",
        "fallback mistral/mistral-small-latest",
    ]
    assert (made["strategy"], made["retries"], made["timeout_ms"]) == ("split", 3, 30_000)
    assert any("no key for groq" in hint for hint in made["hints"])
    assert house.json("endpoints", "show", "chat")["id"] == made["id"]
    assert [one["name"] for one in house.json("endpoints", "list")].count("chat") == 1
    only = house.json("endpoints", "edit", "chat", "--fallback", "openai/gpt-5-nano", "--timeout", "none")
    assert said(only) == [*said(made)[:2], "fallback openai/gpt-5-nano"]
    assert (only["strategy"], only["retries"], only["timeout_ms"]) == ("split", 3, None)
    other = house.json("endpoints", "edit", "chat", "--target", "openai/gpt-5", "--strategy", "first", "--retries", "0")
    assert said(other) == ["openai/gpt-5", "fallback openai/gpt-5-nano"]
    assert said(house.json("endpoints", "edit", "chat", "--no-fallback", "--name", "talk")) == ["openai/gpt-5"]
    assert house.json("endpoints", "delete", "talk") == {"id": made["id"], "name": "talk", "deleted": True}
    assert "no such endpoint" in refused(house, "endpoints", "show", "talk")


def test_a_target_may_name_a_key(house: House) -> None:
    made = house.json("endpoints", "create", "bound", "--target", "openai@main key/gpt-5-mini")
    assert made["targets"][0]["provider_key_id"].startswith("pkey_")
    assert "main key" in house.cli("endpoints", "show", "bound").out
    again = f"openai@{made['targets'][0]['provider_key_id']}/gpt-5-mini"
    assert said(made) == [again]
    assert house.json("endpoints", "edit", "bound", "--target", again)["targets"] == made["targets"]
    assert "is for openai" in refused(house, "endpoints", "edit", "bound", "--target", "groq@main key/x")
    assert "no provider key 'other'" in refused(house, "endpoints", "edit", "bound", "--target", "openai@other/x")


def test_people_read_tables(house: House) -> None:
    wide = ("endpoints", "create", "tabled", "--target", "openai/gpt-5-mini", "--fallback", "openai/gpt-5-nano")
    told = house.cli(*wide).out
    assert "The endpoint 'tabled' is made: 2 targets, 2 retries" in told
    house.create_key("reader", "--models", "tabled")
    [line] = [line for line in house.cli("endpoints", "list").out.splitlines() if line.startswith("tabled")]
    assert "first" in line
    assert "openai/gpt-5-mini" in line
    assert "openai/gpt-5-nano" in line
    shown = house.cli("endpoints", "show", "tabled").out
    assert "the first healthy target, in order" in shown
    assert "the gateway's own" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("reader")] == [["reader", "–", "yes"]]


def test_nothing_is_said_of_nothing(fresh: House) -> None:
    assert "ostiary endpoints create" in fresh.cli("endpoints", "list").out
    assert "ostiary aliases make" in fresh.cli("aliases", "list").out
    assert fresh.json("endpoints", "list") == fresh.json("aliases", "list") == []


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("create", "wrong"), "1 to 50 targets", 1),
        (("create", "--target", "openai/gpt-5"), "NAME is missing", 2),
        (("create", "wrong", "--target", "gpt-5"), "is not a target", 2),
        (("create", "wrong", "--target", "openia/gpt-5"), "openai", 1),
        (("create", "wrong", "--fallback", "openai/gpt-5"), "must not be a fallback", 1),
        (("create", "wrong", "--target", "openai/gpt-5:weight=0"), "1 to 1000", 1),
        (("create", "wrong", "--target", "openai/gpt-5", "--retries", "10"), "retries", 2),
        (("create", "wrong", "--target", "openai/gpt-5", "--timeout", "11m"), "600 s", 1),
        (("create", "wrong", "--target", "openai/gpt-5", "--timeout", "fast"), "not a duration", 2),
        (("create", "wrong", "--target", "openai/gpt-5", "--strategy", "random"), "strategy", 2),
        (("create", "openai/gpt-5", "--target", "openai/gpt-5"), "always means a model of OpenAI", 1),
        (("create", "ostiary/x", "--target", "openai/gpt-5"), "operator's aliases", 1),
        (("edit", "bound"), "Nothing to change", 2),
        (("edit", "nothing", "--retries", "1"), "no such endpoint", 1),
        (("delete", "nothing"), "no such endpoint", 1),
    ],
)
def test_what_cannot_be_is_refused(house: House, words: tuple[str, ...], says: str, code: int) -> None:
    assert says in refused(house, "endpoints", *words, code=code)
    assert "wrong" not in {one["name"] for one in house.json("endpoints", "list")}


@pytest.mark.parametrize("noun", ["endpoints", "aliases"])
def test_what_agent_keys_name_is_not_deleted_unawares(house: House, noun: str) -> None:
    name = f"used of {noun}"
    house.cli(noun, "create", name, "--target", "openai/gpt-5")
    house.create_key(f"user of {noun}", "--models", name)
    told = refused(house, noun, "delete", name)
    assert "1 agent key " in told
    assert f"user of {noun}" in told
    assert house.json(noun, "edit", name, "--retries", "1")["retries"] == 1
    assert "1 agent key " in refused(house, noun, "edit", name, "--name", "other")
    assert house.json(noun, "delete", name, "--force")["deleted"] is True


# ---- aliases ----------------------------------------------------------------------------------------------------


def test_an_alias_is_made_by_hand(fresh: House) -> None:
    made = fresh.json("aliases", "create", "ostiary/mine", "--target", "openai/gpt-5", "--retries", "0")
    assert (made["name"], made["retries"]) == ("ostiary/mine", 0)
    assert "no key for openai in the pool" in made["hints"][0]
    assert (
        "The alias 'ostiary/mine' is changed" in fresh.cli("aliases", "edit", "ostiary/mine", "--timeout", "500ms").out
    )
    assert fresh.json("aliases", "show", "ostiary/mine")["timeout_ms"] == 500
    assert "ostiary/mine" in fresh.cli("aliases", "list").out
    assert fresh.json("endpoints", "list") == []
    assert "is deleted" in fresh.cli("aliases", "delete", "ostiary/mine").out
    assert "no such alias" in refused(fresh, "aliases", "show", "ostiary/mine")


def test_aliases_are_made_over_the_pool(fresh: House) -> None:
    assert "vault add PROVIDER --name NAME --shared" in fresh.cli("aliases", "make").out
    fresh.cli(
        *("vault", "add", "mistral", "--name", "shared", "--shared", "--no-test", "--secret-stdin"),
        stdin=fresh.canaries.plant(),
    )
    names = ["ostiary/cheap", "ostiary/embed", "ostiary/fast", "ostiary/smart"]
    assert [one["name"] for one in fresh.json("aliases", "list")] == names
    assert fresh.json("aliases", "make") == [], "the first key of the pool has made them"
    assert "is deleted" in fresh.cli("aliases", "delete", "ostiary/embed").out
    assert "ostiary/embed" in fresh.cli("aliases", "make").out


def pooled(house: House, provider: str) -> None:
    """A provider key that everybody may use."""
    house.cli(
        *("vault", "add", provider, "--name", provider, "--shared", "--no-test", "--secret-stdin"),
        stdin=house.canaries.plant(),
    )


def aliases_of(house: House) -> dict[str, tuple[list[str], str]]:
    """The providers that each alias leads to, and when it was changed."""
    return {
        one["name"]: ([target["provider"] for target in one["targets"]], one["updated_at"])
        for one in house.json("aliases", "list")
    }


def test_a_gateway_makes_aliases_at_its_first_start_over_the_pool_and_never_writes_over_them(
    gateways: GatewayMaker,
) -> None:
    gateway = gateways(start=False)
    gateway.add_provider_key("groq", "private")
    gateway.start()
    alone = aliases_of(gateway)
    assert sorted(alone) == ["ostiary/cheap", "ostiary/fast", "ostiary/smart"]
    assert all(providers == ["groq"] for providers, _ in alone.values()), "nobody else is there to share it with"
    gateway.stop()
    pooled(gateway, "mistral")
    for name in aliases_of(gateway):  # as in an installation from before there were any
        gateway.cli("aliases", "delete", name)
    gateway.start()
    made = aliases_of(gateway)
    assert {name: providers for name, (providers, _) in made.items()} == {
        "ostiary/cheap": ["groq", "mistral"],
        "ostiary/embed": ["mistral"],
        "ostiary/fast": ["groq", "mistral"],
        "ostiary/smart": ["mistral", "groq"],
    }
    gateway.cli("aliases", "edit", "ostiary/fast", "--target", "mistral/mistral-large-2512")
    gateway.cli("aliases", "delete", "ostiary/embed")
    pooled(gateway, "openai")
    mine = aliases_of(gateway)
    targets = gateway.json("aliases", "show", "ostiary/fast")["targets"]
    gateway.restart()
    assert aliases_of(gateway) == mine
    assert sorted(mine) == ["ostiary/cheap", "ostiary/fast", "ostiary/smart"]
    assert gateway.json("aliases", "show", "ostiary/fast")["targets"] == targets
    assert [target["model"] for target in targets] == ["mistral-large-2512"]


# ---- as callers meet them ---------------------------------------------------------------------------------------


def test_a_running_gateway_follows_and_tells_who_called(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret = gateway.create_key("caller")

    def is_served(model: str) -> bool:
        return gateway.chat(secret, model).status_code == httpx2.codes.OK

    gateway.cli("endpoints", "create", "chat", "--target", "openai-compatible/ok")
    gateway.cli("aliases", "create", "ostiary/mine", "--target", "openai-compatible/ok")
    until(lambda: is_served("chat"), "the endpoint to be known")
    until(lambda: is_served("ostiary/mine"), "the alias to be known")
    gateway.cli("endpoints", "edit", "chat", "--name", "talk")
    until(lambda: is_served("talk"), "its new name to be known")
    assert gateway.chat(secret, "chat").status_code == httpx2.codes.NOT_FOUND
    gateway.stop()  # it writes now and then who called what, and when it ends
    for noun, name in (("endpoints", "talk"), ("aliases", "ostiary/mine")):
        [user] = gateway.json(noun, "show", name)["used_by"]["agent_keys"]
        assert user["name"] == "caller"
        assert user["last_used_at"].endswith("Z")
        assert not user["is_named"]
