"""The examples of the library's documentation do what they say.

Those of docs/library.md are run in order, those in docstrings one object at a time, all of
them where docs/ holds two reports and a picture, and q.png is a picture like that one.
"""

import doctest
from pathlib import Path
from typing import Any

import made_files
import pytest
from PIL import Image

import mmsearch
from mmsearch import Engine, Item, Query, values

LIBRARY = Path(__file__).parent.parent / "docs" / "library.md"
ABOUT_ENGINE = [Engine, Engine.query, Engine.similar, Engine.aquery, Engine.context]
EXAMPLES = [*ABOUT_ENGINE, Engine.embed_queries, Item, Query]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "docs").mkdir()
    made_files.pdf(
        home / "docs" / "report.pdf",
        "Rainfall by month. January was dry and March was wet.",
        "The pump of the waterworks was replaced in June at a cost of 1,200 euros.",
        "Opening hours of the museum: Tuesday to Sunday, ten to six.",
    )
    made_files.pdf(
        home / "docs" / "old-report.pdf",
        "Rainfall of the year before, in millimetres.",
        "Two bridges were painted.",
        "Minutes of the annual meeting.",
    )
    Image.new("RGB", (120, 80), (200, 30, 30)).save(home / "docs" / "red.png")
    Image.new("RGB", (120, 80), (190, 40, 30)).save(home / "q.png")
    with Engine.open(home / "db", create=True) as engine:
        engine.index([home / "docs"], ocr=False)
    return home


def failures_of(test: doctest.DocTest) -> str:
    """Run the examples and return what they should have printed and did not."""
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    return "".join(told)


def test_the_page_about_the_library(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    page = doctest.DocTestParser().get_doctest(
        LIBRARY.read_text().replace("```", ""), {}, "library.md", str(LIBRARY), 0
    )

    assert len(page.examples) > 20
    assert failures_of(page) == ""


@pytest.mark.parametrize("described", EXAMPLES, ids=lambda one: one.__qualname__)
def test_the_examples_in(described: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    names = {**vars(values), **{name: getattr(mmsearch, name) for name in mmsearch.__all__}}
    with Engine.open("db") as engine:
        [test, *_] = doctest.DocTestFinder(recurse=False).find(
            described, globs={**names, "Path": Path, "engine": engine}
        )

        assert test.examples
        assert failures_of(test) == ""
