"""Vector indexes: they say where to look, and never what is true."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_store import SPACE, a_document, a_row

from mmsearch.retriever.store import ann, indexes
from mmsearch.retriever.store.store import Row, Store, Writer
from mmsearch.retriever.store.tables import Table, open_tables
from mmsearch.values import Kind, Locator, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors

DIM = 64
CLUSTERS = 40
LOW = 500  # rows from which on these tests want an index
QUESTIONS = 25
ALL_BUT_ROUNDING = 0.99  # of the tenth place, where two cosines are the same in half precision


def clustered(num_rows: int, seed: int) -> "tuple[Vectors, list[int]]":
    """Unit vectors ``[n, DIM]`` around a few centres, and the centre of each."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM))
    rng = np.random.default_rng(seed)
    which = rng.integers(0, CLUSTERS, num_rows)
    vectors = centres[which] + 0.6 * rng.standard_normal((num_rows, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), which.tolist()


def a_batch(name: str, num_rows: int, seed: int) -> list[Row]:
    """Segments whose page says their cluster; every third has no words, every fifth no pixels."""
    vectors, which = clustered(num_rows, seed)
    rows = []
    for number, (vector, cluster) in enumerate(zip(vectors, which, strict=True)):
        views = {View.VISUAL: vector, View.TEXT: np.roll(vector, 1)}
        if number % 3 == 0:
            del views[View.TEXT]
        elif number % 5 == 0:
            del views[View.VISUAL]
        place = Locator(page=cluster + 1, char_start=number, char_end=number + 1)
        rows.append(a_row(name, place, text="word " * (number % 200), vectors=views))
    return rows


@dataclass
class World:
    store: Store
    live: dict[str, list[Row]]

    @property
    def table(self) -> Table:
        return open_tables(self.store.home, DIM)[1]

    def put(self, writer: Writer, name: str, num_rows: int, *, seed: int) -> None:
        self.live[name] = a_batch(name, num_rows, seed)
        writer.commit(a_document(name), self.live[name])

    def recall(self, view: View, where: str | None = None, fits: str = "True") -> float:
        """Recall@10 against exact arithmetic, the mean of some questions; checks the scores."""
        rows = [
            row
            for rows in self.live.values()
            for row in rows
            if view in row.vectors and eval(fits, {"row": row, "Kind": Kind})
        ]
        ids = [row.segment_id for row in rows]
        kept = np.array([row.vectors[view] for row in rows], dtype=np.float16).astype(np.float32)
        snapshot = self.store.snapshot()
        found_again = []
        for question in clustered(QUESTIONS, seed=99)[0]:
            cosines = kept @ question / np.linalg.norm(kept, axis=1)
            best = {ids[n]: cosines[n] for n in np.argsort(-cosines)[:10]}
            found = snapshot.nearest(view, question, k=10, where=where)
            true = dict(zip(ids, cosines, strict=True))
            assert [one.score for one in found] == pytest.approx(
                [true[one.segment_id] for one in found], abs=1e-3
            )
            assert len(found) == len(best)
            found_again.append(len({one.segment_id for one in found} & set(best)) / len(best))
        return float(np.mean(found_again))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An index over rows of which some died since, and new ones that it does not cover."""
    store = Store.create(tmp_path_factory.mktemp("ann") / "db", replace(SPACE, dim=DIM))
    world = World(store, {})
    with store.writing() as writer:
        world.put(writer, "/replaced.pdf", 300, seed=1)
        world.put(writer, "/kept.pdf", 1_200, seed=2)
        assert ann.refresh(world.table, exact_rows=LOW) == ["visual_vector", "text_vector"]
        world.put(writer, "/replaced.pdf", 150, seed=3)
        world.put(writer, "/new.pdf", 150, seed=4)
        shutil.copytree(store.path, store.path.parent / "copy")
    shutil.rmtree(store.path)  # and with it, what the writer tidied on its way out
    shutil.copytree(store.path.parent / "copy", store.path)
    return World(Store.open(store.path), world.live)


FILTERS = {
    None: "True",
    "num_words < 100": "len(row.text.split()) < 100",  # half
    "num_words < 10": "len(row.text.split()) < 10",  # 5 %
    "num_words = 7": "len(row.text.split()) == 7",  # 0.5 %
    "page = 3": "row.locator.page == 3",  # one cluster, far from most questions
    "page <= 20": "row.locator.page <= 20",
    "num_words > 5000": "False",
}


@pytest.mark.parametrize("few_rows", [0, ann.FEW_ROWS], ids=["probed", "compared if few"])
@pytest.mark.parametrize("where", list(FILTERS))
def test_what_is_nearest_is_found_whatever_fits(
    made: World, where: str | None, few_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "FEW_ROWS", few_rows)
    fresh = World(Store.open(made.store.path), made.live)  # remembers no earlier choice
    if where == "num_words > 5000":
        assert fresh.store.nearest(View.TEXT, clustered(1, 5)[0][0], k=10, where=where) == []
        return
    for view in View:
        assert fresh.recall(view, where, FILTERS[where]) >= 0.98


@pytest.fixture
def copy(made: World, tmp_path: Path) -> World:
    shutil.copytree(made.store.path, tmp_path / "db")
    return World(Store.open(tmp_path / "db"), dict(made.live))


def test_new_rows_are_added_to_the_index_and_many_of_them_train_it_anew(copy: World) -> None:
    table, column = copy.table, "visual_vector"
    before = ann.trained(table, column)
    assert before is not None

    table.tidy()
    assert ann.refresh(table, exact_rows=LOW) == []
    after = ann.trained(table, column)
    assert after is not None
    assert after.name == before.name
    assert copy.recall(View.VISUAL) >= 0.98

    with copy.store.writing() as writer:
        copy.put(writer, "/more.pdf", 5_500, seed=6)
    assert ann.refresh(copy.table, exact_rows=LOW) == ["visual_vector", "text_vector"]
    anew = ann.trained(copy.table, column)
    assert anew is not None
    assert anew.num_rows > ann.RETRAIN_FACTOR * before.num_rows
    assert [index.name for index in copy.table.indexes() if index.column == column] == [anew.name]
    assert copy.recall(View.VISUAL) >= 0.98


def test_an_index_goes_when_most_of_its_rows_have_gone(copy: World) -> None:
    with copy.store.writing() as writer:
        writer.remove(["/kept.pdf", "/replaced.pdf"])
    del copy.live["/kept.pdf"], copy.live["/replaced.pdf"]

    assert ann.refresh(copy.table, exact_rows=LOW) == []
    assert ann.trained(copy.table, "text_vector") is None
    assert copy.recall(View.TEXT) >= ALL_BUT_ROUNDING


def test_few_rows_get_no_index(tmp_path: Path) -> None:
    world = World(Store.create(tmp_path / "db", replace(SPACE, dim=DIM)), {})
    with world.store.writing() as writer:
        world.put(writer, "/few.pdf", 300, seed=1)
        writer.refresh()

    assert ann.refresh(world.table, exact_rows=LOW) == []
    assert ann.trained(world.table, "visual_vector") is None


@pytest.mark.parametrize("harm", ["gone", "cut", "zeros"])
def test_a_damaged_index_costs_time_and_nothing_else(copy: World, harm: str) -> None:
    files = [
        file
        for folder in (copy.table.path / "_indices").iterdir()
        for file in folder.iterdir()
        if (folder / "auxiliary.idx").exists()
    ]
    assert files
    for file in files:
        if harm == "gone":
            file.unlink()
        else:
            size = file.stat().st_size
            file.write_bytes(file.read_bytes()[: size // 2] if harm == "cut" else bytes(size))

    assert copy.recall(View.VISUAL) >= ALL_BUT_ROUNDING
    assert copy.recall(View.TEXT, "page <= 20", FILTERS["page <= 20"]) >= ALL_BUT_ROUNDING

    assert len(indexes.damaged(copy.table)) == 2
    indexes.mend(copy.table)
    copy.table.tidy()
    ann.refresh(copy.table, exact_rows=LOW)
    assert indexes.damaged(copy.table) == []
    assert copy.recall(View.VISUAL) >= 0.98


def test_an_index_is_asked_harder_under_a_filter_and_for_fewer_dimensions() -> None:
    index = ann.Trained("visual_vector_of_1000000", 1_000_000, 1)

    plain = ann.probe(index, limit=10, dim=384, filtered=False)
    assert plain == ann.Probe(cells=125, refine=30)
    assert ann.probe(index, limit=10, dim=384, filtered=True) == ann.Probe(cells=1_000, refine=45)
    assert ann.probe(index, limit=10, dim=96, filtered=False).refine == 4 * plain.refine
    assert ann.probe(index, limit=1_000, dim=768, filtered=True).refine == ann.LEAST_REFINE
    small = ann.Trained("visual_vector_of_400", 400, 1)
    assert ann.probe(small, limit=10, dim=384, filtered=False).cells == 20
