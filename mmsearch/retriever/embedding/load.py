"""Models by name or by folder; library.py knows the names.

load_embedder("default")       the network, ready to embed; imports torch
model_space("default")         only what its vectors may be compared with; imports nothing
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import BadSetting
from mmsearch.retriever.embedding.cores import num_cores
from mmsearch.retriever.embedding.devices import check_asked, pick_device, pick_dtype
from mmsearch.retriever.embedding.library import SHIPPED, described, model_folder, read_source
from mmsearch.retriever.models.description import ModelDescription, ModelSettings
from mmsearch.values import Space

if TYPE_CHECKING:
    import torch

    from mmsearch.retriever.embedding.embedder import LatentEmbedder
    from mmsearch.retriever.embedding.schedule import Schedule
    from mmsearch.retriever.models.checkpoint import Model

# A network of more parameters uses every core for one batch: several at once would hold
# their activations side by side, beside gigabytes of weights.
LARGE = 250_000_000
AHEAD_OF_GPU, AHEAD_OF_CPU = 3, 1  # batches prepared while one computes
AS_IT_IS = ModelSettings()


def model_description(
    name_or_path: str | Path = "default", settings: ModelSettings = AS_IT_IS
) -> tuple[Path, ModelDescription]:
    """Return where a model is, and what it is with these settings, without loading it.

    Its name is one that finds it again: a path, unless it was shipped or pulled.
    Raises ModelNotFound, BadCheckpoint where the folder does not describe a model, and
    BadSetting for what the model does not have.
    """
    folder = model_folder(name_or_path)
    named = replace(described(folder), name=_name_of(folder))
    return folder, named.with_settings(settings)


def _name_of(folder: Path) -> str:
    if folder.parent == SHIPPED:
        return folder.name
    source = read_source(folder)
    return source.name if source else str(folder.absolute())


def model_space(name_or_path: str | Path = "default", settings: ModelSettings = AS_IT_IS) -> Space:
    """Return the space of a model without loading it; raises as `model_description`."""
    return model_description(name_or_path, settings)[1].space


def load_embedder(
    name_or_path: str | Path = "default",
    *,
    device: str = "auto",
    dtype: str = "auto",
    settings: ModelSettings = AS_IT_IS,
    num_threads: int | None = None,
) -> "LatentEmbedder":
    """Return the embedder of a shipped or pulled model, or of a model folder.

    device:      "cpu", "cuda", "cuda:1", or "auto": a GPU where there is one
    dtype:       "float32", "bfloat16", or "auto": bfloat16 for a large model on a GPU
    settings:    effort, pixels and dimensions, where not the model's own
    num_threads: batches that are embedded side by side on a CPU, one a core by default;
                 of a large model, and on a GPU, batches prepared ahead of the one that
                 computes. torch's own threads in the calling thread stay as they are
    Raises ModelNotFound, BadCheckpoint, and BadSetting for a setting that the model or a
    device that the machine does not have, or that the model does not fit into.
    """
    check_asked(device, dtype)
    folder, description = model_description(name_or_path, settings)
    return load_described(folder, description, device=device, dtype=dtype, num_threads=num_threads)


def load_described(
    folder: Path,
    description: ModelDescription,
    *,
    device: str,
    dtype: str,
    num_threads: int | None = None,
) -> "LatentEmbedder":
    """Return the embedder of a model that was found; the rest is as for `load_embedder`."""
    check_asked(device, dtype)
    from mmsearch.retriever.embedding.embedder import LatentEmbedder
    from mmsearch.retriever.embedding.memory import is_out_of_memory
    from mmsearch.retriever.models.checkpoint import read_checkpoint

    place = pick_device(device)
    precision = pick_dtype(dtype, place, small=description.backbone == "default")
    try:
        description, model = read_checkpoint(
            folder, device=str(place), dtype=precision, description=description
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise BadSetting(
            f"device {place}",
            f"{description.name} does not fit into its free memory",
            hint="--dtype bfloat16 takes half of it; --device cpu uses the machine's",
        ) from None
    if hasattr(model.backbone, "pack"):  # its weights are where they stay
        model.backbone.pack()
    return LatentEmbedder(description, model, schedule=_schedule(model, place, num_threads))


def _schedule(model: "Model", device: "torch.device", num_threads: int | None) -> "Schedule":
    from mmsearch.retriever.embedding.schedule import LookAhead, SideBySide

    if device.type == "cuda":
        return LookAhead(num_threads or AHEAD_OF_GPU)
    if sum(parameter.numel() for parameter in model.parameters()) > LARGE:
        return LookAhead(num_threads or AHEAD_OF_CPU)
    return SideBySide(num_threads or num_cores())
