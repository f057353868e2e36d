"""Weights of the miniature decoders, which come with nsdbench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nsdbench.errors import WeightsError
from nsdbench.safeload import load_state
from nsdbench.store import sha256_file

FOLDER = Path(__file__).parent.parent / "weights"
SHIPPED: Mapping[str, str] = {
    "mini_denoiser-v1": "54bf532de6ac2c3988f5b66eb2710d933208432951cc6915ee9b4dae3e9ed0c6",
    "mini_tokens-v1": "b4fd132dbeab4c2eed459d5c787f9e944bb8fb6e52cbdf6b123df0faaa3cafdd",
    "mini_autoencoder-v1": "a1e7085e73d0a790894b7642e8dcd72776fdb60575c6fc9dbc203598dedf6216",
    "mini_vgg-v1": "30b3c293c318cec52c466497009f52ba7937f882ecd2a39e1f7ddc0e4098dc22",
    "mini_generator-v1": "db97c93b8d3bd95c88174fed5157b4926e4e4fc27399721582cfeafa34249b5e",
    "mini_vdvae-v1": "ae63526181b6245eacd4b68518503c22271834d94a689d45c16c23d85952bc56",
}
"""SHA-256 of every file in :data:`FOLDER`, by weights id."""


def shipped_state(weights_id: str) -> dict[str, Tensor]:
    """Return the tensors of shipped weights, in float32 whatever they are stored in.

    Raises
    ------
    WeightsError
        If the file is missing or altered.
    """
    path = FOLDER / f"{weights_id}.safetensors"
    sha256 = sha256_file(path) if path.is_file() else None
    if sha256 != SHIPPED[weights_id]:
        state = "is missing" if sha256 is None else f"has sha256 {sha256}, not {SHIPPED[weights_id]}"
        raise WeightsError(f"{path}, a part of nsdbench, {state}", remedy="Install nsdbench again.")
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in load_state(path).items()
    }
