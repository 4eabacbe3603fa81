"""What ephemeral keys called is their parents' too: sums know the parent, and events are found by it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SUMMED = (
    *("requests", "attempts", "errors", "cancelled", "unpriced", "input_tokens", "output_tokens", "cache_read_tokens"),
    *("latency_ms", "cost_nano"),
)
_IS_CHILD = sa.text("parent_key_id IS NOT NULL")
_PLACE = ("organization_id", "span", "number")


def upgrade() -> None:
    op.create_index(
        "ix_usage_events_parent_key",
        "usage_events",
        ["parent_key_id", "started_at", "status", "latency_ms", "cost_nano"],
        sqlite_where=_IS_CHILD,
        postgresql_where=_IS_CHILD,
    )
    op.execute(
        "CREATE TEMPORARY TABLE of_parent AS SELECT agent_key_id, MAX(parent_key_id) AS parent_key_id FROM ("
        "SELECT agent_key_id, parent_key_id FROM usage_events WHERE parent_key_id IS NOT NULL UNION "
        "SELECT id, parent_id FROM agent_keys WHERE parent_id IS NOT NULL) AS known GROUP BY agent_key_id"
    )
    op.execute("CREATE UNIQUE INDEX ix_of_parent ON of_parent (agent_key_id)")
    for table in ("usage_hours", "usage_days", "usage_blocks"):
        op.add_column(table, sa.Column("parent_key_id", sa.String(length=64), nullable=True))
        op.execute(
            f"UPDATE {table} SET parent_key_id = "  # noqa: S608 - our words
            f"(SELECT o.parent_key_id FROM of_parent AS o WHERE o.agent_key_id = {table}.agent_key_id) "
            "WHERE agent_key_id IN (SELECT agent_key_id FROM of_parent)"
        )
    op.create_index(
        "ix_usage_days_parent_key",
        "usage_days",
        ["parent_key_id", "day"],
        sqlite_where=_IS_CHILD,
        postgresql_where=_IS_CHILD,
    )
    places = ", ".join(f"s.{one}" for one in _PLACE)
    sums = ", ".join(f"SUM(s.{one})" for one in _SUMMED)
    op.execute(
        f"INSERT INTO usage_sums ({', '.join(_PLACE)}, kind, id, {', '.join(_SUMMED)}) "  # noqa: S608 - our words
        f"SELECT {places}, 'parent', o.parent_key_id, {sums} FROM usage_sums AS s "
        "JOIN of_parent AS o ON o.agent_key_id = s.id WHERE s.kind = 'agent_key' "
        f"GROUP BY {places}, o.parent_key_id"
    )
    op.execute("DROP TABLE of_parent")
