import pytest
import torch
import torch.nn.functional as F

from mmsearch.retriever.models.tiny import random_model, tiny_description
from mmsearch.retriever.training.examples import Example, Side
from mmsearch.retriever.training.gathering import World
from mmsearch.retriever.training.loading import MediaCollate, open_still
from mmsearch.retriever.training.probes import Probe, embed_side, recall
from mmsearch.retriever.training.records import listed_rows
from mmsearch.retriever.training.toy import toy_examples


def keys(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def test_recall_counts_the_right_ones_among_the_first() -> None:
    # Entry i is i tenths of a right angle away from query 0, whose own is the seventh nearest.
    angles = torch.arange(12) * 0.1
    pool = torch.stack([angles.cos(), angles.sin()], dim=1)
    queries = pool[:1].expand(12, -1).clone()
    order = torch.tensor([6, *(n for n in range(12) if n != 6)])
    found = recall(queries, pool[order], torch.arange(12), torch.arange(12))
    # Of the twelve queries, that stand at one spot, one has its own first, five within five.
    assert found == pytest.approx({"1": 1 / 12, "5": 5 / 12, "10": 10 / 12})


def test_perfect_pairs_are_all_found() -> None:
    rows = F.normalize(torch.eye(4), dim=-1)
    assert recall(rows, rows, keys(1, 2, 3, 4), keys(5, 6, 7, 8))["1"] == 1.0


def test_ties_count_against_us() -> None:
    same = F.normalize(torch.ones(3, 2), dim=-1)
    assert recall(same, same, keys(1, 2, 3), keys(4, 5, 6)) == {"1": 0.0, "5": 1.0, "10": 1.0}


def test_one_answer_of_several_queries_is_one_entry() -> None:
    # Two queries share an answer: it is no wrong one for either.
    pool = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    assert recall(pool, pool, keys(1, 2, 3), keys(7, 7, 8))["1"] == 1.0
    # And one query with two answers is right with either.
    queries = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    pool = F.normalize(torch.tensor([[1.0, 0.1], [0.5, 0.5], [0.0, 1.0]]), dim=-1)
    assert recall(queries, pool, keys(1, 1, 3), keys(7, 8, 9))["1"] == 1.0


def test_of_no_pairs_there_is_no_recall() -> None:
    none = torch.zeros(0, 2)
    assert recall(none, none, keys(), keys()) == {"1": 0.0, "5": 0.0, "10": 0.0}


def test_the_vectors_are_those_a_user_gets() -> None:
    from mmsearch.retriever.embedding.embedder import LatentEmbedder
    from mmsearch.values import Role

    model, description = random_model(reasoner="rollout"), tiny_description(reasoner="rollout")
    collate = MediaCollate(model.backbone, open_still)
    examples = toy_examples(3, seed=0)
    batch = collate(examples, seed=0)
    embedder = LatentEmbedder(description, model)
    for side, role in ((batch.query, Role.QUERY), (batch.positive, Role.DOCUMENT)):
        ours = embed_side(model, description, side, effort=description.effort)
        theirs = embedder.embed([collate.item(one) for one in side.sides], role=role)
        torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-5, rtol=0)


def test_dropout_is_off_and_training_goes_on() -> None:
    model, description = random_model(reasoner="rollout"), tiny_description(reasoner="rollout")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    model.train()
    rows = listed_rows(toy_examples(5, seed=0))
    probe = Probe(rows, MediaCollate(model.backbone, open_still), most=0, chunk=2)
    once, again = (probe.recalls(model, description, world=World()) for _ in range(2))
    assert once == again
    assert once["pairs"] == 5
    assert model.training


def test_pairs_that_cannot_be_opened_are_left_out_and_counted() -> None:
    from mmsearch.errors import UnreadableFile
    from mmsearch.values import Image

    class Missing:
        name, key = "gone.png", "gone"

        def open(self) -> Image:
            raise UnreadableFile("gone.png", "there is no such file")

    model, description = random_model(), tiny_description()
    examples = [
        *toy_examples(3, seed=0),
        Example(Side(("words",)), Side((Missing(),)), dataset="toy", row="toy:bad"),
    ]
    probe = Probe(listed_rows(examples), MediaCollate(model.backbone, open_still), most=10)
    assert probe.recalls(model, description, world=World())["pairs"] == 3
    assert probe.bad == 1


def test_the_most_pairs_are_spread_over_all() -> None:
    rows = listed_rows(toy_examples(10, seed=0))
    model = random_model()
    probe = Probe(rows, MediaCollate(model.backbone, open_still), most=4)
    assert len(probe) == 4
    assert probe.recalls(model, tiny_description(), world=World())["pairs"] == 4
    assert len(Probe(rows, MediaCollate(model.backbone, open_still), most=99)) == 10
