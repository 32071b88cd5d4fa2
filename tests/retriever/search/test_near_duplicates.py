"""Which pictures count as the same one, and that none such pair is missed."""

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import toy_store
from PIL import Image, ImageDraw

from mmsearch.indexers.readers.pictures import look
from mmsearch.retriever.search.grouping import best_of_alike
from mmsearch.retriever.search.looks import Appearance, groups_of, near_pairs, num_alike
from mmsearch.retriever.store.store import Row, Store, Writer, new_commit_id
from mmsearch.values import (
    Document,
    Kind,
    Locator,
    Status,
    TextOrigin,
    View,
    segment_id,
)

SPACE = replace(toy_store.SPACE, dim=2)
A, B = 0x0F0F_3C3C_AAAA_1234, 0xF0F0_1111_5555_4321  # far apart
WORDS = "tide table of port ansel for march in metres"
OTHER_WORDS = "the pump station was replaced by a larger one"


def flipped(look: int, *bits: int) -> int:
    for bit in bits:
        look ^= 1 << bit
    return look


def put(
    writer: Writer,
    path: str,
    look: int | None,
    text: str = "",
    origin: TextOrigin | None = None,
) -> str:
    """Commit a picture; return the id of its commit."""
    commit_id = new_commit_id()
    document = Document(
        path=path,
        kind=Kind.IMAGE,
        content_hash="ab" * 16,
        size=1,
        mtime_ns=1,
        status=Status.DONE,
        commit_id=commit_id,
    )
    row = Row(
        segment_id=segment_id(path, Locator()),
        kind=Kind.IMAGE,
        locator=Locator(),
        text=text,
        text_origin=origin or (TextOrigin.OCR if text else TextOrigin.NONE),
        about="",
        vectors={View.VISUAL: np.array([1, 0], dtype=np.float32)},
        thumbnail=b"",
        look=look,
    )
    writer.commit(document, [row])
    return commit_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "db", SPACE)


def grouped(store: Store) -> list[list[str]]:
    return [[one.path for one in group] for group in groups_of(store.snapshot())]


# ---------------------------------------------------------------- pairs


def joined(pairs: "np.ndarray", number: int) -> list[int]:
    """Name the component of each place by its smallest member."""
    name = list(range(number))
    for _ in range(number):
        before = list(name)
        for left, right in pairs.tolist():
            name[left] = name[right] = min(name[left], name[right])
        if name == before:
            break
    return name


@pytest.mark.parametrize("ones", [0.5, 0.06], ids=["as of photos", "as of thin drawings"])
@pytest.mark.parametrize("max_bits", [0, 1, 3])
def test_no_near_pair_is_missed_and_none_is_made_up(ones: float, max_bits: int) -> None:
    draw = np.random.default_rng(max_bits)
    number = 400
    bits = draw.random((number // 4, 64)) < ones
    bits = np.repeat(bits, 4, axis=0) ^ (draw.random((number, 64)) < 0.02)
    looks = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)

    found = near_pairs(looks, max_bits=max_bits)

    def apart(left: int, right: int) -> int:
        return (int(looks[left]) ^ int(looks[right])).bit_count()

    wanted = [pair for pair in combinations(range(number), 2) if apart(*pair) <= max_bits]
    assert wanted
    assert all(apart(left, right) <= max_bits for left, right in found.tolist())
    assert joined(found, number) == joined(np.array(wanted), number)


def test_equal_looks_are_chained_and_not_paired_each_with_each() -> None:
    assert len(near_pairs(np.full(1_000, A, dtype=np.uint64))) == 999
    assert len(near_pairs(np.zeros(0, dtype=np.uint64))) == 0


# ---------------------------------------------------------------- what is alike


@pytest.mark.parametrize(
    ("look", "words", "is_alike"),
    [
        (A, WORDS, True),
        (flipped(A, 0, 31, 63), WORDS, True),
        (flipped(A, 0, 1, 31, 63), WORDS, False),
        (A, OTHER_WORDS, False),
        (A, WORDS.replace("march", "april"), True),
        (A, "", False),
        (A, None, True),
    ],
    ids=[
        "itself",
        "3 bits",
        "4 bits",
        "other words",
        "a word misread",
        "no words",
        "a film's words",
    ],
)
def test_two_are_alike_by_look_and_by_what_can_be_read(
    look: int, words: str | None, is_alike: bool
) -> None:
    def seen(look: int, words: str | None) -> Appearance:
        hashes = None if words is None else frozenset(hash(word) for word in words.split())
        return Appearance(look, hashes)

    assert seen(A, WORDS).is_alike(seen(look, words)) is is_alike
    assert seen(look, words).is_alike(seen(A, WORDS)) is is_alike


def test_a_picture_saved_again_is_a_near_duplicate_and_another_is_not() -> None:
    def drawn(shift: int) -> Image.Image:
        picture = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
        pen = ImageDraw.Draw(picture)
        for number in range(6):
            left = 40 + 97 * number + shift * (number % 3)
            pen.ellipse((left, 60 + 53 * number, left + 120, 160 + 53 * number), fill=(200, 40, 9))
        return picture

    def seen(picture: Image.Image) -> Appearance:
        found = look(np.asarray(picture))
        assert found is not None
        return Appearance(found, frozenset())

    compressed = io.BytesIO()
    drawn(0).save(compressed, "JPEG", quality=60)

    assert seen(drawn(0)).is_alike(seen(Image.open(compressed)))
    assert seen(drawn(0)).is_alike(seen(drawn(0).resize((320, 240))))
    assert not seen(drawn(0)).is_alike(seen(drawn(90)))


# ---------------------------------------------------------------- groups


def test_groups_are_near_duplicates_of_their_first_and_largest_first(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/b1.png", B)
        put(writer, "/b2.png", B)
        put(writer, "/a1.png", A)
        put(writer, "/a2.png", flipped(A, 5))
        put(writer, "/a3.png", flipped(A, 9, 60))
        put(writer, "/plain.png", None)
        put(writer, "/plain2.png", None)
        put(writer, "/alone.png", A ^ B)

    assert grouped(store) == [["/a1.png", "/a2.png", "/a3.png"], ["/b1.png", "/b2.png"]]


def test_a_chain_of_small_differences_is_no_group(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/1.png", A)
        put(writer, "/2.png", flipped(A, 0, 1))
        put(writer, "/3.png", flipped(A, 0, 1, 2, 3))
        put(writer, "/4.png", flipped(A, 0, 1, 2, 3, 4, 5))

    assert grouped(store) == [["/1.png", "/2.png"], ["/3.png", "/4.png"]]


def test_pages_of_one_layout_with_other_words_are_no_group(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/march.png", A, WORDS)
        put(writer, "/pump.png", A, OTHER_WORDS)
        put(writer, "/march-again.png", A, WORDS + " !")
        put(writer, "/film.png", B, WORDS, TextOrigin.SUBTITLES)
        put(writer, "/still.png", B, OTHER_WORDS)

    assert grouped(store) == [["/film.png", "/still.png"], ["/march-again.png", "/march.png"]]


def test_what_was_replaced_or_removed_is_in_no_group(store: Store) -> None:
    with store.writing() as writer:
        put(writer, "/1.png", A)
        put(writer, "/2.png", A)
        put(writer, "/3.png", B)
        put(writer, "/4.png", B)
        put(writer, "/2.png", flipped(B, 10, 20, 30, 40))
        writer.remove(["/4.png"])

    assert grouped(store) == []


@pytest.mark.parametrize("few", [256, 0], ids=["few new ones", "many"])
def test_new_segments_that_look_like_others_are_counted(
    store: Store, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.retriever.search.looks._FEW", few)
    with store.writing() as writer:
        put(writer, "/old.png", A)
        put(writer, "/old2.png", A)
        new = [
            put(writer, "/like-old.png", flipped(A, 7)),
            put(writer, "/like-old2.png", A),
            put(writer, "/new.png", B),
            put(writer, "/like-new.png", B),
            put(writer, "/alone.png", A ^ B),
        ]

    assert num_alike(store.snapshot(), new) == 3
    assert num_alike(store.snapshot(), new[-1:]) == 0
    assert num_alike(store.snapshot(), []) == 0


def test_only_the_best_hit_of_those_that_look_alike_is_kept(store: Store) -> None:
    names = ["/1.png", "/2.png", "/3.png", "/4.png", "/5.png"]
    with store.writing() as writer:
        for name, one in zip(names, [A, flipped(A, 1), B, None, None], strict=True):
            put(writer, name, one)
    segments = store.segments([segment_id(name, Locator()) for name in names])
    by_id = {one.segment_id: one for one in segments}

    def kept(*order: int, k: int) -> list[str]:
        hits = [segments[number - 1] for number in order]
        return [one.path for one in best_of_alike(hits, by_id, k=k)]

    assert kept(2, 1, 4, 3, 5, k=9) == ["/2.png", "/4.png", "/3.png", "/5.png"]
    assert kept(1, 2, 3, k=2) == ["/1.png", "/3.png"]
