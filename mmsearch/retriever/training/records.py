"""Files of training rows: one JSON object a line, read as examples.

    pairs.jsonl -> read_examples -> Example, BadRow, Example, ...   one after the other
    [DataSource] -> open_rows    -> Rows                            by number, some 40 bytes each

A row says what is looked for and what is to be found:

    {"query": "how fast is the new engine?", "positive": {"page": "report.pdf#3"}}

Fields of a row; the first two have to be there, and there are no others:

    query, positive   a side, as below
    negatives         a list of sides that look right and are wrong (hard negatives)
    rationale         how one reasons from the query to what is looked for, in sentences;
                      PLUME's latent steps learn to replace it
    answer            the query's meaning in a word or a sentence, where the rationale ends
    dataset           what the row is an example of, such as "charts"; a batch holds rows of
                      one data set only. Without it: the name of the file
    id, meta          anything of yours; not read

A side is a text, an object, or a list of texts and objects in reading order:

    "a red bus"
    {"image": "bus.jpg"}
    {"image": "chart.png", "text": "Sales by region"}
    ["the dress in", {"image": "blue.jpg"}, "but in red"]

Fields of such an object. Media come before the words, in the order of this table; write a
list where that is not how it is read:

    text              words
    image, images     a path, or a list of paths
    page, pages       "report.pdf#3" or {"path": "report.pdf", "page": 3}; pages count from 1
    clip, clips       "film.mp4", or {"path": "film.mp4", "start": 12.5, "end": 20} in seconds
    frames            a film that was cut into pictures: their paths, in order
    rationale, answer as above, of this side; for a positive, what one sees in it
    parts             instead of all media and text: a list as above, where a side of several
                      parts has a rationale or an answer of its own

    {"parts": [{"image": "a.png"}, "beside", {"image": "b.png"}], "answer": "two charts"}

Paths are relative to the folder of the file (or to ``root``); absolute ones and ``..`` are
fine. The file is UTF-8, with or without a byte order mark; line ends may be Windows'; empty
lines are skipped; one JSON array of rows does as well. A row that is not like this is left
out whole, both sides of it, and reported with the number of its line.

See `mmsearch.retriever.training.layouts` for the records of PLUME and UME-R1 ("ume") and the
columns of MMEB-train ("mmeb", as Parquet or JSONL), which are read as they are.
"""

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mmsearch.errors import BadExample, BadTrainingFile
from mmsearch.retriever.training.config import DataSource
from mmsearch.retriever.training.examples import Example, Media, Side
from mmsearch.retriever.training.layouts import LAYOUTS
from mmsearch.retriever.training.lines import MAX_LINE, Line, Lines

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = Sequence[int] | npt.NDArray[np.integer[Any]]

TOLD = 1_000  # bad rows that are kept to be told; the others are counted
# What MMEB-train calls the files of each of its data sets.
SPLIT = re.compile(r"(original|train|diverse_instruction)(-\d+-of-\d+)?")


class BadRow(NamedTuple):
    """A row that is left out, whole; ``row`` is its name, such as ``pairs.jsonl:12``."""

    row: str
    reason: str
    dataset: str = ""

    def __str__(self) -> str:
        return f"{self.row}: {self.reason}"


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
        """Return an example; several threads may ask at once.

        Raises BadExample where its file has changed since.
        """
        ...

    def select(self, numbers: "Numbers") -> "Rows":
        """Return these rows alone, in this order."""
        ...


def read_examples(source: DataSource) -> Iterator[Example | BadRow]:
    """Yield every row of a file in order.

    Raises BadTrainingFile for a file that cannot be read or that has no row.
    """
    file = _File(source, source.path.name)
    empty = True
    for _, entry in file.entries():
        empty = False
        yield entry
    if empty:
        raise BadTrainingFile(source.path, "there is no row in it")


def open_rows(sources: Sequence[DataSource]) -> Rows:
    """Return the good rows of all files, one file after the other.

    Raises BadTrainingFile for a file that cannot be read, or of which no row is good.
    """
    times = Counter(source.path.name for source in sources)
    files: list[_File] = []
    sets = _DataSets()
    file_of, size, number, dataset = array("H"), array("i"), array("i"), array("i")
    offset, keys = array("q"), array("q")
    bad: list[BadRow] = []
    num_bad = 0
    for source in sources:
        name = source.path.name
        file = _File(source, name if times[name] == 1 else str(source.path))
        good = read = 0
        first = ""
        for line, entry in file.entries():
            read += 1
            if isinstance(entry, BadRow):
                first = first or str(entry)
                num_bad += 1
                if len(bad) < TOLD:
                    bad.append(entry)
                continue
            good += 1
            file_of.append(len(files))
            offset.append(line.offset)
            size.append(line.size)
            number.append(line.number)
            dataset.append(sets.number(entry.dataset, source.weight))
            keys.extend((side_key(entry.query), side_key(entry.positive)))
        if not read:
            raise BadTrainingFile(source.path, "there is no row in it")
        if not good:
            of_them = "its only row is not" if read == 1 else f"none of its {read} rows is"
            raise BadTrainingFile(source.path, f"{of_them} as described: {first}"[:500])
        files.append(file)
    import numpy as np

    columns = _Columns(
        np.frombuffer(file_of, np.uint16),
        np.frombuffer(offset, np.int64),
        np.frombuffer(size, np.int32),
        np.frombuffer(number, np.int32),
        np.frombuffer(dataset, np.int32),
        np.frombuffer(keys, np.int64).reshape(-1, 2),
    )
    return _FileRows(files, columns, sets, bad, num_bad)


def listed_rows(examples: Iterable[Example], weights: Mapping[str, float] | None = None) -> Rows:
    """Return examples that are at hand, such as `toy_examples`, as rows.

    ``weights`` by the name of a data set; 1 where it does not say.
    """
    import numpy as np

    listed, sets = list(examples), _DataSets()
    dataset = [sets.number(one.dataset, (weights or {}).get(one.dataset, 1.0)) for one in listed]
    keys = [(side_key(one.query), side_key(one.positive)) for one in listed]
    return _ListedRows(
        listed, np.array(dataset, np.int32), np.array(keys, np.int64).reshape(-1, 2), sets
    )


def side_key(side: Side) -> int:
    """Return a number that is equal for sides of the same words and the same paths."""
    digest = hashlib.blake2b(digest_size=8)
    for part in side.parts:
        if isinstance(part, str):
            digest.update(b"\0words\0" + same_words(part).encode("utf-8", "surrogatepass"))
        elif isinstance(part, Media):
            name = "\0media\0" + "\0".join(map(str, part.frames or (part.path,)))
            digest.update(name.encode("utf-8", "surrogatepass"))
            digest.update(f"\0{part.page}\0{part.start}\0{part.end}".encode())
        else:
            digest.update(b"\0picture\0" + part.key.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest(), "little", signed=True)


def same_words(text: str) -> str:
    """Return a text as it is compared: case and space do not count."""
    return " ".join(text.split()).casefold()


# ---------------------------------------------------------------- a file


class _File:
    """One file and how its rows are read; ``name`` is what reports call it."""

    def __init__(self, source: DataSource, name: str) -> None:
        self.source, self.name = source, name
        self.lines = Lines(source.path)
        self._layout = LAYOUTS[source.layout]
        folder, stem = source.path.absolute().parent, source.path.stem
        is_split = SPLIT.fullmatch(stem) is not None
        # MMEB-train/CIRR/original-00000-of-00001.parquet: paths start at MMEB-train.
        self._root = str(source.root or (folder.parent if is_split else folder))
        self._dataset = source.dataset or (folder.name if is_split else stem)

    def entries(self) -> Iterator[tuple[Line, Example | BadRow]]:
        """Yield every row, up to the limit of good ones, and where it is."""
        good = 0
        for line in self.lines:
            if self.source.limit and good >= self.source.limit:
                return
            row = self.row(line.number)
            try:
                example = self.parse(line.offset, line.size, row)
            except ValueError as error:
                yield line, BadRow(row, str(error), self._dataset)
            else:
                good += 1
                yield line, example

    def row(self, number: int) -> str:
        """Return the name of a row."""
        return f"{self.name}:{number}"

    def parse(self, offset: int, size: int, row: str) -> Example:
        """Return the example that is there; raises ValueError with the reason."""
        if size < 0:
            raise ValueError(f"it is longer than {MAX_LINE // 2**20} MiB")
        try:
            text = self.lines.read(offset, size).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 (byte {error.start + 1})") from error
        try:
            fields = _JSON.decode(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"it is not JSON: {error.msg} at character {error.pos + 1}") from error
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(fields, dict):
            raise ValueError(f"it is a JSON object, not {text.strip()[:40]}")
        example = self._layout(fields, self._root)
        return replace(example, dataset=example.dataset or self._dataset, row=row)


def _refuse(name: str) -> None:
    raise ValueError(f"it is not JSON: {name} is no number there")


_JSON = json.JSONDecoder(parse_constant=_refuse)


# ---------------------------------------------------------------- tables


class _DataSets:
    """The data sets in the order they were met, each with its weight."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, float], int] = {}

    def number(self, name: str, weight: float) -> int:
        return self._numbers.setdefault((name, weight), len(self._numbers))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._numbers)

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(weight for _, weight in self._numbers)


class _Columns(NamedTuple):
    """Where each row is, and what sampling asks of it; 38 bytes a row."""

    file: "npt.NDArray[np.uint16]"
    offset: "npt.NDArray[np.int64]"
    size: "npt.NDArray[np.int32]"
    number: "npt.NDArray[np.int32]"
    dataset: "npt.NDArray[np.int32]"
    keys: "npt.NDArray[np.int64]"


class _FileRows:
    """See `Rows`; a row is read and parsed when it is asked for."""

    def __init__(
        self,
        files: Sequence[_File],
        columns: _Columns,
        sets: _DataSets,
        bad: list[BadRow],
        num_bad: int,
    ) -> None:
        self._files, self._columns, self._sets = files, columns, sets
        self.names, self.weights = sets.names, sets.weights
        self.dataset, self.keys = columns.dataset, columns.keys
        self.bad, self.num_bad = bad, num_bad

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Example:
        where = self._columns
        file = self._files[where.file[number]]
        row = file.row(where.number[number])
        try:
            return file.parse(int(where.offset[number]), int(where.size[number]), row)
        except (ValueError, OSError) as error:
            raise BadExample({row: "its file has changed since it was read"}) from error

    def select(self, numbers: "Numbers") -> "_FileRows":
        columns = _Columns._make(column[numbers] for column in self._columns)
        return _FileRows(self._files, columns, self._sets, self.bad, self.num_bad)


class _ListedRows:
    """See `Rows`; the examples are at hand."""

    def __init__(
        self,
        examples: list[Example],
        dataset: "npt.NDArray[np.int32]",
        keys: "npt.NDArray[np.int64]",
        sets: _DataSets,
    ) -> None:
        self._examples, self._sets = examples, sets
        self.names, self.weights = sets.names, sets.weights
        self.dataset, self.keys = dataset, keys
        self.bad: list[BadRow] = []
        self.num_bad = 0

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> Example:
        return self._examples[number]

    def select(self, numbers: "Numbers") -> "_ListedRows":
        listed = [self._examples[number] for number in numbers]
        return _ListedRows(listed, self.dataset[numbers], self.keys[numbers], self._sets)
