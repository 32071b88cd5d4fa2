import json
from pathlib import Path

import pytest
import torch

from mmsearch.errors import BadConfig
from mmsearch.retriever.training.config import (
    DataConfig,
    RunConfig,
    TrainingConfig,
    config_of,
    differences,
    read_config,
)
from mmsearch.retriever.training.starting import start_model
from mmsearch.training import known_configs, load_config

TOML = """\
# words about it
[model]
start = "tiny-default"

[[data.train]]
path = "one.jsonl"
[[data.train]]
path = "two.jsonl"
layout = "ume"

[objective.weights]
ce = 2          # a whole number where a fraction is meant

[run]
steps = 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    return path


def refused(file: Path, text: str = TOML, *overrides: str) -> BadConfig:
    file.write_text(text)
    with pytest.raises(BadConfig) as caught:
        read_config(file, overrides)
    return caught.value


def test_a_file_says_what_it_says_and_the_rest_is_as_documented(file: Path) -> None:
    config = read_config(file)
    assert config.objective.weights.ce == 2.0
    assert config.objective.weights.gen == 1.0
    assert [one.layout for one in config.data.train] == ["pairs", "ume"]
    assert config.run.steps == 5
    assert config.lora is None


def test_paths_are_relative_to_the_file_and_those_of_overrides_to_the_working_folder(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_config(file).data.train[0].path == tmp_path / "one.jsonl"
    config = read_config(file, ['data.train=[{path="mine.jsonl"}]'])
    assert config.data.train[0].path == tmp_path / "elsewhere" / "mine.jsonl"
    assert read_config(file, home=tmp_path / "elsewhere").data.train[0].path == (
        tmp_path / "elsewhere" / "one.jsonl"
    )


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("run.batch=8", 8),
        ("run.dtype=bfloat16", "bfloat16"),  # no TOML, so a string
        ('run.dtype="bfloat16"', "bfloat16"),
        ("run.epochs=1.5", 1.5),
    ],
)
def test_an_override_is_a_toml_value_or_a_word(file: Path, override: str, value: object) -> None:
    config = read_config(file, [override])
    assert getattr(config.run, override.partition("=")[0].removeprefix("run.")) == value


def test_steps_that_are_asked_for_take_the_place_of_epochs(file: Path) -> None:
    config = read_config(file, ["run.epochs=1.5"])
    assert (config.run.steps, config.run.epochs) == (0, 1.5)
    with pytest.raises(BadConfig, match="either steps or epochs"):
        read_config(file, ["run.epochs=1.5", "run.steps=3"])


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest(file: Path) -> None:
    error = refused(file, TOML.replace("steps = 5", "stps = 5"))
    assert str(error) == f"{file}, line 15: run.stps is no key"
    assert error.hint == "did you mean steps?"
    assert error.exit_code == 2


def test_a_line_is_found_in_the_right_one_of_several_tables(file: Path) -> None:
    error = refused(file, TOML.replace('layout = "ume"', 'layout = "umy"'))
    assert "line 9: data.train.1.layout" in str(error)
    assert "'pairs', 'ume', 'mmeb'" in str(error)


def test_what_the_command_line_says_is_not_looked_for_in_the_file(file: Path) -> None:
    error = refused(file, TOML, "run.batch=yes")
    assert str(error).startswith("--set run.batch: ")


def test_one_drawing_is_not_enough(file: Path) -> None:
    assert "toy is 1, and contrast needs" in str(refused(file, "data.toy = 1\nrun.steps = 2\n"))


def test_a_home_that_nobody_has_is_a_name_like_any_other(file: Path) -> None:
    path = "~no such user/pairs.jsonl"
    file.write_text("[run]\nsteps = 2\n[data]\ntrain = [{path = '" + path + "'}]\n")
    assert read_config(file).data.train[0].path == file.parent / path
    said = read_config(file, [f"data.train=[{{path='{path}'}}]"])
    assert said.data.train[0].path == Path.cwd() / path


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.batch=1", "contrast needs at least 2 pairs"),
        ("run.batch=yes", "run.batch is 'yes', not a whole number"),
        ("run.batch=true", "run.batch is True, not a whole number"),
        ("run.workers=-1", "cannot be negative"),
        ("run.steps=0", "either steps or epochs"),
        ("run.keep=0", "one snapshot has to stay"),
        ("optimiser.betas=[0.9]", "1 values, not 2"),
        ("optimiser.learning_rate=nan", "not a number"),
        ("optimiser.learning_rate=0.0", "more than 0"),
        ("optimiser.learning_rate=1" + 400 * "0", "larger number than can be counted with"),
        ("optimiser.betas=[0.9, 1.0]", "have to be in [0, 1)"),
        ("optimiser.learning_rate=1e39", "far less"),
        ("optimiser.eps=0", "eps is 0.0, and has to be more than 0"),
        ("objective.decoder.num_heads=0", "num_heads is 0, and counts from 1"),
        ("objective.decoder.num_heads=3", "does not make 3 heads of an even width"),
        ("objective.decoder.num_kv_heads=3", "num_kv_heads is 3, of 4 num_heads"),
        ("run.seed=99999999999999999999", "larger number than can be counted with"),
        ("run.batch=1000001", "more than 1,000,000 pairs"),
        ("data.train=[{path=3}]", "data.train.0.path is 3, not a path"),
        ("data.train=3", "data.train is 3, not a list"),
        ("model.options=3", "not a table"),
        ("optimiser.schedule=cosin", "not one of 'cosine'"),
        ("objective.name=plum", "not one of 'plain', 'plume', 'lame'"),
        ("objective.dim_weights=[1.0]", "1 dim_weights for 0 dims"),
        ("objective.ratios=[0.5, 0.25]", "have to grow"),
        ("data.toy=4", "name the files"),
        ("data.held_out_share=1.0", "[0, 1)"),
        ("model=3", "model is 3, not a table"),
        ("lora.rank=0", "counts from 1"),
        ("run", "is not table.key=value"),
        ("run.steps.more=1", "no table"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(file: Path, override: str, said: str) -> None:
    assert said in str(refused(file, TOML, override))


def test_what_is_no_toml_or_no_file_is_refused(file: Path) -> None:
    assert "it is not TOML" in str(refused(file, "[run\nsteps = 1"))
    with pytest.raises(BadConfig, match="no such file"):
        read_config(file.with_name("nowhere.toml"))


def test_a_source_needs_a_path(file: Path) -> None:
    error = refused(file, TOML.replace('path = "one.jsonl"', 'layout = "pairs"'))
    assert "data.train.0 lacks path" in str(error)


def test_as_json_and_back_it_is_equal(file: Path) -> None:
    config = read_config(file, ["lora.rank=4", "model.options={steps = 3}"])
    assert config_of(json.loads(json.dumps(config.as_dict()))) == config


def test_differences_name_every_value() -> None:
    one = TrainingConfig(data=DataConfig(toy=4), run=RunConfig(steps=5))
    other = TrainingConfig(data=DataConfig(toy=4), run=RunConfig(steps=7, seed=1))
    assert list(differences(one, other)) == ["run.seed is 0, not 1", "run.steps is 5, not 7"]
    assert list(differences(one, one)) == []


@pytest.mark.parametrize("name", [one.name for one in known_configs()])
def test_every_ready_configuration_is_one(name: str) -> None:
    config = load_config(name)
    assert config.run.steps or config.run.epochs


def test_the_ready_configurations_are_those_of_the_issue() -> None:
    names = {one.name for one in known_configs()}
    assert {"plume-qwen2vl-2b", "lame-qwen2vl-2b", "default", "tiny"} == names
    assert all(one.about for one in known_configs())


def test_a_name_that_is_neither_file_nor_ready_is_refused() -> None:
    with pytest.raises(BadConfig, match="lame-qwen2vl-2b"):
        load_config("plume-qwen")


# What the papers and their code say of a 2B model; where a configuration does better than
# they do (negatives of the whole batch, float32 weights), it says so itself.
PAPERS: dict[str, dict[str, object]] = {
    "plume-qwen2vl-2b": {
        "model.start": "ume-r1",
        "model.reasoner": "rollout",
        "model.readout": "gen",
        "model.max_pixels": 1_536 * 1_536,
        "model.max_frames": 8,
        "model.options": {
            "steps": 8,
            "context": "disc",
            "adapter": {"num_experts": 4, "top_k": 2, "dropout": 0.1},
        },
        "objective.name": "plume",
        "objective.temperature": 0.02,
        "objective.dims": [],
        "objective.ratios": [0.25, 0.5, 0.75, 1.0],
        "objective.final_share": 0.5,
        "objective.segments": 0,
        "objective.weights.ce": 1.0,
        "objective.weights.gen": 1.0,
        "objective.weights.anchor": 1.0,
        "objective.weights.balance": 0.1,
        "objective.weights.hold": 0.0,
        "optimiser.learning_rate": 5e-5,
        "optimiser.new_learning_rate": 0.0,
        "optimiser.schedule": "cosine",
        "optimiser.warm_up": 0.03,
        "optimiser.weight_decay": 0.0,
        "optimiser.clip": 1.0,
        "run.epochs": 2.0,
        "run.batch": 16 * 16 * 4,
        "run.dtype": "bfloat16",
        "run.checkpointing": True,
        "lora": None,
    },
    "lame-qwen2vl-2b": {
        "model.start": "qwen2-vl",
        "model.reasoner": "bottleneck",
        "model.options": {"num_tokens": 8, "num_decoded": 4},
        "model.max_frames": 8,
        "objective.name": "lame",
        "objective.temperature": 0.02,
        "objective.warm_up": 0.2,
        "objective.weights.disc": 1.0,
        "objective.weights.gen": 1.0,
        "objective.weights.reconstruction": 0.5,
        "optimiser.learning_rate": 5e-5,
        "optimiser.new_learning_rate": 5e-4,
        "run.batch": 1_024,
        "run.dtype": "bfloat16",
        "lora": None,
    },
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_numbers_are_in_their_configurations(name: str) -> None:
    told = load_config(name).as_dict()
    found = {}
    for key in PAPERS[name]:
        value = told
        for part in key.split("."):
            value = value[part]
        found[key] = value
    assert found == PAPERS[name]


@pytest.mark.parametrize("name", PAPERS)
def test_the_vision_tower_stays_and_what_joins_it_to_the_words_learns(name: str) -> None:
    config = load_config(name, ["model.start=tiny-qwen2_vl"])
    _, model = start_model(config.model, device=torch.device("cpu"), seed=0)
    learns = {of: one.requires_grad for of, one in model.named_parameters()}
    tower = [of for of in learns if of.startswith("backbone.vision.") and ".merger." not in of]
    assert tower
    assert {of for of, does in learns.items() if not does} == set(tower)
