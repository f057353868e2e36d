"""Regenerate the committed simulated baseline from the runs of ``make demo`` (run by ``make baseline``)."""

from __future__ import annotations

import sys
from pathlib import Path

from nsdbench import leaderboard
from nsdbench.check import save_baseline
from nsdbench.compare import twin

LEADERBOARDS = Path(__file__).resolve().parent.parent / "leaderboards"


def main(runs: Path) -> None:
    """Merge the item scores and leaderboard rows below ``runs`` into ``leaderboards/sim_*``."""
    n_items = save_baseline([runs], LEADERBOARDS / "sim_items.parquet")
    for split in ("vision", "imagery"):
        table = leaderboard.read(runs / "leaderboard" / split)
        leaderboard.write(LEADERBOARDS / f"sim_{split}.parquet", table)
        document = twin(table, title=f"Simulated baseline, {split}: not brain data")
        (LEADERBOARDS / f"sim_{split}.md").write_text(document, encoding="utf-8")
    print(f"sim_items.parquet: {n_items} item scores")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
