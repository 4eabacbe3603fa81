"""`ostiary serve` with little patience: the product itself has no setting for how long it waits for whom.

Run by `tests.acceptance.brisk` as `python -m tests.brisk_entry --port N`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import uvloop

from ostiary import app
from ostiary.errors import CannotStart
from ostiary.gateway.edge import EdgeProtocol
from ostiary.gateway.gate import Gate, Patience
from ostiary.providers.transport import Waits
from ostiary.settings import Settings

PATIENCE = Patience(body_s=1.5, provider=Waits(connect_s=3, first_byte_s=2, idle_s=2, total_s=5))
STALLED_S = 1.5


def main() -> None:
    """What `ostiary serve` does, but for its patience."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    app.Gate = partial(Gate, patience=PATIENCE)  # type: ignore[assignment,attr-defined]
    EdgeProtocol.stalled_s = EdgeProtocol.linger_s = STALLED_S
    try:
        uvloop.run(app.serve(Settings.load(port=given.port)))
    except CannotStart as refused:
        print(f"ostiary: {refused}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
