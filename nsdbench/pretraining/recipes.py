"""What is trained, how and for how long: one row per miniature network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nsdbench.adapters.mindeye import mini as mindeye
from nsdbench.adapters.nets.autoencoder import mini_autoencoder
from nsdbench.adapters.nets.captioner import mini_captioner
from nsdbench.adapters.nets.clip import mini_clip
from nsdbench.adapters.nets.generator import mini_generator
from nsdbench.adapters.nets.unet import MiniDenoiser
from nsdbench.adapters.nets.vdvae import mini_vdvae
from nsdbench.adapters.nets.vgg import mini_vgg
from nsdbench.metrics.nets import mini
from nsdbench.pretraining.autoencoding import Autoencoding
from nsdbench.pretraining.captioning import Captioning
from nsdbench.pretraining.contrast import TokenContrast
from nsdbench.pretraining.denoising import Denoising
from nsdbench.pretraining.hierarchy import Hierarchy
from nsdbench.pretraining.inversion import Description, Inversion
from nsdbench.pretraining.restoration import PatchRestoration, Restoration
from nsdbench.pretraining.tasks import Classification, Contrast, SwappedPrediction
from nsdbench.pretraining.training import Recipe


def _by_name(recipes: Iterable[Recipe]) -> Mapping[str, Recipe]:
    return {recipe.name: recipe for recipe in recipes}


METRICS = _by_name(
    (
        Recipe("mini_alexnet", "mini_alexnet-v1", mini.mini_alexnet, Classification, 1500, 128, 1.5e-3),
        Recipe("mini_inception", "mini_inception-v1", mini.mini_inception, Classification, 900, 128, 3e-3),
        Recipe("mini_effnet", "mini_effnet-v1", mini.mini_effnet, Classification, 1200, 64, 3e-3, half=False),
        Recipe("mini_clip", "mini_clip-v1", mini.mini_clip, Contrast, 600, 192, 1.5e-3),
        Recipe("mini_swav", "mini_swav-v1", mini.mini_swav, SwappedPrediction, 300, 256, 2e-3),
    )
)
"""Networks that score reconstructions."""

DECODERS = _by_name(
    (
        Recipe("autoencoder", "mini_autoencoder-v1", mini_autoencoder, Autoencoding, 6000, 16, 2e-3),
        Recipe("tokens", "mini_tokens-v1", mini_clip, TokenContrast, 1200, 192, 1.5e-3),
        Recipe("captioner", "mini_captioner-v1", mini_captioner, Captioning, 2000, 128, 1.5e-3),
        Recipe("vgg", "mini_vgg-v1", mini_vgg, Description, 3000, 64, 1.2e-3),
        Recipe("generator", "mini_generator-v1", mini_generator, Inversion, 4000, 32, 1e-3),
        Recipe("hierarchy", "mini_vdvae-v1", mini_vdvae, Hierarchy, 8000, 8, 2e-3),
        Recipe("denoiser", "mini_denoiser-v1", MiniDenoiser, Denoising, 3800, 64, 8e-4),
        Recipe("prior1", mindeye.PRIOR1_ID, mindeye.prior1, Restoration, 2500, 64, 2e-3),
        Recipe("prior2", mindeye.PRIOR2_ID, mindeye.prior2, PatchRestoration, 2500, 64, 2e-3),
    )
)
"""Networks of the miniature decoders, in an order in which each finds the ones that it builds on."""

RECIPES: Mapping[str, Mapping[str, Recipe]] = {"metrics": METRICS, "decoders": DECODERS}
