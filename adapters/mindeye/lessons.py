"""The losses of both MindEyes, put together as the papers do, as lessons of :mod:`nsdbench.adapters.mindeye.training`.

Where the published training code does not do what it means to do, ``legacy_bugs`` brings that back; see
``docs/decoders.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from nsdbench.adapters.mindeye.augment import target_view
from nsdbench.adapters.mindeye.encoder import MindEye1
from nsdbench.adapters.mindeye.examples import Examples
from nsdbench.adapters.mindeye.losses import Contrastive, Mixture, mix, mixco, mixco_within, soft_cont, unit
from nsdbench.adapters.mindeye.lowlevel import VoxelLatents
from nsdbench.adapters.mindeye.trunk import MindEye2, TrunkOutput
from nsdbench.adapters.nets.prior import Prior

MAPS1_TEMPERATURE, MAPS2_TEMPERATURE = 0.075, 0.2


@dataclass(frozen=True)
class Weights:
    """Shares of the terms of the loss.

    Attributes
    ----------
    prior, contrast : float
        Of the prior's error and of the contrastive loss, 30 and 1 as published.
    low_level : float
        Of MindEye2's low-level loss, 0.5 as published.
    maps : float
        Of the contrast with the teacher within the low-level loss, 0.1 as published.
    """

    prior: float = 30.0
    contrast: float = 1.0
    low_level: float = 0.5
    maps: float = 0.1


@dataclass(frozen=True)
class HighLevel:
    """MindEye1's encoder and prior.

    In the epochs with mixed voxels the prior learns from items that were not mixed, because no image has the
    tokens of two. With ``legacy_bugs`` it learns from all, towards the tokens of the first image alone, as published.

    Attributes
    ----------
    embed : callable or None
        Makes the tokens of images (n, 3, S, S); images are then altered anew in every step, as published. Without it the
        tokens of the images as they are, made once, are learnt.
    """

    network: MindEye1
    examples: Examples
    batch: int
    contrastive: Contrastive
    weights: Weights = Weights()
    legacy_bugs: bool = False
    embed: Callable[[Tensor], Tensor] | None = None

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.examples.steps(self.batch)

    def batches(self, epoch: int, rng: torch.Generator) -> Iterable[tuple[int, Tensor]]:
        """Yield the number of a step, which is also that of the repeat, and its images."""
        return enumerate(self.examples.shuffled(self.batch, rng))

    def losses(self, batch: object, epoch: int, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Return the terms ``prior`` and ``contrast``."""
        step, images = cast(tuple[int, Tensor], batch)
        voxels, tokens = self.examples.repeat(images, step), self._tokens(images, rng)
        mixture = mixco(voxels, rng) if self.contrastive.mixes(epoch) else None
        backbone, retrieval = self.network.voxel2clip(voxels if mixture is None else mixture.voxels)
        plain = _unmixed(mixture, len(images), self.legacy_bugs)
        return {
            "prior": self.weights.prior * _prior_loss(self.network, tokens, backbone, plain, rng),
            "contrast": self.weights.contrast * self.contrastive.loss(epoch, retrieval, tokens, mixture),
        }

    def _tokens(self, images: Tensor, rng: torch.Generator) -> Tensor:
        if self.embed is None:
            return self.examples.tokens(images)
        altered = target_view(self.examples.read(images.tolist()).cpu(), rng)
        return self.embed(altered.to(self.examples.device))


@dataclass(frozen=True)
class LowLevel:
    """MindEye1's low-level network: the latents of the image, and a likeness of its map to a teacher's tokens.

    Attributes
    ----------
    unit : float
        The error is counted in units of the autoencoder, whose latents are the targets divided by this.
    """

    network: VoxelLatents
    examples: Examples
    batch: int
    unit: float
    weights: Weights = Weights()

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.examples.steps(self.batch)

    def batches(self, epoch: int, rng: torch.Generator) -> Iterable[Tensor]:
        """Yield the images of a step."""
        return self.examples.shuffled(self.batch, rng)

    def losses(self, batch: object, epoch: int, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Return the terms ``latents`` and ``maps``."""
        images = cast(Tensor, batch)
        latents, maps = self.network(self.examples.blended(images, rng), maps=True)
        error = functional.l1_loss(latents.float(), self.examples.latents(images)) / self.unit
        likeness = _likeness(maps, *self.examples.maps(images), MAPS1_TEMPERATURE)
        return {"latents": error, "maps": self.weights.maps * likeness}


@dataclass(frozen=True)
class Shared:
    """MindEye2 on one subject or on several, whose batches go through the trunk together.

    Mixed voxels have mixed targets: latents are blended alike, and the prior learns from items that were not mixed. With
    ``legacy_bugs`` partners are counted within a subject but looked up in the whole batch, latents stay those of the
    first image, and the prior learns from all items.

    Attributes
    ----------
    parts : tuple of Examples
        One per linear layer of the network.
    batch : int
        Images of each subject in a step.
    """

    network: MindEye2
    parts: tuple[Examples, ...]
    batch: int
    contrastive: Contrastive
    weights: Weights = Weights()
    legacy_bugs: bool = False

    @property
    def steps(self) -> int:
        """Steps per epoch: those of the subject with the fewest images."""
        return min(part.steps(self.batch) for part in self.parts)

    def batches(self, epoch: int, rng: torch.Generator) -> Iterable[tuple[Tensor, ...]]:
        """Yield the images of a step, by subject."""
        return zip(*(part.shuffled(self.batch, rng) for part in self.parts), strict=False)

    def losses(self, batch: object, epoch: int, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Return the terms ``prior``, ``contrast``, and with a low-level branch ``latents`` and ``maps``."""
        images = cast(tuple[Tensor, ...], batch)
        voxels = [part.one(some, rng) for part, some in zip(self.parts, images, strict=True)]
        mixture = None
        if self.contrastive.mixes(epoch):
            voxels, mixture = mixco_within(voxels, rng, legacy_bugs=self.legacy_bugs)
        hidden = torch.cat([self.network.ridge(part, subject) for subject, part in enumerate(voxels)])
        low_level = self.network.config.trunk.low_level is not None
        out = self.network.backbone(hidden, maps=low_level)
        tokens = self._gathered("tokens", images)
        plain = _unmixed(mixture, len(tokens), self.legacy_bugs)
        prior = _prior_loss(self.network.diffusion_prior, tokens, out.backbone, plain, rng)
        terms = {
            "prior": self.weights.prior * prior,
            "contrast": self.weights.contrast * self.contrastive.loss(epoch, out.retrieval, tokens, mixture),
        }
        if low_level:
            terms |= self._low_level(out, images, mixture)
        return terms

    def _low_level(
        self, out: TrunkOutput, images: Sequence[Tensor], mixture: Mixture | None
    ) -> dict[str, Tensor]:
        assert out.latents is not None and out.maps is not None
        latents = self._gathered("latents", images)
        if mixture is not None and not self.legacy_bugs:
            latents = mix(latents, mixture.partners, mixture.betas)
        pairs = [part.maps(some) for part, some in zip(self.parts, images, strict=True)]
        teacher, altered = (torch.cat(some) for some in zip(*pairs, strict=True))
        likeness = _likeness(out.maps, teacher, altered, MAPS2_TEMPERATURE)
        return {
            "latents": self.weights.low_level * functional.l1_loss(out.latents.float(), latents),
            "maps": self.weights.low_level * self.weights.maps * likeness,
        }

    def _gathered(self, name: str, images: Sequence[Tensor]) -> Tensor:
        return torch.cat([getattr(part, name)(some) for part, some in zip(self.parts, images, strict=True)])


def _unmixed(mixture: Mixture | None, n: int, legacy_bugs: bool) -> Tensor:
    """Items from which the prior learns, bool (n,)."""
    everything = torch.ones(n, dtype=torch.bool)
    return everything if mixture is None or legacy_bugs else ~mixture.selected.cpu()


def _likeness(maps: Tensor, teacher: Tensor, altered: Tensor, temperature: float) -> Tensor:
    """The places of all images of a batch are told apart from each other."""
    student, teacher, altered = (unit(tokens.flatten(0, 1)) for tokens in (maps, teacher, altered))
    return soft_cont(student, teacher, altered, temperature)


def _prior_loss(
    prior: Prior, tokens: Tensor, backbone: Tensor, plain: Tensor, rng: torch.Generator
) -> Tensor:
    if not plain.any():
        return backbone.sum() * 0
    return prior.loss(tokens[plain], backbone[plain], rng)[0]
