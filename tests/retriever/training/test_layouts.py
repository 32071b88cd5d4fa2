"""Records of PLUME and UME-R1, and rows of MMEB-train, are read as they are published."""

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from mmsearch.retriever.training.config import DataSource
from mmsearch.retriever.training.examples import Example, Media, Side
from mmsearch.retriever.training.layouts import LAYOUTS, mmeb_example, ume_example
from mmsearch.retriever.training.records import BadRow, open_rows, read_examples

PROMPT = (
    "\n<disc_emb>\nRepresent the above input text, images, videos, or any combination of the "
    "three as embeddings. First output the thinking process in <think> </think> tags."
)


def turns(human: str, gpt: str = "") -> list[dict[str, str]]:
    said = [{"from": "human", "value": human + PROMPT}]
    return [*said, {"from": "gpt", "value": gpt}] if gpt else said


def ume(**fields: Any) -> dict[str, Any]:
    return {
        "qry": {
            "conversations": turns(
                "<image>\nWhat is in it?",
                "<think>I see a bus.\nIt is red.</think><answer>A red bus.</answer>\n<gen_emb>",
            ),
            "image": ["A-OKVQA/1.jpg"],
        },
        "pos": {"conversations": turns("bus"), "image": ["blank.jpg"]},
        "dataset_name": "A-OKVQA",
        **fields,
    }


def test_a_ume_record_is_an_example_without_its_prompt() -> None:
    assert ume_example(ume(), "/m") == Example(
        Side(
            (Media(Path("/m/A-OKVQA/1.jpg")), "What is in it?"),
            "I see a bus.\nIt is red.",
            "A red bus.",
        ),
        Side(("bus",)),
        dataset="A-OKVQA",
    )


def test_media_of_a_ume_record_stand_where_their_places_are() -> None:
    record = ume(
        qry={
            "conversations": turns("First <image> then <image>, and <video> too"),
            "image": ["a.jpg", "b.jpg"],
            "video": ["f/0.jpg", "f/1.jpg"],
        }
    )

    parts = ume_example(record, "/m").query.parts

    film = Media(Path("/m/f"), frames=(Path("/m/f/0.jpg"), Path("/m/f/1.jpg")))
    assert parts == (
        "First", Media(Path("/m/a.jpg")), "then", Media(Path("/m/b.jpg")), ", and", film, "too",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("video", "films"),
    [
        (["f/0.jpg"], [Media(Path("/m/f"), frames=(Path("/m/f/0.jpg"),))]),
        ("talk.mp4", [Media(Path("/m/talk.mp4"))]),
        (["a.mp4", "b.mp4"], [Media(Path("/m/a.mp4")), Media(Path("/m/b.mp4"))]),
        (
            [["a/0.jpg"], ["b/0.jpg"]],
            [
                Media(Path("/m/a"), frames=(Path("/m/a/0.jpg"),)),
                Media(Path("/m/b"), frames=(Path("/m/b/0.jpg"),)),
            ],
        ),
        ([], []),
        (["blank.jpg"], []),
    ],
)
def test_films_of_a_ume_record_are_frames_or_files(video: Any, films: list[Media]) -> None:
    record = ume(pos={"conversations": turns("what happens"), "video": video})

    # None of them has a place in the words, so all stand before them.
    assert ume_example(record, "/m").positive.parts == (*films, "what happens")


def test_an_answer_without_tags_is_what_follows_the_thought() -> None:
    record = ume(pos={"conversations": turns("bus", "<think>Short.</think> A bus.<gen_emb>")})

    positive = ume_example(record, "").positive

    assert (positive.rationale, positive.answer) == ("Short.", "A bus.")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pos": None}, "'pos' is an object, not None"),
        ({"pos": {"conversations": "bus"}}, "'pos' has no list of 'conversations'"),
        ({"pos": {"conversations": ["bus"]}}, "a turn of 'pos' is an object"),
        ({"pos": {"conversations": turns(" ")}}, "'pos' is empty"),
        ({"pos": {"conversations": turns(" "), "image": ["blank.jpg"]}}, "'pos' is empty"),
        ({"pos": {"conversations": turns("a"), "image": [7]}}, "'image' is a path, not 7"),
    ],
)
def test_a_ume_record_without_a_side_says_why(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ume_example(ume(**fields), "")


def mmeb(**fields: Any) -> dict[str, Any]:
    return {
        "qry": "<|image_1|>\nWhat colour is the bus?\n",
        "qry_image_path": "A-OKVQA/Train/1.jpg",
        "pos_text": "red",
        "pos_image_path": "",
        **fields,
    }


def test_a_row_of_mmeb_is_an_example() -> None:
    assert mmeb_example(mmeb(), "/m") == Example(
        Side((Media(Path("/m/A-OKVQA/Train/1.jpg")), "What colour is the bus?")), Side(("red",))
    )
    assert mmeb_example(mmeb(neg_text="blue", neg_image_path=None), "/m").negatives == (
        Side(("blue",)),
    )
    assert mmeb_example(
        mmeb(neg_text=["<|image_1|> one", "two"], neg_image_path=["n.jpg", ""]), "/m"
    ).negatives == (Side((Media(Path("/m/n.jpg")), "one")), Side(("two",)))
    assert mmeb_example(mmeb(neg_text="", neg_image_path=""), "/m").negatives == ()


def test_a_place_without_a_picture_is_no_word_of_the_text() -> None:
    assert mmeb_example(mmeb(qry_image_path=None), "").query.parts == ("What colour is the bus?",)


def test_a_picture_without_words_is_a_side() -> None:
    positive = mmeb_example(mmeb(pos_text="<|image_1|>", pos_image_path="p.jpg"), "").positive

    assert positive.parts == (Media(Path("p.jpg")),)


def test_a_row_of_mmeb_without_a_side_says_why() -> None:
    with pytest.raises(ValueError, match="'pos_text' and 'pos_image_path' are empty"):
        mmeb_example(mmeb(pos_text=None), "")
    with pytest.raises(ValueError, match="there is no column 'pos_text'"):
        mmeb_example({"qry": "a"}, "")


def test_parquet_and_jsonl_of_mmeb_are_the_same_rows(tmp_path: Path) -> None:
    rows = [mmeb(), mmeb(pos_text="blue"), mmeb(pos_text=None), mmeb(pos_text="é 図")]
    (tmp_path / "A-OKVQA").mkdir()
    parquet = tmp_path / "A-OKVQA/original-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    jsonl = tmp_path / "rows.jsonl"
    jsonl.write_text("\n".join(json.dumps(one) for one in rows))

    packed = list(read_examples(DataSource(parquet, "mmeb")))
    plain = list(read_examples(DataSource(jsonl, "mmeb", dataset="A-OKVQA")))

    def told(entry: Example | BadRow) -> object:
        if isinstance(entry, BadRow):
            return entry.reason, entry.dataset
        return entry.query, entry.positive, entry.dataset

    assert [told(one) for one in packed] == [told(one) for one in plain]
    assert isinstance(packed[2], BadRow)
    # Without a root, paths start at the folder that holds the data sets' own.
    assert isinstance(packed[0], Example)
    assert packed[0].query.parts[0] == Media(tmp_path / "A-OKVQA/Train/1.jpg")
    assert packed[0].row == "original-00000-of-00001.parquet:1"
    assert open_rows([DataSource(parquet, "mmeb")])[2].positive.text == "é 図"


def test_ume_records_come_as_jsonl_or_as_an_array(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ume()) + "\n" + json.dumps(ume()))
    (tmp_path / "a.json").write_text(json.dumps([ume(), ume()]))

    for name in ("a.jsonl", "a.json"):
        rows = open_rows([DataSource(tmp_path / name, "ume")])
        assert (len(rows), rows.names) == (2, ("A-OKVQA",))


def like(example: str) -> st.SearchStrategy[Any]:
    """What stands where such a thing is expected: mostly that, else anything."""
    names = st.sampled_from(["text", "image", "pages", "clip", "frames", "path", "start", "value"])
    return st.just(example) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=4,
    )


def fields(**kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=kinds)


def some(one: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return one | st.lists(one, max_size=3)


OUR_MEDIA = fields(
    text=like("a bus"),
    image=some(like("a.jpg")),
    page=some(like("a.pdf#3") | fields(path=like("a.pdf"), page=st.integers() | like(""))),
    clips=some(fields(path=like("a.mp4"), start=st.floats(), end=st.floats() | like(""))),
    frames=some(like("a.jpg")),
)
OUR_SIDE = some(OUR_MEDIA | like("a bus")) | fields(parts=some(OUR_MEDIA), answer=like("bus"))
UME_SIDE = fields(
    conversations=some(fields(**{"from": like("human"), "value": like("<image> <video> a bus")})),
    image=some(like("a.jpg")),
    video=some(some(like("a.jpg"))),
)
ROWS = st.one_of(
    st.tuples(
        st.just("pairs"),
        st.fixed_dictionaries({"query": OUR_SIDE, "positive": OUR_SIDE},
                              optional={"negatives": some(OUR_SIDE), "answer": like("bus")}),
    ),
    st.tuples(st.just("ume"), st.fixed_dictionaries({"qry": UME_SIDE, "pos": UME_SIDE})),
    st.tuples(
        st.just("mmeb"),
        st.fixed_dictionaries(
            {"qry": like("<|image_1|> a"), "pos_text": like("a")},
            optional={"qry_image_path": some(like("a.jpg")), "neg_text": some(like("b"))},
        ),
    ),
)  # fmt: skip


@settings(max_examples=200)
@given(row=ROWS)
def test_whatever_a_row_holds_it_is_an_example_or_says_in_a_line_why_not(
    row: tuple[str, dict[str, Any]],
) -> None:
    layout, held = row

    def read() -> Example | str:
        try:
            return LAYOUTS[layout](held, "/m")
        except ValueError as error:
            return str(error)

    result = read()

    if isinstance(result, str):
        assert "\n" not in result
        assert 0 < len(result) < 400
    else:
        assert all(side.parts for side in (result.query, result.positive, *result.negatives))
