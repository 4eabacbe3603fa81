"""One of everything that a page shows, each with texts in it that would run if they were ever taken for code."""

from __future__ import annotations

from typing import Any, Final

from ostiary.agents import agent_keys, client_credentials
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.db.database import Transaction
from ostiary.ground import Ground
from ostiary.ledger import prices
from ostiary.limits.budgets import Budget
from ostiary.orgs import members, organizations, roles
from ostiary.vault import aliases, endpoints, webhooks
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EndpointTarget
from ostiary.vault.webhooks import NewWebhook
from tests.acceptance.lobby import BY, Lobby

MARK: Final = "onerror=alert(1)"
EVIL: Final = (
    f"<img src=x {MARK}>\"'</script><svg onload=alert(2)>${{alert(3)}}{{{{constructor.constructor('alert(4)')()}}}}"
)
"""In a name: markup, both quotes, the end of a script, and the braces of templates, ours and others'."""
PARTS: Final = (
    "javascript:alert(5)",
    "--><b x-init=alert(6)>",
    "' autofocus onfocus=alert(7) '",
    '</textarea><u x-data="alert(8)">',
)
MODEL: Final = "<svg onload=alert(9)>\"'&"
METADATA: Final = {"note": EVIL, EVIL: list(PARTS), "nested": {"</script><script>alert(10)</script>": EVIL}}


async def fill(lobby: Lobby, base: Ground, provider_url: str) -> dict[str, str]:
    """Make it all in the home organization; ids by noun. The secrets are never seen again."""
    home, at = lobby.home, base.clock.now()
    async with base.database.transaction() as tx:
        await organizations.change(tx, BY, home, {"name": EVIL}, at)
        user = await members.add(tx, BY, home, "evil'<b>@example.org", EVIL, "admin", at)
        found = {
            "user": user.user_id,
            "provider_key": await lobby.add_provider_key(
                base,
                tx,
                home,
                "openai-compatible",
                EVIL,
                base_url=provider_url,
                shared=True,
                tags=tuple(part[:40] for part in PARTS),
                account=EVIL[:60],
                budget=Budget("month", 5_000_000_000),
            ),
        }
        found |= await _incoming(lobby, base, tx)
        found |= await _routes(lobby, base, tx)
        hook, secret = await webhooks.create(
            tx, BY, home, NewWebhook(EVIL, f"{provider_url}/?x=%3Cimg"), seal=base.seal, egress=base.egress, at=at
        )
        lobby.gateway.canaries.watch(secret.reveal())
        rates = {"input": 1_000_000_000, "output": 2_000_000_000}
        for model in (EVIL, MODEL):
            await prices.set_price(tx, BY, base.catalog.get("openai-compatible"), model, rates, at)
    return found | {"webhook": hook.id}


async def _incoming(lobby: Lobby, base: Ground, tx: Transaction) -> dict[str, str]:
    at = base.clock.now()
    wish = NewAgentKey(EVIL, lobby.ids["alice"], metadata=METADATA, budget=Budget("month", 9_000_000_000), capture=True)
    key, secret = await agent_keys.create(
        tx, BY, lobby.home, wish, pepper=base.seal.pepper, at=at, grant=roles.judge_scopes
    )
    client_id = (await organizations.show(tx, BY, lobby.home)).client_id
    triple, both = await client_credentials.create(
        tx, BY, lobby.home, EVIL, client_id=client_id, pepper=base.seal.pepper, at=at
    )
    lobby.gateway.canaries.watch(both.reveal())
    lobby.gateway.canaries.watch(secret.reveal())
    return {"agent_key": key.id, "agent_key_secret": secret.reveal(), "client_credential": triple.id}


async def _routes(lobby: Lobby, base: Ground, tx: Transaction) -> dict[str, str]:
    target = EndpointTarget("openai-compatible", MODEL)
    at: dict[str, Any] = {"catalog": base.catalog, "at": base.clock.now()}
    one = await endpoints.create(tx, BY, lobby.home, NewEndpoint(EVIL, [target]), **at)
    alias = await aliases.create(tx, BY, NewEndpoint(f"ostiary/{MODEL}", [target]), **at)
    return {"endpoint": one.id, "alias": alias.id}
