"""`ostiary serve`: runs the gateway until it is told to stop."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer
import uvloop

from ostiary import app as gateway
from ostiary.cli.options import Config, DataDir
from ostiary.settings import Settings

app: Final = typer.Typer(rich_markup_mode=None)


@app.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on. Usual: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="The port to listen on, 0 for a free one. Usual: 8420.")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; open calls may end first, for up to 30 s."""
    settings = Settings.load(config, host=host, port=port, data_dir=data_dir)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(gateway.serve(settings))
