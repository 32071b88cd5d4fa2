"""Make the sample corpus again: ``python sample_corpus/making``.

In:  the words in ``pages/`` and ``scan_text.py``, fixed seeds, and photographs that
     installed packages carry (``pip install -e '.[corpus]'``).
Out: ``sample_corpus/files`` (documents) and ``sample_corpus/queries`` (query pictures).
     ``files/notes``, ``queries.jsonl`` and ``SOURCES.md`` are written by hand.

The built files are committed, so that the demo needs none of this. With the same
versions of the libraries a rebuild gives the same bytes.
"""

from charts import make_charts
from diagrams import make_diagrams
from documents import make_documents
from films import make_films
from materials import FILES, QUERIES
from photos import make_photos
from query_media import make_query_media
from screenshots import make_screenshots
from signs import make_signs

STEPS = [
    make_documents,
    make_charts,
    make_diagrams,
    make_screenshots,
    make_signs,
    make_photos,
    make_films,
    make_query_media,
]


def main() -> None:
    """Make everything and say how large it is."""
    QUERIES.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        step()
        print(step.__name__.replace("_", " "))
    made = [path for folder in (FILES, QUERIES) for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in made)
    print(f"{len(made)} files, {size / 1e6:.1f} MB")


main()
