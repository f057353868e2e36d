"""Put the comparison that ``make demo`` prints into the README, between its two markers (run by ``make baseline``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- demo:begin -->\n", "<!-- demo:end -->\n"


def main(runs: str) -> None:
    """Replace the tables by what ``nsdbench compare`` says about ``runs`` now."""
    command = [sys.executable, "-m", "nsdbench", "compare", runs]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip()
    table = "\n\n".join(part for part in printed.split("\n\n") if _is_shown(part))
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}```\n{table}\n```\n{END}{after}", encoding="utf-8")


def _is_shown(part: str) -> bool:
    """Keep the image metrics among all targets, and the conclusions; the rest would fill pages."""
    title = part.partition("\n")[0]
    return part.startswith("CONCLUSIONS") or ("pool AB12" in title and "retrieval" not in part)


if __name__ == "__main__":
    main(sys.argv[1])
