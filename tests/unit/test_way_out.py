"""Whose names are looked up when keys are saved, how often, and how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from ostiary.providers.catalog import Provider, load
from ostiary.providers.egress import Egress
from ostiary.vault import entry
from ostiary.vault.store import ProviderKey

pytestmark = pytest.mark.anyio

CATALOG = load()
OPENAI, MISTRAL, AZURE = map(CATALOG.get, ("openai", "mistral", "azure-openai"))


@dataclass
class Names:
    """A name server that counts, and lets others run before it answers."""

    asked: list[str] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def look_up(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(20):
            await asyncio.sleep(0)
        self.running -= 1
        return ["10.0.0.1" if host.startswith("inside") else "9.9.9.9"]


def key(id: str, origin: str, provider: Provider = OPENAI) -> tuple[Provider, ProviderKey]:
    made = ProviderKey(
        id=id,
        organization_id="orgn_a",
        name=id,
        provider=provider.id,
        base_url=f"{origin}/v1",
        origin=origin,
        fields={},
        sealed="",
        sealed_version=0,
        preview="",
        shared=False,
        status="healthy",
        created_at=0,
        updated_at=0,
        last_used_at=None,
    )
    return provider, made


async def test_two_are_asked_at_once_and_each_once() -> None:
    names = Names()
    keys = [key(f"{host}-{turn}", f"https://{host}.example") for turn in range(3) for host in ("inside", *"abcdefg")]
    found = await entry.find_inward(Egress([], names.look_up), keys)
    assert sorted(names.asked) == sorted(f"{host}.example" for host in ("inside", *"abcdefg"))
    assert names.most == 2
    assert found.keys() == {f"inside-{turn}" for turn in range(3)}
    assert "inside.example leads to an address that is not public" in found["inside-0"].message


async def test_of_one_host_each_port_is_judged() -> None:
    names = Names()
    egress = Egress(["https://inside.example:8443"], names.look_up)
    keys = [key("listed", "https://inside.example:8443"), key("other", "https://inside.example")]
    assert (await entry.find_inward(egress, keys)).keys() == {"other"}


async def test_what_the_row_says_by_itself_is_not_asked_for() -> None:
    names = Names()
    home = "https://api.openai.com"
    resource = "https://my-resource.openai.azure.com"
    assert OPENAI.base_url is not None
    assert OPENAI.base_url.startswith(home)
    keys = [key("own", home), key("elsewhere", home, MISTRAL), key("of a field", resource, AZURE)]
    keys += [key(f"region-{name}", "/".join(url.split("/")[:3])) for name, url in OPENAI.regions.items()]
    await entry.find_inward(Egress([], names.look_up), keys)
    assert sorted(names.asked) == ["api.openai.com", "my-resource.openai.azure.com"]
