"""Unit vectors in clusters, as embeddings lie: float16 ``[n, d]`` and their clusters.

2,000 clusters of power-law size in a subspace of 96 dimensions, and noise around it. Two
vectors at random have a cosine near 0, the ten nearest of a vector 0.7 to 0.85.
"""

import numpy as np

CLUSTERS, SUBSPACE = 2_000, 96
WITHIN, NOISE = 0.55, 0.02
CHUNK = 100_000


def clustered(num: int, dim: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return float16 ``[num, dim]`` and the cluster of each, ``[num]``."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((SUBSPACE, dim), dtype=np.float32) / np.sqrt(np.float32(dim))
    share = 1 / np.arange(1, CLUSTERS + 1) ** 0.8
    centres = rng.standard_normal((CLUSTERS, SUBSPACE), dtype=np.float32)
    vectors = np.empty((num, dim), dtype=np.float16)
    cluster = np.empty(num, dtype=np.int64)
    for start in range(0, num, CHUNK):
        size = min(CHUNK, num - start)
        of = rng.choice(CLUSTERS, size, p=share / share.sum())
        inside = rng.standard_normal((size, SUBSPACE), dtype=np.float32) * np.float32(WITHIN)
        found = (centres[of] + inside) @ basis
        found += np.float32(NOISE) * rng.standard_normal((size, dim), dtype=np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        vectors[start : start + size], cluster[start : start + size] = found, of
    return vectors, cluster


def nearest(
    vectors: np.ndarray, questions: np.ndarray, k: int, places: np.ndarray | None = None
) -> np.ndarray:
    """Return the places of the ``k`` best cosines of each question, best first, exactly.

    places: those that may be found, ascending; all by default
    """
    places = np.arange(len(vectors)) if places is None else places
    best = np.full((len(questions), k), -np.inf, dtype=np.float32)
    found = np.full((len(questions), k), -1, dtype=np.int64)
    for start in range(0, len(places), CHUNK):
        some = places[start : start + CHUNK]
        block = vectors[some].astype(np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        cosines = np.concatenate([best, questions @ block.T], axis=1)
        where = np.concatenate([found, np.broadcast_to(some, (len(questions), len(some)))], axis=1)
        top = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(cosines, top, axis=1)
        found = np.take_along_axis(where, top, axis=1)
    order = np.argsort(-best, axis=1)
    return np.take_along_axis(found, order, axis=1)
