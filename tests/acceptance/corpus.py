"""One of everything that a page shows, each with texts in it that would run if they were ever taken for code."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from ostiary.agents import agent_keys, client_credentials
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.db.database import Transaction
from ostiary.ground import Ground
from ostiary.ledger import prices
from ostiary.limits.budgets import Budget
from ostiary.orgs import invitations, members, organizations, roles, sessions
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
AGENT: Final = f"<embed/onload=alert(11)>\"'><img src=x {MARK}>"
"""As a browser may call itself: what is shown of it ends at the slash, the rest is told on hover."""
SAID: Final = f"Provider says </pre><script>alert(12)</script>{PARTS[2]}<img src=x {MARK}>"
"""What a provider, or who receives webhooks, said when it went wrong."""
INVITED: Final = "\"'<u/onclick=alert(13)>@example.org"
FIELD: Final = f"</dd><svg/onload=alert(14)>{MARK}"
"""In a field that its provider asks for."""
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
        found |= await _people(lobby, base, tx, user.user_id)
        found["fielded"] = await lobby.add_provider_key(
            base, tx, home, "openai", f"{EVIL} three", fields={"organization": FIELD, "project": PARTS[2]}
        )
        found["ailing"] = await lobby.add_provider_key(base, tx, home, "groq", f"{EVIL} too")
    _past(lobby, found | {"webhook": hook.id}, at)
    return found | {"webhook": hook.id, "lost": "own_lost", "row": _row_of(lobby)}


async def _people(lobby: Lobby, base: Ground, tx: Transaction, user_id: str) -> dict[str, str]:
    """Browsers that are signed in, and somebody who was invited; the session that is Olga's."""
    at = base.clock.now()
    for one in (user_id, lobby.ids["olga"]):
        session, _ = await sessions.start(tx, one, lobby.home, at, address="192.0.2.7", agent=AGENT)
    _, token = await invitations.invite(tx, replace(BY, name=EVIL), lobby.home, INVITED, "member", at)
    lobby.gateway.canaries.watch(token.reveal())
    return {"session": session.id}


def _past(lobby: Lobby, ids: dict[str, str], at: int) -> None:
    """What a gateway writes down when it is told so from outside: keys that fail, letters that do not arrive."""
    told = ("ntf_evil", lobby.home, "provider_key.unhealthy", "provider_key", ids["ailing"], EVIL)
    facts = json.dumps({"reason": SAID, "until_at": None, "organization": EVIL})
    unknown = ("ntf_new", lobby.home, f"<i>{MARK}", "provider_key", ids["ailing"], EVIL)
    with lobby.database() as database:
        database.execute("UPDATE users SET name = ? WHERE id = ?", (f"{EVIL} olga", lobby.ids["olga"]))
        database.execute(
            "INSERT INTO provider_key_health (provider_key_id, model, state, failures, reason, since, until)"
            " VALUES (?, '', 'exhausted', 3, ?, ?, NULL)",
            (ids["ailing"], SAID, at),
        )
        database.executemany(
            "INSERT INTO notifications (id, organization_id, kind, subject_kind, subject_id, subject_name, facts,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            ((*told, facts, at), (*unknown, "{}", at)),
        )
        for channel, address in (("webhook", ids["webhook"]), ("mail", INVITED)):
            database.execute(
                "INSERT INTO deliveries (id, notification_id, organization_id, channel, address, attempts, error)"
                " VALUES (?, 'ntf_evil', ?, ?, ?, 9, ?)",
                (f"dlv_{channel}", lobby.home, channel, address, SAID),
            )
        database.execute(
            "INSERT INTO owners (id, name, version, started_at, heartbeat_at) VALUES ('own_lost', ?, ?, 1, 1)",
            (EVIL, "<i>1.0</i>"),
        )


def _row_of(lobby: Lobby) -> str:
    """Where the audit log says what the organization was called before."""
    with lobby.database() as database:
        query = "SELECT seq FROM audit WHERE deed = 'organizations.edit' AND organization_id = ?"
        return str(database.execute(query, (lobby.home,)).fetchone()[0])


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
