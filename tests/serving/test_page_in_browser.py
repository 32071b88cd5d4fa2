"""The page in a real browser: asked, looked at, listened to by axe, attacked.

Chromium opens the page of a real server over a small index of words and colours. Whatever a
test does, the browser may ask no other host and may find nothing to complain of in the console.
"""

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import WordEmbedder

from mmsearch.engine import Engine
from mmsearch.values import Item, Role

if TYPE_CHECKING:
    from mmsearch.values import Vectors

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("playwright", reason="needs playwright, of the extra 'dev'")

import made_files
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

from mmsearch.serving.server import running
from mmsearch.serving.settings import Settings

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

KEY = "a-key-of-this-server"
HOSTILE_NAME = "<img src=x onerror=window.hacked=1>.pdf"
HOSTILE_TEXT = "museum <script>window.hacked=2</script> <b>bold</b> &amp; museum"
PATIENCE_MS = 20_000  # of a machine that does much else
MakePage = Callable[..., Page]


class GatedEmbedder(WordEmbedder):
    """Embeds documents only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        if role is Role.DOCUMENT:
            assert self.gate.wait(PATIENCE_MS / 1000)
        return super().embed(items, role=role)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages about pumps, a hostile one, two pictures, a film of two moments, and a note."""
    folder = tmp_path_factory.mktemp("library")
    made_files.pdf(folder / "pumps.pdf", "pump " * 3, "pump chart " * 3, "a dog")
    made_files.pdf(folder / HOSTILE_NAME, HOSTILE_TEXT)
    for name, colour in (("red", made_files.RED), ("blue", made_files.BLUE)):
        Image.new("RGB", (320, 200), colour).save(folder / f"{name}.png")
    made_files.film(folder / "film.mp4", [(2, made_files.RED), (3, made_files.GREEN)])
    (folder / "note.txt").write_text("The cat sits beside the chart.\n\nNothing else.")
    return folder


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """What the page may index: a root of `filling`."""
    folder = tmp_path / "later"
    folder.mkdir()
    (folder / "cats.txt").write_text("cat cat cat, only about a cat")
    return folder


@pytest.fixture(scope="module")
def db(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "notes"
    with Engine.open(path, create=True, model=WordEmbedder()) as engine:
        report = engine.index([folder], ocr=False, num_workers=1)
    assert report.documents == 6
    assert not report.failed
    return path


@pytest.fixture(scope="module")
def server(db: Path) -> Iterator[str]:
    """Serves an index that nobody changes."""
    with running(Settings(dbs=(db,), port=0, model=WordEmbedder())) as url:
        yield url


@pytest.fixture
def gated() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
def filling(db: Path, later: Path, gated: GatedEmbedder, tmp_path: Path) -> Iterator[str]:
    """Serves a copy of the index, into which the page may put what is `later`."""
    copy = shutil.copytree(db, tmp_path / "notes", ignore=shutil.ignore_patterns("serve.sock"))
    with running(Settings(dbs=(copy,), port=0, model=gated, roots=(later,))) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def make_page(browser: Browser, server: str) -> Iterator[MakePage]:
    """Return a function that opens an address of the server in a browser of its own.

    At the end of a test: no host but the server was asked, no policy was offended, no script
    failed, and no text of a document ran.
    """
    contexts, pages, strangers, complaints = [], [], [], []

    def make(
        address: str = "",
        *,
        base: str = server,
        first: Callable[[Page], object] = lambda _: None,
        **device: Any,
    ) -> Page:
        device = {"viewport": {"width": 1280, "height": 800}} | device
        context = browser.new_context(**device)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        pages.append(page)

        def on_request(request: Request) -> None:
            if not request.url.startswith((base, "blob:", "data:")):
                strangers.append(request.url)

        def on_console(message: ConsoleMessage) -> None:
            # A refused request is said on the page; the browser notes every one besides.
            if message.type == "error" and "Failed to load resource" not in message.text:
                complaints.append(message.text)

        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        first(page)
        page.goto(base + address)
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield make
    for page in pages:
        assert page.evaluate("window.hacked") is None
    for context in contexts:
        context.close()
    assert strangers == []
    assert complaints == []


def until(page: Page, expression: str) -> None:
    """Wait for it to hold; playwright's own way needs eval, which the page's policy forbids."""
    for _ in range(PATIENCE_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {expression}")


def ask(page: Page, words: str) -> None:
    page.fill("#words", words)
    with page.expect_response(re.compile("/v1/search")):
        page.press("#words", "Enter")
    expect(page.locator("#told")).to_contain_text("hit")
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")


def axe_finds(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe finds wrong with what is shown, by all of its rules where none is named."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="of the extra 'dev'")
    until(page, "document.getAnimations().every((one) => one.playState !== 'running')")
    found = (
        axe.Axe()
        .run(page, options={"runOnly": list(rules)} if rules else None)
        .response["violations"]
    )
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


# ---------------------------------------------------------------- asking


def test_words_find_the_page_that_says_them_and_what_it_scored_is_shown(
    make_page: MakePage,
) -> None:
    page = make_page()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#holds")).to_have_text(
        "2 PDFs, 2 pictures, 1 film and 1 text to look through."
    )

    ask(page, "pump chart")

    first = page.locator(".card").first
    expect(first.locator(".file")).to_have_text("pumps.pdf")
    expect(first.locator(".page")).to_contain_text("2")
    assert first.locator("mark").all_inner_texts()[:2] == ["pump", "chart"]
    told = first.locator(".score-bar").get_attribute("aria-label") or ""
    total, *parts = (float(number) for number in re.findall(r"\d\.\d\d", told))
    assert "meaning" in told
    assert "words" in told
    assert sum(parts) == pytest.approx(total, abs=0.02)
    expect(page.locator("#welcome")).to_be_hidden()


def test_a_chosen_picture_finds_the_one_of_its_colour_and_words_may_go_with_it(
    make_page: MakePage, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.png"
    Image.new("RGB", (64, 64), made_files.BLUE).save(asked)
    page = make_page()

    with page.expect_response(re.compile("/v1/search")):
        page.set_input_files("#file", asked)

    expect(page.locator(".card .file").first).to_have_text("blue.png")
    expect(page.locator("#media img")).to_have_attribute("alt", "asked.png")

    ask(page, "cat")
    expect(page.locator("#media li")).to_have_count(1)

    page.get_by_role("button", name="Take out asked.png").click()
    expect(page.locator("#media li")).to_have_count(0)
    expect(page.locator(".card .file").first).to_have_text("note.txt")


def test_a_pdf_asks_by_one_of_its_pages(make_page: MakePage, tmp_path: Path) -> None:
    page = make_page()
    # All pages of a few words look alike; that of the same words has them to its credit.
    card = page.locator(".card", has_text=HOSTILE_NAME)

    page.set_input_files("#file", made_files.pdf(tmp_path / "asked.pdf", "pump", "museum"))

    number = page.get_by_label("Page of asked.pdf")
    expect(number).to_have_value("1")
    expect(card.locator(".score-bar")).not_to_have_attribute("aria-label", re.compile("words"))

    number.press("ArrowUp")

    expect(card.locator(".score-bar")).to_have_attribute("aria-label", re.compile(r"words 0\.5"))
    expect(number).to_have_value("2")
    expect(number).to_be_focused()

    number.press("ArrowUp")

    expect(page.locator("#trouble")).to_contain_text("page 3")


def test_what_is_typed_while_the_page_still_asks_the_server_is_not_lost(
    make_page: MakePage,
) -> None:
    held: list[Route] = []
    page = make_page(
        first=lambda page: page.route("**/v1/status", lambda route: held.append(route))
    )
    page.fill("#words", "pump chart")
    while not held:
        page.wait_for_timeout(20)

    held[0].continue_()

    expect(page.locator("#holds")).not_to_be_empty()
    assert page.input_value("#words") == "pump chart"


def test_back_brings_the_picture_that_was_asked_with(make_page: MakePage, tmp_path: Path) -> None:
    asked = tmp_path / "asked.png"
    Image.new("RGB", (64, 64), made_files.BLUE).save(asked)
    page = make_page()
    page.set_input_files("#file", asked)
    expect(page.locator(".card .file").first).to_have_text("blue.png")

    page.locator(".card").first.press("m")
    expect(page.locator("#told")).to_contain_text("like blue.png")
    expect(page.locator("#media li")).to_have_count(0)
    page.go_back()

    expect(page.locator("#media img")).to_have_attribute("alt", "asked.png")
    expect(page.locator(".card .file").first).to_have_text("blue.png")
    page.go_back()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#media li")).to_have_count(0)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_or_pasted_anywhere(make_page: MakePage, way: str) -> None:
    page = make_page()
    page.evaluate(
        """async ([way, colour]) => {
            const canvas = new OffscreenCanvas(64, 64), pen = canvas.getContext("2d");
            pen.fillStyle = `rgb(${colour})`;
            pen.fillRect(0, 0, 64, 64);
            const given = new DataTransfer(), blob = await canvas.convertToBlob();
            given.items.add(new File([blob], "red.png", {type: "image/png"}));
            const fields = {bubbles: true, cancelable: true};
            const events = way === "paste"
                ? [new ClipboardEvent("paste", {...fields, clipboardData: given})]
                : ["dragover", "drop"].map(
                    (name) => new DragEvent(name, {...fields, dataTransfer: given}));
            for (const event of events) document.body.dispatchEvent(event);
        }""",
        [way, list(made_files.RED)],
    )

    expect(page.locator(".card .file").first).to_have_text("red.png")
    expect(page.locator("#drop")).to_be_hidden()


def test_what_is_no_picture_is_refused_in_words(make_page: MakePage, tmp_path: Path) -> None:
    page = make_page()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture at all")

    page.set_input_files("#file", broken)

    expect(page.locator("#trouble")).to_be_visible()
    expect(page.locator("#trouble p").first).not_to_be_empty()
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")


def test_filters_narrow_and_the_address_holds_them_for_whoever_opens_it(
    make_page: MakePage,
) -> None:
    page = make_page()
    ask(page, "chart")
    page.get_by_role("button", name="Texts").click()
    expect(page.locator(".card .file")).to_have_text(["note.txt"])

    page.get_by_role("button", name="Texts").click()
    page.get_by_role("button", name="Filters").click()
    page.fill("#where", "page = 2")
    page.press("#where", "Enter")
    expect(page.locator(".card .file")).to_have_text(["pumps.pdf"])
    expect(page.locator("#num-filters")).to_have_text("1")

    other = make_page(page.url.removeprefix(page.url.split("/?")[0]))
    expect(other.locator(".card .file")).to_have_text(["pumps.pdf"])
    assert other.input_value("#words") == "chart"
    assert other.input_value("#where") == "page = 2"

    page.go_back()
    page.go_back()
    expect(page.locator(".card .file")).to_have_text(["note.txt"])
    page.go_back()
    until(page, "document.querySelectorAll('.card').length > 1")


def test_a_filter_that_makes_no_sense_is_answered_with_what_would(make_page: MakePage) -> None:
    page = make_page("/?q=chart&where=pages+%3D+2")

    expect(page.locator("#trouble")).to_contain_text("cannot filter by")
    expect(page.locator("#trouble .remedy")).to_contain_text("columns: path, kind, page")
    expect(page.locator(".card")).to_have_count(0)


def test_more_like_this_shows_what_is_alike_and_says_to_what(make_page: MakePage) -> None:
    page = make_page("/?q=chart&kinds=pdf")
    card = page.locator("li", has_text="pumps.pdf").first
    card.hover()
    card.get_by_role("button", name="More like pumps.pdf").click()

    expect(page.locator("#told")).to_contain_text("like pumps.pdf, page")
    assert "like=" in page.url
    expect(page.locator(".card .file").first).to_have_text("pumps.pdf")

    page.reload()
    expect(page.locator("#told")).to_contain_text("like pumps.pdf, page")


def test_of_several_indexes_the_one_that_was_chosen_is_asked_and_looked_at(
    make_page: MakePage, db: Path, tmp_path: Path
) -> None:
    made_files.pdf(tmp_path / "museum.pdf", "museum chart")
    with Engine.open(tmp_path / "other", create=True, model=WordEmbedder()) as engine:
        engine.index([tmp_path / "museum.pdf"], ocr=False, num_workers=1)
    with running(Settings(dbs=(db, tmp_path / "other"), port=0, model=WordEmbedder())) as both:
        page = make_page("/?q=pump+chart", base=both)
        expect(page.locator(".card .file").first).to_have_text("pumps.pdf")

        page.select_option("#index", "other")

        expect(page.locator(".card .file")).to_have_text(["museum.pdf"])
        assert "index=other" in page.url
        page.locator(".card").click()
        until(page, "document.querySelector('#stage img').naturalWidth > 600")
        page.reload()
        expect(page.locator("#viewer-title")).to_have_text("museum.pdf")
        until(page, "document.querySelector('#stage img').naturalWidth > 600")
        page.goto("about:blank")


# ---------------------------------------------------------------- looking


def test_a_page_opens_large_with_its_words_its_score_and_the_pages_around_it(
    make_page: MakePage,
) -> None:
    page = make_page("/?q=pump+chart")
    page.locator(".card").first.click()

    viewer = page.locator("#viewer")
    expect(viewer.locator("h2")).to_have_text("pumps.pdf")
    expect(viewer.locator("#viewer-where")).to_have_text("page 2")
    until(page, "document.querySelector('#stage img').naturalWidth > 600")
    assert viewer.locator(".side mark").count() == 6
    expect(viewer.locator(".made-of dd")).to_have_count(3)
    expect(viewer.locator("#pages button")).to_have_count(3)
    expect(viewer.locator("#pages [aria-current]")).to_contain_text("2")
    expect(viewer.get_by_role("link", name="Open file")).to_have_attribute(
        "href", re.compile(r"/file#page=2$")
    )

    marks = viewer.locator(".marks span")
    expect(marks).to_have_count(6)
    sheet, mark = viewer.locator("#stage img").bounding_box(), marks.first.bounding_box()
    assert sheet is not None
    assert mark is not None
    # The text begins 50 of 595 points from the left, and 50 of 842 from the top.
    assert (mark["x"] - sheet["x"]) / sheet["width"] == pytest.approx(50 / 595, abs=0.02)
    assert (mark["y"] - sheet["y"]) / sheet["height"] == pytest.approx(50 / 842, abs=0.02)

    page.keyboard.press("PageDown")
    expect(viewer.locator("#viewer-where")).to_have_text("page 3")
    expect(viewer.locator(".side .words mark")).to_have_count(0)


def test_the_address_of_an_open_hit_opens_it_again(make_page: MakePage) -> None:
    page = make_page("/?q=pump+chart")
    page.locator(".card").first.click()
    expect(page.locator("#viewer-where")).to_have_text("page 2")
    assert "hit=" in page.url

    page.reload()
    expect(page.locator("#viewer-where")).to_have_text("page 2")

    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    page.go_back()
    expect(page.locator(".card").first).to_be_visible()


def test_a_film_starts_at_the_moment_that_was_found_and_goes_to_others(
    make_page: MakePage, tmp_path: Path
) -> None:
    page = make_page()
    asked = tmp_path / "green.png"
    Image.new("RGB", (64, 64), made_files.GREEN).save(asked)
    page.get_by_role("button", name="Films").click()
    page.set_input_files("#file", asked)
    expect(page.locator(".card .moment").first).to_have_text(re.compile("0:02.0:05"))

    page.locator(".card").first.click()

    playing = (
        "(() => {{ const v = document.querySelector('video'); return v && !v.seeking && {} }})()"
    )
    until(page, playing.format("v.played.length && v.videoWidth === 320"))
    assert page.evaluate("document.querySelector('video').played.start(0)") > 1.8
    expect(page.locator(".strip .span")).to_have_count(2)
    place = page.locator(".strip .here").evaluate("one => parseFloat(one.style.left)")
    assert place == pytest.approx(40, abs=4)  # second 2 of 5, or the frames before it

    page.get_by_role("button", name=re.compile("Play 0:00")).click()
    until(page, playing.format("v.currentTime < 1.7"))
    page.get_by_role("button", name="From 0:02").click()
    until(page, playing.format("v.currentTime >= 1.8"))

    page.keyboard.press("Escape")
    expect(page.locator("video")).to_have_count(0)


def test_a_text_opens_as_text_with_its_words_marked(make_page: MakePage) -> None:
    page = make_page("/?q=cat")
    page.locator(".card").first.click()

    expect(page.locator("#stage .reading")).to_contain_text("The cat sits beside the chart.")
    assert page.locator("#stage mark").all_inner_texts() == ["cat"]


def test_a_file_that_is_gone_leaves_what_the_index_kept_of_it(
    make_page: MakePage, folder: Path
) -> None:
    page = make_page("/?q=pump+chart")
    expect(page.locator(".card").first).to_be_visible()
    moved = (folder / "pumps.pdf").rename(folder / "elsewhere")
    try:
        page.locator(".card").first.click()
        expect(page.locator("#stage .gone")).to_contain_text("cannot be read any more")
        expect(page.locator(".side p.words")).to_contain_text("pump chart")
    finally:
        moved.rename(folder / "pumps.pdf")


# ---------------------------------------------------------------- keys


def test_all_of_it_goes_by_keys(make_page: MakePage) -> None:
    page = make_page()
    page.locator("h1").first.click()  # away from the box, which has the focus at first
    page.keyboard.press("/")
    page.keyboard.type("pump chart")
    page.keyboard.press("Enter")
    expect(page.locator(".card").first).to_be_visible()

    page.keyboard.press("Escape")
    expect(page.locator(".card").nth(0)).to_be_focused()
    assert page.input_value("#words") == "pump chart"
    page.keyboard.press("ArrowRight")
    expect(page.locator(".card").nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator(".card").last).to_be_focused()
    page.keyboard.press("Home")

    page.keyboard.press("Enter")
    expect(page.locator("#viewer-place")).to_contain_text("1 of")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-place")).to_contain_text("2 of")
    page.keyboard.press("Escape")
    expect(page.locator(".card").nth(1)).to_be_focused()

    page.keyboard.press("m")
    expect(page.locator("#told")).to_contain_text("like ")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()


def test_down_goes_to_the_card_below_and_up_comes_back(make_page: MakePage) -> None:
    page = make_page("/?q=chart", viewport={"width": 700, "height": 900})
    expect(page.locator(".card").nth(3)).to_be_visible()
    page.locator(".card").nth(1).focus()

    page.keyboard.press("ArrowDown")

    boxes = [page.locator(".card").nth(place).bounding_box() for place in (1, 3)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] == boxes[1]["x"]  # two columns at this width
    expect(page.locator(".card").nth(3)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".card").nth(1)).to_be_focused()


# ---------------------------------------------------------------- files into the index


def test_a_folder_is_indexed_while_one_looks_on_and_can_be_found_then(
    make_page: MakePage, filling: str, later: Path
) -> None:
    page = make_page(base=filling)
    page.get_by_role("button", name="What is in the index").click()
    expect(page.locator("#numbers")).to_contain_text("words, 9 dimensions")

    page.fill("#add-path", str(later))
    page.get_by_role("button", name="Index", exact=True).click()

    expect(page.locator("#job-told")).to_contain_text("1 file read")
    expect(page.locator("#job-stop")).to_be_hidden()
    expect(page.locator("#numbers")).to_contain_text("2 texts")
    page.keyboard.press("Escape")
    ask(page, "cat")
    expect(page.locator(".card .file").first).to_have_text("cats.txt")


def test_indexing_can_be_stopped(
    make_page: MakePage, filling: str, later: Path, gated: GatedEmbedder
) -> None:
    (later / "many").mkdir()
    for number in range(3):
        (later / "many" / f"{number}.txt").write_text(f"zebra {number}")
    page = make_page(base=filling)
    page.get_by_role("button", name="What is in the index").click()
    page.fill("#add-path", str(later / "many"))

    gated.gate.clear()
    try:
        page.get_by_role("button", name="Index", exact=True).click()
        with page.expect_response(re.compile("/v1/jobs/")):
            page.get_by_role("button", name="Stop").click()
    finally:
        gated.gate.set()

    expect(page.locator("#job-told")).to_contain_text("Stopped")
    expect(page.locator("#job-stop")).to_be_hidden()


def test_a_folder_beyond_the_servers_roots_is_refused_in_words(
    make_page: MakePage, filling: str, folder: Path
) -> None:
    page = make_page(base=filling)
    page.get_by_role("button", name="What is in the index").click()
    page.fill("#add-path", str(folder))
    page.get_by_role("button", name="Index", exact=True).click()

    expect(page.locator("#add-trouble")).to_be_visible()
    expect(page.locator("#add-trouble")).not_to_be_empty()
    expect(page.locator("#job")).to_be_hidden()


# ---------------------------------------------------------------- strangers


def test_markup_in_a_documents_text_and_name_is_shown_and_never_becomes_any(
    make_page: MakePage,
) -> None:
    page = make_page("/?q=museum")  # nothing of it has run: `make_page` looks
    card = page.locator(".card").first

    expect(card.locator(".file")).to_have_text(HOSTILE_NAME)
    expect(card.locator(".snippet")).to_contain_text("<script>window.hacked=2</script> <b>bold</b>")
    card.click()
    expect(page.locator("#viewer-title")).to_have_text(HOSTILE_NAME)
    expect(page.locator(".side p.words")).to_contain_text("<b>bold</b> &amp; museum")
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#told")).to_contain_text(f"like {HOSTILE_NAME}")
    assert page.locator("main b:not(#told b), main script").count() == 0


def test_the_browser_itself_refuses_markup_from_strings(browser: Browser, server: str) -> None:
    page = browser.new_page()
    page.goto(server)

    refused = page.evaluate(
        "try { document.body.innerHTML = '<b>'; 'taken' } catch (error) { error.name }"
    )

    page.close()
    assert refused == "TypeError"


def test_without_a_key_nothing_is_seen_and_with_one_all_of_it_pictures_and_films_too(
    make_page: MakePage, db: Path
) -> None:
    settings = Settings(dbs=(db,), port=0, model=WordEmbedder(), api_keys=frozenset({KEY}))
    with running(settings) as locked:
        page = make_page("/?q=pump+chart", base=locked)
        expect(page.locator("#door")).to_be_visible()
        assert page.locator(".card").count() == 0

        page.fill("#door-key", "not-a-key-of-this-server")
        page.keyboard.press("Enter")
        expect(page.locator("#door-trouble")).to_contain_text("not a key")
        page.fill("#door-key", KEY)
        page.keyboard.press("Enter")

        expect(page.locator(".card .file").first).to_have_text("pumps.pdf")
        until(page, "document.querySelector('.card img').naturalWidth > 0")
        assert page.evaluate("document.cookie") == ""
        page.reload()
        expect(page.locator(".card .file").first).to_have_text("pumps.pdf")
        page.goto("about:blank")


# ---------------------------------------------------------------- everybody


@pytest.mark.parametrize(
    ("scheme", "rules"), [("light", []), ("dark", ["color-contrast"])], ids=["light", "dark"]
)
def test_axe_has_nothing_to_say(make_page: MakePage, scheme: str, rules: list[str]) -> None:
    page = make_page(color_scheme=scheme)
    expect(page.locator("#holds")).not_to_be_empty()
    assert axe_finds(page, rules) == []

    page.get_by_role("button", name="Filters").click()
    ask(page, "museum chart")
    assert axe_finds(page, rules) == []

    page.locator(".card", has_text="pumps.pdf").first.click()
    expect(page.locator("#pages button")).to_have_count(3)
    assert axe_finds(page, rules) == []
    page.keyboard.press("Escape")

    for name in ("What is in the index", "Keys"):
        page.get_by_role("button", name=name).click()
        assert axe_finds(page, rules) == []
        page.keyboard.press("Escape")


def test_axe_has_nothing_to_say_of_a_film_and_of_a_refusal(make_page: MakePage) -> None:
    page = make_page("/?q=chart&kinds=video")
    page.locator(".card").first.click()
    expect(page.locator(".strip .span")).to_have_count(2)
    assert axe_finds(page) == []

    page = make_page("/?q=chart&where=pages")
    expect(page.locator("#trouble")).to_be_visible()
    assert axe_finds(page) == []


def test_at_the_width_of_a_phone_nothing_lies_beyond_the_edge(make_page: MakePage) -> None:
    page = make_page(
        "/?q=museum+chart", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    expect(page.locator(".card").first).to_be_visible()
    widest = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert page.evaluate(widest) <= 360
    assert axe_finds(page) == []

    page.locator(".card").first.tap()
    box = page.locator("#viewer").bounding_box()
    assert box is not None
    assert box["width"] == 360
    assert page.evaluate(widest) <= 360
    assert axe_finds(page) == []


def test_colours_follow_the_system_until_somebody_chooses_and_then_stay(
    make_page: MakePage,
) -> None:
    page = make_page(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Colours: as the system has them").click()
    expect(page.locator("#theme")).to_have_attribute("title", "Colours: light")
    light = page.evaluate(ground)

    page.reload()

    assert page.evaluate(ground) == light != dark
    page.get_by_role("button", name="Colours: light").click()
    page.get_by_role("button", name="Colours: dark").click()
    assert page.evaluate(ground) == dark
