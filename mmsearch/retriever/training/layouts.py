"""What a row says, in each of the layouts that are read as they are.

    {"query": ..., "positive": ..., ...}, the folder of its media -> Example

pairs: ours, described in `mmsearch.retriever.training.records`.

ume: the records of PLUME and UME-R1. ``qry`` and ``pos`` each hold ``conversations`` (a
human turn with ``<image>`` and ``<video>`` where media stand, and a ``gpt`` turn of
``<think>...</think><answer>...</answer>``), ``image`` (paths) or ``video`` (the frame files
of one film, or films); ``dataset_name`` beside them. A human turn ends in ``<disc_emb>`` and
the prompt those models were trained with: ours is put in by the model's chat format, so
theirs is left out, and so is ``blank.jpg``, which stands for "no picture" there.

mmeb: the columns of MMEB-train, ``qry``, ``qry_image_path``, ``pos_text``,
``pos_image_path`` and perhaps ``neg_text``, ``neg_image_path``, with ``<|image_1|>`` where
the picture stands; "" and null both say that there is none.

Every function raises ValueError with a short reason for a row that is not as described.
"""

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mmsearch.retriever.training.examples import Example, Media, Side, SidePart

Layout: TypeAlias = Callable[[Mapping[str, Any], str], Example]

ROW_FIELDS = (
    "query", "positive", "negatives", "rationale", "answer", "dataset", "id", "meta",
)  # fmt: skip
MEDIA_FIELDS = ("image", "images", "page", "pages", "clip", "clips", "frames")
SIDE_FIELDS = (*MEDIA_FIELDS, "text", "parts", "rationale", "answer")
PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip
BLANK = "blank.jpg"
THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
UME_PLACES = re.compile(r"<image>|<video>")
UME_PROMPT = re.compile(r"<disc_emb>|Represent the above input text, images, videos")
MMEB_PLACES = re.compile(r"<\|image_\d+\|>")

# ---------------------------------------------------------------- ours


def pairs_example(fields: Mapping[str, Any], root: str) -> Example:
    """Return an example of our own layout."""
    _known(fields, ROW_FIELDS, "a row")
    for name in ("query", "positive"):
        if fields.get(name) is None:
            raise ValueError(f"there is no {name!r}")
    query = _pairs_side(fields["query"], "query", root)
    for name in ("rationale", "answer"):  # of the row: those of its query
        if said := _words(fields.get(name), name):
            if getattr(query, name):
                raise ValueError(f"{name!r} is said twice, of the row and of its query")
            parts = {"rationale": query.rationale, "answer": query.answer, name: said}
            query = Side(query.parts, **parts)
    negatives = fields.get("negatives")
    if negatives is not None and not isinstance(negatives, list):
        raise ValueError(f"'negatives' is a list, not {_shown(negatives)}")
    return Example(
        query,
        _pairs_side(fields["positive"], "positive", root),
        tuple(_pairs_side(one, "negatives", root) for one in negatives or ()),
        dataset=_words(fields.get("dataset"), "dataset"),
    )


def _pairs_side(value: object, name: str, root: str) -> Side:
    rationale = answer = ""
    if isinstance(value, dict):
        _known(value, SIDE_FIELDS, repr(name))
        rationale = _words(value.get("rationale"), "rationale")
        answer = _words(value.get("answer"), "answer")
    parts = tuple(_pairs_parts(value, name, root))
    if not parts:
        raise ValueError(f"{name!r} is empty")
    return Side(parts, rationale, answer)


def _pairs_parts(value: object, name: str, root: str) -> Iterable[SidePart]:
    """Yield the parts of a string, an object, or a list of both, in reading order."""
    if isinstance(value, str):
        if words := _words(value, name):
            yield words
    elif isinstance(value, list):
        for one in value:
            if not isinstance(one, str | dict):
                raise ValueError(f"a part of {name!r} is a text or an object, not {_shown(one)}")
            if isinstance(one, dict):
                _known(one, (*MEDIA_FIELDS, "text"), f"a part of {name!r}")
            yield from _pairs_parts(one, name, root)
    elif isinstance(value, dict):
        if "parts" in value:
            if not isinstance(value["parts"], list):
                raise ValueError(f"'parts' is a list, not {_shown(value['parts'])}")
            if beside := sorted(value.keys() & {*MEDIA_FIELDS, "text"}):
                raise ValueError(f"{name!r} has 'parts' and {beside[0]!r}: put it into 'parts'")
            yield from _pairs_parts(value["parts"], name, root)
        for field in ("image", "images"):
            yield from (Media(_path(one, field, root)) for one in _some(value, field))
        for field in ("page", "pages"):
            yield from (_page(one, field, root) for one in _some(value, field))
        for field in ("clip", "clips"):
            yield from (_clip(one, field, root) for one in _some(value, field))
        if frames := _some(value, "frames"):
            yield _film(frames, "frames", root)
        if words := _words(value.get("text"), "text"):
            yield words
    else:
        raise ValueError(f"{name!r} is a text, an object or a list, not {_shown(value)}")


def _page(value: object, field: str, root: str) -> Media:
    """Return a page of ``"report.pdf#3"`` or ``{"path": "report.pdf", "page": 3}``."""
    if isinstance(value, dict):
        _known(value, ("path", "page"), repr(field))
        path, page = value.get("path"), value.get("page")
    else:
        match = re.fullmatch(r"(.+)#(\d+)", value, re.DOTALL) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{field!r} is like 'report.pdf#3', not {_shown(value)}")
        path, page = match[1], int(match[2])
    if type(page) is not int or page < 1:
        raise ValueError(f"a page counts from 1, got {_shown(page)}")
    return Media(_path(path, field, root), page=page)


def _clip(value: object, field: str, root: str) -> Media:
    """Return a film or a span of one: a path, or ``{"path", "start", "end"}``."""
    if not isinstance(value, dict):
        return Media(_path(value, field, root))
    _known(value, ("path", "start", "end"), repr(field))
    start, end = value.get("start"), value.get("end")
    if (start is None) != (end is None):
        raise ValueError(f"a span of {field!r} needs both 'start' and 'end'")
    if start is not None and not (_is_time(start) and _is_time(end) and start < end):
        raise ValueError(
            f"a span is seconds from 'start' to 'end', not {_shown(start)} to {_shown(end)}"
        )
    path = _path(value.get("path"), field, root)
    return Media(path, start=start if start is None else float(start), end=end and float(end))


# ---------------------------------------------------------------- PLUME and UME-R1


def ume_example(fields: Mapping[str, Any], root: str) -> Example:
    """Return an example of a PLUME or UME-R1 record."""
    for name in ("qry", "pos"):
        if not isinstance(fields.get(name), dict):
            raise ValueError(f"{name!r} is an object, not {_shown(fields.get(name))}")
    return Example(
        _ume_side(fields["qry"], "qry", root),
        _ume_side(fields["pos"], "pos", root),
        dataset=_words(fields.get("dataset_name"), "dataset_name"),
    )


def _ume_side(fields: Mapping[str, Any], name: str, root: str) -> Side:
    turns = fields.get("conversations")
    if not isinstance(turns, list):
        raise ValueError(f"{name!r} has no list of 'conversations'")
    asked, told = [], []
    for turn in turns:
        if not isinstance(turn, dict):
            raise ValueError(f"a turn of {name!r} is an object, not {_shown(turn)}")
        speaker = turn.get("from", turn.get("role"))
        words = _words(turn.get("value", turn.get("content")), "value")
        if speaker in ("human", "user"):
            asked.append(UME_PROMPT.split(words, maxsplit=1)[0])
        elif speaker in ("gpt", "assistant"):
            told.append(words.replace("<gen_emb>", ""))
    pictures = [
        Media(_path(one, "image", root))
        for one in _some(fields, "image")
        if os.path.basename(str(one)) != BLANK
    ]
    films = _ume_films(_some(fields, "video"), root)
    parts = _filled("\n".join(asked), UME_PLACES, {"<image>": pictures, "<video>": films})
    if not parts:
        raise ValueError(f"{name!r} is empty")
    text = "\n".join(told)
    thought = THOUGHT.search(text)
    # Some answers stand behind the thought without tags around them.
    answer = ANSWER.search(text) or re.search(r"</think>(.*)", text, re.DOTALL)
    return Side(parts, _inside(thought), _inside(answer))


def _ume_films(videos: Sequence[Any], root: str) -> list[Media]:
    """Return the films of ``video``: frame files make one, a list of such lists several."""
    if any(isinstance(one, list) for one in videos):
        return [
            film
            for one in videos
            for film in _ume_films(one if isinstance(one, list) else [one], root)
        ]
    if videos and all(str(one).lower().endswith(PICTURE_ENDINGS) for one in videos):
        if all(os.path.basename(str(one)) == BLANK for one in videos):
            return []
        return [_film(videos, "video", root)]
    return [Media(_path(one, "video", root)) for one in videos]


# ---------------------------------------------------------------- MMEB-train


def mmeb_example(fields: Mapping[str, Any], root: str) -> Example:
    """Return an example of a row of MMEB-train."""
    for name in ("qry", "pos_text"):
        if name not in fields:
            raise ValueError(f"there is no column {name!r}")
    texts, paths = fields.get("neg_text"), fields.get("neg_image_path")
    texts = texts if isinstance(texts, list) else [texts]
    paths = paths if isinstance(paths, list) else [paths]
    count = max(len(texts), len(paths))
    negatives = zip(
        texts + [None] * (count - len(texts)), paths + [None] * (count - len(paths)), strict=True
    )
    return Example(
        _mmeb_side(fields["qry"], fields.get("qry_image_path"), "qry", root),
        _mmeb_side(fields["pos_text"], fields.get("pos_image_path"), "pos_text", root),
        tuple(_mmeb_side(text, path, "neg_text", root) for text, path in negatives if text or path),
    )


def _mmeb_side(text: object, paths: object, name: str, root: str) -> Side:
    field = name.split("_")[0] + "_image_path"
    some = [one for one in (paths if isinstance(paths, list) else [paths]) if one]
    pictures = [Media(_path(one, field, root)) for one in some]
    parts = _filled(_words(text, name), MMEB_PLACES, {"": pictures})
    if not parts:
        raise ValueError(f"{name!r} and {field!r} are empty")
    return Side(parts)


# ---------------------------------------------------------------- what they share

LAYOUTS: Mapping[str, Layout] = {
    "pairs": pairs_example,
    "ume": ume_example,
    "mmeb": mmeb_example,
}


def _filled(
    text: str, places: re.Pattern[str], media: Mapping[str, Sequence[Media]]
) -> tuple[SidePart, ...]:
    """Return words and media in reading order; media that have no place stand before all.

    ``media`` by the place's own text; "" takes every place.
    """
    waiting = {place: list(some) for place, some in media.items()}
    parts: list[SidePart] = []
    at = 0
    for match in places.finditer(text):
        parts.append(text[at : match.start()].strip())
        some = waiting.get(match[0], waiting.get("", []))
        if some:
            parts.append(some.pop(0))
        at = match.end()
    parts.append(text[at:].strip())
    left = [one for some in waiting.values() for one in some]
    return tuple(part for part in [*left, *parts] if part != "")


def _film(frames: Sequence[Any], field: str, root: str) -> Media:
    paths = tuple(_path(one, field, root) for one in frames)
    return Media(paths[0].parent, frames=paths)


def _inside(match: re.Match[str] | None) -> str:
    return match[1].strip() if match else ""


def _known(fields: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    for name in fields:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"{what} has no field {name!r}: {remedy}")


def _some(fields: Mapping[str, Any], field: str) -> list[Any]:
    """Return what a field holds as a list: one thing, a list of them, or nothing."""
    value = fields.get(field)
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _words(value: object, field: str) -> str:
    """Return a text without the space around it; "" for none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{field!r} is a text, not {_shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{field!r} holds half a character (a lone surrogate)") from None
    return value.strip()


def _path(value: object, field: str, root: str) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field!r} is a path, not {_shown(value)}")
    if "\0" in value:
        raise ValueError(f"{field!r} is a path with a NUL in it")
    if re.match(r"[a-z]+://", value):
        raise ValueError(f"{field!r} is a path of a local file, not {_shown(value)}")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(f"{field!r} holds half a character (a lone surrogate)") from None
    return Path(os.path.join(root, value))


def _is_time(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
