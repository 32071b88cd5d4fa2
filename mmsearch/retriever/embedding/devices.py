"""Where a model computes and in which precision: what may be asked for, and what it means.

    check_asked   "cuda:1", "bfloat16" -> BadSetting, or nothing
    pick_device   "auto" -> torch.device
    pick_dtype    "auto" -> torch.dtype

Neither is part of a space: vectors of a GPU in bfloat16 and of a CPU in float32 are
compared with each other.
"""

import re
from typing import TYPE_CHECKING

from mmsearch.errors import BadSetting

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16")


def check_asked(device: str, dtype: str) -> None:
    """Raise BadSetting for a device or a precision there is not.

    torch is imported only where a GPU is asked for by name.
    """
    _check_word(device)
    if dtype not in ("auto", *DTYPES):
        raise BadSetting(f"dtype {dtype}", "there is none", hint="--dtype auto, " + _either(DTYPES))
    if device.startswith("cuda"):
        pick_device(device)


def pick_device(asked: str, *, num_gpus: int | None = None) -> "torch.device":
    """Return the device that is meant; "auto" is the first GPU where there is one.

    ``num_gpus`` is how many there are, counted where it is not given. Raises BadSetting for
    a GPU that is not among them, and for any other word.
    """
    _check_word(asked)
    import torch

    if asked == "cpu":
        return torch.device("cpu")
    if num_gpus is None:
        num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return torch.device("cuda:0" if num_gpus else "cpu")
    index = int(asked.partition(":")[2] or 0)
    if index >= num_gpus:
        gpus = [f"cuda:{number}" for number in range(num_gpus)]
        reason = f"this machine has {', '.join(gpus)}" if gpus else "torch finds no GPU here"
        raise BadSetting(f"device {asked}", reason, hint=f"--device {_either([*gpus, 'cpu'])}")
    return torch.device("cuda", index)


def pick_dtype(asked: str, device: "torch.device", *, small: bool) -> "torch.dtype":
    """Return the precision that is meant.

    "auto" is bfloat16 on a GPU, where it is twice as fast and half the size, and float32
    for a ``small`` model, which gains nothing by it, and on a CPU.
    """
    import torch

    if asked == "auto":
        asked = "bfloat16" if device.type == "cuda" and not small else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[asked]


def _check_word(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise BadSetting(f"device {device}", "there is none", hint="--device auto, cpu or cuda:N")


def _either(names: "tuple[str, ...] | list[str]") -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
