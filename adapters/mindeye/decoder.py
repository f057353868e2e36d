"""What both MindEyes have in common as adapters: a published checkpoint or a training, and files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from nsdbench.adapters.arrays import load_arrays, save_arrays
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.featurestore import FeatureStore, Kind
from nsdbench.adapters.mindeye.augment import Changes, teacher_view
from nsdbench.adapters.mindeye.checkpoints import require_published
from nsdbench.adapters.mindeye.examples import Examples, Targets
from nsdbench.adapters.mindeye.networks import Embed, Teachers, mini_teachers, published_teachers
from nsdbench.adapters.mindeye.training import Lesson, Plan, built, train
from nsdbench.adapters.nets.autoencoder import Autoencoder
from nsdbench.adapters.nets.checkpoints import filled, on_meta
from nsdbench.adapters.nets.pixels import LANCZOS, resized
from nsdbench.adapters.scaling import Scaling, is_standardized
from nsdbench.adapters.stimuli import FIT_SEED, batches, images_of, rngs_of
from nsdbench.errors import DataError
from nsdbench.safeload import load_state
from nsdbench.store import atomic_path, read_json, write_json
from nsdbench.types import Embeddings, JsonScalar, Progress, Silent, Stimuli, Trials

FACTS, SCALING = "model.json", "scaling.npz"
STANDARDIZED = ("run_z", "session_z", "train_stats", "core_train_stats")
"""``normalization`` of betas that a published checkpoint can read."""
VOXELS = {"roi": "nsdgeneral", "voxel_order": "xyz_c"}
"""Which voxels, and in which order, published checkpoints read."""
Float = NDArray[np.float32]
Brains = Mapping[str, nn.Module]
"""The networks that read betas, by name."""


@dataclass(frozen=True)
class Features:
    """What is decoded from betas, or what is true of an image.

    Attributes
    ----------
    tokens : float32 array of shape (n, tokens, channels)
        Image tokens; if ``decoded``, the condition under which the prior draws them.
    wanted : float32 array of shape (n, tokens, channels)
        Tokens by which images are retrieved, and MindEye1's candidates chosen.
    latents : float32 array of shape (n, channels, height, width)
        Of the rough image.
    decoded : bool
    """

    tokens: Float
    wanted: Float
    latents: Float
    decoded: bool


class MindEye(Adapter):
    """Base of MindEye1 and MindEye2.

    Preset ``published`` takes the authors' checkpoint of the subject and learns nothing; ``retrained`` trains the
    published form; ``mini`` trains a small one, for simulated data.

    Attributes
    ----------
    brains : mapping of str to Module
    scaling : Scaling or None
        Statistics of the training trials; None for a published checkpoint, which reads standardized betas as they are.
    facts : mapping
        How the networks came to be: the subject of the checkpoint, or the curves of the loss.
    """

    version = 2
    presets = ("published", "retrained", "mini")
    teacher_changes: ClassVar[Changes]
    """How images are altered for the low-level teacher."""
    target_weights: ClassVar[Mapping[str, tuple[str, ...]]]
    """Ids of the weights behind what the networks learn to say about images, by preset."""
    space: ClassVar[Mapping[str, str]]
    """Name of the space of the embeddings for retrieval, by preset."""

    brains: Brains
    scaling: Scaling | None = None
    facts: Mapping[str, Any]

    # what the two models fill in

    @property
    @abstractmethod
    def embedder(self) -> Embed:
        """Makes the tokens that are decoded from betas."""

    @property
    @abstractmethod
    def rough(self) -> Autoencoder:
        """Turns the latents of rough images into images."""

    @property
    @abstractmethod
    def rough_side(self) -> int:
        """Pixels per side of the small image whose latents are decoded from betas."""

    @property
    @abstractmethod
    def target_bytes(self) -> int:
        """Bytes of the targets of one image."""

    @property
    def learns_tokens(self) -> bool:
        """Whether the tokens of images as they are can be made once; not if images are altered in every step."""
        return True

    @abstractmethod
    def untrained(self, voxels: int) -> dict[str, nn.Module]:
        """Return the networks that read betas, by name."""

    def begin(self, brains: Brains, voxels: int) -> None:
        """Change the starting weights of a fit; by default they stay."""

    @abstractmethod
    def lessons(self, brains: Brains, examples: Examples) -> dict[str, tuple[Lesson, Plan]]:
        """Return what each network learns and for how long, by its name."""

    @abstractmethod
    def published_brains(self, subject: int) -> tuple[Brains, int]:
        """Return the trained networks of a subject, and their number of voxels."""

    @classmethod
    @abstractmethod
    def checkpoint_ids(cls, subject: int) -> tuple[str, ...]:
        """Return the weights ids of the published checkpoints of a subject."""

    # the contract

    @classmethod
    def learns(cls, preset: str) -> bool:
        return preset != "published"

    @classmethod
    def required(cls, preset: str, subject: int) -> tuple[str, ...]:
        own = () if cls.learns(preset) else cls.checkpoint_ids(subject)
        for id in own:
            require_published(id)
        return (*super().required(preset, subject), *own)

    def adopt(self, subject: int) -> None:
        if self.learns(self.preset):
            super().adopt(subject)
        self.brains, self.n_voxels = self.published_brains(subject)
        self.facts = {"checkpoint_of_subject": subject}

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        if not self.learns(self.preset):
            self.adopt(train.subject)
            _require_same_voxels(self.n_voxels, train)
            return
        self.scaling = Scaling.of(train.betas, ddof=0)
        examples = self.examples(train, stimuli, progress)
        self.brains = self.on_device(built(partial(self._untrained, train.n_voxels), FIT_SEED))
        self.begin(self.brains, train.n_voxels)
        self.facts = {"curves": self.trained(self.brains, examples, progress)}

    def embed(
        self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None
    ) -> Mapping[str, Embeddings]:
        parts = [self.embedder(images).half().cpu().numpy() for images in self.images(stimuli, ids, progress)]
        return {self.space[self.preset]: np.concatenate(parts)}

    def save(self, folder: Path) -> None:
        write_json(folder / FACTS, {**self.facts, "n_voxels": self.n_voxels})
        if self.scaling is None:
            return  # a published checkpoint stays where it is
        save_arrays(folder / SCALING, self.scaling)
        for name, network in self.brains.items():
            state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
            with atomic_path(folder / f"{name}.safetensors") as temporary:
                save_file(state, temporary)

    @classmethod
    def load(cls, folder: Path, preset: str | None = None, context: Context | None = None) -> Self:
        adapter = cls(preset, context)
        wanted = "n_voxels" if cls.learns(adapter.preset) else "checkpoint_of_subject"
        facts = read_json(folder / FACTS)
        if not isinstance(facts, dict) or not isinstance(facts.get(wanted), int):
            raise DataError(
                f"{folder / FACTS} is not what a fit of {cls.name}-{adapter.preset} wrote",
                remedy="Delete the folder and fit the model again.",
            )
        if not cls.learns(adapter.preset):
            adapter.adopt(facts[wanted])
            return adapter
        adapter.n_voxels = facts.pop(wanted)
        adapter.facts = facts
        adapter.scaling = load_arrays(folder / SCALING, Scaling)
        adapter.brains = {
            name: adapter.stored(network, folder / f"{name}.safetensors")
            for name, network in on_meta(partial(adapter._untrained, adapter.n_voxels)).items()
        }
        return adapter

    # shared steps

    def features(self, stimuli: Stimuli, ids: Sequence[str], progress: Progress | None = None) -> Features:
        """Return the true features of stimuli, of which ``render`` makes near copies without any brain."""
        tokens, latents = [], []
        for images in self.images(stimuli, ids, progress):
            tokens.append(self.embedder(images).cpu())
            latents.append(rough_latents(self.rough, images, self.rough_side).cpu())
        known = torch.cat(tokens).numpy()
        return Features(known, known, torch.cat(latents).numpy(), decoded=False)

    def examples(self, train: Trials, stimuli: Stimuli, progress: Progress) -> Examples:
        """Return trials and targets of one subject, with betas standardized by :attr:`scaling`."""
        assert self.scaling is not None
        ids = train.targets
        targets = self.targets(stimuli, ids, progress)

        def read(images: Sequence[int]) -> Tensor:
            return torch.cat(list(self.images(stimuli, [ids[i] for i in images])))

        return Examples.of(train, self.scaling, targets, self.context.device, read)

    def targets(self, stimuli: Stimuli, ids: Sequence[str], progress: Progress) -> Targets:
        """Return what the networks learn to say about images, computed or read from where it is kept."""
        teachers = cache(lambda: self._teachers)  # loaded only if something has to be computed

        def compute(some: tuple[str, ...]) -> dict[str, NDArray[Any]]:
            (images,) = self.images(stimuli, some)
            views = images, self._altered(images.cpu(), some).to(images.device)
            maps = torch.stack([teachers().maps(small(view, self.rough_side)) for view in views], dim=1)
            parts = {
                "latents": rough_latents(teachers().rough, images, self.rough_side),
                "maps": maps.half(),
            }
            if self.learns_tokens:
                parts["tokens"] = self.embedder(images).half()
            return {name: values.cpu().numpy() for name, values in parts.items()}

        found = FeatureStore.of(self.context).read(self.kind, stimuli, ids, compute, progress)
        return Targets(found.get("tokens"), found["latents"], found["maps"])

    def _altered(self, images: Tensor, ids: Sequence[str]) -> Tensor:
        """Return altered copies for the low-level teacher; the draws of an image depend on nothing but its id."""
        seeds = [int(rng.integers(2**63)) for rng in rngs_of(ids)]
        views = [
            teacher_view(image[None], torch.Generator().manual_seed(seed), self.teacher_changes)
            for image, seed in zip(images, seeds, strict=True)
        ]
        return torch.cat(views)

    @property
    def kind(self) -> Kind:
        """What :meth:`targets` depend on; a subclass with other networks must name another."""
        settings: dict[str, JsonScalar] = {
            "rough_side": self.rough_side,
            "tokens": self.space[self.preset] if self.learns_tokens else None,
            "mini": self.preset == "mini",
            **{f"altered_{name}": str(value) for name, value in asdict(self.teacher_changes).items()},
        }
        return Kind("mindeye", 1, self.target_weights[self.preset], settings, item_bytes=self.target_bytes)

    def prepare(self, stimuli: Stimuli, ids: Sequence[str], *, progress: Progress | None = None) -> None:
        if self.learns(self.preset):
            self.targets(stimuli, ids, progress or Silent())

    def prepared_bytes(self, n_images: int) -> int:
        return n_images * self.target_bytes if self.learns(self.preset) else 0

    def trained(self, brains: Brains, examples: Examples, progress: Progress) -> dict[str, Any]:
        """Train ``brains`` in place and return the curves of the loss by name."""
        scratch, curves = self.context.scratch, {}
        for name, (lesson, plan) in self.lessons(brains, examples).items():
            label, kept = f"{self.name}, {name}", scratch / f"{name}.pt" if scratch else None
            curves[name] = train(lesson, plan, seed=FIT_SEED, label=label, progress=progress, checkpoint=kept)
        return curves

    def images(
        self, stimuli: Stimuli, ids: Sequence[str], progress: Progress | None = None
    ) -> Iterator[Tensor]:
        """Yield true images in [0, 1], float32 (n, 3, S, S), a few at a time."""
        side = 64 if self.preset == "mini" else None
        for some in batches(ids, progress or Silent()):
            pixels = images_of(stimuli, some)
            if side:
                pixels = resized(pixels, side, LANCZOS)
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float().to(self.context.device) / 255

    def standardized(self, trials: Trials) -> Tensor:
        """Return betas as the networks read them, float32 (n, n_voxels).

        Raises
        ------
        DataError
            If a published checkpoint is given betas that are not standardized, or other voxels or another order of them.
        """
        betas = trials.betas
        if self.scaling is None:
            _require_published_form(self.name, trials)
        elif not is_standardized(trials):
            betas = self.scaling(betas)
        return torch.tensor(betas, device=self.context.device)

    def shared_attributes(self, trials: Trials) -> dict[str, JsonScalar]:
        """Return facts for the record of a reconstruction that both models have."""
        subject = self.facts.get("checkpoint_of_subject")
        return {
            "preset": self.preset,
            "networks": "trained here" if subject is None else f"published checkpoint of subject {subject}",
            "query_standardised": self.scaling is None or is_standardized(trials),
        }

    def stored(self, network: nn.Module, path: Path) -> nn.Module:
        """Fill ``network``, which may be on the meta device, with the weights that :meth:`save` wrote."""
        return filled(network, load_state(path), str(path), device=self.context.device)

    def on_device(self, brains: nn.ModuleDict) -> dict[str, nn.Module]:
        """Return networks by name, on the device of the context."""
        return dict(brains.to(self.context.device).items())

    @property
    def _teachers(self) -> Teachers:
        return (mini_teachers if self.preset == "mini" else published_teachers)(self.context)

    def _untrained(self, voxels: int) -> nn.ModuleDict:
        return nn.ModuleDict(self.untrained(voxels))


def small(images: Tensor, side: int) -> Tensor:
    """Return images (n, 3, S, S) at another size, bilinear and smoothed."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


@torch.no_grad()
def rough_latents(autoencoder: Autoencoder, images: Tensor, side: int) -> Tensor:
    """Return the latents of small versions of images in [0, 1], without the draw of the autoencoder."""
    return autoencoder.encode(small(images, side) * 2 - 1).float()


def _require_published_form(name: str, trials: Trials) -> None:
    found = trials.provenance.get("normalization")
    if found not in STANDARDIZED:
        raise DataError(
            f"the published {name} reads standardized betas, and the normalization of these is {found}",
            remedy="Use the default preparation: --core-norm train_stats, --imagery-norm run_z.",
        )
    for choice, published in VOXELS.items():
        if trials.provenance.get(choice, published) != published:
            raise DataError(
                f"the published {name} was trained with {choice} {published}, these betas have "
                f"{trials.provenance[choice]}"
            )


def _require_same_voxels(expected: int | None, trials: Trials) -> None:
    if trials.n_voxels != expected:
        raise DataError(
            f"the published checkpoint of subject {trials.subject} reads {expected} voxels, these betas have "
            f"{trials.n_voxels}",
            remedy="It was trained on the voxels of nsdgeneral in their own space (func1pt8mm) and order; prepare these alike.",
        )
