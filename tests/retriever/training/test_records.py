"""What a file of training rows may hold, and what becomes of what it should not hold."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mmsearch.errors import BadExample, BadTrainingFile
from mmsearch.retriever.training import lines
from mmsearch.retriever.training.config import DataSource
from mmsearch.retriever.training.examples import Example, Media, Side
from mmsearch.retriever.training.records import BadRow, listed_rows, open_rows, read_examples
from mmsearch.retriever.training.toy import toy_examples


def row(**fields: Any) -> dict[str, Any]:
    return {"query": "a bus", "positive": {"image": "bus.jpg"}, **fields}


def write(path: Path, *rows: object) -> DataSource:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return DataSource(path)


def example_of(tmp_path: Path, **fields: Any) -> Example:
    (entry,) = read_examples(write(tmp_path / "pairs.jsonl", row(**fields)))
    assert isinstance(entry, Example), entry
    return entry


def reason_of(tmp_path: Path, *rows: object) -> str:
    (entry,) = read_examples(write(tmp_path / "pairs.jsonl", *rows))
    assert isinstance(entry, BadRow), entry
    return entry.reason


# ---------------------------------------------------------------- the layout


def test_every_form_of_a_side_is_read_in_reading_order(tmp_path: Path) -> None:
    def parts(side: object) -> tuple[object, ...]:
        return example_of(tmp_path, positive=side).positive.parts

    blue, red = Media(tmp_path / "blue.jpg"), Media(tmp_path / "red.jpg")
    assert parts(" a red bus ") == ("a red bus",)
    assert parts({"text": "behind", "image": "blue.jpg"}) == (blue, "behind")
    assert parts({"images": ["blue.jpg", "red.jpg"]}) == (blue, red)
    assert parts(["as in", {"image": "blue.jpg"}, "but", {"image": "red.jpg"}]) == (
        "as in", blue, "but", red,
    )  # fmt: skip
    assert parts({"page": "a#1.pdf#3"}) == (Media(tmp_path / "a#1.pdf", page=3),)
    assert parts({"pages": [{"path": "a.pdf", "page": 2}]}) == (Media(tmp_path / "a.pdf", page=2),)
    assert parts({"clip": "a.mp4"}) == (Media(tmp_path / "a.mp4"),)
    assert parts({"clip": {"path": "a.mp4", "start": 0, "end": 2.5}}) == (
        Media(tmp_path / "a.mp4", start=0.0, end=2.5),
    )
    assert parts({"frames": ["f/1.jpg", "f/2.jpg"]}) == (
        Media(tmp_path / "f", frames=(tmp_path / "f/1.jpg", tmp_path / "f/2.jpg")),
    )


def test_what_a_row_says_beside_its_sides_is_kept(tmp_path: Path) -> None:
    example = example_of(
        tmp_path,
        negatives=["a car", {"image": "car.jpg"}],
        rationale="It has wheels. It is long.",
        answer="bus",
        dataset="vehicles",
        positive={"image": "bus.jpg", "rationale": "It is red.", "answer": "a red bus"},
        id=7,
        meta={"licence": "mine"},
    )

    assert example.query == Side(("a bus",), "It has wheels. It is long.", "bus")
    assert example.positive.rationale == "It is red."
    assert example.positive.answer == "a red bus"
    assert example.negatives == (Side(("a car",)), Side((Media(tmp_path / "car.jpg"),)))
    assert (example.dataset, example.row) == ("vehicles", "pairs.jsonl:1")


def test_a_side_of_several_parts_has_a_rationale_of_its_own(tmp_path: Path) -> None:
    side = {"parts": ["one", {"image": "a.png"}], "rationale": "Because.", "answer": "two"}

    assert example_of(tmp_path, query=side).query == Side(
        ("one", Media(tmp_path / "a.png")), "Because.", "two"
    )


def test_rows_without_a_data_set_are_of_the_file_or_of_what_the_source_says(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "birds.jsonl", row()).path

    def name(source: DataSource) -> str:
        (entry,) = read_examples(source)
        assert isinstance(entry, Example)
        return entry.dataset

    assert name(DataSource(path)) == "birds"
    assert name(DataSource(path, dataset="all")) == "all"


def test_paths_start_at_the_file_at_root_or_where_they_say(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    source = write(
        tmp_path / "rows/pairs.jsonl", row(query={"images": ["a.jpg", "../b.jpg", "/c.jpg"]})
    )

    def paths(source: DataSource) -> list[Path]:
        (entry,) = read_examples(source)
        assert isinstance(entry, Example)
        return [part.path for part in entry.query.parts if isinstance(part, Media)]

    beside = tmp_path / "rows"
    assert paths(source) == [beside / "a.jpg", beside / "../b.jpg", Path("/c.jpg")]
    assert paths(DataSource(source.path, root=Path("/m"))) == [
        Path("/m/a.jpg"), Path("/m/../b.jpg"), Path("/c.jpg"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"query": ""}, "'query' is empty"),
        ({"query": " \n"}, "'query' is empty"),
        ({"query": []}, "'query' is empty"),
        ({"query": {}}, "'query' is empty"),
        ({"query": None}, "there is no 'query'"),
        ({"query": 3}, "'query' is a text, an object or a list, not 3"),
        ({"query": [["a"]]}, "a part of 'query' is a text or an object, not ['a']"),
        ({"negative": ["x"]}, "a row has no field 'negative': did you mean 'negatives'?"),
        ({"query": {"imgae": "a"}}, "'query' has no field 'imgae': did you mean 'image'?"),
        ({"query": [{"answer": "a"}]}, "a part of 'query' has no field 'answer'"),
        ({"query": {"parts": ["a"], "text": "b"}}, "put it into 'parts'"),
        ({"negatives": "a car"}, "'negatives' is a list, not 'a car'"),
        ({"negatives": [""]}, "'negatives' is empty"),
        ({"positive": {"image": 3}}, "'image' is a path, not 3"),
        ({"positive": {"image": "http://a/b.jpg"}}, "a path of a local file"),
        ({"positive": {"image": "a\0b"}}, "a path with a NUL in it"),
        ({"positive": {"page": "a.pdf"}}, "'page' is like 'report.pdf#3', not 'a.pdf'"),
        ({"positive": {"page": "a.pdf#0"}}, "a page counts from 1, got 0"),
        ({"positive": {"page": {"path": "a.pdf", "page": True}}}, "a page counts from 1"),
        ({"positive": {"clip": {"path": "a.mp4", "start": 1}}}, "both 'start' and 'end'"),
        ({"positive": {"clip": {"path": "a.mp4", "start": 2, "end": 2}}}, "from 'start' to 'end'"),
        ({"positive": {"clip": {"path": "a", "start": 0, "end": float("inf")}}}, "Infinity is no"),
        ({"positive": {"frames": [1]}}, "'frames' is a path, not 1"),
        ({"answer": ["bus"]}, "'answer' is a text, not ['bus']"),
        ({"query": "half \ud800"}, "half a character"),
        (
            {"query": {"text": "a", "answer": "b"}, "answer": "c"},
            "'answer' is said twice, of the row and of its query",
        ),
    ],
)
def test_a_row_that_is_not_as_described_says_why(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    assert reason in reason_of(tmp_path, row(**fields))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{query}", "it is not JSON: Expecting property name"),
        (b'"a bus"', 'it is a JSON object, not "a bus"'),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"query": "\xff"}', "it is not UTF-8 (byte 12)"),
        (b'{"query": ' + b"9" * 5_000 + b"}", "limit"),
        (b'{"query": NaN}', "it is not JSON: NaN is no number there"),
    ],
)
def test_a_line_that_is_no_row_is_left_out_and_named(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(json.dumps(row()).encode() + b"\n" + line + b"\n")

    first, second = read_examples(DataSource(path))

    assert isinstance(first, Example)
    assert isinstance(second, BadRow)
    assert (second.row, second.dataset) == ("pairs.jsonl:2", "pairs")
    assert reason in second.reason


# ---------------------------------------------------------------- the file


def test_marks_windows_lines_and_empty_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "päre und 図.jsonl"
    line = json.dumps(row(positive={"image": "ü 図.jpg"}), ensure_ascii=False).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line + b"\n\n" + line)

    rows = open_rows([DataSource(path)])

    assert [rows[i].row for i in range(len(rows))] == [f"{path.name}:{n}" for n in (1, 4, 6)]
    assert {rows[i].positive.parts for i in range(3)} == {(Media(tmp_path / "ü 図.jpg"),)}
    assert rows.num_bad == 0


def test_a_json_array_of_rows_is_read_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "READ_AHEAD", 7)  # every entry is cut by many pieces
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([row(id=1), row(query="é"), row(id={"a": [1, "]"]})], indent=2))

    rows = open_rows([DataSource(path)])

    assert [rows[i].row for i in range(len(rows))] == [f"pairs.json:{n}" for n in (1, 2, 3)]
    assert rows[1].query.parts == ("é",)


def test_an_array_that_breaks_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([row(), row()])[:-20])

    with pytest.raises(BadTrainingFile, match="the entry after 1 of its array is not JSON"):
        open_rows([DataSource(path)])


def test_a_line_that_is_too_long_is_skipped_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 500)
    monkeypatch.setattr(lines, "READ_AHEAD", 100)
    source = write(tmp_path / "pairs.jsonl", row(), row(query="x" * 5_000), row(query="last"))

    rows = open_rows([source])

    assert [rows[i].query.parts[0] for i in range(len(rows))] == ["a bus", "last"]
    assert [bad.row for bad in rows.bad] == ["pairs.jsonl:2"]
    assert "longer than" in rows.bad[0].reason


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"[]"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)

    for read in (lambda: open_rows([DataSource(path)]), lambda: [*read_examples(DataSource(path))]):
        with pytest.raises(BadTrainingFile, match="there is no row in it"):
            read()


def test_a_file_that_cannot_be_one_is_refused_with_a_reason(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(BadTrainingFile) as error:
            open_rows([DataSource(path)])
        return str(error.value).removeprefix(f"cannot train on {path}: ")

    (tmp_path / "utf16.jsonl").write_text(json.dumps(row()), encoding="utf-16")
    (tmp_path / "packed.jsonl").write_bytes(b"\x1f\x8b\x08 and so on")
    (tmp_path / "words.parquet").write_text("no parquet")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert refused(tmp_path / "none.jsonl") == "no such file or directory"
    assert refused(tmp_path) == "it is a folder"
    assert refused(tmp_path / "utf16.jsonl") == "it is UTF-16"
    assert refused(tmp_path / "packed.jsonl") == "it is packed"
    assert refused(tmp_path / "pipe.jsonl") == "it is not a regular file"
    assert refused(tmp_path / "words.parquet").startswith("it is not Parquet")
    assert refused(write(tmp_path / "a.jsonl", 1).path).startswith(
        "its only row is not as described: a.jsonl:1: it is a JSON object"
    )
    assert refused(write(tmp_path / "b.jsonl", 1, row(query="")).path).startswith(
        "none of its 2 rows"
    )


def test_one_pair_is_a_file(tmp_path: Path) -> None:
    assert len(open_rows([write(tmp_path / "one.jsonl", row())])) == 1


# ---------------------------------------------------------------- rows by number


def test_good_rows_of_all_files_are_numbered_and_bad_ones_reported(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    one = write(tmp_path / "pairs.jsonl", row(), row(query=""), row(dataset="cars"))
    two = write(tmp_path / "more/pairs.jsonl", row(query="two"))

    rows = open_rows([one, DataSource(two.path, weight=2.0)])

    assert [rows[i].row for i in range(len(rows))] == [
        f"{one.path}:1", f"{one.path}:3", f"{two.path}:1",
    ]  # fmt: skip
    assert rows.names == ("pairs", "cars", "pairs")  # one name and two weights are two sets
    assert rows.weights == (1.0, 1.0, 2.0)
    assert rows.dataset.tolist() == [0, 1, 2]
    assert [str(bad) for bad in rows.bad] == [f"{one.path}:2: 'query' is empty"]
    assert rows.num_bad == 1


def test_keys_are_equal_where_words_and_paths_are(tmp_path: Path) -> None:
    rows = open_rows(
        [
            write(
                tmp_path / "pairs.jsonl",
                row(),
                row(query="A  bus", positive={"images": ["bus.jpg"]}),
                row(query="a bus", positive={"image": "other.jpg"}),
                row(query={"text": "a bus", "image": "bus.jpg"}, positive={"page": "bus.jpg#1"}),
                row(query={"frames": ["f/1.jpg"]}, positive={"frames": ["f/2.jpg"]}),
            )
        ]
    )

    query, positive = rows.keys.T
    assert query[0] == query[1] == query[2] != query[3]
    assert positive[0] == positive[1]
    assert len({*positive.tolist()}) == 4
    assert query[4] != positive[4]


def test_a_limit_counts_good_rows_and_reads_no_further(tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", row(), 1, row(), 2, row())

    rows = open_rows([DataSource(source.path, limit=2)])

    assert (len(rows), rows.num_bad) == (2, 1)


def test_selected_rows_are_those_rows(tmp_path: Path) -> None:
    rows = open_rows([write(tmp_path / "pairs.jsonl", *(row(query=f"q{i}") for i in range(5)))])
    listed = listed_rows([rows[i] for i in range(5)])

    for chosen in (rows.select([3, 1]), listed.select([3, 1])):
        assert [chosen[i].query.text for i in range(len(chosen))] == ["q3", "q1"]
        assert chosen.keys.tolist() == rows.keys[[3, 1]].tolist()


def test_a_file_that_changed_since_is_said_to_have(tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", row(), row())
    rows = open_rows([source])
    source.path.write_text("gone")

    with pytest.raises(BadExample, match=r"pairs.jsonl:2 .* its file has changed"):
        rows[1]


def test_many_rows_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text((json.dumps(row(rationale="Because. " * 20)) + "\n") * 2_000)

    tracemalloc.start()
    rows = open_rows([DataSource(path)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(rows) == 2_000
    assert peak < 2_000 * 100  # bytes; a row itself has 250


def test_examples_at_hand_are_rows_too() -> None:
    examples = toy_examples(4, seed=0)

    rows = listed_rows(examples, {"toy": 0.5})

    assert [rows[i] for i in range(len(rows))] == examples
    assert (rows.names, rows.weights) == (("toy",), (0.5,))


def test_toy_drawings_differ_and_are_the_same_for_a_seed() -> None:
    pixels = {
        one.positive.parts[0].open().pixels.tobytes()  # type: ignore[union-attr]
        for one in toy_examples(100, seed=0)
    }

    assert len(pixels) == 100
    assert toy_examples(8, seed=1) == toy_examples(8, seed=1) != toy_examples(8, seed=2)
    with pytest.raises(ValueError, match="there are 480 drawings, not 481"):
        toy_examples(481, seed=0)
