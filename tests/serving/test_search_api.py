"""Searching over HTTP: everything the command line can ask, with the same hits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import WordEmbedder

from mmsearch.engine import Engine
from mmsearch.values import Kind, Query

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from starlette.testclient import TestClient
from toy_server import SCRIPT, data_uri, make_files, make_index, png, server

from mmsearch.serving.search import SearchBody


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("search") / "files")


@pytest.fixture(scope="module")
def db(files: Path) -> Path:
    return make_index(files, files.parent / "db")


@pytest.fixture(scope="module")
def client(db: Path, files: Path) -> Iterator[TestClient]:
    with server(db, roots=(files,)) as client:
        yield client


def search(client: TestClient, **asked: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/search", json={"ocr": False} | asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["hits"])


def refused(client: TestClient, status: int, **asked: Any) -> str:
    answer = client.post("/v1/search", json={"ocr": False} | asked)
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def names(hits: list[dict[str, Any]]) -> list[str]:
    return [Path(hit["path"]).name for hit in hits]


# ---------------------------------------------------------------- what may be asked


def test_hits_are_those_of_the_engine(client: TestClient, db: Path) -> None:
    asked = Query("pump cat", kinds=["pdf", "text"])
    with Engine.open(db, model=WordEmbedder(), backend="exact") as engine:  # as a server has it
        wanted = [hit.as_dict() for hit in engine.query(asked, k=3)]

    said = {"query": asked.text, "kinds": asked.kinds, "k": 3}
    told = client.post("/v1/search", json=said).json()

    assert len(told["hits"]) == len(wanted) == 3
    for hit, engines in zip(told["hits"], wanted, strict=True):
        assert hit["score"] == pytest.approx(engines["score"], abs=1e-5)
        assert (hit["id"], hit["rank"]) == (engines["id"], engines["rank"])
        assert set(engines) <= set(hit)
    assert told["space"] == WordEmbedder().space.id
    assert told["took_ms"] > 0


def test_everything_that_narrows_a_search_narrows_it_here(client: TestClient) -> None:
    assert names(search(client, query="cat", kinds=["pdf"], k=1))[0].endswith(".pdf")
    assert search(client, query="cat", where="page = 2")[0]["page"] == 2
    assert names(search(client, query="cat", path="*.txt")) == ["notes.txt"]
    assert search(client, query="cat", min_score=1.0) == []
    assert len(search(client, query="cat", k=2)) == 2
    assert len(search(client, query="cat", kinds=["pdf"])) == 2
    assert len(search(client, query="cat", kinds=["pdf"], group=True)) == 1
    assert len(search(client, query="cat", kinds=[])) == 0


def test_what_is_not_wanted_ranks_lower(client: TestClient) -> None:
    plain = {hit["id"]: hit["score"] for hit in search(client, query="pump dog")}
    without = {
        hit["id"]: hit["score"] for hit in search(client, query="pump dog", negative=["dog"])
    }

    assert any(without[one] < plain[one] for one in plain if one in without)


@pytest.mark.parametrize("way", ["images", "parts", "form", "path"])
def test_a_picture_may_be_asked_with_in_every_way(
    client: TestClient, files: Path, way: str
) -> None:
    if way == "form":
        answer = client.post(
            "/v1/search",
            data={"query": "", "k": "1", "ocr": "false", "kinds": "image,pdf", "where": ""},
            files=[("images", ("a.exe", png(), "text/html"))],
        )
        assert answer.status_code == 200, answer.text
        hits = answer.json()["hits"]
    else:
        ways: dict[str, dict[str, Any]] = {
            "images": {"images": [data_uri(png(), "image/png")]},
            "parts": {"query": [{"type": "image_url", "image_url": {"url": data_uri(png())}}]},
            "path": {"images": [str(files / "red.png")]},
        }
        hits = search(client, **ways[way])

    assert names(hits)[0] == "red.png"


def test_films_and_pages_may_be_asked_with(client: TestClient, files: Path) -> None:
    [pdf] = files.glob("*.pdf")

    film = search(client, video=data_uri((files / "blue.mp4").read_bytes()), k=1)
    page = search(client, page=data_uri(pdf.read_bytes()) + "#2")
    by_path = search(client, page=f"{pdf}#2")
    form = client.post(
        "/v1/search",
        data={"page_number": "2", "ocr": "false"},
        files={"page": ("x", pdf.read_bytes())},
    )

    assert names(film) == ["blue.mp4"]
    for hits in (page, by_path, form.json()["hits"]):  # both pages look alike: words tell
        assert [hit["page"] for hit in hits if hit["parts"].get("words")] == [2]


def test_words_and_a_picture_are_asked_together(client: TestClient) -> None:
    parts = ["the pump", {"type": "image_url", "image_url": {"url": data_uri(png())}}]

    assert set(names(search(client, query=parts, k=2))) <= {"red.png", "notes.txt", "blue.mp4"}
    assert search(client, query=parts)[0]["parts"].keys() >= {"visual", "words"}


def test_similar_leaves_the_segment_itself_out(client: TestClient) -> None:
    [first, *_] = search(client, query="cat", kinds=["pdf"])

    answer = client.post("/v1/similar", json={"segment": first["id"], "k": 5})

    assert answer.status_code == 200
    assert first["id"] not in [hit["id"] for hit in answer.json()["hits"]]
    assert client.post("/v1/similar", json={"segment": "0" * 16}).status_code == 404


def test_a_prompt_is_filled_with_text_pictures_and_citations(client: TestClient) -> None:
    asked = {"query": "chart dogs", "k": 4, "image_pixels": 10_000}
    parts = client.post("/v1/context", json=asked).json()["parts"]
    none = client.post("/v1/context", json=asked | {"max_pixels": 0}).json()["parts"]

    assert [part["number"] for part in parts] == list(range(1, len(parts) + 1))
    assert any(part.get("image", "").startswith("data:image/webp;base64,") for part in parts)
    assert all(part["citation"] for part in parts)
    assert not any("image" in part for part in none)


# ---------------------------------------------------------------- what is told


def test_a_hit_says_where_its_pictures_are(client: TestClient) -> None:
    for hit in search(client, query="cat"):
        for name in ("thumbnail", "picture", "file"):
            if hit[name] is None:
                assert hit["kind"] == "text"
            else:
                assert client.get(hit[name]).status_code == 200, hit[name]
        assert client.get(f"/v1/documents/{hit['document']}").json()["path"] == hit["path"]


def test_the_words_of_a_document_stay_words(client: TestClient) -> None:
    """A page and a file name that say <script> come as JSON, and as nothing a browser runs."""
    answer = client.post("/v1/search", json={"query": "chart dogs", "kinds": ["pdf"], "k": 1})
    [hit] = answer.json()["hits"]

    assert SCRIPT in hit["text"]
    assert "<script>" in hit["path"]
    assert answer.headers["content-type"] == "application/json"
    disposition = client.get(hit["file"]).headers["content-disposition"]
    assert "<" not in disposition
    assert "\\" not in disposition.partition("filename*")[0]


def test_the_kinds_are_those_there_are() -> None:
    annotation = SearchBody.model_fields["kinds"].annotation
    [literal, _] = get_args(get_args(annotation)[0])[0], None

    assert set(get_args(literal)) == set(map(str, Kind))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"query": " "}, 400),
        ({"query": []}, 400),
        ({"query": "cat", "where": "drop table"}, 400),
        ({"query": "cat", "where": "page = (select 1)"}, 400),
        ({"query": "cat", "where": "'" * 4_000}, 400),
        ({"query": "cat", "kinds": ["exe"]}, 422),
        ({"query": "cat", "k": 0}, 422),
        ({"query": "cat", "k": 10**9}, 422),
        ({"query": "cat", "path": "*" * 4_001}, 422),
        ({"query": "cat", "negative": ["x"] * 17}, 422),
        ({"query": "cat", "index": "nowhere"}, 404),
        ({"images": ["https://example.org/a.png"]}, 403),
        ({"images": ["/etc/passwd"]}, 403),
        ({"images": ["red.png"]}, 403),
        ({"images": ["\0"]}, 403),
        ({"video": "/dev/zero"}, 403),
        ({"page": "/etc/passwd#1"}, 403),
        ({"page": "/etc/passwd"}, 400),
        ({"page": "a.pdf#\u0661"}, 400),
        ({"page": "a.pdf#" + "9" * 5_000}, 400),
        ({"images": [data_uri(b"#EXTM3U\n")]}, 400),
        ({"images": [data_uri(png())] * 17}, 413),
        ({"query": "x" * 200_001}, 413),
        ({"query": ["x"] * 65}, 413),
        ({"query": ["x" * 100_000] * 3}, 413),
    ],
)
def test_what_cannot_be_asked_is_refused(
    client: TestClient, asked: dict[str, Any], status: int
) -> None:
    assert refused(client, status, **asked)


def test_a_picture_that_lies_about_its_size_is_refused_by_a_worker(
    client: TestClient, tmp_path: Path
) -> None:
    from made_files import png_bomb

    bomb = png_bomb(tmp_path / "bomb.png", 40_000).read_bytes()

    assert refused(client, 400, images=[data_uri(bomb)]) == (
        "images[0]: its picture is too large to decode"
    )


def test_nothing_of_this_machine_is_told_of_an_upload(client: TestClient) -> None:
    said = refused(client, 400, images=[data_uri(png()[:60] + b"\xff" * 20)])

    assert said.startswith("images[0]: ")
    assert "/" not in said
    assert "Error" not in said


def test_a_form_takes_no_other_files(client: TestClient) -> None:
    several = [("images", ("a", png()))] * 17
    other = client.post("/v1/search", files={"evil": ("a", b"x")})

    assert other.status_code == 400
    assert client.post("/v1/search", files=several).status_code in (400, 413)


def test_two_films_are_one_too_many(client: TestClient, files: Path) -> None:
    film = data_uri((files / "blue.mp4").read_bytes())
    part = {"type": "video_url", "video_url": {"url": film}}

    assert "one film" in refused(client, 400, query=[part], video=film)


def test_uploads_leave_nothing_behind(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    search(client, images=[data_uri(png())])
    refused(client, 400, images=[data_uri(png()), data_uri(b"nothing")])

    assert list(tmp_path.iterdir()) == []


def test_a_query_of_the_api_can_say_all_that_a_query_can() -> None:
    theirs = {"query" if name == "text" else name for name in Query.__slots__}

    assert theirs <= set(SearchBody.model_fields)
