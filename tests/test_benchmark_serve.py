"""Measures and soak of the server run, at toy size; what they measure means nothing here."""

import asyncio
import importlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_files
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("multipart", reason="the extra 'serve' is not installed")

from mmsearch.serving import server as serving
from mmsearch.serving.settings import Settings

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts, and no part of the package

serve_soak = importlib.import_module("serve_soak")
document, hostile, measures, running, wire = (
    importlib.import_module(f"serve_speed.{name}")
    for name in ("document", "hostile", "measures", "running", "wire")
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that last and files that pass, as the soak lays them out."""
    root = tmp_path_factory.mktemp("soak") / "root"
    (root / "lasting").mkdir(parents=True)
    (root / "passing").mkdir()
    made_files.pdf(root / "lasting" / "chart.pdf", "A chart of the pump.")
    Image.new("RGB", (60, 40), (200, 30, 30)).save(root / "lasting" / "red.png")
    (root / "passing" / "first.md").write_text("the first\n")
    return root


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Any]:
    """A server in this process."""
    db = root.parent / "db"
    model = WordEmbedder()
    with Engine.open(db, create=True, model=model) as engine:
        engine.index([root], ocr=False, num_workers=1)
    with serving.running(Settings(dbs=(db,), port=0, model=model, roots=(root,))) as url:
        host, port = url.removeprefix("http://").split(":")
        yield running.Server(host, int(port), os.getpid(), 0.0, Path(os.devnull))


def test_no_question_is_asked_twice() -> None:
    asked = measures.questions(0)

    assert len({next(asked) for _ in range(1000)}) == 1000


def test_many_at_once_are_all_answered(served: Any) -> None:
    figures = measures.concurrency(served, each=4, rounds=1)

    assert (figures["asked"], figures["dropped"]) == (4 + 16, 0)
    assert figures["together_p99_ms"] >= figures["together_p50_ms"] > 0


def test_both_encodings_are_read_as_the_same_vectors(served: Any) -> None:
    spent = asyncio.run(measures._encode(served, 3, 1))

    assert {name: len(seconds) for name, seconds in spent.items()} == {"float": 1, "base64": 1}


def test_traffic_is_answered_while_files_come_and_go(served: Any, root: Path) -> None:
    findings = serve_soak.Findings()

    jobs = asyncio.run(serve_soak.soak_all(served, root, 1.5, 0, findings))

    assert findings.wrong == []
    assert jobs >= 1
    assert sum(map(len, findings.seconds.values())) >= 4
    assert findings.as_dict()["server_mib"]["peak"] > 0


def test_a_wrong_answer_is_noticed(
    served: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = serve_soak.traffic._get(lambda world, dice: "/v1/segments/0000000000000000")
    monkeypatch.setattr(serve_soak.traffic, "ASKS", {"wrong": (1, wrong)})
    findings = serve_soak.Findings()

    asyncio.run(serve_soak.soak_all(served, root, 0.1, 0, findings))

    assert findings.num_wrong >= 1
    assert findings.wrong[0].startswith("wrong: 404")


def test_damaged_uploads_are_answered(served: Any, tmp_path: Path) -> None:
    findings = serve_soak.Findings()

    asyncio.run(serve_soak.upload_all(served, tmp_path / "mutants", 12, 0, findings))

    assert findings.wrong == []
    assert set(findings.statuses) <= {"200", "400", "413", "422"}
    assert findings.statuses.total() == 12


@pytest.mark.parametrize(
    "name",
    ["no HTTP", "a foreign host", "deep brackets", "half a body", "a picture bomb", "two lengths"],
)
def test_a_hostile_client_harms_nobody(served: Any, name: str) -> None:
    findings = serve_soak.Findings()

    asyncio.run(serve_soak.attack_all(served, [name], findings))

    assert findings.wrong == []
    [said] = findings.statuses
    assert re.fullmatch(rf"{name}: (4\d\d|hung up)", said)


def test_growth_is_what_the_last_fifth_holds_beyond_the_second() -> None:
    findings = serve_soak.Findings()

    findings.check_growth("flat", [100.0] * 4 + [600.0] * 12 + [625.0] * 4)
    findings.check_growth("grown", [100.0] * 4 + [600.0] * 12 + [660.0] * 4)

    assert findings.grew == ["grown grew from 600 to 660 MiB"]
    findings.descriptors += [20] * 16 + [160] * 4
    findings.check_descriptors()
    findings.descriptors += [400] * 5
    findings.check_descriptors()
    assert findings.grew[1:] == ["files that are open grew from 20 to 400"]


def test_tables_take_the_place_of_those_that_are_there(tmp_path: Path) -> None:
    page = tmp_path / "serving.md"
    page.write_text("# Serving\n\nBefore.\n")
    here = document.machine()
    speed: dict[str, Any] = {
        "encodings": {
            "figures": {
                "float_vectors_per_s": 1000.0,
                "base64_vectors_per_s": 4000.0,
                "base64_ratio": 4.0,
            },
            "machine": here,
            "date": "2026-01-31",
        }
    }
    document.write(page, speed=speed)
    page.write_text(page.read_text() + "\nAfter.\n")
    speed["encodings"]["figures"]["base64_ratio"] = 6.0
    once = page.read_text()
    document.write(page, speed=speed)

    assert "| base64 against floats | 4 x | >= 5 x | missed |" in once
    assert "| base64 against floats | 6 x | >= 5 x |  |" in page.read_text()
    assert page.read_text().count("<!-- speed") == 1
    assert page.read_text().startswith("# Serving\n\nBefore.\n")
    assert page.read_text().endswith("\nAfter.\n")


def test_files_come_change_and_go(tmp_path: Path) -> None:
    for turn in range(40):
        serve_soak.change(tmp_path, random.Random(turn), turn)

    assert 1 <= len(list(tmp_path.iterdir())) <= 24
    assert any("Changed" in path.read_text() for path in tmp_path.glob("*.md"))


def test_the_committed_figures_are_those_of_the_page() -> None:
    results, page = ROOT / "benchmarks/results/serve.json", ROOT / "docs/serving.md"
    if not (results.exists() and page.exists()):
        pytest.skip("nothing has been measured yet")
    rows = document._speed(json.loads(results.read_text()))

    assert "\n".join(rows) in page.read_text()
