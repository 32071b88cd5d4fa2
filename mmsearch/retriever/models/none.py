"""The reasoner that does not think: one pass, read out at the last token.

    prefill -> hidden [B, n, D] -> {"disc": [B, D]}

It is what every latent reasoner is measured against.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from mmsearch.retriever.seams import Backbone, Batch, Cache


class NoReasoner(nn.Module):
    """Effort 0 is its only one."""

    name = "none"

    def think(
        self, backbone: Backbone[Batch, Cache], batch: Batch, *, effort: int
    ) -> Mapping[str, Tensor]:
        if effort != 0:
            raise ValueError(f"reasoner 'none' takes no latent steps, got effort {effort}")
        hidden, _ = backbone.prefill(batch)
        return {"disc": hidden[:, -1]}  # left-padded: the last place is the last token
