"""`ostiary serve` with little patience: the product itself has no setting for how long it waits for whom.

Run by `tests.acceptance.brisk` as `python -m tests.brisk_entry --port N`. It waits for providers longer than a machine
that is busy stands still. TOTAL_S: for a whole answer; BODY_S, STALLED_S, LINGER_S: for callers, else as the product.
"""

from __future__ import annotations

import os
from functools import partial

from ostiary import app
from ostiary.gateway.edge import EdgeProtocol
from ostiary.gateway.gate import Gate, Patience
from ostiary.providers.transport import Waits
from tests.serving import serve


def _seconds(name: str, default: float) -> float:
    return float(os.environ.get(name, default))


WAITS = Waits(connect_s=10, first_byte_s=10, idle_s=10, total_s=_seconds("TOTAL_S", 20))
PATIENCE = Patience(_seconds("BODY_S", Patience().body_s), WAITS)


def main() -> None:
    """What `ostiary serve` does, but for its patience."""
    app.Gate = partial(Gate, patience=PATIENCE)  # type: ignore[assignment,attr-defined]
    EdgeProtocol.stalled_s = _seconds("STALLED_S", EdgeProtocol.stalled_s)
    EdgeProtocol.linger_s = _seconds("LINGER_S", EdgeProtocol.linger_s)
    serve()


if __name__ == "__main__":
    main()
