"""Looking at an index: what it knows is given out, and nothing else of this machine is."""

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from made_files import film
from starlette.testclient import TestClient
from toy_server import SCRIPT, make_files, make_index, png, server

from mmsearch.serving import originals
from mmsearch.serving.library import document_id
from mmsearch.serving.originals import disposition, media_type
from mmsearch.values import Document, Kind, Status


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("media") / "files")


@pytest.fixture(scope="module")
def client(files: Path) -> Iterator[TestClient]:
    (files / "broken.png").write_bytes(png()[:50] + b"\xff" * 30)
    with server(make_index(files, files.parent / "db")) as client:
        yield client


def segment_of(client: TestClient, file: Path) -> dict[str, Any]:
    told = client.get(f"/v1/documents/{document_id(str(file))}").json()
    return dict(told["segments"][0])


def file_of(client: TestClient, file: Path, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(segment_of(client, file)["file"], headers=named)


# ---------------------------------------------------------------- what an index holds


def test_status_tells_what_there_is(client: TestClient, files: Path) -> None:
    told = client.get("/v1/status").json()

    assert told["documents"] == {"image": 1, "pdf": 1, "text": 1, "video": 1}
    assert (told["index"], told["indexes"], told["roots"]) == ("db", ["db"], [])
    [failed] = told["failed"]
    assert failed["path"] == str(files / "broken.png")
    assert failed["reason"] in ("it is damaged", "it is not a picture, or its header is damaged")
    assert client.get("/v1/status?index=other").status_code == 404


def test_documents_come_by_path_and_by_the_page(client: TestClient, files: Path) -> None:
    told = client.get("/v1/documents").json()
    paths = [one["path"] for one in told["documents"]]

    assert paths == sorted(str(file) for file in files.iterdir())
    assert told["total"] == 5
    some = client.get("/v1/documents?offset=1&limit=2").json()
    assert [one["path"] for one in some["documents"]] == paths[1:3]
    for asked in ("limit=0", "limit=1001", "offset=-1", "limit=x", f"offset={2**70}"):
        assert client.get(f"/v1/documents?{asked}").status_code == 422, asked


def test_a_document_has_its_segments_in_their_order(client: TestClient, files: Path) -> None:
    [pdf] = files.glob("*.pdf")
    told = client.get(f"/v1/documents/{document_id(str(pdf))}").json()

    assert told["num_segments"] == 2
    assert [one["page"] for one in told["segments"]] == [1, 2]
    assert SCRIPT in told["segments"][0]["text"]
    assert client.get(f"/v1/segments/{told['segments'][0]['id']}").json() == told["segments"][0]


@pytest.mark.parametrize("what", ["", "/thumbnail", "/picture", "/file"])
@pytest.mark.parametrize("one", ["0" * 16, "x", "' OR 1=1 --", "..%2f..%2fetc%2fpasswd", "x" * 65])
def test_an_unknown_segment_is_not_found(client: TestClient, one: str, what: str) -> None:
    assert client.get(f"/v1/segments/{one}{what}").status_code in (404, 422)


def test_an_unknown_document_is_not_found(client: TestClient) -> None:
    for one in ("0" * 16, "%00", "x' OR 'a'='a"):
        assert client.get(f"/v1/documents/{one}").status_code == 404


# ---------------------------------------------------------------- pictures


def test_a_thumbnail_is_kept_by_its_tag(client: TestClient, files: Path) -> None:
    address = segment_of(client, files / "red.png")["thumbnail"]
    first = client.get(address)

    assert first.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(first.content)).size == (64, 48)
    again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["red.png", "blue.mp4", "*.pdf"])
def test_a_picture_keeps_to_the_pixels_asked_for(
    client: TestClient, files: Path, name: str
) -> None:
    [file] = files.glob(name)
    address = segment_of(client, file)["picture"]
    picture = Image.open(io.BytesIO(client.get(f"{address}?max_pixels=2000").content))

    assert 500 < picture.width * picture.height <= 2000
    for pixels in (0, -1, 1023, 4_000_001, 10**30, "x"):
        assert client.get(f"{address}?max_pixels={pixels}").status_code == 422


def test_the_words_of_a_page_come_with_their_places(client: TestClient, files: Path) -> None:
    [page] = (file for file in files.iterdir() if file.suffix == ".pdf")
    told = segment_of(client, page)

    words = client.get(f"/v1/segments/{told['id']}/words").json()["words"]

    assert [word for word, *_ in words] == told["text"].split()
    for _, left, top, right, bottom in words:
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


def test_what_is_no_page_has_no_places_of_words(client: TestClient, files: Path) -> None:
    for file in files.iterdir():
        if file.suffix not in (".pdf", "") and file.name != "broken.png":
            told = segment_of(client, file)
            assert client.get(f"/v1/segments/{told['id']}/words").json() == {"words": []}
    assert client.get("/v1/segments/0000000000000000/words").status_code == 404


def test_a_text_has_no_picture(client: TestClient, files: Path) -> None:
    one = segment_of(client, files / "notes.txt")

    assert one["thumbnail"] is None
    for what in ("thumbnail", "picture"):
        assert client.get(f"/v1/segments/{one['id']}/{what}").status_code == 404


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("red.png", "image/png"),
        ("blue.mp4", "video/mp4"),
        ("*.pdf", "application/pdf"),
        ("notes.txt", "text/plain; charset=utf-8"),
    ],
)
def test_a_file_comes_as_it_is_and_as_nothing_that_runs(
    client: TestClient, files: Path, name: str, kind: str
) -> None:
    [file] = files.glob(name)
    answer = file_of(client, file)

    assert answer.content == file.read_bytes()
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    head = client.head(segment_of(client, file)["file"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(file.stat().st_size)


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=2-5", 206, 2, 6),
        ("bytes=10-", 206, 10, None),
        ("bytes=-7", 206, -7, None),
        ("bytes=0-999999999", 206, 0, None),
        ("bytes=-999999999", 206, 0, None),
        ("bytes=5-2", 200, 0, None),
        ("bytes=-", 200, 0, None),
        ("bytes=0-1,3-4", 200, 0, None),
        ("items=0-1", 200, 0, None),
        ("bytes=0-" + "9" * 5_000, 200, 0, None),
        ("bytes=-0", 416, 0, 0),
        ("bytes=999999999-", 416, 0, 0),
    ],
)
def test_a_player_may_ask_for_a_range(
    client: TestClient, files: Path, asked: str, status: int, start: int, end: int | None
) -> None:
    whole = (files / "blue.mp4").read_bytes()
    answer = file_of(client, files / "blue.mp4", Range=asked)

    assert answer.status_code == status
    assert answer.content == whole[start:end]
    if status == 206:
        first = start % len(whole) if abs(start) <= len(whole) else 0
        last = first + len(answer.content) - 1
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"


def test_a_range_of_another_version_is_the_whole_file(client: TestClient, files: Path) -> None:
    film = files / "blue.mp4"
    tag = file_of(client, film).headers["etag"]

    assert file_of(client, film, Range="bytes=0-0", If_Range=tag).status_code == 206
    assert file_of(client, film, Range="bytes=0-0", If_Range='"other"').status_code == 200
    assert file_of(client, film, If_None_Match=tag).status_code == 304


@pytest.mark.parametrize(
    "trick", ["link", "hard link", "other", "longer", "gone", "folder", "pipe"]
)
def test_a_file_that_is_not_what_was_indexed_is_not_given_out(tmp_path: Path, trick: str) -> None:
    """Whoever may write to the folder, but not read the secret, gets it from nobody."""
    secret = tmp_path / "secret.txt"
    secret.write_text("The pump of the miseum.\n")  # of the same size
    folder = tmp_path / "files"
    folder.mkdir()
    notes = folder / "notes.txt"
    notes.write_text("The pump of the museum.\n")
    with server(make_index(folder, tmp_path / "db")) as client:
        assert file_of(client, notes).status_code == 200
        address = segment_of(client, notes)["file"]
        state = notes.stat()
        notes.unlink()
        if trick == "link":
            notes.symlink_to(secret)
        elif trick == "hard link":
            os.link(secret, notes)
        elif trick == "other":
            notes.write_text("other\n")
        elif trick == "longer":
            notes.write_text("The pump of the museum.\n and more")
            os.utime(notes, ns=(state.st_atime_ns, state.st_mtime_ns))
        elif trick == "folder":
            notes.mkdir()
        elif trick == "pipe":
            os.mkfifo(notes)
        answer = client.get(address)

    assert answer.status_code == 404
    assert "pump" not in answer.text


def test_an_older_film_of_the_same_size_is_another_one(tmp_path: Path) -> None:
    """Of a film the index knows one time, the latest of it and its subtitles."""
    folder = tmp_path / "files"
    folder.mkdir()
    shown, secret = folder / "blue.mp4", tmp_path / "secret.mp4"
    film(shown, [(1.0, (20, 20, 200))])
    secret.write_bytes(shown.read_bytes()[:-1] + b"!")
    os.utime(secret, (1, 1))
    with server(make_index(folder, tmp_path / "db")) as client:
        assert file_of(client, shown).status_code == 200
        address = segment_of(client, shown)["file"]
        shown.unlink()
        shown.symlink_to(secret)

        assert client.get(address).status_code == 404


def test_a_picture_of_what_was_put_in_its_place_is_not_drawn(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png("green"))
    folder = tmp_path / "files"
    folder.mkdir()
    shown = folder / "red.png"
    shown.write_bytes(png("red"))
    with server(make_index(folder, tmp_path / "db")) as client:
        address = segment_of(client, shown)["picture"]
        assert client.get(address).status_code == 200
        shown.unlink()
        shown.symlink_to(secret)

        assert client.get(address).status_code == 404


def megabyte(path: Path) -> tuple[BinaryIO, Document]:
    """Return an open file of a megabyte, and the document that it is."""
    path.write_bytes(b"x" * 2**20)
    document = Document(
        path=str(path),
        kind=Kind.TEXT,
        content_hash="1",
        size=2**20,
        mtime_ns=0,
        status=Status.DONE,
        commit_id="1",
    )
    return path.open("rb"), document


def test_a_client_that_takes_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "_PATIENCE_S", 0.02)
    file, document = megabyte(tmp_path / "notes.txt")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def receive() -> Any:
        await asyncio.sleep(60)

    scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises(TimeoutError):
        asyncio.run(originals.Original(file, document)(scope, receive, send))

    assert len(sent) == 2, "the head, and the first piece"
    assert file.closed


def test_a_client_that_leaves_is_sent_no_more(tmp_path: Path) -> None:
    file, document = megabyte(tmp_path / "notes.txt")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "headers": []}
    asyncio.run(originals.Original(file, document)(scope, receive, send))

    assert len(sent) <= 2
    assert file.closed


# ---------------------------------------------------------------- names and types


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/a/report.pdf", "inline; filename=\"report.pdf\"; filename*=UTF-8''report.pdf"),
        ('/a/x"; evil="y', "inline; filename=\"x__ evil__y\"; filename*=UTF-8''x%22%3B%20evil"),
        ("/a/x\r\nSet-Cookie: a=b", 'inline; filename="x__Set-Cookie_ a_b"; filename*='),
        ("/a/<script>.pdf", "inline; filename=\"_script_.pdf\"; filename*=UTF-8''%3Cscript%3E"),
        ("/a/Übung.pdf", "inline; filename=\"_bung.pdf\"; filename*=UTF-8''%C3%9Cbung.pdf"),
    ],
)
def test_a_name_makes_no_header(path: str, told: str) -> None:
    assert disposition(path).startswith(told)
    assert not set(disposition(path)) & set("\r\n<>")


@pytest.mark.parametrize(
    ("head", "kind", "told"),
    [
        (b"<html><script>", Kind.TEXT, "text/plain; charset=utf-8"),
        (b"<svg xmlns=", Kind.IMAGE, "application/octet-stream"),
        (b"<html><script>%PDF-1.7", Kind.PDF, "application/pdf"),
        (b"\x00\x00\x00\x14ftypqt  ", Kind.VIDEO, "video/quicktime"),
        (b"\x1aE\xdf\xa3\x01\x42\x82\x84webm", Kind.VIDEO, "video/webm"),
        (b"RIFF\x00\x00\x00\x00WEBP", Kind.IMAGE, "image/webp"),
        (b"", None, "application/octet-stream"),
    ],
)
def test_a_type_is_one_of_a_short_list(head: bytes, kind: Kind | None, told: str) -> None:
    assert media_type(head, kind) == told
