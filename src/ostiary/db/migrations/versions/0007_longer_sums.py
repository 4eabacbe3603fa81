"""Sums by one thing at a time over 64 days, of those over 8."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PLACE = "organization_id, kind"
_SUMMED = (
    *("requests", "attempts", "errors", "cancelled", "unpriced", "input_tokens", "output_tokens", "cache_read_tokens"),
    *("latency_ms", "cost_nano"),
)


def upgrade() -> None:
    sums = ", ".join(f"SUM({one})" for one in _SUMMED)
    op.execute(
        f"INSERT INTO usage_sums ({_PLACE}, span, number, id, name, {', '.join(_SUMMED)}) "  # noqa: S608 - our words
        f"SELECT {_PLACE}, 64, number / 8, id, MAX(name), {sums} FROM usage_sums WHERE span = 8 "
        f"GROUP BY {_PLACE}, number / 8, id"
    )
