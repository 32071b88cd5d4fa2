"""The options that several commands share, said once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mmsearch.values import Backend

Database: TypeAlias = Annotated[
    Path,
    typer.Option("--db", help="Folder of the index.", envvar="MMSEARCH_DB", metavar="DIR"),
]
DEFAULT_DATABASE = Path(".mmsearch")

AsJson: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--json/--no-json",
        help="Print JSON; by default when the output is piped.",
        show_default=False,
    ),
]

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Name or folder of the model; by default the one the index was made with.",
        metavar="NAME",
        show_default=False,
    ),
]

NumHits: TypeAlias = Annotated[
    int, typer.Option("-k", min=1, max=10_000, help="How many hits to print.")
]

# How the model computes. Device and precision change no vector by much, and an index made
# with some may be asked with others; the settings change the space, and the index keeps them.

Device: TypeAlias = Annotated[
    str,
    typer.Option(help="Where the model computes: auto, cpu, cuda or cuda:N.", metavar="DEVICE"),
]

Dtype: TypeAlias = Annotated[
    str,
    typer.Option(help="Its precision: auto, float32 or bfloat16.", metavar="DTYPE"),
]

Effort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Latent steps, 0 to what was trained; by default as the index or the model has it.",
        metavar="N",
        show_default=False,
    ),
]

MaxPixels: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Larger pictures are brought down to so many pixels; by default likewise.",
        metavar="N",
        show_default=False,
    ),
]

Dims: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Leading dimensions kept of a vector; by default likewise.",
        metavar="N",
        show_default=False,
    ),
]

UsedBackend: TypeAlias = Annotated[
    Backend,
    typer.Option(
        "--backend",
        help="What finds near vectors: the tables (lance), the file that 'mmsearch optimize "
        "--faiss' makes (faiss), every row (exact), every row of a small index (resident), or "
        "faiss if its file is there (auto).",
    ),
]

UseServer: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--server/--no-server",
        help="Ask the 'mmsearch serve' that runs on this index, where there is one.",
    ),
]
