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
# With no more than this share of the squared length in the second half, a first pass over
# the first leaves few rows: 170 of 200,000 for vectors of the default model, whose share is
# 0.18, in 0.56 of the time of one pass. Without an order of dimensions it is 0.5.
MOST_IN_TAIL = 0.25
FIRST_TRIED = 300


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

    Of vectors whose first half holds most of their length (Matryoshka), the second half is
    multiplied only where it can matter: a product of second halves is at most the product
    of their lengths, and rows that cannot be among the best even so are left out. So the
    first pass is over short vectors, and the answer is exact.

    vectors:    float16 ``[n, d]``
    per_length: float32 ``[n]``, 1 / length of each
    """

    def __init__(self, vectors: "Vectors", per_length: "Vectors") -> None:
        self._vectors = vectors
        self._per_length = per_length
        self._half = (vectors.shape[1] + 1) // 2

    @cached_property
    def _halves(self) -> "tuple[Vectors, Vectors] | None":
        """``[n, d / 2]`` and what is left, in single precision; None where it is too much."""
        if 4 * self._vectors.size > SINGLE_BYTES:
            return None
        head, tail = np.split(self._vectors, [self._half], axis=1)
        return head.astype(np.float32), tail.astype(np.float32)

    @cached_property
    def tails(self) -> "Vectors | None":
        """Lengths of the second halves, ``[n]``; None where a first pass does not pay."""
        if self._halves is None or not len(self._vectors):
            return None
        lengths = np.linalg.norm(self._halves[1], axis=1)
        return lengths if float(np.mean(lengths**2)) <= MOST_IN_TAIL else None

    def among(self, mask: "Mask") -> Among:
        return Among(mask)

    def best(
        self, asked: "Vectors", k: int, among: Among | None = None
    ) -> "tuple[Vectors, Places]":
        places = None
        if among is not None and 4 * among.count < len(self._vectors):
            places = among.places
        elif self.tails is not None:
            return self._in_two_passes(asked, k, among)
        elif among is not None:
            return _top(self._cosines(asked)[among.places], among.places, k)
        if places is None:
            return _top(self._cosines(asked), np.arange(len(self._vectors)), k)
        return _top(self._cosines_of(places, asked), places, k)

    def _in_two_passes(
        self, asked: "Vectors", k: int, among: Among | None
    ) -> "tuple[Vectors, Places]":
        assert self._halves is not None
        assert self.tails is not None
        num_rows = len(self._vectors)
        head, tail = self._halves
        about = head @ asked[: self._half]  # [n]
        rest = asked[self._half :]
        most = (about + self.tails * np.linalg.norm(rest)) * self._per_length
        if among is not None:
            most[~among.mask] = -np.inf
        # What the best by that bound really are; nothing below their k-th is among the best.
        tried = _highest(most, min(num_rows, max(FIRST_TRIED, 4 * k)))
        tried = tried[most[tried] > -np.inf]
        cosines = (about[tried] + tail[tried] @ rest) * self._per_length[tried]
        last = np.partition(cosines, len(tried) - k)[-k] if len(tried) > k else -np.inf
        places = np.flatnonzero(most >= max(last - 2 * TIE, -2.0))
        if 4 * len(places) > num_rows:
            cosines = ((about + tail @ rest) * self._per_length)[places]
        else:
            cosines = (about[places] + tail[places] @ rest) * self._per_length[places]
        return _top(cosines, places, k)

    def _cosines(self, asked: "Vectors") -> "Vectors":
        if self._halves is not None:
            head, tail = self._halves
            products = head @ asked[: self._half]
            products += tail @ asked[self._half :]
            return products * self._per_length
        blocks = [
            self._vectors[start : start + BLOCK_ROWS].astype(np.float32) @ asked
            for start in range(0, len(self._vectors), BLOCK_ROWS)
        ]
        return np.concatenate(blocks) * self._per_length

    def _cosines_of(self, places: "Places", asked: "Vectors") -> "Vectors":
        blocks = [
            self._vectors[places[start : start + BLOCK_ROWS]].astype(np.float32) @ asked
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


def _highest(values: "Vectors", num: int) -> "Places":
    """Return the places of the ``num`` highest."""
    if num >= len(values):
        return np.arange(len(values))
    return np.argpartition(values, len(values) - num)[-num:]


def _top(cosines: "Vectors", places: "Places", k: int) -> "tuple[Vectors, Places]":
    """Return the best ``k``, and what is tied with the last of them."""
    if len(cosines) <= k:
        return cosines, places
    last = np.partition(cosines, len(cosines) - k)[-k]
    kept = np.flatnonzero(cosines >= last - TIE)
    return cosines[kept], places[kept]
