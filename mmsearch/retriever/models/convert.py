"""A published model folder into one of ours: safetensors, a tokenizer, a description.

    source --[.bin: unpickle.py, a process of its own]--> shards --> names, sizes and hashes
           checked --> tensors one by one --> a folder beside the target --> its name

Nothing that lies in the source is ever run. What is being written has a name of its own,
beginning with a dot, and gets the target's in the last step: whatever moment the process
dies, the target is whole or not there.
"""

import contextlib
import fcntl
import glob
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmsearch.errors import BadCheckpoint, BadSetting, ConversionFailed
from mmsearch.retriever.models.checkpoint import SCALE, check_files, matched_model
from mmsearch.retriever.models.description import (
    DESCRIPTION_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Layout,
    ModelDescription,
    read_description,
)
from mmsearch.retriever.models.hub_layout import CONFIG_FILE, describe_parts
from mmsearch.retriever.models.tensors import (
    HEADER_DTYPES,
    TORCH_DTYPES,
    opened_tensors,
    tensor_bytes,
)
from mmsearch.retriever.models.weight_files import (
    FLOATING,
    TensorInfo,
    TensorWriter,
    file_hash,
    pickle_shards,
    read_header,
    read_headers,
    read_json,
    weight_shards,
)

DTYPES = ("float32", "bfloat16", "float16")
FOR_PEOPLE = ("LICENSE*", "LICENCE*", "NOTICE*", "README.md", "MODEL_CARD.md")
MOST_FOR_PEOPLE = 2**20  # bytes of one of these files
MOST_SAID = 10_000  # characters that are read of what the unpickling process says
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertProgress:
    """How far a conversion is.

    file:      which of the source's files is being read
    done:      bytes of the new model that are written; 0 while pickles are read
    num_bytes: bytes of the new model; of the pickles while those are read
    """

    file: str
    done: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a model is made from: its description, and the files that it rests on."""

    description: ModelDescription
    shards: list[Path]
    tokenizer: Path


def convert_model(
    source: Path,
    target: Path,
    *,
    family: str | None = None,
    dtype: str | None = None,
    on_progress: Callable[[ConvertProgress], object] | None = None,
) -> ModelDescription:
    """Write the model of a published folder into ``target`` in our format; return what it is.

    family: what the folder is, where it would be taken for something else (see FAMILIES)
    dtype:  of its floating-point weights, one of DTYPES; None leaves them as they are

    ``source`` stays as it is. Raises BadCheckpoint for a source that is no model or whose
    pickles hold anything but tensors, BadSetting for an unknown dtype, ConversionFailed
    where the target exists, the disk is full, or a file cannot be read or written.
    """
    if dtype is not None and dtype not in DTYPES:
        raise BadSetting(f"dtype {dtype}", f"weights are kept as one of {', '.join(DTYPES)}")
    if os.path.lexists(target):
        hint = "choose another folder, or remove that one first"
        raise ConversionFailed(source, f"{target} is there already", hint=hint)
    if not target.absolute().parent.is_dir():
        hint = f"mkdir -p {target.absolute().parent}"
        raise ConversionFailed(source, f"there is no folder for {target} to be in", hint=hint)
    try:
        with _workplace(target.absolute()) as work:
            description = _convert(source, work, family, dtype, on_progress or _unheard)
            shutil.rmtree(work / "unpickled", ignore_errors=True)
            os.rename(work, target)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ConversionFailed(source, f"{error.strerror or error}{where}") from None
    return description


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Give a new folder beside ``target``, which is gone afterwards if it is still there.

    It is locked as long as its process lives: what is not was left by one that was killed,
    and goes as well.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    work.mkdir()
    try:
        with _locked(work):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against others that ask; raises OSError where another holds it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _unheard(progress: ConvertProgress) -> None:
    """Nobody asked."""


def _convert(
    source: Path,
    work: Path,
    family: str | None,
    dtype: str | None,
    on_progress: Callable[[ConvertProgress], object],
) -> ModelDescription:
    if (source / DESCRIPTION_FILE).exists() and family is None:
        parts = _described(source, dtype)
    else:
        parts = _published(source, work, family, on_progress)
    _, hub_names = matched_model(source, parts.description, parts.shards, parts.tokenizer)
    headers = read_headers(parts.shards)
    tensors = {own: _kept_as(headers[hub], dtype) for own, hub in hub_names.items()}
    held_in = {name: shard.name for shard in parts.shards for name in read_header(shard)}
    num_bytes, done = sum(info.num_bytes for info in tensors.values()), 0
    _refuse_full_disk(source, work, num_bytes)
    with (
        TensorWriter(work / WEIGHTS_FILE, tensors) as writer,
        opened_tensors(parts.shards) as read,
    ):
        for own in writer.names:
            hub = hub_names[own]
            on_progress(ConvertProgress(file=held_in[hub], done=done, num_bytes=num_bytes))
            writer.write(own, tensor_bytes(read(hub).to(TORCH_DTYPES[tensors[own].dtype])))
            done += tensors[own].num_bytes
    shutil.copyfile(parts.tokenizer, work / TOKENIZER_FILE)
    for pattern in FOR_PEOPLE:  # a licence goes where the weights go
        for file in source.glob(pattern):
            if file.is_file() and file.stat().st_size <= MOST_FOR_PEOPLE:
                shutil.copyfile(file, work / file.name)
    hashes = {name: file_hash(work / name) for name in (WEIGHTS_FILE, TOKENIZER_FILE)}
    description = replace(parts.description, files=hashes, layout=Layout.OWN)
    description.write(work)
    return description


def _kept_as(info: TensorInfo, dtype: str | None) -> TensorInfo:
    if dtype is None or info.dtype not in FLOATING:
        return info
    return replace(info, dtype=HEADER_DTYPES[getattr(torch, dtype)])


def _refuse_full_disk(source: Path, work: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(work).free
    if free < num_bytes:
        reason = f"it takes {num_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of disk are free"
        raise ConversionFailed(source, reason)


def _described(source: Path, dtype: str | None) -> _Parts:
    """Return the parts of a folder that describes itself, in our layout or in its authors'."""
    description = read_description(source)
    check_files(source, description)
    if description.layout is Layout.OWN and dtype is None:
        hint = f"mmsearch index PATH --model {source}"
        raise ConversionFailed(source, "it is in our format already", hint=hint)
    shards = [source / name for name in description.files if name.endswith(".safetensors")]
    if dtype is not None and any(name.endswith(SCALE) for name in read_headers(shards)):
        raise ConversionFailed(source, "its matrices are kept as int8 and stay so")
    return _Parts(description, shards, source / TOKENIZER_FILE)


def _published(
    source: Path,
    work: Path,
    family: str | None,
    on_progress: Callable[[ConvertProgress], object],
) -> _Parts:
    """Return the parts of a folder as its authors published it; pickles are rewritten first."""
    read_json(source, CONFIG_FILE)  # before anything is built or unpickled for it
    shards, tokenizer = weight_shards(source), source / TOKENIZER_FILE
    said = ""
    if not tokenizer.is_file() and (source / "vocab.json").is_file():
        tokenizer = _built_tokenizer(source, work)
        said = "; its tokenizer.json was built from vocab.json"
    if not shards:
        shards = _unpickled(source, pickle_shards(source), work / "unpickled", on_progress)
        said += "; its weights were pickled" if shards else ""
    description = describe_parts(source, shards, tokenizer, family=family)
    return _Parts(replace(description, about=description.about + said), shards, tokenizer)


def _built_tokenizer(source: Path, work: Path) -> Path:
    """Return a tokenizer.json made of vocab.json, merges.txt and what was added to them."""
    from transformers import AutoTokenizer

    file = work / "unpickled" / TOKENIZER_FILE
    file.parent.mkdir(exist_ok=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source), trust_remote_code=False, local_files_only=True
        )
        tokenizer.backend_tokenizer.save(str(file))
    except Exception as error:  # transformers raises what its parts raise
        reason = f"no tokenizer can be built from its vocab.json: {str(error)[:300]}"
        raise BadCheckpoint(source, reason) from None
    return file


# ---------------------------------------------------------------- pickles


def _unpickled(
    source: Path,
    pickles: Sequence[Path],
    folder: Path,
    on_progress: Callable[[ConvertProgress], object],
) -> list[Path]:
    """Return safetensors files with the tensors of ``pickles``, written into ``folder``."""
    if not pickles:
        return []
    num_bytes = sum(file.stat().st_size for file in pickles)
    _refuse_full_disk(source, folder.parent, 2 * num_bytes)  # these, and the new model
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        _command(pickles, folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        | {"OMP_NUM_THREADS": "1"},
    )
    with process:
        try:
            assert process.stdout is not None
            for file in pickles:
                on_progress(ConvertProgress(file=file.name, done=0, num_bytes=num_bytes))
                _refuse_distrusted(source, file, process.stdout.readline(MOST_SAID))
        finally:
            process.kill()  # what it said of the last file, it said last
    return [folder / f"{file.stem}.safetensors" for file in pickles]


def _refuse_distrusted(source: Path, pickle: Path, said: bytes) -> None:
    """Raise BadCheckpoint unless the process said that the pickle was rewritten.

    Raises ConversionFailed where it had no room for it.
    """
    error, disk = "the process that read it was ended", ""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error, disk = (json.loads(said)[one] for one in ("error", "disk"))
    if disk:  # which says nothing against the pickle
        raise ConversionFailed(source, f"{pickle.name} cannot be rewritten: {disk}")
    if error:
        refused = BadCheckpoint(source, f"{pickle.name} is not to be trusted or read: {error}")
        refused.hint = "ask for a folder with safetensors"
        raise refused


def _command(pickles: Sequence[Path], folder: Path) -> list[str]:
    """Return how to start the process: it imports what we can, and nothing of the user's."""
    ours = str(Path(__file__).resolve().parents[3])
    code = (
        "import json, sys; paths, pickles, folder = map(json.loads, sys.argv[1:]); "
        "sys.path += [path for path in paths if path not in sys.path]; "
        "from mmsearch.retriever.models.unpickle import main; main(pickles, folder)"
    )
    paths = [path for path in (ours, *sys.path) if path]
    read = [str(pickle.absolute()) for pickle in pickles]
    return [sys.executable, "-I", "-c", code, *map(json.dumps, (paths, read, str(folder)))]
