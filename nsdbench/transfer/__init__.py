"""Files over HTTP: in ranges, in parallel, continued where they stopped, and checked before they get their name."""

from __future__ import annotations

from nsdbench.transfer.client import Client, Remote
from nsdbench.transfer.files import Fetched, Job, fetch
from nsdbench.transfer.journal import arrived
from nsdbench.transfer.many import fetch_all
from nsdbench.transfer.meter import SILENT, Meter
from nsdbench.transfer.proof import Proof, Verified
from nsdbench.transfer.room import require_room
from nsdbench.transfer.workers import ask_all

__all__ = [
    "SILENT",
    "Client",
    "Fetched",
    "Job",
    "Meter",
    "Proof",
    "Remote",
    "Verified",
    "arrived",
    "ask_all",
    "fetch",
    "fetch_all",
    "require_room",
]
