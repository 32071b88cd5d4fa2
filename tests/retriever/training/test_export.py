"""What a run learnt is what its folder embeds with, and nothing else is in the folder."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsearch.errors import BadInput
from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.embedding.load import load_embedder
from mmsearch.retriever.models import tiny
from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.models.weight_files import read_header
from mmsearch.retriever.seams import Calibration
from mmsearch.retriever.training.config import (
    DataConfig,
    DataSource,
    DecoderSizes,
    LoraSettings,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RunConfig,
    TrainingConfig,
)
from mmsearch.retriever.training.export import (
    calibration_of,
    export_model,
    export_run,
    held_out_pairs,
    view_of,
)
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.loading import MediaCollate
from mmsearch.retriever.training.looks import content_key
from mmsearch.retriever.training.loop import Run, train
from mmsearch.retriever.training.preparing import prepare, read_rows
from mmsearch.retriever.training.snapshots import write_run_config
from mmsearch.retriever.training.starting import start_model
from mmsearch.retriever.training.toy import toy_examples
from mmsearch.values import Image, Item, View

REASONERS = {"plain": "none", "plume": "rollout", "lame": "bottleneck"}
ITEMS = [Item(["a red bus"]), Item([Image(np.full((40, 60, 3), 99, dtype=np.uint8)), "seen"])]


def configured(
    objective: str = "plain", start: str = "tiny-default", **tables: Any
) -> TrainingConfig:
    """Return a run of two steps with large strides, so that every weight moves."""
    options = {"plume": {"steps": 2}, "lame": {"num_tokens": 2, "num_decoded": 1}}
    sizes = DecoderSizes(width=16, num_layers=1, num_heads=2, num_kv_heads=1, ffn_width=32)
    given: dict[str, Any] = {
        "model": ModelConfig(
            start=start, reasoner=REASONERS[objective], options=options.get(objective, {})
        ),
        "data": DataConfig(toy=8),
        "objective": ObjectiveConfig(objective, decoder=sizes, warm_up=0.0),
        "optimiser": OptimiserConfig(learning_rate=1e-2, schedule="constant", warm_up=0.0),
        "run": RunConfig(steps=2, batch=4, workers=0, device="cpu"),
    }
    return TrainingConfig(**(given | tables))


def trained(config: TrainingConfig, run: Path) -> Model:
    """Train in ``run``; return the model as the loop leaves it."""
    prepared = prepare(config, world=World())
    run.mkdir()
    write_run_config(run, config)
    Run(prepared, run, World()).go(resume=False)
    return prepared.model.eval()


def vectors(folder: Path) -> Any:
    return load_embedder(folder, device="cpu", num_threads=1).embed(ITEMS)


def names_in(folder: Path) -> set[str]:
    return set(read_header(folder / "model.safetensors"))


@pytest.mark.parametrize("start", ["tiny-default", "tiny-qwen2_vl"])
@pytest.mark.parametrize("objective", list(REASONERS))
def test_the_folder_embeds_as_the_trained_model_does_to_the_bit(
    tmp_path: Path, objective: str, start: str
) -> None:
    config = configured(objective, start)
    model = trained(config, tmp_path / "run")

    description = export_run(tmp_path / "run", tmp_path / "out")

    expected = LatentEmbedder(description, model).embed(ITEMS)
    np.testing.assert_array_equal(vectors(tmp_path / "out"), expected)
    before = LatentEmbedder(*start_model(config.model)).embed(ITEMS)
    assert np.abs(before - expected).max() > 1e-3
    assert names_in(tmp_path / "out") == set(model.state_dict())  # LaME's decoder is not there
    assert description.name == "out"
    assert "2 steps" in description.about


def test_lora_is_merged_into_what_is_written(tmp_path: Path) -> None:
    config = configured("plume", "tiny-qwen2_vl", lora=LoraSettings(rank=2, alpha=4.0))
    model = trained(config, tmp_path / "run")

    description = export_run(tmp_path / "run", tmp_path / "out")

    expected = LatentEmbedder(description, model).embed(ITEMS)
    np.testing.assert_allclose(vectors(tmp_path / "out"), expected, atol=1e-5)
    assert not [name for name in names_in(tmp_path / "out") if "lora" in name or "base" in name]
    assert names_in(tmp_path / "out") == set(start_model(config.model)[1].state_dict())


def test_what_never_learnt_is_made_again_as_the_run_made_it(tmp_path: Path) -> None:
    config = configured("lame")
    model_config = dataclasses.replace(config.model, frozen=("reasoner.*",))
    run = dataclasses.replace(config.run, seed=3)
    model = trained(dataclasses.replace(config, model=model_config, run=run), tmp_path / "run")

    description = export_run(tmp_path / "run", tmp_path / "out")

    expected = LatentEmbedder(description, model).embed(ITEMS)
    np.testing.assert_array_equal(vectors(tmp_path / "out"), expected)


def test_averages_are_the_model_where_the_run_kept_some(tmp_path: Path) -> None:
    optimiser = OptimiserConfig(learning_rate=1e-2, schedule="constant", warm_up=0.0, ema=0.9)
    config = configured(optimiser=optimiser)
    prepared = prepare(config, world=World())
    (tmp_path / "run").mkdir()
    write_run_config(tmp_path / "run", config)
    Run(prepared, tmp_path / "run", World()).go(resume=False)

    description = export_run(tmp_path / "run", tmp_path / "out")

    last = LatentEmbedder(description, prepared.model.eval()).embed(ITEMS)
    with prepared.optimiser.averaged():
        expected = LatentEmbedder(description, prepared.model).embed(ITEMS)
    np.testing.assert_array_equal(vectors(tmp_path / "out"), expected)
    assert np.abs(last - expected).max() > 1e-4


def test_int8_rows_are_near(tmp_path: Path) -> None:
    trained(configured(), tmp_path / "run")

    export_run(tmp_path / "run", tmp_path / "whole")
    export_run(tmp_path / "run", tmp_path / "small", quantise=True)

    packed = names_in(tmp_path / "small") - names_in(tmp_path / "whole")
    assert packed
    assert all(name.endswith(".scale") for name in packed)
    assert (vectors(tmp_path / "whole") * vectors(tmp_path / "small")).sum(axis=1).min() > 0.999


def test_any_snapshot_that_is_there_can_be_exported(tmp_path: Path) -> None:
    run = RunConfig(steps=2, batch=4, workers=0, device="cpu", save_every=1)
    trained(configured(run=run), tmp_path / "run")

    export_run(tmp_path / "run", tmp_path / "first", step=1)
    export_run(tmp_path / "run", tmp_path / "last")

    assert np.abs(vectors(tmp_path / "first") - vectors(tmp_path / "last")).max() > 1e-4
    with pytest.raises(BadInput, match="step 3"):
        export_run(tmp_path / "run", tmp_path / "third", step=3)


# ---------------------------------------------------------------- how a cosine reads


class Apart:
    """Embeds the n-th pair's sides ``gap`` radians apart, and every pair far from the others."""

    def __init__(self, items: dict[int, int], gap: float) -> None:
        self.items, self.gap = items, gap

    def embed(self, items: list[Item], *, role: str) -> Any:
        angles = [
            self.items[content_key(item)] * 0.1 + self.gap * (role == "query") for item in items
        ]
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_cosines_are_read_as_held_out_pairs_say(tmp_path: Path) -> None:
    config = configured(data=DataConfig(toy=8, held_out_toy=24))
    model = trained(config, tmp_path / "run")

    description = export_run(tmp_path / "run", tmp_path / "out")

    examples = held_out_pairs(config)
    assert len(examples) == 24
    collate = MediaCollate(model.backbone)
    expected = calibration_of(load_embedder(tmp_path / "out", device="cpu"), collate, examples)
    assert description.calibration == expected
    start = start_model(config.model)[0].calibration
    assert all(description.calibration[sides] != start[sides] for sides in start)
    # Words to drawings and the way back are measured apart.
    assert expected[View.TEXT, View.VISUAL] != expected[View.VISUAL, View.TEXT]


def test_the_midpoint_is_what_the_best_wrong_answer_reaches() -> None:
    examples = toy_examples(30, seed=0)
    collate = MediaCollate(start_model(ModelConfig(start="tiny-default"))[1].backbone)
    numbers = {}
    for number, one in enumerate(examples):
        for side in (one.query, one.positive):
            numbers[content_key(collate.item(side))] = number

    found = calibration_of(Apart(numbers, 0.0), collate, examples)  # type: ignore[arg-type]

    assert found[View.TEXT, View.VISUAL].midpoint == pytest.approx(np.cos(0.1), abs=1e-3)
    assert 1.0 <= found[View.TEXT, View.VISUAL].slope <= 100.0


def test_too_few_pairs_say_nothing(tmp_path: Path) -> None:
    config = configured(data=DataConfig(toy=8, held_out_toy=4))
    trained(config, tmp_path / "run")

    description = export_run(tmp_path / "run", tmp_path / "out")

    assert set(description.calibration.values()) == {Calibration(0.5, 10.0)}  # of the start


def test_held_out_pairs_are_those_that_were_kept_back(tmp_path: Path) -> None:
    lines = [f'{{"query": "word {i}", "positive": "answer {i}"}}\n' for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    source = DataSource(tmp_path / "pairs.jsonl")
    config = configured(data=DataConfig(train=(source,), held_out_share=0.25))

    kept = [one.row for one in held_out_pairs(config)]

    assert len(kept) == 10
    expected = read_rows(config).held_out
    assert kept == [expected[i].row for i in range(len(expected))]


def test_a_large_model_is_not_measured_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    description, model = start_model(ModelConfig(start="tiny-default"))
    embedder, collate = LatentEmbedder(description, model.eval()), MediaCollate(model.backbone)
    examples = toy_examples(60, seed=1)
    asked: list[int] = []
    real = LatentEmbedder.embed

    def watched(self: LatentEmbedder, items: Any, **given: Any) -> Any:
        asked.append(len(items))
        return real(self, items, **given)

    monkeypatch.setattr(LatentEmbedder, "embed", watched)
    calibration_of(embedder, collate, examples, flop_of=lambda _: 1e12)
    assert sum(asked) == 2 * 50  # 1e14 of them
    assert max(asked) <= 16  # and no more are open at a time
    assert calibration_of(embedder, collate, examples, flop_of=lambda _: 6e12) == {}  # 8 pairs


def test_a_pair_that_gives_itself_away_calibrates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not looked at")
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        '{"query": {"image": "a.png"}, "positive": {"image": "a.png"}}\n'
        '{"query": "a", "positive": {"image": "a.png"}}\n'
        '{"query": "b", "positive": "c"}\n{"query": "d", "positive": "e"}\n'
    )
    source = DataSource(file)
    config = configured(data=DataConfig(train=(source,), held_out=(source,)))

    assert [one.row for one in held_out_pairs(config)] == [f"pairs.jsonl:{i}" for i in (2, 3, 4)]


def test_a_model_is_exported_where_its_data_are_gone(tmp_path: Path) -> None:
    lines = [f'{{"query": "word {i}", "positive": "answer {i}"}}\n' for i in range(16)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(lines))
    trained(
        configured(data=DataConfig(train=(DataSource(file),), held_out_share=0.2)),
        tmp_path / "run",
    )
    file.unlink()

    export_run(tmp_path / "run", tmp_path / "out")

    assert vectors(tmp_path / "out").shape == (2, 32)


def test_words_alone_are_text_and_anything_seen_is_not() -> None:
    assert [view_of(item) for item in ITEMS] == [View.TEXT, View.VISUAL]


# ---------------------------------------------------------------- refusals


def test_a_start_that_changed_since_is_refused(tmp_path: Path) -> None:
    # What was frozen is in no snapshot: the other folder's words would be exported as its own.
    folder = tmp_path / "start"
    tiny.write_random_checkpoint(folder, seed=1)
    frozen = ModelConfig(start=str(folder), frozen=("backbone.text.*",))
    config = configured(model=frozen)
    train(config, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "first")
    shutil.rmtree(folder)
    tiny.write_random_checkpoint(folder, seed=2)

    for again in (
        lambda: export_run(tmp_path / "run", tmp_path / "second"),
        lambda: train(config, tmp_path / "run", resume=True),
    ):
        with pytest.raises(BadInput, match="that is another model now") as caught:
            again()
        assert str(folder) in caught.value.hint
    assert not (tmp_path / "second").exists()


def test_nothing_is_written_over_and_nothing_half_is_left(tmp_path: Path) -> None:
    config = configured()
    trained(config, tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(BadInput, match="there already"):
        export_run(tmp_path / "run", tmp_path / "out")

    description, model = start_model(config.model)
    del model.backbone.tokenizer  # writing fails in the middle
    with pytest.raises(AttributeError):
        export_model(model, description, tmp_path / "new")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "run"]
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_run_whose_start_is_another_model_now_is_not_mixed_with_it(tmp_path: Path) -> None:
    trained(configured("lame"), tmp_path / "run")
    other = dataclasses.replace(
        configured("lame"),
        model=ModelConfig(start="tiny-default", reasoner="bottleneck", options={"num_tokens": 4}),
    )
    write_run_config(tmp_path / "run", other)

    with pytest.raises(BadInput, match=r"reasoner\.reason"):
        export_run(tmp_path / "run", tmp_path / "out")


def test_a_folder_without_a_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        export_run(tmp_path / "nowhere", tmp_path / "out")


def test_torch_draws_go_on_as_if_nothing_had_been_exported(tmp_path: Path) -> None:
    trained(configured(), tmp_path / "run")
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)

    export_run(tmp_path / "run", tmp_path / "out")

    assert torch.equal(torch.rand(2), expected)
