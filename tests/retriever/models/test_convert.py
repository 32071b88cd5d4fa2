"""A published folder becomes one of ours, whole or not at all, and nothing in it is run."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import largest_file
from published_folders import (
    PLUME_TOKENS,
    edit_json,
    write_published,
    write_shards,
    write_tokenizer,
)
from safetensors.torch import load_file
from tokenizers import Tokenizer

from mmsearch.errors import BadCheckpoint, BadSetting, ConversionFailed
from mmsearch.retriever.models.checkpoint import read_checkpoint
from mmsearch.retriever.models.convert import ConvertProgress, convert_model
from mmsearch.retriever.models.description import Layout, read_description
from mmsearch.retriever.models.hub_layout import describe
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.retriever.models.tiny_qwen import tiny_tokenizer
from mmsearch.retriever.models.unpickle import rewrite


@pytest.fixture(scope="module")
def plume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "PLUME"
    write_published(folder, tokens=PLUME_TOKENS, num_experts=4, num_shards=3)
    return folder


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "PLUME"
    write_published(folder, tokens=PLUME_TOKENS, num_experts=4, num_shards=2, pickled=True)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "model"
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left in ([], ["model"]), "something half-made was left behind"


def state_of(folder: Path, **how: Any) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder, **how)[1].state_dict()


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_converted_model_has_every_bit_of_the_published_one(plume: Path, target: Path) -> None:
    description = convert_model(plume, target)

    assert description == read_description(target)
    assert description.layout is Layout.OWN
    published = describe(plume)
    assert_equal(state_of(target), state_of(plume, description=published))
    assert description.backbone_config == published.backbone_config
    assert description.reasoner_config == published.reasoner_config


def test_the_target_is_one_folder_of_known_files(plume: Path, target: Path) -> None:
    (plume / "LICENSE").write_text("free")
    (plume / "modeling_plume.py").write_text("raise SystemExit('remote code was run')")

    convert_model(plume, target)

    assert {file.name for file in target.iterdir()} == {
        "LICENSE",
        "mmsearch.json",
        "model.safetensors",
        "tokenizer.json",
    }
    (target.parent / "like").mkdir()
    assert target.stat().st_mode == (target.parent / "like").stat().st_mode, "others may read it"
    (target.parent / "like").rmdir()


def test_pickled_weights_are_the_same_as_safetensors(
    plume: Path, pickled: Path, target: Path
) -> None:
    description = convert_model(pickled, target)

    assert_equal(state_of(target), state_of(plume, description=describe(plume)))
    assert "pickled" in description.about


def test_a_pickle_of_before_torch_1_6_is_read_too(plume: Path, target: Path) -> None:
    source = target.parent.parent / "legacy"
    write_published(source)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(tensors, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)

    convert_model(source, target)

    assert torch.equal(
        load_file(target / "model.safetensors")["backbone.language.norm.weight"],
        tensors["model.norm.weight"],
    )


def test_tensors_that_share_their_bytes_are_converted(target: Path, tmp_path_factory: Any) -> None:
    source = tmp_path_factory.mktemp("tied")
    model = write_published(source)
    (source / "model.safetensors").unlink()
    held = {name: value for name, value in model.state_dict().items() if "lm_head" not in name}
    held["lm_head.weight"] = held["model.language_model.embed_tokens.weight"]
    write_shards(source, held, pickled=True)

    convert_model(source, target)

    assert not any("lm_head" in name for name in load_file(target / "model.safetensors"))


class Payload:
    """Unpickled, it writes a file; what os.system would run is up to whoever pickled it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_a_malicious_pickle_is_refused_and_does_not_run(pickled: Path, target: Path) -> None:
    proof = target.parent.parent / f"{target.parent.name}-was-run"
    source = target.parent.parent / f"{target.parent.name}-evil"
    write_tokenizer_and_config(pickled, source)
    torch.save({"model.norm.weight": Payload(f"touch {proof}")}, source / "pytorch_model.bin")

    with pytest.raises(BadCheckpoint, match=r"pytorch_model\.bin is not to be trusted") as refused:
        convert_model(source, target)

    assert not proof.exists()
    assert "system" in str(refused.value)
    torch.load(source / "pytorch_model.bin", weights_only=False)
    assert proof.exists(), "the payload is one that would have run"


def write_tokenizer_and_config(like: Path, folder: Path) -> None:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((like / name).read_bytes())


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ([1, 2], "it holds a list"),
        ({"step": 3}, "it holds a int under 'step'"),
        ({"w": torch.zeros(1).expand(10**12)}, "its tensors would be 4000000000000 bytes"),
        ({"w": torch.eye(3).to_sparse()}, "sparse"),
    ],
)
def test_a_pickle_of_anything_but_weights_is_refused(
    tmp_path: Path, held: Any, reason: str
) -> None:
    torch.save(held, tmp_path / "pytorch_model.bin")

    with pytest.raises(ValueError, match=reason):
        rewrite(tmp_path / "pytorch_model.bin", tmp_path / "out.safetensors")


def test_a_truncated_pickle_is_refused(pickled: Path, target: Path, tmp_path_factory: Any) -> None:
    source = tmp_path_factory.mktemp("cut") / "source"
    write_tokenizer_and_config(pickled, source)
    whole = (pickled / "pytorch_model-00001-of-00002.bin").read_bytes()
    (source / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(BadCheckpoint, match="not to be trusted or read"):
        convert_model(source, target)


def test_a_pickle_that_asks_for_more_memory_than_it_has_bytes_is_refused(
    pickled: Path, target: Path, tmp_path_factory: Any
) -> None:
    source = tmp_path_factory.mktemp("bomb") / "source"
    write_tokenizer_and_config(pickled, source)
    with zipfile.ZipFile(source / "pytorch_model.bin", "w") as bomb:
        bomb.writestr("archive/version", "3\n")
        bomb.writestr("archive/data.pkl", OF_64_GB)

    with pytest.raises(BadCheckpoint, match="it takes more memory than its size allows"):
        convert_model(source, target)


# A bytearray of 64 GB, as a pickle may ask for: bytearray(2 ** 36).
OF_64_GB = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R."


def test_an_existing_target_is_left_as_it_is(plume: Path, target: Path) -> None:
    target.mkdir()
    (target / "mine").write_text("keep")

    with pytest.raises(ConversionFailed, match="is there already"):
        convert_model(plume, target)

    assert [file.name for file in target.iterdir()] == ["mine"]


@pytest.mark.parametrize(("dtype", "kept"), [("bfloat16", "BF16"), ("float16", "F16")])
def test_weights_are_kept_as_the_dtype_that_was_asked_for(
    plume: Path, target: Path, dtype: str, kept: str
) -> None:
    convert_model(plume, target, dtype=dtype)

    held = load_file(target / "model.safetensors")
    wanted = state_of(plume, description=describe(plume))
    assert {tensor.dtype for tensor in held.values()} == {getattr(torch, dtype)}
    assert_equal(held, {name: one.to(getattr(torch, dtype)) for name, one in wanted.items()})


def test_a_conversion_leaves_alone_what_another_is_writing(plume: Path, tmp_path: Path) -> None:
    inside: list[Path] = []

    def look(progress: ConvertProgress) -> None:
        if not inside:
            inside.extend(tmp_path.iterdir())
            convert_model(plume, tmp_path / "model.2")
            with pytest.raises(ConversionFailed, match="Directory not empty"):
                convert_model(plume, tmp_path / "model", on_progress=lambda at: race(at))
            assert inside[0].is_dir()

    def race(progress: ConvertProgress) -> None:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "somebody else's").touch()

    with pytest.raises(ConversionFailed, match="Directory not empty"):
        convert_model(plume, tmp_path / "model", on_progress=look)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.2"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["somebody else's"]


def test_an_unknown_dtype_is_refused(plume: Path, target: Path) -> None:
    with pytest.raises(BadSetting, match="dtype int4"):
        convert_model(plume, target, dtype="int4")


def test_our_own_format_is_converted_to_another_dtype_and_to_no_other_end(
    plume: Path, target: Path, tmp_path_factory: Any
) -> None:
    ours = tmp_path_factory.mktemp("ours") / "model"
    convert_model(plume, ours)
    with pytest.raises(ConversionFailed, match="in our format already"):
        convert_model(ours, target)

    convert_model(ours, target, dtype="bfloat16")

    assert_equal(state_of(target, dtype=torch.bfloat16), state_of(ours, dtype=torch.bfloat16))


def test_int8_matrices_are_not_converted(target: Path, tmp_path_factory: Any) -> None:
    packed = tmp_path_factory.mktemp("int8")
    write_random_checkpoint(packed)

    with pytest.raises(ConversionFailed, match="int8"):
        convert_model(packed, target, dtype="float16")


def test_the_family_can_be_named(plume: Path, target: Path, tmp_path_factory: Any) -> None:
    source = tmp_path_factory.mktemp("named") / "checkpoint-100"
    write_published(source)

    assert "Qwen2-VL" in describe(source).about
    assert convert_model(source, target, family="vlm2vec-v2").about.startswith("VLM2Vec-V2")


def test_progress_names_the_shards_and_counts_the_bytes(plume: Path, target: Path) -> None:
    seen: list[ConvertProgress] = []

    convert_model(plume, target, on_progress=seen.append)

    shards = {f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}
    assert {one.file for one in seen} == shards
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert seen[0].done == 0
    assert seen[-1].done < seen[-1].num_bytes < (target / "model.safetensors").stat().st_size


def test_a_tokenizer_of_two_files_is_made_one(target: Path, tmp_path_factory: Any) -> None:
    source = tmp_path_factory.mktemp("old") / "UME-R1"
    write_published(source, tokens=("<gen_emb>", "<disc_emb>"))
    one_file = Tokenizer.from_file(str(source / "tokenizer.json"))
    split_tokenizer(source)
    with pytest.raises(BadCheckpoint, match=r"vocab\.json") as refused:
        describe(source)
    assert refused.value.hint == f"mmsearch model convert {source} NEW_FOLDER"

    description = convert_model(source, target)

    built = Tokenizer.from_file(str(target / "tokenizer.json"))
    text = "<|im_start|>user\nÄ red bus, at night\n<disc_emb>\nx <gen_emb><|im_end|>"
    assert built.encode(text, add_special_tokens=False).ids == (
        one_file.encode(text, add_special_tokens=False).ids
    )
    assert "built from vocab.json" in description.about


def split_tokenizer(folder: Path) -> None:
    """Replace tokenizer.json by the files that transformers kept before there was one."""
    fields = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(fields["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            str(token["id"]): {key: token[key] for key in token if key != "id"}
            for token in fields["added_tokens"]
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 50 kB: writing fails as on a full disk."""
    with largest_file(50_000):
        yield


def test_a_disk_that_fills_up_leaves_nothing(plume: Path, target: Path, small_files: None) -> None:
    with pytest.raises(ConversionFailed, match="File too large"):
        convert_model(plume, target)


def test_a_disk_that_fills_up_is_not_held_against_the_pickles(
    pickled: Path, target: Path, small_files: None
) -> None:
    with pytest.raises(ConversionFailed, match=r"pytorch_model.* cannot be rewritten: File too"):
        convert_model(pickled, target)


def test_a_disk_that_is_too_small_is_seen_before_anything_is_written(
    plume: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Free(1_000))

    with pytest.raises(ConversionFailed, match="of disk are free"):
        convert_model(plume, target)


class Free:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_conversion_that_is_killed_leaves_no_target_and_can_be_repeated(
    plume: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from mmsearch.retriever.models.convert import convert_model; "
        "convert_model(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=lambda at: "
        "at.done > 0 and os.kill(os.getpid(), signal.SIGKILL))"
    )

    killed = subprocess.run([sys.executable, "-c", code, str(plume), str(target)], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1, "it was in the middle of it"
    convert_model(plume, target)
    assert list(tmp_path.iterdir()) == [target], "what it left is gone too"
    assert_equal(state_of(target), state_of(plume, description=describe(plume)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "it has no tokenizer.json"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"it has no model\*\.safetensors",
        ),
        (
            lambda folder: edit_json(
                folder / "config.json", lambda fields: fields.update(model_type="llava")
            ),
            "model_type 'llava'",
        ),
    ],
)
def test_what_is_no_model_is_refused(
    target: Path, tmp_path_factory: Any, spoil: Any, reason: str
) -> None:
    source = tmp_path_factory.mktemp("spoilt") / "source"
    write_published(source)
    spoil(source)

    with pytest.raises(BadCheckpoint, match=reason):
        convert_model(source, target)


def test_a_target_in_no_folder_is_refused(plume: Path, target: Path) -> None:
    with pytest.raises(ConversionFailed, match="there is no folder for"):
        convert_model(plume, target / "deeper")


def test_the_tiny_tokenizer_is_the_one_that_folders_are_written_with(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, PLUME_TOKENS)

    written = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert written.get_vocab() == tiny_tokenizer().get_vocab()
