"""A first pass over the leading dimensions, the whole vectors for what it leaves.

On vectors of the default model, whose first 96 and 192 dimensions are meant to stand for
all 384: the lines of the sample corpus, and as many mixtures of two of them as make an
index of a size at which time counts. Passes are numpy's, in single precision. `ours` is the
`exact` back-end: its first pass leaves every row that can be among the best, however many.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.retriever.search.backends.scanners import NumpyScanner

ROWS, QUESTIONS, MOST_LINES = 200_000, 100, 6_000
SHORT, CANDIDATES = (48, 96, 192), (100, 300, 1_000, 3_000)


def measure(sample_corpus: Path, rows: int = ROWS) -> dict[str, Any]:
    """Return p50 and recall@10 of one whole pass and of every two-pass way."""
    real = _lines(sample_corpus)
    rng = np.random.default_rng(12)
    asked, kept = real[:QUESTIONS], real[QUESTIONS:]
    first, second = rng.integers(0, len(kept), (2, rows))
    share = rng.uniform(0.2, 0.8, (rows, 1)).astype(np.float32)
    vectors = share * kept[first] + (1 - share) * kept[second]
    vectors[: len(kept)] = kept[: len(vectors)]
    vectors = _unit(vectors)
    vectors = vectors.astype(np.float16).astype(np.float32)  # as they are kept
    truth = []
    whole = []
    for question in asked:
        began = time.perf_counter()
        cosines = vectors @ question
        best = np.argpartition(cosines, len(cosines) - 10)[-10:]
        whole.append(time.perf_counter() - began)
        truth.append(set(best.tolist()))
    ours = NumpyScanner(
        vectors.astype(np.float16), 1 / np.linalg.norm(vectors, axis=1).astype(np.float32)
    )
    took, recalls = [], []
    for question, true in zip(asked, truth, strict=True):
        began = time.perf_counter()
        cosines, places = ours.best(question, 10)
        took.append(time.perf_counter() - began)
        best = places[np.argsort(-cosines)[:10]]
        recalls.append(len(true & set(best.tolist())) / 10)
    found: dict[str, Any] = {
        "ours_ms": 1_000 * float(np.median(took)),
        "ours_recall": float(np.mean(recalls)),
        "tail": float(np.mean(np.linalg.norm(vectors[:, 192:], axis=1) ** 2)),
        "rows": rows,
        "lines": len(real),
        "whole_ms": 1_000 * float(np.median(whole)),
        "ways": [],
    }
    for dims in SHORT:
        short = np.ascontiguousarray(vectors[:, :dims])
        for candidates in CANDIDATES:
            took, recalls = [], []
            for question, true in zip(asked, truth, strict=True):
                began = time.perf_counter()
                about = short @ question[:dims]
                some = np.argpartition(about, rows - candidates)[-candidates:]
                cosines = vectors[some] @ question
                best = some[np.argpartition(cosines, candidates - 10)[-10:]]
                took.append(time.perf_counter() - began)
                recalls.append(len(true & set(best.tolist())) / 10)
            found["ways"].append(
                {
                    "dims": dims,
                    "candidates": candidates,
                    "p50_ms": 1_000 * float(np.median(took)),
                    "recall": float(np.mean(recalls)),
                    "least_recall": min(recalls),
                }
            )
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _lines(sample_corpus: Path) -> np.ndarray:
    """Return float32 ``[n, 384]``, unit: the default model's vectors of the corpus's lines."""
    import pymupdf

    from mmsearch.retriever.embedding.choice import choose_model
    from mmsearch.values import Item, Text

    lines: dict[str, None] = {}
    for path in sorted(sample_corpus.rglob("*")):
        if path.suffix in (".md", ".txt", ".srt", ".jsonl", ".py"):
            text = path.read_text(errors="replace")
        elif path.suffix == ".pdf":
            with pymupdf.open(path) as pdf:
                text = "\n".join(page.get_text() for page in pdf)
        else:
            continue
        lines.update((line.strip(), None) for line in text.splitlines() if len(line.strip()) > 25)
    chosen = sorted(lines)
    np.random.default_rng(13).shuffle(chosen)
    embedder = choose_model("default", device="cpu").load()
    items = [Item((Text(line),)) for line in chosen[:MOST_LINES]]
    parts = [embedder.embed(items[start : start + 256]) for start in range(0, len(items), 256)]
    return np.concatenate(parts)
