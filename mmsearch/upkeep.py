"""The verbs that look after an index as a whole: whole, small, kept, moved, made anew.

    check, repair                     does it hold together
    optimize, collect_garbage         fast and small
    tags, tag, untag, restore         states to come back to
    rebuild                           the same documents through another model
    export_index, import_index        one folder of Parquet

A second door beside `mmsearch.engine`: none of these needs a query. It knows no terminal.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import FilesGone, MissingExtra, MMSearchError, StoreDamaged, StoreError
from mmsearch.retriever.models.description import ModelSettings
from mmsearch.values import ReadPolicy, Space, given_id

if TYPE_CHECKING:
    from mmsearch.indexers.report import IndexReport, Progress
    from mmsearch.retriever.embedding.choice import ChosenModel, OwnEmbedder
    from mmsearch.retriever.seams import Embedder
    from mmsearch.retriever.store.dump import Dump
    from mmsearch.retriever.store.store import Problem, Store, Tag

log = logging.getLogger(__name__)

_AS_MADE = ModelSettings()

# ---------------------------------------------------------------- whole


@contextlib.contextmanager
def _beyond_mending() -> Iterator[None]:
    """What not even these two can look into is not mended by typing their name again."""
    try:
        yield
    except StoreDamaged as error:
        error.hint = (
            "nothing here can mend that: index the files again into a new folder (--db DIR)"
        )
        raise


@_beyond_mending()
def check(db: str | Path) -> "list[Problem]":
    """Return what is wrong with an index; nothing, if it is whole.

    The manifest, the segments, the thumbnails, every index and the accelerator are held
    against each other. Rows and files of a writer at work are not wrong.
    """
    from mmsearch.retriever.search.backends import faiss_files
    from mmsearch.retriever.store.store import Store

    store = Store.open(Path(db))
    problems = store.check()
    if faiss_files.exists(store.home):
        problems += faiss_files.problems(store.snapshot(), store.home)
    return problems


@_beyond_mending()
def repair(db: str | Path) -> list[str]:
    """Mend what `check` finds; return a sentence for each thing that was done.

    Documents that are not whole are forgotten: index their files again. An index of an
    older schema is brought up to date. Raises StoreLocked, and StoreError where the tables
    themselves are damaged.
    """
    from mmsearch.retriever.search.backends import faiss_files
    from mmsearch.retriever.store.store import Store

    store = Store.open(Path(db))
    with store.writing() as writer:
        mended = writer.repair()
    if faiss_files.exists(store.home) and faiss_files.problems(store.snapshot(), store.home):
        try:
            faiss_files.build(store.snapshot(), store.home)
            mended.append("made the faiss files anew")
        except MissingExtra:
            faiss_files.remove(store.home)
            mended.append("removed the faiss files: there is no faiss here to make them anew")
    return mended


# ---------------------------------------------------------------- fast and small


def optimize(db: str | Path, *, faiss: bool | None = None) -> None:
    """Merge small files, bring every index up to date and drop old versions.

    An index of an older schema is brought up to date first.

    faiss: True makes the faiss accelerator anew, False removes it, None keeps one that is
           there up to date
    Raises StoreLocked, StoreError, MissingExtra for faiss where there is none.
    """
    from mmsearch.retriever.search.backends import faiss_files
    from mmsearch.retriever.search.backends.choice import keep_fresh
    from mmsearch.retriever.search.backends.faiss_scanner import load_faiss
    from mmsearch.retriever.store.store import Store

    if faiss:
        load_faiss()  # before hours of other work
    store = Store.open(Path(db))
    with store.writing() as writer:
        writer.optimize()
    if faiss:
        faiss_files.build(store.snapshot(), store.home)
    elif faiss is False:
        faiss_files.remove(store.home)
    else:
        keep_fresh(store)


def collect_garbage(db: str | Path) -> int:
    """Free what nobody needs; return how many bytes that were.

    Readers may be at work in what was of use half an hour ago: that is kept, as is what a
    tag needs. Raises StoreLocked, StoreError.
    """
    from mmsearch.retriever.store.store import Store

    with Store.open(Path(db)).writing() as writer:
        return writer.collect_garbage()


# ---------------------------------------------------------------- states to come back to


def tags(db: str | Path) -> "list[Tag]":
    """Return the states of an index that were given a name, oldest first."""
    from mmsearch.retriever.store.store import Store

    return Store.open(Path(db)).tags()


def tag(db: str | Path, name: str) -> "Tag":
    """Give the state of now a name, to come back to; what it holds is kept from now on.

    name: letters, digits, ".", "_" and "-", at most 64, beginning with one of the former
    Raises StoreLocked, StoreError for a name that is taken.
    """
    from mmsearch.retriever.store.store import Store

    with Store.open(Path(db)).writing() as writer:
        return writer.tag(name)


def untag(db: str | Path, name: str) -> None:
    """Forget a tag and what only it needed. Raises StoreLocked, StoreError."""
    from mmsearch.retriever.store.store import Store

    with Store.open(Path(db)).writing() as writer:
        writer.untag(name)


def restore(db: str | Path, name: str) -> int:
    """Make an index hold what it held when it was tagged; return how many documents.

    All at once: there is no moment at which it is neither. Files that changed since are
    read again by the next run. Raises StoreLocked, StoreError.
    """
    from mmsearch.retriever.search.backends.choice import keep_fresh
    from mmsearch.retriever.store.store import Store

    store = Store.open(Path(db))
    with store.writing() as writer:
        num_documents = writer.restore(name)
    keep_fresh(store)
    return num_documents


# ---------------------------------------------------------------- the same files, another model


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildReport:
    """What a rebuild did.

    space:   of the index from now on
    run:     what was read and embedded; documents that an earlier, interrupted rebuild had
             done count as skipped. None where the index was of that space already
    missing: documents whose file is gone: the index does not know them any more
    tags:    names of the states of the old space, which cannot be brought back any more
    """

    space: Space
    run: "IndexReport | None" = None
    missing: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def rebuild(
    db: str | Path,
    *,
    model: "str | Path | Embedder | None" = None,
    device: str = "auto",
    dtype: str = "auto",
    settings: ModelSettings = _AS_MADE,
    ocr: bool = True,
    forget_missing: bool = False,
    num_workers: int | None = None,
    on_progress: "Callable[[Progress], object] | None" = None,
) -> RebuildReport:
    """Read the documents of an index again and embed them with another model or settings.

    Texts that were given and lie in no file are taken from the index.
    The index answers as it did until all is done, and then as the new one: there is no
    moment at which it is neither. Interrupted, it goes on where it was when asked for the
    same again. Needs room on the disk for both.

    model:    by default that of the index, for other ``settings`` of it
    settings: what is left open is as the index has it for the same model, else as the
              other model has it
    forget_missing: go on without the documents whose file is gone
    Raises StoreLocked, FilesGone where files are gone that are not to be forgotten, or all
    are; and what `Engine.open` raises for a model and its settings.
    """
    from mmsearch.indexers import pipeline
    from mmsearch.indexers.discover import files_of
    from mmsearch.indexers.given import carry_over
    from mmsearch.indexers.kept import KeptSegments
    from mmsearch.indexers.plan import make_plan
    from mmsearch.indexers.rates import add_rates
    from mmsearch.indexers.sandbox import default_workers
    from mmsearch.retriever.store.generations import take_over
    from mmsearch.retriever.store.store import Store

    store = Store.open(Path(db))
    chosen = _choose(store.space, model, device, dtype, settings)
    with store.writing():
        if chosen.space.id == store.space.id:
            return RebuildReport(space=store.space)
        paths = [one.path for one in store.documents() if given_id(one.path) is None]
        files = dict(files_of(paths))
        sources = [source for source in files.values() if source]
        missing = tuple(path for path, source in files.items() if source is None)
        num_given = len(store.documents()) - len(paths)
        if missing and not (forget_missing and (sources or num_given)):
            raise FilesGone(store.path, missing, num_documents=len(files))
        embedder = chosen.load()
        new = _begun(store, chosen.space)
        with new.writing() as writer:
            done = {document.path: document for document in new.documents()}
            run = pipeline.run(
                make_plan(sources, done, [Path("/")]),
                embedder=lambda: embedder,
                writer=writer,
                policy=ReadPolicy(
                    ocr=ocr, max_pixels=chosen.space.max_pixels, max_frames=chosen.space.max_frames
                ),
                num_workers=num_workers or default_workers(),
                on_progress=on_progress,
                kept=KeptSegments(new),
            )
            carry_over(store, embedder, writer)
        with contextlib.suppress(OSError):  # nothing rests on it, and the run is done
            add_rates(new.home, run.rates)
        _accelerate_like(store, new)
        tags = tuple(tag.name for tag in store.tags())
        take_over(store.path, replace(store.header, data=new.path.name, space=chosen.space))
    return RebuildReport(space=chosen.space, run=run, missing=missing, tags=tags)


def _accelerate_like(old: "Store", new: "Store") -> None:
    """Make a faiss file for ``new`` if ``old`` has one; it is a cache, and may be made later."""
    from mmsearch.retriever.search import backends

    if backends.exists(old.home):
        try:
            backends.build(new.snapshot(), new.home)
        except (MissingExtra, StoreError) as error:
            log.warning("the rebuilt index has no faiss file: %s", error)


def _choose(
    made_with: Space,
    model: "str | Path | Embedder | None",
    device: str,
    dtype: str,
    settings: ModelSettings,
) -> "ChosenModel | OwnEmbedder":
    from mmsearch.retriever.embedding.choice import choose_model
    from mmsearch.retriever.embedding.devices import check_asked

    check_asked(device, dtype)
    named = made_with.model if model is None else model
    chosen = choose_model(named, device=device, dtype=dtype, settings=settings)
    if chosen.space.weights_hash != made_with.weights_hash:
        return chosen
    return choose_model(named, device=device, dtype=dtype, settings=settings, like=made_with)


def _begun(store: "Store", space: Space) -> "Store":
    """Return the rebuild to ``space`` that was begun before, or a new one; drop all others."""
    from mmsearch.retriever.store.generations import (
        next_generation,
        remove_generation,
        unfinished,
    )
    from mmsearch.retriever.store.header import SCHEMA_VERSION
    from mmsearch.retriever.store.store import Store

    for folder in unfinished(store.path, store.header):
        try:
            begun = Store.open(folder)
            is_ours = (begun.space.id, begun.header.schema_version) == (space.id, SCHEMA_VERSION)
            if is_ours and not begun.check():
                return begun
        except MMSearchError:
            pass  # damaged, as by a full disk: it is begun anew
        remove_generation(folder)
    return Store.create(store.path / next_generation(store.path, store.header), space)


# ---------------------------------------------------------------- out and in


def export_index(db: str | Path, out: str | Path) -> "Dump":
    """Write an index to the new or empty folder ``out``, as Parquet; see `store.dump`.

    Nobody else can write to the index meanwhile. Paths of documents stay as they are.
    Raises StoreLocked, and StoreError where ``out`` holds something or the disk refuses.
    """
    from mmsearch.retriever.store.store import Store

    store = Store.open(Path(db))
    ours = os.access(store.path, os.W_OK)  # else nobody of our rights is writing
    with store.writing() if ours else contextlib.nullcontext():
        return store.export(Path(out).absolute())


def import_index(folder: str | Path, db: str | Path) -> "Dump":
    """Make the index that was exported to ``folder``; nothing may be at ``db``.

    Every file is held against its hash, and what came of them is checked as by `check`
    before it becomes an index. Raises StoreDamaged for an export that is not whole or of
    another schema, and StoreError.
    """
    from mmsearch.retriever.store.dump import importing, read_dump
    from mmsearch.retriever.store.store import Store

    folder = Path(folder)
    dump = read_dump(folder)
    with importing(folder, Path(db).absolute()) as new:
        store = Store.open(new)
        counts, problems = store.counts(), store.check()
        if problems:
            raise StoreDamaged(folder, problems[0].sentence)
        if counts.num_segments != dump.num_segments:
            raise StoreDamaged(folder, "it holds segments of documents that it does not name")
        with store.writing() as writer:
            writer.refresh()
    return dump
