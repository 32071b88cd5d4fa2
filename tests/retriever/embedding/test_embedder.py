"""What every vector promises: unit length, its own item's business, never NaN."""

import dataclasses
import itertools
import json
import random
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmsearch.errors import BadVectors, OutOfMemory
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.embedding.load import load_embedder
from mmsearch.retriever.embedding.schedule import LookAhead, Schedule, SideBySide
from mmsearch.retriever.models.checkpoint import Model, read_checkpoint
from mmsearch.retriever.models.head import ResidualHead
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.values import Frames, Image, Item, Role, View


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "random"
    write_random_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def embedder(folder: Path) -> LatentEmbedder:
    return load_embedder(folder, device="cpu")


def residual_head(model: Model) -> ResidualHead:
    assert isinstance(model.head, ResidualHead)
    return model.head


def random_items(seed: int, count: int) -> list[Item]:
    """Return items of one to three parts: words, pictures and clips of any size."""
    draw, noise = random.Random(seed), np.random.default_rng(seed)

    def part() -> str | Image | Frames:
        height, width = draw.randint(1, 90), draw.randint(1, 90)
        kind = draw.choice(["words", "words", "image", "frames"])
        if kind == "words":
            letters = draw.choices("abcdefghij  .,", k=draw.choice([0, 1, 7, 40, 300]))
            return "".join(letters)
        if kind == "image":
            return Image(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        frames = draw.randint(1, 4)
        return Frames(noise.integers(0, 256, (frames, height, width, 3), dtype=np.uint8))

    return [Item([part() for _ in range(draw.randint(1, 3))]) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_an_item_has_the_same_vector_alone_and_in_any_batch_and_order(
    embedder: LatentEmbedder, seed: int
) -> None:
    items = random_items(seed, 12)
    order = random.Random(seed).sample(range(len(items)), len(items))

    together = embedder.embed(items)
    shuffled = embedder.embed([items[i] for i in order])

    for i, item in enumerate(items):
        assert float(together[i] @ embedder.embed([item])[0]) >= 0.9999
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)
    assert (together @ together.T)[np.triu_indices(len(items), 1)].min() < 0.95  # they differ


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_the_batch_size_changes_no_vector(
    folder: Path, embedder: LatentEmbedder, batch_tokens: int
) -> None:
    items = random_items(9, 10)
    other = LatentEmbedder(*read_checkpoint(folder, device="cpu"), batch_tokens=batch_tokens)

    np.testing.assert_allclose(other.embed(items), embedder.embed(items), atol=1e-5)


def test_vectors_are_float32_unit_rows_in_the_order_given(embedder: LatentEmbedder) -> None:
    items = [Item(["a " * n]) for n in (30, 1, 12, 2)]

    vectors = embedder.embed(items)

    assert vectors.shape == (4, embedder.space.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    for vector, item in zip(vectors, items, strict=True):
        np.testing.assert_allclose(vector, embedder.embed([item])[0], atol=1e-5)


def test_the_same_call_gives_the_same_bits(embedder: LatentEmbedder) -> None:
    items = random_items(5, 6)

    np.testing.assert_array_equal(embedder.embed(items), embedder.embed(items))


def test_no_items_give_no_rows(embedder: LatentEmbedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.space.dim)


def test_a_role_is_a_role_or_its_name(embedder: LatentEmbedder) -> None:
    item = Item(["abc"])

    np.testing.assert_array_equal(
        embedder.embed([item], role="query"), embedder.embed([item], role=Role.QUERY)
    )
    with pytest.raises(ValueError, match="judge"):
        embedder.embed([item], role="judge")


def test_nan_is_refused_and_the_item_named(folder: Path) -> None:
    description, model = read_checkpoint(folder, device="cpu")
    embedder = LatentEmbedder(description, model)
    letter = model.backbone.tokenizer.token_to_id("z")
    model.backbone.text.words.scale[letter] = torch.nan

    embedder.embed([Item(["abc"])])
    with pytest.raises(BadVectors, match=r"1 of 3 items \(1\)"):
        embedder.embed([Item(["abc"]), Item(["z"]), Item(["abc abc"])])


def test_infinity_is_refused(folder: Path) -> None:
    description, model = read_checkpoint(folder, device="cpu")
    residual_head(model).out.bias[0] = torch.inf

    with pytest.raises(BadVectors):
        LatentEmbedder(description, model).embed([Item(["abc"])])


def test_an_open_gate_lets_the_decoder_count(folder: Path, embedder: LatentEmbedder) -> None:
    description, model = read_checkpoint(folder, device="cpu")
    residual_head(model).alpha.zero_()
    closed = LatentEmbedder(description, model)
    item = Item(["abc"])

    assert float(closed.embed([item])[0] @ embedder.embed([item])[0]) < 0.9999


def test_a_closed_gate_skips_the_decoder(folder: Path) -> None:
    description, model = read_checkpoint(folder, device="cpu")
    residual_head(model).alpha.zero_()
    runs: list[int] = []
    model.backbone.decoder.layers[0].register_forward_pre_hook(lambda *_: runs.append(1))

    LatentEmbedder(description, model).embed([Item(["abc"])])

    assert runs == []


def test_batches_are_cut_by_work_and_not_by_count(folder: Path) -> None:
    description, model = read_checkpoint(folder, device="cpu")
    embedder = LatentEmbedder(description, model, batch_tokens=48)
    widths: list[tuple[int, ...]] = []
    model.backbone.text.register_forward_pre_hook(
        lambda _, inputs: widths.append(tuple(inputs[0].shape))
    )
    long, short = Item(["a " * 400]), Item(["b"])

    embedder.embed([short, long, *[short] * 20])

    # The long one alone, three windows of it; the short ones together, as [CLS] b [SEP].
    assert widths[0][0] == 3
    assert [shape[1] for shape in widths[1:]] == [3] * len(widths[1:])
    assert sum(shape[0] for shape in widths[1:]) == 21
    assert len(widths) < 5


def test_threads_do_not_disturb_each_other(embedder: LatentEmbedder) -> None:
    sets = [random_items(seed, 5) for seed in range(4)]
    expected = [embedder.embed(items) for items in sets]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(3):
            if not np.allclose(embedder.embed(sets[i]), expected[i], atol=1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_every_pair_of_sides_is_calibrated(embedder: LatentEmbedder) -> None:
    assert set(embedder.calibration) == set(itertools.product(View, View))


def test_the_space_is_the_one_described(folder: Path, embedder: LatentEmbedder) -> None:
    fields = json.loads((folder / "mmsearch.json").read_text())

    assert embedder.space.dim == fields["dim"]
    assert embedder.space.reasoner == "none"
    assert dataclasses.replace(embedder.space, model="x").id == embedder.space.id


# ---------------------------------------------------------------- schedules and memory


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "one by one": lambda: SideBySide(1),
    "side by side": lambda: SideBySide(3),
    "looking ahead": lambda: LookAhead(3),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


class SmallMemory(nn.Module):
    """A real backbone on a device that holds so many tokens of a batch, and no more.

    tried: tokens of each batch it was given
    spilt: what the batch that failed last had computed by then, if anything holds it still
    """

    def __init__(
        self,
        backbone: Any,
        *,
        tokens: int,
        error: Callable[[], Exception],
        where: str = "readouts",
    ) -> None:
        super().__init__()
        self.real, self.tokens, self.error, self.where = backbone, tokens, error, where
        self.token_bytes = backbone.token_bytes
        self.tried: list[int] = []
        self.spilt: list[weakref.ref[torch.Tensor]] = []
        self.kept: list[bool] = []  # whether some of that was alive at the next try

    def num_tokens(self, item: Item) -> int:
        return int(self.real.num_tokens(item))

    def collate(self, items: Sequence[Item], *, role: Role) -> Any:
        if self.where == "collate":
            self._take(len(items) * max(map(self.num_tokens, items)))
        return items, self.real.collate(items, role=role)

    def readouts(self, batch: Any) -> Any:
        if self.where == "readouts":
            self._take(len(batch[0]) * max(map(self.num_tokens, batch[0])))
        return self.real.readouts(batch[1])

    def prefill(self, batch: Any, **how: Any) -> Any:
        return self.real.prefill(batch[1], **how)

    def anchors(self, batch: Any) -> Any:
        return self.real.anchors(batch[1])

    def _take(self, tokens: int) -> None:
        self.kept.append(any(one() is not None for one in self.spilt))
        self.tried.append(tokens)
        if tokens > self.tokens:
            activations = torch.zeros(8)
            self.spilt.append(weakref.ref(activations))
            raise self.error()


ShortOfMemory = Callable[..., tuple[LatentEmbedder, SmallMemory]]


@pytest.fixture
def short_of_memory(folder: Path) -> ShortOfMemory:
    def make(
        *,
        tokens: int,
        schedule: Schedule | None = None,
        error: Callable[[], Exception] = lambda: torch.OutOfMemoryError("CUDA out of memory."),
        where: str = "readouts",
    ) -> tuple[LatentEmbedder, SmallMemory]:
        description, model = read_checkpoint(folder, device="cpu")
        memory = SmallMemory(model.backbone, tokens=tokens, error=error, where=where)
        model.backbone = memory
        return LatentEmbedder(description, model, batch_tokens=512, schedule=schedule), memory

    return make


@every_schedule
def test_every_schedule_gives_the_same_vectors_in_the_same_order(
    folder: Path, embedder: LatentEmbedder, schedule: Callable[[], Schedule]
) -> None:
    items = random_items(11, 20)
    other = LatentEmbedder(*read_checkpoint(folder), batch_tokens=64, schedule=schedule())

    np.testing.assert_allclose(other.embed(items), embedder.embed(items), atol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory."),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError,
    ],
    ids=["cuda", "cpu", "python"],
)
@pytest.mark.parametrize("where", ["readouts", "collate"])
def test_a_batch_that_does_not_fit_is_embedded_in_halves(
    embedder: LatentEmbedder,
    short_of_memory: ShortOfMemory,
    error: Callable[[], Exception],
    where: str,
) -> None:
    items = [Item([f"{number} of forty"]) for number in range(40)]
    small, memory = short_of_memory(tokens=60, error=error, where=where)

    np.testing.assert_allclose(small.embed(items), embedder.embed(items), atol=1e-5)
    assert memory.tried[0] == 160  # 40 items of 4 tokens
    assert small.batch_tokens == 40  # 160 and 80 did not fit
    assert not any(memory.kept)  # else the halves would find the memory as full


@every_schedule
def test_what_did_not_fit_is_remembered(
    short_of_memory: ShortOfMemory,
    schedule: Callable[[], Schedule],
) -> None:
    items = [Item([f"{number} of two hundred"]) for number in range(200)]
    small, memory = short_of_memory(tokens=90, schedule=schedule())
    first = small.embed(items)
    memory.tried.clear()

    np.testing.assert_allclose(small.embed(items), first, atol=1e-5)
    assert memory.tried
    assert max(memory.tried) <= small.batch_tokens <= 90


def test_batches_prepared_before_that_was_learnt_are_halved_without_a_try(
    short_of_memory: ShortOfMemory,
) -> None:
    items = [Item([f"{number} of two hundred"]) for number in range(400)]
    small, memory = short_of_memory(tokens=300, schedule=LookAhead(3))

    small.embed(items)

    assert sum(tokens > 300 for tokens in memory.tried) == 1


@every_schedule
def test_threads_that_run_out_together_all_get_their_vectors(
    embedder: LatentEmbedder,
    short_of_memory: ShortOfMemory,
    schedule: Callable[[], Schedule],
) -> None:
    small, _ = short_of_memory(tokens=50, schedule=schedule())
    sets = [[Item([f"{i} of {set_}"]) for i in range(40)] for set_ in range(4)]
    wrong: list[int] = []

    def work(i: int) -> None:
        if not np.allclose(small.embed(sets[i]), embedder.embed(sets[i]), atol=1e-5):
            wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert 25 <= small.batch_tokens <= 50  # halved until it fits, and no further


@pytest.mark.parametrize("where", ["readouts", "collate"])
def test_one_item_alone_that_does_not_fit_is_an_error_that_names_the_device(
    short_of_memory: ShortOfMemory, where: str
) -> None:
    small, _ = short_of_memory(tokens=20, where=where)
    short, long = Item(["ab"]), Item(["a " * 60])

    with pytest.raises(OutOfMemory, match="memory of cpu") as error:
        small.embed([short, long, short])

    assert error.value.__context__ is None  # it would hold what filled the memory
    assert len(small.embed([short, short])) == 2


@pytest.mark.parametrize("where", ["readouts", "collate"])
def test_one_item_alone_is_tried_once_more_when_the_memory_may_be_free_again(
    embedder: LatentEmbedder, short_of_memory: ShortOfMemory, where: str
) -> None:
    def error() -> Exception:
        memory.tokens = 100  # another thread is done
        return MemoryError()

    small, memory = short_of_memory(tokens=1, error=error, where=where)
    item = Item(["abc"])

    np.testing.assert_allclose(small.embed([item]), embedder.embed([item]), atol=1e-5)
    assert (len(memory.tried), small.batch_tokens) == (2, 512)


def test_another_error_is_not_taken_for_a_lack_of_memory(
    short_of_memory: ShortOfMemory,
) -> None:
    small, memory = short_of_memory(
        tokens=1, error=lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    )

    with pytest.raises(RuntimeError, match="mat1"):
        small.embed([Item(["abc"]), Item(["abd"])])
    assert (len(memory.tried), small.batch_tokens) == (1, 512)


def test_dimensions_that_are_kept_are_the_leading_ones(
    folder: Path, embedder: LatentEmbedder
) -> None:
    description, model = read_checkpoint(folder)
    short = LatentEmbedder(dataclasses.replace(description, dims=5), model)
    items = random_items(3, 6)

    leading = embedder.embed(items)[:, :5]

    assert short.space.dim == 5
    np.testing.assert_allclose(
        short.embed(items), leading / np.linalg.norm(leading, axis=1, keepdims=True), atol=1e-5
    )
