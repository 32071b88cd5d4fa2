"""Which hits of a query are right.

A hit is right when it lies in a place that answers: in the document, on the page, or with
a span that overlaps. Every place counts once: a second clip of a scene that was found
already is no second answer, and no hit answers for two places. The query's own source is
left out of the ranking, for finding it proves nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.retriever.evaluation.queryfile import KnownQuery, Place
from mmsearch.values import Document, Hit, Locator, segment_id


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSource:
    """What a query was taken from: whole documents by path, and single segments by id."""

    paths: frozenset[str]
    segments: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How a query went.

    num_places: places that answer it; 0 for a no-answer query
    found:      for each hit in order, the number of the place it was the first to find,
                or None for a hit that is not right
    best_score: score of the first hit; None where there was none
    """

    id: str
    kind: str
    num_places: int
    found: tuple[int | None, ...]
    best_score: float | None

    @property
    def first_right(self) -> int | None:
        """1-based rank of the first right hit; None where no hit is right."""
        ranks = (rank for rank, place in enumerate(self.found, start=1) if place is not None)
        return next(ranks, None)


def own_source(
    query: KnownQuery, documents: Iterable[Document], content_hash: Callable[[Path], str]
) -> OwnSource:
    """Return what must be left out of the ranking of ``query``.

    That is every document with the content of one of its images or of its video, and for
    a page that page of the document itself and of every copy. ``content_hash`` hashes a
    file as `Document.content_hash` does.
    """
    documents = list(documents)
    media = [*query.images, *([query.video] if query.video else [])]
    hashes = {content_hash(path) for path in media} - {""}
    paths = {document.path for document in documents if document.content_hash in hashes}
    segments: set[str] = set()
    shown = query.page_place
    if shown is not None and query.page is not None:
        same = content_hash(Path(query.page.rpartition("#")[0]))
        copies = {d.path for d in documents if same and d.content_hash == same}
        place = Locator(page=shown.page)
        segments = {segment_id(path, place) for path in copies | {shown.path}}
    return OwnSource(paths=frozenset(paths), segments=frozenset(segments))


def judge(query: KnownQuery, hits: Sequence[Hit], own: OwnSource | None = None) -> Judged:
    """Return which of ``hits``, best first, are right; those of its own source do not count."""
    ranking = [hit for hit in hits if own is None or not _is_own(hit, own)]
    unfound = dict(enumerate(query.relevant))
    found: list[int | None] = []
    for hit in ranking:
        number = next((n for n, place in unfound.items() if is_right(hit, place)), None)
        if number is not None:
            del unfound[number]
        found.append(number)
    return Judged(
        id=query.id,
        kind=query.kind,
        num_places=len(query.relevant),
        found=tuple(found),
        best_score=ranking[0].score if ranking else None,
    )


def is_right(hit: Hit, place: Place) -> bool:
    """Say whether ``hit`` lies in ``place``; a place without length is one moment."""
    if hit.path != place.path:
        return False
    if place.page is not None:
        return hit.page == place.page
    if place.start is None or place.end is None:
        return True
    if hit.start is None or hit.end is None:
        return False
    if place.start == place.end:
        return hit.start <= place.start < hit.end
    return hit.start < place.end and place.start < hit.end


def _is_own(hit: Hit, own: OwnSource) -> bool:
    return hit.path in own.paths or hit.segment_id in own.segments
