"""The trunk keeps TensorFlow's conventions; each is worked out apart from it."""

import numpy as np
import torch
from torch import Tensor

from mmsearch.retriever.models.backbones.mobilenet import (
    InvertedResidual,
    MobileNet,
    MobileNetConfig,
    SameConv,
    pad_same,
)

SMALL = MobileNetConfig(
    stem_width=4, blocks=((1, 4, 1, 1), (2, 6, 2, 2)), head_width=8, num_classes=5
)


def plain_convolution(x: Tensor, conv: SameConv) -> np.ndarray:
    """Convolve as TensorFlow's SAME is defined, one output at a time."""
    weight, bias = conv.conv.weight.detach().numpy(), conv.conv.bias
    assert bias is not None
    image = x[0].numpy()
    channels, height, width = image.shape
    kernel, stride = conv.kernel, conv.stride
    rows, columns = -(-height // stride), -(-width // stride)
    before_h = max((rows - 1) * stride + kernel - height, 0) // 2
    before_w = max((columns - 1) * stride + kernel - width, 0) // 2
    groups = conv.conv.groups
    out = np.zeros((weight.shape[0], rows, columns))
    for o in range(weight.shape[0]):
        group = o // (weight.shape[0] // groups)
        members = range(group * channels // groups, (group + 1) * channels // groups)
        for r in range(rows):
            for c in range(columns):
                total = bias[o].item()
                for n, channel in enumerate(members):
                    for i in range(kernel):
                        for j in range(kernel):
                            y, z = r * stride + i - before_h, c * stride + j - before_w
                            if 0 <= y < height and 0 <= z < width:
                                total += weight[o, n, i, j] * image[channel, y, z]
                out[o, r, c] = total if conv.linear else min(max(total, 0.0), 6.0)
    return out


def test_the_odd_pixel_of_padding_goes_right_and_below() -> None:
    ones = torch.ones(1, 1, 4, 4)

    padded = pad_same(ones, kernel=3, stride=2)

    assert padded[0, 0].tolist() == [
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]


def test_an_odd_side_at_stride_two_is_padded_alike_on_both_sides() -> None:
    padded = pad_same(torch.ones(1, 1, 5, 4), kernel=3, stride=2)

    assert padded.shape == (1, 1, 7, 5)
    assert padded[0, 0, 0].sum() == 0
    assert padded[0, 0, -1].sum() == 0


def test_convolutions_equal_a_plain_computation() -> None:
    torch.manual_seed(0)
    for stride, groups, linear in ((1, 1, False), (2, 1, False), (2, 4, False), (1, 4, True)):
        conv = SameConv(4, 4, 3, stride, groups=groups, linear=linear)
        torch.nn.init.normal_(conv.conv.weight, std=2.0)  # so that some go past 6
        x = torch.randn(1, 4, 6, 5)

        ours = conv(x)[0].detach().numpy()

        np.testing.assert_allclose(ours, plain_convolution(x, conv), atol=1e-4)
        if not linear:
            assert ours.max() == 6.0


def test_a_residual_block_adds_its_input_only_where_shapes_agree() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 4, 4, 4)
    same, strided = InvertedResidual(4, 4, 1, 2), InvertedResidual(4, 4, 2, 2)

    without = same.project(same.depthwise(same.expand(x)))

    torch.testing.assert_close(same(x), x + without)
    assert strided(x).shape == (1, 4, 2, 2)


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    torch.manual_seed(0)
    net = MobileNet(SMALL).eval()
    seen: list[Tensor] = []
    net.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)

    net(pixels)

    np.testing.assert_allclose(seen[0][0, :, 0, 0].numpy(), [-1.0, 1.0, -0.6], atol=1e-6)


def test_the_map_is_the_picture_over_the_product_of_strides() -> None:
    full = MobileNet(MobileNetConfig()).eval()
    pixels = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)

    with torch.inference_mode():
        features = full(pixels)

    assert features.shape == (1, 1280, 2, 3)
    probabilities = full.class_probabilities(features.mean(dim=(2, 3)))
    np.testing.assert_allclose(probabilities.sum().item(), 1.0, atol=1e-5)
