"""Attempts of a provider key, those that failed, and what those of an endpoint come to, each by an index of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_EVENTS = "usage_events"
_SHOWN = ("latency_ms", "cost_nano")


def upgrade() -> None:
    routed, failed = sa.text("endpoint IS NOT NULL"), sa.text("status <> 'ok'")
    op.drop_index("ix_usage_events_endpoint", _EVENTS)
    columns = ["organization_id", "endpoint", "started_at", "attempt", "status", *_SHOWN]
    op.create_index("ix_usage_events_endpoint", _EVENTS, columns, sqlite_where=routed, postgresql_where=routed)
    for whose in ("organization", "agent_key"):
        columns = [f"{whose}_id", "status", "started_at", "attempt", *_SHOWN]
        name = f"ix_usage_events_failed_of_{whose}"
        op.create_index(name, _EVENTS, columns, sqlite_where=failed, postgresql_where=failed)
    op.create_index("ix_usage_events_provider_key", _EVENTS, ["organization_id", "provider_key_id", "started_at"])
