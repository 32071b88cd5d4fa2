"""The measures, on rankings short enough to work out by hand."""

import json
from math import log2

import pytest

from mmsearch.retriever.evaluation.judging import Judged
from mmsearch.retriever.evaluation.measures import Report, Row, report, suggested_threshold


def went(
    name: str,
    *found: int | None,
    kind: str = "text",
    num_places: int = 1,
    best_score: float | None = 0.5,
) -> Judged:
    return Judged(
        id=name,
        kind=kind,
        num_places=num_places,
        found=found,
        best_score=best_score if found else None,
    )


def row(result: Report, kind: str) -> Row:
    [found] = [one for one in result.rows if one.kind == kind]
    return found


def test_measures_are_what_their_definitions_say() -> None:
    first = went("first", 0, None)
    seventh = went("seventh", *[None] * 6, 0)
    twelfth = went("twelfth", *[None] * 11, 0)
    never = went("never", None, None)

    values = row(report([first, seventh, twelfth, never]), "all").values

    assert values == pytest.approx(
        {
            "R@1": 1 / 4,
            "R@5": 1 / 4,
            "R@10": 2 / 4,
            "nDCG@10": (1 + 1 / log2(8)) / 4,
            "MRR": (1 + 1 / 7 + 1 / 12) / 4,
        }
    )


def test_gain_of_several_places_is_held_against_the_best_order() -> None:
    ideal = 1 + 1 / log2(3)

    half = row(report([went("half", 0, None, None, num_places=2)]), "text").values
    late = row(report([went("late", 1, None, 0, num_places=2)]), "text").values

    assert half["nDCG@10"] == pytest.approx(1 / ideal)
    assert late["nDCG@10"] == pytest.approx((1 + 1 / log2(4)) / ideal)
    assert half["R@1"] == late["R@1"] == 1.0


def test_kinds_have_rows_of_their_own_in_the_order_they_came() -> None:
    result = report(
        [went("a", 0, kind="text"), went("b", None, kind="image"), went("c", None, kind="text")]
    )

    assert [(one.kind, one.num_queries) for one in result.rows] == [
        ("text", 2),
        ("image", 1),
        ("all", 3),
    ]
    assert [one.values["R@1"] for one in result.rows] == pytest.approx([0.5, 0.0, 1 / 3])
    assert result.measure_names == ("R@1", "R@5", "R@10", "nDCG@10", "MRR")


def test_a_query_without_hits_counts_as_lost() -> None:
    values = row(report([went("found", 0), went("empty")]), "all").values

    assert set(values.values()) == {0.5}


def test_queries_without_an_answer_are_held_to_the_threshold_of_the_others() -> None:
    result = report(
        [
            went("right", 0, best_score=0.8),
            went("also right", 0, best_score=0.6),
            went("wrong", None, best_score=0.4),
            went("low", None, num_places=0, best_score=0.5),
            went("at it", None, num_places=0, best_score=0.6),
            went("nothing", num_places=0),
        ]
    )

    assert result.no_answer.threshold == 0.6
    assert (result.no_answer.num_queries, result.no_answer.num_below) == (3, 2)
    assert result.no_answer.share == pytest.approx(2 / 3)
    assert row(result, "all").num_queries == 3, "they are in no other measure"
    assert "2 of 3" in result.no_answer_sentence


@pytest.mark.parametrize(
    ("right", "wrong", "threshold"),
    [
        ([0.9, 0.7], [], 0.7),
        ([0.9, 0.7], [0.8], 0.9),
        ([0.9, 0.7, 0.3], [0.5, 0.4, 0.35], 0.7),
        ([0.2], [0.9], 0.2),
        ([], [0.9], None),
    ],
)
def test_the_threshold_best_tells_right_from_wrong_first_hits(
    right: list[float], wrong: list[float], threshold: float | None
) -> None:
    judged = [went(f"r{n}", 0, best_score=score) for n, score in enumerate(right)]
    judged += [went(f"w{n}", None, 0, best_score=score) for n, score in enumerate(wrong)]

    assert suggested_threshold(judged) == threshold


def test_without_a_threshold_or_queries_the_report_says_so() -> None:
    no_threshold = report([went("n", None, num_places=0)])
    no_queries = report([went("a", 0)])

    assert no_threshold.no_answer.share is None
    assert "no threshold" in no_threshold.no_answer_sentence
    assert no_queries.no_answer_sentence == "no query without an answer"
    assert row(no_threshold, "all").num_queries == 0


def test_the_report_is_json() -> None:
    result = report([went("a", None, 0), went("n", None, num_places=0, best_score=0.1)])

    content = json.loads(json.dumps(result.as_dict()))

    assert content["kinds"]["text"]["queries"] == 1
    assert content["kinds"]["all"]["MRR"] == 0.5
    assert content["no_answer"]["queries"] == 1
    assert content["queries"][0] == {
        "id": "a",
        "kind": "text",
        "first_right": 2,
        "best_score": 0.5,
    }
