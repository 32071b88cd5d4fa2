"""What is looked at again when files change: real files, the system's own reports."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsearch.indexers.watch import MOST_PATHS, Watch, at_or_below
from mmsearch.values import Document, Status

SETTLE_S = 0.02


class Watched:
    """A watched folder: `next` of it is the next batch, as paths below the folder."""

    def __init__(self, root: Path, *roots: Path, **how: float) -> None:
        self.root = root
        self.notices: list[str] = []
        self.at_notice: dict[str, Callable[[], object]] = {}
        watch = Watch(
            roots or [root],
            ignored=root / "db",
            settle_s=how.pop("settle_s", SETTLE_S),
            on_notice=self._hear,
            **how,
        )
        self.batches = iter(watch)
        self.first = next(self)

    def _hear(self, notice: str) -> None:
        self.notices.append(notice)
        for words, act in self.at_notice.items():
            if words in notice:
                act()

    def __next__(self) -> set[str]:
        return {os.path.relpath(path, self.root) for path in next(self.batches)}

    def until(self, *names: str) -> set[str]:
        """Return all batches together, up to the one that completes ``names``."""
        seen: set[str] = set()
        for _ in range(50):
            if set(names) <= seen:
                return seen
            seen |= next(self)
        raise AssertionError(f"{names} never came, but {seen}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.txt").write_text("a")
    return root


def aged(path: Path) -> Path:
    """Make it look as if it was written long ago, so that nobody waits for it to settle."""
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def test_the_first_batch_is_everything(root: Path) -> None:
    assert Watched(root).first == {"."}


def test_a_new_a_changed_and_a_deleted_file_are_told(root: Path) -> None:
    watched = Watched(root)

    (root / "b.txt").write_text("b")
    watched.until("b.txt")
    (root / "a.txt").write_text("other")
    assert watched.until("a.txt") == {"a.txt"}
    (root / "a.txt").unlink()
    assert watched.until("a.txt") == {"a.txt"}


def test_a_file_that_is_moved_is_told_under_both_names(root: Path) -> None:
    watched = Watched(root)

    (root / "a.txt").rename(root / "z.txt")

    assert watched.until("a.txt", "z.txt") == {"a.txt", "z.txt"}


def test_a_folder_that_is_moved_in_is_told_and_watched(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    watched = Watched(root)

    (tmp_path / "elsewhere").rename(root / "new")
    watched.until("new")
    (root / "new" / "c.txt").write_text("c")

    assert "new/c.txt" in watched.until("new/c.txt")


def test_a_file_that_is_written_aside_and_renamed_is_told_once_under_its_name(root: Path) -> None:
    watched = Watched(root)

    (root / ".a.txt.swp").write_text("new content")
    (root / ".a.txt.swp").replace(root / "a.txt")

    assert watched.until("a.txt") == {"a.txt"}


def test_hidden_files_and_the_index_itself_wake_nobody(root: Path) -> None:
    for folder in (".git", "db"):
        (root / folder).mkdir()
    watched = Watched(root)

    (root / ".hidden.txt").write_text("x")
    (root / ".git" / "config").write_text("x")
    (root / "db" / "part.lance").write_text("x")
    (root / "last.txt").write_text("x")

    assert watched.until("last.txt") == {"last.txt"}


def test_a_file_that_is_still_being_written_is_waited_for(root: Path) -> None:
    watched = Watched(root, settle_s=3_600)

    (root / "growing.txt").write_text("half")
    aged(root / "a.txt")

    assert watched.until("a.txt") == {"a.txt"}


def test_a_file_of_the_future_is_not_waited_for(root: Path) -> None:
    watched = Watched(root, settle_s=3_600)

    os.utime(root / "a.txt", (4_000_000_000, 4_000_000_000))

    assert watched.until("a.txt") == {"a.txt"}


def test_a_burst_of_changes_is_one_look_at_everything(root: Path) -> None:
    watched = Watched(root)

    for number in range(MOST_PATHS * 2):
        (root / f"{number}.txt").touch()

    seen = watched.until(".")
    assert len(seen) <= MOST_PATHS + 1


def test_a_file_that_is_watched_by_itself_is_told_of_when_it_is_replaced(root: Path) -> None:
    film = root / "talk.mp4"
    film.write_text("film")
    watched = Watched(root, film)
    assert watched.first == {"talk.mp4"}

    (root / "other.txt").write_text("nobody asked")
    (root / "talk.en.srt").write_text("subtitles")
    (root / "new.mp4").write_text("another")
    (root / "new.mp4").replace(film)

    assert watched.until("talk.mp4", "talk.en.srt") == {"talk.mp4", "talk.en.srt"}


def test_a_root_that_goes_is_told_of_and_one_that_is_back_is_looked_at(root: Path) -> None:
    watched = Watched(root)
    watched.at_notice["is gone"] = lambda: root.with_name("away").rename(root)

    root.rename(root.with_name("away"))

    assert next(watched) == {"."}
    assert [notice.removeprefix(f"{root} ")[:7] for notice in watched.notices] == [
        "is gone",
        "is back",
    ]
    (root / "b.txt").write_text("b")
    assert "b.txt" in watched.until("b.txt")


def test_what_is_deleted_with_its_root_is_not_told(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    watched = Watched(root, root, other)
    watched.at_notice["is gone"] = lambda: (other / "x.txt").write_text("x")

    shutil.rmtree(root)

    seen = watched.until("../other")
    assert "a.txt" not in seen
    assert "." not in seen


def test_a_root_that_was_replaced_at_once_is_watched_anew(root: Path) -> None:
    watched = Watched(root)

    root.rename(root.with_name("away"))
    root.mkdir()
    watched.until(".")
    (root / "b.txt").write_text("b")

    assert "b.txt" in watched.until("b.txt")


def test_everything_is_looked_at_every_so_often(root: Path) -> None:
    watched = Watched(root, sweep_every_s=0.01)

    assert [next(watched), next(watched)] == [{"."}, {"."}]


def test_where_files_have_two_names_everything_is_looked_at(root: Path) -> None:
    (root / "link.txt").symlink_to("a.txt")
    watched = Watched(root)

    (root / "a.txt").write_text("other")

    assert next(watched) == {"."}


def test_where_the_system_cannot_watch_so_many_folders_it_is_said_and_they_are_looked_at(
    root: Path,
) -> None:
    for number in range(8):
        (root / str(number)).mkdir()
    script = (
        "import sys; from pathlib import Path; from mmsearch.indexers.watch import Watch\n"
        "watch = Watch([sys.argv[1]], ignored=Path('/none'), poll_every_s=0.01, on_notice=print)\n"
        "batches = iter(watch); print(*next(batches)); print(*next(batches))"
    )
    few = 'echo 4 > /proc/sys/user/max_inotify_watches && exec "$@"'
    command = ["unshare", "-Ur", "sh", "-c", few, "-", sys.executable, "-c", script, str(root)]
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare, to lower the limit with")

    done = subprocess.run(command, capture_output=True, text=True)

    if "max_inotify_watches" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"the limit cannot be lowered here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    [notice, first, second] = done.stdout.splitlines()
    assert notice.startswith("the system's limit of watched folders is reached")
    assert first == second == str(root)


def test_documents_at_or_below_a_path_are_found_in_a_sorted_manifest() -> None:
    paths = ["/a", "/a b", "/a-b/x", "/a/b", "/a/b/c", "/a0", "/ab", "/z"]
    documents = [
        Document(
            path=path,
            kind=None,
            content_hash="",
            size=0,
            mtime_ns=0,
            status=Status.DONE,
            commit_id="",
        )
        for path in paths
    ]

    def found(*names: str) -> list[str]:
        return [one.path for one in at_or_below(map(Path, names), documents)]

    assert found("/a") == ["/a", "/a/b", "/a/b/c"]
    assert found("/a/b", "/a/b/c", "/zz") == ["/a/b", "/a/b/c"]
    assert found("/") == paths
