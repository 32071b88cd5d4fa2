"""``mmsearch query``: words, pictures, films and pages in, ranked hits out."""

import time
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.hits import print_hits
from mmsearch.cli.options import (
    DEFAULT_DATABASE,
    AsJson,
    Database,
    Device,
    Dims,
    Dtype,
    Effort,
    MaxPixels,
    Model,
    NumHits,
    UsedBackend,
    UseServer,
)
from mmsearch.engine import Engine, ModelSettings
from mmsearch.serving import client
from mmsearch.values import Backend, Kind, Query


def query(
    text: Annotated[
        str, typer.Argument(help="What you are looking for, in plain words.", show_default=False)
    ] = "",
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A picture to go by; may be repeated.", metavar="FILE"),
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A film to go by.", metavar="FILE")] = None,
    page: Annotated[str | None, typer.Option(help="A page to go by.", metavar="FILE.pdf#N")] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option("--not", help="What is not wanted; may be repeated.", metavar="TEXT"),
    ] = None,
    db: Database = DEFAULT_DATABASE,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    effort: Effort = None,
    max_pixels: MaxPixels = None,
    dims: Dims = None,
    k: NumHits = 10,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--type", help="Only these kinds: pdf, image, video, text.", metavar="KIND[,KIND]"
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='SQL over path, kind, page, start, end, num_words, modified (UTC): "page <= 3", '
            "\"modified >= '2026-01-31'\".",
            metavar="SQL",
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="Only documents whose path ends like this: 'reports/*.pdf', 'reports/**'. "
            "* is any characters but a slash, ? one of them, ** any at all.",
            metavar="GLOB",
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Only hits that score at least this.")
    ] = 0.0,
    group: Annotated[
        bool, typer.Option("--group", help="Only the best hit of each document.")
    ] = False,
    collapse: Annotated[
        bool, typer.Option("--collapse", help="Only the best hit of those that look alike.")
    ] = False,
    ocr: Annotated[bool, typer.Option(help="Read the words in the pictures you ask with.")] = True,
    backend: UsedBackend = Backend.AUTO,
    files: Annotated[
        bool, typer.Option("--files", help="Print only the paths, one a line.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show thumbnails, in terminals that can.")
    ] = False,
    server: UseServer = True,
    as_json: AsJson = None,
) -> None:
    """Print the best hits, best first.

    Where 'mmsearch serve' is running on the index it answers, at once, unless model, device,
    settings or backend are named.

    For example:

    \b
        mmsearch query "chart showing rainfall by month"
        mmsearch query "the same at night" --image q.png --type image,video
        mmsearch query --page report.pdf#3 --files
        mmsearch query "the pump" --device cpu --dtype float32 --backend exact
        mmsearch query "a red picture" --collapse
    """
    asked = Query(
        text=text,
        images=tuple(image or ()),
        video=video,
        page=page,
        negative=tuple(negative or ()),
        where=where,
        kinds=_kinds(kinds),
        path=path,
        min_score=min_score,
    )
    settings = ModelSettings(effort=effort, max_pixels=max_pixels, dims=dims)
    how = (model, device, dtype, settings, backend)
    answer = None
    if server and how == (None, "auto", "auto", ModelSettings(), Backend.AUTO):
        answer = client.query(db, asked, k=k, group=group, collapse=collapse, ocr=ocr)
    if answer is None:
        with Engine.open(
            db, model=model, device=device, dtype=dtype, settings=settings, backend=backend
        ) as engine:
            engine.load()  # a third of a second that is not the search's
            began = time.perf_counter()
            hits = engine.query(asked, k=k, group=group, collapse=collapse, ocr=ocr)
            took_ms = (time.perf_counter() - began) * 1000
            answer = client.Answer(hits, engine.space.id, took_ms)
    print_hits(
        answer,
        db=db,
        asked=asked.as_dict(),
        as_json=as_json,
        files=files,
        preview=preview,
        words=text.split(),
    )


def _kinds(names: str | None) -> tuple[Kind, ...] | None:
    if names is None:
        return None
    try:
        return tuple(Kind(name.strip().lower()) for name in names.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{error}; the kinds are {', '.join(Kind)}", param_hint="--type"
        ) from error
