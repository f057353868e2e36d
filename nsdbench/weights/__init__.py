"""Which weights metrics and models use, where their files are, and whether they are the right ones."""

from nsdbench.weights.entry import HubFile, Weights, size_text
from nsdbench.weights.records import HASHES, PINS
from nsdbench.weights.registry import REGISTRY, entry, for_metrics, models_with, shipped_for_metrics
from nsdbench.weights.shelves import (
    WEIGHTS_VARIABLE,
    Located,
    checked_sha256,
    folder,
    folders,
    is_present,
    locate,
    place_of,
    require,
)
from nsdbench.weights.shipped import SHIPPED, shipped_folder, shipped_hashes, shipped_path
from nsdbench.weights.survey import Listed, Status, listed, verify

__all__ = [
    "HASHES",
    "PINS",
    "REGISTRY",
    "SHIPPED",
    "WEIGHTS_VARIABLE",
    "HubFile",
    "Listed",
    "Located",
    "Status",
    "Weights",
    "checked_sha256",
    "entry",
    "folder",
    "folders",
    "for_metrics",
    "is_present",
    "listed",
    "locate",
    "models_with",
    "place_of",
    "require",
    "shipped_folder",
    "shipped_for_metrics",
    "shipped_hashes",
    "shipped_path",
    "size_text",
    "verify",
]
