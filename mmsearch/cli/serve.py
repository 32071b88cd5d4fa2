"""``mmsearch serve``: an index, or several, over HTTP, with a page to look at."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli.options import DEFAULT_DATABASE, Device, Dtype, Model
from mmsearch.cli.output import say
from mmsearch.serving.settings import DEFAULT_PORT, Limits, Settings, read_api_keys

if TYPE_CHECKING:
    from mmsearch.serving.server import Listening

_MEBIBYTE = 2**20


def serve(
    db: Annotated[
        list[Path] | None,
        typer.Option(
            "--db",
            help="Folder of an index; may be repeated, and the first answers by default.",
            envvar="MMSEARCH_DB",
            metavar="DIR",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Where to listen; beyond this machine only with a key.", metavar="HOST"),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0 takes a free one.", metavar="N")
    ] = DEFAULT_PORT,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="Its lines are the keys, any of which opens.", metavar="FILE"),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Files under this folder may be indexed over HTTP; may be repeated.",
            metavar="DIR",
        ),
    ] = None,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_url_fetch: Annotated[
        bool,
        typer.Option("--allow-url-fetch", help="Fetch pictures from public addresses in requests."),
    ] = False,
    latency_ms: Annotated[
        float,
        typer.Option(min=0.0, help="A request waits so long for others to go with.", metavar="MS"),
    ] = 5.0,
    max_upload: Annotated[
        int, typer.Option(min=1, help="Mebibytes of one request, at most.", metavar="MIB")
    ] = 64,
    cache: Annotated[
        int,
        typer.Option(
            min=0, help="Mebibytes of vectors that are remembered; 0 for none.", metavar="MIB"
        ),
    ] = 64,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests at work or waiting; beyond them 429.", metavar="N")
    ] = 256,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more of what goes on.")] = False,
) -> None:
    """Serve an index over HTTP, and a page to look at.

    Stops on Ctrl-C or SIGTERM, once what is at work has been answered. Commands on the same
    machine find it by themselves, by a socket in the folder of the index.

    For example:

    \b
        mmsearch serve
        mmsearch serve --port 0 --root ./docs
        mmsearch serve --host 0.0.0.0 --api-key-file keys.txt
    """
    from mmsearch.serving.memory import keep_little, keep_what_is_there

    keep_little()
    from mmsearch.serving.server import serve as run

    settings = Settings(
        dbs=tuple(db or (DEFAULT_DATABASE,)),
        host=host,
        port=port,
        api_keys=read_api_keys(api_key_file) if api_key_file else frozenset(),
        roots=tuple(root or ()),
        model=model,
        device=device,
        dtype=dtype,
        allow_url_fetch=allow_url_fetch,
        latency_ms=latency_ms,
        limits=Limits(
            max_body_bytes=max_upload * _MEBIBYTE, cache_bytes=cache * _MEBIBYTE, queue=queue
        ),
    )
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    def ready(seconds: float) -> None:
        say(f"ready after {seconds:.1f} s")
        keep_what_is_there()

    run(settings, on_listening=_say_where, on_ready=ready)
    say("stopped")


def _say_where(where: "Listening") -> None:
    say(f"listening at {where.url}  (Ctrl-C stops it)")
    for notice in where.notices:
        say(f"notice: {notice}")
