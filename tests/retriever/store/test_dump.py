"""An index that goes out as Parquet and comes back is the same index."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from full_disk import largest_file
from toy_store import SPACE, a_document, a_row, pages, put, unit

from mmsearch.errors import StoreDamaged, StoreError, StoreLocked, StoreNotFound
from mmsearch.retriever.store.store import Store
from mmsearch.upkeep import export_index, import_index
from mmsearch.values import Locator, Status, TextOrigin, View


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two PDFs, one of them changed since, a note without thumbnail, a file that failed."""
    dice = np.random.default_rng(3)
    store = Store.create(tmp_path / "db", SPACE)
    with store.writing() as writer:
        old, other = a_document("/a.pdf"), a_document("/naïve café.pdf")
        writer.commit_all(  # one pack, of which a part is replaced
            [(old, pages("/a.pdf", ["old words"])), (other, pages(other.path, ["museum"]))]
        )
        put(writer, "/a.pdf", ["pump one", "pump two"])
        rows = [
            a_row(
                "/note.md",
                Locator(char_start=10 * number, char_end=10 * number + 9),
                text=f"note {number}",
                vectors={View.TEXT: unit(*dice.standard_normal(4))},
            )
            for number in range(20)
        ]
        writer.commit(a_document("/note.md"), rows)
        writer.commit(a_document("/bad.pdf", status=Status.FAILED, error="torn"), [])
    return store


@pytest.fixture
def out(store: Store, tmp_path: Path) -> Path:
    export_index(store.path, tmp_path / "out")
    return tmp_path / "out"


def said(out: Path, **changed: Any) -> None:
    """Let an export say something else of itself."""
    path = out / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def rewritten(out: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a file of an export, and its hash with them."""
    import hashlib

    table = change(pq.read_table(out / name))
    pq.write_table(table, out / name)
    content = (out / name).read_bytes()
    files = json.loads((out / "index.json").read_text())["files"]
    files[name] = {
        "rows": table.num_rows,
        "bytes": len(content),
        "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest(),
    }
    said(out, files=files)


def held(store: Store) -> list[Any]:
    """Everything a store says of what it holds."""
    documents = store.documents()
    return [
        documents,
        [
            (
                segment,
                {view: one.tobytes() for view, one in store.vectors(segment.segment_id).items()},
                store.thumbnail(segment.segment_id),
            )
            for document in documents
            for segment in store.segments_of(document.path)
        ],
        [store.nearest(view, unit(1, 2, 3, 4), k=50) for view in View],
        [store.matching(words, k=50) for words in ("pump", "note", "museum", "words")],
    ]


def test_what_comes_back_is_what_went_out_bit_by_bit(
    store: Store, out: Path, tmp_path: Path
) -> None:
    dump = import_index(out, tmp_path / "copy")

    copy = Store.open(tmp_path / "copy")
    assert held(copy) == held(store)
    assert copy.space == store.space
    assert copy.check() == []
    assert (dump.num_documents, dump.num_segments, dump.num_thumbnails) == (4, 23, 3)
    with copy.writing() as writer:
        put(writer, "/later.pdf", ["three"])
    assert len(Store.open(copy.path).documents()) == 5


def test_an_export_is_parquet_that_others_can_read(out: Path) -> None:
    names = sorted(path.name for path in out.iterdir())
    segments = pq.read_table(out / "segments-00000.parquet")

    assert names == [
        "documents.parquet",
        "index.json",
        "segments-00000.parquet",
        "thumbnails-00000.parquet",
    ]
    assert segments.num_rows == 23, "what was replaced does not go out"
    assert set(segments["path"].to_pylist()) == {"/a.pdf", "/naïve café.pdf", "/note.md"}
    thumbnails = pq.read_table(out / "thumbnails-00000.parquet")
    assert b"old words" not in b"".join(thumbnails["bytes"].to_pylist())
    assert segments.schema.field("text_vector").type == pa.list_(pa.float16(), 4)


def test_many_rows_are_spread_over_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.retriever.store.dump.ROWS_A_FILE", 1)
    monkeypatch.setattr("mmsearch.retriever.store.dump.BYTES_A_FILE", 1)

    dump = export_index(store.path, tmp_path / "out")
    import_index(tmp_path / "out", tmp_path / "copy")

    assert len([name for name in dump.files if name.startswith("segments-")]) > 1
    assert len([name for name in dump.files if name.startswith("thumbnails-")]) > 1
    assert held(Store.open(tmp_path / "copy")) == held(store)


def test_an_empty_index_goes_out_and_comes_back(tmp_path: Path) -> None:
    Store.create(tmp_path / "db", SPACE)

    export_index(tmp_path / "db", tmp_path / "out")
    import_index(tmp_path / "out", tmp_path / "copy")

    assert Store.open(tmp_path / "copy").documents() == []


def test_nothing_that_is_there_is_written_over(store: Store, out: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")

    for path in (tmp_path / "mine", store.path, out):
        with pytest.raises(StoreError, match="holds something"):
            export_index(store.path, path)
        with pytest.raises(StoreError, match="holds something"):
            import_index(out, path)

    (tmp_path / "empty").mkdir()
    import_index(out, tmp_path / "empty")
    assert held(Store.open(tmp_path / "empty")) == held(store)


def test_an_export_waits_for_nobody_and_nobody_writes_meanwhile(
    store: Store, tmp_path: Path
) -> None:
    with store.writing(), pytest.raises(StoreLocked):
        export_index(store.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_is_not_taken_for_an_index(out: Path) -> None:
    with pytest.raises(StoreDamaged, match="export") as refused:
        Store.open(out)

    assert refused.value.hint == f"mmsearch import {out} --db DIR"


def one_byte(out: Path) -> None:
    path = out / "segments-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(out: Path) -> None:
    path = out / "thumbnails-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def a_vector_of_length_two(table: pa.Table) -> pa.Table:
    dim = SPACE.dim
    vectors = pa.array([[2.0] + [0.0] * (dim - 1)] * len(table), pa.list_(pa.float16(), dim))
    return table.set_column(table.schema.get_field_index("text_vector"), "text_vector", vectors)


def renamed(table: pa.Table) -> pa.Table:
    names = [name.replace("about", "title") for name in table.column_names]
    return table.rename_columns(names)


def of_a_pack_elsewhere(table: pa.Table) -> pa.Table:
    packs = pa.array(["../../x" for _ in range(len(table))])
    return table.set_column(0, "pack", packs)


def documents_left_out(out: Path) -> None:
    def without_notes(table: pa.Table) -> pa.Table:
        return table.filter(pc.not_equal(table["path"], "/note.md"))

    rewritten(out, "documents.parquet", without_notes)
    said(out, num_documents=3)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte turned": (one_byte, "not as it was written"),
    "a file cut short": (cut_short, "not as it was written"),
    "a file missing": (lambda out: (out / "documents.parquet").unlink(), "is missing"),
    "no index.json": (lambda out: (out / "index.json").unlink(), "no such file"),
    "not JSON": (lambda out: (out / "index.json").write_text("{"), "not that of an export"),
    "another format": (lambda out: said(out, format="x"), "not that of an export"),
    "a newer schema": (lambda out: said(out, schema_version=99), "schema 99"),
    "a file elsewhere": (lambda out: said(out, files={"../x": {}}), "not that of an export"),
    "fewer rows": (
        lambda out: rewritten(out, "segments-00000.parquet", lambda rows: rows.slice(1)),
        "22 segments, not 23",
    ),
    "another's rows": (
        documents_left_out,
        "does not name",
    ),
    "a crooked vector": (
        lambda out: rewritten(out, "segments-00000.parquet", a_vector_of_length_two),
        "unit length",
    ),
    "another column": (
        lambda out: rewritten(out, "segments-00000.parquet", renamed),
        "other columns",
    ),
    "a pack elsewhere": (
        lambda out: rewritten(out, "thumbnails-00000.parquet", of_a_pack_elsewhere),
        "cannot name",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_an_export_that_is_not_whole_makes_no_index(out: Path, tmp_path: Path, what: str) -> None:
    spoil, reason = BAD[what]
    spoil(out)

    with pytest.raises(StoreDamaged, match=reason):
        import_index(out, tmp_path / "copy")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "out"]


IMPORT = """
import os, signal, sys
import lancedb, pyarrow.parquet
from mmsearch.upkeep import import_index

def look(frame, event, _):
    if event == "call" and frame.f_code.co_name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(look)
import_index(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("step", ["_write_thumbnails", "check"])
def test_an_import_that_dies_leaves_no_index_and_can_be_repeated(
    store: Store, out: Path, tmp_path: Path, step: str
) -> None:
    words = [sys.executable, "-c", IMPORT, str(out), str(tmp_path / "copy"), step]
    assert subprocess.run(words).returncode == -9

    with pytest.raises(StoreNotFound):
        Store.open(tmp_path / "copy")
    import_index(out, tmp_path / "copy")

    assert held(Store.open(tmp_path / "copy")) == held(store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "db", "out"]


def test_a_full_disk_leaves_nothing_behind(store: Store, out: Path, tmp_path: Path) -> None:
    with largest_file(1_000):
        with pytest.raises(StoreError, match="cannot write to"):
            export_index(store.path, tmp_path / "more")
        with pytest.raises(StoreError, match="cannot"):
            import_index(out, tmp_path / "copy")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_index_that_may_only_be_read_goes_out(store: Store, tmp_path: Path) -> None:
    store.path.chmod(0o500)
    try:
        export_index(store.path, tmp_path / "out")
    finally:
        store.path.chmod(0o700)

    import_index(tmp_path / "out", tmp_path / "copy")
    assert held(Store.open(tmp_path / "copy")) == held(store)


def test_origins_come_back_as_they_were(store: Store, out: Path, tmp_path: Path) -> None:
    import_index(out, tmp_path / "copy")

    [page, _] = Store.open(tmp_path / "copy").segments_of("/a.pdf")

    assert page.text_origin is TextOrigin.LAYER
