"""Weights that come with nsdbench: the miniature networks of metrics and decoders, trained on simulated scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from nsdbench.weights.entry import Weights

Room = Literal["metrics", "adapters"]
_PACKAGE = Path(__file__).parent.parent
_LICENCE = "MIT (nsdbench)"


def _entry(room: Room, name: str, size: int, sha256: str, used_by: tuple[str, ...] = ()) -> Weights:
    id = f"{name}-v1"
    what = name.removeprefix("mini_").replace("_", " ")
    return Weights(
        id,
        f"{id}.safetensors",
        f"nsdbench/{room}/weights",
        _LICENCE,
        f"miniature {what}, trained on simulated scenes; comes with nsdbench",
        used_by,
        sha256=sha256,
        size=size,
    )


_METRICS = (
    ("mini_alexnet", 551_944, "57341b10872a15f0c50de76d916f4b0c2ed8f3a33ebf9331c51d1421a0cbf752"),
    ("mini_inception", 514_184, "a18097d79c4b2847e2ee56dc7a7a5fee44d69ab23525b6dc010f595605b6a306"),
    ("mini_effnet", 341_584, "604fc97d702d8f6d930c1827a4bdb34fe5e9fc135ddf2c5f3476068e70cec216"),
    ("mini_clip", 1_027_048, "20ee28b827c76533766b60526f3dae20c448adc57563811843874ed0f9265755"),
    ("mini_swav", 1_946_568, "691f6d183e8f534c134f8409dea990dd8f6f8ae5cea34b9b54495869d26cc7d5"),
)
_ADAPTERS = (
    ("mini_denoiser", 30_745_476, "54bf532de6ac2c3988f5b66eb2710d933208432951cc6915ee9b4dae3e9ed0c6"),
    ("mini_tokens", 2_931_564, "b4fd132dbeab4c2eed459d5c787f9e944bb8fb6e52cbdf6b123df0faaa3cafdd"),
    ("mini_autoencoder", 1_866_468, "a1e7085e73d0a790894b7642e8dcd72776fdb60575c6fc9dbc203598dedf6216"),
    ("mini_captioner", 1_320_028, "b2e5a8467e36c7e082f52f4b9c2fcdf45b9cc13e5e2ecc8c423092d4c8e4a0d6"),
    ("mini_vgg", 2_545_592, "30b3c293c318cec52c466497009f52ba7937f882ecd2a39e1f7ddc0e4098dc22"),
    ("mini_generator", 8_223_060, "db97c93b8d3bd95c88174fed5157b4926e4e4fc27399721582cfeafa34249b5e"),
    ("mini_vdvae", 1_805_312, "ae63526181b6245eacd4b68518503c22271834d94a689d45c16c23d85952bc56"),
    ("mini_mindeye1_prior", 1_307_640, "25be19648fe31c15d6f4928fbfbcbb38461600e44a582abec163478cc9e5767e"),
    ("mini_mindeye2_prior", 1_311_048, "c9c8f21aefa51ba3062fbb132e88212def15abbf78df51c5786937a0bfb5e9e6"),
)
_ENTRIES = (
    *(_entry("metrics", *row, (("mini_alexnet2", "mini_alexnet5") if row[0] == "mini_alexnet" else (row[0],)))
      for row in _METRICS),
    *(_entry("adapters", *row) for row in _ADAPTERS),
)  # fmt: skip

SHIPPED: Mapping[str, Weights] = {entry.id: entry for entry in _ENTRIES}
"""Weights that come with nsdbench, by id."""


def shipped_folder(room: Room) -> Path:
    """Return where the files of the metrics or of the decoders lie."""
    return _PACKAGE / room / "weights"


def shipped_path(weights: Weights) -> Path:
    """Return where one of :data:`SHIPPED` lies."""
    return _PACKAGE.parent / weights.url / weights.filename


def shipped_hashes(room: Room) -> dict[str, str]:
    """Return the SHA-256 of the files of the metrics or of the decoders, by id."""
    return {w.id: w.sha256 for w in SHIPPED.values() if w.url == f"nsdbench/{room}/weights" and w.sha256}
