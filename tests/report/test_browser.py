"""The page in a browser: Chromium opens it from the disk, points, draws, types, and looks at it as axe does."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.fake_runs import EVIL, Json, make_map, make_run, results, serving, webp

from evensphere.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install .[browser]")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is not installed: pip install .[browser]"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

MARGIN, SCALE = 16, 9999  # of map.js


class Opened:
    """A page in the browser, and everything that it should not have done."""

    def __init__(self, browser: Any, file: Path, width: int, scheme: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page, self.complaints = self.context.new_page(), list[str]()
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("dialog", self._note_dialog)
        self.page.on("request", lambda request: self._note_request(request.url, file))
        self.page.goto(file.as_uri())
        self.page.wait_for_function("document.querySelectorAll('.plot .main-svg').length > 0")

    def _note(self, kind: str, text: str) -> None:
        self.complaints.append(f"{kind}: {text}")

    def _note_dialog(self, dialog: Any) -> None:
        self._note("dialog", dialog.message)
        dialog.dismiss()

    def _note_request(self, url: str, file: Path) -> None:
        if url != file.as_uri() and not url.startswith(("data:", "blob:")):
            self._note("request", url)

    def place(self, content: Json, i: int) -> tuple[float, float]:
        """Where image i of a map is drawn, in pixels of the window."""
        canvas = self.page.locator("#map-canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        side = min(box["width"], box["height"]) - 2 * MARGIN
        x, y = ((content[axis][i] / SCALE - 0.5) * side for axis in ("x", "y"))
        return box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 - y

    def listed(self) -> list[str]:
        names: list[str] = self.page.locator("#map-names li span").all_text_contents()
        return names


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens pages, and fails if any of them complained."""
    pages: list[Opened] = []

    def open_page(file: Path, width: int = 1400, scheme: str = "light") -> Opened:
        pages.append(Opened(browser, file, width, scheme))
        return pages[-1]

    yield open_page
    complaints = [complaint for page in pages for complaint in page.complaints]
    for page in pages:
        page.context.close()
    assert complaints == []


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", eval_json=results(40))


def test_hovering_shows_the_right_image(run: Path, opened: Open) -> None:
    content = make_map(run)
    page = opened(write_report(run))
    hover = page.page.locator("#map-hover")
    for i in (0, 9, 47, 99):
        page.page.mouse.move(*page.place(content, i))
        assert hover.is_visible()
        assert hover.locator("img").get_attribute("src") == f"data:image/webp;base64,{webp(i)}"
        words = hover.inner_text().splitlines()
        assert words[0] == f"{i // 10}/{i % 10}.jpg", "without the folder that all images lie in"
        assert f"class: {'dog' if i < 75 else 'okapi'}" in words
        assert f"group: {'many' if i < 75 else 'few'}" in words
        assert any(word.startswith(f"region: region {i % 3 + 1} ") for word in words)
    page.page.mouse.move(0, 0)
    assert not hover.is_visible()


def test_a_line_drawn_around_dots_lists_them(run: Path, opened: Open) -> None:
    content = make_map(run)
    page = opened(write_report(run))
    inside = [row * 10 + column for row in (3, 4, 5) for column in (6, 7)]
    corners = [(5.5, 2.5), (7.5, 2.5), (7.5, 5.5), (5.5, 5.5), (5.5, 2.6)]
    (x0, y0), (x1, y1) = page.place(content, 0), page.place(content, 99)
    points = [(x0 + (x1 - x0) * column / 9, y0 + (y1 - y0) * row / 9) for column, row in corners]
    page.page.mouse.move(*points[0])
    page.page.mouse.down()
    for point in points[1:]:
        page.page.mouse.move(*point, steps=5)
    page.page.mouse.up()
    assert page.listed() == [content["names"][i] for i in inside]
    with page.page.expect_download() as download:
        page.page.get_by_text("Save the list").click()
    assert Path(download.value.path()).read_text().splitlines() == [content["names"][i] for i in inside]
    page.page.get_by_role("button", name="Clear").click()
    assert page.listed() == []


def test_everything_is_there_without_a_pointer(run: Path, opened: Open) -> None:
    content = make_map(run)
    page = opened(write_report(run))
    page.page.locator("#map-canvas").focus()
    page.page.keyboard.press("ArrowRight")  # to the image in the middle
    first = page.page.locator("#map-says").inner_text()
    page.page.keyboard.press("ArrowRight")
    second = page.page.locator("#map-says").inner_text()
    one, other = (content["names"].index(words.split(",")[0]) for words in (first, second))
    assert (other - one) == 1, "one to the right on the grid"
    page.page.keyboard.press("Enter")
    assert len(page.listed()) == 20
    assert page.listed()[0] == content["names"][other]
    page.page.keyboard.press("Escape")
    assert page.listed() == []
    page.page.locator("#map-by").select_option("class")
    button = page.page.locator("#map-key button").nth(1)
    button.focus()
    page.page.keyboard.press("Enter")
    assert page.listed() == content["names"][75:]
    assert button.get_attribute("aria-pressed") == "true"


def test_several_maps_are_chosen_from(tmp_path: Path, opened: Open) -> None:
    folders = [make_run(tmp_path / arm, arm, 0, results(40)) for arm in ("base", "gh")]
    make_map(folders[0], regions=False)
    make_map(folders[1], side=4)
    page = opened(write_report(folders))
    colourings = page.page.locator("#map-by option")
    assert colourings.all_text_contents() == ["density", "group", "class"]
    page.page.locator("#map-run").select_option("1")
    assert colourings.all_text_contents() == ["density", "region", "group", "class"]
    content = json.loads((folders[1] / "map.json").read_text())
    page.page.mouse.move(*page.place(content, 5))
    assert page.page.locator("#map-hover p").inner_text().splitlines()[0] == "1/1.jpg"
    page.page.reload()
    page.page.wait_for_function("document.querySelectorAll('.plot .main-svg').length > 0")
    assert page.page.locator("#map-run").input_value() == "0"
    assert colourings.all_text_contents() == ["density", "group", "class"], "of the map that the menu names"


def test_names_do_nothing(tmp_path: Path, opened: Open) -> None:
    run = make_run(tmp_path / "<script>x", "gh", 0, results(40, (EVIL, "b", "c")), name=EVIL, summary=EVIL)
    names = [f"{EVIL}{i}" for i in range(100)]
    make_map(run, names=names, classes=[EVIL, EVIL + "2"])
    finding = {"name": "collapse", "title": EVIL, "level": "alarm", "sentence": EVIL, "advice": EVIL}
    (run / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    page = opened(write_report(run))
    page.page.locator("#map-by").select_option("class")
    page.page.locator("#map-key button").first.click()
    assert page.listed() == names[:75]
    page.page.mouse.move(*page.place({"x": [0], "y": [0]}, 0))
    assert EVIL in page.page.locator("#map-hover p").inner_text()
    assert page.page.locator("#image-map a, #image-map script").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_is_accessible_and_fits(width: int, scheme: str, six: list[Path], opened: Open) -> None:
    for folder in (six[0], six[3]):
        make_map(folder)
    finding = {"name": "skew", "title": "Skew", "level": "info", "sentence": "Some.", "advice": "None."}
    (six[0] / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    page = opened(write_report(six), width, scheme)
    for details in page.page.locator("details").all():
        details.evaluate("element => { element.open = true }")
    page.page.locator("#map-key button").first.click()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    found = axe.Axe().run(page.page).response["violations"]
    serious = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps(found, indent=1)[:4000]


@pytest.mark.slow
def test_a_large_map_is_small_and_quick(run: Path, opened: Open) -> None:
    n = 20_000
    picture = base64.b64decode(webp(3))
    long = base64.b64encode(picture + bytes(1_600 - len(picture))).decode()
    content = make_map(
        run, side=2, images=n, names=[f"a/folder/of/some/depth/{i:06d}-with-quite-a-long-name.jpg" for i in range(n)],
        x=[i * 7919 % 9999 for i in range(n)], y=[i * 104729 % 9999 for i in range(n)],
        tenth=[i * 10 // n for i in range(n)],
        region=[i % 100 for i in range(n)], region_images=[n // 100] * 100, label=[i % 100 for i in range(n)],
        classes=[f"class number {i}" for i in range(100)], groups=["many"] * 34 + ["medium"] * 33 + ["few"] * 33,
        thumbnails={str(i): long for i in range(2_000)},
    )  # fmt: skip
    file = write_report(run)
    assert file.stat().st_size < 12_000_000
    page = opened(file)
    assert page.page.locator("#map-key button").count() == 10
    assert page.page.evaluate("JSON.parse(document.getElementById('maps').textContent)[0].names.length") == n
    took = page.page.evaluate(
        """() => {
            const canvas = document.getElementById("map-canvas"), begun = performance.now();
            for (let i = 0; i < 50; i++)
                canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: 300 + i, clientY: 300 + i }));
            return (performance.now() - begun) / 50;
        }"""
    )
    assert took < 50, "milliseconds to find the dot below the pointer"
    assert content["images"] == n


def test_on_paper_there_is_nothing_to_press(run: Path, opened: Open) -> None:
    make_map(run)
    page = opened(write_report(run))
    page.page.emulate_media(media="print")
    assert not page.page.locator("#map-in").is_visible()
    assert page.page.locator("#map-canvas").is_visible()
    assert page.page.locator("details .tiles img").first.is_visible()
    assert not page.page.locator("#map-selected").is_visible(), "nothing is selected"
    assert page.page.pdf()[:5] == b"%PDF-"


def test_a_watched_page_loads_itself_anew_and_stays_as_it_was_left(run: Path, browser: Any) -> None:
    context = browser.new_context()
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked = set[str]()
    page.on("request", lambda request: asked.add(request.url.partition("?")[0]))
    with serving(run, every=0.3) as server:
        page.goto(server.address)
        assert "40.0" in page.locator(".answer").inner_text()
        page.locator("details").nth(1).locator("summary").click()
        (run / "eval.json").write_text(json.dumps(results(55)))
        page.locator(".answer", has_text="55.0").wait_for(timeout=60_000)
        page.locator("details[open]").wait_for()
        assert page.locator("details").nth(1).get_attribute("open") is not None
        assert page.locator("details[open]").count() == 1
        assert asked == {server.address, f"{server.address}version"}
        context.close()  # before the server, or a question that is on its way is cut off, and complained of
    assert complaints == []
