"""A model against what it says of itself, and against what the hub said when it was pulled.

every file -> its SHA-256 -> the names and shapes of the tensors -> Check after Check

Weights are not loaded: a model larger than the memory can be verified.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.embedding.library import described, model_folder, read_source
from mmsearch.retriever.models.description import (
    DESCRIPTION_FILE,
    TOKENIZER_FILE,
    ModelDescription,
)

TENSORS = "tensors"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: a file, or TENSORS; ``problem`` is empty where it is well."""

    name: str
    problem: str = ""


def verify(name_or_path: str | Path) -> Iterator[Check]:
    """Yield what is well and what is not, as it is found out.

    Raises ModelNotFound.
    """
    folder = model_folder(name_or_path)
    try:
        description = described(folder)
    except BadCheckpoint as error:
        yield Check(DESCRIPTION_FILE, error.reason)
        return
    source = read_source(folder)
    expected = {**(source.files if source else {}), **description.files}
    whole = True
    for name, hash_ in sorted(expected.items()):
        check = Check(name, _problem(folder, name, hash_))
        whole = whole and not check.problem
        yield check
    if whole:  # of a file that is another one, nothing more can be said
        yield Check(TENSORS, _tensor_problem(folder, description))


def _problem(folder: Path, name: str, expected: str) -> str:
    if Path(name).name != name or not (folder / name).is_file():
        return "it is not there"
    try:
        # Read anew, however often this process has hashed it: disks forget.
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return "" if found == expected else "it is not the file that was described"


def _tensor_problem(folder: Path, description: ModelDescription) -> str:
    from mmsearch.retriever.models.checkpoint import matched_model

    shards = [folder / name for name in description.files if name.endswith(".safetensors")]
    try:
        matched_model(folder, description, shards, folder / TOKENIZER_FILE)
    except BadCheckpoint as error:
        return error.reason
    return ""
