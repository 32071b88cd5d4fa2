"""What a run has to do, given what the manifest knows."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mmsearch.indexers.content import content_hash
from mmsearch.indexers.discover import Source, discover
from mmsearch.indexers.plan import Plan, emptied, make_plan
from mmsearch.values import Document, Kind, Status, stored_path


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "docs" / "note.txt"
    path.parent.mkdir()
    path.write_text("Ask the baker about rye.")
    return path


def kept(path: Path, status: Status = Status.DONE) -> Document:
    """The manifest's row of a file as it is now."""
    state = path.stat()
    return Document(
        path=stored_path(path),
        kind=Kind.TEXT,
        content_hash=content_hash(path),
        size=state.st_size,
        mtime_ns=state.st_mtime_ns,
        status=status,
        commit_id="c0ffee",
        num_segments=1,
        error="it was torn" if status is Status.FAILED else "",
    )


def plan_for(root: Path, *known: Document, retry_failed: bool = False) -> Plan:
    manifest = {document.path: document for document in known}
    return make_plan(discover([root]), manifest, [root], retry_failed=retry_failed)


def names_read(plan: Plan) -> list[str]:
    return [reading.source.path.name for reading in plan.read]


def test_a_new_file_is_read_as_what_its_content_says(note: Path) -> None:
    (note.parent / "picture.jpg").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)

    plan = plan_for(note.parent)

    assert [(one.source.path.name, one.kind) for one in plan.read] == [
        ("note.txt", Kind.TEXT),
        ("picture.jpg", Kind.IMAGE),
    ]


def test_an_unchanged_file_is_not_even_opened(note: Path) -> None:
    known = kept(note)
    missing = Source(note.with_name("elsewhere.txt"), known.size, known.mtime_ns)

    plan = make_plan(
        [missing], {stored_path(missing.path): replace(known, path=str(missing.path))}, []
    )

    assert (plan.unchanged, plan.read) == (1, ())


def test_a_new_time_with_the_old_content_is_only_touched(note: Path) -> None:
    known = kept(note)
    os.utime(note, ns=(1, 1))

    plan = plan_for(note.parent, known)

    assert plan.read == ()
    assert [document.mtime_ns for document in plan.touched] == [1]


def test_new_content_is_read_again(note: Path) -> None:
    known = kept(note)
    note.write_text("Ask the baker about spelt instead.")

    assert names_read(plan_for(note.parent, known)) == ["note.txt"]


def test_a_deleted_file_under_the_root_is_gone(note: Path) -> None:
    known = kept(note)
    note.unlink()
    other = replace(known, path="/somewhere/else/note.txt")

    plan = plan_for(note.parent, known, other)

    assert plan.gone == (known.path,)


def test_a_folder_that_holds_nothing_though_files_are_known_in_it_is_emptied(note: Path) -> None:
    known = stored_path(note)
    roots = [note.parent, note, note.parent / "never"]
    assert emptied(roots, [known]) == {}

    note.unlink()

    assert emptied(roots, [known, f"{stored_path(note.parent)}2/note.txt"]) == {note.parent: 1}
    assert emptied(roots, []) == {}
    (note.parent / ".hidden").touch()
    assert emptied(roots, [known]) == {}


def test_a_file_that_is_of_no_supported_kind_any_more_is_gone(note: Path) -> None:
    known = kept(note)
    named = note.rename(note.with_name("note"))
    named.write_bytes(bytes(range(256)))
    os.utime(named, ns=(1, 1))

    plan = plan_for(note.parent, replace(known, path=stored_path(named)))

    assert plan.gone == (stored_path(named),)


def test_a_neighbour_with_a_longer_name_is_not_under_a_folder(note: Path) -> None:
    known = kept(note)
    note.unlink()
    neighbour = replace(known, path=f"{stored_path(note.parent)}2/note.txt")

    assert plan_for(note.parent, neighbour).gone == ()


def test_a_file_of_undecodable_name_that_is_there_is_not_gone(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("Coffee.")
    known = kept(path)

    assert make_plan([], {known.path: known}, [tmp_path]).gone == ()
    path.unlink()
    assert make_plan([], {known.path: known}, [tmp_path]).gone == (known.path,)


def test_two_names_that_are_one_as_text_are_one_document(tmp_path: Path) -> None:
    for name in (b"/caf\xe9.txt", b"/caf\\xe9.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + name)).write_text("Coffee.")

    plan = plan_for(tmp_path)

    assert (len(plan.read), plan.unsupported) == (1, 1)


def test_everything_is_read_again_when_asked(note: Path) -> None:
    known = kept(note)

    plan = make_plan(discover([note]), {known.path: known}, [note], again=True)

    assert names_read(plan) == ["note.txt"]


def test_a_file_that_the_globs_pass_over_is_not_gone(note: Path) -> None:
    known = kept(note)

    plan = make_plan([], {known.path: known}, [note.parent])

    assert plan.gone == ()


@pytest.mark.parametrize("retry_failed", [False, True])
def test_a_failed_file_is_read_again_only_when_asked(note: Path, retry_failed: bool) -> None:
    known = kept(note, Status.FAILED)

    plan = plan_for(note.parent, known, retry_failed=retry_failed)

    assert names_read(plan) == (["note.txt"] if retry_failed else [])
    assert plan.failed_before == (() if retry_failed else (known,))


def test_a_failed_file_with_a_new_time_is_read_again(note: Path) -> None:
    known = kept(note, Status.FAILED)
    os.utime(note, ns=(1, 1))

    assert names_read(plan_for(note.parent, known)) == ["note.txt"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("page.pdf", b"<!doctype html><p>not a pdf", "its content is not what .pdf says"),
        ("empty.png", b"", "empty"),
    ],
)
def test_a_file_that_is_not_what_it_says_has_already_failed(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)

    [reading] = plan_for(tmp_path).read

    assert reading.kind is None
    assert reason in reading.error


def test_files_of_other_kinds_are_counted_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("print()")
    (tmp_path / "empty.o").write_bytes(b"")

    plan = plan_for(tmp_path)

    assert (plan.read, plan.unsupported) == ((), 2)
