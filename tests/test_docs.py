"""The documentation site is whole, and shows no command that there is not."""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer

import mmsearch
from mmsearch.cli.main import app
from mmsearch.cli.reference import reference

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
GENERATED = ("commands.md", "http.md")


# ---------------------------------------------------------------- commands


def commands_in(page: Path) -> list[str]:
    """The lines of a page's blocks that call mmsearch, those that go on joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?mmsearch ", line)]


def parse(line: str) -> None:
    """Let typer read a command, as far as running it; raises what it would print."""
    words = shlex.split(line, comments=True)
    for stop in ("|", "&", ">", "2>"):
        words = words[: words.index(stop)] if stop in words else words
    command: Any = typer.main.get_command(app)
    called, *words = words
    while hasattr(command, "commands"):
        name, *words = words
        called, command = f"{called} {name}", command.commands[name]
    command.make_context(called, words)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in GENERATED], ids=lambda page: page.stem
)
def test_every_command_that_a_page_shows_can_be_typed(page: Path) -> None:
    for line in commands_in(page):
        try:
            parse(line)
        except Exception as error:
            raise AssertionError(f"{page.name}: {line}: {error!r}") from error


@pytest.mark.parametrize("line", ["mmsearch qury x", "mmsearch query x --imag a", "mmsearch show"])
def test_a_command_that_cannot_be_typed_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"qury|No such option|Missing parameter"):
        parse(line)


def test_the_page_of_commands_has_every_command_its_examples_and_its_options() -> None:
    page = "\n".join(reference())
    root: Any = typer.main.get_command(app)

    for name, command in root.commands.items():
        for inner in getattr(command, "commands", {"": None}):
            assert f"### mmsearch {name} {inner}".strip() in page
    assert "\nmmsearch query --page report.pdf#3 --files\n" in page
    assert "\n| `--k" not in page
    assert "\n| `-k <int range>` | How many hits to print." in page


# ---------------------------------------------------------------- programs


def programs() -> list[Any]:
    found = []
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        found += [pytest.param(one, id=f"{page.stem}-{n}") for n, one in enumerate(blocks)]
    return [one for one in found if ">>>" not in str(one.values[0])]  # these are run, elsewhere


def names_in(module: str) -> set[str]:
    """What a module has at its top, read and not imported: frameworks take seconds."""
    spec = importlib.util.find_spec(module)
    assert spec, f"there is no {module}"
    assert spec.origin
    names = set(mmsearch.__all__) if module == "mmsearch" else set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
    return names


@pytest.mark.parametrize("program", programs())
def test_what_a_program_takes_from_mmsearch_is_there(program: str) -> None:
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmsearch"):
            missing = {name.name for name in node.names} - names_in(node.module or "")
            assert not missing, f"{node.module} has no {missing}"


# ---------------------------------------------------------------- the site


class Links(HTMLParser):
    """What a page fetches by itself, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.without_alt: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "link" and given.get("rel") not in ("next", "prev", "canonical"):
            self.fetched.append(given.get("href", ""))
        elif "src" in given:
            self.fetched.append(given["src"])
        if tag == "img" and not given.get("alt"):
            self.without_alt.append(given.get("src", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Links]:
    """The pages as `make docs` builds them."""
    pytest.importorskip("zensical", reason="the extra 'docs' is not installed")
    home = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", home / "docs")
    shutil.copy(ROOT / "mkdocs.yml", home)
    (home / "mmsearch").symlink_to(ROOT / "mmsearch")
    (home / "docs" / "commands.md").write_text("\n".join(reference()))
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    from mmsearch.serving import described

    page = "\n".join(described.as_markdown(described.described()))
    (home / "docs" / "http.md").write_text(page)
    built = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        cwd=home,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {}
    for path in (home / "build" / "docs").glob("*.html"):
        pages[path] = Links()
        pages[path].feed(path.read_text())
    return pages


def test_every_page_is_built_and_can_be_reached(site: dict[Path, Links]) -> None:
    names = {path.name for path in site}
    [start] = [links for path, links in site.items() if path.name == "index.html"]

    assert {f"{page.stem}.html" for page in PAGES} <= names
    assert {f"{page.stem}.html" for page in PAGES} <= {
        link.partition("#")[0].removeprefix("./") for link in start.links
    }, "a page that mkdocs.yml does not name"


def test_the_reference_has_examples_and_says_what_every_name_means(site: dict[Path, Links]) -> None:
    [api] = [path.read_text() for path in site if path.name == "api.html"]

    assert "<strong>latency_ms</strong>: how long a text may wait" in api
    assert "<strong>through</strong>: is given the model when it is loaded" in api
    assert "Examples:" in api
    assert "MMSearchVectorStore" in api


def test_nothing_is_fetched_from_elsewhere(site: dict[Path, Links]) -> None:
    for path, links in site.items():
        assert links.fetched, "an empty list would prove nothing"
        assert [one for one in links.fetched if re.match(r"(\w+:)?//", one)] == [], path.name


def test_what_is_linked_and_shown_is_there(site: dict[Path, Links]) -> None:
    for path, links in site.items():
        if path.name == "404.html":
            continue  # its links begin at the root of whatever server it lies on
        assert links.without_alt == [], path.name
        for link in [*links.links, *links.fetched]:
            where, _, anchor = link.partition("#")
            if re.match(r"\w+:", link) or link == "":
                continue
            there = (path.parent / where.partition("?")[0]).resolve() if where else path
            assert there.exists(), f"{path.name} -> {link}"
            if anchor and there in site:
                assert anchor in site[there].ids, f"{path.name} -> {link}"
