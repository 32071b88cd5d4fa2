"""Models as a user names them: which there are, fetched, looked at, checked, converted.

A name is one that comes with the package, one that was pulled, or a folder. Each function
is the door to one part of the retriever, which is imported when it is called: listing
models loads no network library, and fetching one no tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.details import ModelDetails
    from mmsearch.retriever.embedding.library import KnownModel, ModelInfo
    from mmsearch.retriever.embedding.pull import PullProgress, Removed
    from mmsearch.retriever.embedding.tokens import ModelTokens
    from mmsearch.retriever.embedding.verify import Check
    from mmsearch.retriever.models.convert import ConvertProgress


def available_models() -> "list[ModelInfo]":
    """Return the models that can be named: those of the package, then those pulled."""
    from mmsearch.retriever.embedding import library

    return library.available_models()


def known_models() -> "Sequence[KnownModel]":
    """Return the published models that can be pulled by a short name."""
    from mmsearch.retriever.embedding import library

    return library.KNOWN


def pull_model(
    name: str, *, on_progress: "Callable[[PullProgress], object] | None" = None
) -> "ModelInfo":
    """Fetch a model from the hub by a short name or as ``OWNER/NAME``, either ``@REVISION``.

    It arrives whole, every file checked, or not at all; an interrupted pull goes on with
    the next. Raises DownloadFailed, ToBeConverted, BadCheckpoint.
    """
    from mmsearch.retriever.embedding.pull import pull

    return pull(name, on_progress=on_progress)


def model_details(name: str | Path) -> "ModelDetails":
    """Return everything that a model says of itself; raises ModelNotFound, BadCheckpoint."""
    from mmsearch.retriever.embedding import details

    return details.model_details(name)


def model_tokens(name: str | Path) -> "ModelTokens":
    """Return a model's own tokens; raises ModelNotFound, and BadCheckpoint where it has none."""
    from mmsearch.retriever.embedding import tokens

    return tokens.model_tokens(name)


def verify_model(name: str | Path) -> "Iterator[Check]":
    """Yield what is well with a model's files and what is not; raises ModelNotFound."""
    from mmsearch.retriever.embedding.verify import verify

    return verify(name)


def convert_model(
    source: str | Path,
    target: str | Path,
    *,
    family: str | None = None,
    dtype: str | None = None,
    on_progress: "Callable[[ConvertProgress], object] | None" = None,
) -> "ModelInfo":
    """Write the model of ``source``, a pulled name or a folder, into ``target`` in our format.

    Pickled weights are read in a process that may do nothing else. Raises ModelNotFound,
    BadCheckpoint, BadSetting for an unknown ``dtype``, and ConversionFailed.
    """
    from mmsearch.retriever.embedding.library import model_folder, model_info
    from mmsearch.retriever.models import convert

    folder = model_folder(source)
    convert.convert_model(folder, Path(target), family=family, dtype=dtype, on_progress=on_progress)
    return model_info(Path(target))


def remove_model(name: str) -> "list[Removed]":
    """Delete a pulled model, and return what went; raises NotPulled."""
    from mmsearch.retriever.embedding.pull import remove

    return remove(name)
