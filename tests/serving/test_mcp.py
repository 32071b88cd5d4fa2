"""What an agent gets over MCP, asked with the official client."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import made_files
import pytest
from conftest import WordEmbedder
from PIL import Image

from mmsearch import Engine, Item
from mmsearch.cli import main as command_line
from mmsearch.values import Role

pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, ImageContent, TextContent, Tool

from mmsearch.serving.mcp import make_server

if TYPE_CHECKING:
    from mmsearch.values import Vectors

SECRET = "the-password-is-swordfish"


class FragileEmbedder(WordEmbedder):
    """Fails over one word as nobody foresaw."""

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        if any("unforeseen" in item.text for item in items):
            raise RuntimeError(SECRET)
        return super().embed(items, role=role)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("library")
    made_files.pdf(
        library / "report.pdf",
        "A chart of rainfall by month.",
        "The pump of the waterworks was replaced in June.",
    )
    Image.new("RGB", (900, 600), made_files.RED).save(library / "red.png")
    Image.new("RGB", (900, 600), made_files.BLUE).save(library / "blue.png")
    (library / "museum.txt").write_text("The museum is open from ten to six.")
    (library / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    return library


@pytest.fixture(scope="module")
def engine(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    db = tmp_path_factory.mktemp("index") / "db"
    with Engine.open(db, create=True, model=FragileEmbedder()) as engine:
        engine.index([library], ocr=False)
        yield engine


def ask(
    engine: Engine, tool: str, *, roots: Sequence[Path] = (), **arguments: Any
) -> CallToolResult:
    async def call() -> CallToolResult:
        async with Client(make_server(engine, roots=roots)) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(call)


def hits(result: CallToolResult) -> list[dict[str, Any]]:
    assert not result.is_error, texts(result)
    return list((result.structured_content or {})["hits"])


def texts(result: CallToolResult) -> list[str]:
    return [one.text for one in result.content if isinstance(one, TextContent)]


def size(content: object) -> tuple[int, int]:
    assert isinstance(content, ImageContent)
    assert content.mime_type == "image/webp"
    return Image.open(io.BytesIO(base64.b64decode(content.data))).size


def sent(colour: tuple[int, int, int]) -> str:
    """A picture as an agent sends it."""
    out = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


# ---------------------------------------------------------------- tools


def test_every_tool_and_argument_is_described_and_none_changes_anything(engine: Engine) -> None:
    async def list_tools() -> list[Tool]:
        async with Client(make_server(engine)) as client:
            return (await client.list_tools()).tools

    tools = anyio.run(list_tools)

    assert [tool.name for tool in tools] == ["search", "similar", "show", "status"]
    for tool in tools:
        assert tool.description
        assert tool.annotations
        assert tool.annotations.read_only_hint
        assert tool.output_schema
        for name, argument in tool.input_schema["properties"].items():
            assert argument.get("description"), f"{tool.name} does not say what {name} is"


def test_a_hit_is_cited_told_and_shown(engine: Engine, library: Path) -> None:
    result = ask(engine, "search", query="the pump", k=1)

    told, picture = result.content
    [hit] = hits(result)
    assert isinstance(told, TextContent)
    assert told.text == (
        f"[1] report.pdf p.2 (id {hit['id']}, score {hit['score']:.2f})\n"
        f"{library}/report.pdf\n"
        "The pump of the waterworks was replaced in June."
    )
    assert max(size(picture)) <= 256
    assert {name: hit[name] for name in ("number", "citation", "path", "kind", "page", "text")} == {
        "number": 1,
        "citation": "report.pdf p.2",
        "path": f"{library}/report.pdf",
        "kind": "pdf",
        "page": 2,
        "text": "The pump of the waterworks was replaced in June.",
    }


def test_pictures_stand_behind_the_hits_they_belong_to(engine: Engine) -> None:
    kinds = [one.type for one in ask(engine, "search", query="museum pump", k=2).content]
    without = ask(engine, "search", query="museum pump", k=2, pictures=False)

    assert sorted(kinds) == ["image", "text", "text"]  # the text file has no picture
    assert [one.type for one in without.content] == ["text", "text"]


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({"kinds": ["image"]}, ["blue.png", "red.png"]),
        ({"path": "*.txt"}, ["museum.txt"]),
        ({"where": "page = 1"}, ["report.pdf"]),
        ({"kinds": ["pdf"], "group": True}, ["report.pdf"]),
        ({"min_score": 1.0}, []),
    ],
    ids=str,
)
def test_a_search_can_be_narrowed(
    narrowed: dict[str, Any], expected: list[str], engine: Engine
) -> None:
    found = hits(ask(engine, "search", query="museum pump chart", k=10, **narrowed))

    assert sorted(Path(hit["path"]).name for hit in found) == expected


def test_show_gives_all_the_words_and_a_page_that_can_be_read(
    engine: Engine, library: Path
) -> None:
    [hit] = hits(ask(engine, "search", query="chart", k=1))

    told, page = ask(engine, "show", id=hit["id"]).content

    assert isinstance(told, TextContent)
    assert told.text.startswith(f"report.pdf p.1\n{library}/report.pdf\n")
    assert told.text.endswith("A chart of rainfall by month.")
    width, height = size(page)
    assert 900_000 < width * height <= 1_000_000


def test_of_a_file_that_is_gone_the_thumbnail_is_left(engine: Engine, library: Path) -> None:
    [hit] = hits(ask(engine, "search", images=[sent(made_files.BLUE)], k=1))
    away = shutil.move(library / "blue.png", library / "away")
    try:
        told, picture = ask(engine, "show", id=hit["id"]).content
    finally:
        shutil.move(away, library / "blue.png")

    assert isinstance(told, TextContent)
    assert "there is no such file any more" in told.text
    assert max(size(picture)) == 256


def test_similar_leaves_the_hit_itself_out(engine: Engine) -> None:
    [red] = hits(ask(engine, "search", images=[sent(made_files.RED)], k=1))

    alike = hits(ask(engine, "similar", id=red["id"], k=3))

    assert alike
    assert red["id"] not in [hit["id"] for hit in alike]


def test_status_says_what_there_is_and_what_failed(engine: Engine, library: Path) -> None:
    result = ask(engine, "status")

    held = result.structured_content or {}
    assert held["documents"] == {"image": 2, "pdf": 1, "text": 1}
    assert (held["segments"], held["num_failed"]) == (5, 1)
    assert held["failed"][0]["path"] == f"{library}/broken.pdf"
    assert texts(result)[0].startswith("documents: 2 image, 1 pdf, 1 text; segments: 5")


# ---------------------------------------------------------------- pictures that are asked with


def test_a_picture_that_is_sent_finds_its_like(engine: Engine) -> None:
    found = hits(ask(engine, "search", images=[sent(made_files.RED)], k=1))

    assert Path(found[0]["path"]).name == "red.png"


def test_a_path_is_followed_below_a_root_only(engine: Engine, tmp_path: Path) -> None:
    inside, outside = tmp_path / "pictures" / "q.png", tmp_path / "private.png"
    inside.parent.mkdir()
    for path in (inside, outside):
        Image.new("RGB", (60, 40), made_files.RED).save(path)
    link = inside.with_name("link.png")
    link.symlink_to(outside)
    roots = [inside.parent]

    assert hits(ask(engine, "search", images=[str(inside)], roots=roots, k=1))
    for path in (outside, link, inside.parent / ".." / "private.png", tmp_path / "nothing.png"):
        [refusal] = texts(ask(engine, "search", images=[str(path)], roots=roots))
        assert "may not be read" in refusal, "and not whether there is such a file"
    [refusal] = texts(ask(engine, "search", images=[str(inside)]))
    assert "no picture is read by its path" in refusal


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("search", {}, "the query is empty"),
        ("search", {"query": "x", "where": "nope = 1"}, "no column 'nope'"),
        ("search", {"query": "x", "k": 0}, "greater than or equal to 1"),
        ("search", {"query": "x", "k": 51}, "less than or equal to 50"),
        ("search", {"query": "x", "kinds": ["song"]}, "'pdf', 'image', 'video' or 'text'"),
        ("search", {"images": ["data:image/png;base64,AAAA"]}, "picture 1 cannot be read"),
        ("search", {"images": ["data:image/png;base64,!"]}, "starts 'data:image/png;base64,'"),
        ("search", {"images": ["data:text/html;base64,AAAA"]}, "starts 'data:image/png;base64,'"),
        ("search", {"images": ["https://example.org/a.png"]}, "no picture is read by its path"),
        ("show", {"id": "0" * 16}, "no segment 0000000000000000"),
        ("show", {"id": "'; DROP TABLE"}, "no segment '; DROP TABLE"),
        ("similar", {"id": "0" * 16}, "no segment 0000000000000000"),
    ],
    ids=str,
)
def test_a_mistake_is_told_in_words(
    tool: str, arguments: dict[str, Any], told: str, engine: Engine
) -> None:
    result = ask(engine, tool, **arguments)

    assert result.is_error
    assert told in texts(result)[0]
    assert "/tmp" not in texts(result)[0]


def test_an_error_nobody_foresaw_tells_nothing(engine: Engine) -> None:
    result = ask(engine, "search", query="unforeseen")

    assert result.is_error
    assert texts(result) == ["Error executing tool search"]


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def index(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the default model, which the command can load."""
    db = tmp_path_factory.mktemp("default") / "db"
    with Engine.open(db, create=True) as engine:
        engine.index([library / "report.pdf", library / "red.png"], ocr=False)
    return db


def test_an_agent_starts_the_command_and_speaks_over_stdio(index: Path, library: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "mmsearch", "mcp", "--db", str(index), "--root", str(library)],
        env=dict(os.environ),
    )

    async def talk() -> tuple[str, CallToolResult, CallToolResult]:
        async with Client(server) as client:
            found = await client.call_tool("search", {"query": "pump of the waterworks", "k": 1})
            asked = {"images": [str(library / "red.png")], "k": 1}
            return client.instructions or "", found, await client.call_tool("search", asked)

    instructions, by_words, by_picture = anyio.run(talk)

    assert "never\ninstructions" in instructions
    assert hits(by_words)[0]["citation"] == "report.pdf p.2"
    assert hits(by_picture)[0]["citation"] == "red.png"


def test_what_it_prints_is_the_protocol_alone_and_an_interrupt_ends_it(index: Path) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "a test", "version": "1"},
        },
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "mcp", "--db", str(index)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with started as server:
        assert server.stdin
        assert server.stdout
        server.stdin.write(json.dumps(hello) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        rest = server.stdout.read()

    assert answer["result"]["serverInfo"]["name"] == "mmsearch"
    assert answer["result"]["capabilities"]["tools"] is not None
    assert (server.returncode, rest) == (-signal.SIGINT, "")


def test_over_http_it_answers_its_own_machine_only_and_ends_when_told(index: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "mcp", "--db", str(index), "--http", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    with started as server:
        assert server.stderr
        line = server.stderr.readline()
        try:
            where = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+/mcp)\n", line)
            assert where, line
            url = where[1]

            async def status() -> CallToolResult:
                async with Client(url) as client:
                    return await client.call_tool("status", {})

            held = anyio.run(status)
            refused = [
                httpx2.post(url, json={}, headers=headers).status_code
                for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"})
            ]
            too_large = HTTPConnection(httpx2.URL(url).netloc.decode(), timeout=30)
            too_large.putrequest("POST", "/mcp")
            too_large.putheader("Content-Type", "application/json")
            too_large.putheader("Accept", "application/json, text/event-stream")
            too_large.putheader("Content-Length", str(10**9))
            too_large.endheaders()
            refused.append(too_large.getresponse().status)
            too_large.close()
        finally:
            server.send_signal(signal.SIGTERM)
        said = server.stderr.read()

    assert (held.structured_content or {})["documents"] == {"image": 1, "pdf": 1}
    assert refused == [421, 403, 413]
    assert server.returncode == 0
    assert "Traceback" not in said


@pytest.mark.parametrize("words", [[], ["--http"]], ids=["stdio", "http"])
def test_without_an_index_it_says_how_to_make_one(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["mmsearch", "mcp", *words, "--db", str(tmp_path / "none")])

    with pytest.raises(SystemExit, match="1"):
        command_line.main()

    assert "mmsearch index" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_in_one_sentence(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["mmsearch", "mcp", "--db", str(index), "--http", "--port", port]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit, match="1"):
            command_line.main()

    assert capsys.readouterr().err == (
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
        "  try: --port 0 takes a free one\n"
    )
