"""Vectors as they were when they were written down: whatever moves one is found out.

An index is worth nothing once its model computes other vectors, and a new version of torch,
transformers, tokenizers or pillow may do that in silence. A number may move by 2e-5: another
CPU adds in another order, which moves it by 1e-6 (measured, with every weight off by its
last bit); an approximated GELU moves some by 5e-5 and more, another position or resampling
by 1e-2. Where a change is meant, old indexes are void, and

    python tests/retriever/models/test_golden_vectors.py

writes golden_vectors.json anew: of each vector the first eight numbers, and its cosine with
a fixed direction, to which all of them count.
"""

import json
import math
import zlib
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.models import tiny, tiny_qwen
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.description import ModelDescription
from mmsearch.retriever.models.policy import VisualPolicy
from mmsearch.values import Frames, Image, Item, Role

TOLERANCE = 2e-5
GOLDEN = Path(__file__).with_name("golden_vectors.json")
# As PLUME was measured: positions that jump, two resizes, a blank picture before bare words.
AS_PUBLISHED = {
    "position_mode": "cache_length",
    "policy": VisualPolicy(min_pixels=784, first_min_pixels=3_136, blank_image=True),
}
DESCRIBED = {
    "default, none": tiny.tiny_description(),
    "qwen2_vl, none": tiny_qwen.tiny_description("qwen2_vl"),
    "qwen2_vl, bottleneck": tiny_qwen.tiny_description("qwen2_vl", reasoner="bottleneck"),
    "qwen2_vl, cot": tiny_qwen.tiny_description("qwen2_vl", reasoner="cot"),
    "qwen2_vl, rollout as published": tiny_qwen.tiny_description(
        "qwen2_vl", reasoner="rollout", **AS_PUBLISHED
    ),
    **{
        f"{family}, rollout": tiny_qwen.tiny_description(family, reasoner="rollout")
        for family in tiny_qwen.FAMILIES
    },
}


def values(name: str, tensor: Tensor) -> Tensor:
    """Return the weights of that name: the same on every machine, whatever torch draws.

    PCG64's raw numbers are fixed for good, where the distributions of numpy and torch are
    not. Sizes keep a state from fading or growing from layer to layer.
    """
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(tensor.numel())
    uniform = (raw >> np.uint64(11)).astype(np.float64) / 2**52 - 1.0  # in [-1, 1)
    drawn = torch.from_numpy(uniform * math.sqrt(3)).reshape(tensor.shape)  # of variance 1
    if tensor.dtype is torch.int8:
        return (drawn * 70).round().to(torch.int8)
    if name.endswith("words.scale"):
        return torch.full_like(tensor, 0.01)
    if name == "head.alpha":
        return torch.tensor(0.5)
    if tensor.ndim == 4:  # a convolution before a ReLU
        drawn *= math.sqrt(2 / tensor[0].numel())
    elif "embed_tokens" in name or "pos_embed" in name or "positions" in name:
        drawn *= 0.3
    elif tensor.ndim >= 2 and not name.endswith(("reason", "class_names", "step_embed.weight")):
        drawn /= math.sqrt(tensor[0].numel())
    elif name.endswith("bias"):
        drawn *= 0.2
    elif name.endswith("weight") and tensor.ndim == 1:  # of a norm
        drawn = 1.0 + 0.2 * drawn
    return drawn.to(tensor.dtype)


def golden_model(description: ModelDescription) -> Model:
    """Return the described model with the weights of `values`."""
    if description.backbone == "default":
        model = tiny.random_model()
    else:
        model = tiny_qwen.random_qwen(description)
    state = {name: values(name, tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def golden_items() -> list[Item]:
    """Return words, a picture, and a film among words and another picture."""

    def pixels(height: int, width: int, *, shift: int = 0) -> npt.NDArray[np.uint8]:
        y, x, c = np.mgrid[:height, :width, :3] + shift
        return ((5 * x + 3 * y * (c + 1) + x * y // 7) % 256).astype(np.uint8)

    film = np.stack([pixels(48, 64, shift=9 * t) for t in range(4)])
    return [
        Item("How many passengers used the line in 1999? Über 40 %"),
        Item(Image(pixels(70, 90))),
        Item([Frames(film), "and then", Image(pixels(60, 33)), "?"]),
    ]


class Row(TypedDict):
    """What is written down of one vector."""

    begins: list[float]
    cosine: float


def written_down(name: str) -> list[Row]:
    """Return what golden_vectors.json holds of the vectors of one model."""
    description = DESCRIBED[name]
    embedder = LatentEmbedder(description, golden_model(description))
    vectors = embedder.embed(golden_items(), role=Role.QUERY).astype(np.float64)
    direction = np.cos(np.arange(vectors.shape[1]))
    cosines = vectors @ direction / np.linalg.norm(direction)
    return [
        {"begins": [round(number, 6) for number in vector[:8].tolist()], "cosine": round(cosine, 6)}
        for vector, cosine in zip(vectors, cosines.tolist(), strict=True)
    ]


@pytest.mark.parametrize("name", DESCRIBED)
def test_vectors_are_as_they_were_written_down(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]

    now = written_down(name)

    assert len(now) == len(golden) == 3
    for item, (one, before) in enumerate(zip(now, golden, strict=True)):
        place = f"item {item}"
        np.testing.assert_allclose(
            one["begins"], before["begins"], atol=TOLERANCE, rtol=0, err_msg=place
        )
        assert one["cosine"] == pytest.approx(before["cosine"], abs=TOLERANCE), place


def test_no_two_models_have_the_same_vectors() -> None:
    golden = json.loads(GOLDEN.read_text())

    assert set(golden) == set(DESCRIBED)
    for item in (1, 2):  # bare words are read alike by Qwen2-VL and Qwen2.5-VL
        begins = [tuple(rows[item]["begins"]) for rows in golden.values()]
        assert len(set(begins)) == len(DESCRIBED)


if __name__ == "__main__":
    # One vector a line, so that a change can be read.
    models = [
        f"  {json.dumps(name)}: [\n"
        + ",\n".join(f"    {json.dumps(row)}" for row in written_down(name))
        + "\n  ]"
        for name in DESCRIBED
    ]
    GOLDEN.write_text("{\n" + ",\n".join(models) + "\n}\n")
