"""`ostiary serve`: runs the gateway until it is told to stop."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer
import uvloop

from ostiary import app as gateway
from ostiary.cli import show
from ostiary.cli.options import TOP_PORT, Config, DataDir
from ostiary.settings import Settings

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on. Usual: 127.0.0.1.")] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=TOP_PORT, help="The port to listen on, 0 for a free one. Usual: 8420."),
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; open calls may end first, for up to 30 s."""
    settings = Settings.load(config, host=host, port=port, data_dir=data_dir)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(gateway.serve(settings, on_ready=_tell))


async def _tell(url: str, link: str | None) -> None:
    """Where the dashboard is. Not by the log: a link that makes somebody the owner is for the eyes of who starts it."""
    if link is not None:
        show.warn(f"Nobody has signed up yet. This link works once, for 24 hours:\n  {link}")
    else:
        show.warn(f"Dashboard: {url}/dashboard")
