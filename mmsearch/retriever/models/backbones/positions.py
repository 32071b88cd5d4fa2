"""Where each token of one prompt stands: time, row and column (M-RoPE), always explicit.

    types [n], grids of its pictures and films -> positions [3, n], the next position

Algorithm: multimodal rotary position embedding, Qwen2-VL (arXiv 2409.12191), section 2.1.
Words count on by one on all three axes. The tokens of a picture share one moment and count
rows and columns; those of a film count moments as well. What follows goes on after the
largest position of all three axes, as the published weights were trained. Transformers
from 5.3 on goes on after the longer side of a film instead, which is another place where a
film has more moments than tokens along that side: of eight frames at half a megapixel, none
has (huggingface/transformers#45381).

Pure numpy on one row: nothing is kept, so threads and batches cannot disturb one another.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mmsearch.retriever.models.backbones.patches import Grid

TEXT, IMAGE, FILM = 0, 1, 2  # types of tokens


class Placed(NamedTuple):
    """Positions ``[3, n]`` (time, row, column) and the first free one after them all."""

    positions: npt.NDArray[np.int64]
    next_position: int


def place(
    types: npt.NDArray[np.int8], grids: "Sequence[Grid]", moments: Sequence[float], *, merge: int
) -> Placed:
    """Return the positions of one row without its padding.

    types:   ``[n]``, TEXT, IMAGE or FILM
    grids:   of the pictures and films in order; each covers ``grid.num_tokens(merge)`` of
             the tokens that are not TEXT, in order, whether or not words stand between
    moments: positions that one temporal patch of each takes: 1, or Qwen2.5-VL's seconds of
             it times ``tokens_per_second`` for a film; fractions are cut off
    merge:   patches that are merged into one token, along rows and along columns

    Raises ValueError where grids and tokens do not add up.
    """
    sizes = np.array([grid.num_tokens(merge) for grid in grids], dtype=np.int64)
    visual = np.flatnonzero(types != TEXT)
    if sizes.sum() != len(visual):
        raise ValueError(f"{len(visual)} visual tokens do not make grids of {sizes.tolist()}")
    starts = visual[np.cumsum(sizes) - sizes]  # (V,) of each grid's first token
    # float32, as the reference: where a product is nearly whole, its last bit decides.
    times = [
        (np.arange(grid.frames, dtype=np.float32) * np.float32(moment)).astype(np.int64)
        for grid, moment in zip(grids, moments, strict=True)
    ]
    # A grid moves on what follows by its longest axis, and its own tokens by nothing.
    strides = np.ones(len(types), dtype=np.int64)
    strides[visual] = 0
    longest = [
        max(grid.rows // merge, grid.columns // merge, int(when[-1]) + 1)
        for grid, when in zip(grids, times, strict=True)
    ]
    np.add.at(strides, visual[np.cumsum(sizes) - 1], longest)
    begins = np.cumsum(strides) - strides  # (n,) what stands before each token takes
    positions = np.tile(begins, (3, 1))
    for start, size, grid, when in zip(starts, sizes, grids, times, strict=True):
        rows, columns = np.arange(grid.rows // merge), np.arange(grid.columns // merge)
        axes = np.stack(np.meshgrid(when, rows, columns, indexing="ij"))
        positions[:, start : start + size] = begins[start] + axes.reshape(3, -1)
    return Placed(positions, int(positions.max(initial=-1)) + 1)
