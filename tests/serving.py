"""What the entries of gateways under test end with: `ostiary serve`, once each has put its own in place."""

from __future__ import annotations

import argparse
import sys

import uvloop

from ostiary import app
from ostiary.errors import CannotStart
from ostiary.settings import Settings


def serve() -> None:
    """Serve on `--port` with the settings of the environment; what cannot start says why and ends with 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    try:
        uvloop.run(app.serve(Settings.load(port=given.port)))
    except CannotStart as refused:
        print(f"ostiary: {refused}", file=sys.stderr)
        sys.exit(1)
