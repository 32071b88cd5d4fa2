"""The page at /docs: all that a server offers, without a script and without anybody's help."""

import re

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from fastapi import FastAPI
from starlette.testclient import TestClient

from mmsearch.serving import described
from mmsearch.serving.described import as_html, as_markdown, operations

HOSTILE = {
    "info": {"title": "<script>", "version": "1"},
    "paths": {
        "/v1/<b>": {
            "get": {
                "summary": "<img src=x onerror=alert(1)>",
                "tags": ["search"],
                "parameters": [
                    {
                        "name": "k",
                        "in": "query",
                        "description": "a | b *c*",
                        "schema": {"type": "integer", "minimum": 1, "maximum": 9, "default": 2},
                    }
                ],
            }
        }
    },
}


def test_the_page_shows_every_route_and_every_field_and_runs_no_script() -> None:
    app = FastAPI(title="mmsearch", docs_url=None)
    app.include_router(described.router)

    @app.get("/v1/pages", summary="List pages")
    def pages(limit: int = 5) -> None: ...

    answer = TestClient(app).get("/docs")

    assert answer.status_code == 200
    assert "<code>GET /v1/pages</code> List pages" in answer.text
    assert "<td><code>limit</code></td>\n<td>integer, by default 5</td>" in answer.text
    assert "<script" not in answer.text
    assert not re.search(r"(src|href)=.?https?:", answer.text)
    policy = answer.headers["Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; frame-ancestors 'none'", policy
    )


def test_a_field_says_what_it_may_be() -> None:
    [operation] = operations(HOSTILE)
    [field] = operation.fields

    assert (operation.method, operation.path) == ("GET", "/v1/<b>")
    assert field.kind == "integer, 1 to 9, by default 2"


def test_what_is_described_is_text_and_no_markup() -> None:
    page = "\n".join(as_html(HOSTILE))

    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert r"| a \| b \*c\* |" in "\n".join(as_markdown(HOSTILE))


def test_the_server_is_described_without_an_index() -> None:
    offered = {f"{one.method} {one.path}" for one in operations(described.described())}

    assert {
        "POST /v1/search",
        "POST /v1/embeddings",
        "POST /v1/index",
        "DELETE /v1/documents/{document}",
        "GET /v1/segments/{segment}/file",
        "GET /readyz",
        "GET /metrics",
    } <= offered
