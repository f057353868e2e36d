"""Checks of a run for spurious reconstruction: what its score says about images, beyond categories and retrieval."""

from __future__ import annotations

from nsdbench.inspection.results import FILENAME, Check, Inspection, read_checks

__all__ = ["FILENAME", "Check", "Inspection", "read_checks"]
