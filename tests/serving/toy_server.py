"""A server over a folder small enough to hold in the head, for the tests of the API."""

import base64
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conftest import WordEmbedder
from made_files import film, pdf
from PIL import Image
from starlette.testclient import TestClient

from mmsearch.engine import Engine
from mmsearch.serving.app import make_app
from mmsearch.serving.settings import Settings

HERE = "http://127.0.0.1:7700"
SCRIPT = "<script>alert('x')</script>"


def make_files(folder: Path) -> Path:
    """Write a text, a picture, a PDF of two pages and a film; the PDF's name is a script."""
    folder.mkdir()
    (folder / "notes.txt").write_text("The pump of the museum.\n")
    picture("red").save(folder / "red.png")
    pdf(folder / f"chart {SCRIPT.replace('/', '_')}.pdf", f"chart {SCRIPT} of dogs", "a cat")
    film(folder / "blue.mp4", [(2.0, (20, 20, 200))])
    return folder


def make_index(folder: Path, db: Path) -> Path:
    """Index the files of a folder."""
    with Engine.open(db, create=True, model=WordEmbedder()) as engine:
        engine.index([folder], ocr=False)
    return db


@contextlib.contextmanager
def server(db: Path, **settings: Any) -> Iterator[TestClient]:
    """Serve an index within this process."""
    given: dict[str, Any] = {"dbs": (db,), "model": WordEmbedder()}
    made = Settings(**(given | settings))
    with TestClient(make_app(made), base_url=HERE) as client:
        yield client


def picture(colour: str, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a picture of one colour."""
    return Image.new("RGB", size, colour)


def png(colour: str = "red", size: tuple[int, int] = (64, 48)) -> bytes:
    """Return a PNG of one colour."""
    out = io.BytesIO()
    picture(colour, size).save(out, "PNG")
    return out.getvalue()


def data_uri(content: bytes, media_type: str = "") -> str:
    """Return bytes as a ``data:`` URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
