"""Text that others wrote, made harmless for terminals and tables."""

from __future__ import annotations


def visible(text: str, *, one_line: bool = False) -> str:
    """Return ``text`` with control characters spelled out: names of files may hold what steers a terminal.

    Parameters
    ----------
    one_line : bool
        Spell out line breaks, too, so that no text can pretend to be two.
    """
    kept = "" if one_line else "\n"
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)
