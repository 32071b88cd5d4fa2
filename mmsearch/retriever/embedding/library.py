"""The models on this machine, and what to type for each; reads JSON and nothing heavier.

default                                  shipped with the package
plume                                    a short name of KNOWN, once it was pulled
CUDAOUTOFMEMORY/PLUME-Qwen2-VL-2B        a repository, once it was pulled
plume@18db7e4, OWNER/NAME@v1             one revision of several
./some/folder                            a folder with a model in it

models_home()/OWNER--NAME/COMMIT/         one pulled model: its files and
  mmsearch.json                           what it is, written when it was whole
  .source.json                            where it came from, see `Source`
models_home()/.parts/OWNER--NAME/COMMIT/  one that is still on its way
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmsearch.errors import BadCheckpoint, ModelNotFound
from mmsearch.retriever.models.description import (
    DESCRIPTION_FILE,
    ModelDescription,
    read_description,
)

SHIPPED = Path(__file__).parents[1] / "models" / "weights"
SOURCE_FILE = ".source.json"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT_PREFIX = re.compile(r"[0-9a-f]{7,40}")  # shorter would soon mean two commits
_SHOWN_COMMIT = 12  # digits, where a person tells revisions apart


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published model that can be pulled by a short name."""

    name: str
    repository: str
    about: str


KNOWN = (
    KnownModel(
        "plume",
        "CUDAOUTOFMEMORY/PLUME-Qwen2-VL-2B",
        "PLUME: eight latent steps before the vector, on Qwen2-VL-2B",
    ),
    KnownModel(
        "ume-r1",
        "zhibinlan/UME-R1-2B",
        "UME-R1: writes its thought before the vector, on Qwen2-VL-2B; slow",
    ),
    KnownModel(
        "vlm2vec-v2",
        "VLM2Vec/VLM2Vec-V2.0",
        "VLM2Vec-V2: one pass over text, pictures, films and pages, on Qwen2-VL-2B",
    ),
    KnownModel(
        "gme",
        "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct",
        "GME: one pass over text, pictures and pages, on Qwen2-VL-2B",
    ),
    KnownModel(
        "qwen3-vl-embedding",
        "Qwen/Qwen3-VL-Embedding-2B",
        "Qwen3-VL-Embedding: one pass over text, pictures, films and pages",
    ),
    KnownModel(
        "qwen2-vl",
        "Qwen/Qwen2-VL-2B-Instruct",
        "Qwen2-VL: the backbone of the others, not trained to embed",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a pulled model came from.

    revisions: as it was asked for: branches, tags or commits
    commit:    what that was, 40 hex digits
    pulled_at: seconds since 1970
    files:     SHA-256 of every file that was fetched
    """

    repository: str
    revisions: tuple[str, ...]
    commit: str
    pulled_at: float
    files: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write it into ``folder``."""
        (folder / SOURCE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @property
    def name(self) -> str:
        """What always finds this very revision, and pulls it again: hubs want all 40 digits."""
        return f"{self.repository}@{self.commit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One line of ``mmsearch model list``.

    name:   the shortest that finds it
    size:   bytes on disk
    source: where it was pulled from; None for one that is shipped, or a folder
    """

    name: str
    path: Path
    dim: int
    reasoner: str
    size: int
    about: str
    source: Source | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "path": str(self.path),
            "reasoner": self.reasoner,
            "dim": self.dim,
            "bytes": self.size,
            "description": self.about,
            "repository": self.source.repository if self.source else None,
            "revisions": list(self.source.revisions) if self.source else None,
            "commit": self.source.commit if self.source else None,
        }


# ---------------------------------------------------------------- names


def models_home() -> Path:
    """Return the folder of pulled models: MMSEARCH_MODELS, or one in the user's cache."""
    if chosen := os.environ.get("MMSEARCH_MODELS"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache and sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA")
    return (Path(cache) if cache else Path.home() / ".cache") / "mmsearch" / "models"


def split_name(name: str) -> tuple[str, str]:
    """Return ``(repository, revision)`` of a name as it is typed; either may be empty.

    The repository is empty where the name is neither known nor ``OWNER/NAME``.
    """
    name, _, revision = name.partition("@")
    for known in KNOWN:
        if name == known.name:
            return known.repository, revision
    return (name if _REPOSITORY.fullmatch(name) else ""), revision


def repository_folder(repository: str) -> Path:
    """Return the folder of everything that was pulled from a repository."""
    return models_home() / repository.replace("/", "--")


def parts_folder(repository: str) -> Path:
    """Return the folder of what unfinished pulls of a repository left; no name finds it."""
    return models_home() / ".parts" / repository_folder(repository).name


def model_folder(name_or_path: str | Path) -> Path:
    """Return the folder of a shipped or a pulled model, or the folder given.

    A name wins over a folder of that name in the working directory; ``./name`` means the
    folder. Of several revisions the one that was pulled last is meant. Raises
    ModelNotFound where there is none of these.
    """
    if isinstance(name_or_path, str) and Path(name_or_path).name == name_or_path != "":
        shipped = SHIPPED / name_or_path
        if shipped.is_dir():
            return shipped
    repository, _ = split_name(str(name_or_path))
    if isinstance(name_or_path, str) and repository and (found := pulled(name_or_path)):
        return found[0][0]
    if not str(name_or_path) or not Path(name_or_path).is_dir():
        error = ModelNotFound(str(name_or_path))
        if isinstance(name_or_path, str) and repository:
            error.hint = f"mmsearch model pull {name_or_path}"
        raise error
    return Path(name_or_path)


def pulled(name: str = "") -> list[tuple[Path, Source]]:
    """Return the whole pulled models that ``name`` can mean, or all; the newest first."""
    repository, revision = split_name(name)
    if name and not repository:
        return []
    homes = [repository_folder(repository)] if name else _folders(models_home())
    found = [
        (folder, source)
        for home in homes
        for folder in _folders(home)
        if (source := read_source(folder)) and _is_revision(source, revision)
    ]
    return sorted(found, key=lambda one: (one[1].pulled_at, one[0]), reverse=True)


def _folders(home: Path) -> Iterator[Path]:
    """Yield the folders in ``home`` but those whose names begin with a dot."""
    try:
        inside = sorted(home.iterdir())
    except OSError:
        return
    yield from (one for one in inside if one.is_dir() and not one.name.startswith("."))


def read_source(folder: Path) -> Source | None:
    """Return where the model in ``folder`` was pulled from; None where it was not."""
    try:
        fields = json.loads((folder / SOURCE_FILE).read_text())
        return Source(**{**fields, "revisions": tuple(fields["revisions"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_commit(revision: str) -> bool:
    """Say whether a revision is the beginning of a commit, or all of it."""
    return bool(_COMMIT_PREFIX.fullmatch(revision))


def _is_revision(source: Source, asked: str) -> bool:
    if is_commit(asked) and source.commit.startswith(asked):
        return True
    return not asked or asked in source.revisions


# ---------------------------------------------------------------- listing


def available_models() -> list[ModelInfo]:
    """Return the models that can be named: those of the package, then those pulled."""
    shipped = [
        model_info(described.parent) for described in sorted(SHIPPED.glob(f"*/{DESCRIPTION_FILE}"))
    ]
    return shipped + [model_info(folder) for folder, _ in sorted(pulled())]


def model_info(folder: Path) -> ModelInfo:
    """Return the line of one model; what cannot be read says so in ``about``."""
    source = read_source(folder)
    size = sum(file.stat().st_size for file in model_files(folder))
    name = _shortest_name(folder, source)
    try:
        model = read_description(folder)
    except BadCheckpoint as error:
        about, dim, reasoner = f"unusable: {error.reason}", 0, ""
        if not (folder / DESCRIPTION_FILE).exists():
            about = f"to be converted first: mmsearch model convert {name} DIR"
    else:
        about, dim, reasoner = model.about, model.dim, model.reasoner
    return ModelInfo(
        name=name, path=folder, dim=dim, reasoner=reasoner, size=size, about=about, source=source
    )


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model, by name, without our own note on where it came from."""
    return sorted(one for one in folder.iterdir() if one.is_file() and one.name != SOURCE_FILE)


def _shortest_name(folder: Path, source: Source | None) -> str:
    if source is None:
        return folder.name if folder.parent == SHIPPED else str(folder)
    for known in KNOWN:
        if known.repository == source.repository:
            name = known.name
            break
    else:
        name = source.repository
    return name if pulled(name)[0][0] == folder else f"{name}@{source.commit[:_SHOWN_COMMIT]}"


def described(folder: Path) -> ModelDescription:
    """Return what a folder holds, be it ours or as its authors published it.

    Raises BadCheckpoint.
    """
    if (folder / DESCRIPTION_FILE).exists():
        return read_description(folder)
    from mmsearch.retriever.models.hub_layout import (  # seldom needed
        CONFIG_FILE,
        LORA_FILE,
        describe,
    )

    if not any((folder / name).exists() for name in (CONFIG_FILE, LORA_FILE)):
        error = BadCheckpoint(folder, f"it has neither {DESCRIPTION_FILE} nor {CONFIG_FILE}")
        error.hint = "name a folder with a model in it, or one of 'mmsearch model list'"
        raise error
    return describe(folder)
