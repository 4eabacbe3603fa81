"""How one attempt ended, as it is settled."""

from __future__ import annotations

from typing import Final

import msgspec

from ostiary.ledger.events import Status, UsageSource
from ostiary.providers.tokens import Tokens


class Outcome(msgspec.Struct, frozen=True):
    """How one attempt ended. `billed` without `tokens` is nothing known: then the held amount is charged."""

    status: Status = "unknown"
    http_status: int = 0
    error_code: str | None = None
    tokens: Tokens | None = None
    source: UsageSource = "none"
    billed: bool = True
    first_token_at: int | None = None


CANCELLED_UNSENT: Final = Outcome("cancelled", billed=False)
"""The caller hung up before anything was sent to the provider."""
CANCELLED: Final = Outcome("cancelled")
"""The caller hung up, and the provider may have begun."""
