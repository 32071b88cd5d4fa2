"""PLUME: K continuous latent steps after the prompt, then a readout token.

Algorithm: PLUME (arXiv 2604.02073), section 3: latent rollout with a forced suffix.

    prefill -> z(0), anchor
    K times:   z(k) = extend(adapter(z(k-1), k-1, anchor))
    suffix:    extend(embed("<eot></think>\\n<gen_emb>")) -> gen

Every row takes the same number of steps, so a left-padded batch goes in lock-step and
nothing waits for the host. The suffix ends it: the published evaluation goes on decoding
after the readout token, which changes the vector whenever another one comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor, nn

from mmsearch.retriever.models.adapter import AdapterConfig, LatentAdapter
from mmsearch.retriever.models.none import prefix_readouts
from mmsearch.retriever.models.vocabulary import forced_tokens, ids_on
from mmsearch.retriever.seams import Backbone, Batch, Cache

CONTEXTS = ("disc", "prefix_last", "none")


@dataclass(frozen=True, slots=True)
class RolloutConfig:
    """How the latent steps go.

    steps:       the most latent steps, which is how many it was trained with
    suffix:      text forced after them; its last token is the readout
    context:     what steers the adapter: the semantic anchor ("disc"), which is z(0) in a
                 prompt without one, always z(0) ("prefix_last"), or zeros ("none")
    adapter:     None feeds a state back as it is, which is Coconut's recurrence
    """

    steps: int = 8
    suffix: str = "<eot></think>\n<gen_emb>"
    context: str = "disc"
    adapter: AdapterConfig | None = field(default_factory=AdapterConfig)


class Rollout(nn.Module):
    """Effort is the number of latent steps; 0 is a plain readout of the suffix."""

    name = "rollout"

    def __init__(self, config: RolloutConfig, backbone: Backbone[Batch, Cache]) -> None:
        super().__init__()
        if config.steps < 0:
            raise ValueError(f"steps count from 0, got {config.steps}")
        if config.context not in CONTEXTS:
            raise ValueError(f"context is one of {', '.join(CONTEXTS)}, not {config.context!r}")
        self.config, self.dim = config, backbone.width
        self.suffix = forced_tokens(backbone, config.suffix)
        self.adapter: LatentAdapter | None = None
        if config.adapter is not None:
            self.adapter = LatentAdapter(backbone.width, config.adapter)

    def think(
        self, backbone: Backbone[Batch, Cache], batch: Batch, *, effort: int
    ) -> Mapping[str, Tensor]:
        if not 0 <= effort <= self.config.steps:
            raise ValueError(f"it was trained with {self.config.steps} steps, got effort {effort}")
        hidden, cache = backbone.prefill(batch, room=effort + len(self.suffix))
        readouts = prefix_readouts(hidden, backbone.anchors(batch))
        z = readouts["last"]
        contexts = {"disc": readouts["disc"], "prefix_last": z, "none": torch.zeros_like(z)}
        suffix = backbone.embed(ids_on(z.device, self.suffix))
        steps = LatentSteps(self, backbone, effort)
        gen = backbone.run_steps(steps, cache, z, contexts[self.config.context], suffix)
        return {"gen": gen, **readouts}


@dataclass(frozen=True, slots=True)
class LatentSteps(Generic[Batch, Cache]):
    """The part that is the same for every batch of a shape, so that it can be recorded.

    Equal for the same modules (not for like ones) and the same effort, and hashed likewise.
    """

    reasoner: Rollout
    backbone: Backbone[Batch, Cache]
    effort: int

    def __call__(self, cache: Cache, z: Tensor, anchor: Tensor, suffix: Tensor) -> Tensor:
        """Return the readout ``[B, D]`` from ``z [B, D]``, ``anchor [B, D]``, ``suffix [m, D]``."""
        adapter = self.reasoner.adapter
        for step in range(self.effort):
            latent = z if adapter is None else adapter(z, step, anchor)
            hidden, cache = self.backbone.extend(latent[:, None], cache)
            z = hidden[:, 0]
        hidden, _ = self.backbone.extend(suffix.expand(len(z), -1, -1), cache)
        return hidden[:, -1]
