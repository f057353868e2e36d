"""The values that travel between the rooms: trials, stimuli, reconstructions, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nsdbench.errors import DataError, ReconstructionError

T = TypeVar("T")
Direction = Literal["higher", "lower"]
Split = Literal["vision", "imagery", "shared1000"]
SPLITS: tuple[Split, ...] = ("vision", "imagery", "shared1000")
JsonScalar = str | int | float | bool | None
Embeddings = NDArray[np.float32] | NDArray[np.float16]


class Progress(Protocol):
    """Reports how far a long loop has come. Library code never prints; it is handed one of these."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` unchanged while reporting each finished one under ``label``."""
        ...


class Silent:
    """A :class:`Progress` that reports nothing."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from items


@dataclass(frozen=True)
class Trials:
    """Betas of one subject with one row per trial (or per average of trials).

    Attributes
    ----------
    betas : float32 array of shape (n_trials, n_voxels)
        Normalized betas; voxels are the C-order walk of the (X, Y, Z) ROI mask.
    stimulus : str array of shape (n_trials,)
        Stable stimulus id of each row. Core NSD images are ``img%05d`` with the 0-based ``imgBrick`` row;
        NSD-Imagery targets are ``A1`` ... ``C6``.
    split : {"train", "vision", "imagery", "shared1000"}
        What the rows may be used for. Only ``"train"`` may enter a fit.
    stimulus_set : str array of shape (n_trials,)
        ``"core"``, ``"A"``, ``"B"`` or ``"C"``.
    repeat : int array of shape (n_trials,)
        0-based repeat of the stimulus in acquisition order; after averaging, the number of rows averaged.
    run : int array of shape (n_trials,)
        Session number (core NSD) or acquisition run number 1..12 (NSD-Imagery); 0 after averaging over several.
    subject : int
        Subject number, 1..8.
    rois : mapping of str to bool array of shape (n_voxels,)
        ROI masks over the voxel columns.
    provenance : mapping
        How the rows were made: beta version, normalization, averaging, label source, voxel order, warnings, hashes.
    singles : Trials or None
        The trials behind averaged rows, for decoders that average later than betas.
    """

    betas: NDArray[np.float32]
    stimulus: NDArray[np.str_]
    split: str
    stimulus_set: NDArray[np.str_]
    repeat: NDArray[np.int64]
    run: NDArray[np.int64]
    subject: int
    rois: Mapping[str, NDArray[np.bool_]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    singles: Trials | None = None

    def __post_init__(self) -> None:
        if self.betas.ndim != 2 or self.betas.dtype != np.float32:
            raise DataError(
                f"betas must be float32 (n_trials, n_voxels), got {self.betas.dtype} {self.betas.shape}"
            )
        for name in ("stimulus", "stimulus_set", "repeat", "run"):
            if len(getattr(self, name)) != len(self.betas):
                raise DataError(f"{name} has {len(getattr(self, name))} rows, betas have {len(self.betas)}")
        for name, mask in self.rois.items():
            if mask.shape != (self.n_voxels,):
                raise DataError(f"ROI {name} covers {mask.shape} voxels, betas have {self.n_voxels}")

    def __len__(self) -> int:
        return len(self.betas)

    @property
    def n_voxels(self) -> int:
        """Number of voxel columns."""
        return int(self.betas.shape[1])

    @property
    def targets(self) -> tuple[str, ...]:
        """Distinct stimulus ids in ascending order."""
        return tuple(str(s) for s in np.unique(self.stimulus))

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Trials:
        """Return the rows named by a boolean mask or by indices."""
        stimulus = self.stimulus[keep]
        return replace(
            self,
            betas=self.betas[keep],
            stimulus=stimulus,
            singles=self.singles and self.singles.of_stimuli(stimulus.tolist()),
            stimulus_set=self.stimulus_set[keep],
            repeat=self.repeat[keep],
            run=self.run[keep],
        )

    def of_stimuli(self, ids: Iterable[str]) -> Trials:
        """Return the rows whose stimulus is one of ``ids``, in their present order."""
        return self.select(np.isin(self.stimulus, list(ids)))

    def average_repeats(self) -> Trials:
        """Return one row per stimulus: the plain mean of its rows, sorted by stimulus id.

        ``repeat`` becomes the number of rows averaged and ``run`` the common run number, or 0; ``singles`` keeps the rows.
        Sums are accumulated in float64.
        """
        ids, first, inverse = np.unique(self.stimulus, return_index=True, return_inverse=True)
        counts = np.bincount(inverse, minlength=len(ids))
        order = np.argsort(inverse, kind="stable")
        starts = np.cumsum(counts) - counts
        mean = np.empty((len(ids), self.n_voxels), np.float32)
        run = np.zeros(len(ids), np.int64)
        for i, (start, n) in enumerate(zip(starts, counts, strict=True)):
            rows = order[start : start + n]
            mean[i] = self.betas[rows].mean(axis=0, dtype=np.float64)
            run[i] = self.run[rows[0]] if np.all(self.run[rows] == self.run[rows[0]]) else 0
        return replace(
            self,
            betas=mean,
            stimulus=ids,
            stimulus_set=self.stimulus_set[first],
            repeat=counts.astype(np.int64),
            run=run,
            provenance={**self.provenance, "averaging": "mean"},
            singles=self,
        )


@dataclass(frozen=True)
class Stimuli:
    """What was shown or imagined: ids, captions and images, read on demand.

    Attributes
    ----------
    ids : tuple of str
        Stimulus ids in ascending order.
    stimulus_set : tuple of str
        ``"core"``, ``"A"``, ``"B"`` or ``"C"`` per id.
    captions : mapping of str to tuple of str
        Captions per id; ids without captions are absent.
    cues : mapping of str to str
        Cue letter per NSD-Imagery target.
    has_image : frozenset of str
        Ids with a fixed ground-truth image (set C has none).
    read_image : callable
        ``read_image(id) -> uint8 (H, W, 3)`` RGB at native size.
    content_hash : str
        Hash of ids and pixels (or of the file that holds them); part of the protocol key.
    source : str
        Hash of the file that holds the pixels of these and of other stimuli, the same for every selection of them; empty
        if there is no such file.
    source_changed : int
        When that file was last changed, in ns, if ``source`` covers only a sample of it; else 0.
    """

    ids: tuple[str, ...]
    stimulus_set: tuple[str, ...]
    has_image: frozenset[str]
    read_image: Callable[[str], NDArray[np.uint8]]
    content_hash: str
    captions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cues: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    source_changed: int = 0

    def image(self, stimulus: str) -> NDArray[np.uint8]:
        """Return the RGB image of ``stimulus``, uint8 of shape (H, W, 3).

        Raises
        ------
        DataError
            If the stimulus is unknown or has no fixed image.
        """
        if stimulus not in self.has_image:
            known = "has no fixed image" if stimulus in self.ids else "is not one of these stimuli"
            raise DataError(f"stimulus {stimulus} {known}")
        return self.read_image(stimulus)

    def of(self, ids: Sequence[str]) -> Stimuli:
        """Return the subset ``ids`` (kept in ascending order); its hash covers the subset."""
        from nsdbench.store import digest

        keep = set(ids)
        unknown = keep - set(self.ids)
        if unknown:
            raise DataError(f"unknown stimuli: {', '.join(sorted(unknown)[:5])}")
        kept = [(i, s) for i, s in zip(self.ids, self.stimulus_set, strict=True) if i in keep]
        if len(kept) == len(self.ids):
            return self
        names = tuple(i for i, _ in kept)
        return replace(
            self,
            ids=names,
            stimulus_set=tuple(s for _, s in kept),
            has_image=self.has_image & keep,
            content_hash=digest(self.content_hash, *names),
        )


@dataclass(frozen=True)
class Reconstructions:
    """Images reconstructed for a list of targets, several samples each.

    Attributes
    ----------
    images : uint8 array of shape (n_targets, n_samples, H, W, 3)
        RGB samples, H == W.
    targets : tuple of str
        Stimulus id of each row, without duplicates.
    embeddings : mapping of str to float32 or float16 array of shape (n_targets, ...)
        Brain-predicted embeddings by name of the embedding space (empty if the model has none).
    captions : tuple of tuple of str
        Decoded captions, ``captions[target][sample]`` (empty if the model has none).
    gallery : mapping of str to float32 or float16 array of shape (n_gallery, ...)
        Embeddings of the ground truths themselves, in the same spaces: what retrieval chooses from.
    gallery_ids : tuple of str
        Stimulus id of each row of the gallery, without duplicates.
    gallery_captions : tuple of str
        What a captioner says of each ground truth of the gallery (empty if none was asked).
    attributes : mapping
        Facts that travel with the images: post-processing, sample policy, source.
    """

    images: NDArray[np.uint8]
    targets: tuple[str, ...]
    embeddings: Mapping[str, Embeddings] = field(default_factory=dict)
    captions: tuple[tuple[str, ...], ...] = ()
    attributes: Mapping[str, JsonScalar] = field(default_factory=dict)
    gallery: Mapping[str, Embeddings] = field(default_factory=dict)
    gallery_ids: tuple[str, ...] = ()
    gallery_captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 5 or shape[-1] != 3:
            raise ReconstructionError(
                f"reconstructions must be uint8 (n_targets, n_samples, H, W, 3), got {self.images.dtype} {shape}"
            )
        if shape[2] != shape[3]:
            raise ReconstructionError(
                f"reconstructions are {shape[2]} x {shape[3]} pixels; nsdbench never stretches an image",
                remedy="Crop or pad them to a square first.",
            )
        if 0 in shape:
            raise ReconstructionError(f"reconstructions are empty: shape {shape}")
        if len(self.targets) != shape[0]:
            raise ReconstructionError(
                f"{len(self.targets)} target ids for {shape[0]} rows of reconstructions"
            )
        for target in self.targets:
            if not target or not target.isprintable():
                raise ReconstructionError(
                    f"target id {target!r} is empty or has characters that cannot be shown",
                    remedy="Rename it.",
                )
        if len(set(self.targets)) != len(self.targets):
            twice = sorted({t for t in self.targets if self.targets.count(t) > 1})
            raise ReconstructionError(f"targets appear twice: {', '.join(twice[:5])}")

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return int(self.images.shape[0])

    @property
    def n_samples(self) -> int:
        """Samples per target."""
        return int(self.images.shape[1])
