"""Bytes and seconds in words, for estimates: rounded so that nobody takes them for measurements."""

from __future__ import annotations


def as_size(n_bytes: float) -> str:
    """Return bytes, such as ``"23 MB"``."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    for unit, one in (("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= one:
            return f"{n_bytes / one:.0f} {unit}"
    return f"{n_bytes:.0f} B"


def as_time(seconds: float) -> str:
    """Return a time, such as ``"5 min"``."""
    for unit, one in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * one:
            return f"{seconds / one:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"
