"""Tensors as files have them: types by the names in a header, bytes in and out."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from mmsearch.retriever.models.weight_files import TensorInfo

TORCH_DTYPES: Mapping[str, torch.dtype] = {  # by their names in a header
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
HEADER_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def tensor_info(tensor: Tensor) -> TensorInfo:
    """Return what a header says of a tensor; KeyError for a type that headers do not have."""
    return TensorInfo(HEADER_DTYPES[tensor.dtype], tuple(tensor.shape))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor as a file has them."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


@contextlib.contextmanager
def opened_tensors(shards: Sequence[Path]) -> Iterator[Callable[[str], Tensor]]:
    """Give what returns a tensor of the shards by its name; its bytes stay in the file.

    A tensor remains readable after the context, and after the file was renamed.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safe_open(shard, framework="pt")) for shard in shards]
        where = {name: file for file in files for name in file.keys()}  # noqa: SIM118

        def read(name: str) -> Tensor:
            return where[name].get_tensor(name)

        yield read
