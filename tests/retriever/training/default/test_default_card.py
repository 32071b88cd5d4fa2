"""What is chosen, by which tasks, and how it is written into the card."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mmsearch.retriever.training.default.card import fill
from mmsearch.retriever.training.default.recipe import chosen, score
from mmsearch.retriever.training.default.tasks import Task, likeness, measure, vectors_of
from mmsearch.retriever.training.examples import Side


def row(model: str, effort: int, ten: float, which: str = "validation") -> dict[str, Any]:
    figure = {
        "task": "caption -> photo", "queries": 2, "pool": 3, "recall_at_1": ten / 2,
        "recall_at_5": ten, "recall_at_10": ten,
    }  # fmt: skip
    return {
        "model": model, "effort": effort, "set": which, "likeness": 0.97, "gate": 0.1,
        "figures": {"384": [figure], "96": [{**figure, "recall_at_1": 0.0}]},
    }  # fmt: skip


def test_the_best_mean_wins_on_the_validation_books_alone() -> None:
    rows = [
        row("base", 0, 0.5), row("lame", 8, 0.6),
        row("base", 0, 0.9, "held out"), row("lame", 8, 0.1, "held out"),
    ]  # fmt: skip

    assert chosen(rows) == ("lame", 8)
    assert score(rows[1]) == 0.6


def test_of_those_level_the_cheaper_wins() -> None:
    rows = [row("base", 0, 0.595), row("lame", 8, 0.6), row("plume", 8, 0.598)]

    assert chosen(rows) == ("base", 0)


def test_the_card_has_the_tables_of_the_results_and_keeps_its_words() -> None:
    results = {
        "chosen": {"model": "base", "effort": 0},
        "rows": [row("base", 0, 0.5, "held out"), row("plume", 4, 0.625, "held out")],
    }
    card = "# A\n<!-- table: held-out -->\nold\n<!-- end -->\nwords\n"
    card += "<!-- table: dimensions -->\n<!-- end -->\n"

    filled = fill(card, results)

    assert "| task | queries of pool | base | plume K=4 |" in filled
    assert "| caption -> photo | 2 of 3 | 25.0 / 50.0 | 31.2 / 62.5 |" in filled
    assert "| caption -> photo | 25.0 / 50.0 | 0.0 / 50.0 |" in filled
    assert filled.startswith("# A\n")
    assert "\nwords\n" in filled
    assert "old" not in filled
    assert fill(filled, results) == filled


def test_a_table_that_nobody_knows_is_refused() -> None:
    with pytest.raises(KeyError):
        fill("<!-- table: other -->\n<!-- end -->", {})


def test_tasks_are_measured_by_the_leading_dimensions_and_embed_each_side_once() -> None:
    one, two = Side(("one",)), Side(("two",))
    task = Task("both", [one, two], [one, two], torch.eye(2, dtype=torch.bool))
    known = {"one": [1.0, 0.0, 1.0], "two": [1.0, 0.0, -1.0]}
    asked: list[str] = []

    def embed(sides: list[Side]) -> torch.Tensor:
        asked.extend(side.text for side in sides)
        return F.normalize(torch.tensor([known[side.text] for side in sides]), dim=-1)

    vectors = vectors_of([task], embed)  # type: ignore[arg-type]

    assert sorted(asked) == ["one", "two"]
    assert measure([task], vectors)[0].recall_at_1 == 1.0
    assert measure([task], vectors, dim=2)[0].recall_at_1 == 0.0  # equal there


def test_likeness_is_of_the_order_of_similarities_alone() -> None:
    torch.manual_seed(0)
    rows = F.normalize(torch.randn(12, 5), dim=-1)

    turned = rows @ torch.linalg.qr(torch.randn(5, 5)).Q

    assert likeness(turned, rows) == pytest.approx(1.0)
    assert abs(likeness(F.normalize(torch.randn(12, 5), dim=-1), rows)) < 0.5
