"""The engine: the one door through which every face of mmsearch goes.

    index:  paths -> discover -> plan -> read -> embed -> commit -> IndexReport
    query:  Query -> items -> vectors -> candidates -> fuse -> hits

It knows the two flows and no terminal, no HTTP. The model is loaded when the
first vector is needed: opening an index, listing it or checking it is quick.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from mmsearch.errors import (
    EmptyQuery,
    ModelNotFound,
    SegmentNotFound,
    StoreNotFound,
    UnreadableFile,
)
from mmsearch.retriever.models.description import ModelSettings as ModelSettings
from mmsearch.values import (
    Backend,
    Document,
    Frames,
    Hit,
    Image,
    Item,
    Kind,
    PlacedWord,
    Query,
    ReadPolicy,
    Role,
    Segment,
    Space,
    Text,
    View,
    given_id,
)

if TYPE_CHECKING:
    from mmsearch.context import Budget, ContextPart
    from mmsearch.indexers.estimate import Estimate
    from mmsearch.indexers.plan import Plan
    from mmsearch.indexers.report import IndexReport, Progress
    from mmsearch.indexers.sandbox import Sandbox
    from mmsearch.retriever.embedding.choice import ChosenModel, OwnEmbedder
    from mmsearch.retriever.evaluation.measures import Report
    from mmsearch.retriever.seams import Embedder
    from mmsearch.retriever.search.backends import Backends
    from mmsearch.retriever.search.question import Question
    from mmsearch.retriever.search.search import Searcher
    from mmsearch.retriever.store.store import Store, StoredSegment
    from mmsearch.status import IndexStatus
    from mmsearch.values import Vectors

DEFAULT_MODEL = "default"
_AS_MADE = ModelSettings()
_QUERY_WORKERS = 2  # kept between queries, so that several threads may ask with media


class Engine:
    """An index and the model it was made with.

    Make one with `Engine.open`. Methods may be called from several threads;
    only one process at a time may change an index (StoreLocked), any number may
    read it. Use it as a context manager, or call `close`, to stop its workers.

    Examples:
        >>> from mmsearch import Engine, Query
        >>> with Engine.open("reports.db", create=True) as engine:
        ...     report = engine.index(["docs"], ocr=False)
        ...     [hit] = engine.query(Query(text="the pump", kinds=["pdf"]), k=1)
        >>> (report.documents, report.failed)
        (3, ())
        >>> (Path(hit.path).name, hit.page)
        ('report.pdf', 2)
    """

    def __init__(
        self,
        store: "Store",
        choose: "Callable[[], ChosenModel | OwnEmbedder]",
        *,
        backend: Backend = Backend.AUTO,
        device: str = "auto",
        through: "Callable[[Embedder], Embedder]" = lambda embedder: embedder,
    ) -> None:
        self._store = store
        self._choose = choose
        self._backend = backend
        self._device = device
        self._through = through
        self._backends: Backends | None = None
        self._model: ChosenModel | OwnEmbedder | None = None
        self._embedder: Embedder | None = None
        self._sandbox: Sandbox | None = None
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        path: str | Path = ".mmsearch",
        *,
        create: bool = False,
        model: "str | Path | Embedder | None" = None,
        device: str = "auto",
        dtype: str = "auto",
        settings: ModelSettings = _AS_MADE,
        backend: Backend | str = Backend.AUTO,
        through: "Callable[[Embedder], Embedder]" = lambda embedder: embedder,
    ) -> Self:
        """Open the index at ``path``; with ``create`` make an empty one where there is none.

        Opening is quick, and making one loads the model first.

        model:    a name, a model folder, or an embedder of your own; by default the one
                  the index was made with, or ``"default"`` for a new index
        device:   "cpu", "cuda", "cuda:1", or "auto": a GPU where there is one
        dtype:    "float32", "bfloat16", or "auto": bfloat16 for a large model on a GPU;
                  neither this nor the device keeps an index from being asked
        settings: effort, pixels and dimensions of a new index; of an old one those it was
                  made with, unless others are given and refused
        backend:  what finds the nearest vectors: "lance", "faiss" (after 'mmsearch optimize
                  --faiss'), "exact", "resident" (exact while the index is small, for a
                  process that asks often), or "auto": faiss where its file lies in the index;
                  a query raises MissingExtra or StoreError where "faiss" cannot be
        through:  is given the model when it is loaded, and returns what is asked in its place:
                  one that remembers, say, or that puts the calls of many threads together
        Raises StoreNotFound (a read never creates), SpaceMismatch where the index was made
        with another model or other settings than those named, BadSetting, ModelNotFound,
        BadCheckpoint, StoreDamaged.
        """
        from mmsearch.retriever.embedding.choice import choose_model
        from mmsearch.retriever.embedding.devices import check_asked
        from mmsearch.retriever.store.store import Store

        check_asked(device, dtype)
        choose = partial(choose_model, device=device, dtype=dtype, settings=settings)
        path, backend = Path(path), Backend(backend)
        if Store.exists(path):
            store = Store.open(path)
            named = store.space.model if model is None else model
            engine = cls(
                store,
                partial(choose, named, like=store.space),
                backend=backend,
                device=device,
                through=through,
            )
            if model is not None or settings != _AS_MADE:
                engine._chosen()  # else when it is needed: looking at an index needs none
            return engine
        if not create:
            raise StoreNotFound(path)
        chosen = choose(DEFAULT_MODEL if model is None else model)
        embedder = chosen.load()  # a model that cannot be leaves no index behind
        engine = cls(
            Store.create(path, chosen.space),
            lambda: chosen,
            backend=backend,
            device=device,
            through=through,
        )
        engine._embedder = through(embedder)
        return engine

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Say whether there is an index at ``path``."""
        from mmsearch.retriever.store.store import Store

        return Store.exists(Path(path))

    def close(self) -> None:
        """Stop the worker processes; the engine may be used again and starts new ones."""
        with self._lock:
            if self._sandbox:
                self._sandbox.close()
                self._sandbox = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._store.path

    @property
    def space(self) -> Space:
        """The embedding space of the index."""
        return self._store.space

    @property
    def embedder(self) -> "Embedder":
        """The model, loaded when first asked for.

        Raises ModelNotFound and SpaceMismatch for the name that the index remembers.
        """
        with self._lock:
            if self._embedder is None:
                self._embedder = self._through(self._chosen().load())
            return self._embedder

    def _chosen(self) -> "ChosenModel | OwnEmbedder":
        """Return the model, found when first asked for; raises SpaceMismatch."""
        with self._lock:
            if self._model is None:
                try:
                    chosen = self._choose()
                except ModelNotFound as error:
                    if error.name != self.space.model or not Path(error.name).is_absolute():
                        raise
                    raise ModelNotFound(error.name, index=self.path) from None
                self._store.check_space(chosen.space)
                self._model = chosen
            return self._model

    def load(self) -> None:
        """Load the model now, so that the first query does not wait for it."""
        self.embedder  # noqa: B018  asking for it loads it

    # ------------------------------------------------------------ index

    @classmethod
    def preview(
        cls,
        paths: Sequence[str | Path],
        *,
        db: str | Path = ".mmsearch",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        retry_failed: bool = False,
        again: bool = False,
    ) -> "Plan":
        """Return what `index` would do; the index is not made, nor changed.

        Raises NothingToIndex as `index` does.
        """
        from mmsearch.indexers.planning import Wanted, plan_of
        from mmsearch.retriever.store.store import Store

        path = Path(db)
        manifest = Store.open(path).documents() if Store.exists(path) else []
        wanted = Wanted(paths, include, exclude, retry_failed=retry_failed, again=again)
        return plan_of(path, manifest, wanted)

    @classmethod
    def estimate(
        cls,
        plan: "Plan",
        *,
        db: str | Path = ".mmsearch",
        ocr: bool = True,
        num_workers: int | None = None,
        budget_s: float = 5.0,
    ) -> "Estimate":
        """Return how many segments, minutes and bytes `index` would take for a plan.

        Some files are opened to count their pages, for about ``budget_s`` seconds. Minutes
        and bytes are by the rates of earlier runs on the index at ``db``, else by those
        that come with mmsearch, of another machine.
        """
        from mmsearch.indexers.estimate import estimate
        from mmsearch.indexers.rates import read_rates
        from mmsearch.indexers.sandbox import default_workers
        from mmsearch.retriever.store.store import Store

        path = Path(db)
        return estimate(
            plan,
            read_rates(Store.open(path).home) if Store.exists(path) else {},
            policy=ReadPolicy(ocr=ocr),
            num_workers=num_workers or default_workers(),
            budget_s=budget_s,
        )

    def index(
        self,
        paths: Sequence[str | Path],
        *,
        on_progress: "Callable[[Progress], object] | None" = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        ocr: bool = True,
        retry_failed: bool = False,
        again: bool = False,
        only: Sequence[str | Path] | None = None,
        plan: "Plan | None" = None,
        within: Sequence[str | Path] | None = None,
        num_workers: int | None = None,
    ) -> "IndexReport":
        """Bring the index up to date with the files under ``paths``.

        Unchanged files are skipped, changed ones replaced, deleted ones removed; a file
        that cannot be read is reported and harms no other. What the report counts is
        committed and durable. Safe to interrupt and to run again.

        include, exclude: globs over the path below each root
        ocr:              read the words in pictures, scans and films (slow, worth it): after
                          everything else, so that until then these are found by their looks
        retry_failed:     try unchanged files again that failed before
        again:            read every file again, changed or not
        only:             look at no more than these of the files and folders under ``paths``,
                          where they are known to have changed
        plan:             what `preview` said of the same arguments a moment ago; a new index
                          need not look at every file twice
        within:           pass over files that lie in none of these folders once all links
                          are followed
        num_workers:      reader processes; by default one for each core that affinity and
                          a container's quota leave, at most 32
        Raises NothingToIndex (never with ``only``), also for a folder that holds nothing at all
        though the index knows documents in it, as where a disk is not mounted; StoreLocked,
        ModelError.
        """
        from mmsearch.indexers import pipeline
        from mmsearch.indexers.kept import KeptSegments
        from mmsearch.indexers.planning import Wanted, plan_of
        from mmsearch.indexers.rates import add_rates
        from mmsearch.indexers.sandbox import default_workers
        from mmsearch.retriever.search.backends import keep_fresh
        from mmsearch.retriever.search.looks import num_alike

        with self._store.writing() as writer:
            self._chosen()  # before anything is read
            began = time.perf_counter()
            before = self._store.snapshot()
            manifest = before.documents
            if plan is None or manifest or within is not None:  # it holds while nothing else does
                plan = plan_of(
                    self.path,
                    manifest,
                    Wanted(
                        paths,
                        include,
                        exclude,
                        retry_failed=retry_failed,
                        again=again,
                        only=only,
                        within=within,
                    ),
                )
            report = pipeline.run(
                plan,
                embedder=lambda: self.embedder,
                writer=writer,
                policy=self._policy(ocr),
                num_workers=num_workers or default_workers(),
                plan_s=time.perf_counter() - began,
                on_progress=on_progress,
                kept=KeptSegments(self._store),
            )
            with contextlib.suppress(OSError):  # nothing rests on it, and the run is done
                add_rates(self._store.home, report.rates)
            keep_fresh(self._store)
            after = self._store.snapshot()
            return replace(report, alike=num_alike(after, after.live - before.live))

    def watch(
        self,
        paths: Sequence[str | Path],
        *,
        on_progress: "Callable[[Progress], object] | None" = None,
        on_notice: Callable[[str], object] = lambda _: None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        ocr: bool = True,
        retry_failed: bool = False,
        again: bool = False,
        num_workers: int | None = None,
        settle_s: float = 0.5,
        sweep_every_s: float = 900.0,
        poll_every_s: float = 10.0,
    ) -> "Iterator[IndexReport]":
        """Index ``paths``, then keep on: yield a report of that, and one of each change.

        A change is committed before its report is given. It never ends by itself; leave
        the loop, or interrupt it as `index` may be interrupted. While another process is
        writing to the index it waits. A folder that is gone as a whole, or empty when it is
        looked at, keeps what the index holds of it, and is looked at again when it is back.

        on_notice:     is told, in a sentence, why it waits and what it could not do
        retry_failed, again: of the first run
        settle_s:      a changed file is read once it was left alone for so long
        sweep_every_s: everything is looked at again so often, for what the system missed
        poll_every_s:  likewise, where the system cannot watch so many folders
        The rest is as for `index`. Raises NothingToIndex for a path that does not exist.
        """
        from mmsearch.indexers.discover import discover
        from mmsearch.indexers.following import follow
        from mmsearch.indexers.planning import Wanted, plan_of
        from mmsearch.indexers.watch import Watch

        def has_work(manifest: Sequence[Document], changed: Sequence[Path]) -> bool:
            plan = plan_of(self.path, manifest, Wanted(paths, include, exclude, only=changed))
            return bool(plan.read or plan.touched or plan.gone or (ocr and plan.awaiting))

        def index(changed: Sequence[Path], is_first: bool) -> "IndexReport":
            return self.index(
                paths,
                on_progress=on_progress,
                include=include,
                exclude=exclude,
                ocr=ocr,
                retry_failed=retry_failed and is_first,
                again=again and is_first,
                only=changed,
                num_workers=num_workers,
            )

        for path in paths:
            next(discover([Path(path)]), None)  # raises where there is none
        watch = Watch(
            paths,
            ignored=self.path,
            settle_s=settle_s,
            sweep_every_s=sweep_every_s,
            poll_every_s=poll_every_s,
            on_notice=on_notice,
        )
        yield from follow(
            watch,
            paths,
            manifest=self._store.documents,
            has_work=has_work,
            index=index,
            on_notice=on_notice,
        )

    def remove(self, paths: Sequence[str | Path]) -> int:
        """Take the documents at these paths, or under these folders, out of the index.

        A text that was given goes by ``given_path(text_id)``. Returns how many there were;
        the files themselves stay. Raises StoreLocked.
        """
        with self._store.writing() as writer:
            doomed = [document.path for document in self.documents(paths)]
            if doomed:
                writer.remove(doomed)
                writer.refresh()
        return len(doomed)

    def add_texts(
        self, texts: Mapping[str, str], *, about: Mapping[str, str] | None = None
    ) -> None:
        """Keep texts that lie in no file, by ids of your own; one of a known id is replaced.

        All of them are committed and durable when it returns, or none is, if it raises. Each
        is found whole, as a hit whose path is ``given_path(text_id)``; runs of `index` leave
        it alone, and a rebuild takes it along.

        about: words about a text, by its id: searched and given back, and not embedded
        Raises StoreLocked, ValueError for an empty id, and as `Embedder.embed` does.
        """
        from mmsearch.indexers.given import GivenText, as_documents
        from mmsearch.retriever.search.backends import keep_fresh

        given = [
            GivenText(text_id=text_id, text=text, about=(about or {}).get(text_id, ""))
            for text_id, text in texts.items()
        ]
        documents = as_documents(given, self.embedder)  # before anybody has to wait for us
        with self._store.writing() as writer:
            writer.commit_all(documents)
            writer.refresh()
            keep_fresh(self._store)

    # ------------------------------------------------------------ query

    def query(
        self,
        query: Query | str,
        *,
        k: int = 10,
        group: bool = False,
        collapse: bool = False,
        ocr: bool = True,
    ) -> list[Hit]:
        """Return the ``k`` best hits, best first.

        group:    only the best hit of each document
        collapse: only the best of those that look alike (see `near_duplicates`)
        ocr:      read the words in the query's pictures too
        Raises EmptyQuery, BadFilter, UnreadableFile for the query's own media, BadItem or
        OutOfMemory where they are too much for the model, and ValueError for ``k < 1``.

        Examples:
            >>> [hit] = engine.query(Query(images=["q.png"]), k=1)
            >>> Path(hit.path).name
            'red.png'
            >>> [hit.page for hit in engine.query(Query("hours", where="page = 3"), group=True)]
            [3, 3]
        """
        asked = Query(query) if isinstance(query, str) else query
        question = self._question(asked, ocr=ocr)
        return self._searcher().search(question, k=k, group=group, collapse=collapse)

    def similar(self, segment_id: str, *, k: int = 10) -> list[Hit]:
        """Return the segments most like one of the index, itself left out.

        Raises SegmentNotFound, and ValueError for ``k < 1``.

        Examples:
            >>> [page] = engine.query("rainfall by month", k=1)
            >>> page.segment_id in [hit.segment_id for hit in engine.similar(page.segment_id)]
            False
        """
        return self._searcher().similar(segment_id, k=k)

    def evaluate(
        self, queries: str | Path, *, on_progress: Callable[[int, int], object] | None = None
    ) -> "Report":
        """Answer every query of a JSONL file and return how well that went, by kind.

        A query's own source (the same page, or a file with the same content) is left
        out of its ranking. Raises BadQueryFile.
        """
        from mmsearch.indexers.content import hash_if_readable
        from mmsearch.retriever.evaluation.judging import judge, own_source
        from mmsearch.retriever.evaluation.measures import DEPTH, report
        from mmsearch.retriever.evaluation.queryfile import read_queries

        known = read_queries(Path(queries))
        documents = self._store.documents()
        judged = []
        for number, one in enumerate(known, start=1):
            own = own_source(one, documents, hash_if_readable)
            question = replace(
                self._question(one.query),
                exclude_paths=own.paths,
                exclude_segments=own.segments,
            )
            judged.append(judge(one, self._searcher().search(question, k=DEPTH)))
            if on_progress:
                on_progress(number, len(known))
        return report(judged)

    def _searcher(self) -> "Searcher":
        from mmsearch.retriever.search.backends import choose
        from mmsearch.retriever.search.search import Searcher

        with self._lock:
            if self._backends is None:
                self._backends = choose(self._backend, device=self._device)
        return Searcher(self._store, self._chosen().calibration, self._backends)

    def _question(self, query: Query, *, ocr: bool = True) -> "Question":
        """Read, compose and embed what is asked."""
        from mmsearch.retriever.search.composition import compose
        from mmsearch.retriever.search.filters import filter_sql
        from mmsearch.retriever.search.question import Question

        if query.is_empty:
            raise EmptyQuery
        where = filter_sql(query)
        asked = compose(query, self._read_media(query, ocr=ocr))
        texts = [asked.text] if asked.text and asked.text is not asked.visual else []
        visual, *others = self.embedder.embed(
            [asked.visual, *texts, *asked.negative], role=Role.QUERY
        )
        by_words = visual if asked.text else None
        return Question(
            visual=visual,
            visual_side=asked.visual_side,
            text=others[0] if texts else by_words,
            words=asked.words,
            negative=tuple(others[len(texts) :]),
            where=where,
            min_score=query.min_score,
            has_pixels=asked.has_pixels,
        )

    def _read_media(self, query: Query, *, ocr: bool) -> "list[Segment]":
        if not (query.images or query.video or query.page):
            return []
        from mmsearch.indexers.query_media import read_query_media

        return read_query_media(query, self._reading_sandbox(), self._policy(ocr))

    def _reading_sandbox(self) -> "Sandbox":
        """Return the workers for what queries bring and people look at."""
        from mmsearch.indexers.sandbox import Sandbox

        with self._lock:
            if self._sandbox is None:
                self._sandbox = Sandbox(_QUERY_WORKERS)
            return self._sandbox

    def _policy(self, ocr: bool) -> ReadPolicy:
        return ReadPolicy(
            ocr=ocr, max_pixels=self.space.max_pixels, max_frames=self.space.max_frames
        )

    async def aquery(
        self,
        query: Query | str,
        *,
        k: int = 10,
        group: bool = False,
        collapse: bool = False,
        ocr: bool = True,
    ) -> list[Hit]:
        """Do what `query` does in a thread, so that an event loop goes on meanwhile.

        Examples:
            >>> import asyncio
            >>> async def both():
            ...     return await asyncio.gather(
            ...         engine.aquery("the pump", k=1), engine.aquery("museum", k=1)
            ...     )
            >>> [[hit.page for hit in hits] for hits in asyncio.run(both())]
            [[2], [3]]
        """
        import asyncio

        return await asyncio.to_thread(
            self.query, query, k=k, group=group, collapse=collapse, ocr=ocr
        )

    def context(
        self, query: Query | str, *, k: int = 5, budget: "Budget | None" = None
    ) -> "list[ContextPart]":
        """Return the best hits as what a generator is given: text, picture and citation.

        A picture whose file is gone is left out; its words stay. Raises as `query` does.

        Examples:
            >>> from mmsearch.context import Budget
            >>> [part] = engine.context("the pump", k=1, budget=Budget(image_pixels=250_000))
            >>> (part.number, part.citation, part.text[:8], part.image[8:12])
            (1, 'report.pdf p.2', 'The pump', b'WEBP')
        """
        from mmsearch.context import Budget, parts_of

        def picture(hit: Hit, max_pixels: int) -> bytes:
            try:
                return self.picture(hit.segment_id, max_pixels=max_pixels)
            except (UnreadableFile, SegmentNotFound):
                return b""

        return parts_of(self.query(query, k=k), picture, budget or Budget())

    def embed_queries(self, queries: "Sequence[Item | str]") -> "Vectors":
        """Return float32 ``[n, d]``, a unit row for each text or item, as queries are embedded.

        Raises as `Embedder.embed` does.

        Examples:
            >>> asked = engine.embed_queries(["a red picture"])
            >>> kept = engine.embed_documents([Item(Path("docs/red.png")), "a passage of text"])
            >>> (asked.shape, kept.shape, str(kept.dtype))
            ((1, 384), (2, 384), 'float32')
        """
        return self._embed(queries, Role.QUERY)

    def embed_documents(self, items: "Sequence[Item | str]") -> "Vectors":
        """Return float32 ``[n, d]``, a unit row for each text or item, as segments are embedded.

        Raises as `Embedder.embed` does.
        """
        return self._embed(items, Role.DOCUMENT)

    def part_of(self, path: str | Path, *, page: int = 1) -> "Image | Frames":
        """Return a picture, a film as a whole, or a page of a PDF as a part of an item.

        It is decoded in a worker process, within the limits and pixels of the index, so that
        a file of unknown origin does no harm. Raises UnreadableFile.
        """
        kind = self.kind_of(path)
        if kind is Kind.IMAGE:
            query = Query(images=[path])
        elif kind is Kind.VIDEO:
            query = Query(video=path)
        elif kind is Kind.PDF:
            query = Query(page=f"{path}#{page}")
        else:
            raise UnreadableFile(path, "it is no picture, film or PDF")
        [segment] = self._read_media(query, ocr=False)
        [part] = segment.views()[View.VISUAL].parts
        assert not isinstance(part, Text)
        return part

    @staticmethod
    def kind_of(path: str | Path) -> Kind | None:
        """Say what a file is by its content; None where no reader understands it.

        Raises UnreadableFile for one that is empty or cannot be opened.
        """
        from mmsearch.indexers.readers.sniff import sniff

        return sniff(Path(path))

    def _embed(self, items: "Sequence[Item | str]", role: Role) -> "Vectors":
        import numpy as np

        if not items:
            return np.empty((0, self.space.dim), dtype=np.float32)
        made = [one if isinstance(one, Item) else Item(one) for one in items]
        return self.embedder.embed(made, role=role)

    # ------------------------------------------------------------ look

    def status(self) -> "IndexStatus":
        """Return what the index holds."""
        from mmsearch.status import status_of

        return status_of(self._store, self._backend)

    def documents(self, paths: Sequence[str | Path] | None = None) -> list[Document]:
        """Return the documents at these paths, or under these folders, by path; else all."""
        from mmsearch.indexers.plan import is_under

        if paths is None:
            return self._store.documents()
        given = {str(path) for path in paths if given_id(str(path)) is not None}
        roots = [path for path in paths if str(path) not in given]
        documents = self._store.documents()
        return [one for one in documents if one.path in given or is_under(one.path, roots)]

    def document(self, path: str) -> Document | None:
        """Return the document of that path, as hits and segments name it; None without one."""
        return next(iter(self._store.documents(path)), None)

    def segments_of(self, path: str) -> "list[StoredSegment]":
        """Return the segments of a document in the order they lie in it."""
        return self._store.segments_of(path)

    def open_original(self, document: Document) -> BinaryIO:
        """Open the file of a document to read its bytes.

        Raises UnreadableFile where it is gone, or is not the one that was indexed any more.
        """
        from mmsearch.indexers.originals import open_original

        return open_original(document)

    def near_duplicates(self) -> "list[list[StoredSegment]]":
        """Return groups of segments that show the same picture, the largest first.

        Every segment of a group is a near-duplicate of its first; see `search.looks`.
        """
        from mmsearch.retriever.search.looks import groups_of

        return groups_of(self._store.snapshot())

    def show(self, segment_id: str) -> "StoredSegment":
        """Return what the index holds of one segment; raises SegmentNotFound."""
        found = self._store.segments([segment_id])
        if not found:
            raise SegmentNotFound(segment_id)
        return found[0]

    def thumbnail(self, segment_id: str) -> bytes:
        """Return a small WebP of a segment, empty for text; raises SegmentNotFound."""
        return self._store.thumbnail(segment_id)

    def words_on(self, segment_id: str) -> list[PlacedWord]:
        """Return the words of a page of a PDF and where they stand; none of scans and other kinds.

        They are read from the file again. Raises SegmentNotFound, and UnreadableFile where the
        file is gone or cannot be read any more.

        Examples:
            >>> [page] = engine.query("the pump", k=1)
            >>> first = engine.words_on(page.segment_id)[0]
            >>> (first.text, 0 < first.left < first.right < 1)
            ('The', True)
        """
        from mmsearch.indexers.showing import words_on

        segment = self.show(segment_id)
        return words_on(segment.path, segment.kind, segment.locator, self._reading_sandbox())

    def picture(self, segment_id: str, *, max_pixels: int = 1_600_000) -> bytes:
        """Return a page, a picture, or the middle of a clip as WebP; empty for text.

        It is made from the file again. Raises SegmentNotFound, and UnreadableFile where the
        file is gone or cannot be read any more, and ValueError for ``max_pixels < 1``.
        """
        from mmsearch.indexers.showing import picture_of

        segment = self.show(segment_id)
        return picture_of(
            segment.path,
            segment.kind,
            segment.locator,
            self._reading_sandbox(),
            max_pixels=max_pixels,
        )
