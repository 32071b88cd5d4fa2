"""What the frozen towers make of pictures and words, computed once and kept on disk.

    pictures -> pooled [n, 1280] and grids [n, 16, 1280], float16
    texts    -> MiniLM's unit vectors [n, 384], float32

The head is trained on these for seconds, where the towers need minutes.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.training.pairs import open_picture
from mmsearch.values import Item, Role

BATCH = 16


def picture_features(
    backbone: DefaultBackbone, paths: Sequence[Path], cache: Path, *, view: int = 0
) -> dict[str, Tensor]:
    """Return ``pooled`` and ``grids`` of each picture, in order; read from ``cache`` if there."""

    def compute() -> dict[str, Tensor]:
        pooled, grids = [], []
        for start in range(0, len(paths), BATCH):
            pictures = [open_picture(path, view=view) for path in paths[start : start + BATCH]]
            batch = backbone.collate([Item([one]) for one in pictures], role=Role.DOCUMENT)
            towers = backbone.towers(batch)
            pooled.append(towers.pooled.half())
            grids.append(torch.stack(towers.grids).half())
            if start % (BATCH * 100) == 0:
                print(f"pictures: {start} of {len(paths)}", flush=True)
        return {"pooled": torch.cat(pooled), "grids": torch.cat(grids)}

    return _cached(cache, compute)


def text_features(backbone: DefaultBackbone, texts: Sequence[str], cache: Path) -> Tensor:
    """Return the words' base ``[n, 384]``, in order; read from ``cache`` if there."""

    def compute() -> dict[str, Tensor]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = torch.zeros(len(texts), backbone.dim)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = backbone.collate([Item([texts[i]]) for i in rows], role=Role.DOCUMENT)
            vectors[rows] = backbone.readouts(batch)["base"]
        return {"vectors": vectors}

    return _cached(cache, compute)["vectors"]


def _cached(cache: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    if not cache.exists():
        started = time.process_time()
        with torch.inference_mode():
            tensors = compute()
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, cache)
        print(f"{cache.name}: {time.process_time() - started:.0f} CPU s", flush=True)
    return load_file(cache)
