"""``mmsearch export``: the model of a training run, as a folder to be named with --model."""

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.options import AsJson
from mmsearch.cli.output import print_json, say, shown_bytes, wants_json
from mmsearch.training import export as export_run


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder that 'mmsearch train' wrote.", metavar="RUN", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(help="Folder to write the model to.", metavar="OUT", show_default=False),
    ],
    step: Annotated[
        int | None,
        typer.Option(
            min=0, help="The snapshot of this step; by default the newest.", show_default=False
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Keep matrices as 8-bit rows: a quarter of the bytes.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Write the model that a training run has made, whole and without what only training needs.

    A run may be exported while it goes on. Averages of the weights are what is written,
    where the run keeps them (optimiser.ema), and LoRA is merged.

    For example:

    \b
        mmsearch export runs/tiny tiny-model
    """
    model = export_run(run, out, step=step, quantise=int8)
    if wants_json(as_json):
        print_json(model.as_dict())
    say(f"{out} is ready ({shown_bytes(model.size)}): mmsearch index PATH --model {out}")
