"""What LaME's training adds: a decoder that tells the target from a few reason states.

    reason states R [B, N, D] --first K--> W_d LN(Z) [B, K, d]   a soft prefix
    target ids [B, m] --embed--> [B, m, d]
    [prefix ; target] --causal decoder, tied logits--> cross-entropy of each row

It sees nothing else of the query, so all that it learns to say has to pass through K
vectors, and its gradient reaches the backbone through them alone. It is no part of the
model that embeds: leaving it out changes no vector.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmsearch.retriever.models.backbones.decoder import Decoder, DecoderConfig
from mmsearch.retriever.models.bottleneck import Bottleneck
from mmsearch.retriever.models.token_losses import row_means, token_losses

WEIGHT_STD = 0.02  # of initial weights


@dataclass(frozen=True, slots=True)
class TargetDecoderConfig:
    """Sizes of the decoder.

    LaME decodes with Qwen3-0.6B: 28 layers 1,024 wide, 16 heads and 8 of keys, ffn 3,072,
    151,936 tokens, and a language it knows already. Ours starts from nothing and is as
    small as words to be told of a target allow.

    vocabulary:  ids of the target's tokens are below it
    decoder:     the layers
    """

    vocabulary: int
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


class TargetDecoder(nn.Module):
    """Reads the reason states of one `Bottleneck`."""

    def __init__(self, config: TargetDecoderConfig, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.config, self.num_decoded = config, bottleneck.config.num_decoded
        width = bottleneck.reason.shape[1]
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, config.decoder.width)
        self.words = nn.Embedding(config.vocabulary, config.decoder.width)
        self.decoder = Decoder(config.decoder)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=WEIGHT_STD)

    def losses(self, reason: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return each row's mean cross-entropy over its real target tokens, float32 ``[B]``.

        0 for a row without any. An end token that is to be learnt is part of the target.

        reason: ``[B, N, D]``, all reason states in any precision; the first K are read
        target: ``[B, m]`` ids, right-padded with any of them
        mask:   ``[B, m]``, False at padding
        """
        states = reason[:, : self.num_decoded].to(self.norm.weight.dtype)
        prefix = self.into(self.norm(states))  # (B, K, d)
        embeds = torch.cat([prefix, self.words(target).to(prefix.dtype)], dim=1)
        visible = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
        hidden, _ = self.decoder.prefill(embeds, visible)
        # The last of the prefix predicts the first token; the last token predicts nothing.
        hidden = hidden[:, self.num_decoded - 1 : -1]  # (B, m, d)
        return row_means(token_losses(self._logits, hidden[mask], target[mask]), mask)

    def _logits(self, hidden: Tensor) -> Tensor:
        return hidden.to(self.words.weight.dtype) @ self.words.weight.T
