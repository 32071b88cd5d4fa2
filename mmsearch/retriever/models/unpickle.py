"""The process in which pickled weights are read: .bin files in, safetensors files out.

It is started by convert.py with nothing of the user's environment, and expects to be handed
something hostile. torch reads a pickle with ``weights_only``, which builds tensors and
containers and calls nothing else; should that ever be got round, the process can take only
so much memory and time, can write only as much as the weights need, and cannot start
another program (unless it is root's, whom the kernel lets). How each file ended is a line
of JSON on its standard output.
"""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GIB = 2**30
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing, and never a pickle, raises
NOT_SAID = ("Weights only load failed", "Check the documentation")
SPARE_BYTES = 64 * 2**20  # headers, and tensors of which a pickle holds one for two names


def main(pickles: Sequence[str], folder: str) -> None:
    """Rewrite each pickle into ``folder``; say of each how it went, and end at the first no."""
    import torch

    torch.set_num_threads(1)
    _limit([os.path.getsize(pickle) for pickle in pickles])
    for pickle in pickles:
        error, disk = _rewritten(Path(pickle), Path(folder))
        ending = {"file": os.path.basename(pickle), "error": error, "disk": disk}
        sys.stdout.write(json.dumps(ending) + "\n")
        sys.stdout.flush()
        if ending["error"]:
            return


def _rewritten(pickle: Path, folder: Path) -> tuple[str, str]:
    """Rewrite one pickle and return why it cannot be, and what the disk has to do with it.

    Both are empty where it was.
    """
    try:
        rewrite(pickle, folder / f"{pickle.stem}.safetensors")
    except MemoryError:
        return "it takes more memory than its size allows", ""
    except Exception as error:  # whatever a hostile file makes torch raise
        # torch goes on with advice on how to switch its protection off.
        said = [one for one in str(error).split("\n\n") if not one.startswith(NOT_SAID)]
        reason = (said[0].strip() if said else type(error).__name__)[:300]
        number = error.errno if isinstance(error, OSError) else None
        return reason, (os.strerror(number) if number in FULL else "")
    return "", ""


def _limit(sizes: Sequence[int]) -> None:
    """Bound what this process may take from here on, for files of ``sizes`` bytes."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limits = {
        resource.RLIMIT_CPU: int(120 + 120 * sum(sizes) / GIB),
        resource.RLIMIT_FSIZE: 2 * max(sizes) + SPARE_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
        # The file itself, a copy where it cannot be mapped, and one tensor.
        limits[resource.RLIMIT_AS] = used + 3 * max(sizes) + GIB
    for limit, most in limits.items():
        soft, _ = resource.getrlimit(limit)
        most = most if soft == resource.RLIM_INFINITY else min(most, soft)
        with contextlib.suppress(ValueError, OSError):  # a lower limit is there already
            resource.setrlimit(limit, (most, most))


def rewrite(source: Path, target: Path) -> None:
    """Write the tensors of the pickle ``source`` to ``target``.

    Raises ValueError where it holds anything else, or more than its size can hold, and
    whatever torch raises.
    """
    import torch

    from mmsearch.retriever.models.tensors import HEADER_DTYPES, tensor_bytes, tensor_info
    from mmsearch.retriever.models.weight_files import TensorWriter

    try:
        held: Any = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        held = torch.load(source, map_location="cpu", weights_only=True)  # before torch 1.6
    if isinstance(held, Mapping) and isinstance(held.get("state_dict"), Mapping):
        held = held["state_dict"]
    if not isinstance(held, Mapping) or not held:
        raise ValueError(f"it holds a {type(held).__name__} and no named tensors")
    for name, tensor in held.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"it holds a {type(tensor).__name__} under {name!r}")
        if tensor.layout is not torch.strided or tensor.dtype not in HEADER_DTYPES:
            raise ValueError(f"{name} is a {tensor.layout} tensor of {tensor.dtype}")
    tensors = {name: tensor_info(tensor) for name, tensor in held.items()}
    total, num_bytes = sum(info.num_bytes for info in tensors.values()), source.stat().st_size
    if total > 2 * num_bytes + SPARE_BYTES // 2:
        raise ValueError(f"its tensors would be {total} bytes, from a file of {num_bytes}")
    with TensorWriter(target, tensors) as writer:
        for name in writer.names:
            writer.write(name, tensor_bytes(held[name]))
