"""The page in a real browser: it fits, it is whole, it asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nsdbench import leaderboard, report
from nsdbench.report import Choice

MakeRun = Callable[..., Path]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
LONG = "a_model_with_a_name_" * 4 + "x" * 40


@pytest.fixture(scope="module")
def page_file(make_run: MakeRun, target_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything: pictures, several subjects, published results, very long names."""
    root = tmp_path_factory.mktemp("browser")
    for model in ("ridge", "icnn", "random_image"):
        for split in ("vision", "imagery"):
            for subject in (1, 2):
                make_run(
                    root / "runs", model, split=split, subject=subject, dataset="target-folder",
                    notes=[LONG * 3], environment={"libraries": {LONG: "1"}},
                )  # fmt: skip
    rows = leaderboard.read(sorted(file.parent for file in (root / "runs").rglob("run.json")))
    place = rows.schema.get_field_index("model")
    leaderboard.write(root / "long.parquet", rows.set_column(place, "model", pa.array([LONG] * len(rows))))
    made = report.write(
        [root / "runs", root / "long.parquet"],
        root / "out",
        published=True,
        choice=Choice(data_dir=target_folder),
    )
    return made.path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--disable-background-networking", "--disable-gpu"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.fixture(
    scope="module", params=[(1280, "light"), (390, "light"), (1280, "dark"), (390, "dark")], ids=str
)
def opened(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[tuple[Any, list[str]]]:
    """The page in a window of some width and scheme, and all that the browser had to say about it."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    events: list[str] = []
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("requestfailed", lambda asked: events.append(f"failed: {asked.url[:80]}"))
    address = page_file.as_uri()
    page.on(
        "request",
        lambda asked: events.append(f"asked: {asked.url[:80]}") if _leaves(asked.url, address) else None,
    )
    page.goto(address)
    for details in page.locator("details").all():  # what is folded must fit too
        details.evaluate("node => node.open = true")
    yield page, events
    context.close()


def _leaves(url: str, address: str) -> bool:
    return url != address and not url.startswith("data:")


def test_nothing_is_wider_than_the_window(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]


def test_the_browser_neither_complains_nor_asks_for_anything(opened: tuple[Any, list[str]]) -> None:
    page, events = opened
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    assert events == []


def test_every_picture_is_there_and_described(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    page.evaluate("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode(); }))")
    images = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
    assert len(images) > 100
    assert all(width > 0 and alt for width, alt in images)


def test_every_plot_is_drawn_and_described(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    plots = page.evaluate(
        "[...document.querySelectorAll('svg')].map(s => "
        "[s.getAttribute('role'), s.getAttribute('aria-label'), s.getBoundingClientRect().width])"
    )
    assert len(plots) > 30
    assert all(role == "img" and label and width > 10 for role, label, width in plots)


def test_text_of_plots_stays_inside_them(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    outside = page.evaluate(
        """[...document.querySelectorAll('svg.plot text')].filter(t => {
            const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
            return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2;
        }).map(t => t.textContent)"""
    )
    assert outside == []


def test_text_stands_out_from_its_background(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    poor = page.evaluate(
        """() => {
            const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
                .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                return .2126 * r + .7152 * g + .0722 * b; };
            const ground = n => { for (; n; n = n.parentElement) { const c = getComputedStyle(n).backgroundColor;
                if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
            const found = new Set();
            for (const n of document.querySelectorAll('p, li, th, td, a, figcaption, summary, dt, dd, svg text')) {
                const ink = light(getComputedStyle(n)[n.closest('svg') ? 'fill' : 'color']), paper = light(ground(n));
                const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
                if (ratio < 4.5) found.add(n.tagName + ' ' + n.className + ' ' + ratio.toFixed(2));
            }
            return [...found];
        }"""
    )
    assert poor == []
