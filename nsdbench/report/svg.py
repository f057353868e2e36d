"""Figures as SVG inside an HTML page: colours of the page's theme, ids of their own, nothing a browser must fetch."""

from __future__ import annotations

import contextlib
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

# What is drawn in one of these colours follows the CSS variable of the page, so that it suits light and dark.
INK, MUTED, FAINT, PAPER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "ink", MUTED: "muted", FAINT: "faint", PAPER: "paper"}
SERIES = tuple(f"#0501{index:02x}" for index in range(12))
"""Colours of the page's variables ``--s0`` ... ``--s11``."""
_VARIABLES |= {colour: f"s{index}" for index, colour in enumerate(SERIES)}

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the reader's font
    "svg.hashsalt": "nsdbench",
    "text.parse_math": False,
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}
_TIP = "tip:"
_NUMBER = re.compile(r"-?\d+\.\d+")
_FONT = re.compile(r"font-family:[^;]*;?\s*")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"url\(#([^)]*)\)")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw figures in the page's style, whatever the user's own settings of matplotlib are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def tip(index: int) -> str:
    """Return the ``gid`` of an artist that shows the text ``index`` of :func:`inline` when pointed at."""
    return f"{_TIP}{index}"


def inline(figure: Figure, *, name: str, label: str, tips: tuple[str, ...] = ()) -> Markup:
    """Return a figure as an ``<svg>`` element to stand in an HTML page.

    Parameters
    ----------
    figure : Figure
        Drawn within :func:`style`; one point becomes one CSS pixel.
    name : str
        Letters, digits and hyphens, unique in the page: all ids begin with it.
    label : str
        What the figure shows, with its numbers, for those who do not see it.
    tips : tuple of str
        Texts for artists whose ``gid`` is :func:`tip` of their index.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    used = _references(root)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        _clean(element, name, used, tips)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib = {
        "class": "plot",
        "role": "img",
        "aria-label": label,
        "viewBox": root.attrib["viewBox"],
        "width": f"{float(width):g}",
        "height": f"{float(height):g}",
    }
    # ElementTree escapes whatever texts and attributes hold
    return Markup(ET.tostring(root, encoding="unicode"))


def _references(root: ET.Element) -> frozenset[str]:
    values = [(key, value) for element in root.iter() for key, value in element.attrib.items()]
    direct = {value.removeprefix("#") for key, value in values if key.endswith("href")}
    return frozenset(direct | {found for _, value in values for found in _REFERENCE.findall(value)})


def _clean(element: ET.Element, name: str, used: frozenset[str], tips: tuple[str, ...]) -> None:
    """Rename ids, theme colours, shorten numbers; turn a marked group into one with a tip."""
    attributes = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value.startswith(_TIP):
                title = ET.Element("title")
                title.text = tips[int(value.removeprefix(_TIP))]
                element.insert(0, title)
            if value not in used:
                continue
            value = f"{name}-{value}"
        elif key == "href":
            value = f"#{name}-{value.removeprefix('#')}"
        elif key == "style":
            value = _COLOUR.sub(_variable, _FONT.sub("", value)).strip()
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        elif key in ("d", "x", "y", "width", "height", "transform"):
            value = _NUMBER.sub(_shorter, " ".join(value.split()))
        attributes[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    element.attrib = attributes
    if element.tag not in ("text", "tspan", "title"):
        element.text = None
    element.tail = None


def _variable(colour: re.Match[str]) -> str:
    known = _VARIABLES.get(colour.group())
    return f"var(--{known})" if known else colour.group()


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")
