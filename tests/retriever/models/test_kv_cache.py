"""A cache keeps what it was given, in place where it may be written and beside it where not."""

import pytest
import torch
from torch import Tensor

from mmsearch.retriever.models.backbones.kv_cache import (
    BufferShape,
    Extension,
    KVCache,
    allocate,
)

SHAPE = BufferShape(2, 1, 1, 4, 2, torch.float32, torch.device("cpu"))  # 2 layers, 4 places


def states(*numbers: float) -> Tensor:
    """Return keys of one row and one head, ``[1, 1, m, 2]``, a number a place."""
    return torch.tensor(numbers)[None, None, :, None].expand(1, 1, -1, 2).clone()


def numbers(keys: Tensor) -> list[float]:
    return keys[0, 0, :, 0].tolist()


def extended(cache: KVCache, *new: float) -> tuple[KVCache, list[list[float]]]:
    """Put ``new`` into layer 0, ten times as much into layer 1; values are negative."""
    extension = Extension(cache, len(new))
    seen = []
    for layer, scale in enumerate((1.0, 10.0)):
        k, v = extension.put(layer, states(*new) * scale, -states(*new) * scale)
        assert numbers(v) == [-x for x in numbers(k)]
        seen.append(numbers(k)[: cache.length + len(new)])  # behind them may be more
    return extension.close(cache.next_position + len(new)), seen


@pytest.mark.parametrize("grad", [False, True])
def test_every_layer_sees_its_own_places_in_order(grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        cache, first = extended(allocate(SHAPE), 1.0, 2.0)
        cache, second = extended(cache, 3.0)

    assert first == [[1.0, 2.0], [10.0, 20.0]]
    assert second == [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]
    assert (cache.length, cache.next_position.tolist()) == (3, [3])


def test_without_gradients_buffers_stay_where_they_are() -> None:
    empty = allocate(SHAPE)

    with torch.no_grad():
        cache, _ = extended(empty, 1.0, 2.0)
        longer, _ = extended(cache, 3.0, 4.0)

    assert [k.data_ptr() for k in longer.keys] == [k.data_ptr() for k in empty.keys]
    assert longer.places == 4


def test_with_gradients_nothing_is_overwritten() -> None:
    with torch.no_grad():
        cache, _ = extended(allocate(SHAPE), 1.0)

    first, seen = extended(cache, 2.0)
    _, other = extended(cache, 3.0)

    assert seen[0] == [1.0, 2.0]
    assert other[0] == [1.0, 3.0]
    assert numbers(first.keys[0]) == [1.0, 2.0]
    assert numbers(cache.keys[0]) == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("places", [0, 1, 3])
def test_too_little_room_grows_and_keeps_what_was_there(places: int) -> None:
    shape = BufferShape(2, 1, 1, places, 2, torch.float32, torch.device("cpu"))

    with torch.no_grad():
        cache, _ = extended(allocate(shape), 1.0)
        cache, _ = extended(cache, 2.0, 3.0, 4.0)
        cache, seen = extended(cache, 5.0)

    assert seen == [[1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0]]


def test_growing_copies_seldom() -> None:
    cache, addresses = allocate(SHAPE), set()

    with torch.no_grad():
        for i in range(200):
            cache, _ = extended(cache, float(i))
            addresses.add(cache.keys[0].data_ptr())

    assert cache.length == 200
    assert len(addresses) <= 12  # 4, 7, 12, 19, 30, ... places


@pytest.mark.parametrize("grad", [False, True])
def test_hidden_places_stay_hidden(grad: bool) -> None:
    hidden = torch.tensor([[True, False]])

    with torch.set_grad_enabled(grad):
        extension = Extension(allocate(SHAPE), 2, hidden)
        assert extension.mask[:, :2].tolist() == [[True, False]]
        for layer in range(2):
            extension.put(layer, states(1.0, 2.0), -states(1.0, 2.0))
        cache = extension.close(torch.tensor([1]))
        cache, _ = extended(cache, 3.0, 4.0, 5.0)  # grows

        assert Extension(cache, 1).mask[:, :6].tolist() == [[True, False, *[True] * 4]]


@torch.no_grad()
def test_steps_see_places_of_one_number_as_far_as_the_buffers_go() -> None:
    shape = BufferShape(2, 1, 1, 40, 2, torch.float32, torch.device("cpu"))
    cache, _ = extended(allocate(shape), *range(15))

    seen = []
    for _ in range(20):
        extension = Extension(cache, 1)
        keys, _ = extension.put(0, states(1.0), states(1.0))
        seen.append((keys.shape[2], extension.mask.shape[1]))
        cache = extension.close(cache.next_position + 1)

    assert seen == [(16, 16), *[(32, 32)] * 16, *[(40, 40)] * 3]


def test_a_mixture_of_modes_goes_on() -> None:
    with torch.inference_mode():
        cache, _ = extended(allocate(SHAPE), 1.0)
    cache, _ = extended(cache, 2.0)
    with torch.no_grad():
        cache, seen = extended(cache, 3.0)

    assert seen[0] == [1.0, 2.0, 3.0]


def test_gradients_reach_what_was_put() -> None:
    k = states(1.0, 2.0).requires_grad_(True)
    extension = Extension(allocate(SHAPE), 2)
    extension.put(0, k, k)
    extension.put(1, k, k)
    cache = extension.close(torch.tensor([2]))

    keys, _ = Extension(cache, 1).put(0, states(3.0), states(3.0))
    (gradient,) = torch.autograd.grad(keys.sum(), k)

    assert gradient.tolist() == torch.ones(1, 1, 2, 2).tolist()


def test_memory_of_a_token_of_qwen2_vl_2b_is_28_kib() -> None:
    shape = BufferShape(28, 1, 2, 1, 128, torch.bfloat16, torch.device("cpu"))

    assert shape.num_bytes == 28 * 1024
    assert sum(t.nbytes for t in (*allocate(shape).keys, *allocate(shape).values)) == 28 * 1024
