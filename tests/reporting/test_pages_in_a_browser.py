"""The pages in a real browser: they open from the disk, fit a phone and can be read in the dark."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ssd_lightning.reporting.comparison import write_comparison
from ssd_lightning.reporting.page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

MakeRun = Callable[..., Path]

CONTRAST = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = rgb => rgb.slice(0, 3).map(value => value / 255)
    .map(value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [.2126, .7152, .0722][index], 0);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  const mixed = (top, share, below) => top.map((value, index) => value * share + below[index] * (1 - share));
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || element.tagName === 'title' || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    let behind = ground(element);
    const {left, right, top, bottom} = element.getBoundingClientRect();
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    for (const shape of element.matches('text') ? element.ownerSVGElement.querySelectorAll('path') : []) {
      const [box, {fill, opacity}] = [shape.getBoundingClientRect(), getComputedStyle(shape)];
      if (fill !== 'none' && box.left < x && x < box.right && box.top < y && y < box.bottom)
        behind = mixed(channels(fill), Number(opacity), behind);
    }
    const [low, high] = [luminance(channels(element.matches('text') ? style.fill : style.color)), luminance(behind)]
      .sort((one, other) => one - other);
    found.push([(high + .05) / (low + .05), `${element.tagName} ${element.className.baseVal ?? element.className}: `
      + element.textContent.slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def pages(make_run_in: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run, that of one that lacks most, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    make_run = partial(make_run_in, folder)
    runs = [
        make_run("a0", splits=("val", "test")),
        make_run("a1", seed=1, shift=0.1),
        make_run("b", lr=0.2, shift=-0.1),
    ]
    poor = make_run("poor", without=("val", "checkpoint", "result.json"), splits=())
    return {
        "run": write_report(runs[0]),
        "poor": write_report(poor),
        "comparison": write_comparison(runs, folder / "comparison.html"),
    }


def open_page(page: "Page", path: Path, *, width: int = 1280, scheme: str = "light") -> None:
    page.set_viewport_size({"width": width, "height": 850})
    page.emulate_media(color_scheme=scheme)
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_load_state()
    assert messages == []  # such as what the page's own policy refuses


@pytest.mark.parametrize("name", ["run", "poor", "comparison"])
def test_the_pages_open_and_show_all_they_have(page: "Page", pages: dict[str, Path], name: str) -> None:
    open_page(page, pages[name])
    assert page.locator("main > section").count() >= {"run": 7, "poor": 3, "comparison": 6}[name]
    for section in page.locator("main > section").all():
        assert section.bounding_box()["height"] > 40
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert len(sizes) >= {"run": 30, "poor": 4, "comparison": 6}[name]
    assert all(width > 100 and height > 20 for width, height in sizes)
    if name == "run":
        loaded = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
        assert len(loaded) == 24
        assert all(loaded)
        page.locator("nav a", has_text="Priors").click()
        assert abs(page.locator("#priors").bounding_box()["y"]) < 60
        assert page.locator("#configuration pre").is_hidden()
        page.locator("#configuration summary").click()
        assert page.locator("#configuration pre").is_visible()


@pytest.mark.parametrize("name", ["run", "poor", "comparison"])
def test_the_pages_fit_a_phone(page: "Page", pages: dict[str, Path], name: str) -> None:
    open_page(page, pages[name], width=390)
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true }")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "poor", "comparison"])
def test_all_text_has_contrast(page: "Page", pages: dict[str, Path], name: str, scheme: str) -> None:
    open_page(page, pages[name], scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground) < 40) if scheme == "dark" else (min(ground) > 235)
    found = page.evaluate(CONTRAST)
    assert len(found) > 50
    assert [what for ratio, what in found if ratio < 4.5] == []


def test_text_in_charts_can_be_selected_and_wide_tables_scroll_inside(page: "Page", pages: dict[str, Path]) -> None:
    open_page(page, pages["comparison"], width=390)
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).userSelect") != "none"
    table = page.locator("#scores .scroll").first
    assert table.evaluate("element => element.scrollWidth > element.clientWidth")
    table.evaluate("element => { element.scrollLeft = 9999 }")
    assert table.evaluate("element => element.scrollLeft") > 0


def test_paper_has_no_contents_and_no_dark_ground(page: "Page", pages: dict[str, Path]) -> None:
    open_page(page, pages["run"], scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(30, 34, 38)"


def test_a_live_page_is_loaded_again_from_the_disk(page: "Page", pages: dict[str, Path], tmp_path: Path) -> None:
    run_dir, live = pages["run"].parent, tmp_path / "live.html"
    open_page(page, write_report(run_dir, live, refresh_s=1))
    assert page.get_by_text("Training run, live").is_visible()
    write_report(run_dir, live)
    page.get_by_text("Training run", exact=True).wait_for(timeout=20_000)
