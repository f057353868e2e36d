"""MindEye2 (Scotti et al. 2024, arXiv 2403.11207): a trunk that subjects share, CLIP tokens, unCLIP, and a refinement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from nsdbench.adapters.base import START_FACTS, start_facts
from nsdbench.adapters.draws import Draws
from nsdbench.adapters.mindeye import mini
from nsdbench.adapters.mindeye.augment import MINDEYE2_TEACHER
from nsdbench.adapters.mindeye.checkpoints import (
    for_new_subject,
    load_mindeye2,
    mindeye2_id,
    multisubject_id,
    published_state,
)
from nsdbench.adapters.mindeye.decoder import Brains, Features, MindEye
from nsdbench.adapters.mindeye.examples import Examples
from nsdbench.adapters.mindeye.lessons import Shared
from nsdbench.adapters.mindeye.losses import Contrastive
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig
from nsdbench.adapters.mindeye.networks import (
    MINI_PARTS,
    ROUGH_VAE,
    Embed,
    Networks2,
    mini_embed2,
    mini_networks2,
    published_embed2,
    published_networks2,
)
from nsdbench.adapters.mindeye.training import Lesson, Plan, built, train
from nsdbench.adapters.mindeye.trunk import MINDEYE2 as PUBLISHED_MODEL
from nsdbench.adapters.mindeye.trunk import MindEye2 as Network
from nsdbench.adapters.mindeye.trunk import MindEye2Config, TrunkConfig
from nsdbench.adapters.nets import bigg, captioner, clip, clip_published, sdxl, vicregl
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.captioner import describe
from nsdbench.adapters.nets.euler import REFINEMENT, UNCLIP, EulerSampling, spaced_times
from nsdbench.adapters.nets.noise import ItemNoise
from nsdbench.adapters.nets.pixels import Images, from_signed
from nsdbench.adapters.nets.unclip import refine, resized, unclip_images
from nsdbench.adapters.nets.variation import rough_images
from nsdbench.adapters.scaling import Scaling
from nsdbench.adapters.stimuli import FIT_SEED
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_state
from nsdbench.store import atomic_path, sha256_file, write_json
from nsdbench.types import JsonScalar, Progress, Reconstructions, Silent, Stimuli, Trials

Float = NDArray[np.float32]
BRAIN = "mindeye2"
START = "start.safetensors"
SUBJECTS = range(1, 9)
"""Of NSD; the published pretrainings leave one of them out."""


@dataclass(frozen=True)
class Settings:
    """What the paper leaves to choose.

    Attributes
    ----------
    side, rough_side : int
        Pixels per side of the images that are returned, and of those whose latents are decoded.
    unclip, refinement : EulerSampling
    prior_points : int
        Points of the grid on which the prior is sampled.
    model : MindEye2Config
    plan, shared_plan : Plan
        Of a fit on one subject, and of a pretraining on several.
    use : {"refined", "unrefined", "blurry"}
        Which image is the result: after all stages (the method), before the refinement, or the blurry one of the low-level
        branch.
    blend : float
        Share of the blurry image in refined images of core NSD. 0.25 in the published code (a fifth in the paper). It
        is not used for NSD-Imagery, as in the code of that benchmark.
    tuned : {"all", "subject"}
        What a fit that begins from a pretraining learns: everything (published), or the layer of its subject alone.
    legacy_bugs : bool
        See :class:`~nsdbench.adapters.mindeye.lessons.Shared`.
    at_once : int
        Samples of one target that are computed together.
    """

    side: int
    rough_side: int
    unclip: EulerSampling
    refinement: EulerSampling
    prior_points: int
    model: MindEye2Config
    plan: Plan
    shared_plan: Plan
    use: Literal["refined", "unrefined", "blurry"] = "refined"
    blend: float = 0.25
    tuned: Literal["all", "subject"] = "all"
    legacy_bugs: bool = False
    at_once: int = 1


PUBLISHED = Settings(
    side=256,
    rough_side=224,
    unclip=UNCLIP,
    refinement=REFINEMENT,
    prior_points=20,
    model=PUBLISHED_MODEL,
    plan=Plan(450, 24, warm=6),  # 150 epochs as published, in which every image comes about three times
    shared_plan=Plan(450, 6, warm=6),
)
MINI = Settings(
    side=clip.SIZE,
    rough_side=clip.SIZE // 2,
    unclip=EulerSampling(spaced_times(5), 1.5, "v_prediction"),
    refinement=EulerSampling(spaced_times(10)[-3:], 1.5, "v_prediction"),
    prior_points=10,
    model=MindEye2Config(
        TrunkConfig(
            hidden=512,
            blocks=2,
            tokens=clip.IMAGE_TOKENS - 1,
            dim=clip.WIDTH,
            projector=clip.WIDTH,
            low_level=LowLevelConfig(4, 32, (16, 32), groups=8, maps_dim=96),
        ),
        mini.PRIOR2,
    ),
    plan=Plan(20, 32, 3e-3),
    shared_plan=Plan(20, 16, 3e-3),
    tuned="subject",
    at_once=10,
)


class MindEye2(MindEye):
    """MindEye2.

    A linear layer per subject leads into a space that subjects share; from there one trunk says a condition of the size
    of OpenCLIP's image tokens, tokens for retrieval, and the latents of a blurry image. Every repeat of a target goes
    through the network, and its outputs are averaged. A diffusion prior draws tokens under the condition, an unCLIP
    model makes an image of them, a captioner says what they show, and Stable Diffusion XL redraws the image under that
    caption.

    Every draw is seeded by target and sample; the original draws from one global generator.
    """

    name = "mindeye2"
    paper = "Scotti et al. 2024, ICML: MindEye2 (arXiv 2403.11207)"
    teacher_changes = MINDEYE2_TEACHER
    space: ClassVar[Mapping[str, str]] = {
        "published": "openclip-vit-bigg14-tokens",
        "retrained": "openclip-vit-bigg14-tokens",
        "mini": "mini-patch-tokens",
    }
    _PARTS = (
        sdxl.UNCLIP,
        f"{sdxl.BASE}-unet",
        f"{sdxl.BASE}-vae",
        bigg.WEIGHTS_ID,
        clip_published.WEIGHTS_ID,
        captioner.CONVERTER,
        captioner.GIT,
        captioner.VOCABULARY,
        ROUGH_VAE,
    )
    requires: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "published": _PARTS,
        "retrained": (*_PARTS, vicregl.WEIGHTS_ID),
        "mini": (*MINI_PARTS, mini.PRIOR2_ID, captioner.MINI_ID, "mini_vgg-v1"),
    }
    target_weights: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "retrained": (bigg.WEIGHTS_ID, ROUGH_VAE, vicregl.WEIGHTS_ID),
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
    def networks(self) -> Networks2:
        """The pretrained networks, loaded when first needed.

        Raises
        ------
        WeightsError
            If weights are missing or do not fit.
        """
        make = mini_networks2 if self.preset == "mini" else published_networks2
        return make(self.context, self.chosen.unclip, self.chosen.refinement)

    @cached_property
    def embedder(self) -> Embed:
        return (mini_embed2 if self.preset == "mini" else published_embed2)(self.context)

    @property
    def rough(self) -> Autoencoder:
        return self.networks.rough

    @property
    def rough_side(self) -> int:
        return self.chosen.rough_side

    @property
    def target_bytes(self) -> int:
        trunk = self.chosen.model.trunk
        low_level = trunk.low_level.target_bytes if trunk.low_level else 0
        return 2 * trunk.tokens * trunk.dim + low_level

    def network(self, voxels: Sequence[int]) -> Network:
        """Return the untrained network for subjects with these numbers of voxels."""
        return Network(voxels, self.chosen.model)

    def untrained(self, voxels: int) -> dict[str, nn.Module]:
        return {BRAIN: self.network([voxels])}

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        start = self.context.start
        facts = start and start_facts(start, self.name, self.preset)
        if start and facts and not _is(start / START, facts["sha256"]):
            raise WeightsError(f"{start / START} is not what the pretraining wrote", remedy="Pretrain again.")
        super().learn(train, stimuli, progress)
        if facts:
            self.facts = {**self.facts, "start": {name: facts[name] for name in ("subjects", "sha256")}}

    def begin(self, brains: Brains, voxels: int) -> None:
        if self.context.start is None:
            self._begin_prior(brains[BRAIN])
            return
        shared = load_state(self.context.start / START)
        rng = torch.Generator().manual_seed(FIT_SEED)
        own = for_new_subject(shared, voxels, rng, legacy_bugs=self.chosen.legacy_bugs)
        network = brains[BRAIN]
        if self.chosen.tuned == "subject":
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith("ridge."))
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise WeightsError(
                f"the pretraining in {self.context.start} is one of another form of {self.name}: {error}",
                remedy="Pretrain again.",
            ) from error

    def _begin_prior(self, network: nn.Module) -> None:
        if self.preset == "mini":
            mini.begin(network.diffusion_prior, mini.PRIOR2_ID)  # type: ignore[arg-type]

    def lessons(self, brains: Brains, examples: Examples) -> dict[str, tuple[Lesson, Plan]]:
        return {BRAIN: (self._lesson(brains[BRAIN], (examples,), self.chosen.plan), self.chosen.plan)}

    def _lesson(self, network: nn.Module, parts: tuple[Examples, ...], plan: Plan) -> Shared:
        assert isinstance(network, Network)
        contrastive = Contrastive(plan.epochs)
        return Shared(network, parts, plan.batch, contrastive, legacy_bugs=self.chosen.legacy_bugs)

    def learn_shared(self, parts: Sequence[tuple[Trials, Stimuli]], folder: Path, progress: Progress) -> None:
        plan, examples = self.chosen.shared_plan, []
        for trials, stimuli in parts:
            self.scaling = Scaling.of(trials.betas, ddof=0)
            examples.append(self.examples(trials, stimuli, progress))
        voxels = [trials.n_voxels for trials, _ in parts]
        network = built(partial(self.network, voxels), FIT_SEED)
        self._begin_prior(network)
        network.to(self.context.device)
        kept = self.context.scratch / f"{BRAIN}.pt" if self.context.scratch else None
        curves = train(
            self._lesson(network, tuple(examples), plan),
            plan,
            seed=FIT_SEED,
            label=f"{self.name}, {len(parts)} subjects",
            progress=progress,
            checkpoint=kept,
        )
        self._write_start(
            network.state_dict(), [trials.subject for trials, _ in parts], folder, curves=curves
        )

    def adopt_shared(self, subject: int, folder: Path) -> None:
        if self.preset != "retrained":
            super().adopt_shared(subject, folder)
        id = multisubject_id(subject)
        others = [other for other in SUBJECTS if other != subject]
        self._write_start(published_state(id, self.context), others, folder, checkpoint=id)

    def _write_start(
        self, state: Mapping[str, Tensor], subjects: Sequence[int], folder: Path, **further: object
    ) -> None:
        """Write shared weights, and where they come from, for fits to begin with."""
        own = {name: value.detach().cpu().clone() for name, value in state.items()}
        with atomic_path(folder / START) as temporary:
            save_file(own, temporary)
        facts = {"model": self.name, "preset": self.preset, "subjects": subjects, **further}
        write_json(folder / START_FACTS, {**facts, "sha256": sha256_file(folder / START)})

    def published_brains(self, subject: int) -> tuple[Brains, int]:
        network = load_mindeye2(subject, self.context)
        return {BRAIN: network}, network.ridge.voxels[0]

    @classmethod
    def checkpoint_ids(cls, subject: int) -> tuple[str, ...]:
        return (mindeye2_id(subject),)

    def generate(self, trials: Trials, n_samples: int, seed: int, progress: Progress) -> Reconstructions:
        targets = tuple(trials.stimulus.tolist())
        features = self.predict(trials)
        blended = trials.split == "shared1000" and self.chosen.use == "refined"
        blend = self.chosen.blend if blended else 0.0
        images, captions = self.render(features, targets, n_samples, seed, progress, blend=blend)
        return Reconstructions(
            images,
            targets,
            {self.space[self.preset]: features.wanted.astype(np.float16)},
            captions,
            self.attributes(trials) | {"blend": blend},
        )

    def copies(
        self, stimuli: Stimuli, ids: Sequence[str], *, seed: int = 0, progress: Progress | None = None
    ) -> Reconstructions:
        images, captions = self.render(self.features(stimuli, ids, progress), ids, 1, seed, progress)
        return Reconstructions(images, tuple(ids), captions=captions)

    @torch.no_grad()
    def predict(self, trials: Trials) -> Features:
        """Return the features decoded from betas: means over the repeats of a target, if they are known."""
        network = self.brains[BRAIN]
        rows = trials if trials.singles is None else trials.singles
        betas = self.standardized(rows)
        means = []
        for target in trials.stimulus.tolist():
            own = betas[torch.from_numpy(rows.stimulus == target)]
            out = network.backbone(network.ridge(own))  # type: ignore[operator]
            means.append([part.mean(0).cpu() for part in (out.backbone, out.retrieval, out.latents)])
        tokens, wanted, latents = (torch.stack(part).numpy() for part in zip(*means, strict=True))
        return Features(tokens, wanted, latents, decoded=True)

    def render(
        self,
        features: Features,
        targets: Sequence[str],
        n_samples: int,
        seed: int,
        progress: Progress | None = None,
        *,
        blend: float = 0.0,
    ) -> tuple[Images, tuple[tuple[str, ...], ...]]:
        """Return images of features, decoded or true, and the captions that the last stage was told.

        Parameters
        ----------
        features : Features
        targets : sequence of str
            Ids of the rows; with ``seed`` and the number of the sample they fix every draw.
        n_samples, seed : int
        progress : Progress, optional
        blend : float
            Share of the blurry image in the result.

        Returns
        -------
        images : uint8 array of shape (n, n_samples, side, side, 3)
        captions : tuple of tuple of str
            By target, then sample.
        """
        device, captions = self.context.device, [[""] * n_samples for _ in targets]

        def make(row: int, samples: slice, noise: ItemNoise) -> Images:
            tokens, latents = (
                torch.from_numpy(values[row : row + 1]).to(device)
                for values in (features.tokens, features.latents)
            )
            blurry = self._blurry(latents)
            if features.decoded:
                tokens = self._drawn(tokens, noise)
            captions[row][samples], found = self._redrawn(tokens, blurry, noise)
            return from_signed((found + blend * (blurry - found)) * 2 - 1)

        draws = Draws(targets, n_samples, seed, self.chosen.at_once, device)
        images = draws.images(self.chosen.side, make, progress or Silent(), self.name)
        return images, tuple(tuple(row) for row in captions)

    def _drawn(self, condition: Tensor, noise: ItemNoise) -> Tensor:
        """Return tokens that the prior draws, (n, tokens, channels)."""
        prior, many = self.brains[BRAIN].diffusion_prior, condition.expand(len(noise.rngs), -1, -1)
        drawn: Tensor = prior.sample(many, noise, self.chosen.prior_points)  # type: ignore[union-attr, operator]
        return drawn

    def _redrawn(self, tokens: Tensor, blurry: Tensor, noise: ItemNoise) -> tuple[list[str], Tensor]:
        """Return captions and images in [0, 1], (n, 3, side, side), of tokens (n or 1, tokens, channels)."""
        networks, n = self.networks, len(noise.rngs)
        tokens = tokens.expand(n, -1, -1)
        captions = describe(networks.describer, tokens)
        if self.chosen.use == "blurry":
            return captions, blurry.expand(n, -1, -1, -1)
        images = resized(unclip_images(networks.unclip, tokens, noise), self.chosen.side)
        if self.chosen.use == "refined":
            redrawn = refine(networks.refiner, images, networks.prompt(captions), noise)
            images = resized(redrawn, self.chosen.side)
        return captions, images

    def _blurry(self, latents: Tensor) -> Tensor:
        """Return the blurry image in [0, 1], (1, 3, side, side)."""
        return resized(rough_images(self.networks.rough, latents).clamp(0, 1), self.chosen.side)

    def attributes(self, trials: Trials) -> dict[str, JsonScalar]:
        """Return what a reader of the images of ``trials`` must know about their making."""
        chosen, stages = self.chosen, ("unclip", "refinement")
        facts: dict[str, JsonScalar] = {**self.shared_attributes(trials), "use": chosen.use}
        for stage in stages:
            sampling: EulerSampling = getattr(chosen, stage)
            facts |= {f"{stage}_{name}": value for name, value in sampling.attributes.items()}
        start = self.facts.get("start")
        return facts | {
            "prior_points": chosen.prior_points,
            "averaged_over_repeats": "betas" if trials.singles is None else "outputs",
            "legacy_bugs": chosen.legacy_bugs,
            "tuned": chosen.tuned if start else None,
            "pretrained_on_subjects": start and ",".join(map(str, start["subjects"])),
        }


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256
