"""What is a negative of what, and at which sizes: the contrast that all recipes share."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy_pairs import recipe, tiny_model, training_batch

from mmsearch.retriever.training.examples import Example, Side, TrainingBatch
from mmsearch.retriever.training.losses import info_nce
from mmsearch.retriever.training.objectives.contrast import Contrast, own_batch, vector
from mmsearch.retriever.training.toy import toy_examples

WIDTH = 8
CPU = torch.device("cpu")


def vectors(*rows: int, seed: int = 0) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*rows, WIDTH, generator=noise), dim=-1)


def pair(query: str, positive: str, *negatives: str) -> Example:
    return Example(Side((query,)), Side((positive,)), tuple(Side((one,)) for one in negatives))


def batch_of(*examples: Example, **looks: list[list[float]]) -> TrainingBatch:
    """Return a batch whose sides look like ``query=[[...], ...]`` and so on."""
    batch = training_batch(tiny_model("default", "none"), examples)
    for name, rows in looks.items():
        side = dataclasses.replace(
            getattr(batch, name), look=F.normalize(torch.tensor(rows), dim=1)
        )
        batch = dataclasses.replace(batch, **{name: side})
    return batch


def is_negative(batch: TrainingBatch) -> tuple[list[list[int]], list[list[int]] | None]:
    """Return 1 where a positive, and a hard negative, is a negative of a query."""
    contrast = Contrast(recipe("plain"), WIDTH)
    none = contrast.no_negatives(contrast.rows(batch, CPU))
    hard = None if none.hard is None else (~none.hard).int().tolist()
    positives = ~none.positives
    positives.fill_diagonal_(False)
    return positives.int().tolist(), hard


def test_all_other_positives_are_negatives() -> None:
    batch = batch_of(pair("a", "b"), pair("c", "d"), pair("e", "f"))

    assert is_negative(batch) == ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], None)


def test_the_same_answer_the_same_query_and_the_query_itself_are_none() -> None:
    same_answer = batch_of(pair("a", "b"), pair("c", "b"), pair("e", "f"))
    assert is_negative(same_answer)[0] == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]

    same_query = batch_of(pair("a", "b"), pair("a", "d"), pair("e", "f"))
    assert is_negative(same_query)[0] == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]

    chained = batch_of(pair("a", "b"), pair("b", "c"), pair("e", "f"))
    assert is_negative(chained)[0] == [[0, 1, 1], [0, 0, 1], [1, 1, 0]]  # "b" is near itself


def test_answers_that_look_alike_are_none() -> None:
    near, far = [1.0, 0.02, 0.0], [0.0, 1.0, 0.0]
    batch = batch_of(
        pair("a", "b"), pair("c", "d"), pair("e", "f"), positive=[[1.0, 0.0, 0.0], near, far]
    )

    assert is_negative(batch)[0] == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_what_a_query_of_picture_and_words_looks_like_says_nothing() -> None:
    """The picture that is to be changed is a negative, and the best there is."""
    picture = toy_examples(3, seed=0)[0].positive.parts
    same = [[1.0, 0.0, 0.0]] * 2
    source = Example(Side((*picture, "but as a square")), Side(("b",)))
    others = pair("c", "d")
    looks = {"query": [*same[:1], [0.0, 0.0, 0.0]], "positive": [[0.0, 1.0, 0.0], *same[:1]]}
    assert is_negative(batch_of(source, others, **looks))[0] == [[0, 1], [1, 0]]

    alone = dataclasses.replace(source, query=Side(picture))
    assert is_negative(batch_of(alone, others, **looks))[0] == [[0, 0], [1, 0]]


def test_hard_negatives_count_for_all_queries_but_those_they_answer() -> None:
    batch = batch_of(pair("a", "b", "x", "d"), pair("c", "d"), pair("e", "f", "e"))

    # "d" answers the second query, "e" is the third one itself.
    assert is_negative(batch)[1] == [[1, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_a_hard_negative_counts_for_its_own_query_however_alike() -> None:
    contrast = Contrast(recipe("plain"), WIDTH)
    batch = batch_of(
        pair("a", "b", "x"),
        pair("c", "d"),
        positive=[[1.0, 0.0, 0.0]] * 2,
        negatives=[[1.0, 0.0, 0.0]],
    )
    rows = dict(contrast.rows(batch, CPU))
    of_query, of_positive = vectors(2), vectors(2, seed=1)
    of_negative = F.normalize(of_query[:1] + 0.1 * vectors(1, seed=2), dim=-1)
    rows |= {"query.v": of_query, "positive.v": of_positive, "negative.v": of_negative}

    loss = contrast.loss(rows, "v", contrast.no_negatives(rows))

    # The positives look alike, so that each query has its own positive, and the first query
    # its hard negative besides.
    scores = of_query @ of_positive.T / 0.02
    hard = of_query[0] @ of_negative[0] / 0.02
    first = F.cross_entropy(torch.stack([scores[0, 0], hard])[None], torch.tensor([0]))
    assert first > 1
    torch.testing.assert_close(loss, first / 2 / 2)


def test_the_loss_is_that_of_every_size_and_of_the_whole() -> None:
    batch = batch_of(pair("a", "b"), pair("c", "d"), pair("e", "f"))
    config = recipe("plain", dims=(4, 2), dim_weights=(0.5, 0.25))
    contrast = Contrast(config, WIDTH)
    q, p = vectors(3), vectors(3, seed=1)
    rows = {**contrast.rows(batch, CPU), "query.v": q, "positive.v": p}

    loss = contrast.loss(rows, "v", contrast.no_negatives(rows))

    parts = [
        weight * info_nce(q[:, :dim], p[:, :dim], temperature=0.02)
        for dim, weight in [(8, 1.0), (4, 0.5), (2, 0.25)]
    ]
    torch.testing.assert_close(loss, torch.stack(parts).sum())


@pytest.mark.parametrize("weights", [(), (1.0, 1.0)])
def test_sizes_without_weights_count_alike_and_the_whole_only_once(
    weights: tuple[float, ...],
) -> None:
    contrast = Contrast(recipe("plain", dims=(8, 4), dim_weights=weights), WIDTH)

    assert contrast.sizes == {8: 1.0, 4: 1.0}


def test_a_batch_is_used_once() -> None:
    model = tiny_model("default", "none")
    batch = training_batch(model, toy_examples(2, seed=0))

    for _ in range(2):  # a second backward through one graph would be an error
        readouts = model.backbone.readouts(own_batch(batch.query))
        torch.autograd.backward(readouts["base"].sum())

    assert batch.query.batch.towers is None


def test_a_residual_head_is_as_exact_as_its_weights() -> None:
    model = tiny_model("default", "none").eval()
    base, readout = torch.randn(3, 32), torch.randn(3, 24)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = vector(model, base, readout)

    torch.testing.assert_close(under, model.head(base, readout), atol=0, rtol=0)
