"""Small tables of text: numbers in few characters, cells of several lines, as plain text, Markdown or HTML."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from nsdbench.plaintext import visible

ARROWS = {"higher": "↑", "lower": "↓"}
WIDTH = 110
NONE = "\N{EN DASH}"
_BOLD, _DIM, _OFF = "\033[1m", "\033[2m", "\033[0m"

Row = tuple[str, ...]  # one cell per column; a cell may hold several lines


@dataclass(frozen=True)
class Band:
    """Rows that belong together, set apart from others by a rule and perhaps a caption."""

    rows: tuple[Row, ...]
    caption: str = ""


@dataclass(frozen=True)
class Grid:
    """A titled table."""

    title: str
    header: Row
    bands: tuple[Band, ...]
    notes: tuple[str, ...] = ()


def number(value: float | None, digits: int = 3) -> str:
    """Format a score in few characters: ``.674``, ``-.036``, ``1.00``, ``64.9``, ``–`` for None.

    Examples
    --------
    >>> number(0.6741), number(-0.0356), number(1.0), number(None)
    ('.674', '-.036', '1.00', '–')
    """
    if value is None:
        return NONE
    if abs(value) >= 10:
        return f"{value:.{max(digits - 2, 0)}f}"
    text = f"{value:.{digits}f}"
    whole, _, decimals = text.lstrip("-").partition(".")
    sign = "-" if value < 0 and float(text) != 0 else ""
    return f"{sign}.{decimals}" if whole == "0" else f"{sign}{whole}.{decimals[:-1]}"


def interval(low: float | None, high: float | None) -> str:
    """Format confidence limits with two digits: ``[.61,.73]``; empty where there are none."""
    return "" if low is None or high is None else f"[{number(low, 2)},{number(high, 2)}]"


def p_value(p: float) -> str:
    """Format a p-value with three digits: ``.024``, ``<.001``."""
    return number(p) if p >= 0.001 else "<.001"


def header_cell(metric: str, direction: str, width: int = 10) -> str:
    """Return a metric's name with its arrow, broken at an underscore if it is longer than ``width``."""
    name = f"{metric} {ARROWS[direction]}"
    if len(name) <= width:
        return name
    parts, lines = metric.split("_"), [""]
    for part in parts:
        joined = f"{lines[-1]}_{part}" if lines[-1] else part
        if len(joined) > width and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join([*lines[:-1], f"{lines[-1]} {ARROWS[direction]}"])


def text(grid: Grid, *, styled: bool = False) -> str:
    """Render for a terminal: first column left, the others right aligned, bold title, dim second lines.

    Parameters
    ----------
    styled : bool
        Whether to use the terminal's bold and dim; leave it off for files and pipes.
    """
    rows = [grid.header, *(row for band in grid.bands for row in band.rows)]
    widths = [max(len(line) for row in rows for line in row[i].split("\n")) for i in range(len(grid.header))]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    bold, dim, off = (_BOLD, _DIM, _OFF) if styled else ("", "", "")
    lines = [*(f"{bold}{line}{off}" for line in wrap(grid.title)), *_row_lines(grid.header, widths)]
    for band in grid.bands:
        lines.append(rule)
        if band.caption:
            lines += [f"{dim}{line}{off}" for line in wrap(band.caption)]
        for row in band.rows:
            first, *rest = _row_lines(row, widths)
            lines += [first, *(f"{dim}{line}{off}" for line in rest)]
    return (
        "\n".join([*lines, rule, *(f"{dim}{line}{off}" for note in grid.notes for line in wrap(note))]) + "\n"
    )


def _row_lines(row: Row, widths: Sequence[int]) -> list[str]:
    cells = [cell.split("\n") for cell in row]
    lines = []
    for parts in zip_longest(*cells, fillvalue=""):
        padded = [
            parts[0].ljust(widths[0]),
            *(p.rjust(w) for p, w in zip(parts[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def wrap(note: str) -> list[str]:
    """Break a sentence into lines of a terminal's width; what would steer the terminal is spelled out."""
    return textwrap.wrap(visible(note, one_line=True), WIDTH)


def markdown(grid: Grid, *, level: int = 2) -> str:
    """Render as a Markdown table under a heading of ``level``; lines of a cell are joined by spaces."""
    out = [f"{'#' * level} {_plain(grid.title)}", ""]
    for band in grid.bands:
        if band.caption:
            out += [f"*{_plain(band.caption)}*", ""]
        out.append(_pipes(grid.header))
        out.append("|" + " --- |" + " ---: |" * (len(grid.header) - 1))
        out += [*map(_pipes, band.rows), ""]
    out += [line for note in grid.notes for line in (_plain(note), "")]
    return "\n".join(out)


def _pipes(row: Row) -> str:
    return "| " + " | ".join(_plain(" ".join(cell.split())).replace("|", "\\|") for cell in row) + " |"


def _plain(text: str) -> str:
    """Keep names from being taken for HTML, links or pictures; arrows like ``gap > 0`` need no escape."""
    text = visible(text, one_line=True)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(").replace("][", "]\\[")


def html_table(grid: Grid) -> str:
    """Render as an HTML section with one table."""
    head = "".join(f"<th>{_breaks(cell)}</th>" for cell in grid.header)
    body = []
    for band in grid.bands:
        caption = ""
        if band.caption:
            caption = (
                f'<tr class="caption"><td colspan="{len(grid.header)}">{html.escape(band.caption)}</td></tr>'
            )
        rows = "".join(
            "<tr>" + "".join(f"<td>{_breaks(c)}</td>" for c in row) + "</tr>\n" for row in band.rows
        )
        body.append(f"<tbody>{caption}\n{rows}</tbody>\n")
    notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in grid.notes)
    title = html.escape(grid.title)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n{''.join(body)}</table>"
    return f'<section>\n<h2>{title}</h2>\n<div class="wide">\n{table}\n</div>\n{notes}</section>\n'


def _breaks(cell: str) -> str:
    return "<br>".join(html.escape(line) for line in cell.split("\n"))


def text_page(
    grids: Iterable[Grid], conclusions: Sequence[str], notes: Sequence[str], *, styled: bool = False
) -> str:
    """Render tables, then what follows from them, then the notes, for a terminal."""
    bold, dim, off = (_BOLD, _DIM, _OFF) if styled else ("", "", "")
    said = [
        line
        for sentence in conclusions
        for line in textwrap.wrap(visible(f"- {sentence}", one_line=True), WIDTH, subsequent_indent="  ")
    ]
    parts = [text(grid, styled=styled) for grid in grids]
    if said:
        parts.append("\n".join([f"{bold}CONCLUSIONS{off}", *said]) + "\n")
    parts.append("".join(f"{dim}{line}{off}\n" for note in notes for line in wrap(note)))
    return "\n".join(parts)


def markdown_page(grids: Iterable[Grid], conclusions: Sequence[str], notes: Sequence[str]) -> str:
    """Render conclusions, tables and notes as Markdown."""
    said = (
        ["## Conclusions", "", *(f"- {_plain(sentence)}" for sentence in conclusions), ""]
        if conclusions
        else []
    )
    listed = ["## Notes", "", *(f"- {_plain(note)}" for note in notes), ""]
    return "\n".join([*said, *map(markdown, grids), *listed])


def html_page(title: str, grids: Iterable[Grid], conclusions: Sequence[str], notes: Sequence[str]) -> str:
    """Render a self-contained HTML page: conclusions, tables, notes."""
    said = "".join(f"<li>{html.escape(sentence)}</li>\n" for sentence in conclusions)
    first = f"<section>\n<h2>Conclusions</h2>\n<ul>\n{said}</ul>\n</section>\n" if said else ""
    sections = "".join(html_table(grid) for grid in grids)
    footer = "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{_VIEWPORT}<title>{name}</title>\n'
        f"<style>\n{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n{first}{sections}{footer}</body>\n</html>\n"
    )


_VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
_STYLE = """body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.15rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
tbody { border-top: 1px solid #999; }
.caption td { color: #555; text-align: left; }
p { color: #444; margin: .3rem 0; }
"""
