"""Which files a run looks at."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmsearch.errors import NothingToIndex
from mmsearch.indexers.discover import (
    affected_by,
    discover,
    discover_again,
    has_links,
    lying_in,
)


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


def test_an_index_whose_tables_are_in_another_generation_is_passed_over(tmp_path: Path) -> None:
    grow(tmp_path, "db/index.json", "db/write.lock", "db/generation-1/tables/x.md", "a.pdf")

    assert found(tmp_path) == ["a.pdf"]


def test_a_named_file_is_taken_even_when_hidden(tmp_path: Path) -> None:
    grow(tmp_path, ".hidden.pdf")

    assert [source.path.name for source in discover([tmp_path / ".hidden.pdf"])] == [".hidden.pdf"]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ({"include": ["*.pdf"]}, ["a/deep/x.pdf", "a/x.pdf", "b.pdf"]),
        ({"include": ["nothing"]}, []),
        ({"include": ["a/?.pdf"]}, ["a/x.pdf"]),
        ({"include": ["a/**/x.pdf"]}, ["a/deep/x.pdf", "a/x.pdf"]),
        ({"include": ["*.pdf"], "exclude": ["a/**"]}, ["b.pdf"]),
        ({"exclude": ["a"]}, ["b.pdf", "c.md"]),
        ({"exclude": ["a/"]}, ["b.pdf", "c.md"]),
        ({"exclude": ["a/*"]}, ["b.pdf", "c.md"]),
        ({"exclude": ["deep", "*.md"]}, ["a/x.pdf", "b.pdf"]),
        ({"exclude": ["/a/**"]}, ["a/deep/x.pdf", "a/x.pdf", "b.pdf", "c.md"]),
    ],
)
def test_globs_see_the_path_below_the_root(
    tmp_path: Path, globs: dict[str, list[str]], expected: list[str]
) -> None:
    grow(tmp_path, "a/x.pdf", "a/deep/x.pdf", "b.pdf", "c.md")

    assert found(tmp_path, **globs) == expected


def test_a_glob_that_begins_with_a_slash_sees_whole_paths(tmp_path: Path) -> None:
    grow(tmp_path, "a/x.pdf", "b.pdf")

    assert found(tmp_path, exclude=[f"{tmp_path}/a"]) == ["b.pdf"]
    assert found(tmp_path, exclude=[f"{tmp_path.name}/a"]) == ["a/x.pdf", "b.pdf"]


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


def test_a_time_beyond_64_bits_is_the_last_they_can_say(tmp_path: Path) -> None:
    grow(tmp_path, "a.pdf")
    in_2400 = 13_569_465_600 * 10**9
    os.utime(tmp_path / "a.pdf", ns=(in_2400, in_2400))
    if (tmp_path / "a.pdf").stat().st_mtime_ns != in_2400:
        pytest.skip("this file system knows no such time")

    assert [source.mtime_ns for source in discover([tmp_path])] == [2**63 - 1]


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


# ---------------------------------------------------------------- what changed


def again(root: Path, *changed: str, **globs: Sequence[str]) -> list[str]:
    paths = affected_by(root / name for name in changed)
    return [
        source.path.relative_to(root).as_posix()
        for source in discover_again([root], paths, **globs)
    ]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["a/x.pdf"], ["a/x.pdf"]),
        (["a"], ["a/deep/x.pdf", "a/x.pdf"]),
        ([""], ["a/deep/x.pdf", "a/x.pdf", "c.md", "talk.mp4"]),
        (["a/x.pdf", "a", "a/x.pdf"], ["a/x.pdf", "a/deep/x.pdf"]),
        (["gone.pdf"], []),
        ([".hidden.pdf"], []),
        ([".git/x.pdf"], []),
        (["db/tables/x.md"], []),
        (["../elsewhere.pdf"], []),
        (["talk.en.srt"], ["talk.mp4"]),
    ],
    ids=str,
)
def test_what_changed_is_seen_as_a_walk_would_see_it(
    tmp_path: Path, changed: list[str], expected: list[str]
) -> None:
    root = tmp_path / "root"
    grow(root, "a/x.pdf", "a/deep/x.pdf", "c.md", ".hidden.pdf", ".git/x.pdf", "talk.mp4")
    grow(root, "db/index.json", "db/tables/x.md", "../elsewhere.pdf")

    assert again(root, *changed) == expected


def test_what_changed_is_held_against_the_globs_of_its_root(tmp_path: Path) -> None:
    grow(tmp_path, "a/x.pdf", "a/y.md")

    assert again(tmp_path, "a/x.pdf", "a/y.md", include=["a/*.pdf"]) == ["a/x.pdf"]


def test_a_film_that_changed_has_the_size_of_its_subtitles_too(tmp_path: Path) -> None:
    grow(tmp_path, "talk.mp4", "talk.srt")

    [walked] = discover([tmp_path], include=["*.mp4"])
    [changed] = discover_again([tmp_path], [tmp_path / "talk.mp4"])

    assert changed == walked


def test_links_are_told_of(tmp_path: Path) -> None:
    grow(tmp_path, "a/b/x.pdf", ".hidden/y.pdf")
    (tmp_path / ".hidden" / "link").symlink_to(tmp_path / "a")
    assert not has_links([tmp_path])

    (tmp_path / "a" / "b" / "link.pdf").symlink_to("x.pdf")
    assert has_links([tmp_path])


def test_what_lies_in_a_folder_is_told_once_links_are_followed(tmp_path: Path) -> None:
    """Also of a film whose subtitles lie elsewhere: their words would come in with it."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    grow(inside, "a.txt", "talk.mp4", "plain.mp4", "sub/b.txt")
    grow(outside, "words.srt", "c.txt")
    (inside / "talk.srt").symlink_to(outside / "words.srt")
    (inside / "folder").symlink_to(outside)
    (inside / "link.txt").symlink_to(inside / "a.txt")

    sources = list(discover([inside]))
    kept = [source.path.name for source in lying_in([inside], sources)]

    assert {"words.srt", "c.txt", "talk.mp4"} <= {source.path.name for source in sources}
    assert kept == ["a.txt", "plain.mp4", "b.txt"]
    assert list(lying_in(None, sources)) == sources
