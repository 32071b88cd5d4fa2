"""The gradient of the whole batch's loss, with the memory of one chunk of it.

    chunks of this process --represent--> rows --gather--> rows of all processes
    rows of all --loss--> gradient of every row
    chunks, once more --represent--> the same rows --backward--> gradient of every weight

Algorithm: GradCache (arXiv 2101.06983). A chunk that is represented again draws the same
dropout, from the same seed, and finds the buffers as they were. The last chunk keeps its
graph, so a batch of one chunk is represented once and nothing is computed twice.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mmsearch.retriever.training.examples import TrainingBatch
from mmsearch.retriever.training.gathering import World, gather_rows, gather_values, sum_gradients
from mmsearch.retriever.training.objective import Loss, Objective, Representations, Stage

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model

NEGATIVE = "negative"  # what the names begin with that have a row for each hard negative
NEGATIVE_OF = "negative_of"  # row numbers, which are counted anew in every chunk


class _Rows(NamedTuple):
    """What the processes tell each other of a representation before they gather it."""

    dtype: torch.dtype
    device: str  # its type: each has its own of them
    shape: tuple[int, ...]  # of each
    number: int
    requires_grad: bool


class _Part(NamedTuple):
    """What they tell each other of their part of the batch."""

    num_trained: int
    num_pairs: int
    rows: dict[str, _Rows]


def backward(
    model: "Model",
    objective: Objective,
    chunks: Sequence[TrainingBatch],
    stage: Stage,
    *,
    world: World,
    seeds: Sequence[int],
    autocast: torch.dtype | None,
    scale: float = 1.0,
) -> Loss:
    """Add to ``.grad`` of what is trained the gradient of the loss of the whole batch.

    chunks:   this process's part of the batch; the others may have more of them, or none
    seeds:    one for each chunk: what its dropout is drawn from. Global generators are left
              as they were
    autocast: what chunks are represented in, such as bfloat16; None is as the weights are.
              The loss itself is outside of it
    scale:    what the gradient, not the loss, is multiplied by

    Trained is every parameter of the model and of ``objective.extras`` that requires a
    gradient; one that nothing of the batch reaches keeps the ``.grad`` it had, even None.
    Afterwards ``.grad`` and the returned loss are the same in all processes. The gradient
    is that of all rows together, also where ``objective.loss`` itself has parameters.
    """
    if len(seeds) != len(chunks):
        raise ValueError(f"each chunk has a seed, got {len(chunks)} chunks and {len(seeds)} seeds")
    trained = _trained(model, objective.extras)
    if not trained:
        raise ValueError("nothing is trained: no parameter requires a gradient")
    device = trained[0].device
    before = [parameter.grad for parameter in trained]
    for parameter in trained:
        parameter.grad = None

    def represent(index: int) -> Representations:
        # Both times with gradient: without one, models take other kernels, and the rows
        # that the loss is differentiated by would not be those that are differentiated.
        torch.manual_seed(seeds[index])
        torch.clear_autocast_cache()  # under an outer autocast it would hold older weights
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            return _checked(objective.represent(model, chunks[index], stage), len(chunks[index]))

    generators = [device] if device.type == "cuda" else []
    with (
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        torch.random.fork_rng(devices=generators),
    ):
        at_first = _Buffers(model, objective.extras) if len(chunks) > 1 else None
        kept: Representations = {}
        shelf: list[dict[str, Tensor]] = []
        needs: set[str] = set()
        for i in range(len(chunks)):
            kept = {}  # the graph of the chunk before, which would otherwise live on
            kept = represent(i)
            needs |= {name for name, rows in kept.items() if rows.requires_grad}
            # A copy: a view of the last token would keep the states of all of them.
            shelf.append({name: rows.detach().clone() for name, rows in kept.items()})
        whole, starts = _gathered(shelf, [len(chunk) for chunk in chunks], needs, trained, world)
        loss, of_whole = _differentiated(objective, stage, whole, trained, world, scale)
        gradients = _cut(of_whole, starts, shelf)

        if gradients:
            _push(kept, gradients[-1])
        kept = {}
        if at_first is not None and any(gradients[:-1]):
            at_last = _Buffers(model, objective.extras)
            at_first.put_back()
            for i in range(len(chunks) - 1):
                _push(represent(i), gradients[i])
            at_last.put_back()

    sum_gradients(trained, world)
    for parameter, earlier in zip(trained, before, strict=True):
        if earlier is not None:
            parameter.grad = earlier if parameter.grad is None else parameter.grad.add_(earlier)
    return loss


def _trained(*modules: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient, each once, in the modules' order."""
    found = {parameter: None for module in modules for parameter in module.parameters()}
    return [parameter for parameter in found if parameter.requires_grad]


def _checked(representations: Representations, num_rows: int) -> Representations:
    for name, rows in representations.items():
        if rows.ndim == 0 or (not name.startswith(NEGATIVE) and len(rows) != num_rows):
            shape = list(rows.shape)
            raise ValueError(f"{name!r} has the shape {shape}, and the chunk has {num_rows} rows")
    return representations


def _gathered(
    shelf: Sequence[Mapping[str, Tensor]],
    lengths: Sequence[int],
    needs: set[str],
    trained: Sequence[nn.Parameter],
    world: World,
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the rows of the whole batch, and where those of this process begin in each."""
    parts: dict[str, list[Tensor]] = {}
    first_row = 0
    for chunk, length in zip(shelf, lengths, strict=True):
        for name, rows in chunk.items():
            parts.setdefault(name, []).append(rows + first_row if name == NEGATIVE_OF else rows)
        first_row += length
    own = {name: torch.cat(rows) for name, rows in parts.items()}
    told = {
        name: _Rows(rows.dtype, rows.device.type, tuple(rows.shape[1:]), len(rows), name in needs)
        for name, rows in own.items()
    }
    everywhere = gather_values(_Part(len(trained), sum(lengths), told), world)
    known = _agreed(everywhere)

    whole: dict[str, Tensor] = {}
    starts: dict[str, int] = {}
    first_row = sum(part.num_pairs for part in everywhere[: world.rank])
    here = trained[0].device
    for name, kind in known.items():
        if name not in own:  # the other processes have hard negatives, or pairs at all
            device = here if here.type == kind.device else kind.device
            own[name] = torch.empty(0, *kind.shape, dtype=kind.dtype, device=device)
        elif name == NEGATIVE_OF:
            own[name] = own[name] + first_row
        counts = [part.rows[name].number if name in part.rows else 0 for part in everywhere]
        rows = gather_rows(own[name], world, counts=counts)
        whole[name] = rows.requires_grad_(kind.requires_grad)
        starts[name] = sum(counts[: world.rank])
    return whole, starts


def _agreed(everywhere: Sequence[_Part]) -> dict[str, _Rows]:
    """Return every representation that some process has, in one order for all of them.

    Raises ValueError, in all of them, where they cannot be gathered: nobody is left waiting.
    """
    if len({part.num_trained for part in everywhere}) > 1:
        raise ValueError("the processes train different parameters")
    if not any(part.num_pairs for part in everywhere):
        raise ValueError("the batch has no pairs")
    known: dict[str, _Rows] = {}
    for part in everywhere:
        for name, rows in part.rows.items():
            first = known.setdefault(name, rows)
            if rows[:3] != first[:3]:
                raise ValueError(f"rows of {name!r} are not the same kind: {rows} and {first}")
            known[name] = first._replace(requires_grad=first.requires_grad or rows.requires_grad)
    for name in known:
        for part in everywhere:
            count = part.rows[name].number if name in part.rows else 0
            if not name.startswith(NEGATIVE) and count != part.num_pairs:
                raise ValueError(
                    f"{name!r} has {count} rows where there are {part.num_pairs} pairs"
                )
    return known


def _differentiated(
    objective: Objective,
    stage: Stage,
    whole: Mapping[str, Tensor],
    trained: Sequence[nn.Parameter],
    world: World,
    scale: float,
) -> tuple[Loss, dict[str, Tensor]]:
    """Return the loss of all rows and its gradient by those that it read and that have one.

    The gradient by parameters of the loss itself goes to ``.grad`` of the first process
    alone: each has the whole of it, and it is going to be summed.
    """
    loss = objective.loss(whole, stage)
    if not loss.total.requires_grad:
        raise ValueError("the loss reads nothing that is trained")
    leaves = {name: rows for name, rows in whole.items() if rows.requires_grad}
    found = torch.autograd.grad(
        loss.total,
        [*leaves.values(), *trained],
        torch.full_like(loss.total, scale),
        allow_unused=True,
    )
    if world.rank == 0:
        for parameter, gradient in zip(trained, found[len(leaves) :], strict=True):
            # A copy: two parameters may be given one tensor, and more is added in place.
            parameter.grad = None if gradient is None else gradient.clone()
    parts = {name: part.detach() for name, part in loss.parts.items()}
    read = zip(leaves, found[: len(leaves)], strict=True)
    return Loss(loss.total.detach(), parts), {name: grad for name, grad in read if grad is not None}


def _cut(
    of_whole: Mapping[str, Tensor],
    starts: Mapping[str, int],
    shelf: Sequence[Mapping[str, Tensor]],
) -> list[dict[str, Tensor]]:
    """Return the gradients of each chunk's rows, out of those of the whole batch."""
    gradients: list[dict[str, Tensor]] = []
    next_row = dict(starts)
    for chunk in shelf:
        gradients.append({})
        for name, rows in chunk.items():
            if name in of_whole:
                stop = next_row[name] + len(rows)
                gradients[-1][name] = of_whole[name][next_row[name] : stop]
                next_row[name] = stop
    return gradients


def _push(representations: Representations, gradients: Mapping[str, Tensor]) -> None:
    """Add to ``.grad`` of the weights what these gradients of the rows make of them."""
    names = [name for name in gradients if representations[name].requires_grad]
    if names:
        torch.autograd.backward(
            [representations[name] for name in names], [gradients[name] for name in names]
        )


class _Buffers:
    """The buffers of some modules as they are now, such as running means.

    Their values are always copied: the kernels that write them do not say so.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self.kept = [
            (module, name, buffer, buffer.clone())
            for parent in modules
            for module in parent.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if 0 not in buffer.stride()  # an expanded one cannot be written
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Make them what they were, the same tensors with the same values."""
        for module, name, buffer, values in self.kept:
            setattr(module, name, buffer)
            buffer.copy_(values)
