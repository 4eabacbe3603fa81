"""`ostiary serve` with little patience: the product itself has no setting for how long it waits for whom.

Run by `tests.acceptance.brisk` as `python -m tests.brisk_entry --port N`; TOTAL_S: for a whole answer.
"""

from __future__ import annotations

import os
from functools import partial

from ostiary import app
from ostiary.gateway.edge import EdgeProtocol
from ostiary.gateway.gate import Gate, Patience
from ostiary.providers.transport import Waits
from tests.serving import serve

TOTAL_S = float(os.environ.get("TOTAL_S", "8"))
PATIENCE = Patience(body_s=1.5, provider=Waits(connect_s=3, first_byte_s=2, idle_s=2, total_s=TOTAL_S))
STALLED_S = 1.5


def main() -> None:
    """What `ostiary serve` does, but for its patience."""
    app.Gate = partial(Gate, patience=PATIENCE)  # type: ignore[assignment,attr-defined]
    EdgeProtocol.stalled_s = EdgeProtocol.linger_s = STALLED_S
    serve()


if __name__ == "__main__":
    main()
