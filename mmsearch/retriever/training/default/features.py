"""MiniLM's vectors of the words that pictures have, computed once and kept on disk.

    texts -> unit vectors [n, 384], float32

The heads are trained on these for seconds, where the tower needs minutes.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.training.default.pairs import Pair, first_sentence
from mmsearch.values import Item, Role

BATCH = 16


def words_of(backbone: DefaultBackbone, pairs: Sequence[Pair], cache: Path) -> list[Tensor]:
    """Return the vectors ``[n, 384]`` of alt texts, their first sentences, and captions.

    A pair without a caption has a row of zeros there.
    """
    captions = [pair.caption for pair in pairs]
    said = text_features(backbone, captions, cache / "caption.safetensors")
    said = said * torch.tensor([bool(caption) for caption in captions])[:, None]
    alts = text_features(backbone, [pair.alt for pair in pairs], cache / "alt.safetensors")
    firsts = [first_sentence(pair.alt) for pair in pairs]
    return [alts, text_features(backbone, firsts, cache / "short.safetensors"), said]


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
