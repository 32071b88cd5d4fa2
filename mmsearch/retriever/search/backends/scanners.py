"""Which of the copied vectors are nearest: one promise, kept by numpy, by torch, by faiss.

    a unit vector [d], k, some of the rows --> cosines and places, unsorted

A scanner knows vectors by their place alone; whose they are is kept in `rows`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

    from mmsearch.retriever.search.backends.rows import Mask, Places
    from mmsearch.values import Vectors

# Cosines closer than this are a tie: the same two vectors differ by as much when they are
# multiplied at different places of a matrix.
TIE = 1e-6
BLOCK_ROWS = 8_192
# Up to this size a matrix is kept in single precision too: turning half into single takes
# six times as long as multiplying does.
SINGLE_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Among:
    """Some of a scanner's rows: ``mask [n]`` is true where one may be found."""

    mask: "Mask"

    @cached_property
    def places(self) -> "Places":
        """Where they are, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def count(self) -> int:
        """How many."""
        return int(np.count_nonzero(self.mask))


class Scanner(Protocol):
    """Finds the nearest of its vectors."""

    def among(self, mask: "Mask") -> Among:
        """Return the rows where ``mask`` is true, made ready to be asked for often."""
        ...

    def best(
        self, asked: "Vectors", k: int, among: Among | None = None
    ) -> "tuple[Vectors, Places]":
        """Return cosines and places of the best ``k``, and of what is tied with the last.

        ``asked`` is a unit vector; in no order; fewer where there are fewer.
        """
        ...


class NumpyScanner:
    """Looks at every row, with numpy.

    vectors:    float16 ``[n, d]``
    per_length: float32 ``[n]``, 1 / length of each
    """

    def __init__(self, vectors: "Vectors", per_length: "Vectors") -> None:
        self._vectors = vectors
        self._per_length = per_length

    @cached_property
    def _single(self) -> "Vectors | None":
        small = 4 * self._vectors.size <= SINGLE_BYTES
        return self._vectors.astype(np.float32) if small else None

    def among(self, mask: "Mask") -> Among:
        return Among(mask)

    def best(
        self, asked: "Vectors", k: int, among: Among | None = None
    ) -> "tuple[Vectors, Places]":
        if among is not None and 4 * among.count < len(self._vectors):
            places = among.places
            return _top(self._cosines_of(places, asked), places, k)
        cosines = self._cosines(asked)
        if among is None:
            return _top(cosines, np.arange(len(cosines)), k)
        return _top(cosines[among.places], among.places, k)

    def _cosines(self, asked: "Vectors") -> "Vectors":
        if self._single is not None:
            return (self._single @ asked) * self._per_length
        blocks = [
            self._vectors[start : start + BLOCK_ROWS].astype(np.float32) @ asked
            for start in range(0, len(self._vectors), BLOCK_ROWS)
        ]
        return np.concatenate(blocks) * self._per_length

    def _cosines_of(self, places: "Places", asked: "Vectors") -> "Vectors":
        kept = self.__dict__.get("_single")  # if it was made
        if kept is None:
            kept = self._vectors
        blocks = [
            kept[places[start : start + BLOCK_ROWS]].astype(np.float32, copy=False) @ asked
            for start in range(0, len(places), BLOCK_ROWS)
        ]
        found = np.concatenate(blocks) if blocks else np.empty(0, dtype=np.float32)
        return found * self._per_length[places]


class TorchScanner:
    """Looks at every row on a device of torch's: one product in half precision and a top-k.

    What that product rounds away can change places near the k-th, so all rows that
    may belong to the best are multiplied once more, in single precision.
    """

    # A component is rounded by at most 2^-11 of itself, so a unit vector by 2^-11, and so
    # is the product; either of two rows may have been wronged.
    _MARGIN = 4 * 2.0**-11

    def __init__(self, vectors: "Vectors", per_length: "Vectors", *, device: str) -> None:
        import torch

        self._vectors = torch.empty(vectors.shape, dtype=torch.float16, device=device)
        for start in range(0, len(vectors), BLOCK_ROWS):
            end = start + BLOCK_ROWS
            self._vectors[start:end] = torch.from_numpy(vectors[start:end])
        self._per_length = torch.from_numpy(np.array(per_length)).to(device)

    def among(self, mask: "Mask") -> Among:
        return Among(mask)

    def best(
        self, asked: "Vectors", k: int, among: Among | None = None
    ) -> "tuple[Vectors, Places]":
        import torch

        device = self._vectors.device
        question = torch.from_numpy(np.ascontiguousarray(asked)).to(device)  # [d]
        with torch.inference_mode():
            if among is not None and 4 * among.count < len(self._vectors):
                places = torch.from_numpy(among.places).to(device)
            else:
                places = self._candidates(question, k, among)
            cosines = self._vectors[places].float() @ question * self._per_length[places]
        return _top(cosines.cpu().numpy(), places.cpu().numpy(), k)

    def _candidates(self, question: "torch.Tensor", k: int, among: Among | None) -> "torch.Tensor":
        """Return the places of every row that may be among the best ``k``."""
        import torch

        about = (self._vectors @ question.half()).float() * self._per_length  # [n]
        if among is not None:
            allowed = torch.from_numpy(among.mask).to(about.device)
            about = about.masked_fill(~allowed, -torch.inf)
        room = len(about) if among is None else among.count
        if room <= k:
            return torch.nonzero(torch.isfinite(about)).squeeze(1)
        last = torch.topk(about, k).values[-1]
        return torch.nonzero(about >= last - self._MARGIN).squeeze(1)


def _top(cosines: "Vectors", places: "Places", k: int) -> "tuple[Vectors, Places]":
    """Return the best ``k``, and what is tied with the last of them."""
    if len(cosines) <= k:
        return cosines, places
    last = np.partition(cosines, len(cosines) - k)[-k]
    kept = np.flatnonzero(cosines >= last - TIE)
    return cosines[kept], places[kept]
