"""What the soak asks for, and what it may be answered: a little of everything, by dice.

World: ids, pictures and words that stay as they are while other files come and go
ASKS:  name -> how often, and a request; every one of them has to be answered with 200 or 206
"""

import asyncio
import base64
import io
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from PIL import Image

from serve_speed.measures import questions
from serve_speed.wire import Reply, Wire

_GOOD = (200, 206)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """What can be asked for by name, whatever is indexed meanwhile.

    hits:  of pages, pictures and clips, as the server tells them
    model: what the server calls its model
    """

    hits: tuple[Mapping[str, Any], ...]
    pictures: tuple[bytes, ...]
    model: str
    asked: Any

    @classmethod
    async def of(cls, wire: Wire, pictures: Path) -> Self:
        """Look around: hits of the lasting files, and pictures to ask with."""
        hits = []
        for kind in ("pdf", "image", "video"):
            wanted = {"query": "a chart of the pump", "kinds": [kind], "path": "lasting/**"}
            reply = await wire.post("/v1/search", {**wanted, "k": 20})
            hits += reply.json()["hits"]
        if not hits:
            raise RuntimeError("the server finds nothing in lasting/")
        small = tuple(_small(path) for path in sorted(pictures.rglob("*.*"))[:6])
        return cls(tuple(hits), small, await model_of(wire), questions(0))


async def model_of(wire: Wire) -> str:
    """Return what a server calls the model of its first index."""
    return str((await wire.ask("GET", "/v1/models")).json()["data"][0]["id"])


def _small(path: Path) -> bytes:
    out = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").resize((320, 240)).save(out, "JPEG")
    return out.getvalue()


def _uri(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


Ask = Callable[[Wire, World, random.Random], Awaitable[Reply]]


def _get(of: Callable[[World, random.Random], str]) -> Ask:
    async def ask(wire: Wire, world: World, dice: random.Random) -> Reply:
        return await wire.ask("GET", of(world, dice))

    return ask


def _post(path: str, of: Callable[[World, random.Random], object]) -> Ask:
    async def ask(wire: Wire, world: World, dice: random.Random) -> Reply:
        return await wire.post(path, of(world, dice))

    return ask


def form(field: str, content: bytes, **fields: str) -> tuple[bytes, dict[str, str]]:
    """Return a form with one file as a body, and its headers."""
    mark = b"----------------------------8f2c61b4"
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (mark, name.encode(), value.encode())
        for name, value in fields.items()
    ]
    parts.append(
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n%s\r\n" % (mark, field.encode(), content)
    )
    body = b"".join(parts) + b"--%s--\r\n" % mark
    return body, {"Content-Type": f"multipart/form-data; boundary={mark.decode()}"}


async def _by_form(wire: Wire, world: World, dice: random.Random) -> Reply:
    body, headers = form("image", dice.choice(world.pictures), query=next(world.asked), ocr="false")
    return await wire.ask("POST", "/v1/search", body, headers)


async def _part_of_a_file(wire: Wire, world: World, dice: random.Random) -> Reply:
    start = dice.randrange(1000)
    path = _segment(world, dice) + "/file"
    return await wire.ask("GET", path, headers={"Range": f"bytes={start}-{start + 5000}"})


def _segment(world: World, dice: random.Random) -> str:
    return f"/v1/segments/{quote(dice.choice(world.hits)['id'])}"


def _text(world: World, dice: random.Random) -> dict[str, object]:
    return {"query": next(world.asked)}


def _filtered(world: World, dice: random.Random) -> dict[str, object]:
    kinds = dice.sample(["pdf", "image", "video", "text"], 2)
    return {**_text(world, dice), "kinds": kinds, "where": "page <= 3 OR page IS NULL", "k": 30}


def _with_picture(world: World, dice: random.Random) -> dict[str, object]:
    return {**_text(world, dice), "images": [_uri(dice.choice(world.pictures))], "ocr": False}


def _texts(world: World, dice: random.Random) -> dict[str, object]:
    encoding = dice.choice(["float", "base64"])
    texts = [next(world.asked) for _ in range(dice.randrange(1, 9))]
    return {"model": world.model, "input": texts, "encoding_format": encoding}


def _mixed(world: World, dice: random.Random) -> dict[str, object]:
    picture = {"type": "image_url", "image_url": {"url": _uri(dice.choice(world.pictures))}}
    words = {"type": "text", "text": next(world.asked)}
    return {"model": world.model, "input": [[words, picture], next(world.asked)]}


# Name -> of a hundred requests how many, about; and the request.
ASKS: dict[str, tuple[int, Ask]] = {
    "search by words": (36, _post("/v1/search", _text)),
    "search, filtered": (8, _post("/v1/search", _filtered)),
    "search by picture, JSON": (3, _post("/v1/search", _with_picture)),
    "search by picture, form": (3, _by_form),
    "similar": (5, _post("/v1/similar", lambda w, d: {"segment": d.choice(w.hits)["id"]})),
    "context": (2, _post("/v1/context", lambda w, d: {**_text(w, d), "k": 3})),
    "embed texts": (10, _post("/v1/embeddings", _texts)),
    "embed pictures": (3, _post("/v1/embeddings", _mixed)),
    "segment": (4, _get(_segment)),
    "thumbnail": (10, _get(lambda w, d: _segment(w, d) + "/thumbnail")),
    "picture": (3, _get(lambda w, d: _segment(w, d) + "/picture?max_pixels=200000")),
    "part of a file": (4, _part_of_a_file),
    "documents": (2, _get(lambda w, d: "/v1/documents")),
    "status": (2, _get(lambda w, d: "/v1/status")),
    "metrics": (1, _get(lambda w, d: "/metrics")),
    "page": (2, _get(lambda w, d: "/")),
    "health": (2, _get(lambda w, d: "/healthz")),
}


def draw(dice: random.Random) -> tuple[str, Ask]:
    """Return a name and its request."""
    [name] = dice.choices(list(ASKS), [share for share, _ in ASKS.values()])
    return name, ASKS[name][1]


def is_wrong(reply: Reply) -> bool:
    """Say whether a reply is none that these requests may get."""
    return reply.status not in _GOOD


async def leave(wire: Wire, world: World, dice: random.Random) -> None:
    """Ask for something that takes a while, and hang up before it is there."""
    asking = asyncio.ensure_future(wire.post("/v1/search", _with_picture(world, dice)))
    await asyncio.sleep(dice.random() * 0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await wire.close()
