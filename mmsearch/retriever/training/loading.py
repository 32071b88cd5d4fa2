"""Rows opened ahead by threads, as batches of tensors.

    BatchPlan -> numbers -> Rows -> Example -> media opened -> Item -> backbone's batch

A row is trained on whole or not at all: where one of its media cannot be opened, both of its
sides go, and another row of the same data set stands in for it, the same one on every run.
Each bad row is reported once, by name and with its reason.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from mmsearch.errors import BadExample, BadItem, UnreadableFile
from mmsearch.retriever.training.examples import (
    Collate,
    Example,
    Media,
    Picture,
    Side,
    SideBatch,
    TrainingBatch,
)
from mmsearch.retriever.training.looks import content_key, look
from mmsearch.retriever.training.records import BadRow, Rows
from mmsearch.retriever.training.sampling import BatchPlan, share
from mmsearch.values import Frames, Image, Item, ReadPolicy, Role, as_part

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from mmsearch.retriever.seams import Backbone
    from mmsearch.values import Given, Pixels, Vectors

Opener: TypeAlias = Callable[[Media], Image | Frames]

IN_A_ROW = 20  # stand-ins that are bad too before a data set is given up
POLICY = ReadPolicy()

# ---------------------------------------------------------------- media


def open_still(media: Media) -> Image | Frames:
    """Open a picture or the frame files of a film, within the pixels that readers hand on.

    Raises UnreadableFile, also for a page or a film: those need the readers of
    `mmsearch.training`.
    """
    if media.frames:
        return _frames([_pixels(path) for path in media.frames])
    if media.page is not None or media.start is not None:
        what = "a page" if media.page is not None else "a span of a film"
        raise UnreadableFile(media.path, f"only pictures are opened here, not {what}")
    return Image(_pixels(media.path))


def media_name(media: Media) -> str:
    """Return what a report calls a page, a clip or a file."""
    if media.page is not None:
        return f"{media.path}#{media.page}"
    if media.start is not None:
        return f"{media.path} {media.start:g}-{media.end:g} s"
    return str(media.path)


def _pixels(path: Path) -> "Pixels":
    """Return the pixels of a picture file; whatever is wrong with it is UnreadableFile."""
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    try:
        with pil.open(path) as picture:
            width, height = picture.size
            if width * height > POLICY.max_decoded_pixels:
                raise UnreadableFile(path, f"its picture is {width} x {height}")
            # JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the time.
            picture.draft("RGB", _within(width, height))
            part = as_part(_fitted(picture))
            assert isinstance(part, Image)
            return part.pixels
    except UnreadableFile:
        raise
    except UnidentifiedImageError:
        raise UnreadableFile(path, "it is not a picture, or its header is damaged") from None
    except pil.DecompressionBombError:
        raise UnreadableFile(path, "its picture is too large to decode") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableFile(path, reason[:1].lower() + reason[1:]) from error
    except Exception as error:  # a damaged file makes decoders raise anything
        raise UnreadableFile(path, f"it is damaged ({error})") from error


def _within(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, (POLICY.max_pixels / (width * height)) ** 0.5)
    return max(int(width * scale), 1), max(int(height * scale), 1)


def _fitted(picture: "PILImage") -> "PILImage":
    from PIL import Image as pil

    size = _within(*picture.size)
    if size == picture.size:
        return picture
    if picture.mode not in ("RGB", "RGBA", "L", "LA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture.resize(size, pil.Resampling.LANCZOS, reducing_gap=2.0)


def _frames(frames: "Sequence[Pixels]") -> Frames:
    """Return frames of one size: that of the first, which the others are brought to."""
    import numpy as np
    from PIL import Image as pil

    height, width = frames[0].shape[:2]
    even = [
        one
        if one.shape == frames[0].shape
        else np.asarray(pil.fromarray(one).resize((width, height), pil.Resampling.LANCZOS))
        for one in frames
    ]
    return Frames(np.stack(even))


# ---------------------------------------------------------------- batches


class MediaCollate:
    """See `mmsearch.retriever.training.examples.Collate`.

    backbone: whose batches are made
    opener:   opens a path; raises UnreadableFile
    max_text: the words of a side are cut at so many characters, behind a word; 0 cuts none
    """

    def __init__(
        self, backbone: "Backbone[Any, Any]", opener: Opener = open_still, *, max_text: int = 0
    ) -> None:
        self._backbone, self._opener, self._max_text = backbone, opener, max_text

    def __call__(self, examples: Sequence[Example], *, seed: int) -> TrainingBatch:
        import torch

        queries, positives, negatives = [], [], []
        negative_of: list[int] = []
        reasons: dict[str, str] = {}
        for place, example in enumerate(examples):
            try:
                queries.append(self._open(example.query))
                positives.append(self._open(example.positive))
                negatives += [self._open(side) for side in example.negatives]
            except UnreadableFile as error:
                reasons[example.row] = str(error)
            negative_of += [place] * len(example.negatives)
        if reasons:
            raise BadExample(reasons)
        rows = [example.row for example in examples]
        wrong = [rows[place] for place in negative_of]
        return TrainingBatch(
            query=self._side_batch(queries, rows, Role.QUERY),
            positive=self._side_batch(positives, rows, Role.DOCUMENT),
            negatives=self._side_batch(negatives, wrong, Role.DOCUMENT) if negatives else None,
            negative_of=torch.tensor(negative_of, dtype=torch.int64),
            examples=tuple(examples),
        )

    def item(self, side: Side) -> Item:
        """Return a side as an embedder takes it; raises UnreadableFile."""
        left = self._max_text or sys.maxsize
        parts: list[Given] = []
        for part in side.parts:
            if not isinstance(part, str):
                parts.append(self._opened_part(part))
            elif cut := _cut(part, left):
                parts.append(cut)
                left = left - len(part) if cut == part else 0
        return Item(parts)

    def _open(self, side: Side) -> "_Opened":
        item = self.item(side)
        return _Opened(side, item, content_key(item), look(item))

    def _opened_part(self, part: Media | Picture) -> Image | Frames:
        name = media_name(part) if isinstance(part, Media) else part.name
        try:
            return self._opener(part) if isinstance(part, Media) else part.open()
        except (OSError, ValueError) as error:
            raise UnreadableFile(name, str(error)) from error

    def _side_batch(
        self, opened: "Sequence[_Opened]", rows: Sequence[str], role: Role
    ) -> SideBatch:
        import numpy as np
        import torch

        items = [one.item for one in opened]
        try:
            batch = self._backbone.collate(items, role=role)
        except BadItem as error:
            raise BadExample(self._too_long(items, rows, role) or {rows[0]: str(error)}) from error
        looks = np.stack([one.look for one in opened])
        return SideBatch(
            batch,
            tuple(one.side for one in opened),
            role,
            torch.tensor([one.key for one in opened], dtype=torch.int64),
            torch.from_numpy(looks),
        )

    def _too_long(self, items: Sequence[Item], rows: Sequence[str], role: Role) -> dict[str, str]:
        """Return which rows hold an item that the model cannot read, one by one."""
        reasons: dict[str, str] = {}
        for item, row in zip(items, rows, strict=True):
            try:
                self._backbone.collate([item], role=role)
            except BadItem as error:
                reasons.setdefault(row, str(error))
        return reasons


@dataclass(frozen=True, slots=True)
class _Opened:
    """A side with its media open."""

    side: Side
    item: Item
    key: int
    look: "Vectors"


def _cut(text: str, left: int) -> str:
    """Return as many whole words as fit into so many characters."""
    if len(text) <= left:
        return text
    head = text[: max(left, 0)]
    return head if text[len(head)].isspace() else head.rpartition(" ")[0] or head


# ---------------------------------------------------------------- steps


class _Chunk(NamedTuple):
    """Rows of a step that are computed at once: their places in its whole batch."""

    step: int
    places: range


class Loader:
    """Makes the batches of one process, ahead of the step that needs them.

        with Loader(rows, plan, collate, seed=0) as loader:
            for chunks in loader.steps(0, 1_000): ...

    rank, size: which of how many processes this is
    chunk:      rows of a batch that are computed at once; 0 for all of a process's share
    workers:    threads; 0 opens everything on the caller's own, when it is needed
    bad_rows:   "drop" lets another row stand in for a bad one, "stop" raises BadExample
    on_bad:     is told every bad row once, on the thread of the caller

    ``bad`` are those rows, and ``num_replaced`` counts how often one was stood in for. What
    a step holds depends on the files and on (seed, step) alone: not on the threads, on
    where the run began, or, but for the cut into chunks, on the number of processes.
    """

    def __init__(
        self,
        rows: Rows,
        plan: BatchPlan,
        collate: Collate,
        *,
        seed: int,
        rank: int = 0,
        size: int = 1,
        chunk: int = 0,
        workers: int = 2,
        bad_rows: str = "drop",
        on_bad: Callable[[BadRow], None] | None = None,
    ) -> None:
        self._rows, self._plan, self._collate, self._seed = rows, plan, collate, seed
        mine = share(plan.batch, rank, size)
        self._places = range(mine.start, mine.stop)
        self._pieces = -(-len(self._places) // chunk) if chunk else 1
        self._ahead = max(2 * workers, 1)
        self._pool = ThreadPoolExecutor(workers, "mmsearch-loader") if workers else None
        self._stops, self._on_bad = bad_rows == "stop", on_bad
        self._known: dict[int, str] = {}  # bad rows by number, as any thread found them
        self.bad: list[BadRow] = []
        self._told: set[int] = set()
        self.num_replaced = 0

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; batches that are being made are thrown away."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def steps(self, start: int, end: int) -> Iterator[list[TrainingBatch]]:
        """Yield the chunks of each step of ``[start, end)``, in order.

        Raises BadExample for a bad row where ``bad_rows`` is "stop", and where a data set
        has so many of them in a row that none is found to stand in.
        """
        batches = self._made(
            _Chunk(step, self._piece(piece))
            for step in range(start, end)
            for piece in range(self._pieces)
        )
        for _ in range(start, end):
            yield [next(batches) for _ in range(self._pieces)]

    def _piece(self, piece: int) -> range:
        return self._places[share(len(self._places), piece, self._pieces)]

    def _made(self, chunks: Iterator[_Chunk]) -> Iterator[TrainingBatch]:
        """Yield a batch for each chunk in order, some of them made ahead."""
        if self._pool is None:
            for chunk in chunks:
                yield self._tell(self._make(chunk))
            return
        ahead: deque[Future[_Made]] = deque()
        try:
            for chunk in chunks:
                ahead.append(self._pool.submit(self._make, chunk))
                if len(ahead) > self._ahead:
                    yield self._tell(ahead.popleft().result())
            while ahead:
                yield self._tell(ahead.popleft().result())
        finally:
            for future in ahead:
                future.cancel()

    def _make(self, chunk: _Chunk) -> "_Made":
        """Return the batch of a chunk, and the bad rows that were met on the way."""
        planned = self._plan.rows_of(chunk.step)
        numbers = [int(planned[place]) for place in chunk.places]
        attempts = [0] * len(numbers)
        met: dict[int, BadRow] = {}
        seed = chunk_seed(self._seed, chunk.step, chunk.places.start)
        while True:
            examples, reasons = self._examples(numbers)
            if not reasons:
                try:
                    return _Made(self._collate(examples, seed=seed), met, sum(attempts))
                except BadExample as error:
                    reasons = {
                        number: error.reasons[example.row]
                        for number, example in zip(numbers, examples, strict=True)
                        if example.row in error.reasons
                    }
                    if self._stops or not reasons:
                        raise
            for place, number in enumerate(numbers):
                if number in reasons:
                    reason = self._known.setdefault(number, reasons[number])
                    met[number] = BadRow(self._name(number), reason, self._set_of(number))
                    numbers[place] = self._stand_in(chunk, place, attempts[place], met[number])
                    attempts[place] += 1

    def _examples(self, numbers: Sequence[int]) -> tuple[list[Example], dict[int, str]]:
        """Return the examples, and by number why some of them are none."""
        examples: list[Example] = []
        reasons = {number: self._known[number] for number in numbers if number in self._known}
        for number in numbers:
            if number in reasons:
                continue
            try:
                examples.append(self._rows[number])
            except BadExample as error:
                if self._stops:
                    raise
                reasons[number] = error.reasons[error.row]
        return examples, reasons

    def _stand_in(self, chunk: _Chunk, place: int, attempt: int, bad: BadRow) -> int:
        """Return the next row to try for a place; known or not, each costs an attempt."""
        if attempt < IN_A_ROW:
            return self._plan.spare(chunk.step, chunk.places[place], attempt)
        error = BadExample({bad.row: bad.reason})
        error.hint = (
            f"so are {IN_A_ROW} others of the data set {bad.dataset!r}: do its paths start at "
            "the folder of its file? 'root' says where they do"
        )
        raise error

    def _name(self, number: int) -> str:
        try:
            return self._rows[number].row
        except BadExample as error:
            return error.row

    def _set_of(self, number: int) -> str:
        return self._rows.names[self._rows.dataset[number]]

    def _tell(self, made: "_Made") -> TrainingBatch:
        self.num_replaced += made.num_replaced
        for number, row in made.bad.items():
            if number not in self._told:
                self._told.add(number)
                self.bad.append(row)
                if self._on_bad is not None:
                    self._on_bad(row)
        return made.batch


class _Made(NamedTuple):
    """A batch, the bad rows that were met, and how often one was stood in for."""

    batch: TrainingBatch
    bad: dict[int, BadRow]
    num_replaced: int


def chunk_seed(seed: int, step: int, place: int) -> int:
    """Return the seed of a chunk from that of the run, its step, and its first row's place."""
    import numpy as np

    return int(np.random.SeedSequence((seed % 2**64, 4, step, place)).generate_state(1)[0])
