"""What the embedded default is trained on: every pair of every kind, as one list.

    data folder, seed, MixSizes -> read_mix -> list[Example]

    figures    alt text, its sentences, caption -> picture; a changed view -> the picture
    words      alt text <-> caption; title, definition, sentence, caption -> paragraph
    drawings   charts, graphs, diagrams, tables, slides, shapes: words -> picture
    pages      title, question, sentence -> rendered page
    clips      what is seen and how it moves -> eight frames
    composed   picture and "but as a ..." -> changed picture

One row is one ``random.Random(f"{seed} {kind} {number}")``: it does not depend on the others.
The held-out books are in none of it: not their figures, not what looks like one of them, not
their paragraphs, not a module that shares its title with one of theirs.
"""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmsearch.errors import BadTrainingFile
from mmsearch.retriever.training.default.clips import MOVES, Clip, moving
from mmsearch.retriever.training.default.composed import (
    change_chart,
    change_figures,
    change_photo,
)
from mmsearch.retriever.training.default.pages import definition, noisy, page, question
from mmsearch.retriever.training.default.pairs import HELD_OUT, Pair, first_sentence
from mmsearch.retriever.training.default.pictures import (
    Drawn,
    Photo,
    Viewed,
    is_colourful,
)
from mmsearch.retriever.training.default.sheets import Drawing, pick, read_out, sentence
from mmsearch.retriever.training.examples import Example, Picture, Side, SidePart
from mmsearch.retriever.training.rationales import sentences
from mmsearch.values import Image


class Printed(str):
    """Words that stand in a picture, as OCR reads them; `thinned` leaves them out at times."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class MixSizes:
    """How many of what is made are in the mix; figures and icons are all in it.

    drawn:    drawings of each kind of `pictures.DRAWERS`; each makes two rows
    photos:   photographs that composed rows change, ``changes`` rows each
    """

    drawn: Mapping[str, int] = field(
        default_factory=lambda: {
            "chart": 4_000, "graph": 1_200, "diagram": 1_800, "table": 700, "slide": 700,
            "shapes": 1_000, "scene": 600,
        }
    )  # fmt: skip
    pages: int = 2_000
    photos: int = 800
    changes: int = 4
    composed_charts: int = 400
    composed_figures: int = 700
    clips: int = 800
    moving: int = 400
    definitions: int = 3_000
    titles: int = 2_500
    cloze: int = 6_000
    captions: int = 4_000


SMALL = MixSizes(
    drawn={"chart": 4, "shapes": 2}, pages=2, photos=2, changes=2, composed_charts=1,
    composed_figures=1, clips=2, moving=2, definitions=4, titles=4, cloze=4, captions=4,
)  # fmt: skip

# How often an epoch draws a row of each kind; 1 where it does not say.
WEIGHTS: Mapping[str, float] = {"title": 0.5, "same picture": 0.5}


@dataclass(frozen=True, slots=True)
class Module:
    """A section of a book; paragraphs of twenty words at least."""

    title: str
    book: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrintedPage:
    """A rendered page of a module, from its paragraph ``start`` on."""

    module: Module
    start: int
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"page {self.number} of {self.module.title}"

    @property
    def key(self) -> str:
        return f"page {self.number} of seed {self.seed}: {self.module.title}, {self.start}"

    def drawing(self) -> Drawing:
        """Return the page with its text layer."""
        chance = random.Random(f"{self.seed} page {self.number}")
        paragraphs = self.module.paragraphs[self.start : self.start + 8]
        return page(chance, self.module.title, paragraphs)

    def open(self) -> Image:
        import numpy as np

        return Image(np.asarray(self.drawing().sheet.paint()))


def read_mix(
    data: Path, train: Sequence[Pair], *, seed: int, sizes: MixSizes | None = None,
    held_out: Sequence[str] = HELD_OUT,
) -> list[Example]:  # fmt: skip
    """Return every row of the mix, kind after kind.

    train: the pairs to train on: `pairs.split` has left out what looks like a held-out one.
           ValueError where one of a held-out book is among them
    """
    sizes = sizes or MixSizes()
    if wrong := {pair.book for pair in train} & set(held_out):
        raise ValueError(f"held-out books are never trained on: {', '.join(sorted(wrong))}")
    pairs = list(train)
    modules = read_modules(data, held_out=held_out)
    makers: tuple[Iterator[Example], ...] = (
        _figures(data, pairs, seed),
        _icons(data, pairs, seed),
        *(_drawn(kind, count, seed) for kind, count in sizes.drawn.items()),
        _pages(modules, sizes.pages, seed),
        _composed(data, pairs, sizes, seed),
        _clips(data, pairs, sizes, seed),
        _definitions(modules, sizes.definitions, seed),
        _titles(modules, sizes.titles, seed),
        _cloze(modules, sizes.cloze, seed),
        _captions(pairs, modules, sizes.captions, seed),
    )
    return [example for maker in makers for example in maker]


def read_modules(data: Path, *, held_out: Sequence[str] = HELD_OUT) -> list[Module]:
    """Return the modules that may be trained on, in file order.

    A module that shares its number, its title or a paragraph with a held-out book's is left
    out, or that paragraph is.
    """
    path = data / "text/modules.jsonl.gz"
    try:
        with gzip.open(path, "rt") as lines:
            rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise BadTrainingFile(path, str(error).lower()) from error
    kept_back = [row for row in rows if row["book"] in held_out]
    titles = {row["title"] for row in kept_back}
    numbers = {row["module"] for row in kept_back}
    known = {_plain(text) for row in kept_back for text in row["paras"]}
    modules = []
    for row in rows:
        if row["book"] in held_out or row["title"] in titles or row["module"] in numbers:
            continue
        texts = tuple(
            text for text in row["paras"] if len(text.split()) >= 20 and _plain(text) not in known
        )
        if texts:
            modules.append(Module(row["title"], row["book"], texts))
    return modules


def thinned(
    example: Example, chance: random.Random, *, drop: float = 0.3, misread: float = 0.3
) -> Example:
    """Return the example as one step sees it: printed words left out, or misread, at times."""

    def side(one: Side) -> Side:
        parts: list[SidePart] = []
        for part in one.parts:
            if isinstance(part, Printed):
                if len(one.parts) > 1 and chance.random() < drop:
                    continue
                if chance.random() < misread:
                    parts.append(Printed(noisy(chance, part)) or part)
                    continue
            parts.append(part)
        return replace(one, parts=tuple(parts))

    return replace(
        example, query=side(example.query), positive=side(example.positive),
        negatives=tuple(side(one) for one in example.negatives),
    )  # fmt: skip


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _chance(seed: int, kind: str, number: int | str) -> random.Random:
    return random.Random(f"{seed} {kind} {number}")


def photo_of(data: Path, pair: Pair) -> Photo:
    """Return a pair's picture; photographs may be mirrored, figures with words may not."""
    mirrors = pair.is_photo or pair.book == "emoji"
    return Photo(data, pair.path.relative_to(data).as_posix(), mirrors)


# ---------------------------------------------------------------- figures


def _figures(data: Path, pairs: Sequence[Pair], seed: int) -> Iterator[Example]:
    for number, pair in enumerate(pairs):
        if pair.book == "emoji":
            continue
        chance = _chance(seed, "figure", pair.path.relative_to(data).as_posix())
        photo = photo_of(data, pair)
        row = f"{photo.path}"
        first = first_sentence(pair.alt)
        gist = pair.caption or first
        seen = Side((photo,), pair.alt, gist)
        sort = "photograph" if pair.is_photo else "figure"
        said = f"The book says: {first_sentence(pair.caption)}" if pair.caption else ""
        thought = read_out(f"the words describe a {sort}", f"it shows this: {first}", said)
        yield Example(Side((pair.alt,), thought, first), seen, (), "alt", row)
        part = _some_sentences(chance, pair.alt)
        if part != pair.alt:
            thought = read_out(f"the words are of a {sort}", f"all of it is this: {pair.alt}")
            yield Example(Side((part,), thought, first), seen, (), "alt part", row)
        if pair.caption:
            asked = Side((pair.caption,), pair.alt, first)
            yield Example(asked, seen, (), "caption", row)
            short = _some_sentences(chance, pair.caption)
            told = Side((pair.alt,), f"It is a {sort}. {said}", gist)
            if number % 2:
                yield Example(Side((short,), pair.alt, first), told, (), "alt and caption", row)
            else:
                asked, told = (
                    Side((part,), pair.caption, gist),
                    Side((pair.caption,), pair.alt, first),
                )
                yield Example(asked, told, (), "alt and caption", row)
        for view in (1, 2) if pair.is_photo else (1,):
            same = Side((Viewed(photo, view),), pair.alt, gist)
            yield Example(same, seen, (), "same picture", f"{row}, view {view}")


def _some_sentences(chance: random.Random, text: str) -> str:
    """Return one to three sentences of the text that follow each other."""
    told = [one.strip() for one in sentences(text)]
    count = min(chance.choice((1, 1, 2, 3)), len(told))
    start = chance.randint(0, len(told) - count)
    part = " ".join(told[start : start + count])
    return part if len(part.split()) >= 4 else text


def _icons(data: Path, pairs: Sequence[Pair], seed: int) -> Iterator[Example]:
    for pair in pairs:
        if pair.book != "emoji":
            continue
        photo = photo_of(data, pair)
        chance = _chance(seed, "icon", photo.path)
        name = pair.alt.removeprefix("icon: ")
        query = pick(chance, name, f"emoji of {name}", f"icon: {name}", f"{name} icon",
                     f"a small colored symbol: {name}")  # fmt: skip
        thought = read_out("it is an icon on a plain background", f"it stands for {name}")
        seen = Side((photo,), thought, name)
        yield Example(Side((query,), thought, name), seen, (), "icon", photo.path)


# ---------------------------------------------------------------- drawings, pages, clips


def _drawn(kind: str, count: int, seed: int) -> Iterator[Example]:
    for number in range(count):
        picture = Drawn(kind, number, seed)
        yield from told(picture, picture.drawing(), dataset=_set_of(kind))


def _set_of(kind: str) -> str:
    return "shapes" if kind == "scene" else kind


def told(picture: Picture, drawing: Drawing, *, dataset: str) -> Iterator[Example]:
    """Yield two rows of a drawing: its description, and a query or a caption of it."""
    words = drawing.words
    parts: tuple[str | Picture, ...] = (picture, Printed(words)) if words else (picture,)
    seen = Side(parts, drawing.rationale, drawing.caption)
    asked = Side((drawing.description,), drawing.rationale, drawing.answer)
    yield Example(asked, seen, (), dataset, picture.name)
    chance = random.Random(picture.key)
    short = drawing.query if chance.random() < 0.65 else drawing.caption
    yield Example(
        Side((short,), drawing.rationale, drawing.answer),
        seen,
        (),
        dataset,
        f"{picture.name}, short",
    )


def _pages(modules: Sequence[Module], count: int, seed: int) -> Iterator[Example]:
    long = [module for module in modules if len(module.paragraphs) >= 3]
    for number in range(count if long else 0):
        chance = _chance(seed, "page of", number)
        module = chance.choice(long)
        start = 0 if chance.random() < 0.4 else chance.randrange(len(module.paragraphs) - 2)
        picture = PrintedPage(module, start, number, seed)
        drawing = picture.drawing()
        shown = _shown(module.paragraphs[start : start + 8], drawing.words)
        seen = Side((picture, Printed(drawing.words)), drawing.rationale, module.title)
        kind = chance.random()
        asked = module.title if kind < 0.25 else question(chance, chance.choice(shown))
        thought = read_out("the words are of a page of a book", f"its heading is {module.title}")
        yield Example(Side((asked,), thought, module.title), seen, (), "page", picture.name)


def _shown(paragraphs: Sequence[str], words: str) -> list[str]:
    """Return what of the paragraphs is on the page, whole sentences."""
    on_page = _plain(words)
    shown = [
        " ".join(one.strip() for one in sentences(text) if _plain(one) in on_page)
        for text in paragraphs
    ]
    return [text for text in shown if text] or [paragraphs[0]]


def _clips(data: Path, pairs: Sequence[Pair], sizes: MixSizes, seed: int) -> Iterator[Example]:
    photos = [pair for pair in pairs if pair.is_photo]
    for number in range(sizes.clips if len(photos) >= 4 else 0):
        chance = _chance(seed, "clip", number)
        chosen = chance.sample(photos, chance.choice((1, 1, 2, 2, 3, 4)))
        moves = tuple(chance.choice(list(MOVES)) for _ in chosen)
        clip = Clip(tuple(photo_of(data, pair) for pair in chosen), moves)
        scenes = [first_sentence(pair.alt) for pair in chosen]
        spoken = [sentence(MOVES[move]) for move in moves]
        both = [f"{scene} {move}" for scene, move in zip(scenes, spoken, strict=True)]
        asked = pick(
            chance, " ".join(scenes), " ".join(both), f"a video of this: {scenes[0]}",
            f"clip: {' Then: '.join(scenes)}",
        )  # fmt: skip
        cuts = f"it has {len(chosen)} shots" if len(chosen) > 1 else "it is one shot"
        thought = read_out("it is a clip", cuts, *both[:3])
        gist = " ".join(scenes)
        yield Example(
            Side((asked,), thought, gist),
            Side((clip,), thought, gist),
            (),
            "clip",
            f"clip {number}",
        )
    for number in range(sizes.moving):
        shapes, asked, thought = moving(_chance(seed, "moving", number))
        yield Example(
            Side((asked,), thought, shapes.told), Side((shapes,), thought, shapes.told), (),
            "moving", f"moving {number}",
        )  # fmt: skip


def _composed(data: Path, pairs: Sequence[Pair], sizes: MixSizes, seed: int) -> Iterator[Example]:
    photos = [photo_of(data, pair) for pair in pairs if pair.is_photo and pair.book != "emoji"]
    chance = _chance(seed, "composed", "photographs")
    for photo in chance.sample(photos, min(sizes.photos, len(photos))):
        own = _chance(seed, "composed photo", photo.path)
        yield from change_photo(
            own, photo, photo.path, colourful=is_colourful(photo), num=sizes.changes
        )
    for number in range(sizes.composed_charts):
        row = f"composed chart {number}"
        yield from change_chart(_chance(seed, "composed chart", number), row)
    for number in range(sizes.composed_figures):
        row = f"composed shapes {number}"
        yield change_figures(_chance(seed, "composed shapes", number), row)


# ---------------------------------------------------------------- words and words


def _paragraphs(
    modules: Sequence[Module], count: int, seed: int, kind: str,
    fits: Callable[[str, Module], bool],
) -> Iterator[tuple[random.Random, Module, str, str]]:  # fmt: skip
    """Yield that many paragraphs that fit, with their own chance and what a report says."""
    everything = [(m, i) for m, module in enumerate(modules) for i in range(len(module.paragraphs))]
    random.Random(f"{seed} {kind}").shuffle(everything)
    for m, i in everything:
        if not count:
            return
        module = modules[m]
        if fits(module.paragraphs[i], module):
            count -= 1
            name = f"{module.book}: {module.title}, paragraph {i}"
            yield _chance(seed, kind, f"{m} {i}"), module, module.paragraphs[i], name


def _definitions(modules: Sequence[Module], count: int, seed: int) -> Iterator[Example]:
    def fits(text: str, _: Module) -> bool:
        return len(text.split()) >= 30 and any(definition(one) for one in sentences(text))

    for chance, module, text, row in _paragraphs(modules, count, seed, "definition", fits):
        defined = [found for one in sentences(text) if (found := definition(one))]
        term, verb, what = chance.choice(defined)
        asked = pick(chance, f"What {verb} {term}?", what, what, f"{term}: {what}",
                     f"define {term}")  # fmt: skip
        thought = read_out(f"the words are about {term}", f"{term} {verb} {what}",
                           f"the section is {module.title}")  # fmt: skip
        yield Example(
            Side((asked,), thought, term), Side((text,), thought, term), (), "definition", row
        )


def _titles(modules: Sequence[Module], count: int, seed: int) -> Iterator[Example]:
    def fits(text: str, module: Module) -> bool:
        words = {w.strip(".,;:()").casefold() for w in text.split()}
        keys = [w.casefold() for w in module.title.split() if len(w) > 4]
        return any(key in words for key in keys)

    for _, module, text, row in _paragraphs(modules, count, seed, "title", fits):
        first = sentences(text)[0].strip()
        thought = read_out(f"the section is {module.title}", f"a paragraph begins: {first}")
        asked = Side((module.title,), thought, first)
        yield Example(asked, Side((text,), thought, module.title), (), "title", row)


def _cloze(modules: Sequence[Module], count: int, seed: int) -> Iterator[Example]:
    def fits(text: str, _: Module) -> bool:
        return len([one for one in sentences(text) if len(one.split()) >= 6]) >= 3

    for chance, module, text, row in _paragraphs(modules, count, seed, "cloze", fits):
        told = [one.strip() for one in sentences(text)]
        place = chance.choice([i for i, one in enumerate(told) if len(one.split()) >= 6])
        rest = " ".join(one for i, one in enumerate(told) if i != place)
        kept = text if chance.random() < 0.3 else rest
        asked = told[place] if chance.random() < 0.6 else question(chance, told[place])
        thought = read_out(f"the section is {module.title}", told[place])
        yield Example(
            Side((asked,), thought, module.title), Side((kept,), thought, module.title), (),
            "cloze", row,
        )  # fmt: skip


def _captions(
    pairs: Sequence[Pair], modules: Sequence[Module], count: int, seed: int
) -> Iterator[Example]:
    """Yield captions, or alt texts, with the paragraph of their section that is most like them."""
    homes: dict[tuple[str, str], list[Module]] = {}
    for module in modules:
        homes.setdefault((module.book, module.title), []).append(module)
    told = [pair for pair in pairs if (pair.book, pair.module) in homes]
    random.Random(f"{seed} captions").shuffle(told)
    for pair in told[:count]:
        chance = _chance(seed, "caption paragraph", str(pair.path.name))
        words = pair.caption if pair.caption and chance.random() < 0.7 else pair.alt
        keys = _keys(words)
        texts = [text for module in homes[pair.book, pair.module] for text in module.paragraphs]
        best = max(texts, key=lambda text: len(keys & _keys(text)) / len(_keys(text)) ** 0.5)
        if len(keys & _keys(best)) < 3:
            continue
        first = sentences(best)[0].strip()
        thought = read_out(f"the section is {pair.module}", f"it says: {first}")
        yield Example(
            Side((words,), thought, first), Side((best,), thought, pair.module), (),
            "caption paragraph", f"{pair.book}: {pair.path.name}",
        )  # fmt: skip


def _keys(text: str) -> set[str]:
    words = {word.strip(".,;:()“”\"'").casefold() for word in text.split()}
    return {word for word in words if len(word) > 4} or {""}
