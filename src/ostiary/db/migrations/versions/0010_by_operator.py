"""Which provider keys the operator has added: of those in the pool, they come first."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("provider_keys", sa.Column("by_operator", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(
        "UPDATE provider_keys SET by_operator = true"
        " WHERE added_by = 'operator' OR EXISTS (SELECT 1 FROM users WHERE is_operator AND ("
        "added_by = users.email OR substr(added_by, 1, length(users.email) + 8) = users.email || ' by key '))"
    )
