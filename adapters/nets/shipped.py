"""Weights of the miniature decoders, which come with nsdbench."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from nsdbench import weights
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_state
from nsdbench.store import sha256_file

FOLDER = Path(__file__).parent.parent / "weights"
SHIPPED: Mapping[str, str] = {
    "mini_denoiser-v1": "54bf532de6ac2c3988f5b66eb2710d933208432951cc6915ee9b4dae3e9ed0c6",
    "mini_tokens-v1": "b4fd132dbeab4c2eed459d5c787f9e944bb8fb6e52cbdf6b123df0faaa3cafdd",
    "mini_autoencoder-v1": "a1e7085e73d0a790894b7642e8dcd72776fdb60575c6fc9dbc203598dedf6216",
    "mini_captioner-v1": "b2e5a8467e36c7e082f52f4b9c2fcdf45b9cc13e5e2ecc8c423092d4c8e4a0d6",
    "mini_vgg-v1": "30b3c293c318cec52c466497009f52ba7937f882ecd2a39e1f7ddc0e4098dc22",
    "mini_generator-v1": "db97c93b8d3bd95c88174fed5157b4926e4e4fc27399721582cfeafa34249b5e",
    "mini_vdvae-v1": "ae63526181b6245eacd4b68518503c22271834d94a689d45c16c23d85952bc56",
    "mini_mindeye1_prior-v1": "25be19648fe31c15d6f4928fbfbcbb38461600e44a582abec163478cc9e5767e",
    "mini_mindeye2_prior-v1": "c9c8f21aefa51ba3062fbb132e88212def15abbf78df51c5786937a0bfb5e9e6",
}
"""SHA-256 of every file in :data:`FOLDER`, by weights id."""


def located(ids: Iterable[str], weights_dir: Path | None) -> dict[str, str]:
    """Return the SHA-256 of pretrained weights by id, those that come with nsdbench and those in ``weights_dir``.

    Raises
    ------
    WeightsError
        If a file is missing (the message says which, and how to get it), or its hash is wrong.
    """
    folder = weights.folder(weights_dir)
    return {id: SHIPPED[id] if id in SHIPPED else weights.locate(id, folder).sha256 for id in ids}


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
