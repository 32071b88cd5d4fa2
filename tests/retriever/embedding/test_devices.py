"""What may be asked for of a machine, with and without GPUs."""

import pytest
import torch

from mmsearch.errors import BadSetting
from mmsearch.retriever.embedding.devices import check_asked, pick_device, pick_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.mark.parametrize(
    ("asked", "num_gpus", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_is_what_was_asked_for(asked: str, num_gpus: int, device: str) -> None:
    assert pick_device(asked, num_gpus=num_gpus) == torch.device(device)


@pytest.mark.parametrize(
    ("asked", "num_gpus", "said", "hint"),
    [
        ("cuda", 0, "device cuda: torch finds no GPU here", "--device cpu"),
        ("cuda:7", 1, "device cuda:7: this machine has cuda:0", "--device cuda:0 or cpu"),
        (
            "cuda:2",
            2,
            "device cuda:2: this machine has cuda:0, cuda:1",
            "--device cuda:0, cuda:1 or cpu",
        ),
    ],
)
def test_a_gpu_there_is_not_is_refused_with_those_there_are(
    asked: str, num_gpus: int, said: str, hint: str
) -> None:
    with pytest.raises(BadSetting) as error:
        pick_device(asked, num_gpus=num_gpus)

    assert (str(error.value), error.value.hint) == (said, hint)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("device", "dtype", "hint"),
    [
        ("gpu", "auto", "--device auto, cpu or cuda:N"),
        ("", "auto", "--device auto, cpu or cuda:N"),
        ("cuda:", "auto", "--device auto, cpu or cuda:N"),
        ("cpu:0", "auto", "--device auto, cpu or cuda:N"),
        ("cpu", "float16", "--dtype auto, float32 or bfloat16"),
        ("cpu", "", "--dtype auto, float32 or bfloat16"),
    ],
)
def test_unknown_words_are_refused_with_the_known_ones(device: str, dtype: str, hint: str) -> None:
    with pytest.raises(BadSetting) as error:
        check_asked(device, dtype)

    assert error.value.hint == hint
    if dtype == "auto":
        with pytest.raises(BadSetting):
            pick_device(device, num_gpus=2)


def test_what_there_always_is_may_be_asked_for() -> None:
    for dtype in ("auto", "float32", "bfloat16"):
        check_asked("auto", dtype)
        check_asked("cpu", dtype)


@pytest.mark.parametrize(
    ("asked", "device", "small", "dtype"),
    [
        ("auto", CPU, False, torch.float32),
        ("auto", GPU, False, torch.bfloat16),
        ("auto", GPU, True, torch.float32),
        ("float32", GPU, False, torch.float32),
        ("bfloat16", CPU, True, torch.bfloat16),
    ],
)
def test_a_precision_is_what_was_asked_for_or_suits_the_device(
    asked: str, device: torch.device, small: bool, dtype: torch.dtype
) -> None:
    assert pick_dtype(asked, device, small=small) is dtype
