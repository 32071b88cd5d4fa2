"""Take the pictures of the web page that the documentation shows.

    an index of the sample corpus -> server -> Chromium -> docs/serving/*.png

python benchmarks/page_screenshots.py --db .demo
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mmsearch.serving.server import running
from mmsearch.serving.settings import Settings

ROOT = Path(__file__).parent.parent
ASKED_PICTURE = ROOT / "sample_corpus" / "queries" / "horse.png"
DESK: dict[str, Any] = {"viewport": {"width": 1360, "height": 860}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 1.5,
    "has_touch": True,
    "is_mobile": True,
}


def main() -> None:
    """Take them all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, default=ROOT / ".demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "serving")
    parser.add_argument("names", nargs="*", choices=[[], *SHOTS])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with running(Settings(dbs=(asked.db,), port=0)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in asked.names or SHOTS:
            address, device, act = SHOTS[name]
            page = browser.new_context(**DESK | device).new_page()
            page.set_default_timeout(60_000)
            page.goto(url + address)
            if "q=" in address:
                page.wait_for_selector(".card")
            act(page)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(500)  # what was loaded is drawn
            path = asked.out / f"{name}.png"
            page.screenshot(path=path)
            with Image.open(path) as picture:
                picture.convert("RGB").save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
            page.context.close()
        browser.close()


def _nothing(page: Page) -> None:
    """Leave it as it is."""


def _open_first(page: Page) -> None:
    page.locator(".card").first.click()
    page.wait_for_selector("#viewer img:not(.soft), #viewer video")
    page.mouse.move(0, 0)


def _open_page(page: Page) -> None:
    _open_first(page)
    page.wait_for_selector(".marks span")


def _open_film(page: Page) -> None:
    _open_first(page)
    for _ in range(200):
        if page.evaluate("document.querySelector('video').played.length > 0"):
            break
        page.wait_for_timeout(50)
    page.wait_for_timeout(600)
    page.evaluate("document.querySelector('video').pause()")


def _add_picture(page: Page) -> None:
    with page.expect_response("**/v1/search"):
        page.set_input_files("#file", ASKED_PICTURE)
    with page.expect_response("**/v1/search"):  # the first has to start what reads pictures
        page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector("body:not([aria-busy]) .card")


def _open_filters(page: Page) -> None:
    page.get_by_role("button", name="Filters").click()


def _to_results(page: Page) -> None:
    page.keyboard.press("Escape")


SHOTS: dict[str, tuple[str, dict[str, Any], Callable[[Page], None]]] = {
    "light": ("/?q=how+much+water+is+lost+to+leaking+pipes", {}, _nothing),
    "dark": ("/?q=cat", {"color_scheme": "dark"}, _to_results),
    "page-view": ("/?q=how+much+water+is+lost+to+leaking+pipes", {}, _open_page),
    "video": ("/?q=keep+one+of+the+copies+in+a+different+building", {}, _open_film),
    "picture": ("/?q=sign+for+a+path+where+riders+give+way&kinds=image", {}, _add_picture),
    "filters": (
        "/?q=water&kinds=pdf&path=reports/*.pdf&min=0.1",
        {"color_scheme": "dark"},
        _open_filters,
    ),
    "phone": ("/?q=cat", PHONE, _nothing),
    "phone-view": ("/?q=hydrants+of+the+water+board", PHONE, _open_page),
}

if __name__ == "__main__":
    main()
