"""Which model has which name, colour and marker, the same everywhere on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nsdbench.comparison.blocks import FLOORS, Line
from nsdbench.report.svg import MUTED, SERIES

Record = Mapping[str, Any]
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "*")
_FLOOR_MARKERS = ("+", "x")
_LONGEST = 18


@dataclass(frozen=True)
class Series:
    """How one model is shown.

    Attributes
    ----------
    name : str
        Model id, with its preset where the page shows several presets of the model.
    colour : str
        One of :mod:`nsdbench.report.svg`.
    marker : str
        Marker of matplotlib.
    is_floor : bool
        Whether it decodes nothing.
    """

    name: str
    colour: str
    marker: str
    is_floor: bool

    @property
    def short(self) -> str:
        """The name, cut to what fits beside an axis."""
        return self.name if len(self.name) <= _LONGEST else f"{self.name[: _LONGEST - 1]}…"


class Palette:
    """Gives every model of a page its :class:`Series`: twelve colours, and other markers in every round of them.

    Attributes
    ----------
    series : dict
        By name.
    """

    def __init__(self, rows: Iterable[Record]) -> None:
        rows = list(rows)
        presets: dict[str, set[str]] = {}
        for row in rows:
            if row["status"] != "published":
                presets.setdefault(row["model"], set()).add(row["preset"])
        self._several = {model for model, found in presets.items() if len(found) > 1}
        # models with results of the reader's own first: they get the colours that differ most
        names = dict.fromkeys(self.name(row) for row in sorted(rows, key=_order))
        floors = {self.name(row) for row in rows if row["model"] in FLOORS}
        self.series = {
            name: Series(name, MUTED, _FLOOR_MARKERS[i % 2], is_floor=True)
            for i, name in enumerate(sorted(floors))
        }
        for i, name in enumerate(name for name in names if name not in floors):
            # the next round of colours has other markers
            marker = MARKERS[(i + i // len(SERIES)) % len(MARKERS)]
            self.series[name] = Series(name, SERIES[i % len(SERIES)], marker, is_floor=False)

    def name(self, row: Record) -> str:
        """Return the name under which a row's model is shown."""
        several = row["status"] != "published" and row["model"] in self._several
        return f"{row['model']} {row['preset']}" if several else str(row["model"])

    def of(self, line: Line) -> Series:
        """Return how the model of a line is shown."""
        return self.series[self.name(line.first)]


def _order(row: Record) -> tuple[bool, str, str]:
    return row["status"] == "published", row["model"], row["preset"]
