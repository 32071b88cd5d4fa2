"""How many floating-point operations a model has to do for one item.

    vision    P patches:  2 P (patch embedding + blocks) + 2 P / merge^2 (mergers)
                          + per block 4 E sum of s^2 over the runs of s patches that attend
    language  n tokens:   2 n (matrices of the layers)
                          + per layer 4 W (sum over the tokens of the tokens each one sees)
    adapter   per step:   2 (router + the shared and the chosen experts)
    logits    per token written: 2 D x vocabulary

A multiplication and an addition are two. E and W are the widths of all query heads. This is
the model's arithmetic and not the program's: padding, the two experts that were not chosen
and masked halves of attention do not count, and neither do norms, activations, softmax and
table look-ups. Utilisation is this over the time and the ceiling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmsearch.retriever.models.bottleneck import Bottleneck
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.cot import Cot
from mmsearch.retriever.models.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Seen:
    """What one item is to the network.

    num_tokens:    of the prompt, visual ones among them
    visual_tokens: pictures and films as the language model reads them
    runs:          patches that attend to each other, one number a picture or moment of a film
    """

    num_tokens: int
    visual_tokens: int
    runs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Costs:
    """What the tensors of a model cost, in multiplications with each token or patch.

    patch, merged:  matrices that see every patch, and every visual token
    layers:         matrices that see every token
    adapter:        those of one latent step that count: router, shared and chosen experts
    all_experts:    those of one latent step that are computed
    vocabulary:     those of one token written
    """

    patch: int
    merged: int
    layers: int
    adapter: int
    all_experts: int
    vocabulary: int
    num_layers: int
    attention_width: int
    vision_width: int
    merge: int
    window: int  # patches of a window where attention keeps to windows; 0 for nowhere
    full_blocks: int
    window_blocks: int

    @classmethod
    def of(cls, model: Model, hf: Mapping[str, Any]) -> "Costs":
        """Read them off a model and its ``config.json``."""
        text, vision = hf.get("text_config", hf), hf["vision_config"]
        sizes = {
            name: tensor.numel() for name, tensor in model.named_parameters() if tensor.ndim >= 2
        }

        def total(*parts: str) -> int:
            return sum(n for name, n in sizes.items() if any(part in name for part in parts))

        heads = text["num_attention_heads"]
        depth = vision["depth"]
        full = len(vision["fullatt_block_indexes"]) if "window_size" in vision else depth
        window = vision.get("window_size", 0) // model.backbone.geometry.patch
        adapter = getattr(model.reasoner, "adapter", None)
        chosen = 0
        if adapter is not None:
            expert = total("reasoner.adapter.shared_expert.")
            chosen = (1 + adapter.config.top_k) * expert + total("reasoner.adapter.router.")
        return cls(
            patch=total("vision.patch_embed.", "vision.blocks."),
            merged=total("vision.merger.", "vision.deepstack_merger_list."),
            layers=total("language.layers."),
            adapter=chosen,
            all_experts=total("reasoner.adapter.") - total("step_embed."),
            vocabulary=text["vocab_size"] * text["hidden_size"],
            num_layers=text["num_hidden_layers"],
            attention_width=heads * (text.get("head_dim") or text["hidden_size"] // heads),
            vision_width=vision.get("embed_dim", vision["hidden_size"]),
            merge=model.backbone.geometry.merge**2,
            window=window**2,
            full_blocks=full,
            window_blocks=depth - full,
        )

    def prefill(self, seen: Seen, *, tail: int = 0) -> int:
        """Return the operations of one pass over an item and ``tail`` tokens behind it."""
        return self._vision(seen.runs) + self.extend(0, seen.num_tokens + tail)

    def extend(self, past: int, new: int) -> int:
        """Return the operations of ``new`` tokens, each of which sees those before and itself."""
        visible = new * past + new * (new + 1) // 2
        return 2 * new * self.layers + 4 * self.attention_width * self.num_layers * visible

    def rollout(self, seen: Seen, *, steps: int, suffix: int) -> int:
        """Return the operations of a prompt, latent steps and the suffix."""
        going_on = self.extend(seen.num_tokens, steps + suffix)
        return self.prefill(seen) + going_on + 2 * steps * self.adapter

    def written(self, seen: Seen, *, tokens: int) -> int:
        """Return the operations of a prompt and so many tokens written one by one."""
        return (
            self.prefill(seen) + self.extend(seen.num_tokens, tokens) + 2 * tokens * self.vocabulary
        )

    def step_bytes(self, element: int) -> int:
        """Return the bytes of weights that one latent step has to read."""
        return element * (self.layers + self.all_experts)

    def _vision(self, runs: Sequence[int]) -> int:
        patches = sum(runs)
        linear = 2 * patches * self.patch + 2 * patches // self.merge * self.merged
        pairs = self.full_blocks * sum(run**2 for run in runs)
        pairs += self.window_blocks * patches * self.window
        return linear + 4 * self.vision_width * pairs


def work(model: Model, costs: Costs, seen: Seen, *, effort: int) -> tuple[int, int]:
    """Return the operations of one item, and the tokens that the language model computes."""
    reasoner, n = model.reasoner, seen.num_tokens
    if isinstance(reasoner, Bottleneck):
        tail = reasoner.config.num_tokens + 1
        return costs.prefill(seen, tail=tail), n + tail
    if isinstance(reasoner, Rollout):
        suffix = len(reasoner.suffix)
        return costs.rollout(seen, steps=effort, suffix=suffix), n + effort + suffix
    if isinstance(reasoner, Cot):
        tokens = reasoner.config.max_new_tokens + 1  # the readout token is written too
        return costs.written(seen, tokens=tokens), n + tokens
    return costs.prefill(seen), n
