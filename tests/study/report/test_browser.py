"""The page in a real Chromium: clicked, dragged, typed at, sorted, and nothing to complain of."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import load_helper

chromium = load_helper("study/report/browser.py")  # skips all of this where there is none

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402 - after the skip
from selenium.webdriver.common.by import By  # noqa: E402 - the same
from selenium.webdriver.common.keys import Keys  # noqa: E402 - the same
from selenium.webdriver.support.select import Select  # noqa: E402 - the same
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402 - the same

from tgate_plugins.study.report import render  # noqa: E402 - the same

folder = load_helper("study/report/folder.py")

#: Seconds before a test gives up: a machine that is shared may be slow, and none waits for fun.
PATIENCE = 300


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("study")
    folder.write(made, ("emoji-sd", "emoji-lcm"))
    return render(made)


@pytest.fixture(scope="module")
def driver(path: Path) -> Iterator[Any]:
    with chromium.browser() as opened:
        yield opened


@pytest.fixture
def page(driver: Any, path: Path) -> Any:
    """The page, freshly loaded, its charts drawn, and the noise of the page before forgotten."""
    driver.get("about:blank")
    chromium.complaints(driver)
    driver.get(path.as_uri())
    until(driver, lambda d: len(d.find_elements(By.CSS_SELECTOR, ".chart .main-svg")) >= 6)
    return driver


def until(driver: Any, true: Callable[[Any], Any]) -> Any:
    return WebDriverWait(driver, PATIENCE, poll_frequency=0.1).until(true)


def one(driver: Any, selector: str) -> Any:
    return driver.find_element(By.CSS_SELECTOR, selector)


def many(driver: Any, selector: str) -> list[Any]:
    return driver.find_elements(By.CSS_SELECTOR, selector)


def click(driver: Any, element: Any) -> None:
    driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element
    )
    element.click()


def pixels(driver: Any, element: Any = None) -> np.ndarray:
    shot = (element or driver).screenshot_as_png if element else driver.get_screenshot_as_png()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), int)


def compare(driver: Any, label: str = "deepcache interval=3") -> None:
    """Open the comparison of one method's first picture."""
    click(driver, one(driver, f'.tile[data-label="{label}"]'))
    until(driver, lambda d: one(d, "#compare-words").text != "")


def clip(driver: Any) -> float:
    """How much of the frame the left picture covers, as laid out."""
    width = "return document.getElementById(arguments[0]).getBoundingClientRect().width"
    return driver.execute_script(width, "clip") / driver.execute_script(width, "frame")


def test_the_page_opens_and_the_console_is_silent(page: Any) -> None:
    """Three charts a model, and every picture decoded."""
    broken = page.execute_script(
        "return [...document.images].filter(i => i.dataset.source && !i.naturalWidth).length"
    )
    assert (chromium.complaints(page), broken) == ([], 0)
    assert len(many(page, ".chart .main-svg")) >= 6
    assert len(many(page, ".scatterlayer .point")) > 100


@pytest.mark.parametrize(
    "planted",
    ["<script>console.error('planted')</script>", "<script>nothing.there()</script>"],
)
def test_a_page_with_an_error_is_caught(driver: Any, tmp_path: Path, planted: str) -> None:
    """A planted offender: silence is heard only by who can hear noise."""
    (tmp_path / "bad.html").write_text(f"<link rel='icon' href='data:,'>{planted}")
    driver.get((tmp_path / "bad.html").as_uri())
    assert len(chromium.complaints(driver)) == 1


def test_the_page_may_load_nothing_from_outside(page: Any) -> None:
    """A planted request is stopped by the page's own policy, and heard."""
    page.execute_script(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/'}))"
    )
    until(page, lambda d: any("Content Security Policy" in c for c in chromium.complaints(d)))


def test_the_slider_follows_the_mouse(page: Any) -> None:
    """Pressed at three quarters of the frame, dragged to one quarter."""
    compare(page)
    assert clip(page) == pytest.approx(0.5, abs=0.01)
    frame = one(page, "#frame")
    quarter = frame.size["width"] // 4
    ActionChains(page).move_to_element_with_offset(frame, quarter, 0).click_and_hold().perform()
    assert clip(page) == pytest.approx(0.75, abs=0.02)
    ActionChains(page).move_by_offset(-2 * quarter, 5).perform()
    until(page, lambda d: clip(d) == pytest.approx(0.25, abs=0.02))
    ActionChains(page).release().perform()
    ActionChains(page).move_by_offset(quarter, 0).perform()
    assert clip(page) == pytest.approx(0.25, abs=0.02)
    assert chromium.complaints(page) == []


def test_the_slider_follows_a_finger(page: Any) -> None:
    """Touch, as Chromium itself sends it."""
    compare(page)
    box = one(page, "#frame").rect
    offset = page.execute_script("return [window.scrollX, window.scrollY]")
    y = box["y"] - offset[1] + box["height"] / 2

    def touch(kind: str, share: float | None) -> None:
        at = [] if share is None else [{"x": box["x"] - offset[0] + share * box["width"], "y": y}]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", 0.6)
    touch("touchMove", 0.8)
    touch("touchEnd", None)
    assert clip(page) == pytest.approx(0.8, abs=0.02)


def test_the_slider_follows_the_arrow_keys(page: Any) -> None:
    """The focus is on it as soon as the comparison is open; Escape closes, and gives it back."""
    compare(page)
    ActionChains(page).send_keys(*[Keys.ARROW_RIGHT] * 5).perform()
    right = clip(page)
    ActionChains(page).send_keys(Keys.HOME).perform()
    assert (right, clip(page)) == (pytest.approx(0.55, abs=0.01), pytest.approx(0, abs=0.01))
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    assert not one(page, "#compare").is_displayed()
    assert page.switch_to.active_element.get_attribute("data-label") == "deepcache interval=3"


def test_what_the_slider_uncovers_is_the_other_picture(page: Any) -> None:
    """At one end the ungated picture, at the other the method's: both of them whole."""
    compare(page)
    page.execute_script("document.getElementById('handle').style.display = 'none'")
    page.execute_script("document.querySelectorAll('.tag').forEach(t => t.remove())")
    shown = []
    for key in (Keys.END, Keys.HOME):
        ActionChains(page).send_keys(key).perform()
        shown.append(pixels(page, one(page, "#frame")))
    root = Path(page.current_url.removeprefix("file://")).parent / "images/emoji-sd"
    for image, name in zip(shown, ("ungated", "deepcache-interval-3"), strict=True):
        truth = Image.open(root / name / "0-0.png").resize(
            image.shape[1::-1], Image.Resampling.NEAREST
        )
        # Exact but for the odd rounding of colours on a screen.
        assert np.abs(np.asarray(truth.convert("RGB"), int) - image).mean() < 1


def test_the_difference_map_is_drawn_and_amplified(page: Any) -> None:
    """Its pixels are the pictures' difference times the factor, clipped."""
    compare(page)
    click(page, one(page, 'input[value="difference"] + span'))
    until(page, lambda d: one(d, "#difference").is_displayed())
    root = Path(page.current_url.removeprefix("file://")).parent / "images/emoji-sd"
    ours, theirs = (
        np.asarray(Image.open(root / name / "0-0.png").convert("RGB"), int)
        for name in ("deepcache-interval-3", "ungated")
    )
    for steps, factor in ((0, 4), (2, 16)):
        one(page, "#gain").send_keys(Keys.ARROW_RIGHT * steps)
        until(page, lambda d, f=factor: one(d, "#gain-shown").text.startswith(str(f)))
        drawn = page.execute_async_script(
            "const done = arguments[0], canvas = document.getElementById('difference');"
            "setTimeout(() => done([...canvas.getContext('2d')"
            ".getImageData(0, 0, canvas.width, canvas.height).data]), 300)"
        )
        map_ = np.array(drawn).reshape(32, 32, 4)[..., :3]
        assert map_.any()
        assert (map_ == (factor * np.abs(ours - theirs)).clip(0, 255)).all()


def test_a_picture_compared_with_itself_is_said_to_be_identical(page: Any) -> None:
    """The map is black, and words say why."""
    compare(page, "ungated")
    assert one(page, "#compare-words").text == "Identical to the ungated picture."


def test_the_comparison_walks_over_methods_and_prompts(page: Any) -> None:
    """Buttons, against the ungated or the converged picture."""
    compare(page, "ungated")
    assert not one(page, '[data-go="up"]').is_enabled()
    one(page, '[data-go="down"]').click()
    assert one(page, "#compare-prompt").text == f"{folder.PROMPTS[1]} (seed 0)"
    one(page, '[data-go="right"]').click()
    assert one(page, "#compare-title").text != "ungated"
    Select(one(page, "#compare-with")).select_by_value("converged")
    until(page, lambda d: "from the converged picture" in one(d, "#compare-words").text)
    assert chromium.complaints(page) == []


def rows(page: Any) -> list[list[tuple[str, str]]]:
    """Class and label of the first table's rows, by group."""
    return page.execute_script(
        "return [...document.querySelector('table.methods').tBodies].map(b => [...b.rows]"
        ".filter(r => r.dataset.label).map(r => [r.className, r.dataset.label]))"
    )


def test_sorting_never_parts_a_method_from_the_row_to_beat(page: Any) -> None:
    """Either way round, each group ends in its rival; what did not run stays at the bottom."""
    button = one(page, "table.methods button[data-better='more'][data-column='6']")
    before, orders = rows(page), []
    for direction in ("descending", "ascending"):
        click(page, button)
        assert (
            one(page, "table.methods th[aria-sort]:nth-child(7)").get_attribute("aria-sort")
            == direction
        )
        orders.append(rows(page))
    assert orders[0] != orders[1] != before
    for order in orders:
        assert sorted(map(sorted, order)) == sorted(map(sorted, before))
        middle = order[1:-1]
        assert [[c for c, _ in group].index("rival") for group in middle] == [
            len(group) - 1 for group in middle
        ]
        assert [label for _, label in order[-1]] == ["magcache", "cache_dit"]
    assert orders[0][1][0][1] == "ours policy=interleave"


def test_switches_hide_methods_and_never_the_row_to_beat(page: Any) -> None:
    """In the table, in the grid and in the charts."""
    traces = "return document.querySelector('.chart').data.map(t => t.name)"
    for box in many(page, "[data-show]"):
        click(page, box)
    shown = [r for r in many(page, "table.methods tbody tr[data-part]") if r.is_displayed()]
    assert {r.get_attribute("data-part") for r in shown} == {"baseline"}
    assert set(page.execute_script(traces)) == {"fewer steps"}
    tiles = [t for t in many(page, ".tile") if t.is_displayed()]
    assert {t.get_attribute("data-label").split()[0] for t in tiles} == {
        "ungated",
        "converged",
        "steps",
    }


def test_a_chart_changes_its_measure(page: Any) -> None:
    """Both charts of a model, and only of that model."""
    titles = (
        "return [...document.querySelectorAll('[data-chart=pareto]')]"
        ".map(c => c.layout.yaxis.title.text)"
    )
    select = Select(one(page, "select[data-pareto]"))
    select.select_by_value("ungated.ssim")
    assert page.execute_script(titles) == [
        *["SSIM to the ungated picture"] * 2,
        *["PSNR to the converged picture, dB"] * 2,
    ]
    ungated = "return document.querySelector('.chart').data[0].hovertext.at(-1)"
    assert page.execute_script(ungated).startswith("<b>ungated</b>")


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_window_light_and_dark(path: Path, width: int, dark: bool) -> None:
    """Only tables scroll sideways; the paper is as bright as was asked, and is written on."""
    with chromium.browser(width, dark=dark) as driver:
        driver.get(path.as_uri())
        until(driver, lambda d: len(many(d, ".chart .main-svg")) >= 6)
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        shot = pixels(driver)
        assert wide == width
        assert shot.shape[1] == width
        assert (np.median(shot) < 60) == dark
        assert shot.std() > 5
        compare(driver)
        dialog = one(driver, "#compare").rect
        assert dialog["width"] <= width
        assert chromium.complaints(driver) == []
