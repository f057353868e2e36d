"""Which files a purpose needs, about how large they are, and which of them are there. Nothing here opens a network."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from nsdbench.data.design import sessions_used
from nsdbench.data.facts import IMAGERY_ROWS, Expectations, runs, table, targets
from nsdbench.data.layout import Layout, forms
from nsdbench.data.options import LoadOptions
from nsdbench.data.prepared import IMAGES_NAME, INDEX_NAME, SHARED_NAME, require_plain
from nsdbench.data.session import target_names
from nsdbench.data.stimuli import CAPTION_FILES
from nsdbench.data.voxelstore import open_store
from nsdbench.errors import DataError, UsageError

Purpose = Literal["imagery", "train", "shared1000", "captions"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
Source = Literal["bucket", "mindeye2"]
SOURCES: tuple[Source, ...] = get_args(Source)
PREPARED_REPO = "pscotti/mindeyev2"
CAPTIONS_REPO = "pscotti/naturalscenesdataset"
PREPARED_FOLDER = "mindeyev2"
_DEFAULTS = LoadOptions()
SESSION = re.compile(r"/betas_session(\d\d)\.hdf5$")
_SIDE, _PREPARED_SIDE = 425, 224  # pixels of the released core images and of MindEye2's copy
_INDEX_BYTES = 65.3  # of HDF5's chunk index, per voxel: fits six released files to 0.01 MiB
# Sizes of small files that we know only roughly; a server's answer replaces them.
_MASK, _TABLE, _PAIRS, _PICTURE, _DESIGN, _CSV, _RESPONSES = (
    62_000,
    7_000,
    500,
    200_000,
    600_000,
    13_000_000,
    4_000_000,
)


@dataclass(frozen=True)
class Need:
    """One file that a purpose needs.

    Attributes
    ----------
    key : str
        Path below the data root; for files of the public bucket also their key there.
    about : int
        Size in bytes: computed from the grid for betas and images, a rough guess for small files, 0 if unknown.
    why : str
        What the file is for, in a few words.
    optional : bool
        The loader works without it.
    repo : str or None
        The data set repository on the hub that holds the file under its name; None means the public bucket.
    stand_in : str or None
        Path below the root of a compact store that may hold the same session, see ``nsdbench.data.voxelstore``.
    """

    key: str
    about: int
    why: str
    optional: bool = False
    repo: str | None = None
    stand_in: str | None = None


def needs(
    root: Path,
    expectations: Expectations,
    purposes: Collection[Purpose],
    subject: int,
    options: LoadOptions = _DEFAULTS,
    *,
    source: Source | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[Need, ...]:
    """Return every file that the purposes need of a subject, whether it is there or not.

    Parameters
    ----------
    root : Path
        Directory of the data set; it need not exist.
    expectations : Expectations
        The real NSD, or what a marker file declares.
    purposes : collection of {"imagery", "train", "shared1000", "captions"}
        ``imagery`` serves the splits vision and imagery; ``train`` the fitting on core trials and ``shared1000`` the
        test split of core NSD, whose trials lie in the same session files; ``captions`` the COCO captions that some
        models are fitted on.
    source : {"bucket", "mindeye2"}, optional
        Where core trials come from. None follows the loader: raw session files, unless there are none and MindEye2's
        prepared betas of the subject are.
    names : mapping of str to str, optional
        Name of each target by its id, for a generated data set whose pair lists are not on disk; without them, its
        target images are left out.

    Raises
    ------
    DataError, UsageError, ProtocolError
        If the data set has no such subject or beta version, or the options cannot be served from the source.
    """
    _check(expectations, purposes, subject, options)
    chosen = source or _source(Layout(root), subject, options)
    wanted = _Wanted(Layout(root), expectations, subject, options, names)
    found: list[Need] = []
    if "imagery" in purposes:
        found += wanted.imagery()
        if options.imagery_norm == "core_train_stats":
            found += wanted.sessions()
    if {"train", "shared1000"} & set(purposes):
        found += wanted.raw_core() if chosen == "bucket" else wanted.prepared_core()
    if found:
        found = [*wanted.volumes(), *found]
    if "captions" in purposes:
        found += wanted.captions()
    return unique(found)


def missing(root: Path, wanted: Iterable[Need]) -> tuple[Need, ...]:
    """Return the needs whose files are not under ``root``.

    A beta file counts as there if its NIfTI twin is, or if a compact store holds the session.
    """
    return tuple(need for need in wanted if not is_there(root, need))


def is_there(root: Path, need: Need) -> bool:
    """Return True if the file of a need, or what stands in for it, is under ``root``."""
    path = root / need.key
    if path.is_file():
        return True
    if path.name.startswith("betas_") and need.repo is None:
        return bool(forms(path.with_suffix(""))) or in_store(root, need)
    return False


def in_store(root: Path, need: Need) -> bool:
    """Return True if a compact store holds the session of a need; a damaged store holds none."""
    match = SESSION.search(need.key)
    if need.stand_in is None or match is None:
        return False
    try:
        store = open_store(root / need.stand_in)
    except DataError:
        return False
    return store is not None and store.holds([int(match.group(1))])


def total(wanted: Iterable[Need], *, optional: bool = True) -> int:
    """Return about how many bytes the needs are together."""
    return sum(need.about for need in wanted if optional or not need.optional)


def _check(
    expectations: Expectations, purposes: Collection[Purpose], subject: int, options: LoadOptions
) -> None:
    expectations.of(subject)
    version = options.beta_version
    if version not in expectations.beta_versions:
        raise DataError(
            f"data set {expectations.dataset} has no betas {version}",
            remedy=f"Choose from: {', '.join(expectations.beta_versions)}.",
        )
    if "imagery" in purposes and version == "b1":
        raise UsageError("NSD-Imagery has no betas b1", remedy="Choose b2 or b3.")


def _source(layout: Layout, subject: int, options: LoadOptions) -> Source:
    """Return the layout that the loader would read core trials from; the bucket's where there is none."""
    if layout.prepared_betas(subject) is None or forms(layout.core_betas(subject, 1, options.beta_version)):
        return "bucket"
    return "mindeye2"


def unique(found: Iterable[Need]) -> tuple[Need, ...]:
    """Return one need per key, required if one of several is."""
    by_key: dict[str, Need] = {}
    for need in found:
        first = by_key.setdefault(need.key, need)
        if first.optional and not need.optional:
            by_key[need.key] = replace(first, optional=False)
    return tuple(by_key.values())


def beta_bytes(grid: tuple[int, int, int], rows: int) -> int:
    """Return the size of a beta HDF5: int16 values and a chunk index, ``voxels * (2 rows + 65.3)``."""
    x, y, z = grid
    return round(x * y * z * (2 * rows + _INDEX_BYTES))


@dataclass(frozen=True)
class _Wanted:
    """The needs of one subject, by part."""

    layout: Layout
    expectations: Expectations
    subject: int
    options: LoadOptions
    names: Mapping[str, str] | None

    def volumes(self) -> Iterator[Need]:
        """The mask, and the volumes that name regions."""
        general, *regions = self.layout.rois(self.subject)
        yield self._need(general, _MASK, "voxel mask")
        for path in regions:
            chosen = path.name == f"{self.options.roi}.nii.gz"
            yield self._need(path, _MASK, "voxel mask" if chosen else "regions", optional=not chosen)
        yield self._need(self._anatomy("brainmask"), _MASK, "check of voxels", optional=True)

    def imagery(self) -> Iterator[Need]:
        """Betas, tables, pair lists and target images of the NSD-Imagery session."""
        layout, facts = self.layout, self.expectations.of(self.subject)
        betas = layout.imagery_betas(self.subject, self.options.beta_version).with_suffix(".hdf5")
        yield self._need(betas, beta_bytes(facts.grid, IMAGERY_ROWS), "NSD-Imagery betas")
        for run in runs():
            yield self._need(layout.run_table(self.subject, run.name), _TABLE, "trial labels")
        yield from self._pair_lists()
        for path in self._pictures():
            yield self._need(path, _PICTURE, "target image")
        yield self._need(self._anatomy("valid_nsdimagery"), _MASK, "check of voxels", optional=True)
        yield self._need(layout.imagery_design, 30_000, "check of the design", optional=True)

    def sessions(self) -> Iterator[Need]:
        """Raw core betas and what tells their trials apart."""
        layout, facts, version = self.layout, self.expectations.of(self.subject), self.options.beta_version
        yield self._need(layout.design, _DESIGN, "trial design")
        yield self._need(layout.pair_list("B"), _PAIRS, "target names")
        about = beta_bytes(facts.grid, self.expectations.trials_per_session)
        store = layout.store(self.subject, version, self.options.roi).relative_to(layout.root).as_posix()
        for k in range(1, sessions_used(self.options.shared, facts.sessions) + 1):
            path = layout.core_betas(self.subject, k, version)
            need = self._need(path.with_name(f"{path.name}.hdf5"), about, "core betas")
            yield replace(need, stand_in=store)

    def raw_core(self) -> Iterator[Need]:
        """Core trials and images as released."""
        layout, expectations = self.layout, self.expectations
        yield from self.sessions()
        pixels = expectations.n_images * _SIDE**2 * 3 if expectations.real else 0
        yield self._need(layout.images, pixels, "core images")
        yield self._need(layout.stim_info, _CSV if expectations.real else 0, "image table", optional=True)
        responses = layout.responses(self.subject)
        yield self._need(responses, _RESPONSES if expectations.real else 0, "check of trials", optional=True)

    def prepared_core(self) -> Iterator[Need]:
        """Core trials and images as MindEye2 prepared them."""
        require_plain(self.options)
        facts, n_images = self.expectations.of(self.subject), self.expectations.n_images
        trials = facts.sessions * self.expectations.trials_per_session
        folder = self.layout.prepared or self.layout.root / PREPARED_FOLDER
        index = (
            8
            * self.expectations.trials_per_session
            * sum(f.sessions for f in self.expectations.subjects.values())
        )
        files = {
            f"betas_all_subj{self.subject:02d}_fp32_renorm.hdf5": (4 * trials * facts.n_voxels, "core betas"),
            INDEX_NAME: (index, "images of trials"),
            SHARED_NAME: (128 + n_images, "test images"),
            IMAGES_NAME: (n_images * 3 * _PREPARED_SIDE**2 * 2, "core images"),
        }
        for name, (about, why) in files.items():
            if name == IMAGES_NAME and self.layout.images.is_file():
                yield self._need(self.layout.images, self.layout.images.stat().st_size, why)
                continue
            yield replace(self._need(folder / name, about, why), repo=PREPARED_REPO)
        yield self._need(self.layout.design, _DESIGN, "check of trials", optional=True)
        yield self._need(self.layout.pair_list("B"), _PAIRS, "target names")

    def captions(self) -> Iterator[Need]:
        """COCO captions of the core images; a generated data set has its own in the image table."""
        if not self.expectations.real:
            yield self._need(self.layout.stim_info, 0, "captions")
            return
        places = [p for p in (self.layout.prepared, self.layout.root) if p]
        there = [path for p in places for name in CAPTION_FILES if (path := p / name).is_file()]
        path = there[0] if there else self.layout.root / CAPTION_FILES[0]
        yield replace(self._need(path, 0, "captions"), repo=CAPTIONS_REPO)

    def _pair_lists(self) -> Iterator[Need]:
        for stimulus_set in "ABC":
            yield self._need(self.layout.pair_list(stimulus_set), _PAIRS, "target names")

    def _pictures(self) -> Iterator[Path]:
        names = self.names or self._known_names()
        for target in targets():
            if target.has_image and target.id in names:
                yield self.layout.target_folder(target.stimulus_set) / f"{names[target.id]}.png"

    def _known_names(self) -> Mapping[str, str]:
        if self.expectations.real:
            return {
                row["stimulus_set"] + row["target_number"]: row["target_name"].removesuffix(".png")
                for row in table("targets")
            }
        there = all(self.layout.pair_list(stimulus_set).is_file() for stimulus_set in "ABC")
        return target_names(self.layout) if there else {}

    def _anatomy(self, name: str) -> Path:
        return self.layout.anatomy(self.subject) / f"{name}.nii.gz"

    def _need(self, path: Path, about: int, why: str, *, optional: bool = False) -> Need:
        return Need(path.relative_to(self.layout.root).as_posix(), about, why, optional)
