"""Sums by one thing at a time over 4, 16 and 64 days in place of those over 8, of those by days."""

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
    op.execute("DELETE FROM usage_sums WHERE span = 8")
    for shorter, span in ((1, 4), (4, 16), (16, 64)):
        op.execute(
            f"INSERT INTO usage_sums ({_PLACE}, span, number, id, name, {', '.join(_SUMMED)}) "  # noqa: S608 - our words
            f"SELECT {_PLACE}, {span}, number / 4, id, MAX(name), {sums} FROM usage_sums WHERE span = {shorter} "
            f"GROUP BY {_PLACE}, number / 4, id"
        )
