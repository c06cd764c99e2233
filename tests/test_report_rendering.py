"""A report as a browser shows it: wide and narrow, light and dark, and without the network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, make_run

from effnetv2_jax.outputs.report.page import write_report

playwright = pytest.importorskip(
    "playwright.sync_api", reason="a page is rendered with playwright, which is not installed"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed: {', '.join(NAMES)}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # A container has neither a sandbox nor much shared memory.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = started.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("report") / "run"
    make_run(run, HOSTILE)
    return Path(write_report(run))


class Opened:
    """A page, and what it did that it should not."""

    def __init__(self, browser: Any, file: Path, *, width: int, scheme: str = "light") -> None:
        viewport = {"width": width, "height": 900}
        self.page = browser.new_page(viewport=viewport, color_scheme=scheme)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.goto(file.as_uri())

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.complaints.append(url)


@pytest.mark.parametrize("width", [390, 1200])
def test_a_page_fits_its_window(browser: Any, page_file: Path, width: int) -> None:
    opened = Opened(browser, page_file, width=width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.page.locator("section").count() == 9
    assert not opened.complaints


def test_hostile_names_are_text(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, width=1200)
    names = opened.page.locator("#by-class tbody td:first-child").all_inner_texts()
    assert sorted(names) == sorted(HOSTILE)
    assert not opened.complaints


def test_tables_sort_and_curves_change_their_axis(browser: Any, page_file: Path) -> None:
    page = Opened(browser, page_file, width=1200).page
    for head, column in (("recall", 3), ("precision", 2)):
        page.locator("#by-class th", has_text=head).click()
        cells = page.locator(f"#by-class tbody td:nth-child({column})").all_inner_texts()
        shares = [float(cell.rstrip("%")) for cell in cells]
        assert shares == sorted(shares, reverse=True)
    for axis in ("epoch", "time", "step"):
        page.locator(f"label[for=by-{axis}]").click()
        shown = [
            each for each in ("step", "epoch", "time") if page.locator(f".by-{each}").is_visible()
        ]
        assert shown == [axis]


def test_there_is_a_dark_page(browser: Any, page_file: Path) -> None:
    colors = [
        Opened(browser, page_file, width=1200, scheme=scheme).page.evaluate(
            "[document.body, document.querySelector('svg text')]"
            ".map((e) => { const s = getComputedStyle(e); return s.backgroundColor + s.fill })"
        )
        for scheme in ("light", "dark")
    ]
    assert all(light != dark for light, dark in zip(*colors, strict=True))
