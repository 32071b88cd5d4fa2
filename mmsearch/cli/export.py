"""``mmsearch export``: an index as Parquet, or the model of a training run as a folder."""

from pathlib import Path
from typing import Annotated

import typer

from mmsearch import upkeep
from mmsearch.cli.options import DEFAULT_DATABASE, AsJson, Database
from mmsearch.cli.output import print_json, say, shown_bytes, wants_json
from mmsearch.training import export as export_run


def export(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Where to write the index; or a folder that 'mmsearch train' wrote, and where "
            "to write its model.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    db: Database = DEFAULT_DATABASE,
    step: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of a run: the snapshot of this step; by default the newest.",
            show_default=False,
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Of a run: keep matrices as 8-bit rows: a quarter of the bytes."
        ),
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Write an index as one folder of Parquet, or the model that a training run has made.

    With one folder, the index: its documents, texts, vectors and thumbnails, for
    'mmsearch import' and for other programs. It cannot be written to meanwhile.

    With two, the run in the first as a model in the second. A run may be exported while it
    goes on. Averages of the weights are what is written, where the run keeps them
    (optimiser.ema), and LoRA is merged.

    For example:

    \b
        mmsearch export exported
        mmsearch export runs/tiny tiny-model
    """
    if len(folders) == 1:
        _export_index(folders[0], db, step is not None or int8, as_json)
        return
    if len(folders) > 2:
        raise typer.BadParameter("name OUT for an index, or RUN and OUT for a training run")
    run, out = folders
    model = export_run(run, out, step=step, quantise=int8)
    if wants_json(as_json):
        print_json(model.as_dict())
    say(f"{out} is ready ({shown_bytes(model.size)}): mmsearch index PATH --model {out}")


def _export_index(out: Path, db: Path, of_a_run: bool, as_json: bool | None) -> None:
    if of_a_run:
        raise typer.BadParameter("--step and --int8 are of a training run: name RUN and OUT")
    dump = upkeep.export_index(db, out)
    if wants_json(as_json):
        print_json(dump.as_dict())
    say(
        f"exported {dump.num_documents} documents, {dump.num_segments} segments "
        f"({shown_bytes(dump.num_bytes)}) -> {out}"
    )
