"""Files of weights are read as safetensors itself reads them, and never trusted."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.tensors import tensor_bytes, tensor_info
from mmsearch.retriever.models.weight_files import (
    TensorInfo,
    TensorWriter,
    _hashes,
    file_hash,
    read_header,
)

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.arange(5, dtype=torch.int8),
    "c": torch.tensor(2.5, dtype=torch.bfloat16),
    "d": torch.zeros(0, 4),
    "e": torch.arange(6, dtype=torch.float16).reshape(2, 3).T,
    "f": torch.tensor([True, False]),
    "g": torch.tensor([7], dtype=torch.int64),
}


def write(file: Path) -> None:
    infos = {name: tensor_info(tensor) for name, tensor in TENSORS.items()}
    with TensorWriter(file, infos) as writer:
        for name in writer.names:
            writer.write(name, tensor_bytes(TENSORS[name]))


def test_safetensors_reads_back_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors")

    read = load_file(tmp_path / "w.safetensors")

    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype is tensor.dtype
        assert torch.equal(read[name], tensor)


def test_a_header_says_what_safetensors_wrote(tmp_path: Path) -> None:
    held = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    save_file(held, tmp_path / "w.safetensors", metadata={"format": "pt"})

    assert read_header(tmp_path / "w.safetensors") == {
        name: tensor_info(tensor) for name, tensor in TENSORS.items()
    }


def test_every_tensor_begins_at_a_multiple_of_its_width(tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors")

    content = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]
    for name, fields in header.items():
        assert (8 + length + fields["data_offsets"][0]) % TENSORS[name].element_size() == 0


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "4 bytes for shape"),
        ({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, "of type F99"),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, "of type \\['F32'\\]"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", 4]}}, "lies from '0' to 4"),
        ({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, "has shape"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, "has shape"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "data_offsets"),
        ({"a": 3}, "is no safetensors file"),
        ([], "is no safetensors file"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "leave a gap, at byte 0"),
        (
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            "overlap",
        ),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, "should have"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, reason: str) -> None:
    packed = json.dumps(header).encode()
    content = len(packed).to_bytes(8, "little") + packed + b"\0" * 4
    (tmp_path / "w.safetensors").write_bytes(content)

    with pytest.raises(BadCheckpoint, match=reason):
        read_header(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"\1", b"\xff" * 8, b"\xff" * 100, b"\4" + b"\0" * 11])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)

    with pytest.raises(BadCheckpoint, match="is no safetensors file"):
        read_header(tmp_path / "w.safetensors")


def test_a_file_that_was_left_unfinished_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"

    with (
        pytest.raises(KeyboardInterrupt),
        TensorWriter(file, {"a": TensorInfo("F32", (2,))}),
    ):
        raise KeyboardInterrupt

    with pytest.raises(BadCheckpoint, match="cut short"):
        read_header(file)


def test_tensors_are_taken_in_their_order_and_whole(tmp_path: Path) -> None:
    infos = {"a": TensorInfo("F32", (1,)), "b": TensorInfo("F32", (1,))}
    four = memoryview(b"\0" * 4)
    with TensorWriter(tmp_path / "w.safetensors", infos) as writer:
        with pytest.raises(ValueError, match="b is not the tensor that is next"):
            writer.write("b", four)
        with pytest.raises(ValueError, match="a has 3 bytes"):
            writer.write("a", four[:3])
        writer.write("a", four)
        writer.write("b", four)

    assert read_header(tmp_path / "w.safetensors") == infos


def test_a_tensor_that_was_forgotten_is_noticed(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="1 tensors were not written"),
        TensorWriter(tmp_path / "w.safetensors", {"a": TensorInfo("F32", (1,))}),
    ):
        pass


def test_a_file_that_changed_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its size is the same, and its time is set back to what it was."""
    monkeypatch.setattr("mmsearch.retriever.models.weight_files.SETTLED_S", 0.0)
    file = tmp_path / "w"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    time.sleep(0.05)  # until its time is over
    assert file_hash(file) == hashlib.sha256(b"one").hexdigest()

    with file.open("r+b") as opened:
        opened.write(b"two")
    os.utime(file, (1, 1))

    assert file_hash(file) == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_did_not_change_is_not_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.retriever.models.weight_files.SETTLED_S", 0.0)
    (tmp_path / "w").write_bytes(b"one")
    time.sleep(0.05)
    first = file_hash(tmp_path / "w")
    monkeypatch.delattr("hashlib.file_digest")

    assert file_hash(tmp_path / "w") == first


def test_a_file_that_was_just_written_is_read_twice(tmp_path: Path) -> None:
    """Its time could stay the same over one more change."""
    (tmp_path / "w").write_bytes(b"one")
    file_hash(tmp_path / "w")
    state = (tmp_path / "w").stat()

    assert not any(key[1] == state.st_ino and key[0] == state.st_dev for key in _hashes)
