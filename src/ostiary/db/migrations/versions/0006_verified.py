"""When an address was first known to belong to whoever signs in by it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("email_verified_at", sa.BigInteger(), nullable=True))
    # Operators were made by operators, and an identity is linked by a verified address alone.
    op.execute(
        "UPDATE users SET email_verified_at = created_at WHERE is_operator OR id IN (SELECT user_id FROM identities)"
    )
