"""Who did what to what, written in the transaction of the deed itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.ledger import store
from ostiary.ledger.store import AuditRow

__all__ = ["AuditRow", "write"]


async def write(  # noqa: PLR0913 - one argument a column
    tx: Transaction,
    by: Actor,
    deed: str,
    target_kind: str,
    target_id: str,
    target_name: str,
    *,
    organization_id: str | None,
    at: int,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
    result: str = "ok",
) -> None:
    """Append one row. `before` and `after` hold the fields their caller picked by name, and never a secret.

    Raises TypeError on a value that is not plain data: a `Secret` or bytes cannot slip in.
    """
    await store.add_audit(
        tx,
        at=at,
        organization_id=organization_id,
        actor_kind=by.kind,
        actor_id=by.id,
        actor_name=by.name,
        deed=deed,
        target_kind=target_kind,
        target_id=target_id,
        target_name=target_name,
        before=_plain(before),
        after=_plain(after),
        origin=by.origin,
        address=by.address,
        result=result,
    )


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON of any shape
    match value:
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case set() | frozenset():
            return sorted((_plain(item) for item in value), key=str)
        case _:
            raise TypeError(f"{type(value).__name__} does not belong in the audit log")
