"""MindEye1 (Scotti et al. 2023, arXiv 2305.18274): CLIP tokens and a rough image from betas, redrawn by Versatile Diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nsdbench.adapters.draws import Draws
from nsdbench.adapters.mindeye import mini
from nsdbench.adapters.mindeye.augment import MINDEYE1_TEACHER
from nsdbench.adapters.mindeye.checkpoints import load_mindeye1, mindeye1_ids
from nsdbench.adapters.mindeye.decoder import Brains, Features, MindEye
from nsdbench.adapters.mindeye.encoder import MINDEYE1 as PUBLISHED_MODEL
from nsdbench.adapters.mindeye.encoder import EncoderConfig, MindEye1Config
from nsdbench.adapters.mindeye.encoder import MindEye1 as HighLevelNetwork
from nsdbench.adapters.mindeye.examples import Examples
from nsdbench.adapters.mindeye.lessons import HighLevel, LowLevel
from nsdbench.adapters.mindeye.losses import Contrastive
from nsdbench.adapters.mindeye.lowlevel import PUBLISHED_MINDEYE1, LowLevelConfig, VoxelLatents
from nsdbench.adapters.mindeye.networks import (
    MINI_PARTS,
    ROUGH_VAE,
    VERSATILE_UNET,
    VERSATILE_VAE,
    Embed,
    Networks1,
    mini_networks1,
    published_networks1,
)
from nsdbench.adapters.mindeye.training import Lesson, Plan
from nsdbench.adapters.nets import clip, clip_published, vicregl
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import Images, from_signed
from nsdbench.adapters.nets.unipc import PUBLISHED as PUBLISHED_SAMPLING
from nsdbench.adapters.nets.unipc import UniPCSampling
from nsdbench.adapters.nets.variation import best_of, variations
from nsdbench.types import JsonScalar, Progress, Reconstructions, Silent, Stimuli, Trials

Float = NDArray[np.float32]
NORM_EPS = 1e-6


@dataclass(frozen=True)
class Settings:
    """What the paper leaves to choose.

    Attributes
    ----------
    side : int
        Pixels per side of the generated images and of those whose latents are decoded.
    sampling : UniPCSampling
    candidates : int
        Images per sample, of which the one is kept whose tokens are most like the decoded ones.
    model : MindEye1Config
    low_hidden, low_blocks : int
        Width and residual layers of the low-level network.
    low_level : LowLevelConfig
    plan, low_plan : Plan
    altered : bool
        Whether the high-level network learns the tokens of altered images, other ones in every step.
    legacy_bugs : bool
        See :class:`~nsdbench.adapters.mindeye.lessons.HighLevel`.
    at_once : int
        Samples of one target that are computed together, each with all its candidates.
    """

    side: int
    sampling: UniPCSampling
    candidates: int
    model: MindEye1Config
    low_hidden: int
    low_blocks: int
    low_level: LowLevelConfig
    plan: Plan
    low_plan: Plan
    altered: bool = False
    legacy_bugs: bool = False
    at_once: int = 1


PUBLISHED = Settings(
    side=512,
    sampling=PUBLISHED_SAMPLING,
    candidates=16,
    model=PUBLISHED_MODEL,
    low_hidden=4096,
    low_blocks=4,
    low_level=PUBLISHED_MINDEYE1,
    plan=Plan(240, 32),
    low_plan=Plan(120, 8, 5e-4),
    altered=True,
)
MINI = Settings(
    side=clip.SIZE,
    sampling=UniPCSampling(5, 0.85, 1.5, "v_prediction"),
    candidates=2,
    model=MindEye1Config(EncoderConfig(512, 2, clip.IMAGE_TOKENS, clip.WIDTH, 256), mini.PRIOR1),
    low_hidden=256,
    low_blocks=1,
    low_level=LowLevelConfig(4, 32, (16, 32, 32), groups=8, maps_dim=96),
    plan=Plan(20, 32, 1e-3),
    low_plan=Plan(12, 16, 1e-3),
    at_once=10,
)


class MindEye1(MindEye):
    """MindEye1.

    A perceptron turns repeat-averaged betas into a condition of the size of CLIP's tokens; a diffusion prior draws the
    tokens of an image under it, and a second head says tokens for retrieval. A separate network says the latents of a
    rough image. Versatile Diffusion takes the rough image most of the way to noise and back under the drawn tokens,
    several times, and the image whose tokens are most like the retrieval head's is kept.

    Every draw is seeded by target and sample; the original seeds every image alike. Each candidate draws its own
    tokens, latents and noise.
    """

    name = "mindeye1"
    paper = "Scotti et al. 2023, NeurIPS: Reconstructing the mind's eye (arXiv 2305.18274)"
    teacher_changes = MINDEYE1_TEACHER
    space: ClassVar[Mapping[str, str]] = {
        "published": "clip-vit-l14-tokens",
        "retrained": "clip-vit-l14-tokens",
        "mini": "mini-tokens",
    }
    _PARTS = (VERSATILE_UNET, VERSATILE_VAE, clip_published.WEIGHTS_ID)
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "published": _PARTS,
        "retrained": (*_PARTS, ROUGH_VAE, vicregl.WEIGHTS_ID),
        "mini": (*MINI_PARTS, mini.PRIOR1_ID, "mini_vgg-v1"),
    }
    target_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "retrained": (ROUGH_VAE, vicregl.WEIGHTS_ID),
        "mini": ("mini_tokens-v1", "mini_autoencoder-v1", "mini_vgg-v1"),
    }
    settings: ClassVar[Mapping[str, Settings]] = {
        "published": PUBLISHED,
        "retrained": PUBLISHED,
        "mini": MINI,
    }

    @property
    def chosen(self) -> Settings:
        """The settings of the preset."""
        return self.settings[self.preset]

    @cached_property
    def networks(self) -> Networks1:
        """The pretrained networks, loaded when first needed.

        Raises
        ------
        WeightsError
            If weights are missing or do not fit.
        """
        make = mini_networks1 if self.preset == "mini" else published_networks1
        return make(self.context, self.chosen.sampling, self.chosen.side)

    @property
    def embedder(self) -> Embed:
        return self.networks.embed

    @property
    def rough(self) -> Autoencoder:
        return self.networks.stage.autoencoder

    @property
    def rough_side(self) -> int:
        return self.chosen.side

    @property
    def target_bytes(self) -> int:
        tokens = self.chosen.model.encoder
        size = 2 * tokens.tokens * tokens.dim if self.learns_tokens else 0
        return size + self.chosen.low_level.target_bytes

    @property
    def learns_tokens(self) -> bool:
        return not self.chosen.altered

    def untrained(self, voxels: int) -> dict[str, nn.Module]:
        chosen = self.chosen
        high = HighLevelNetwork(voxels, chosen.model)
        low = VoxelLatents(voxels, chosen.low_hidden, chosen.low_blocks, chosen.low_level)
        return {"high_level": high, "low_level": low}

    def begin(self, brains: Brains, voxels: int) -> None:
        if self.preset == "mini":
            mini.begin(brains["high_level"], mini.PRIOR1_ID)  # type: ignore[arg-type]

    def lessons(self, brains: Brains, examples: Examples) -> dict[str, tuple[Lesson, Plan]]:
        chosen, plan, low_plan = self.chosen, self.chosen.plan, self.chosen.low_plan
        high, low = brains["high_level"], brains["low_level"]
        assert isinstance(high, HighLevelNetwork) and isinstance(low, VoxelLatents)
        unit = 1 / float(self.networks.stage.autoencoder.latent_sd.mean())
        contrastive = Contrastive(plan.epochs)
        lessons: dict[str, tuple[Lesson, Plan]] = {
            "high_level": (
                HighLevel(
                    high,
                    examples,
                    plan.batch,
                    contrastive,
                    legacy_bugs=chosen.legacy_bugs,
                    embed=self.embedder if chosen.altered else None,
                ),
                plan,
            ),
            "low_level": (LowLevel(low, examples, low_plan.batch, unit), low_plan),
        }
        return lessons

    def published_brains(self, subject: int) -> tuple[Brains, int]:
        high, low = load_mindeye1(subject, self.context)
        return {"high_level": high, "low_level": low}, high.voxel2clip.voxels

    @classmethod
    def checkpoint_ids(cls, subject: int) -> tuple[str, ...]:
        return mindeye1_ids(subject)

    def copies(
        self, stimuli: Stimuli, ids: Sequence[str], *, seed: int = 0, progress: Progress | None = None
    ) -> Reconstructions:
        features = self.features(stimuli, ids, progress)
        return Reconstructions(self.render(features, ids, 1, seed, progress), tuple(ids))

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        features = self.predict(trials)
        images = self.render(features, targets, n_samples, seed, progress)
        embeddings = {self.space[self.preset]: features.wanted.astype(np.float16)}
        return Reconstructions(images, targets, embeddings, attributes=self.attributes(trials))

    @torch.no_grad()
    def predict(self, trials: Trials) -> Features:
        """Return the features decoded from betas."""
        high, low = self.brains["high_level"], self.brains["low_level"]
        rows = self.standardized(trials)[:, None]  # one by one: a row rounds alike in any company
        pairs = [high.voxel2clip(row) for row in rows]  # type: ignore[operator]
        return Features(
            torch.cat([backbone for backbone, _ in pairs]).cpu().numpy(),
            torch.cat([wanted for _, wanted in pairs]).cpu().numpy(),
            torch.cat([low(row) for row in rows]).cpu().numpy(),
            decoded=True,
        )

    def render(
        self,
        features: Features,
        targets: Sequence[str],
        n_samples: int,
        seed: int,
        progress: Progress | None = None,
    ) -> Images:
        """Return images of features, decoded or true, uint8 of shape (n, n_samples, side, side, 3).

        Parameters
        ----------
        features : Features
        targets : sequence of str
            Ids of the rows; with ``seed`` and the number of the sample they fix every draw.
        n_samples, seed : int
        progress : Progress, optional
        """
        device = self.context.device

        def make(row: int, _: slice, noise: ItemNoise) -> Images:
            tokens, wanted, latents = (
                torch.from_numpy(values[row : row + 1]).to(device)
                for values in (features.tokens, features.wanted, features.latents)
            )
            many = noise.spread(self.chosen.candidates)
            if features.decoded:
                tokens = self._drawn(tokens, many)
            return self._chosen_images(tokens, wanted, latents, many)

        draws = Draws(targets, n_samples, seed, self.chosen.at_once, device)
        return draws.images(self.chosen.side, make, progress or Silent(), self.name)

    def _drawn(self, condition: Tensor, noise: ItemNoise) -> Tensor:
        """Return tokens that the prior draws, (n, tokens, channels), in units of the norm of their first."""
        prior = self.brains["high_level"]
        drawn: Tensor = prior.sample(condition.expand(len(noise.rngs), -1, -1), noise)  # type: ignore[operator]
        norms: Tensor = torch.linalg.vector_norm(drawn[:, :1], dim=2, keepdim=True)
        return drawn / (norms + NORM_EPS)

    def _chosen_images(self, tokens: Tensor, wanted: Tensor, latents: Tensor, noise: ItemNoise) -> Images:
        """Return the best candidate of each sample, uint8 (samples, side, side, 3)."""
        candidates = variations(self.networks.stage, tokens, latents, noise)
        found = self.networks.embed(candidates)
        by_sample = (
            values.view(-1, self.chosen.candidates, *values.shape[1:]) for values in (candidates, found)
        )
        best = torch.stack([images[best_of(own, wanted[0])] for images, own in zip(*by_sample, strict=True)])
        return from_signed(best * 2 - 1)

    def attributes(self, trials: Trials) -> dict[str, JsonScalar]:
        """Return what a reader of the images of ``trials`` must know about their making."""
        chosen = self.chosen
        return {
            **self.shared_attributes(trials),
            "candidates": chosen.candidates,
            "legacy_bugs": chosen.legacy_bugs,
            **chosen.sampling.attributes,
        }
