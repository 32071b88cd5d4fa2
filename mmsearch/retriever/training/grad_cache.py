"""The gradient of the whole batch's loss, with the memory of one chunk of it.

    chunks of this process --represent--> rows --gather--> rows of all processes
    rows of all --loss--> gradient of every row
    chunks, once more --represent--> the same rows --backward--> gradient of every weight

Algorithm: GradCache (arXiv 2101.06983). A chunk that is represented again draws the same
dropout, from the same seed, and finds the buffers as they were. The last chunk keeps its
graph, so a batch of one chunk is represented once and nothing is computed twice.
"""

from collections.abc import Sequence

import torch
from torch import nn

from mmsearch.retriever.training.examples import TrainingBatch
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.objective import Loss, Objective, Stage


def backward(
    model: nn.Module,
    objective: Objective,
    chunks: Sequence[TrainingBatch],
    stage: Stage,
    *,
    world: World,
    seeds: Sequence[int],
    autocast: torch.dtype | None,
    scale: float = 1.0,
) -> Loss:
    """Add to ``.grad`` of every trained parameter the gradient of the whole batch's loss.

    The batch is all chunks of all processes, and the gradient is equal in all of them.
    """
    raise NotImplementedError
