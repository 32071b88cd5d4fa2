"""The decoder of the default is trained on caches by the loop that trains everything else."""

from pathlib import Path

import pytest
import torch

from mmsearch.retriever.models.backbones.default import DefaultBackbone
from mmsearch.retriever.models.checkpoint import read_checkpoint
from mmsearch.retriever.models.head import ResidualHead
from mmsearch.retriever.models.tiny import write_random_checkpoint
from mmsearch.retriever.training.default.caches import (
    CachedCollate,
    PictureCache,
    TextCache,
    pictures_of,
    texts_of,
)
from mmsearch.retriever.training.default.pictures import Drawn
from mmsearch.retriever.training.default.reasoners import (
    KINDS,
    Thinned,
    kind_config,
    prepare_cached,
    train_reasoner,
)
from mmsearch.retriever.training.examples import Collate, Example, Side, TrainingBatch
from mmsearch.retriever.training.export import trained_model
from mmsearch.retriever.training.probes import embed_side
from mmsearch.retriever.training.snapshots import find_snapshot
from mmsearch.retriever.training.starting import start_model

SMALL = (
    "run.steps=3", "run.batch=4", "run.device=cpu", "run.workers=0", "run.probe_every=0",
    "run.dtype=float32", "objective.dims=[]", "objective.dim_weights=[]",
    'model.frozen=["backbone.vision.*", "backbone.text.*", "backbone.class_names"]',
)  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [
        Example(
            Side((f"a drawing of {name}",), f"It asks for {name}.", name),
            Side((Drawn("shapes", i, 0),), f"It shows {name}.", name),
            (),
            "shapes",
            str(i),
        )
        for i, name in enumerate(("cats", "dogs", "cows", "bees", "ants", "owls"))
    ]


class Caches:
    """Makes batches for any backbone with the same towers."""

    def __init__(self, folder: Path, examples: list[Example]) -> None:
        self.folder, self.examples = folder, examples

    def __call__(self, backbone: DefaultBackbone) -> Collate:
        pictures = PictureCache(self.folder / "p", pictures_of(self.examples), backbone)
        texts = TextCache(self.folder / "t", texts_of(self.examples), backbone, max_tokens=16)
        pictures.fill(backbone)
        texts.fill()
        return CachedCollate(backbone, pictures, texts)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_random_checkpoint(folder)
    return folder


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_begins_at_the_vectors_of_the_base(
    kind: str, base: Path, examples: list[Example], tmp_path: Path
) -> None:
    config = kind_config(kind, base, SMALL)
    described, plain = read_checkpoint(base)
    described_too, model = start_model(config.model)
    collate = Caches(tmp_path, examples)(model.backbone)
    prepared = prepare_cached(config, model, described_too, collate, examples, [])
    batch = collate(examples, seed=0)
    assert isinstance(plain.head, ResidualHead)
    plain.head.alpha.data.zero_()

    begun = embed_side(model, prepared.description, batch.positive, effort=described_too.effort)
    wanted = embed_side(plain, described, batch.positive, effort=0)

    assert model.reasoner.name == {"lame": "bottleneck", "plume": "rollout"}.get(kind, kind)
    assert not model.head.is_closed()
    torch.testing.assert_close(begun, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_trains_its_decoder_and_no_tower(
    kind: str, base: Path, examples: list[Example], tmp_path: Path
) -> None:
    config = kind_config(kind, base, SMALL)

    report = train_reasoner(config, tmp_path / "run", Caches(tmp_path, examples), examples, [])

    before = dict(read_checkpoint(base)[1].named_parameters())
    _, trained = trained_model(tmp_path / "run", find_snapshot(tmp_path / "run"))
    moved = {
        name
        for name, parameter in trained.named_parameters()
        if name in before and not torch.equal(parameter, before[name])
    }
    assert report.steps == 3
    assert any(name.startswith("backbone.decoder.") for name in moved)
    assert "head.alpha" in moved
    assert not any(name.startswith(("backbone.vision.", "backbone.text.")) for name in moved)


def test_plume_takes_over_the_decoder_that_lame_has_trained(
    base: Path, examples: list[Example], tmp_path: Path
) -> None:
    caches = Caches(tmp_path, examples)
    train_reasoner(kind_config("lame", base, SMALL), tmp_path / "lame", caches, examples, [])
    still = (*SMALL, "optimiser.learning_rate=1e-12", "optimiser.ema=0.0")

    train_reasoner(
        kind_config("plume", base, still), tmp_path / "plume", caches, examples, [],
        carry=tmp_path / "lame",
    )  # fmt: skip

    lame, plume = (
        trained_model(tmp_path / kind, find_snapshot(tmp_path / kind))[1].backbone.decoder
        for kind in ("lame", "plume")
    )
    for one, other in zip(lame.parameters(), plume.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_rationale_stands_on_one_side_of_a_row_at_most(
    base: Path, examples: list[Example], tmp_path: Path
) -> None:
    collate = Caches(tmp_path, examples)(read_checkpoint(base)[1].backbone)

    told = [Thinned(collate, share=1.0)(examples, seed=seed) for seed in range(4)]
    none = Thinned(collate, share=0.0)(examples, seed=0)

    assert {_which(batch, row) for batch in told for row in range(6)} == {"query", "positive"}
    assert {_which(none, row) for row in range(6)} == {""}
    assert told[0].query.sides[0].parts == examples[0].query.parts


def _which(batch: TrainingBatch, row: int) -> str:
    sides = {"query": batch.query, "positive": batch.positive}
    return " and ".join(name for name, side in sides.items() if side.sides[row].rationale)
