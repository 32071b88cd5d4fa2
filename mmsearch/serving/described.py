"""The HTTP interface, described: a page of the server, and one of the documentation.

    OpenAPI of the application -> Operation, Operation, ... -> HTML at /docs, or Markdown

FastAPI's own pages fetch scripts from elsewhere, which this server's pages never do. Programs
read /openapi.json.
"""

import base64
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from mmsearch import __version__

router = APIRouter(include_in_schema=False)

_TITLES = {
    "search": "Search",
    "library": "What an index holds",
    "indexing": "Change an index",
    "embeddings": "Vectors",
    "health": "The server itself",
}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
code { font-family: ui-monospace, monospace; font-size: 0.9em; }
h3 code { font-size: 1rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid color-mix(in srgb, currentColor 15%, transparent);
     padding: 0.25rem 0.75rem 0.25rem 0; vertical-align: top; }
"""


@dataclass(frozen=True, slots=True)
class Field:
    """What a request may say: its name, what it may be, and what it is for."""

    name: str
    kind: str
    told: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    takes: types of the body: JSON, a form
    """

    group: str
    method: str
    path: str
    summary: str
    told: str
    takes: tuple[str, ...]
    fields: tuple[Field, ...]


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Return the description as a page without scripts."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
    page = "\n".join(as_html(request.app.openapi()))
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": policy})


def operations(openapi: Mapping[str, Any]) -> list[Operation]:
    """Return what an interface offers, in the order of `_TITLES`, then of the application."""
    schemas = openapi.get("components", {}).get("schemas", {})
    found = []
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            content = about.get("requestBody", {}).get("content", {})
            json_body = content.get("application/json", {}).get("schema", {})
            fields = [
                _field(one["name"], one["schema"], one.get("description", ""), one["in"] == "path")
                for one in about.get("parameters", [])
            ]
            fields += _body_fields(json_body, schemas)
            operation = Operation(
                group=next(iter(about.get("tags", [])), ""),
                method=method.upper(),
                path=path,
                summary=about.get("summary", ""),
                told=about.get("description", ""),
                takes=tuple(content),
                fields=tuple(fields),
            )
            found.append(operation)
    order = list(_TITLES)
    return sorted(found, key=lambda one: order.index(one.group) if one.group in order else 99)


def _body_fields(body: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[Field]:
    known = _resolved(body, schemas)
    needed = known.get("required", ())
    return [
        _field(name, schema, schema.get("description", ""), name in needed)
        for name, schema in known.get("properties", {}).items()
    ]


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = schemas.get(name, schema)
    return found


def _field(name: str, schema: Mapping[str, Any], told: str, needed: bool) -> Field:
    kind = _kind(schema)
    if needed:
        kind += ", required"
    elif schema.get("default") not in (None, "", []):
        kind += f", by default {json.dumps(schema['default'])}"
    return Field(name, kind, told)


def _kind(schema: Mapping[str, Any]) -> str:
    """Return what a value may be, in words: ``integer, 1 to 1000``."""
    choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if choices:
        return " or ".join(dict.fromkeys(_kind(one) for one in choices))
    if "enum" in schema:
        return " or ".join(f'"{one}"' for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    kind = str(schema.get("type", "anything"))
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{kind}, {least:.12g} to {most:.12g}"
    if least is not None:
        return f"{kind}, at least {least:.12g}"
    return kind


# ---------------------------------------------------------------- as a page


def as_html(openapi: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a page without scripts."""
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}: HTTP</title><style>{_STYLE}</style></head><body><main>"
    yield f"<h1>{escape(title)}</h1>"
    yield '<p>The interface over HTTP. Programs read <a href="openapi.json">openapi.json</a>.</p>'
    for group, offered in _in_groups(operations(openapi)):
        yield f"<section><h2>{escape(group)}</h2>"
        for one in offered:
            called = escape(f"{one.method} {one.path}")
            yield f"<h3><code>{called}</code> {escape(one.summary)}</h3>"
            yield f"<p>{escape(one.told)}{escape(_taken(one))}</p>"
            if one.fields:
                yield "<table><tbody>"
                for field in one.fields:
                    yield f"<tr><td><code>{escape(field.name)}</code></td>"
                    yield f"<td>{escape(field.kind)}</td><td>{escape(field.told)}</td></tr>"
                yield "</tbody></table>"
        yield "</section>"
    yield "</main></body></html>"


def as_markdown(openapi: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a page of the documentation."""
    yield from ("# HTTP interface", "")
    yield "What `mmsearch serve` answers; a running server shows this page at `/docs`, and "
    yield "the same for programs at `/openapi.json`."
    for group, offered in _in_groups(operations(openapi)):
        yield from ("", f"## {group}")
        for one in offered:
            yield from ("", f"### {one.summary}", "", f"`{one.method} {one.path}`", "")
            yield f"{_plain(one.told)}{_taken(one)}"
            if one.fields:
                yield from ("", "| field | may be | what for |", "|---|---|---|")
            for field in one.fields:
                yield f"| `{field.name}` | {_plain(field.kind)} | {_plain(field.told)} |"


def _in_groups(offered: Sequence[Operation]) -> Iterator[tuple[str, list[Operation]]]:
    for name in dict.fromkeys(one.group for one in offered):
        yield _TITLES.get(name, name), [one for one in offered if one.group == name]


def _taken(one: Operation) -> str:
    return " JSON, or a form with files." if "multipart/form-data" in one.takes else ""


def _plain(text: str) -> str:
    """Return a text that is no Markdown, on one line."""
    escaped = "".join(f"\\{one}" if one in "*_<>[]|`" else one for one in text)
    return " ".join(escaped.split())


def described() -> dict[str, Any]:
    """Return the OpenAPI of a server without opening an index."""
    from mmsearch.serving.app import ROUTERS

    app = FastAPI(title="mmsearch", version=__version__)
    for name in ROUTERS:
        app.include_router(importlib.import_module(f"mmsearch.serving.{name}").router)
    return app.openapi()


if __name__ == "__main__":
    sys.stdout.write("\n".join(as_markdown(described())) + "\n")
