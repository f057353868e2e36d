"""A report on results that were made to harm, in a real browser: no script runs, nothing opens, nothing is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hostile_cases import IDS, score
from own_process import OwnProcesses
from PIL import Image

from nsdbench import leaderboard

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"), pytest.mark.slow]

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</title></style></textarea><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "![x](http://127.0.0.1:9/x.png)",
    "<meta http-equiv=refresh content=0;url=http://127.0.0.1:9/>",
    "<base href=http://127.0.0.1:9/>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "x" * 5000,
)
ALL = " ".join(ATTACKS)


@pytest.fixture(scope="module")
def page_file(processes: OwnProcesses, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose ids, notes, names, sources and versions are all attacks."""
    ground = tmp_path_factory.mktemp("page")
    names = [name.replace("/", "|")[:60] for name in ATTACKS]  # a file name has no slash
    rng = np.random.default_rng(0)
    (ground / "t").mkdir()
    for name in (*IDS, *names):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(ground / "t" / f"{name}.png")
    made = processes.run(score("t"), ground)
    assert made.code == 0, made.err
    path = next((ground / "runs").rglob("run.json"))
    document = json.loads(path.read_text())
    document["notes"] = [*ATTACKS, "\x1b]0;title\x07\u202eevil"]
    document["provenance"] |= {"source": ALL, "beta_version": ALL, "git_commit": ALL}
    document["environment"] = {"libraries": {ALL: ALL}, "python": ALL, "platform": ALL}
    document["config"] |= {"device": ALL, "paper": ALL, "dataset_root": "t"}
    path.write_text(json.dumps(document))
    rows = leaderboard.read(path.parent)
    for column in ("model", "preset", "dataset", "protocol_key", "source"):
        rows = rows.set_column(rows.schema.get_field_index(column), column, pa.array([ALL] * len(rows)))
    leaderboard.write(ground / "names.parquet", rows)
    made = processes.run(("report", "runs", "names.parquet", "--out", "page", "--data-dir", "t"), ground)
    assert made.code == 0, made.err
    return ground / "page" / "index.html"


@pytest.fixture(scope="module")
def events(page_file: Path) -> Iterator[tuple[Any, list[str]]]:
    """The page in a browser, and everything that happened there."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"])
        page = browser.new_page()
        found: list[str] = []
        page.on("dialog", lambda dialog: (found.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: found.append(f"console: {message.text[:200]}"))
        page.on("pageerror", lambda error: found.append(f"error: {error}"))
        page.on("popup", lambda popup: found.append(f"popup: {popup.url}"))
        address = page_file.as_uri()
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("data:", address)) else found.append(f"asked: {asked.url[:80]}")
            ),
        )
        page.goto(address)
        for details in page.locator("details").all():
            details.evaluate("node => node.open = true")
        page.wait_for_timeout(500)
        yield page, found
        browser.close()


def test_no_script_runs_and_nothing_is_asked_for(events: tuple[Any, list[str]], page_file: Path) -> None:
    page, found = events
    assert found == []
    assert page.url == page_file.as_uri()


def test_the_page_has_no_element_that_somebody_else_wrote(events: tuple[Any, list[str]]) -> None:
    page, _ = events
    assert (
        page.evaluate(
            "document.querySelectorAll('script, base, iframe, object, embed, form, a[href^=javascript]').length"
        )
        == 0
    )
    handlers = "[...document.querySelectorAll('*')].flatMap(n => n.getAttributeNames()).filter(n => n.startsWith('on'))"
    assert page.evaluate(handlers) == []
    sources = page.evaluate("[...document.images].map(i => i.src.slice(0, 11))")
    assert sources
    assert set(sources) == {"data:image/"}


def test_the_attacks_are_shown_as_text(events: tuple[Any, list[str]]) -> None:
    page, _ = events
    text = page.evaluate("document.body.textContent")
    for attack in ATTACKS[:5]:
        assert attack in text
