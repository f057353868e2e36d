"""The forms of the miniature MindEyes: the same classes as the published ones, small enough for a minute of two cores."""

from __future__ import annotations

from nsdbench.adapters.nets import clip
from nsdbench.adapters.nets.prior import Prior, PriorConfig
from nsdbench.adapters.nets.shipped import shipped_state

SCALE = clip.WIDTH**0.5
"""Brings the miniature tokens, whose class token has norm 1, to about unit variance."""
PRIOR1 = PriorConfig(clip.WIDTH, clip.IMAGE_TOKENS, depth=2, heads=4, dim_head=32, steps=20, scale=SCALE)
PRIOR2 = PriorConfig(clip.WIDTH, clip.IMAGE_TOKENS - 1, depth=2, heads=4, dim_head=32, steps=100, scale=SCALE)
PRIOR1_ID, PRIOR2_ID = "mini_mindeye1_prior-v1", "mini_mindeye2_prior-v1"


def prior1() -> Prior:
    """Return the untrained miniature prior of MindEye1."""
    return Prior(PRIOR1)


def prior2() -> Prior:
    """Return the untrained miniature prior of MindEye2, whose target has no class token."""
    return Prior(PRIOR2)


def begin(prior: Prior, weights_id: str) -> None:
    """Give ``prior`` the weights that were learnt from scenes, without any brain; a fit goes on from there."""
    for name in ("net", "noise_scheduler"):
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in shipped_state(weights_id).items()
            if key.startswith(f"{name}.")
        }
        prior.get_submodule(name).load_state_dict(own)
