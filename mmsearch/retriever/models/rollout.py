"""PLUME: K continuous latent steps after the prompt, then a readout token.

Algorithm: PLUME (arXiv 2604.02073), section 3: latent rollout with a forced suffix.

    prefill -> z(0), anchor
    K times:   z(k) = extend(adapter(z(k-1), k-1, anchor))
    suffix:    extend(embed("<eot></think>\\n<gen_emb>")) -> gen

In training the suffix may hold words of a rationale besides, and differ from row to row;
`Rollout.unroll` gives its states, and what the experts were chosen by.

Every row takes the same number of steps, so a left-padded batch goes in lock-step and
nothing waits for the host. The suffix ends it: the published evaluation goes on decoding
after the readout token, which changes the vector whenever another one comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

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


class Unrolled(NamedTuple):
    """What a rollout went through, for losses to read.

    suffix:   ``[B, m, D]``, states of the suffix's tokens; each predicts the next one
    state:    ``[B, D]``, z(K), which predicts the first of them
    routing:  ``[B, K, experts]``, float32, the probabilities of all experts at each step; 0
              experts without an adapter
    readouts: what the prompt can be read out at, see `prefix_readouts`
    """

    suffix: Tensor
    state: Tensor
    routing: Tensor
    readouts: Mapping[str, Tensor]


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
        room = self._checked(effort) + len(self.suffix)
        readouts, anchor, cache = self._begun(backbone, batch, room)
        z = readouts["last"]
        suffix = backbone.embed(ids_on(z.device, self.suffix))
        steps = LatentSteps(self, backbone, effort)
        gen = backbone.run_steps(steps, cache, z, anchor, suffix)
        return {"gen": gen, **readouts}

    def unroll(
        self, backbone: Backbone[Batch, Cache], batch: Batch, *, effort: int, suffix: Tensor
    ) -> Unrolled:
        """Return all that happens in ``effort`` steps and a suffix of each row's own.

        suffix: ``[B, m]`` ids, right-padded with any of them: no state sees what is behind it
        """
        room = self._checked(effort) + suffix.shape[1]
        readouts, anchor, cache = self._begun(backbone, batch, room)
        z, routing, cache = self.latent_steps(backbone, cache, readouts["last"], anchor, effort)
        hidden, _ = backbone.extend(backbone.embed(suffix), cache)
        probabilities = z.new_zeros(len(z), effort, 0, dtype=torch.float32)
        if routing:
            probabilities = torch.stack(routing, dim=1)
        return Unrolled(hidden, z, probabilities, readouts)

    def latent_steps(
        self, backbone: Backbone[Batch, Cache], cache: Cache, z: Tensor, anchor: Tensor, effort: int
    ) -> tuple[Tensor, list[Tensor], Cache]:
        """Return the last state ``[B, D]``, each step's probabilities, and the longer cache.

        Operations of fixed shape only: this is what a graph records.
        """
        routing: list[Tensor] = []
        for step in range(effort):
            latent = z
            if self.adapter is not None:
                routing.append(self.adapter.route(z, step, anchor))
                latent = self.adapter.mix(z, routing[-1])
            hidden, cache = backbone.extend(latent[:, None], cache)
            z = hidden[:, 0]
        return z, routing, cache

    def _checked(self, effort: int) -> int:
        if not 0 <= effort <= self.config.steps:
            raise ValueError(f"it was trained with {self.config.steps} steps, got effort {effort}")
        return effort

    def _begun(
        self, backbone: Backbone[Batch, Cache], batch: Batch, room: int
    ) -> tuple[dict[str, Tensor], Tensor, Cache]:
        """Return the prompt's readouts, what steers the adapter ``[B, D]``, and the cache."""
        hidden, cache = backbone.prefill(batch, room=room)
        readouts = prefix_readouts(hidden, backbone.anchors(batch))
        z = readouts["last"]
        contexts = {"disc": readouts["disc"], "prefix_last": z, "none": torch.zeros_like(z)}
        return readouts, contexts[self.config.context], cache


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
        z, _, cache = self.reasoner.latent_steps(self.backbone, cache, z, anchor, self.effort)
        hidden, _ = self.backbone.extend(suffix.expand(len(z), -1, -1), cache)
        return hidden[:, -1]
