"""Composed pairs: a picture and a change asked for in words -> the changed picture.

    Changed(picture, change)              a picture that is opened and then changed
    composed(chance, ...) -> Example      "but in black and white", "but as a pie chart"
    held_out_composed(...)                queries and a pool in which neither half suffices

The held-out set is made of photographs and wordings that no training row has, and half of
its changes are of kinds that no training row has.
"""

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image as pil
from PIL import ImageChops, ImageDraw, ImageFilter, ImageOps

from mmsearch.retriever.training.default.charts import (
    NAMES,
    Table,
    random_table,
    recast,
)
from mmsearch.retriever.training.default.pictures import Photo, is_colourful, opened
from mmsearch.retriever.training.default.shapes import (
    FORMS,
    HUES,
    PAPERS,
    Figures,
    random_figures,
    recoloured,
    reshaped,
    without,
)
from mmsearch.retriever.training.default.sheets import Style, a, pick, random_style, read_out
from mmsearch.retriever.training.default.subjects import subject
from mmsearch.retriever.training.examples import Example, Picture, Side
from mmsearch.values import Image

Look = Callable[[pil.Image], pil.Image]


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a picture, how training asks for it, and how the held-out set does.

    told:    what is then seen, as a clause: ``it has no colors``
    colours: whether it only shows on a picture with colours
    """

    look: Look
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    told: str
    colours: bool = False


def _tinted(rgb: tuple[int, int, int], share: float = 0.55) -> Look:
    def look(picture: pil.Image) -> pil.Image:
        return pil.blend(picture, pil.new("RGB", picture.size, rgb), share)

    return look


def _sepia(picture: pil.Image) -> pil.Image:
    return ImageOps.colorize(picture.convert("L"), (30, 18, 5), (255, 240, 205))


def _pencil(picture: pil.Image) -> pil.Image:
    grey = picture.convert("L")
    lifted = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(4))
    array = np.asarray(grey, np.float32) * 255 / np.maximum(255 - np.asarray(lifted), 1)
    return pil.fromarray(np.clip(array, 0, 255).astype(np.uint8)).convert("RGB")


def _night(picture: pil.Image) -> pil.Image:
    dark = picture.point([round(level * 0.35) for level in range(256)] * 3)
    return ImageChops.add(dark, pil.new("RGB", picture.size, (0, 6, 34)))


def _cut(left: float, top: float, right: float, bottom: float) -> Look:
    def look(picture: pil.Image) -> pil.Image:
        w, h = picture.size
        box = (round(w * left), round(h * top), round(w * right), round(h * bottom))
        return picture.crop(box).resize(picture.size, pil.Resampling.BILINEAR)

    return look


def _turned(how: pil.Transpose) -> Look:
    return lambda picture: picture.transpose(how)


def _pixels(picture: pil.Image) -> pil.Image:
    small = picture.resize((max(picture.width // 14, 4), max(picture.height // 14, 4)))
    return small.resize(picture.size, pil.Resampling.NEAREST)


def _framed(picture: pil.Image) -> pil.Image:
    wide = max(min(picture.size) // 9, 6)
    return ImageOps.expand(picture, wide, (190, 30, 30))


def _small(picture: pil.Image) -> pil.Image:
    page = pil.new("RGB", picture.size, "white")
    small = picture.resize((picture.width * 2 // 5 or 1, picture.height * 2 // 5 or 1))
    page.paste(small, ((page.width - small.width) // 2, (page.height - small.height) // 2))
    return page


def _faded(picture: pil.Image) -> pil.Image:
    return pil.blend(picture, pil.new("RGB", picture.size, (235, 235, 235)), 0.66)


def _noisy(picture: pil.Image) -> pil.Image:
    grain = np.random.default_rng(7).normal(0, 55, (picture.height, picture.width, 1))
    noisy = np.asarray(picture, np.float32) + grain
    return pil.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _covered(picture: pil.Image) -> pil.Image:
    copy = picture.copy()
    w, h = picture.size
    ImageDraw.Draw(copy).rectangle((w * 0.3, h * 0.3, w * 0.7, h * 0.7), "black")
    return copy


def _tiled(picture: pil.Image) -> pil.Image:
    half = picture.resize((picture.width // 2 or 1, picture.height // 2 or 1))
    sheet = pil.new("RGB", (half.width * 2, half.height * 2))
    for i in range(4):
        sheet.paste(half, (i % 2 * half.width, i // 2 * half.height))
    return sheet


def _round(picture: pil.Image) -> pil.Image:
    mask = pil.new("L", picture.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, *picture.size), 255)
    return pil.composite(picture, pil.new("RGB", picture.size, "white"), mask)


def _striped(picture: pil.Image) -> pil.Image:
    copy = picture.copy()
    pen = ImageDraw.Draw(copy)
    for x in range(-picture.height, picture.width, 36):
        pen.line((x, picture.height, x + picture.height, 0), (255, 255, 255), 9)
    return copy


CHANGES: dict[str, Change] = {
    "black and white": Change(
        lambda p: p.convert("L").convert("RGB"),
        ("in black and white", "but black and white", "without any color", "in gray tones",
         "as a black-and-white photograph"),
        ("with the colors taken away", "monochrome version"), "it has no colors", True),
    "sepia": Change(
        _sepia,
        ("in sepia", "as an old brown photograph", "but in brown tones", "as a faded old print"),
        ("like a picture from long ago", "toned brown"), "it is brown and pale", True),
    "negative": Change(
        ImageOps.invert,
        ("as a negative", "but with inverted colors", "with dark and light exchanged",
         "as a photographic negative"),
        ("every tone turned into its opposite", "inverted"), "dark is light and light is dark"),
    "mirrored": Change(
        ImageOps.mirror,
        ("but mirrored", "flipped left to right", "as in a mirror", "reversed horizontally"),
        ("with left and right swapped", "its mirror image"), "left and right are exchanged"),
    "upside down": Change(
        ImageOps.flip,
        ("but upside down", "flipped top to bottom", "standing on its head", "turned over"),
        ("with top and bottom swapped", "the wrong way up"), "top and bottom are exchanged"),
    "turned left": Change(
        _turned(pil.Transpose.ROTATE_90),
        ("but rotated to the left", "turned by a quarter to the left",
         "rotated 90 degrees counterclockwise"),
        ("lying on its left side",), "it lies on its left side"),
    "turned right": Change(
        _turned(pil.Transpose.ROTATE_270),
        ("but rotated to the right", "turned by a quarter to the right",
         "rotated 90 degrees clockwise"),
        ("lying on its right side",), "it lies on its right side"),
    "blurred": Change(
        lambda p: p.filter(ImageFilter.GaussianBlur(7)),
        ("but blurred", "out of focus", "blurry", "unsharp"),
        ("as through a steamed-up window", "with soft fuzzy edges"), "all edges are soft"),
    "pencil": Change(
        _pencil,
        ("as a pencil drawing", "but as a sketch", "drawn with a pencil", "as a line drawing"),
        ("sketched by hand in graphite", "as a drawing in gray lines"),
        "only gray lines on white are left"),
    "night": Change(
        _night,
        ("but at night", "with the colors of night", "in the dark", "much darker"),
        ("after sunset", "with hardly any light"), "it is dark and bluish"),
    "zoomed": Change(
        _cut(0.27, 0.27, 0.73, 0.73),
        ("but zoomed in on the middle", "only the center, larger", "closer to the middle",
         "cropped to the middle"),
        ("a close-up of what is in the center",), "only the middle is seen, enlarged"),
    "left half": Change(
        _cut(0, 0, 0.5, 1),
        ("only the left half", "cropped to the left side", "the left part of it"),
        ("what is seen on the left of it",), "only the left half is seen"),
    "right half": Change(
        _cut(0.5, 0, 1, 1),
        ("only the right half", "cropped to the right side", "the right part of it"),
        ("what is seen on the right of it",), "only the right half is seen"),
    "red": Change(
        _tinted((220, 30, 30)),
        ("tinted red", "in red light", "but all red", "through a red filter"),
        ("bathed in crimson",), "everything is reddish"),
    "blue": Change(
        _tinted((30, 70, 220)),
        ("tinted blue", "in blue light", "but all blue", "through a blue filter"),
        ("as if under water",), "everything is bluish"),
    "green": Change(
        _tinted((40, 170, 60)),
        ("tinted green", "in green light", "but all green", "through a green filter"),
        ("seen by a night-vision camera",), "everything is greenish"),
    "framed": Change(
        _framed,
        ("but with a red frame", "in a red border", "with a red edge around it"),
        ("surrounded by a scarlet margin",), "a red frame runs around it"),
    "small": Change(
        _small,
        ("but small on a white page", "with wide white margins", "shrunk on white"),
        ("tiny in the middle of an empty sheet",), "white surrounds it on all sides"),
    "faded": Change(
        _faded,
        ("but faded", "very pale", "with little contrast", "washed out"),
        ("bleached by the sun",), "all its tones are pale"),
    "grainy": Change(
        _noisy,
        ("but grainy", "with noise", "with strong film grain"),
        ("as taken by a poor camera in the dark",), "grain covers it"),
}  # fmt: skip

# Asked for by the held-out set alone: nothing like them is trained on.
UNSEEN: dict[str, Change] = {
    "pixels": Change(_pixels, (), ("as a coarse mosaic of squares", "but pixelated"),
                     "it is made of large squares"),
    "covered": Change(_covered, (), ("with a black box over the middle", "censored in the center"),
                      "a black box covers its middle"),
    "tiled": Change(_tiled, (), ("repeated four times", "as four copies side by side"),
                    "it is seen four times"),
    "round": Change(_round, (), ("cut out as an oval", "in a round vignette"),
                    "its corners are white"),
    "poster": Change(lambda p: ImageOps.posterize(p, 1), (),
                     ("with only a few flat colors", "as a pop-art poster"),
                     "only a few flat colors are left"),
    "emboss": Change(lambda p: p.filter(ImageFilter.EMBOSS), (),
                     ("as a gray relief carved in stone", "embossed"), "it looks carved in gray"),
    "striped": Change(_striped, (),
                      ("behind diagonal white stripes", "with slanting white bars over it"),
                      "white stripes run across it"),
    "top half": Change(_cut(0, 0, 1, 0.5), (), ("only the upper half", "cropped to the top"),
                       "only the upper half is seen"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Changed:
    """A picture after a change of CHANGES or UNSEEN."""

    picture: Picture
    change: str

    @property
    def name(self) -> str:
        return f"{self.picture.name}, {self.change}"

    @property
    def key(self) -> str:
        return f"{self.picture.key} changed: {self.change}"

    def open(self) -> Image:
        change = CHANGES.get(self.change) or UNSEEN[self.change]
        return Image(np.asarray(change.look(opened(self.picture)).convert("RGB")))


@dataclass(frozen=True, slots=True)
class Plotted:
    """A table drawn as a chart of a kind; the style is that of its seed."""

    table: Table
    kind: str
    seed: str

    @property
    def name(self) -> str:
        return f"{self.kind} of {self.table.subject.measure}, {self.seed}"

    @property
    def key(self) -> str:
        return f"plotted {self.kind} {self.seed}"

    @property
    def style(self) -> Style:
        return random_style(random.Random(self.seed))

    def open(self) -> Image:
        return Image(np.asarray(recast(self.table, self.style, self.kind).paint()))


@dataclass(frozen=True, slots=True)
class Arranged:
    """Shapes on a sheet."""

    figures: Figures

    @property
    def name(self) -> str:
        return self.figures.told

    @property
    def key(self) -> str:
        told = "; ".join(f"{f.name} {f.at}" for f in self.figures.figures)
        return f"arranged {self.figures.seed} {self.figures.paper[0]}: {told}"

    def open(self) -> Image:
        return Image(np.asarray(self.figures.sheet().paint()))


OPENINGS = ("{}", "{}", "the same {}", "this picture {}", "make it {}", "the same picture {}",
            "now {}", "like this, {}")  # fmt: skip


def change_photo(
    chance: random.Random, photo: Picture, row: str, *, colourful: bool, num: int = 1
) -> list[Example]:
    """Return a photograph and a change in words -> the changed photograph, ``num`` times.

    Hard negatives: the photograph as it is, and after another of these changes.
    """
    names = [name for name, change in CHANGES.items() if colourful or not change.colours]
    names = chance.sample(names, max(num, 2))
    return [
        _changed_photo(chance, photo, names[i], names[(i + 1) % len(names)], f"{row}, {names[i]}")
        for i in range(num)
    ]


def _changed_photo(
    chance: random.Random, photo: Picture, name: str, other: str, row: str
) -> Example:
    change = CHANGES[name]
    words = chance.choice(change.train)
    openings = OPENINGS[:4] if words.startswith("but") else OPENINGS
    asked = chance.choice(openings).format(words)
    parts: tuple[str | Picture, ...] = (photo, asked)
    if chance.random() < 0.15:
        parts = (asked, photo)
    rationale = read_out(
        "the picture stays the same in what it shows", f"the words ask for it {words}",
        f"so in the picture looked for {change.told}",
    )  # fmt: skip
    return Example(
        Side(parts, rationale, change.told),
        Side((Changed(photo, name),), read_out("the picture is changed", change.told), change.told),
        (Side((photo,)), Side((Changed(photo, other),))),
        "composed", row,
    )  # fmt: skip


def change_chart(chance: random.Random, row: str) -> list[Example]:
    """Return charts and "but as a pie chart" -> the same numbers so drawn, three in a ring."""
    about = subject(chance, most=6)
    made = random_table(chance, about)
    kinds = chance.sample(["bar", "barh", "line", "dots", "pie", "donut", "area"], 3)
    seed = str(chance.random())
    return [
        _changed_chart(chance, made, [*kinds[i:], *kinds[:i]], seed, f"{row}, {i}")
        for i in range(3)
    ]


def _changed_chart(
    chance: random.Random, made: Table, kinds: list[str], seed: str, row: str
) -> Example:
    """Return the first kind and words -> the second; the third is a hard negative."""
    kind, wanted, other = kinds
    about = made.subject
    word = chance.choice(NAMES[wanted])
    asked = pick(
        chance, f"but as {a(word)}", f"the same data as {a(word)}", f"as {a(word)}",
        f"drawn as {a(word)}", f"these numbers in {a(word)}",
    )  # fmt: skip
    names = f"{about.measure} by {about.noun}"
    rationale = read_out(
        f"the chart shows {names}", f"it is {a(NAMES[kind][0])}",
        f"the words ask for {a(word)}", f"so the picture looked for is {a(word)} of {names}",
    )  # fmt: skip
    target = Plotted(made, wanted, seed)
    return Example(
        Side((Plotted(made, kind, seed), asked), rationale, f"{word} of {names}"),
        Side((target,), read_out(f"it is {a(word)}", f"it shows {names}"), f"{word} of {names}"),
        (Side((Plotted(made, kind, seed),)), Side((Plotted(made, other, seed),))),
        "composed", row,
    )  # fmt: skip


def change_figures(chance: random.Random, row: str) -> Example:
    """Return shapes and "but the circle is green" -> the shapes so changed."""
    figures = random_figures(chance, str(chance.random()))
    number = chance.randrange(len(figures.figures))
    figure = figures.figures[number]
    used = {f.hue for f in figures.figures} | {figures.paper[0]}
    hues = [hue for hue in HUES if hue not in used and hue not in figures.paper[0]]
    forms = [form for form in FORMS if form not in {f.form for f in figures.figures}]
    same = sum((f.form, f.hue) == (figure.form, figure.hue) for f in figures.figures) > 1
    name = f"one {figure.hue} {figure.form}" if same else f"the {figure.hue} {figure.form}"
    hue, form = chance.choice(hues), chance.choice(forms)
    recolour, reshape = recoloured(figures, number, hue), reshaped(figures, number, form)
    kind = chance.choice(("hue", "form", "paper", "gone" if len(figures.figures) > 1 else "hue"))
    if kind == "hue":
        wanted, other = recolour, reshape
        asked = pick(chance, f"but {name} is {hue}", f"with {name} in {hue}",
                     f"{name} turned {hue}")  # fmt: skip
    elif kind == "form":
        wanted, other = reshape, recolour
        asked = pick(chance, f"but {a(form)} instead of {name}", f"{name} replaced by {a(form)}",
                     f"with {a(form)} in place of {name}")  # fmt: skip
    elif kind == "gone":
        wanted, other = without(figures, number), recolour
        asked = pick(chance, f"but without {name}", f"with {name} removed", f"{name} left out")
    else:
        paper = chance.choice([one for one in PAPERS if one[0] not in used])
        wanted, other = replace(figures, paper=paper), recolour
        asked = pick(chance, f"but on a {paper[0]} background", f"with a {paper[0]} background")
    rationale = read_out(
        f"the picture shows {figures.told}", f"the words ask for a change: {asked}",
        f"so the picture looked for shows {wanted.told}"
        + (f" on {wanted.paper[0]}" if kind == "paper" else ""),
    )  # fmt: skip
    return Example(
        Side((Arranged(figures), asked), rationale, wanted.told),
        Side((Arranged(wanted),), read_out(f"it shows {wanted.told}"), wanted.told),
        (Side((Arranged(figures),)), Side((Arranged(other),))),
        "composed", row,
    )  # fmt: skip


# ---------------------------------------------------------------- held out


def is_changed(photo: Photo, change: str) -> bool:
    """Return whether a change shows: the mirror image of a symmetric picture does not."""
    before, after = (
        np.asarray(opened(one).resize((24, 24)), np.float32)
        for one in (photo, Changed(photo, change))
    )
    return bool(np.abs(before - after).mean() > 12)


@dataclass(frozen=True, slots=True)
class ComposedProbe:
    """Queries with one right answer each in a pool of originals and all their variants.

    answers: ``[q]`` places in the pool
    seen:    ``[q]`` whether the kind of change is one that training has
    """

    queries: tuple[Side, ...]
    pool: tuple[Picture, ...]
    answers: tuple[int, ...]
    seen: tuple[bool, ...]


def held_out_composed(
    photos: Sequence[Photo], *, seed: int, num_photos: int = 50, per_photo: int = 6
) -> ComposedProbe:
    """Return the held-out set over photographs of the held-out books.

    Half the queries of a photograph ask for a change that training has, in words it has not;
    half for one of UNSEEN. The pool holds every photograph as it is and after every change,
    so the words alone find a fiftieth of it and the picture alone a thirtieth.
    """
    chance = random.Random(f"{seed} held-out composed")
    colourful = [photo for photo in chance.sample(list(photos), len(photos)) if is_colourful(photo)]
    chosen = colourful[:num_photos]
    names = [*CHANGES, *UNSEEN]
    pool: list[Picture] = []
    queries: list[Side] = []
    answers: list[int] = []
    seen: list[bool] = []
    for photo in chosen:
        place = {"": len(pool), **{name: len(pool) + 1 + i for i, name in enumerate(names)}}
        pool += [photo, *(Changed(photo, name) for name in names)]
        told = [name for name in CHANGES if is_changed(photo, name)]
        asked = chance.sample(told, (per_photo + 1) // 2)
        asked += chance.sample(list(UNSEEN), per_photo // 2)
        for name in asked:
            change = {**CHANGES, **UNSEEN}[name]
            queries.append(Side((photo, chance.choice(change.held_out))))
            answers.append(place[name])
            seen.append(name in CHANGES)
    return ComposedProbe(tuple(queries), tuple(pool), tuple(answers), tuple(seen))


@functools.lru_cache
def wordings() -> Mapping[str, frozenset[str]]:
    """Return the words of training and of the held-out set."""
    everything = [*CHANGES.values(), *UNSEEN.values()]
    return {
        "train": frozenset(words for change in everything for words in change.train),
        "held out": frozenset(words for change in everything for words in change.held_out),
    }
