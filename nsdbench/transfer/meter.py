"""Progress in bytes."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """What watches a transfer. Its methods are called from several threads."""

    def expect(self, n_bytes: int) -> None:
        """So many more bytes are to come."""

    def advance(self, n_bytes: int) -> None:
        """So many bytes have arrived; negative where bytes are thrown away."""


class _Silent:
    def expect(self, n_bytes: int) -> None:
        pass

    def advance(self, n_bytes: int) -> None:
        pass


SILENT: Meter = _Silent()
