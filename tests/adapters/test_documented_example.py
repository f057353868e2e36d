"""The decoder in docs/adapters.md works as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Folder that holds the file of the first code block, under the name it gives itself."""
    block = re.search(r"```python\n# (\S+\.py)\n(.*?)```", (DOCS / "adapters.md").read_text(), re.DOTALL)
    assert block
    (tmp_path / block[1]).write_text(block[2])
    return tmp_path


def nsdbench(*args: str | Path, folder: Path) -> dict[str, list[dict[str, object]]]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "nsdbench", *map(str, args), "--json"],  # -P: like the installed command
        capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_documented_decoder_passes_every_check(example: Path, sim_cache: Path) -> None:
    found = nsdbench("check-adapter", "my_decoder:NearestImage", "--cache", sim_cache, folder=example)
    assert {check["outcome"] for check in found["checks"]} == {"passed"}


def test_the_documented_decoder_can_be_run(example: Path, tiny_root: Path, sim_cache: Path) -> None:
    found = nsdbench(
        "run", "--model", "my_decoder:NearestImage", "--subject", "1", "--samples", "2", "--data-dir", tiny_root,
        "--cache", sim_cache, "--out", example / "runs", "--metrics", "pixcorr", folder=example,
    )  # fmt: skip
    assert {(row["model"], row["split"]) for row in found["rows"]} == {
        ("nearest_image", "vision"),
        ("nearest_image", "imagery"),
    }
