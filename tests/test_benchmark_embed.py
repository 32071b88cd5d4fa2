"""The benchmark of latent reasoning: what it counts, what it refuses to believe, and that it runs.

Networks are tiny and times mean nothing here; nothing asserts them.
"""

import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmsearch.retriever.models.backbones.kv_cache import SEEN_STEP

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts, and no part of the package

cells, check, clock, flops, parity, published, report, run, shapes, stand_ins, targets = (
    importlib.import_module(f"embed_speed.{name}")
    for name in (
        "cells",
        "check",
        "clock",
        "flops",
        "parity",
        "published",
        "report",
        "run",
        "shapes",
        "stand_ins",
        "targets",
    )
)

StandIn: Any = stand_ins.StandIn
CPU = torch.device("cpu")
COT_TOKENS = 5
LATENT = ("none", "lame", "plume-0", "plume-4", "plume-8")
# A GPU machine has torch and its friends, and need not have these.
NOT_NEEDED = (
    "lancedb",
    "pyarrow",
    "faiss",
    "typer",
    "rich",
    "pymupdf",
    "decord",
    "rapidocr",
    "onnxruntime",
    "ir_measures",
)
RUN = f"""
import json, runpy, sys
from pathlib import Path
sys.argv = ["embed.py", *sys.argv[1:]]
runpy.run_path({str(ROOT / "benchmarks" / "embed.py")!r}, run_name="__main__")
Path(sys.argv[-1]).with_suffix(".modules").write_text(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def bench() -> Any:
    networks = shapes.networks(
        "tiny", device=CPU, dtype=torch.float32, seed=0, cot_tokens=COT_TOKENS
    )
    hf = shapes.hf_config("tiny")
    costs = {name: flops.Costs.of(one.model, hf) for name, one in networks.items()}
    return cells.Bench(networks, costs, CPU, clock.Budget(600.0), 0.0, 8, seed=0)


# ---------------------------------------------------------------- the whole run


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], list[str]]:
    """Return what a small run printed and wrote, and the modules it imported."""
    out = tmp_path_factory.mktemp("bench") / "embed.json"
    options = "--size tiny --device cpu --inputs text image --cot-tokens 4 --max-batch 2"
    limits = "--max-seconds 0.01 --total-seconds 600 --out"
    command = [sys.executable, "-c", RUN, *options.split(), *limits.split(), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    modules = json.loads(out.with_suffix(".modules").read_text())
    return done.stdout, json.loads(out.read_text()), modules


def test_a_run_measures_every_reasoner_on_every_input(
    whole_run: tuple[str, dict[str, Any], list[str]],
) -> None:
    printed, written, _ = whole_run
    alone = {(cell["input"], cell["reasoner"]) for cell in written["cells"] if cell["batch"] == 1}
    settled = {(cell["input"], cell["reasoner"]) for cell in written["cells"] if cell["best"]}
    inputs = ("text", "image")
    assert alone == {(name, one) for name in inputs for one in (*LATENT, "cot", "generate")}
    assert settled == {(name, one) for name in inputs for one in LATENT}
    assert {step["input"] for step in written["steps"]} == set(inputs)
    assert set(written["end_to_end"]) == {
        f"{name}, {one}" for name in inputs for one in ("none", "plume-8")
    }
    assert written["left_out"] == []
    for target in written["targets"]:
        assert target["what"] in printed
        assert target["met"] is None, "the targets are for another machine"


def test_a_run_says_what_it_was_measured_on(
    whole_run: tuple[str, dict[str, Any], list[str]],
) -> None:
    _, written, _ = whole_run
    assert written["machine"]["torch"] == torch.__version__
    assert written["settings"]["cot_tokens"] == 4
    assert "--max-batch 2" in written["command"]
    assert written["tokens"]["image"] == {
        "prompt": shapes.PROMPT_TOKENS + 2 + 256,  # 448 pixels are 16 tokens of 28, squared
        "visual": 256,
    }
    assert written["matmul_flops"] == max(written["matmul_runs"])


def test_a_run_finds_items_alone_as_in_a_batch(
    whole_run: tuple[str, dict[str, Any], list[str]],
) -> None:
    _, written, _ = whole_run
    assert len(written["sanity"]) == len(LATENT)
    assert min(written["sanity"].values()) >= 0.9999


def test_a_run_needs_torch_and_its_friends_alone(
    whole_run: tuple[str, dict[str, Any], list[str]],
) -> None:
    _, _, modules = whole_run
    assert "transformers" in modules
    assert [name for name in NOT_NEEDED if name in modules] == []


def test_a_run_without_time_names_what_it_left_out(tmp_path: Path) -> None:
    plan = run.Plan(
        size="tiny",
        device=CPU,
        dtype=torch.float32,
        inputs=("text",),
        reasoners=("none", "plume-8", "cot"),
        batches=(),
        cot_tokens=4,
        prompt_tokens=8,
        max_batch=2,
        cell_s=0.01,
        total_s=0.0,
        seed=0,
    )
    found = report.Findings("tiny", "", plan.settings(), judged=False)
    run.measure_all(plan, found, lambda: None)
    assert found.cells == []
    assert found.left_out[0] == "text, batch 1: none, plume-8"
    assert "left out: text, batch 1: cot" in report.table(found, report.machine(CPU))


# ---------------------------------------------------------------- what it counts


@pytest.mark.parametrize("name", ["text", "image", "video"])
@pytest.mark.parametrize("reasoner", ["none", "lame", "plume-8"])
def test_operations_are_those_that_torch_counts_less_what_is_masked(
    bench: Any, name: str, reasoner: str
) -> None:
    network, costs = bench.networks[reasoner], bench.costs[reasoner]
    prepared = bench.prepare(name, 1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.embed(prepared.batch)
    counted, _ = flops.work(network.model, costs, prepared.seen, effort=network.description.effort)

    n = prepared.seen.num_tokens + (9 if reasoner == "lame" else 0)
    masked = n * n - n * (n + 1) // 2  # of the prompt, where no token sees a later one
    unchosen = 0
    if reasoner == "plume-8":
        suffix = len(network.model.reasoner.suffix)
        # Steps read whole blocks of places as far as there are any, in part for nothing.
        for before, new in [*((n + step, 1) for step in range(8)), (n + 8, suffix)]:
            read = min(-(-(before + new) // SEEN_STEP) * SEEN_STEP, n + 8 + suffix)
            masked += new * read - sum(before + 1 + i for i in range(new))
        width = network.model.backbone.width
        unchosen = 8 * 2 * (2 * 2 * width * 2 * width)  # steps, two experts of two matrices
    per_pair = 4 * costs.attention_width * costs.num_layers
    assert counter.get_total_flops() == counted + per_pair * masked + unchosen


def test_the_published_shape_has_the_published_number_of_weights() -> None:
    described = shapes.describe("2b", "rollout", 8, "gen", cot_tokens=4, prompt_tokens=84)
    with torch.device("meta"):
        model = shapes.build_model(described, shapes.tiny_tokenizer())
    assert sum(weight.numel() for weight in model.backbone.parameters()) == 2_208_985_600
    assert sum(weight.numel() for weight in model.reasoner.parameters()) == 47_273_476


def test_every_thought_is_exactly_as_long_as_asked(bench: Any) -> None:
    network = bench.networks["cot"]
    batch = bench.prepare("text", 3).batch
    counted = stand_ins.Counted(network.backbone)
    dataclasses.replace(network, backbone=counted).embed(batch)
    assert counted.calls == COT_TOKENS


def test_a_token_that_would_end_a_thought_is_never_said(bench: Any) -> None:
    backbone = bench.networks["none"].model.backbone
    hidden = backbone.embed(torch.tensor([7, 9]))  # a tied table likes the token it is shown
    assert backbone.logits(hidden).argmax(dim=-1).tolist() == [7, 9]
    assert stand_ins.Unending(backbone, 7).logits(hidden).argmax(dim=-1)[0] != 7


def test_transformers_writes_on_the_same_weights_exactly_as_much_as_asked(bench: Any) -> None:
    batch = bench.prepare("image", 1).batch
    theirs = published.Generate.of(bench.networks["cot"], CPU, tokens=COT_TOKENS)
    ids = theirs.embed(batch)
    ours = stand_ins.Counted(bench.networks["cot"].model.backbone)
    with torch.inference_mode():
        hidden, _ = ours.prefill(batch)
    assert ids.shape[1] == batch.ids.shape[1] + COT_TOKENS
    assert ids[0, batch.ids.shape[1]] == ours.logits(hidden[:, -1]).argmax()


# ---------------------------------------------------------------- how it searches and times


class FailsAt:
    """Embeds nothing, and is out of memory from a batch size on."""

    def __init__(self, network: Any, size: int) -> None:
        self.description, self.model, self.size = network.description, network.model, size

    def embed(self, batch: Any) -> Tensor:
        if len(batch.ids) >= self.size:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(1)

    warm_up = embed


def test_a_search_ends_where_a_batch_does_not_fit(bench: Any) -> None:
    failing = dataclasses.replace(
        bench,
        networks={"none": FailsAt(bench.networks["none"], 4)},
        budget=clock.Budget(600.0),
        cells=[],
        cell_s=60.0,
    )
    failing.search("text", ["none"])
    assert [cell.batch for cell in failing.cells] == [2]
    assert failing.budget.left_out == ["text, batch 4: out of memory"]


def test_the_settled_cell_of_a_reasoner_counts_before_a_lucky_one() -> None:
    def cell(batch: int, p50_s: float, *, best: bool = False) -> Any:
        return cells.Cell("page", "none", batch, 10, 100, 3, p50_s, p50_s, 0, best)

    searched = [cell(1, 1.0), cell(2, 0.1), cell(2, 0.5, best=True)]
    assert cells.fastest(searched, "page", "none") == searched[2]
    assert cells.alone(searched, "page", "none") == searched[0]
    assert cells.fastest(searched, "text", "none") is None


def test_a_target_is_a_ratio_of_the_right_cells() -> None:
    def cell(reasoner: str, batch: int, p50_s: float) -> Any:
        return cells.Cell("page", reasoner, batch, 10, 100, 3, p50_s, p50_s, 0)

    found = targets.targets(
        [
            cell("none", 1, 0.5),
            cell("none", 4, 1.0),  # 4 a second
            cell("plume-8", 1, 1.0),  # 1 a second
            cell("plume-8", 8, 2.5),  # 3.2 a second
            cell("generate", 1, 45.0),
        ],
        [cells.Step("page", 0.003, 0.0015, 10)],
        800.0,
    )
    by_name = {one.what: (one.found, one.met) for one in found}
    assert by_name["plume-8 / none, samples/s at best batch, page"] == (0.8, False)
    assert by_name["plume-8 batched / batch 1, samples/s, page"] == (3.2, False)
    assert by_name["generate / plume-8, latency at batch 1, page"] == (45.0, True)
    assert by_name["latent step at batch 1, page, by itself"] == (1.5, True)
    assert by_name["latent step at batch 1, page, (K=8 - K=0) / 8"] == (3.0, False)
    assert by_name["share of the matmul ceiling, page, none"] == (50.0, True)


def test_calls_take_turns_at_being_first() -> None:
    order: list[str] = []

    def call(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    spent = clock.in_turn({name: call(name) for name in "abc"}, CPU, rounds=3, seconds=60.0)
    assert "".join(order) == "abcbcacab"
    assert [len(one.seconds) for one in spent.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(100, 0.99, 99), (100, 0.5, 50), (10, 0.99, 10), (1, 0.5, 1)]
)
def test_a_quantile_is_the_value_that_so_many_do_not_exceed(
    count: int, share: float, expected: int
) -> None:
    assert clock.quantile(list(range(count, 0, -1)), share) == expected


# ---------------------------------------------------------------- what it refuses to believe


class Stale(StandIn):  # type: ignore[misc]
    """Repeats what it saw first, as a graph would whose inputs were not copied in."""

    result: Tensor | None = None

    def run_steps(self, steps: Callable[..., Tensor], cache: Any, *inputs: Tensor) -> Tensor:
        fresh = steps(cache, *inputs)
        if self.result is None or len(self.result) != len(fresh):
            self.result = fresh
        return self.result


class Leaky(StandIn):  # type: ignore[misc]
    """Lets the rows of a batch see each other."""

    def prefill(self, batch: Any, **options: Any) -> Any:
        hidden, cache = self.backbone.prefill(batch, **options)
        return hidden + 0.1 * hidden.mean(dim=0), cache


def test_a_graph_that_repeats_itself_is_found_out(bench: Any) -> None:
    network = bench.networks["plume-8"]
    mixed = bench.items("text", 8)
    assert parity.graph_error(network, mixed) == 0
    stale = dataclasses.replace(network, backbone=Stale(network.backbone))
    assert parity.graph_error(stale, mixed) > 0.01


def test_rows_that_see_each_other_are_found_out(bench: Any) -> None:
    network = bench.networks["none"]
    mixed = [*bench.items("text", 2), *bench.items("image", 2)]
    assert parity.alone_in_batch(network, mixed) > 0.999999
    leaky = dataclasses.replace(network, backbone=Leaky(network.backbone))
    assert parity.alone_in_batch(leaky, mixed) < 0.9999


def test_all_checks_pass_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.check(CPU, seed=0) == 0
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        assert f"theirs: {family} item 5" in printed
        assert f"alone: {family} rollout bfloat16 in a batch" in printed


def test_a_failed_check_and_a_logged_fallback_are_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_wrong(device: torch.device, seed: int) -> Any:
        yield check.Check("cosine", float("nan"), 0.999)
        yield check.Check("cosine", 0.9999, 0.999)

    monkeypatch.setattr(check, "checks", one_wrong)
    assert check.check(CPU, seed=0) == 1
    assert capsys.readouterr().out.count("FAILED") == 1

    def slow(device: torch.device, seed: int) -> Any:
        import logging

        logging.getLogger("mmsearch.retriever").warning("latent steps run unrecorded")
        yield check.Check("cosine", 0.9999, 0.999)

    monkeypatch.setattr(check, "checks", slow)
    assert check.check(CPU, seed=0) == 1
    assert "FAILED latent steps run unrecorded" in capsys.readouterr().out
