"""Sums by one thing at a time, for pages that look over months; and an index for the traces of an endpoint."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SUMMED = (
    *("requests", "attempts", "errors", "cancelled", "unpriced", "input_tokens", "output_tokens", "cache_read_tokens"),
    *("latency_ms", "cost_nano"),
)
_KINDS = (
    ("all", "''", "NULL", ""),
    ("model", "provider || '/' || model", "NULL", ""),
    ("provider_key", "provider_key_id", "MAX(provider_key_name)", ""),
    ("agent_key", "agent_key_id", "MAX(agent_key_name)", "WHERE agent_key_id <> ''"),
    ("credential", "credential_id", "NULL", "WHERE credential_id <> ''"),
)


def upgrade() -> None:
    op.create_table(
        "usage_sums",
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("span", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(length=300), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        *(sa.Column(one, sa.BigInteger(), server_default="0", nullable=False) for one in _SUMMED),
        sa.PrimaryKeyConstraint("organization_id", "kind", "span", "number", "id", name=op.f("pk_usage_sums")),
        sqlite_with_rowid=False,
    )
    for kind, id_, name, where in _KINDS:
        for span in (1, 8):
            _sum_up(kind, span, id_, name, where)
    op.create_index(
        "ix_usage_events_endpoint",
        "usage_events",
        ["organization_id", "endpoint", "started_at"],
        unique=False,
        sqlite_where=sa.text("endpoint IS NOT NULL"),
        postgresql_where=sa.text("endpoint IS NOT NULL"),
    )


def _sum_up(kind: str, span: int, id_: str, name: str, where: str) -> None:
    """What was called before, exactly as the writer would have summed it up."""
    sums = ", ".join(f"SUM({one})" for one in _SUMMED)
    columns = f"organization_id, kind, span, number, id, name, {', '.join(_SUMMED)}"
    groups = ", ".join(("organization_id", f"day / {span}", *([id_] if id_ != "''" else [])))
    op.execute(
        f"INSERT INTO usage_sums ({columns}) SELECT organization_id, '{kind}', {span}, day / {span}, {id_}, {name}, "  # noqa: S608 - our words
        f"{sums} FROM usage_days {where} GROUP BY {groups}"
    )
