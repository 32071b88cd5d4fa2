"""Pairs are shared out between the axes as transformers does it, at the published sizes."""

import pytest
import torch
from transformers import Qwen2VLTextConfig, Qwen3VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

from mmsearch.retriever.models.backbones.rotary import Rotary, rotate

Other = Qwen2VLRotaryEmbedding | Qwen3VLTextRotaryEmbedding


def theirs(sections: list[int], *, in_turn: bool) -> Other:
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": sections}
    if in_turn:
        return Qwen3VLTextRotaryEmbedding(Qwen3VLTextConfig(head_dim=128, rope_parameters=rope))
    config = Qwen2VLTextConfig(hidden_size=1_536, num_attention_heads=12, rope_parameters=rope)
    return Qwen2VLRotaryEmbedding(config)  # type: ignore[arg-type]


@pytest.mark.parametrize("in_turn", [False, True])
def test_axes_and_frequencies_equal_transformers(in_turn: bool) -> None:
    sections = [24, 20, 20] if in_turn else [16, 24, 24]
    other = theirs(sections, in_turn=in_turn)

    ours = Rotary.of(head_dim=128, base=5e6, sections=sections, in_turn=in_turn)

    # Three axes that stand at 0, 1 and 2 tell which of them each pair listens to.
    which = torch.arange(3.0)[:, None, None, None].expand(3, 1, 1, 64).clone()
    mixed = other.recomposition_frequencies(which)  # type: ignore[no-untyped-call]
    assert list(ours.axes) == mixed[0, 0, :64].tolist()
    assert [ours.axes.count(axis) for axis in range(3)] == sections
    torch.testing.assert_close(ours.frequencies, other.inv_freq, atol=0, rtol=0)


@pytest.mark.parametrize("sections", [[16, 24, 23], [32, 32]])
def test_sections_that_do_not_fill_half_a_head_are_refused(sections: list[int]) -> None:
    with pytest.raises(ValueError, match="mrope_section"):
        Rotary.of(head_dim=128, base=1e6, sections=sections, in_turn=False)


def test_rotation_turns_each_pair_by_its_angle() -> None:
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).reshape(1, 1, 4)  # pairs (1, 0) and (0, 2)
    cos, sin = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 0.0])  # 90 and 180 degrees

    assert rotate(x, cos, sin).flatten().tolist() == [0.0, 0.0, 1.0, -2.0]
