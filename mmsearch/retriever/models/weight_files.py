"""The files that weights lie in, looked at without torch: shards, headers, hashes.

    folder -> weight_shards -> read_header -> {name: TensorInfo}
    {name: TensorInfo} -> TensorWriter, one tensor after the other -> model.safetensors

A safetensors file is eight bytes of length, a JSON header, and the tensors' bytes. Reading
the header tells every name and shape of a 4 GB model in a millisecond; writing a tensor at
a time needs memory for one of them and not for the model twice.
"""

import hashlib
import json
import math
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmsearch.errors import BadCheckpoint

SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
MAX_HEADER_BYTES = 100_000_000  # what safetensors itself allows
# bytes of one number, by the name that a header has for its type
DTYPE_BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
SETTLED_S = 2.0  # a file written later than this ago may change without its time showing it


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of a tensor; ``dtype`` is one of DTYPE_BYTES."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes it takes in a file."""
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)


# ---------------------------------------------------------------- which files


def weight_shards(folder: Path) -> list[Path]:
    """Return the safetensors files of a published folder; empty where it has none.

    The index decides where there is one, else every ``model*.safetensors``. Raises
    BadCheckpoint for an index that cannot be read or names a file that is not there.
    """
    if (folder / SAFETENSORS_INDEX).exists():
        return _indexed(folder, SAFETENSORS_INDEX)
    return sorted(file for file in folder.glob("model*.safetensors") if file.is_file())


def pickle_shards(folder: Path) -> list[Path]:
    """Return the pickled weights of a published folder, likewise."""
    if (folder / PICKLE_INDEX).exists():
        return _indexed(folder, PICKLE_INDEX)
    return sorted(file for file in folder.glob("pytorch_model*.bin") if file.is_file())


def _indexed(folder: Path, index: str) -> list[Path]:
    weight_map = read_json(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadCheckpoint(folder, f"{index} maps no weights to files")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise BadCheckpoint(folder, f"{index} names {name}, which is not there")
    return [folder / name for name in names]


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in ``folder / name``; raises BadCheckpoint where there is none."""
    try:
        if not stat.S_ISREG((folder / name).stat().st_mode):  # a pipe would be waited for
            raise BadCheckpoint(folder, f"{name} is not a file")
        fields = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCheckpoint(folder, f"it has no {name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadCheckpoint(folder, f"{name} cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise BadCheckpoint(folder, f"{name} is not an object")
    return fields


# ---------------------------------------------------------------- what is in them


def read_headers(shards: Sequence[Path]) -> dict[str, TensorInfo]:
    """Return the tensors of several shards; raises BadCheckpoint as `read_header` does.

    A tensor that stands in two shards is a BadCheckpoint as well.
    """
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        header = read_header(shard)
        twice = sorted(tensors.keys() & header.keys())
        if twice:
            raise BadCheckpoint(shard.parent, f"{shard.name} holds {twice[0]} a second time")
        tensors |= header
    return tensors


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name.

    Raises BadCheckpoint where it is no such file, is shorter than its header says, or
    holds tensors that overlap or whose bytes do not fit their shapes.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise ValueError("it has no header")
            header = json.loads(opened.read(length))
        tensors, end = _tensors(header)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{file.name} is no safetensors file: {error}"
        raise BadCheckpoint(file.parent, reason) from None
    if size != 8 + length + end:
        reason = f"{file.name} has {size} bytes and should have {8 + length + end}"
        raise BadCheckpoint(file.parent, f"{reason}: it was cut short, or is not whole yet")
    return tensors


def _tensors(header: dict[str, Any]) -> tuple[dict[str, TensorInfo], int]:
    """Return the tensors of a header, and how many bytes they take together."""
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int]] = []
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        info = TensorInfo(fields["dtype"], tuple(fields["shape"]))
        start, end = fields["data_offsets"]
        if not isinstance(info.dtype, str) or info.dtype not in DTYPE_BYTES:
            raise ValueError(f"{name} is of type {info.dtype}")
        if type(start) is not int or type(end) is not int:
            raise ValueError(f"{name} lies from {start!r} to {end!r}")
        if any(type(side) is not int or side < 0 for side in info.shape):
            raise ValueError(f"{name} has shape {list(info.shape)}")
        if end - start != info.num_bytes:
            raise ValueError(f"{name} has {end - start} bytes for shape {list(info.shape)}")
        tensors[name] = info
        spans.append((start, end))
    reached = 0
    for start, end in sorted(spans):
        if start != reached:
            raise ValueError(f"its tensors overlap, or leave a gap, at byte {reached}")
        reached = end
    return tensors, reached


# ---------------------------------------------------------------- writing


class TensorWriter:
    """A safetensors file that is written one tensor after the other; a context manager.

    The tensors are known beforehand and are given in the order of `names`. Leaving the
    context early by an exception leaves an unfinished file, which `read_header` refuses.
    """

    def __init__(self, file: Path, tensors: Mapping[str, TensorInfo]) -> None:
        # Widest numbers first, so that each tensor begins at a multiple of its own width.
        self.names = sorted(tensors, key=lambda name: (-DTYPE_BYTES[tensors[name].dtype], name))
        self._tensors, self._left = tensors, list(reversed(self.names))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        start = 0
        for name in self.names:
            info, end = tensors[name], start + tensors[name].num_bytes
            header[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [start, end]}
            start = end
        packed = json.dumps(header, separators=(",", ":")).encode()
        packed += b" " * (-len(packed) % 8)
        self._opened = file.open("wb")
        self._opened.write(len(packed).to_bytes(8, "little") + packed)

    def write(self, name: str, data: memoryview) -> None:
        """Write the bytes of the tensor that is next; ValueError for another one."""
        if not self._left or name != self._left[-1]:
            raise ValueError(f"{name} is not the tensor that is next")
        if data.nbytes != self._tensors[name].num_bytes:
            raise ValueError(f"{name} has {data.nbytes} bytes")
        self._opened.write(data)
        self._left.pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._opened:
            if kind is not None:
                return
            if self._left:
                raise ValueError(f"{len(self._left)} tensors were not written")
            self._opened.flush()
            os.fsync(self._opened.fileno())


# ---------------------------------------------------------------- hashing

_hashes: dict[tuple[int, ...], str] = {}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits.

    A file that has not changed since this process hashed it is not read again: describing a
    published folder and loading it would otherwise read its gigabytes twice.
    """
    with path.open("rb") as file:
        state = _state(file.fileno())
        if state in _hashes:
            return _hashes[state]
        found = hashlib.file_digest(file, "sha256").hexdigest()
        # Times tick coarsely: a file that changed a moment ago can change again unnoticed.
        last_change_s = max(os.fstat(file.fileno()).st_mtime, os.fstat(file.fileno()).st_ctime)
        if time.time() - last_change_s > SETTLED_S and state == _state(file.fileno()):
            _hashes[state] = found
    return found


def _state(fd: int) -> tuple[int, ...]:
    """Return what differs between two files, and between a file and what it was."""
    now = os.fstat(fd)
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
