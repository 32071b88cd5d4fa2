"""The places where the engine can be given something else.

    Backbone x Reasoner -> Embedder          how items become vectors
    VectorIndex                              how vectors become neighbours

Whoever adds a model family writes one Backbone; whoever adds a way of thinking
writes one Reasoner; neither touches the other. Shapes share their axis names:
B batch, n tokens, m new tokens, D backbone width, d embedding dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from mmsearch.values import Item, Role, Space, View

if TYPE_CHECKING:
    from torch import Tensor

    from mmsearch.values import Vectors


Batch = TypeVar("Batch")
Cache = TypeVar("Cache")


class Backbone(Protocol[Batch, Cache]):
    """A network that turns collated items into hidden states, and can go on from there.

    ``Batch`` and ``Cache`` are the backbone's own types: whoever holds one only
    hands it back. Positions and masks are their business and always explicit;
    padding never changes a row's result. Nothing is kept between calls, so several
    threads may call it at once.
    """

    width: int  # D
    token_bytes: int  # memory that one token of work takes while it is embedded, about

    def num_tokens(self, item: Item) -> int:
        """Return about how many tokens of work an item is; batches are cut by it."""
        ...

    def collate(self, items: Sequence[Item], *, role: Role) -> Batch:
        """Return the items as one batch of tensors on the backbone's device.

        Raises BadItem for an item that is longer than the model can read.
        """
        ...

    def prefill(
        self, batch: Batch, *, tail: "Tensor | None" = None, room: int = 0
    ) -> "tuple[Tensor, Cache]":
        """Return hidden states ``[B, n, D]``, left-padded, and the cache that holds them.

        ``tail [m, D]`` is appended to every row in the same pass, as `extend` would have
        done in a second one. ``room`` is how many places `extend` will be asked for.
        """
        ...

    def extend(self, embeds: "Tensor", cache: Cache) -> "tuple[Tensor, Cache]":
        """Append ``embeds [B, m, D]`` and return their hidden states and the longer cache.

        The cache that was handed in may be changed and is not to be used again.
        """
        ...

    def run_steps(
        self, steps: "Callable[..., Tensor]", cache: Cache, *inputs: "Tensor"
    ) -> "Tensor":
        """Return ``steps(cache, *inputs)``, which calls `extend` and fixed-shape operations only.

        A backbone on a GPU may record it as one graph and replay that: ``steps`` has to be
        hashable, and equal only where it does the same.
        """
        ...

    def anchors(self, batch: Batch) -> "Tensor":
        """Return how many places before the end of each prompt its semantic anchor is, ``[B]``.

        0, the last place itself, where the prompt has no anchor.
        """
        ...

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text of the model's own, special ones among them."""
        ...

    def embed(self, ids: "Tensor") -> "Tensor":
        """Return the input embeddings ``[..., D]`` of vocabulary ids ``[...]``."""
        ...

    def logits(self, hidden: "Tensor") -> "Tensor":
        """Return next-token logits ``[B, vocabulary]`` of hidden states ``[B, D]``."""
        ...

    def readouts(self, batch: Batch) -> "Mapping[str, Tensor]":
        """Return further readouts ``[B, d]`` of its own, such as the default's ``base``."""
        ...


class Reasoner(Protocol):
    """How an embedder thinks between prompt and readout; sees embeddings, never pixels."""

    name: str

    def think(
        self, backbone: Backbone[Batch, Cache], batch: Batch, *, effort: int
    ) -> "Mapping[str, Tensor]":
        """Return named readouts ``[B, D]``: ``disc``, ``gen``, ... as the reasoner has them."""
        ...


class Calibration(NamedTuple):
    """How a cosine reads as evidence: 0.5 at ``midpoint``, logistic with ``slope``.

    On held-out pairs, the midpoint is the median cosine of a query's best wrong candidate
    in a pool of 500, so that 0.5 means "no better than the best of what is not the
    answer"; the slope is that of right candidates against wrong ones.
    """

    midpoint: float
    slope: float


class Embedder(Protocol):
    """Turns items into unit vectors of one space."""

    @property
    def space(self) -> Space:
        """What the vectors may be compared with."""
        ...

    @property
    def calibration(self) -> Mapping[tuple[View, View], Calibration]:
        """How to read a cosine, by (side of the query, side of the segment)."""
        ...

    @property
    def call_tokens(self) -> int:
        """How many tokens of work one call should have to keep its device busy."""
        ...

    def num_tokens(self, item: Item) -> int:
        """Return about how many tokens of work an item is."""
        ...

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        """Return float32 ``[n, d]``, one unit row an item, in the order given.

        An item's vector does not depend on the others in the call (contract 4).
        Raises BadVectors where the network computes NaN or infinity, BadItem for one that
        is longer than the model can read, OutOfMemory for one that alone does not fit.
        """
        ...


class Neighbour(NamedTuple):
    """A segment and how near it is: a cosine in [-1, 1], or a BM25 score >= 0."""

    segment_id: str
    score: float


class VectorIndex(Protocol):
    """Answers which segments are nearest; one promise, several back-ends.

    Where every row is looked at, the answer is exact; where an index chooses the rows to
    look at, recall@10 is at least 0.98, filtered or not. Scores are cosines of the kept
    vectors (half precision) and of no code that stands for them.
    """

    def nearest(
        self, view: View, vector: "Vectors", *, k: int, where: str | None = None
    ) -> list[Neighbour]:
        """Return at most ``k`` segments by cosine on that side, best first, ties by id.

        ``vector`` is ``[d]``; ``where`` is SQL over the filter columns, applied before
        the search. Raises ValueError for a wrong dimension, NaN or ``k < 1``.
        """
        ...
