"""What keeps a model near what it was: its own vectors before training, of words.

    Held(model)                  a copy of every weight that learns, as they are now
    held.reference(model, side)  -> [B, d], zeros for an item that is not words alone

Pictures are what training is to change; texts are compared with texts as well as before.
The copy takes as much memory as those weights, and is made only where it is asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsearch.retriever.training.examples import SideBatch
from mmsearch.retriever.training.objective import Representations
from mmsearch.retriever.training.objectives.contrast import base_of, own_batch, vector

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model


class Held:
    """The weights of a model at one moment; they are put in to ask, and taken out again.

    effort, readout: what makes the model's vector
    """

    def __init__(self, model: "Model", *, effort: int, readout: str) -> None:
        self.effort, self.readout = effort, readout
        self.weights = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }

    def reference(self, model: "Model", side: SideBatch) -> Tensor:
        """Return the vectors ``[B, d]`` that the model had; zeros where there are pictures."""
        batch = own_batch(side)
        device = next(model.parameters()).device
        wanted = [all(isinstance(part, str) for part in one.parts) for one in side.sides]
        # In full: what autocast has rounded of the weights is kept under their names.
        exact = torch.autocast(device.type, enabled=False)
        with torch.no_grad(), exact, self._put_back(model):
            base = base_of(model, batch)
            if base is not None and model.head.is_closed():
                vectors = vector(model, base, None)
            else:
                thought = model.reasoner.think(model.backbone, batch, effort=self.effort)
                vectors = vector(model, base, thought[self.readout])
        return vectors * torch.tensor(wanted, device=device)[:, None]

    @contextmanager
    def _put_back(self, model: "Model") -> Iterator[None]:
        """Make the model what it was, without dropout, while the context lasts."""
        modes = {module: module.training for module in model.modules()}
        now = {name: p.data for name, p in model.named_parameters() if name in self.weights}
        try:
            model.eval()
            for name, parameter in model.named_parameters():
                if name in now:
                    parameter.data = self.weights[name].to(now[name])
            yield
        finally:
            for name, parameter in model.named_parameters():
                if name in now:
                    parameter.data = now[name]
            for module, mode in modes.items():
                module.training = mode


def held_rows(rows: Representations, readout: str) -> tuple[Tensor, Tensor]:
    """Return the vectors of both sides ``[2 B, d]``, and what they were."""
    vectors, references = (
        torch.cat([rows[f"{side}.{of}"] for side in ("query", "positive")])
        for of in (readout, "reference")
    )
    return vectors, references
