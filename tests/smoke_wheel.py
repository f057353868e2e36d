"""Install the built wheel into an empty environment and use it there (run by ``make wheel``)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NEEDED = (
    "nsdbench/cli/__init__.py",
    "nsdbench/adapters/ridge.py",
    "nsdbench/metrics/registry.py",
    "nsdbench/metrics/nets/__init__.py",
    "nsdbench/data/facts/runs.csv",
    "nsdbench/report/templates/page.html",
    "nsdbench/py.typed",
)


def main() -> None:
    """Check the content of the wheel, install it with its declared dependencies, run the tiny benchmark."""
    (wheel,) = (REPOSITORY / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    missing = [name for name in NEEDED if name not in names]
    strays = [name for name in names if name.startswith(("tests/", "adapters/", "metrics/"))]
    if missing or strays:
        sys.exit(f"wheel lacks {missing} or holds {strays}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        venv.create(scratch / "env", with_pip=True)
        python = scratch / "env" / "bin" / "python"
        constraints = REPOSITORY / "requirements.lock"
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, wheel]
        subprocess.run(install, check=True, cwd=scratch)
        command = scratch / "env" / "bin" / "nsdbench"

        def run(*args: str) -> str:
            done = subprocess.run([command, *args], check=True, cwd=scratch, capture_output=True, text=True)
            return done.stdout

        run("--help")
        run("models")
        tiny = ["--dataset", "sim:tiny", "--subject", "1", "--cache", "cache", "--out", "runs", "--json"]
        rows = json.loads(run("run", "--model", "ridge,mean_image", "--split", "both", *tiny))["rows"]
        if {(row["split"], row["status"]) for row in rows} != {
            ("vision", "simulated"),
            ("imagery", "simulated"),
        }:
            sys.exit("the installed wheel did not produce simulated rows for both splits")
        run("compare", "runs")
        run("inspect", "runs", "--cache", "cache")
        page = Path(scratch / run("report", "runs", "--out", "page").strip())
        if "<svg" not in page.read_text(encoding="utf-8"):
            sys.exit("the installed wheel wrote a report without plots")
        run("compare", "--published", "--format", "markdown")
        run("doctor", "--json", "--cache", "cache", "--weights-dir", "weights")
        run("weights", "list", "--model", "mindeye2", "--weights-dir", "weights")
        run("data", "fetch", "--data-dir", "nsd", "--subject", "1", "--plan", "--offline")
    print(f"{wheel.name}: installed and ran in an empty environment ({len(rows)} rows)")


if __name__ == "__main__":
    main()
