"""Nearest vectors through faiss: one-bit codes choose, the kept vectors decide.

    train_index   a snapshot's vectors of one view --> Rows and an index over them
    extend        the rows that came later --> the same, longer
    FaissScanner  answers from such an index, in memory or mapped into it

The index is ``IVF,RaBitQfs,Refine(SQfp16)``: rows lie in lists by their nearest centroid;
of the lists nearest to the question, codes of one bit a dimension choose candidates, whose
order is that of the half-precision vectors, which are bit for bit those of the tables.
Below EXACT_ROWS there are no lists, and every vector is looked at.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import MissingExtra
from mmsearch.retriever.search.backends.rows import Rows, read_rows
from mmsearch.retriever.search.backends.scanners import TIE, Among, NumpyScanner

if TYPE_CHECKING:
    import faiss

    from mmsearch.retriever.search.backends.rows import Mask, Places
    from mmsearch.retriever.store.snapshot import Snapshot
    from mmsearch.values import Vectors, View

# An exact scan of this many takes about as long as the rest of a question does (1 ms).
EXACT_ROWS = 5_000
# Lists are looked into until they hold so many rows that may be found: recall@10 is then
# above 0.98 whatever share of the rows a filter leaves, and wherever it leaves them.
# (Of 2,000,000 rows it is 0.976 with 32 lists of 2,048, and 0.984 with 64.)
MIN_LISTS, LISTS_SHARE = 32, 1 / 32
MIN_SCANNED, SCANNED_PER_HIT = 8_000, 60
# Where the nearest that fit a filter are much farther than the nearest of all (by FAR_GAP of
# cosine, at the last place or the tenth), centroids tell little of where they lie, and more
# rows are looked at. Of 200,000 rows of 384 dimensions, half of them left by a filter that
# knows the clusters, recall@10 is 0.96 otherwise.
FAR_RANK, FAR_GAP, FAR_SCANNED, FAR_SHARE = 10, 0.1, 40_000, 0.7
# Below this share of all rows, gathering those that fit beats asking every row if it fits.
GATHER_SHARE = 1 / 1_000
# So many neighbours are looked at for ties with the k-th, and no more.
MOST_TIED = 2 * EXACT_ROWS
GPU_MOST = 2_048  # neighbours that faiss finds on a GPU
FEWEST_LISTS, MOST_LISTS = 64, 4_096
TRAIN_PER_LIST = 48
TRAIN_ROUNDS = 10
ADD_ROWS = 16_384
SEED = 1234


def load_faiss() -> ModuleType:
    """Return faiss. Raises MissingExtra where it is missing or broken."""
    try:
        import faiss
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        missing = MissingExtra("faiss", "gpu")
        missing.hint = "pip install 'faiss-cpu>=1.15', or --backend lance"
        raise missing from error
    return faiss


# ---------------------------------------------------------------- making an index


def train_index(
    snapshot: "Snapshot",
    view: "View",
    dim: int,
    on_rows: Callable[[int, int], object] | None = None,
) -> "tuple[Rows, faiss.Index]":
    """Return the rows of one view and an index over them.

    Holds their half-precision vectors and their codes, and never all in single precision.
    """
    load_faiss()
    kept = _empty_kept(dim)
    vectors = _Room(kept)
    rows = read_rows(snapshot, view, allocate=vectors.at_least, on_rows=on_rows)
    vectors.trim(len(rows))
    return rows, _with_lists(kept, vectors.array) if len(rows) >= EXACT_ROWS else kept


def index_over(vectors: "Vectors") -> "faiss.Index":
    """Return an index with lists over float16 ``[n, d]``."""
    kept = _empty_kept(vectors.shape[1])
    room = _Room(kept)
    room.at_least(len(vectors))[:] = vectors
    room.trim(len(vectors))
    return _with_lists(kept, room.array)


def _with_lists(kept: "faiss.IndexScalarQuantizer", vectors: "Vectors") -> "faiss.Index":
    """Return an index with lists over the ``vectors`` that ``kept`` holds."""
    import faiss

    codes = _trained(vectors)
    _add(codes, vectors)
    return faiss.IndexRefine(codes, kept)


def extend(
    snapshot: "Snapshot", view: "View", rows: Rows, index: "faiss.Index", commits: Sequence[str]
) -> Rows:
    """Add the rows of these commits to an index that is held in memory; return all rows."""
    import pyarrow as pa

    dim = index.d
    found: list[Vectors] = []

    def allocate(room: int) -> "Vectors":
        found.append(np.empty((room, dim), dtype=np.float16))
        return found[0]

    new = read_rows(snapshot, view, allocate=allocate, commits=commits)
    _add(index, found[0][: len(new)])
    numbers = new.commit_numbers + np.uint32(len(rows.commits))
    return Rows(
        ids=np.concatenate([rows.ids, new.ids]),
        commit_numbers=np.concatenate([rows.commit_numbers, numbers]),
        per_length=np.concatenate([rows.per_length, new.per_length]),
        num_words=np.concatenate([rows.num_words, new.num_words]),
        views=np.concatenate([rows.views, new.views]),
        commits=pa.array([*rows.commits.to_pylist(), *new.commits.to_pylist()], pa.string()),
    )


def num_lists(num_rows: int) -> int:
    """Return how many lists so many rows lie in: the power of two near 2 roots of them."""
    return int(np.clip(2 ** round(np.log2(2 * max(1, num_rows) ** 0.5)), FEWEST_LISTS, MOST_LISTS))


def _empty_kept(dim: int) -> "faiss.IndexScalarQuantizer":
    import faiss

    half = faiss.ScalarQuantizer.QT_fp16
    return faiss.IndexScalarQuantizer(dim, half, faiss.METRIC_INNER_PRODUCT)


class _Room:
    """The memory of an index for its vectors, filled from here: nothing is copied twice."""

    def __init__(self, kept: "faiss.IndexScalarQuantizer") -> None:
        self._kept = kept
        self.array: Vectors = np.empty((0, kept.d), dtype=np.float16)

    def at_least(self, room: int) -> "Vectors":
        self._kept.codes.resize(room * self._kept.code_size)
        self.array = kept_vectors(self._kept, room)
        return self.array

    def trim(self, num_rows: int) -> None:
        self.at_least(num_rows)
        self._kept.ntotal = num_rows


def kept_vectors(kept: "faiss.IndexScalarQuantizer", num_rows: int) -> "Vectors":
    """Return the vectors that an index holds, float16 ``[n, d]``; they live as long as it."""
    import faiss

    if not num_rows:
        return np.empty((0, kept.d), dtype=np.float16)
    codes: Any = faiss.rev_swig_ptr(kept.codes.data(), num_rows * kept.code_size)
    return codes.view(np.float16).reshape(num_rows, kept.d)


def _trained(vectors: "Vectors") -> "faiss.IndexIVF":
    """Return an empty index whose lists suit ``vectors``."""
    import faiss

    lists = num_lists(len(vectors))
    codes: Any = faiss.index_factory(
        vectors.shape[1], f"IVF{lists},RaBitQfs", faiss.METRIC_INNER_PRODUCT
    )
    codes.cp.niter = TRAIN_ROUNDS
    codes.cp.seed = SEED
    codes.cp.min_points_per_centroid = 1  # else it writes a warning to the terminal
    codes.cp.max_points_per_centroid = TRAIN_PER_LIST
    size = min(len(vectors), TRAIN_PER_LIST * lists)
    sample = np.random.default_rng(SEED).choice(len(vectors), size, replace=False)
    codes.train(vectors[np.sort(sample)].astype(np.float32))
    return codes


def _add(index: "faiss.Index", vectors: "Vectors") -> None:
    for start in range(0, len(vectors), ADD_ROWS):
        index.add(vectors[start : start + ADD_ROWS].astype(np.float32))


# ---------------------------------------------------------------- asking it


class FaissAmong(Among):
    """Rows as faiss wants to be told of them."""

    @cached_property
    def selector(self) -> "faiss.IDSelector":
        """The mask as bits."""
        # faiss reads the bits where they lie: they must not die before the selector.
        self.__dict__["bits"] = bits = np.packbits(self.mask, bitorder="little")
        return load_faiss().IDSelectorBitmap(bits)

    def per_list(self, lists: np.ndarray, num_lists: int) -> "Places":
        """Return how many of them each list has."""
        if "counts" not in self.__dict__:
            self.__dict__["counts"] = np.bincount(lists[self.mask], minlength=num_lists)
        return self.__dict__["counts"]


class FaissScanner:
    """Answers from an index of `train_index`; its rows are those it was made with.

    on_gpu: puts an exact index on a GPU; by default where faiss runs on one
    """

    def __init__(
        self,
        index: "faiss.Index",
        per_length: "Vectors",
        *,
        on_gpu: "Callable[[faiss.Index], faiss.Index] | None" = None,
    ) -> None:
        self._faiss = load_faiss()
        self._index = index
        # The codes in their lists, where there are lists, and the vectors themselves.
        self._codes: Any = None
        kept: Any = index
        if isinstance(index, self._faiss.IndexRefine):
            self._codes = self._faiss.downcast_index(index.base_index)
            kept = self._faiss.downcast_index(index.refine_index)
        self._kept = kept
        self._num_all_lists = self._codes.nlist if self._codes else 0
        self._per_length = per_length
        self.vectors = kept_vectors(kept, len(per_length))
        self._numpy = NumpyScanner(self.vectors, per_length)
        # How to ask for so many of all rows.
        self._plain: dict[int, Any] = {}
        self._resident: Any = None
        self._on_gpu = on_gpu or _gpu()  # what an index on a GPU needs lives in it
        if self._on_gpu is not None:
            self._resident = self._on_gpu(self._faiss.IndexFlatIP(index.d))
            _add(self._resident, self.vectors)

    def among(self, mask: "Mask") -> Among:
        return FaissAmong(mask)

    def best(
        self, asked: "Vectors", k: int, among: Among | None = None
    ) -> "tuple[Vectors, Places]":
        room = len(self._per_length) if among is None else among.count
        if among is not None and room <= GATHER_SHARE * len(self._per_length):
            return self._numpy.best(asked, k, among)
        want = min(room, k + 1)  # one more shows whether the last is tied
        if not want:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        while True:
            cosines, places = self._ask(asked, want, among)
            if want == room or want > MOST_TIED or _is_cut_clean(cosines, k):
                return cosines, places
            want = min(room, 2 * want)

    def _ask(self, asked: "Vectors", k: int, among: Among | None) -> "tuple[Vectors, Places]":
        """Return exactly ``k``: no more than there are are asked for."""
        row = asked[None]
        # faiss would share one question among threads. That gains nothing, and where another
        # process has the second core, the first waits for it: 0.5 ms become 15. The setting
        # is that of the calling thread.
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(1)
        try:
            if self._resident is not None and among is None and k <= GPU_MOST:
                products, labels = self._resident.search(row, k)
            elif self._codes is not None and not self._is_few(among, k):
                products, labels = self._in_lists(row, k, among)
            else:
                products, labels = self._exactly(row, k, among)
            if labels[0, -1] < 0:  # the lists that were looked into hold fewer
                products, labels = self._exactly(row, k, among)
        finally:
            self._faiss.omp_set_num_threads(before)
        places = labels[0]
        return products[0] * self._per_length[places], places

    def _in_lists(self, row: "Vectors", k: int, among: Among | None) -> "tuple[Vectors, Places]":
        plain = self._index.search(row, k, params=self._plain_parameters(k))
        if among is None:
            return plain
        scanned = _rows_to_scan(k)
        found = self._index.search(row, k, params=self._filtered(row[0], k, among, scanned))
        at = min(k, FAR_RANK) - 1
        if plain[0][0, at] - found[0][0, at] > FAR_GAP:
            scanned = max(FAR_SCANNED, int(FAR_SHARE * among.count))
            found = self._index.search(row, k, params=self._filtered(row[0], k, among, scanned))
        return found

    def _exactly(self, row: "Vectors", k: int, among: Among | None) -> "tuple[Vectors, Places]":
        if among is None:
            return self._kept.search(row, k)
        selected = self._faiss.SearchParameters(sel=_selector(among))
        return self._kept.search(row, k, params=selected)

    def _is_few(self, among: Among | None, k: int) -> bool:
        return among is not None and among.count <= 2 * _rows_to_scan(k)

    def _plain_parameters(self, k: int) -> "faiss.SearchParameters":
        if k not in self._plain:
            self._plain[k] = self._parameters(k, self._num_lists(k))
        return self._plain[k]

    def _filtered(
        self, asked: "Vectors", k: int, among: Among, scanned: int
    ) -> "faiss.SearchParameters":
        """Return how to look into lists until they hold so many rows that may be found."""
        assert isinstance(among, FaissAmong)
        nearest_first = np.argsort(-(self._centroids @ asked))  # as faiss looks into them
        fitting = among.per_list(self._list_of, self._num_all_lists)[nearest_first]
        enough = int(np.searchsorted(np.cumsum(fitting), scanned)) + 1
        return self._parameters(k, max(enough, self._num_lists(k)), among.selector)

    def _parameters(
        self, k: int, lists: int, selector: "faiss.IDSelector | None" = None
    ) -> "faiss.SearchParameters":
        inner = {"nprobe": min(lists, self._num_all_lists)}
        if selector is not None:
            inner["sel"] = selector
        return self._faiss.IndexRefineSearchParameters(
            k_factor=_candidates(k, filtered=selector is not None) / k,
            base_index_params=self._faiss.SearchParametersIVF(**inner),
        )

    def _num_lists(self, k: int) -> int:
        return lists_to_ask(len(self._per_length), self._num_all_lists, k)

    @cached_property
    def _centroids(self) -> "Vectors":
        return self._codes.quantizer.reconstruct_n(0, self._num_all_lists)

    @cached_property
    def _list_of(self) -> np.ndarray:
        """The list of every row, ``[n]``."""
        lists = np.empty(len(self._per_length), dtype=np.uint16)
        inverted = self._codes.invlists
        for number in range(self._num_all_lists):
            size = inverted.list_size(number)
            if size:
                ids = self._faiss.rev_swig_ptr(inverted.get_ids(number), size)
                lists[ids] = number
        return lists


def _selector(among: Among) -> "faiss.IDSelector":
    assert isinstance(among, FaissAmong)
    return among.selector


def lists_to_ask(num_rows: int, num_lists: int, k: int) -> int:
    """Return how many lists are looked into for the best ``k`` of all rows."""
    by_rows = math.ceil(_rows_to_scan(k) * num_lists / num_rows)
    return min(num_lists, max(MIN_LISTS, math.ceil(LISTS_SHARE * num_lists), by_rows))


def _rows_to_scan(k: int) -> int:
    return max(MIN_SCANNED, SCANNED_PER_HIT * k)


def _candidates(k: int, *, filtered: bool) -> int:
    """Return how many candidates are compared by their kept vectors for ``k`` answers.

    The nearest that fits a filter may be far away, where one bit a dimension tells little.
    """
    return max(min(10 * k, 400), 3 * k, 600 if filtered else 100)


def _is_cut_clean(cosines: "Vectors", k: int) -> bool:
    """Say whether the k-th is better than what was cut off behind the last."""
    if len(cosines) <= k:
        return True
    best = np.sort(cosines)
    return best[-k] > best[0] + TIE


def _gpu() -> "Callable[[faiss.Index], faiss.Index] | None":
    """Return what puts an index on the first GPU in half precision; None where there is none."""
    import faiss

    if not faiss.get_num_gpus():
        return None

    resources, options = faiss.StandardGpuResources(), faiss.GpuClonerOptions()
    options.useFloat16 = True

    def put(index: "faiss.Index") -> "faiss.Index":
        return faiss.index_cpu_to_gpu(resources, 0, index, options)

    return put
