"""``mmsearch mcp``: an index as tools for agents, over the Model Context Protocol."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.options import (
    DEFAULT_DATABASE,
    Database,
    Device,
    Dtype,
    Model,
    UsedBackend,
    UseServer,
)
from mmsearch.cli.output import say
from mmsearch.engine import Engine
from mmsearch.values import Backend


def mcp(
    db: Database = DEFAULT_DATABASE,
    http: Annotated[
        bool,
        typer.Option(
            "--http", help="Listen on 127.0.0.1 instead of speaking over stdin and stdout."
        ),
    ] = False,
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Where to listen with --http; 0 takes a free one."),
    ] = 7701,
    roots: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            help="Folder whose pictures may be asked with by their path; may be repeated. "
            "By default none: pictures come as data: URIs.",
            metavar="DIR",
        ),
    ] = None,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: UsedBackend = Backend.AUTO,
    server: UseServer = True,
) -> None:
    """Offer an index to agents as tools: search, show, similar, status.

    An agent starts it by itself and speaks to it over stdin and stdout (MCP). Where 'mmsearch
    serve' is running on the index it finds the hits, and no second model is loaded, unless
    model, device or backend are named.

    For example:

    \b
        mmsearch mcp
        mmsearch mcp --db ~/papers/.mmsearch --root ~/Pictures
        mmsearch mcp --http --port 7701
    """
    with Engine.open(db, model=model, device=device, dtype=dtype, backend=backend) as engine:
        from mmsearch.serving.mcp import serve_http, serve_stdio

        asked_with = tuple(roots or ())
        how = (model, device, dtype, backend)
        asks = server and how == (None, "auto", "auto", Backend.AUTO)
        if http:
            serve_http(engine, port=port, roots=asked_with, asks_server=asks, on_ready=_say_where)
        else:
            if sys.stdin is not None and sys.stdin.isatty():
                say("an agent is meant to start this and to speak to it; Ctrl-D ends it")
            serve_stdio(engine, roots=asked_with, asks_server=asks)


def _say_where(url: str) -> None:
    say(f"listening on {url}")
