"""The query file: read exactly as described, and refused with the line at fault."""

import json
from pathlib import Path

import pytest

from mmsearch.errors import BadQueryFile, UnreadableFile
from mmsearch.retriever.evaluation.queryfile import KnownQuery, Place, read_queries

LINE = {"id": "q1", "kind": "text", "text": "a chart", "relevant": []}


def written(folder: Path, *lines: object) -> Path:
    path = folder / "queries.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def test_every_field_is_read_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    line = {
        "id": "q7",
        "kind": "image+text",
        "text": "like this, at night",
        "images": ["pictures/a.png", "../b.png"],
        "video": "films/c.mp4",
        "page": "docs/d.pdf#12",
        "relevant": [
            {"path": "docs/d.pdf", "page": 3},
            {"path": "films/c.mp4", "start": 1, "end": 2.5},
            {"path": "pictures/a.png"},
        ],
        "note": "hard",
    }

    [query] = read_queries(written(tmp_path, line))

    root = tmp_path.as_posix()
    assert query == KnownQuery(
        id="q7",
        kind="image+text",
        text="like this, at night",
        images=(tmp_path / "pictures/a.png", tmp_path.parent / "b.png"),
        video=tmp_path / "films/c.mp4",
        page=f"{root}/docs/d.pdf#12",
        relevant=(
            Place(path=f"{root}/docs/d.pdf", page=3),
            Place(path=f"{root}/films/c.mp4", start=1, end=2.5),
            Place(path=f"{root}/pictures/a.png"),
        ),
        note="hard",
    )
    assert query.page_place == Place(path=f"{root}/docs/d.pdf", page=12)
    assert query.query.page == f"{root}/docs/d.pdf#12"


def test_queries_keep_their_order_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, LINE, "", "  ", LINE | {"id": "q0"})

    assert [query.id for query in read_queries(path)] == ["q1", "q0"]


def test_a_place_named_twice_is_one_place(tmp_path: Path) -> None:
    places = [{"path": "a.pdf", "page": 1}, {"path": "./a.pdf", "page": 1}]

    [query] = read_queries(written(tmp_path, LINE | {"relevant": places}))

    assert len(query.relevant) == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "Expecting"),
        ("[]", "JSON object"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "Expecting"),
        ({"kind": "text", "text": "a", "relevant": []}, "'id' is missing"),
        ({"id": "q", "text": "a", "relevant": []}, "'kind' is missing"),
        ({"id": "q", "kind": "text", "text": "a"}, "'relevant' is missing"),
        (LINE | {"txt": "a"}, "no field 'txt'"),
        (LINE | {"id": 7}, "'id' is a text"),
        (LINE | {"text": ""}, "'text' is a text"),
        (LINE | {"text": "  "}, "asks nothing"),
        ({"id": "q", "kind": "text", "relevant": []}, "asks nothing"),
        (LINE | {"images": "a.png"}, "'images' is a list"),
        (LINE | {"page": "a.pdf"}, "report.pdf#3"),
        (LINE | {"page": "a.pdf#0"}, "report.pdf#3"),
        (LINE | {"relevant": ["a.pdf"]}, "JSON object"),
        (LINE | {"relevant": [{"page": 1}]}, "needs 'path'"),
        (LINE | {"relevant": [{"path": "a.pdf", "page": 0}]}, "counts from 1"),
        (LINE | {"relevant": [{"path": "a.pdf", "page": True}]}, "counts from 1"),
        (LINE | {"relevant": [{"path": "a.mp4", "start": 1}]}, "both 'start' and 'end'"),
        (LINE | {"relevant": [{"path": "a.mp4", "start": 2, "end": 1}]}, "a span is seconds"),
        (LINE | {"relevant": [{"path": "a", "page": 1, "start": 0, "end": 1}]}, "not both"),
        (LINE, "that of line 1"),
    ],
)
def test_a_line_that_is_not_as_described_is_named(tmp_path: Path, line: object, named: str) -> None:
    path = written(tmp_path, LINE, "", line)

    with pytest.raises(BadQueryFile) as refused:
        read_queries(path)

    assert refused.value.line == 3
    assert named in str(refused.value)


def test_a_file_without_queries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadQueryFile, match="no query"):
        read_queries(written(tmp_path, ""))
    with pytest.raises(UnreadableFile):
        read_queries(tmp_path / "nowhere.jsonl")
