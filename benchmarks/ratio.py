"""One measured ratio: what every benchmark offers and ``benchmarks/all.py`` collects."""

from __future__ import annotations

import operator
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """One figure, with the sentence that says what it is.

    Parameters
    ----------
    name : str
        Short and unique among all benchmarks.
    definition : str
        What is divided by what, or what is measured, in one sentence.
    value : float
        The figure, in ``unit``.
    unit : str
        ``"x"``, ``"s"``, ``"GB"`` or ``"%"``.
    target : str
        What it should reach, such as ``">= 3.5"``; empty where there is no target.
    note : str
        Sizes, differences, what was extrapolated and how.
    """

    name: str
    definition: str
    value: float
    unit: str = "x"
    target: str = ""
    note: str = ""

    @property
    def figure(self) -> str:
        """The value in three digits, with its unit."""
        digits = f"{self.value:.0f}" if abs(self.value) >= 100 else f"{self.value:.3g}"
        return f"{digits} {self.unit}"

    @property
    def met(self) -> bool:
        """Whether the value reaches the target; True where there is none."""
        if not self.target:
            return True
        sign, _, bound = self.target.partition(" ")
        reaches = {">=": operator.ge, "<=": operator.le}[sign]
        return bool(reaches(self.value, float(bound)))

    def __str__(self) -> str:
        target = f" (target {self.target}{'' if self.met else ', MISSED'})" if self.target else ""
        return f"{self.name}: {self.figure}{target}\n    {self.definition}\n    {self.note}"
