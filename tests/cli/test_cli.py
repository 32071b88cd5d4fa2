"""What a person sees in the terminal, and what a program reads from the pipe."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import made_files
import pytest
from PIL import Image
from toy_terminal import Run

import mmsearch
from mmsearch import Engine, Hit, Query
from mmsearch.cli.output import shown_path
from mmsearch.errors import StoreError
from mmsearch.retriever.search import backends
from mmsearch.values import Kind

COMMANDS = (
    ["index"],
    ["query"],
    ["similar"],
    ["show"],
    ["status"],
    ["duplicates"],
    ["remove"],
    ["doctor"],
    ["optimize"],
    ["gc"],
    ["tag", "create"],
    ["tag", "list"],
    ["tag", "restore"],
    ["tag", "delete"],
    ["rebuild"],
    ["export"],
    ["import"],
    ["eval"],
    ["info"],
    ["model", "list"],
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a person has it, indexed once with the default model."""
    home = tmp_path_factory.mktemp("home")
    (home / "docs").mkdir()
    for name in ("report.pdf", "docs/old-report.pdf"):
        made_files.pdf(
            home / name,
            "Rainfall by month. January was dry and March was wet.",
            "The pump of the waterworks was replaced in June at a cost of 1,200 euros.",
            "Opening hours of the museum: Tuesday to Sunday, ten to six.",
        )
    Image.new("RGB", (120, 80), (200, 30, 30)).save(home / "docs" / "red.png")
    Image.new("RGB", (120, 80), (190, 40, 30)).save(home / "q.png")
    (home / "papers").mkdir()
    shutil.copy(home / "report.pdf", home / "papers" / "paper.pdf")
    query = {
        "id": "rain",
        "kind": "text-page",
        "text": "how much rain fell in spring",
        "relevant": [{"path": "docs/old-report.pdf", "page": 1}],
    }
    (home / "queries.jsonl").write_text(json.dumps(query) + "\n")
    with Engine.open(home / ".mmsearch", create=True) as engine:
        engine.index([home / "docs"], ocr=False)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may change, and where its commands run."""
    home = Path(shutil.copytree(made, tmp_path / "home"))
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    return home


def a_hit(run: Run) -> dict[str, Any]:
    """A page of the index; the copy in a test's home keeps the paths it was indexed under."""
    [hit, *_] = run("query", "pump", "--type", "pdf", "--json").json["hits"]
    return dict(hit)


# ---------------------------------------------------------------- help


def test_help_loads_neither_torch_nor_numpy() -> None:
    script = (
        "import sys, mmsearch.cli.main as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'lancedb', 'pyarrow', 'PIL', 'pymupdf', 'rich.table'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_one_screen_with_every_command_in_a_group(run: Run) -> None:
    lines = run("--help").out.splitlines()

    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith(":")] == [
        "Options:",
        "Index and search:",
        "Look after an index:",
        "Serve:",
        "Models:",
    ]


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"mmsearch {mmsearch.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_flag_has_help_and_every_command_an_example(command: list[str], run: Run) -> None:
    help_text = run(*command, "--help").out

    for option in re.findall(r"^  (?:--|-k)\S.*$", help_text, re.MULTILINE):
        assert re.search(r"\S  +\S", option.strip()) or option.strip().endswith(
            tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ]>N")
        ), f"no help beside {option}"
    assert examples(help_text)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_examples_in_the_help_run(command: list[str], home: Path, run: Run) -> None:
    segment = a_hit(run)["id"]
    if command == ["import"]:
        run("export", "exported")
    if command[0] == "tag" and command[1] in ("restore", "delete"):
        run("tag", "create", "before-cleanup")
    for example in examples(run(*command, "--help").out):
        if "runs/tiny" in example:
            continue  # of a training run: test_train_command.py runs it
        words = shlex.split(example.replace("~/", "./"))[1:]
        words = [segment if re.fullmatch("[0-9a-f]{16}", word) else word for word in words]
        if command == ["remove"]:  # of the paths it was indexed under
            words[-1] = a_hit(run)["path"]

        done = run(*words)

        assert done.code == 0, f"{example}\n{done.err}"


def examples(help_text: str) -> list[str]:
    return [line.strip() for line in help_text.splitlines() if line.startswith("      mmsearch ")]


# ---------------------------------------------------------------- query


def test_a_piped_query_is_one_json_object(home: Path, run: Run) -> None:
    found = run("query", "cost of the pump", "-k", "2").json

    assert set(found) == {"query", "space", "took_ms", "hits"}
    assert found["query"] == {"text": "cost of the pump"}
    first = found["hits"][0]
    assert list(first) == ["rank", "id", "path", "kind", "page", "score", "parts", "text"]
    assert (first["rank"], first["kind"], first["page"]) == (1, "pdf", 2)
    assert sum(first["parts"].values()) == pytest.approx(first["score"], abs=1e-5)


def test_a_table_names_place_and_score(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    done = run("query", "opening hours", "--no-json", "-k", "1")

    assert "old-report.pdf p.3" in done.out
    assert re.search(r"0\.\d{3}", done.out)
    assert done.err.startswith("1 hits in ")


def test_files_prints_each_path_once(home: Path, run: Run) -> None:
    lines = run("query", "rain", "--files").out.splitlines()

    assert len(lines) == len(set(lines)) == 2


def test_a_picture_is_found_by_a_picture(home: Path, run: Run) -> None:
    hits = run("query", "--image", "q.png", "--type", "image", "-k", "1").json["hits"]

    assert [Path(hit["path"]).name for hit in hits] == ["red.png"]


def test_previews_are_shown_where_the_terminal_can(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLORTERM", raising=False)
    assert "no preview" in run("query", "rain", "--no-json", "--preview", "-k", "1").err
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "▀" in run("query", "rain", "--no-json", "--preview", "-k", "1").out


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        (["--not", "cat", "--not", "dog"], {"negative": ("cat", "dog")}),
        (["--where", "page <= 3"], {"where": "page <= 3"}),
        (["--path", "docs/*.pdf"], {"path": "docs/*.pdf"}),
        (["--type", "pdf, image"], {"kinds": (Kind.PDF, Kind.IMAGE)}),
        (["--min-score", "0.4"], {"min_score": 0.4}),
        (["--video", "film.mp4"], {"video": Path("film.mp4")}),
        (["--page", "report.pdf#2"], {"page": "report.pdf#2"}),
        (["--image", "a.png", "--image", "b.png"], {"images": (Path("a.png"), Path("b.png"))}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_flags_say_what_is_asked(
    home: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    asked: dict[str, object],
) -> None:
    heard: list[tuple[Query, dict[str, object]]] = []

    def hear(engine: Engine, query: Query, **how: object) -> list[Hit]:
        heard.append((query, how))
        return []

    monkeypatch.setattr(Engine, "query", hear)

    run("query", "rain", *flags, "-k", "7", "--group", "--collapse", "--no-ocr")

    how = {"k": 7, "group": True, "collapse": True, "ocr": False}
    assert heard == [(Query("rain", **asked), how)]  # type: ignore[arg-type]


# ---------------------------------------------------------------- exit codes and errors


def test_a_missing_index_says_how_to_make_one(tmp_path: Path, run: Run) -> None:
    nowhere = tmp_path / "nowhere"

    done = run("query", "a cat", "--db", str(nowhere))

    assert done == (
        1,
        "",
        f"error: no index at {nowhere}\n  try: mmsearch index FILES... --db {nowhere}\n",
    )
    assert not nowhere.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["query", "", "--db", "."], "no index"),
        (["query", ""], "the query is empty"),
        (["query", "x", "--where", "colour = 1"], "cannot filter by"),
        (["query", "x", "--page", "report.pdf"], "does not name a page"),
        (["query", "x", "--image", "gone.png"], "no such file"),
        (["query", "x", "--image", "report.pdf"], "cannot read report.pdf"),
        (["query", "x", "--image", "docs"], "no file that can be read"),
        (["query", "x", "--where", "1 " + "+ 1 " * 900 + "= page"], "more than"),
        (["show", "SEGMENT", "--save", "nowhere/x.webp"], "cannot write nowhere/x.webp"),
        (["index", "gone"], "nothing to index at gone"),
        (["index", "docs", "--model", "gone", "--db", "new"], "no model named 'gone'"),
        (["show", "0" * 16], "no segment"),
        (["eval", "gone.jsonl"], "gone.jsonl"),
        (["remove", "never-indexed"], "removed 0 documents"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_an_error_is_one_sentence_and_exit_code_1(
    home: Path, run: Run, words: list[str], said: str
) -> None:
    done = run(*(a_hit(run)["id"] if word == "SEGMENT" else word for word in words))

    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["quer"],
        ["query", "x", "--dbb", "y"],
        ["query", "x", "--type", "song"],
        ["query", "x", "-k", "99999999999999999999"],
        ["query", "x", "--device", "gpu"],
        ["query", "x", "--device", "cuda:99"],
        ["query", "x", "--dtype", "int4"],
        ["query", "x", "--effort", "3"],
        ["query", "x", "--dims", "0"],
        ["query", "x", "--backend", "annoy"],
        ["query", "x", "--max-pixels", "0"],
        ["eval", "queries.jsonl", "--dims", "385"],
        ["index"],
    ],
)
def test_wrong_usage_is_exit_code_2(home: Path, run: Run, words: list[str]) -> None:
    assert run(*words).code == 2


def test_failed_files_are_exit_code_3_and_the_rest_is_indexed(home: Path, run: Run) -> None:
    (home / "mixed").mkdir()
    shutil.copy(home / "report.pdf", home / "mixed")
    (home / "mixed" / "empty.pdf").touch()

    done = run("index", "mixed", "--db", "new", "--no-ocr")

    assert done.code == 3
    assert done.json["documents"] == 1
    assert [Path(one["path"]).name for one in done.json["failed"]] == ["empty.pdf"]
    assert "empty.pdf: it is empty" in done.err


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are born deaf


def test_a_typing_error_leaves_no_empty_index_behind(home: Path, run: Run) -> None:
    assert run("index", "dosc", "--db", "new").code == 1
    assert not (home / "new").exists()


def test_output_that_cannot_be_written_is_an_error_in_one_line(home: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mmsearch.cli.main", "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode != 0
    assert "no space left" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_name_does_not_steer_the_terminal() -> None:
    assert shown_path("/a\x1b[31mred\n.txt") == "/a\\x1b[31mred\\n.txt"


def holds_something(db: Path) -> bool:
    try:
        with Engine.open(db) as engine:
            return engine.status().segments > 0
    except StoreError:  # not made yet
        return False


def test_an_interrupt_is_exit_code_130_and_the_run_can_be_resumed(home: Path, run: Run) -> None:
    (home / "many").mkdir()
    for number in range(40):
        (home / "many" / f"{number}.md").write_text(f"Note number {number} on the pump.")
    made_files.pdf_bomb(home / "many" / "zzz.pdf")  # takes until somebody interrupts it
    words = ["index", "many", "--db", "new"]
    running = subprocess.Popen(
        [sys.executable, "-m", "mmsearch.cli.main", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=heed_interrupts,
    )
    while running.poll() is None and not holds_something(home / "new"):
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    said = running.communicate()[1]

    assert running.returncode == 130
    assert "run it again to go on" in said
    (home / "many" / "zzz.pdf").unlink()
    resumed = run(*words).json
    assert resumed["skipped"] > 0
    assert resumed["documents"] + resumed["skipped"] == 40


def test_another_model_is_exit_code_4(home: Path, run: Run) -> None:
    described = home / ".mmsearch" / "index.json"
    header = json.loads(described.read_text())
    header["space"]["weights_hash"] = "another"
    described.write_text(json.dumps(header))

    done = run("query", "rain")

    assert done.code == 4
    assert "holds vectors of" in done.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--effort", "3"], "effort 3: default (none) has effort 0 only"),
        (["--dims", "385"], "dims 385: vectors of default have 384 dimensions"),
        (["--max-pixels", "0"], "max-pixels 0: it is 784 to 12,845,056"),
        (["--device", "gpu"], "device gpu: there is none\n  try: --device auto, cpu or cuda:N"),
        (["--dtype", "int4"], "dtype int4: there is none\n  try: --dtype auto, float32 or"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_setting_there_is_not_says_what_there_is_and_makes_no_index(
    home: Path, run: Run, flags: list[str], said: str
) -> None:
    done = run("index", "docs", "--db", "new", "--no-ocr", *flags)

    assert done.code == 2
    assert done.err.startswith(f"error: {said}")
    assert not (home / "new").exists()


def test_an_index_is_asked_as_it_was_made_and_not_otherwise(home: Path, run: Run) -> None:
    made = ["--db", "small", "--dims", "192", "--max-pixels", "50000", "--effort", "0"]
    assert run("index", "docs", "--no-ocr", *made).code == 0

    assert run("query", "pump", "--db", "small").json["hits"]
    assert run("query", "pump", "--model", "default", *made).json["hits"]
    status = run("status", "--db", "small").json
    assert (status["dims"], status["max_pixels"], status["effort"]) == (192, 50_000, 0)
    assert "50,000 pixels" in run("status", "--db", "small", "--no-json").out
    refused = run("query", "pump", "--db", "small", "--dims", "384")
    assert refused.code == 4
    assert "384 dimensions, not 192" in refused.err
    assert run("index", "docs", "--db", "small", "--max-pixels", "50001").code == 4


# ---------------------------------------------------------------- the other commands


def test_a_dry_run_makes_nothing(home: Path, run: Run) -> None:
    done = run("index", "docs", "--db", "new", "--dry-run")

    assert len(done.json["read"]) == 2
    assert not (home / "new").exists()


def test_a_dry_run_says_how_many_pages_minutes_and_gigabytes(home: Path, run: Run) -> None:
    at_first = run("index", "docs", "--db", "new", "--no-ocr", "--dry-run").json["estimate"]
    assert at_first["documents"] == {"image": 1, "pdf": 1}
    assert at_first["segments"] == {"low": 4, "likely": 4, "high": 4}
    assert at_first["opened"] == 1
    assert at_first["rates"] == "of another machine"
    assert 0 < at_first["minutes"]["low"] <= at_first["minutes"]["likely"]

    assert run("index", "docs", "--db", "new", "--no-ocr").code == 0
    again = ["index", "docs", "--db", "new", "--no-ocr", "--dry-run", "--again"]
    assert run(*again).json["estimate"]["rates"] == "of earlier runs on this index"
    said = run(*again, "--no-json").err
    assert "1 pdf, 1 image: 4 segments (1 files opened to count)" in said
    assert "by rates of earlier runs on this index" in said
    nothing = run("index", "docs", "--db", "new", "--no-ocr", "--dry-run")
    assert nothing.json["estimate"]["minutes"]["high"] == 0


def test_status_says_what_the_index_holds(home: Path, run: Run) -> None:
    found = run("status").json

    assert found["documents"] == {"image": 1, "pdf": 1}
    assert found["segments"] == 4
    assert "4" in run("status", "--no-json").out


def test_status_says_how_the_index_answers(home: Path, run: Run) -> None:
    with Engine.open()._store.writing() as writer:
        writer.tag("before-the-move")

    found = run("status").json

    assert found["tags"] == ["before-the-move"]
    assert "before-the-move" in run("status", "--no-json").out

    assert found["schema"] == 2
    assert found["awaits_ocr"] == 0
    assert found["backend"] == "lance"
    assert found["vector_index"] == {"visual": "every row", "text": "every row"}


@pytest.mark.parametrize("backend", ["lance", "exact", "faiss"])
def test_every_backend_that_is_asked_for_answers_the_same(
    home: Path, run: Run, backend: str
) -> None:
    if backend == "faiss":
        with Engine.open() as engine:
            backends.build(engine._store.snapshot(), engine._store.home)
    hit = a_hit(run)

    for command in (["query", "pump"], ["similar", hit["id"]]):
        wanted, found = (run(*command, *flags) for flags in ([], ["--backend", backend]))
        assert found.code == 0, found.err
        ids = [[one["id"] for one in done.json["hits"]] for done in (wanted, found)]
        assert ids[0] == ids[1]
    assert run("eval", "queries.jsonl", "--backend", backend).code == 0
    if backend == "faiss":
        assert run("status").json["backend"] == "faiss"


def test_a_picture_that_is_there_twice_is_said_listed_and_collapsed(home: Path, run: Run) -> None:
    gradient = Image.radial_gradient("L").resize((120, 80))
    gradient.save(home / "docs" / "a.png")
    gradient.resize((90, 60)).save(home / "docs" / "b.png")

    done = run("index", "docs", "--no-ocr")
    assert done.json["alike"] == 1
    assert "1 like another" in done.err

    [group] = [json.loads(line) for line in run("duplicates").out.splitlines()]
    assert [Path(one["path"]).name for one in group["segments"]] == ["a.png", "b.png"]
    assert run("duplicates", "--no-json").out == "docs/a.png\n  docs/b.png\n\n"

    asked = ["query", "--image", "docs/a.png", "--type", "image", "--no-ocr"]
    assert [Path(one["path"]).name for one in run(*asked).json["hits"][:2]] == ["a.png", "b.png"]
    hits = run(*asked, "--collapse").json["hits"]
    assert [one["rank"] for one in hits] == [1, 2, 3]
    assert [Path(one["path"]).name for one in hits] == ["a.png", "red.png", "red.png"]


def test_remove_says_what_it_would_take_out(home: Path, run: Run) -> None:
    path = a_hit(run)["path"]

    assert run("remove", "--dry-run", path).json == {"remove": [path]}
    assert run("remove", "--dry-run", path, "--no-json").out == f"{shown_path(path)}\n"
    assert run("remove", "--dry-run", "never-indexed").code == 1
    assert a_hit(run)["path"] == path


def test_show_prints_a_segment_and_saves_its_thumbnail(home: Path, run: Run) -> None:
    hit = a_hit(run)

    done = run("show", hit["id"], "--save", "page.webp")

    assert done.json["text"] == hit["text"]
    with Image.open("page.webp") as thumbnail:
        assert max(thumbnail.size) <= 256


def test_similar_leaves_the_segment_out(home: Path, run: Run) -> None:
    hit = a_hit(run)

    ids = [one["id"] for one in run("similar", hit["id"]).json["hits"]]

    assert ids
    assert hit["id"] not in ids


def test_a_tag_brings_back_what_was_removed(home: Path, run: Run) -> None:
    everything = run("status").json
    assert run("tag", "create", "all").code == 0
    assert run("remove", a_hit(run)["path"]).code == 0
    assert run("status").json["documents"] != everything["documents"]
    assert run("gc").json.keys() == {"freed"}

    assert run("tag", "restore", "all").code == 0

    assert run("status").json["documents"] == everything["documents"]
    assert [tag["name"] for tag in run("tag", "list").json] == ["all"]
    assert run("doctor").json == {"mended": [], "problems": []}
    again = run("tag", "create", "all")
    assert again.code == 1
    assert "try: mmsearch tag delete all" in again.err


def test_doctor_finds_a_whole_index_whole(home: Path, run: Run) -> None:
    assert run("doctor").json == {"mended": [], "problems": []}


def test_eval_prints_measures_by_kind(home: Path, run: Run) -> None:
    query = {
        "id": "rain",
        "kind": "text-page",
        "text": "rainfall by month",
        "relevant": [{"path": a_hit(run)["path"], "page": 1}],
    }
    (home / "absolute.jsonl").write_text(json.dumps(query) + "\n")

    found = run("eval", "absolute.jsonl").json
    table = run("eval", "absolute.jsonl", "--no-json").out

    assert found["kinds"]["text-page"]["R@1"] == 1.0
    assert "text-page" in table


def test_the_default_model_is_listed(run: Run) -> None:
    assert "default" in [model["name"] for model in run("model", "list").json]


# ---------------------------------------------------------------- out, in, and anew


def test_an_export_comes_back_as_an_index_that_finds_the_same(home: Path, run: Run) -> None:
    found = run("query", "cost of the pump", "--json").json["hits"]

    out = run("export", "out")
    back = run("import", "out", "--db", "copy")

    assert out.json == back.json
    assert (out.json["documents"], out.json["segments"], out.json["thumbnails"]) == (2, 4, 4)
    assert run("query", "cost of the pump", "--json", "--db", "copy").json["hits"] == found
    assert run("import", "out", "--db", "copy").err.endswith(
        "copy is there already and holds something\n  try: name a new or an empty folder\n"
    )
    assert run("export", "more", "--int8").code == 2


def test_an_index_is_rebuilt_by_the_command_that_the_refusal_names(
    home: Path, made: Path, run: Run
) -> None:
    Engine.open(home / "mine", create=True).close()
    run("index", str(home / "docs"), "--db", "mine", "--no-ocr")
    refused = run("query", "pump", "--db", "mine", "--dims", "192")
    remedy = refused.err.partition("mmsearch rebuild ")[2]
    (home / "docs" / "red.png").unlink()

    gone = run("rebuild", *shlex.split(remedy), "--no-ocr", "--json")
    done = run("rebuild", *shlex.split(remedy), "--no-ocr", "--forget-missing", "--json")

    assert refused.code == 4
    assert (gone.code, "--forget-missing" in gone.err) == (1, True)
    assert done.code == 3, "a file is gone"
    assert done.json["missing"] == [str(home / "docs" / "red.png")]
    assert (done.json["documents"], done.json["segments"]) == (1, 3)
    assert run("query", "pump", "--db", "mine", "--json").json["hits"][0]["page"] == 2
    assert run("rebuild", *shlex.split(remedy), "--no-ocr").code == 0, "there is nothing to do"
