"""What was embedded is not embedded again, and nothing is taken for anything else."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import WORDS, WordEmbedder

from mmsearch.retriever.embedding.remembered import RememberingEmbedder
from mmsearch.values import Frames, Image, Item, Role

if TYPE_CHECKING:
    from mmsearch.values import Vectors

ROW_BYTES = (len(WORDS) + 4) * 4 + 300


class CountingEmbedder(WordEmbedder):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Item] = []

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        self.asked += items
        return super().embed(items, role=role)


@pytest.fixture
def model() -> CountingEmbedder:
    return CountingEmbedder()


def test_the_same_content_is_computed_once(model: CountingEmbedder) -> None:
    remembering = RememberingEmbedder(model, 1 << 20)
    pixels = np.full((4, 4, 3), 200, np.uint8)
    items = [Item("a cat"), Item([Image(pixels), "dog"]), Item("a cat")]

    first = remembering.embed(items)
    again = remembering.embed([Item([Image(pixels.copy()), "dog"]), Item("a cat")])

    np.testing.assert_array_equal(first, WordEmbedder().embed(items))
    np.testing.assert_array_equal(again, first[[1, 0]])
    assert len(model.asked) == 2
    assert (remembering.num_hits, remembering.num_misses) == (3, 2)


def test_what_differs_in_anything_is_computed_anew(model: CountingEmbedder) -> None:
    remembering = RememberingEmbedder(model, 1 << 20)
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    different = [
        Item("cat dog"),
        Item(["cat", "dog"]),
        Item(["dog", "cat"]),
        Item(["ca", "t dog"]),
        Item("cat text dog"),  # whatever stands between two parts
        Item(Image(pixels)),
        Item(Image(pixels.reshape(2, 8, 3))),
        Item(Image(pixels[::-1])),
        Item(Frames(pixels[None])),
        Item([Image(pixels), "cat"]),
        Item(["cat", Image(pixels)]),
    ]

    remembering.embed(different)
    remembering.embed(different[:1], role=Role.QUERY)

    assert len(model.asked) == len(different) + 1


def test_another_space_has_other_vectors(model: CountingEmbedder) -> None:
    one, other = (RememberingEmbedder(WordEmbedder(name), 1 << 20) for name in ("a", "b"))

    assert one._key(Item("cat"), Role.QUERY) != other._key(Item("cat"), Role.QUERY)


def test_the_least_recently_used_is_forgotten(model: CountingEmbedder) -> None:
    remembering = RememberingEmbedder(model, 2 * ROW_BYTES)

    for word in ("cat", "dog", "cat", "pump", "cat", "dog"):
        remembering.embed([Item(word)])

    assert [item.text for item in model.asked] == ["cat", "dog", "pump", "dog"]
    assert len(remembering) == 2


def test_no_memory_remembers_nothing(model: CountingEmbedder) -> None:
    remembering = RememberingEmbedder(model, 0)

    for _ in range(2):
        assert remembering.embed([Item("cat")]).shape == (1, model.space.dim)

    assert len(model.asked) == 2
    assert len(remembering) == 0


def test_what_is_remembered_cannot_be_changed_from_outside(model: CountingEmbedder) -> None:
    remembering = RememberingEmbedder(model, 1 << 20)

    remembering.embed([Item("cat")])[:] = 0
    remembering.embed([Item("cat")])[:] = 0

    np.testing.assert_array_equal(
        remembering.embed([Item("cat")]), WordEmbedder().embed([Item("cat")])
    )


def test_many_threads_get_what_they_asked_for(model: CountingEmbedder) -> None:
    remembering = RememberingEmbedder(model, 3 * ROW_BYTES)
    words = [WORDS[n % len(WORDS)] for n in range(200)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda word: remembering.embed([Item(word)]), words))

    for word, vectors in zip(words, found, strict=True):
        np.testing.assert_array_equal(vectors, WordEmbedder().embed([Item(word)]))
    assert len(remembering) == 3
