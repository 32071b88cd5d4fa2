"""``mmsearch model``: the models there are; fetched, looked at, checked, converted, removed."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mmsearch.cli.options import AsJson
from mmsearch.cli.output import (
    print_facts,
    print_json,
    print_lines,
    print_table,
    say,
    shown_bytes,
    visible,
    wants_json,
)
from mmsearch.cli.progress import Listener
from mmsearch.models import (
    available_models,
    convert_model,
    known_models,
    model_details,
    pull_model,
    remove_model,
    verify_model,
)

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.details import ModelDetails

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name: TypeAlias = Annotated[
    str, typer.Argument(help="Name or folder of the model.", metavar="NAME", show_default=False)
]


@app.callback()
def root() -> None:
    """Fetch models, and see which there are."""


@app.command("list")
def list_models(
    everything: Annotated[
        bool, typer.Option("--all", help="Those that can be pulled, too.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Print the models that are installed.

    For example:

    \b
        mmsearch model list
        mmsearch model list --all
    """
    models = available_models()
    here = {one.source.repository for one in models if one.source}
    others = [one for one in known_models() if one.repository not in here] if everything else []
    if wants_json(as_json):
        rows = [one.as_dict() for one in models]
        rows += [
            {"name": one.name, "repository": one.repository, "description": one.about}
            for one in others
        ]
        print_json([row | {"installed": "path" in row} for row in rows])
        return
    print_table(
        ["name", "reasoner", "dim", "size", "description"],
        [
            [
                visible(one.name),
                visible(one.reasoner),
                str(one.dim or ""),
                shown_bytes(one.size),
                visible(one.about),
            ]
            for one in models
        ]
        + [[one.name, "", "", "", f"not here yet. {one.about}"] for one in others],
        right=["dim", "size"],
    )
    if others:
        say(f"fetch one: mmsearch model pull {others[0].name}")


@app.command("pull")
def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="A name of 'model list --all', or OWNER/NAME of the hub.",
            metavar="NAME[@REVISION]",
            show_default=False,
        ),
    ],
    as_json: AsJson = None,
) -> None:
    """Fetch a model from the hub, to be named with --model afterwards.

    Weights and configuration only, never code; every file is checked. Safe to interrupt and
    to run again. HF_TOKEN is sent if it is set, HF_ENDPOINT names another hub, and
    MMSEARCH_MODELS the folder for models.

    For example:

    \b
        mmsearch model pull plume
        mmsearch model pull CUDAOUTOFMEMORY/PLUME-Qwen2-VL-2B@main
    """
    with Listener("asking the hub") as listener:
        try:
            model = pull_model(name, on_progress=listener.pulling)
        except KeyboardInterrupt:
            say("interrupted: what has come is kept, pull it again to go on")
            raise
    if wants_json(as_json):
        print_json(model.as_dict())
    size = shown_bytes(model.size)
    say(f"{model.name} is here ({size}): mmsearch index PATH --model {model.name}")


@app.command("info")
def info(name: Name, as_json: AsJson = None) -> None:
    """Print what a model is.

    For example:

    \b
        mmsearch model info default
    """
    details = model_details(name)
    if wants_json(as_json):
        print_json(details.as_dict())
        return
    print_facts({key: visible(str(value)) for key, value in _facts(details) if value != ""})


def _facts(details: "ModelDetails") -> Iterator[tuple[str, object]]:
    """Yield what a person wants to know of a model; what it does not have is empty."""
    told = details.as_dict()
    efforts = f" (of 0 to {told['efforts'][-1]})" if len(told["efforts"]) > 1 else ""
    yield "name", told["name"]
    yield "description", told["description"]
    yield "family", told["family"]
    yield "reasoner", f"{told['reasoner']} {_shown_fields(told['reasoner_config'])}".rstrip()
    yield "effort", f"{told['effort']}{efforts}"
    yield "readout", f"{told['readout']} ({told['head']} head)"
    yield "dimensions", told["dim"]
    for side, prompt in told["prompts"].items():
        yield f"{side} prompt", repr(prompt) if prompt else ""
    yield "pictures", f"at most {told['max_pixels']:,} pixels"
    yield "films", f"at most {told['max_frames']} frames"
    yield "pixel policy", _shown_fields(told["pixel_policy"] or {})
    yield "positions", told["positions"] or ""
    yield "longest item", f"{told['max_tokens']:,} tokens" if told["max_tokens"] else ""
    yield "space", told["space"]
    yield "licence", ", ".join(told["licences"]) or "no file says"
    if told["repository"]:
        yield "pulled from", f"{told['repository']} ({', '.join(told['revisions'])})"
        yield "commit", told["commit"]
    yield "folder", told["path"]
    for file in told["files"]:
        yield f"  {file['name']}", shown_bytes(file["bytes"])


def _shown_fields(fields: dict[str, Any]) -> str:
    """Return ``(steps 8, suffix '...', adapter (num_experts 4))``, or nothing of nothing."""
    shown = [
        f"{name} {_shown_fields(value) if isinstance(value, dict) else repr(value)}"
        for name, value in fields.items()
    ]
    return f"({', '.join(shown)})" if shown else ""


@app.command("verify")
def verify(name: Name, as_json: AsJson = None) -> None:
    """Read every file of a model again and see that it is the one described.

    Ends with exit code 1 where something is wrong.

    For example:

    \b
        mmsearch model verify default
    """
    checks = []
    for check in verify_model(name):
        checks.append(check)
        if not wants_json(as_json):
            line = (
                f"wrong  {check.name}: {check.problem}" if check.problem else f"ok     {check.name}"
            )
            print_lines([visible(line)])
    wrong = [one for one in checks if one.problem]
    if wants_json(as_json):
        print_json([{"name": one.name, "problem": one.problem or None} for one in checks])
    if wrong:
        say(f"error: {len(wrong)} of {len(checks)} are not as described")
        again = f"mmsearch model remove {name}, then pull it again; or install mmsearch again"
        if Path(name).is_dir():  # which is ours neither to remove nor to pull
            again = "fetch or convert that folder again"
        say(f"  try: {again}")
        raise typer.Exit(1)


@app.command("convert")
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Name or folder of a model as it was published.",
            metavar="NAME",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path, typer.Argument(help="Folder to write.", metavar="DIR", show_default=False)
    ],
    family: Annotated[
        str | None,
        typer.Option(
            help="What it is, where the folder does not say so.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision to keep it in: float32, bfloat16 or float16; by default as it is.",
            metavar="DTYPE",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Write a published model as a folder of ours, to be named with --model.

    Pickled weights (.bin) are read in a process of their own that may do nothing else.

    For example:

    \b
        mmsearch model convert plume ./plume --dtype bfloat16
    """
    with Listener("looking at it") as listener:
        model = convert_model(
            source, target, family=family, dtype=dtype, on_progress=listener.converting
        )
    if wants_json(as_json):
        print_json(model.as_dict())
    say(f"{target} is ready ({shown_bytes(model.size)}): mmsearch index PATH --model {target}")


@app.command("remove")
def remove(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a pulled model; all its revisions, or the one named.",
            metavar="NAME[@REVISION]",
            show_default=False,
        ),
    ],
    as_json: AsJson = None,
) -> None:
    """Delete a model that was pulled, and what an unfinished pull of it left.

    For example:

    \b
        mmsearch model remove plume
    """
    removed = remove_model(name)
    if wants_json(as_json):
        print_json([{"path": str(one.path), "bytes": one.size} for one in removed])
    for one in removed:
        say(f"removed {one.path} ({shown_bytes(one.size)})")
