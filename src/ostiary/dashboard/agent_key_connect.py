"""How a program is connected: lines to copy, with this gateway's address and a model that the key may ask for."""

from __future__ import annotations

from typing import Any, Final

from ostiary.agents.agent_keys import AgentKey
from ostiary.dashboard.agent_key_words import snippets
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import TABLE
from ostiary.secret import Secret
from ostiary.vault import aliases, endpoints
from ostiary.vault.endpoint_store import list_keyed_providers

_ANY: Final = "openai/gpt-4o-mini"
_LIMITS: Final = (
    ("Hard budget", "budget_exceeded"),
    ("Requests per minute", "rate_limit_exceeded"),
    ("Requests per day", "daily_rate_limit_exceeded"),
    ("Tokens per minute", "token_limit_exceeded"),
    ("Parallel requests", "too_many_parallel_requests"),
    ("Allowed models, free models only", "model_not_allowed"),
)
"""What limits a key, and the code of the refusal when it does."""


async def connect(visit: Visit, tx: Transaction, key: AgentKey, secret: Secret | None = None) -> dict[str, Any]:
    """What `agent_keys/connect.html` shows; with the secret only in the answer that reveals it."""
    url = address(visit)
    model = await _model(visit, tx, key)
    return {
        "snippets": snippets(url, model) if secret is None else snippets(url, model, secret.reveal()),
        "url": url,
        "preview": key.previews[0] if key.previews else "<your-key>",
        "is_shown": secret is not None,
        "limits": tuple((control, TABLE[code].status, code) for control, code in _LIMITS),
    }


def address(visit: Visit) -> str:
    """Where programs reach this gateway: as it was told, else as this very browser does."""
    public = visit.hall.settings.public_url
    if public is not None:
        return public.rstrip("/")
    return f"http://{visit.line.headers.get(b'host', b'').decode('latin-1')}"


async def _model(visit: Visit, tx: Transaction, key: AgentKey) -> str:
    if key.models.mode == "only":
        return min(key.models.items)
    named = [one.name for one in await endpoints.list_(tx, visit.by, visit.home)]
    named += [one.name for one in await aliases.list_(tx, visit.by)]
    return named[0] if named else await _servable(visit, tx, key)


async def _servable(visit: Visit, tx: Transaction, key: AgentKey) -> str:
    """A model that a provider key can serve; of a server of one's own nobody here knows how its models are called."""
    catalog = visit.hall.catalog
    keyed = await list_keyed_providers(tx, visit.home)
    usable = {id for id in keyed if key.providers.admits({id})}
    usual = [target for targets in aliases.suggest(catalog, usable).values() for target in targets]
    if usual:
        return f"{usual[0].provider}/{usual[0].model}"
    return f"{min(usable)}/<model>" if usable else _ANY
