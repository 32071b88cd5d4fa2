"""Written reasoning: the thought is generated token by token, then the readout token.

    prefill -> token -> embed -> extend -> token -> ... until <gen_emb> in every row

It is how UME-R1 embeds, and the baseline that PLUME and LaME are measured against: each
token of thought streams the whole network once, where a latent step carries a vector.
Rows of a batch end at different tokens; those that have ended wait for the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsearch.retriever.models.none import prefix_readouts
from mmsearch.retriever.seams import Backbone, Batch, Cache


@dataclass(frozen=True, slots=True)
class CotConfig:
    """When a thought ends.

    max_new_tokens: a row that has not ended by then is read out at the readout token,
                    which is forced upon it
    gen:            the readout token
    ends:           tokens that end a thought without one
    """

    max_new_tokens: int = 1_024
    gen: str = "<gen_emb>"
    ends: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>")


class Cot(nn.Module):
    """Greedy; effort 0 is its only one, because thoughts are as long as they are."""

    name = "cot"

    def __init__(self, config: CotConfig, backbone: Backbone[Batch, Cache]) -> None:
        super().__init__()
        self.config, self.dim = config, backbone.width
        self.gen = single_token(backbone, config.gen)
        self.ends = tuple(single_token(backbone, end) for end in config.ends)

    def think(
        self, backbone: Backbone[Batch, Cache], batch: Batch, *, effort: int
    ) -> Mapping[str, Tensor]:
        if effort != 0:
            raise ValueError(f"reasoner 'cot' takes no latent steps, got effort {effort}")
        most = self.config.max_new_tokens
        hidden, cache = backbone.prefill(batch, room=most + 1)
        readouts = prefix_readouts(hidden, backbone.anchors(batch))
        last = readouts["last"]
        gen = torch.zeros_like(last)
        ended = torch.zeros(len(last), dtype=torch.bool, device=last.device)
        stops = torch.tensor(self.ends, device=last.device)
        for written in range(most + 1):
            token = backbone.logits(last).argmax(dim=-1)  # (B,)
            # No thought ends without a readout: where it would, or has to, the token is forced.
            forced = torch.isin(token, stops) | torch.tensor(written == most, device=token.device)
            token = torch.where(forced | ended, self.gen, token)
            hidden, cache = backbone.extend(backbone.embed(token)[:, None], cache)
            last = hidden[:, 0]
            ends_here = (token == self.gen) & ~ended
            gen = torch.where(ends_here[:, None], last, gen)
            ended = ended | ends_here
            if bool(ended.all()):
                break
        return {"gen": gen, **readouts}


def single_token(backbone: Backbone[Batch, Cache], text: str) -> int:
    """Return the id of a special token; ValueError where the vocabulary lacks it."""
    ids = backbone.tokens(text)
    if len(ids) != 1:
        raise ValueError(f"the vocabulary has no token {text!r}")
    return ids[0]
