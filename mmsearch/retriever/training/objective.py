"""What is learnt: an Objective makes tensors of one row a sample, and a loss of those.

    represent  TrainingBatch -> {"query.gen": [B, D], "positive.gen": [B, D], "ce": [B], ...}
    loss       the same tensors of the whole batch, of every process -> Loss

Everything that a loss needs of a sample is a tensor with a row for it: embeddings, routing
probabilities, cross-entropies. So the loop can compute them chunk by chunk without
gradients, gather them from all processes, differentiate the loss by them, and only then
run each chunk again with its gradient (GradCache, arXiv 2101.06983): one path for a batch
that fits and for one that does not, for one process and for many, and a loss that is
always that of the whole batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from mmsearch.retriever.training.examples import TrainingBatch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmsearch.retriever.models.checkpoint import Model

Representations: TypeAlias = "Mapping[str, Tensor]"


@dataclass(frozen=True, slots=True)
class Stage:
    """What is trained from ``start`` (a share of all steps, in [0, 1)) on.

    effort:      latent steps (PLUME), reason tokens (LaME)
    text_left:   share of the rationale's segments that is still written, from the end
    has_answer:  whether the answer is still written
    trained:     parts that learn, as `Objective.parts` names them
    is_new:      whether AdamW's moments are zeroed where the stage begins
    """

    name: str
    start: float
    effort: int
    trained: tuple[str, ...] = ("backbone", "reasoner", "head", "extras")
    text_left: float = 0.0
    has_answer: bool = False
    is_new: bool = False


class Loss(NamedTuple):
    """``total`` is what is minimised; ``parts`` are what it is made of, unweighted, to be told."""

    total: "Tensor"
    parts: "Mapping[str, Tensor]"


class Objective(Protocol):
    """A recipe: PLUME's, LaME's, or plain contrastive."""

    name: str
    stages: Sequence[Stage]  # by their start; the first starts at 0
    extras: "nn.Module"  # what is trained and never exported, such as LaME's decoder

    def represent(self, model: "Model", batch: TrainingBatch, stage: Stage) -> Representations:
        """Return what the loss needs of each sample, every tensor ``[B, ...]``.

        Rows depend on their own sample alone, and B is the same for all but those named
        ``negative...``, which have a row for each hard negative.
        """
        ...

    def loss(self, representations: Representations, stage: Stage) -> Loss:
        """Return the loss of all rows, float32; gradients reach every tensor it read."""
        ...
