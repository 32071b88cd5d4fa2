"""Which files a run looks at."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmsearch.errors import NothingToIndex
from mmsearch.indexers.discover import discover


def grow(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def found(root: Path, **globs: Sequence[str]) -> list[str]:
    return [source.path.relative_to(root).as_posix() for source in discover([root], **globs)]


def test_files_come_sorted_folder_by_folder(tmp_path: Path) -> None:
    grow(tmp_path, "b.pdf", "a/z.png", "a/y.png", "c.md")

    assert found(tmp_path) == ["a/y.png", "a/z.png", "b.pdf", "c.md"]


def test_hidden_entries_and_indexes_are_passed_over(tmp_path: Path) -> None:
    grow(tmp_path, ".git/config", ".hidden.pdf", "db/index.json", "db/tables/x", "a.pdf")

    assert found(tmp_path) == ["a.pdf"]


def test_a_named_file_is_taken_even_when_hidden(tmp_path: Path) -> None:
    grow(tmp_path, ".hidden.pdf")

    assert [source.path.name for source in discover([tmp_path / ".hidden.pdf"])] == [".hidden.pdf"]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ({"include": ["*.pdf"]}, ["a/x.pdf", "b.pdf"]),
        ({"exclude": ["a"]}, ["b.pdf", "c.md"]),
        ({"exclude": ["a/"]}, ["b.pdf", "c.md"]),
        ({"exclude": ["a/*"]}, ["b.pdf", "c.md"]),
        ({"include": ["*.pdf"], "exclude": ["a/**"]}, ["b.pdf"]),
        ({"include": ["nothing"]}, []),
    ],
)
def test_globs_see_the_path_below_the_root(
    tmp_path: Path, globs: dict[str, list[str]], expected: list[str]
) -> None:
    grow(tmp_path, "a/x.pdf", "b.pdf", "c.md")

    assert found(tmp_path, **globs) == expected


def test_a_link_that_leads_back_up_is_walked_once(tmp_path: Path) -> None:
    grow(tmp_path, "a/x.pdf")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)

    assert found(tmp_path) == ["a/x.pdf"]


def test_a_file_reached_by_two_names_is_taken_once(tmp_path: Path) -> None:
    grow(tmp_path, "x.pdf")
    (tmp_path / "y.pdf").symlink_to(tmp_path / "x.pdf")

    assert len(list(discover([tmp_path, tmp_path / "x.pdf"]))) == 1


@pytest.mark.parametrize("target", [None, "broken"])
def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path, target: str | None) -> None:
    path = tmp_path / "gone.pdf"
    if target:
        path.symlink_to(tmp_path / target)

    with pytest.raises(NothingToIndex, match="broken link" if target else "no such path"):
        list(discover([path]))


def test_unicode_and_undecodable_names_are_found(tmp_path: Path) -> None:
    grow(tmp_path, "Ångström 图表 🎬.pdf", "n" * 250 + ".txt")
    undecodable = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(undecodable)).write_text("coffee")

    assert len(found(tmp_path)) == 3


def test_hard_links_are_files_of_their_own(tmp_path: Path) -> None:
    grow(tmp_path, "a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "b.txt")

    assert found(tmp_path) == ["a.txt", "b.txt"]


def test_a_broken_link_beside_a_film_does_not_hide_it(tmp_path: Path) -> None:
    grow(tmp_path, "talk.mp4")
    (tmp_path / "talk.srt").symlink_to("nowhere")

    assert found(tmp_path) == ["talk.mp4"]


def test_a_pipe_is_not_a_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pdf")

    assert found(tmp_path) == []


def test_a_film_has_the_size_and_time_of_its_subtitles_too(tmp_path: Path) -> None:
    grow(tmp_path, "talk.mp4", "talk.en.srt", "talks.srt", "other.mp4")
    os.utime(tmp_path / "talk.mp4", ns=(5, 5))
    os.utime(tmp_path / "talk.en.srt", ns=(9, 9))
    size = len("talk.mp4") + len("talk.en.srt")

    walked = {source.path.name: source for source in discover([tmp_path])}
    [named] = discover([tmp_path / "talk.mp4"])

    assert (named.size, named.mtime_ns) == (size, 9)
    assert walked["talk.mp4"] == named
    assert walked["other.mp4"].size == len("other.mp4")
