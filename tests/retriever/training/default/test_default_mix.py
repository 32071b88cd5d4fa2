"""The mix is whole, the same at every run, and knows nothing of the held-out books."""

import dataclasses
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from mmsearch.errors import BadTrainingFile
from mmsearch.retriever.training.default.mix import (
    SMALL,
    Printed,
    read_mix,
    read_modules,
    thinned,
)
from mmsearch.retriever.training.default.pairs import HELD_OUT, Pair, read_pairs
from mmsearch.retriever.training.examples import Example, Side

SECRET = "zanzibar"  # in every word of the held-out books


def told(book: str, i: int) -> str:
    return SECRET if book in HELD_OUT else f"thing{i}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder laid out as the training data is, two of its books held out."""
    draw = np.random.default_rng(0)
    figures, modules = [], []
    for book in ("physics", "history", *HELD_OUT):
        for i in range(6):
            img = f"img/{book}/{i}.png"
            path = tmp_path / "figures" / img
            path.parent.mkdir(parents=True, exist_ok=True)
            cells = draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)
            pil.fromarray(cells).resize((64, 48), pil.Resampling.NEAREST).save(path)
            word = told(book, i)
            alt = f"A photo shows a {word} on a table. It stands beside the {word} of a friend."
            caption = f"The {word} was found by a farmer. It stands in a museum of the {word}."
            figures.append({"img": img, "alt": alt, "caption": caption, "title": word,
                            "module": f"About {word}", "book": book})  # fmt: skip
            text = (
                f"The {word} is a thing that people have made for a very long time. They sell it "
                f"on the market. Nobody knows who made the first {word} of all, or where it was "
                "made, but a farmer found one under a tree."
            )
            paragraphs = [text, f"{text} It is old.", f"{text} It is new.", "Too short."]
            modules.append({"module": f"{book}{i}", "title": f"About {word}", "book": book,
                            "paras": paragraphs})  # fmt: skip
    shared = {"module": "m", "title": f"About {SECRET}", "book": "physics",
              "paras": [f"{SECRET} " * 30]}  # fmt: skip
    (tmp_path / "figures/pairs.jsonl").write_text("\n".join(map(json.dumps, figures)))
    for name in ("vega", "emoji"):
        (tmp_path / name / "img").mkdir(parents=True)
        pil.new("RGB", (40, 40), "red").save(tmp_path / name / "img/1.png")
        row = {"img": "img/1.png", "name": "red", "description": "A red chart of one value."}
        (tmp_path / name / "pairs.jsonl").write_text(json.dumps(row))
    (tmp_path / "text").mkdir()
    with gzip.open(tmp_path / "text/modules.jsonl.gz", "wt") as lines:
        lines.write("\n".join(map(json.dumps, [*modules, shared])))
    return tmp_path


def training(data: Path) -> list[Pair]:
    return [pair for pair in read_pairs(data) if pair.book not in HELD_OUT]


@pytest.fixture
def mix(data: Path) -> list[Example]:
    return read_mix(data, training(data), seed=0, sizes=SMALL)


def everything(example: Example) -> str:
    sides = (example.query, example.positive, *example.negatives)
    named = [str(getattr(part, "key", part)) for side in sides for part in side.parts]
    return " ".join([*named, *(f"{side.rationale} {side.answer}" for side in sides), example.row])


def test_every_kind_is_in_it(mix: list[Example]) -> None:
    assert {example.dataset for example in mix} == {
        "alt", "alt part", "caption", "alt and caption", "same picture", "icon", "chart", "shapes",
        "page", "composed", "clip", "moving", "definition", "title", "cloze", "caption paragraph",
    }  # fmt: skip


def test_every_side_can_be_opened_and_has_a_rationale(mix: list[Example]) -> None:
    for example in mix:
        for side in (example.query, example.positive):
            assert side.parts
            assert side.rationale, example
            assert side.answer, example
            for part in side.parts:
                if not isinstance(part, str):
                    assert part.open().pixels.ndim in (3, 4)  # type: ignore[union-attr]


def test_no_word_and_no_picture_of_a_held_out_book_is_in_it(mix: list[Example]) -> None:
    for example in mix:
        assert SECRET not in everything(example).lower()
        assert not any(book in everything(example) for book in HELD_OUT)


def test_a_held_out_pair_is_refused(data: Path) -> None:
    with pytest.raises(ValueError, match="astronomy, us-history"):
        read_mix(data, read_pairs(data), seed=0, sizes=SMALL)


def test_a_module_that_shares_its_title_with_a_held_out_one_is_left_out(data: Path) -> None:
    modules = read_modules(data)

    assert {module.book for module in modules} == {"physics", "history"}
    assert all(SECRET not in module.title for module in modules)
    assert all(len(text.split()) >= 20 for one in modules for text in one.paragraphs)


def test_the_same_seed_gives_the_same_rows_and_another_gives_others(
    data: Path, mix: list[Example]
) -> None:
    again = read_mix(data, training(data), seed=0, sizes=SMALL)
    other = read_mix(data, training(data), seed=1, sizes=SMALL)

    assert [everything(one) for one in mix] == [everything(one) for one in again]
    assert [everything(one) for one in mix] != [everything(one) for one in other]


def test_a_row_does_not_depend_on_how_many_there_are(data: Path, mix: list[Example]) -> None:
    sizes = dataclasses.replace(SMALL, drawn={"chart": 2}, pages=1, moving=1)
    fewer = read_mix(data, training(data), seed=0, sizes=sizes)
    known = {(one.dataset, one.row): everything(one) for one in mix}

    for example in fewer:
        if example.dataset in ("chart", "page", "moving", "alt", "caption"):
            assert known[example.dataset, example.row] == everything(example)


def test_keys_do_not_name_the_machine(mix: list[Example], data: Path) -> None:
    assert not any(str(data) in everything(example) for example in mix)


def test_printed_words_are_dropped_at_times_and_never_all_there_is() -> None:
    words = Printed("a bar chart of sales by month")
    example = Example(Side(("what?",)), Side((Printed("chart"), words)), (), "chart", "1")
    alone = Example(Side((words,)), Side(("x",)))

    seen = [thinned(example, random.Random(i), drop=0.3, misread=0.0) for i in range(600)]
    kept = sum(words in one.positive.parts for one in seen)

    assert 0.65 < kept / 600 < 0.75
    assert all(one.query == example.query for one in seen)
    assert thinned(alone, random.Random(0), drop=1.0).query.parts


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingFile, match=r"modules\.jsonl\.gz"):
        read_modules(tmp_path)
