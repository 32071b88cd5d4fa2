"""Files of training rows, read as examples (being written: names and promises first)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mmsearch.retriever.training.config import DataSource
from mmsearch.retriever.training.examples import Example

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class BadRow(NamedTuple):
    """A row that is left out, whole; ``row`` is its name, such as ``pairs.jsonl:12``."""

    row: str
    reason: str
    dataset: str = ""


class Rows(Protocol):
    """Examples by number, of several data sets; see `open_rows` and `listed_rows`.

    names:    of the data sets
    weights:  how often an epoch draws each row of a data set
    dataset:  ``[n]`` int32, which data set a row is of
    keys:     ``[n, 2]`` int64 of the query and the positive, equal where words and paths are
    bad:      rows left out (the first 1,000 of them), ``num_bad`` counts all
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    dataset: "npt.NDArray[np.int32]"
    keys: "npt.NDArray[np.int64]"
    bad: list[BadRow]
    num_bad: int

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example:
        """Return an example; several threads may ask at once."""
        ...

    def select(self, numbers: "Sequence[int] | npt.NDArray[np.int64]") -> "Rows":
        """Return these rows alone, in this order."""
        ...


def read_examples(source: DataSource) -> Iterator[Example | BadRow]:
    """Yield every row of a file in order; raises BadTrainingFile where it cannot be read."""
    raise NotImplementedError


def open_rows(sources: Sequence[DataSource]) -> Rows:
    """Return the rows of all files; a million of them take some 40 MB."""
    raise NotImplementedError


def listed_rows(examples: Iterable[Example], weights: dict[str, float] | None = None) -> Rows:
    """Return examples that are at hand, such as `toy_examples`, as rows."""
    raise NotImplementedError
