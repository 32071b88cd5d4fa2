"""``mmsearch similar``: what in the index is most like a segment of it."""

import time
from typing import Annotated

import typer

from mmsearch.cli.hits import print_hits
from mmsearch.cli.options import (
    DEFAULT_DATABASE,
    AsJson,
    Database,
    Model,
    NumHits,
    UsedBackend,
    UseServer,
)
from mmsearch.engine import Engine
from mmsearch.serving import client
from mmsearch.values import Backend


def similar(
    segment_id: Annotated[
        str, typer.Argument(help="Id of a segment, as 'mmsearch query' prints it.", metavar="ID")
    ],
    db: Database = DEFAULT_DATABASE,
    model: Model = None,
    k: NumHits = 10,
    backend: UsedBackend = Backend.AUTO,
    server: UseServer = True,
    as_json: AsJson = None,
) -> None:
    """Print the segments most like one that is in the index.

    For example:

    \b
        mmsearch similar 3f2a9c51d0b7e846 -k 5
    """
    answer = None
    if server and model is None and backend is Backend.AUTO:
        answer = client.similar(db, segment_id, k=k)
    if answer is None:
        with Engine.open(db, model=model, backend=backend) as engine:
            began = time.perf_counter()
            hits = engine.similar(segment_id, k=k)
            took_ms = (time.perf_counter() - began) * 1000
            answer = client.Answer(hits, engine.space.id, took_ms)
    print_hits(answer, db=db, asked={"similar": segment_id}, as_json=as_json)
