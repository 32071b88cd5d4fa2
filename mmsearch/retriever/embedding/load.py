"""Models by name or by folder; library.py knows the names.

load_embedder("default")       the network, ready to embed; imports torch
model_space("default")         only what its vectors may be compared with; imports nothing
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.retriever.embedding.library import described, model_folder
from mmsearch.values import Space

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.embedder import LatentEmbedder


def model_space(name_or_path: str | Path = "default") -> Space:
    """Return the space of a model without loading it.

    Raises ModelNotFound, or BadCheckpoint where the folder does not describe a model.
    """
    return described(model_folder(name_or_path)).space


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
