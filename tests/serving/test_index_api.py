"""Changing an index over HTTP: jobs, their progress and their end; only under the roots."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import WordEmbedder

from mmsearch.engine import Engine
from mmsearch.errors import StoreLocked
from mmsearch.retriever.search.backends import choice
from mmsearch.values import Role

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from starlette.testclient import TestClient
from toy_server import make_index, png, server

from mmsearch.serving import jobs as jobs_module
from mmsearch.serving.library import document_id


class HeldEmbedder(WordEmbedder):
    """Embeds documents only while it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.may, self.began = threading.Event(), threading.Event()

    def embed(self, items: Any, *, role: Role | str = Role.DOCUMENT) -> Any:
        if role is Role.DOCUMENT:
            self.began.set()
            assert self.may.wait(20)
        return super().embed(items, role=role)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that may be indexed, with two notes in it."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "pump.txt").write_text("The pump.\n")
    (folder / "sub" / "cat.txt").write_text("A cat.\n")
    return folder


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    db = root.parent / "db"
    Engine.open(db, create=True, model=WordEmbedder()).close()
    with server(db, roots=(root,)) as client:
        yield client


def begin(client: TestClient, *paths: Path | str, **asked: Any) -> str:
    answer = client.post("/v1/index", json={"paths": list(map(str, paths)), "ocr": False} | asked)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job"])


def wait_for(client: TestClient, job: str, *, until: Callable[[str], bool]) -> dict[str, Any]:
    for _ in range(2_000):
        told: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
        if until(told["status"]):
            return told
        time.sleep(0.01)
    raise AssertionError(told)


def ended(client: TestClient, job: str) -> dict[str, Any]:
    return wait_for(client, job, until=lambda status: status in ("done", "failed", "cancelled"))


def paths_in(client: TestClient) -> list[str]:
    return [Path(one["path"]).name for one in client.get("/v1/documents").json()["documents"]]


# ---------------------------------------------------------------- jobs


def test_a_folder_is_indexed_and_found(client: TestClient, root: Path) -> None:
    told = ended(client, begin(client, root))

    assert (told["status"], told["error"]) == ("done", None)
    assert told["report"]["documents"] == 2
    assert told["report"]["failed"] == []
    hits = client.post("/v1/search", json={"query": "pump", "k": 1}).json()["hits"]
    assert Path(hits[0]["path"]).name == "pump.txt"


def test_an_index_that_grows_large_is_no_longer_kept_in_memory(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "MOST_RESIDENT", 1)
    ended(client, begin(client, root / "pump.txt"))
    assert client.get("/v1/status").json()["backend"] == "exact"

    ended(client, begin(client, root))

    assert client.get("/v1/status").json()["backend"] == "lance"
    assert len(client.post("/v1/search", json={"query": "pump"}).json()["hits"]) == 2


def test_what_cannot_be_read_is_reported_without_its_decoders_words(
    client: TestClient, root: Path
) -> None:
    (root / "bad.png").write_bytes(png()[:50] + b"\xff" * 30)

    report = ended(client, begin(client, root))["report"]

    assert report["num_failed"] == 1
    assert report["failed"][0]["reason"] in (
        "it is damaged",
        "it is not a picture, or its header is damaged",
    )


def test_the_globs_of_the_command_line_are_understood(client: TestClient, root: Path) -> None:
    ended(client, begin(client, root, include=["*.txt"], exclude=["sub"]))

    assert paths_in(client) == ["pump.txt"]
    many = {"paths": [str(root)], "include": ["*a" * 20]}
    assert client.post("/v1/index", json=many).status_code == 422


def test_a_job_is_followed_to_its_end(client: TestClient, root: Path) -> None:
    job = begin(client, root)
    events = []
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                events.append(line.removeprefix("event: "))
            elif line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))

    assert events[-1] == "end"
    assert set(events[:-1]) <= {"progress"}
    assert last["status"] == "done"
    assert last["report"]["documents"] == 2


def test_a_document_is_taken_out_and_its_file_stays(client: TestClient, root: Path) -> None:
    ended(client, begin(client, root))
    one = document_id(str(root / "pump.txt"))

    answer = client.delete(f"/v1/documents/{one}")

    assert answer.status_code == 202
    assert ended(client, answer.json()["job"])["report"] == {"removed": 1}
    assert paths_in(client) == ["cat.txt"]
    assert (root / "pump.txt").exists()
    assert client.delete(f"/v1/documents/{one}").status_code == 404


def test_jobs_of_one_index_wait_for_each_other_and_can_be_ended(root: Path) -> None:
    db, embedder = root.parent / "db", HeldEmbedder()
    Engine.open(db, create=True, model=embedder).close()
    with server(db, roots=(root,), model=embedder) as client:
        first, second = begin(client, root), begin(client, root)
        assert embedder.began.wait(20)
        assert client.get(f"/v1/jobs/{second}").json()["status"] == "queued"

        ended_one = client.delete(f"/v1/jobs/{second}").json()
        assert ended_one["status"] == "cancelled", "what waits ends at once"

        client.delete(f"/v1/jobs/{first}")
        (root / "late.txt").write_text("late\n")
        embedder.may.set()
        assert ended(client, first)["status"] in ("cancelled", "done")
        listed = [one["job"] for one in client.get("/v1/jobs").json()["jobs"]]
        assert listed == [second, first]
        third = ended(client, begin(client, root))
        assert third["status"] == "done", "what was cancelled is taken up again"


def test_a_job_that_is_ended_raises_nothing_of_its_own() -> None:
    job = jobs_module.Job(index="a", what="index", paths=())
    job.begin()
    job.cancel()

    with pytest.raises(jobs_module.Cancelled):
        job.go_on()
    assert job.status == "running", "until it has ended by itself"


def test_there_is_a_limit_to_what_waits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MOST_WAITING", 1)
    db, embedder = root.parent / "db", HeldEmbedder()
    Engine.open(db, create=True, model=embedder).close()
    with server(db, roots=(root,), model=embedder) as client:
        begin(client, root)
        assert embedder.began.wait(20)
        begin(client, root)

        answer = client.post("/v1/index", json={"paths": [str(root)]})

        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        embedder.may.set()


def test_an_index_that_another_process_writes_to_is_said_to_be_so(
    client: TestClient, root: Path
) -> None:
    with Engine.open(root.parent / "db", model=WordEmbedder())._store.writing():
        told = ended(client, begin(client, root))

    assert told["status"] == "failed"
    assert told["error"]["type"] == StoreLocked.__name__


def test_what_goes_wrong_unforeseen_is_logged_and_not_told(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of this machine")

    monkeypatch.setattr(Engine, "index", broken)
    told = ended(client, begin(client, root))

    assert told["status"] == "failed"
    assert "secret" not in json.dumps(told)
    assert "secret" in caplog.text


def test_an_unknown_job_is_not_found(client: TestClient) -> None:
    for path in ("/v1/jobs/0000000000000000", "/v1/jobs/x/events"):
        assert client.get(path).status_code == 404


# ---------------------------------------------------------------- roots


@pytest.mark.parametrize(
    "path",
    [
        "/etc",
        "/",
        "",
        ".",
        "root",
        "{root}/..",
        "{root}/../db",
        "{root}-beside",
        "{root}/out",
        "{root}/out/secret.txt",
        "{root}/\0",
        "~",
        "file://{root}",
    ],
)
def test_only_what_lies_under_a_root_is_indexed(client: TestClient, root: Path, path: str) -> None:
    beside = root.with_name("root-beside")
    beside.mkdir()
    (beside / "secret.txt").write_text("secret\n")
    (root / "out").symlink_to(beside)

    answer = client.post("/v1/index", json={"paths": [str(root), path.format(root=root)]})

    assert answer.status_code == 403
    assert answer.json()["error"]["message"].startswith("paths[1]: ")
    assert paths_in(client) == []


def test_links_that_lead_out_of_the_roots_are_passed_over(client: TestClient, root: Path) -> None:
    beside = root.with_name("beside")
    beside.mkdir()
    (beside / "secret.txt").write_text("secret\n")
    (root / "folder").symlink_to(beside)
    (root / "file.txt").symlink_to(beside / "secret.txt")
    (root / "inside.txt").symlink_to(root / "sub" / "cat.txt")

    ended(client, begin(client, root))

    assert set(paths_in(client)) <= {"pump.txt", "cat.txt", "inside.txt"}
    hits = client.post("/v1/search", json={"query": "secret"}).json()["hits"]
    assert not [hit for hit in hits if "secret" in hit["text"]]


def test_what_is_not_there_is_told_only_of_what_lies_under_a_root(
    client: TestClient, root: Path
) -> None:
    inside = client.post("/v1/index", json={"paths": [str(root / "none")]})
    outside = client.post("/v1/index", json={"paths": ["/none"]})

    assert (inside.status_code, outside.status_code) == (404, 403)


def test_a_document_beyond_the_roots_is_not_taken_out(root: Path) -> None:
    other = root.with_name("other")
    other.mkdir()
    (other / "dog.txt").write_text("A dog.\n")
    with server(make_index(other, root.parent / "db"), roots=(root,)) as client:
        answer = client.delete(f"/v1/documents/{document_id(str(other / 'dog.txt'))}")
        assert answer.status_code == 403
        assert paths_in(client) == ["dog.txt"]


def test_without_roots_nothing_is_changed(root: Path) -> None:
    with server(make_index(root, root.parent / "db")) as client:
        assert client.post("/v1/index", json={"paths": [str(root)]}).status_code == 403
        one = document_id(str(root / "pump.txt"))
        assert client.delete(f"/v1/documents/{one}").status_code == 403


def test_a_text_of_a_program_is_no_file_of_a_root(root: Path) -> None:
    db = root.parent / "db"
    with Engine.open(db, create=True, model=WordEmbedder()) as engine:
        engine.add_texts({f"../../{root}/pump.txt": "The pump."})
    with server(db, roots=(Path("/"),)) as client:
        [one] = client.get("/v1/documents").json()["documents"]
        [segment] = client.get(f"/v1/documents/{one['id']}").json()["segments"]
        assert segment["file"] is None
        assert client.get(f"/v1/segments/{segment['id']}/file").status_code == 404
        assert client.delete(f"/v1/documents/{one['id']}").status_code == 403
