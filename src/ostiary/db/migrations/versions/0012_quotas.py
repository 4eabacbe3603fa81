"""What providers say of how much a key has left is kept, for people to see."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider_key_quotas",
        sa.Column("provider_key_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("what", sa.String(length=24), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=True),
        sa.Column("resets_at", sa.BigInteger(), nullable=True),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("gateway", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("provider_key_id", "model", "what", name=op.f("pk_provider_key_quotas")),
    )
