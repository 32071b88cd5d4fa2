"""How well the queries went: measures by kind, and what the scores say where none answers.

    R@k      share of queries with a right hit among the first k (ir_measures: Success@k)
    nDCG@10  gain of the right hits among the first 10, against the best possible order
    MRR      mean of 1 / rank of the first right hit, 0 where there is none

ir_measures does the arithmetic; every query counts the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmsearch.retriever.evaluation.judging import Judged

MEASURES = {
    "R@1": "Success@1",
    "R@5": "Success@5",
    "R@10": "Success@10",
    "nDCG@10": "nDCG@10",
    "MRR": "RR",
}
ALL = "all"
# Hits to ask for, for each query: MRR looks beyond the ten that the others look at.
DEPTH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The measures of the queries of one kind, by name, in [0, 1]."""

    kind: str
    num_queries: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """What became of the queries that nothing answers.

    threshold: the score that best tells right first hits from wrong ones over the other
               queries (see `suggested_threshold`); None where those suggest none
    num_below: how many of these queries have no hit that scores as much
    """

    num_queries: int
    num_below: int
    threshold: float | None

    @property
    def share(self) -> float | None:
        """Share of them whose best score lies under the threshold; None where undefined."""
        if self.threshold is None or not self.num_queries:
            return None
        return self.num_below / self.num_queries


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How an index answers: a row a kind and one for all, and the no-answer queries apart."""

    rows: tuple[Row, ...]
    no_answer: NoAnswer
    queries: tuple[Judged, ...]

    @property
    def measure_names(self) -> tuple[str, ...]:
        """The names of the measures in the order they are shown."""
        return tuple(MEASURES)

    @property
    def no_answer_sentence(self) -> str:
        """What the no-answer queries say, for people."""
        none = self.no_answer
        if not none.num_queries:
            return "no query without an answer"
        if none.threshold is None:
            return f"{none.num_queries} queries without an answer, and no threshold to hold them to"
        return (
            f"{none.num_below} of {none.num_queries} queries without an answer score under "
            f"{none.threshold:.3f}, the threshold that the other queries suggest"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as the JSON object of ``mmsearch eval --json``."""
        return {
            "kinds": {
                row.kind: {"queries": row.num_queries, **_rounded(row.values)} for row in self.rows
            },
            "no_answer": {
                "queries": self.no_answer.num_queries,
                "below_threshold": self.no_answer.num_below,
                "share": self.no_answer.share,
                "threshold": self.no_answer.threshold,
            },
            "queries": [
                {
                    "id": one.id,
                    "kind": one.kind,
                    "first_right": one.first_right,
                    "best_score": one.best_score,
                }
                for one in self.queries
            ],
        }


def report(judged: Sequence[Judged]) -> Report:
    """Return the measures of the queries that have answers, and the no-answer section."""
    answered = [one for one in judged if one.num_places]
    values = _measured(answered)
    kinds = dict.fromkeys(one.kind for one in answered)
    rows = [_row(kind, [one.id for one in answered if one.kind == kind], values) for kind in kinds]
    threshold = suggested_threshold(answered)
    unanswered = [one for one in judged if not one.num_places]
    num_below = sum(
        threshold is not None and (one.best_score is None or one.best_score < threshold)
        for one in unanswered
    )
    return Report(
        rows=(*rows, _row(ALL, [one.id for one in answered], values)),
        no_answer=NoAnswer(num_queries=len(unanswered), num_below=num_below, threshold=threshold),
        queries=tuple(judged),
    )


def suggested_threshold(answered: Sequence[Judged]) -> float | None:
    """Return the score from which on a first hit is best believed to be right.

    Of the scores of right first hits, the one that keeps the largest share of right first
    hits less the share of wrong ones it lets through (Youden's J), the lowest of equals.
    None where no first hit is right.
    """
    first = [(one.best_score, one.found[0]) for one in answered if one.best_score is not None]
    right = [score for score, place in first if place is not None]
    wrong = [score for score, place in first if place is None]

    def gained(threshold: float) -> float:
        kept = sum(score >= threshold for score in right) / len(right)
        let_through = sum(score >= threshold for score in wrong) / max(1, len(wrong))
        return kept - let_through

    return max(sorted(set(right)), key=gained, default=None)


def _measured(answered: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Return each query's measures by name, by query id."""
    import ir_measures

    measures = {ir_measures.parse_measure(theirs): ours for ours, theirs in MEASURES.items()}
    qrels = [
        ir_measures.Qrel(one.id, f"place {number}", 1)
        for one in answered
        for number in range(one.num_places)
    ]
    run = [
        # Scores only tell the order: equal ones would be put in an order of theirs.
        ir_measures.ScoredDoc(one.id, _name(rank, place), float(-rank))
        for one in answered
        for rank, place in enumerate(one.found)
    ]
    values: dict[str, dict[str, float]] = {one.id: dict.fromkeys(MEASURES, 0.0) for one in answered}
    if run:
        for metric in ir_measures.iter_calc(list(measures), qrels, run):
            values[metric.query_id][measures[metric.measure]] = float(metric.value)
    return values


def _name(rank: int, place: int | None) -> str:
    return f"wrong {rank}" if place is None else f"place {place}"


def _row(kind: str, ids: Sequence[str], values: Mapping[str, Mapping[str, float]]) -> Row:
    means = {
        name: sum(values[query_id][name] for query_id in ids) / len(ids) if ids else 0.0
        for name in MEASURES
    }
    return Row(kind=kind, num_queries=len(ids), values=means)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
