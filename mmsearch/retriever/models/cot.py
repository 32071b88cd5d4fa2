"""Written reasoning: the thought is generated token by token, then the readout token.

    prefill -> token -> embed -> extend -> token -> ... until <gen_emb> in every row

It is how UME-R1 embeds, and the baseline that PLUME and LaME are measured against: each
token of thought streams the whole network once, where a latent step carries a vector.
Rows of a batch end at different tokens; those that have ended write on until all have,
and the state that was read out of them stays what it was. The first readout token counts:
UME-R1's own evaluation writes on to the end token and takes the last, which is the same
one wherever a thought ends as it was trained to.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsearch.retriever.models.none import prefix_readouts
from mmsearch.retriever.models.vocabulary import ids_on, single_token
from mmsearch.retriever.seams import Backbone, Batch, Cache

# Between two looks at whether all rows have ended: each look waits for the device.
TOKENS_BETWEEN_LOOKS = 16


@dataclass(frozen=True, slots=True)
class CotConfig:
    """When a thought ends.

    max_new_tokens: a row that has not ended by then is read out at the readout token,
                    which is forced upon it
    gen:            the readout token
    ends:           tokens that end a thought without one; it is forced in their place
    """

    max_new_tokens: int = 1_024
    gen: str = "<gen_emb>"
    ends: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>")


class Cot(nn.Module):
    """Greedy; effort 0 is its only one, because thoughts are as long as they are."""

    name = "cot"

    def __init__(self, config: CotConfig, backbone: Backbone[Batch, Cache]) -> None:
        super().__init__()
        if config.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens counts from 0, got {config.max_new_tokens}")
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
        stops = ids_on(last.device, self.ends)
        for written in range(most + 1):
            if written < most:
                token = backbone.logits(last).argmax(dim=-1)  # (B,)
                token = token.masked_fill(torch.isin(token, stops), self.gen)
            else:  # no thought goes without a readout
                token = torch.full_like(ended, self.gen, dtype=torch.long)
            hidden, cache = backbone.extend(backbone.embed(token)[:, None], cache)
            last = hidden[:, 0]
            ends_here = (token == self.gen) & ~ended
            gen = torch.where(ends_here[:, None], last, gen)
            ended = ended | ends_here
            if (written + 1) % TOKENS_BETWEEN_LOOKS == 0 and bool(ended.all()):
                break
        return {"gen": gen, **readouts}
