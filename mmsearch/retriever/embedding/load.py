"""Models by name or by folder.

load_embedder("default")       the network, ready to embed; imports torch
model_space("default")         only what its vectors may be compared with; imports nothing
available_models()             what 'mmsearch model list' prints
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import ModelNotFound
from mmsearch.retriever.models.description import DESCRIPTION_FILE, read_description
from mmsearch.values import Space

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.embedder import LatentEmbedder

SHIPPED = Path(__file__).parents[1] / "models" / "weights"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One line of ``mmsearch model list``; ``size`` is in bytes on disk."""

    name: str
    path: Path
    dim: int
    reasoner: str
    size: int
    about: str


def model_folder(name_or_path: str | Path) -> Path:
    """Return the folder of a shipped model, or the folder given.

    A shipped name wins over a folder of that name in the working directory; ``./name``
    means the folder. Raises ModelNotFound for neither.
    """
    if isinstance(name_or_path, str) and Path(name_or_path).name == name_or_path != "":
        shipped = SHIPPED / name_or_path
        if shipped.is_dir():
            return shipped
    if not str(name_or_path) or not Path(name_or_path).is_dir():
        raise ModelNotFound(str(name_or_path))
    return Path(name_or_path)


def model_space(name_or_path: str | Path = "default") -> Space:
    """Return the space of a model without loading it.

    Raises ModelNotFound, or BadCheckpoint where the folder does not describe a model.
    """
    return read_description(model_folder(name_or_path)).space


def available_models() -> list[ModelInfo]:
    """Return the models that come with the package, by name."""
    models = []
    for described in sorted(SHIPPED.glob(f"*/{DESCRIPTION_FILE}")):
        folder = described.parent
        model = read_description(folder)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        models.append(ModelInfo(folder.name, folder, model.dim, model.reasoner, size, model.about))
    return models


def load_embedder(
    name_or_path: str | Path = "default", *, device: str = "auto", num_threads: int | None = None
) -> "LatentEmbedder":
    """Return the embedder of a shipped model or of a model folder.

    ``device`` is a torch device, or "auto": a GPU where there is one. ``num_threads`` is
    how many batches are embedded side by side, by default one a core on a CPU and one on a
    GPU; torch's own threads in the calling thread stay as they are. Raises ModelNotFound
    or BadCheckpoint.
    """
    folder = model_folder(name_or_path)
    import torch

    from mmsearch.retriever.embedding.embedder import LatentEmbedder
    from mmsearch.retriever.models.checkpoint import read_checkpoint

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if num_threads is None:
        num_threads = (os.cpu_count() or 1) if device == "cpu" else 1
    description, model = read_checkpoint(folder, device=device)
    return LatentEmbedder(description, model, num_threads=num_threads)
