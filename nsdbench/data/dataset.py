"""The one loader: a directory becomes trials and stimuli, whatever layout its files have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nsdbench.data.cache import Entry, fingerprints, is_built, load_or_build, stamps
from nsdbench.data.checks_trials import check_label_source
from nsdbench.data.core import CoreSource, RawCore, build_core, load_rois
from nsdbench.data.design import image_ids, split_rows
from nsdbench.data.facts import MARKER_NAME, Expectations, marker_expectations, nsd_expectations
from nsdbench.data.imagery import Stats, build_imagery, imagery_files, imagery_trials
from nsdbench.data.layout import Layout
from nsdbench.data.options import LoadOptions
from nsdbench.data.prepared import PreparedCore
from nsdbench.data.stimuli import core_stimuli, imagery_stimuli
from nsdbench.data.stored import StoredCore
from nsdbench.errors import DataError, ProtocolError, UsageError
from nsdbench.store import digest, read_json
from nsdbench.types import Progress, Silent, Stimuli, Trials

LOADER_VERSION = 1  # +1 whenever a loaded number can change
_DEFAULTS = LoadOptions()
_SILENT = Silent()


@dataclass(frozen=True)
class Dataset:
    """A data set on disk: the real NSD or a generated one in the same file layout.

    Attributes
    ----------
    root : Path
        Directory that holds the keys of the public bucket.
    expectations : Expectations
        What its files are held to.
    cache : Path or None
        Cache directory; None means the default.
    """

    root: Path
    expectations: Expectations
    cache: Path | None = None

    @classmethod
    def open(cls, root: Path, *, cache: Path | None = None, may_be_empty: bool = False) -> Dataset:
        """Open the data set in ``root``; ``may_be_empty`` where its betas are still to come.

        Raises
        ------
        DataError
            If the directory holds no betas under the keys of NSD, or its marker file is damaged.
        """
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"{root} is not a directory", remedy="Give the directory that holds nsddata/.")
        expectations = nsd_expectations()
        if (root / MARKER_NAME).is_file():
            marker = read_json(root / MARKER_NAME)
            if not isinstance(marker, dict):
                raise DataError(f"{root / MARKER_NAME} is not a JSON object")
            expectations = marker_expectations(marker)
        if not may_be_empty and not Layout(root).subjects():
            raise DataError(
                f"{root} holds no betas of NSD or NSD-Imagery",
                remedy="Give the directory that holds nsddata/ and nsddata_betas/ (or MindEye2's prepared files), fill "
                "it with `nsdbench data fetch`, or use --dataset sim.",
            )
        return cls(root, expectations, cache)

    @property
    def id(self) -> str:
        """``"nsd"``, or the name in the marker file."""
        return self.expectations.dataset

    @property
    def marker(self) -> Mapping[str, Any] | None:
        """Content of the marker file; None for the real NSD."""
        return self.expectations.marker

    @property
    def content_hash(self) -> str:
        """Identifies the data set in results; see :class:`Expectations`."""
        return self.expectations.content_hash

    @property
    def layout(self) -> Layout:
        """Where the files lie."""
        return Layout(self.root)

    @cached_property
    def subjects(self) -> tuple[int, ...]:
        """Subjects that have betas on disk."""
        return tuple(s for s in self.layout.subjects() if s in self.expectations.subjects)

    def train(self, subject: int, options: LoadOptions = _DEFAULTS, progress: Progress = _SILENT) -> Trials:
        """Return the single trials that a decoder may be fitted on: core trials of images that are not shared.

        Parameters
        ----------
        subject : int
            Subject number.
        options : LoadOptions
            Preparation; ``average`` is not applied here.

        Returns
        -------
        Trials
            In acquisition order; ``betas`` is a read-only memory map of the cache.
        """
        return self._core_split("train", subject, options, progress)

    def trials(
        self, subject: int, split: str, options: LoadOptions = _DEFAULTS, progress: Progress = _SILENT
    ) -> Trials:
        """Return the trials of an evaluation split, averaged over repeats unless ``options.average`` is "none".

        Parameters
        ----------
        split : {"vision", "imagery", "shared1000"}
            NSD-Imagery splits hold the targets ``A1`` ... ``C6``; rows of set C in ``vision`` showed different
            images and carry the id of their concept.
        """
        if split == "shared1000":
            found = self._core_split("test", subject, options, progress)
        elif split in ("vision", "imagery"):
            found = self._imagery_split(split, subject, options, progress)
        else:
            raise UsageError(f"there is no split {split!r}", remedy="Choose vision, imagery or shared1000.")
        return found.average_repeats() if options.average == "mean" else found

    def stimuli(self, split: str, subject: int | None = None, options: LoadOptions = _DEFAULTS) -> Stimuli:
        """Return the stimuli of a split.

        Parameters
        ----------
        split : {"vision", "imagery", "shared1000", "train"}
            ``"train"`` needs a subject. ``"shared1000"`` without one means the subject with the most sessions,
            who saw the most of the shared images.
        """
        if split in ("vision", "imagery"):
            return imagery_stimuli(self.layout)
        if split == "train" and subject is None:
            raise UsageError("the training images differ between subjects; name one")
        if split not in ("train", "shared1000"):
            raise UsageError(
                f"there is no split {split!r}", remedy="Choose vision, imagery, shared1000 or train."
            )
        return core_stimuli(self.layout, self._core_ids(split, subject, options), self.expectations.n_images)

    def key(self, subject: int, split: str, options: LoadOptions = _DEFAULTS) -> str:
        """Return a hash of everything the betas of ``split`` depend on, without reading them.

        It covers the content of the files (sampled, see :mod:`nsdbench.data.cache`), the options and the version of
        the loader; ``split`` is one of those of :meth:`trials`, or ``"train"``.
        """
        if split in ("vision", "imagery"):
            return self._imagery_key(subject, options)
        return self._core_key(self.core_source(subject, options))

    # core NSD

    def core_source(self, subject: int, options: LoadOptions = _DEFAULTS) -> CoreSource:
        """Return where core trials are read from: the complete store, raw session files, or MindEye2's file."""
        self.require(subject, options)
        stored = StoredCore(self.layout, self.expectations, subject, options)
        if stored.complete():
            return stored
        raw = RawCore(self.layout, self.expectations, subject, options)
        if raw.available() or self.layout.prepared_betas(subject) is None:
            return raw
        return PreparedCore(self.layout, self.expectations, subject, options)

    def _core_split(self, name: str, subject: int, options: LoadOptions, progress: Progress) -> Trials:
        source = self.core_source(subject, options)
        key = self._core_key(source)
        entry = self._core_entry(source, progress)
        stimulus = np.array(entry.arrays[f"{name}_stimulus"])
        provenance = self._provenance(entry, key, options) | {
            "normalization": options.core_norm,
            "label_source": "design",
            "shared_set": f"shared{options.shared}",
            "sessions": source.sessions,
            "core_layout": "mindeye2" if source.normalized else "nsd",
        }
        return Trials(
            betas=entry.arrays[f"{name}_betas"],
            stimulus=stimulus,
            split="train" if name == "train" else "shared1000",
            stimulus_set=np.full(len(stimulus), "core"),
            repeat=np.array(entry.arrays[f"{name}_repeat"]),
            run=np.array(entry.arrays[f"{name}_run"]),
            subject=subject,
            rois=load_rois(entry),
            provenance=provenance,
        )

    def _core_key(self, source: CoreSource) -> str:
        o = source.options
        choices = ("core", o.beta_version, o.core_norm, o.shared, o.voxel_order, o.roi, source.normalized)
        return self._key(choices, source.subject, source.fingerprints())

    def core_is_cached(self, subject: int, options: LoadOptions = _DEFAULTS) -> bool:
        """Return True if :meth:`train` would read no session."""
        return is_built(self.cache, self._core_cache_key(self.core_source(subject, options)))

    def _core_entry(self, source: CoreSource, progress: Progress) -> Entry:
        key = self._core_cache_key(source)
        return load_or_build(self.cache, key, lambda folder: build_core(folder, source, progress))

    def _core_cache_key(self, source: CoreSource) -> str:
        return digest(self._core_key(source), source.stamps())

    def _core_ids(self, split: str, subject: int | None, options: LoadOptions) -> list[str]:
        if subject is None:
            known = self.expectations.subjects
            subject = max(self.subjects or known, key=lambda s: known[s].sessions)
        source = self.core_source(subject, options)
        train, test = split_rows(source.trials, options.shared, source.facts.sessions)
        images = np.unique(source.trials.image[train if split == "train" else test])
        return [str(i) for i in image_ids(images)]

    # NSD-Imagery

    def _imagery_split(self, split: str, subject: int, options: LoadOptions, progress: Progress) -> Trials:
        key = self._imagery_key(subject, options)
        source = self._stats_source(subject, options)
        stats: Stats | None = None
        times = stamps(imagery_files(self.layout, subject, options))
        if source is not None:
            times += source.stamps()
            core = self._core_entry(source, progress)
            stats = np.array(core.arrays["mean"]), np.array(core.arrays["std"])
        entry = load_or_build(
            self.cache,
            digest(key, times),
            lambda folder: build_imagery(
                folder, self.layout, self.expectations, subject, options=options, stats=stats
            ),
        )
        provenance = self._provenance(entry, key, options) | {
            "normalization": options.imagery_norm,
            "label_source": options.label_source,
            "imagery_runs": options.imagery_runs,
        }
        provenance["warnings"] += check_label_source(options.label_source)
        return imagery_trials(entry, split, subject, options, provenance)

    def _imagery_key(self, subject: int, options: LoadOptions) -> str:
        self.require(subject, options)
        o, source = options, self._stats_source(subject, options)
        stats_key = self._core_key(source) if source is not None else None
        choices = ("imagery", o.beta_version, o.imagery_norm, o.voxel_order, o.roi, stats_key)
        return self._key(choices, subject, fingerprints(imagery_files(self.layout, subject, options)))

    def _stats_source(self, subject: int, options: LoadOptions) -> CoreSource | None:
        """Return the core trials whose mean and deviation standardize the imagery session, if the options say so."""
        if options.imagery_norm != "core_train_stats":
            return None
        source = self.core_source(subject, replace(options, core_norm="train_stats"))
        if source.normalized:
            raise ProtocolError(
                "imagery_norm core_train_stats needs percent signal change of core trials; the prepared MindEye2 "
                "betas are standardized already",
                remedy="Fetch the raw session betas (`nsdbench data fetch --for train --source bucket`), or use run_z.",
            )
        return source

    # shared

    def require(self, subject: int, options: LoadOptions) -> None:
        """Raise a DataError unless the data set knows the subject and the beta version."""
        self.expectations.of(subject)
        if options.beta_version not in self.expectations.beta_versions:
            known = ", ".join(self.expectations.beta_versions)
            raise DataError(
                f"data set {self.id} has no betas {options.beta_version}", remedy=f"Choose from: {known}."
            )

    def _key(self, choices: tuple[Any, ...], subject: int, prints: list[str]) -> str:
        facts = dict(self.marker) if self.marker else self.content_hash
        return digest(LOADER_VERSION, choices, facts, subject, prints)

    def _provenance(self, entry: Entry, key: str, options: LoadOptions) -> dict[str, Any]:
        return {
            "dataset": self.id,
            "dataset_hash": self.content_hash,
            "loader_version": LOADER_VERSION,
            "beta_version": options.beta_version,
            "averaging": "none",
            "voxel_order": options.voxel_order,
            "roi": options.roi,
            "n_voxels": int(entry.arrays["rois"].shape[1]),
            "hashes": {"content": key, **entry.facts.get("hashes", {})},
            "warnings": list(entry.facts["warnings"]),
        }
