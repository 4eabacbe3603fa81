"""Whether an organization lets any of its keys keep what was asked and answered."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "organizations", sa.Column("capture_is_forbidden", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
