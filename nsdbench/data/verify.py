"""Runs every integrity check on a data set and reports each by name, whatever the others find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from nsdbench.data import checks_core as core
from nsdbench.data import checks_files as files
from nsdbench.data import checks_masks as masks
from nsdbench.data import checks_targets as aims
from nsdbench.data import checks_trials as trials
from nsdbench.data.betas import BetaHeader, read_betas, read_header, to_percent
from nsdbench.data.checks_files import OK, Warnings
from nsdbench.data.core import CoreSource, RawCore
from nsdbench.data.dataset import Dataset
from nsdbench.data.design import CoreTrials, split_rows
from nsdbench.data.facts import IMAGERY_ROWS
from nsdbench.data.fetched import RECORD_NAME
from nsdbench.data.imagery import check_dead_rows
from nsdbench.data.layout import find_betas, forms
from nsdbench.data.normalize import Moments
from nsdbench.data.options import LoadOptions
from nsdbench.data.prepared import PreparedCore, read_behaviour, read_index
from nsdbench.data.rois import Roi, Voxels, load_voxels
from nsdbench.data.session import read_session, scene_rows, shown_names, target_names
from nsdbench.data.stimuli import check_brick, find_images
from nsdbench.data.stored import StoredCore
from nsdbench.errors import IntegrityError, NsdbenchError
from nsdbench.types import Progress, Silent

T = TypeVar("T")
Status = Literal["ok", "warning", "failed", "skipped"]
_SAMPLED = 20  # random masked voxels read of every core session, besides the first and the last
_DEFAULTS = LoadOptions()
_SILENT = Silent()


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Attributes
    ----------
    check : str
        Stable name, as in docs/data.md and in ``IntegrityError.check``.
    status : {"ok", "warning", "failed", "skipped"}
        Failed checks make the loader refuse; warnings are recorded with every result.
    message : str
        What was found, empty if all is well.
    where : str
        Part of the data set: ``"data set"`` or a subject with the kind of file.
    """

    check: str
    status: Status
    message: str
    where: str


@dataclass
class _Report:
    """Collects outcomes; one failing check never hides the others."""

    results: list[CheckResult] = field(default_factory=list)

    def run(self, name: str, where: str, check: Callable[[], Warnings]) -> bool:
        """Run a check and return whether what it looked at may be used further."""
        try:
            notes = check()
        except NsdbenchError as error:
            found = error.check if isinstance(error, IntegrityError) else name
            self.results.append(CheckResult(found, "failed", str(error), where))
            return False
        message = "; ".join(note.removeprefix(f"{name}: ") for note in notes)
        self.results.append(CheckResult(name, "warning" if notes else "ok", message, where))
        return True

    def run_if(self, path: Path, name: str, where: str, check: Callable[[], Warnings]) -> bool:
        """Run a check of an optional file; where the file is absent, record that and return False."""
        if path.is_file():
            return self.run(name, where, check)
        self.skip([name], where, f"{path.name} is not there")
        return False

    def obtain(self, name: str, where: str, make: Callable[[], T]) -> T | None:
        """Return what ``make`` reads, or record why it cannot be read and return None."""
        made: list[T] = []

        def check() -> Warnings:
            made.append(make())
            return OK

        self.run(name, where, check)
        return made[0] if made else None

    def skip(self, names: Iterable[str], where: str, reason: str) -> None:
        """Record checks that could not run."""
        self.results += [CheckResult(name, "skipped", reason, where) for name in names]


def verify(
    root: Path,
    subjects: Sequence[int] | None = None,
    *,
    options: LoadOptions = _DEFAULTS,
    progress: Progress = _SILENT,
) -> list[CheckResult]:
    """Run every integrity check that applies to the files under ``root``.

    NSD-Imagery betas are read completely at the masked voxels; of raw core sessions the headers and a sample of
    voxels are read (the loader checks every value when it reads them).

    Parameters
    ----------
    root : Path
        Directory of the data set.
    subjects : sequence of int, optional
        Subjects to check; None means all that have betas.
    options : LoadOptions
        Beta version and test-set definition to check.

    Returns
    -------
    list of CheckResult
        In a fixed order: the data set, then each subject.

    Raises
    ------
    DataError
        If ``root`` is not a data set or lacks a subject or beta version that was asked for.
    """
    dataset = Dataset.open(root)
    chosen = dataset.subjects if subjects is None else tuple(subjects)
    for subject in chosen:
        dataset.require(subject, options)
    report = _Report()
    _verify_experiment(report, dataset)
    for subject in progress.track(chosen, "verifying subjects"):
        _Subject(report, dataset, subject, options, progress).verify()
    return report.results


def _verify_experiment(report: _Report, dataset: Dataset) -> None:
    layout, where, n_images = dataset.layout, "data set", dataset.expectations.n_images
    if (dataset.root / RECORD_NAME).is_file():
        report.run("fetched", where, lambda: files.check_fetched(dataset.root))
    if dataset.expectations.real:
        report.run("object_hash", where, lambda: files.check_object_hashes(dataset.root))
    report.run_if(
        layout.stim_info, "stim_info", where, lambda: core.check_stim_info(layout.stim_info, n_images)
    )
    brick = find_images(layout)
    has_images = report.run_if(brick.path, "image_brick", where, lambda: check_brick(brick, n_images))
    report.run_if(layout.imagery_design, "design_matrix", where, lambda: trials.check_design_matrix(layout))
    if not layout.imagery_experiment.is_dir():
        report.skip(["pair_lists", *_TARGET_CHECKS], where, "nsddata/experiments/nsdimagery is not there")
        return
    if report.obtain("pair_lists", where, lambda: target_names(layout)) is None:
        report.skip(_TARGET_CHECKS, where, "needs the pair lists")
        return
    found = report.run("target_images", where, lambda: aims.check_target_images(layout))
    named = report.run("artwork", where, lambda: aims.check_artwork(layout))
    if found and named and has_images:
        report.run("target_pixels", where, lambda: aims.check_target_pixels(layout))
    else:
        report.skip(["target_pixels"], where, "needs core and target images")


@dataclass(frozen=True)
class _Subject:
    """All checks of one subject."""

    report: _Report
    dataset: Dataset
    subject: int
    options: LoadOptions
    progress: Progress

    def verify(self) -> None:
        """Run them in the order mask, trial tables, NSD-Imagery betas, core."""
        voxels = self._voxels()
        imagery = self.dataset.layout.imagery_betas(self.subject, self.options.beta_version)
        if forms(imagery):
            self._tables()
            self._betas("imagery", [imagery], voxels)
        else:
            self.report.skip(["beta_file"], self._where("imagery"), f"{imagery.name} is not there")
        self._stores()
        try:
            source = self.dataset.core_source(self.subject, self.options)
        except NsdbenchError as error:
            self.report.skip(["core_design"], self._where("core"), error.message)
            return
        if not isinstance(source, RawCore) or source.available():
            self._core(source, voxels)
        else:
            self.report.skip(["core_design"], self._where("core"), "core betas are not there")

    def _where(self, part: str) -> str:
        return f"subject {self.subject}, {part}"

    def _voxels(self) -> Voxels | None:
        layout, where = self.dataset.layout, self._where("masks")
        facts = self.dataset.expectations.of(self.subject)
        voxels = self.report.obtain(
            "roi_values",
            where,
            lambda: load_voxels(layout, self.subject, facts.grid, roi="nsdgeneral", order="xyz_c"),
        )
        if voxels is None:
            self.report.skip(["roi_count", "dead_voxels"], where, "needs the masks")
            return None
        self.report.run("roi_count", where, lambda: masks.check_roi_count(len(voxels), facts.n_voxels))
        self.report.run("dead_voxels", where, lambda: masks.check_valid_volumes(layout, self.subject, voxels))
        return voxels

    def _tables(self) -> None:
        layout, where, report = self.dataset.layout, self._where("trial tables"), self.report
        report.run("row_table", where, trials.check_row_table)
        tables = report.obtain("run_files", where, lambda: read_session(layout, self.subject))
        if tables is None:
            report.skip([*_TABLE_CHECKS, "frame_files", "sequence_hash"], where, "needs the 12 trial tables")
            return
        for name, check in _TABLE_CHECKS.items():
            report.run(name, where, lambda check=check: check(tables))  # type: ignore[misc]
        report.run("frame_files", where, lambda: trials.check_frame_files(tables, shown_names(layout)))
        if self.dataset.expectations.real:
            report.run("sequence_hash", where, lambda: trials.check_sequence_hash(tables))

    def _betas(self, kind: str, stems: Sequence[Path], voxels: Voxels | None) -> None:
        """Check the files of NSD-Imagery, or of all core sessions."""
        where, report, expectations = self._where(kind), self.report, self.dataset.expectations
        headers = report.obtain("beta_file", where, lambda: [read_header(find_betas(stem)) for stem in stems])
        if headers is None:
            report.skip([*_HEADER_CHECKS, *_VALUE_CHECKS], where, "needs readable beta files")
            return
        rows = IMAGERY_ROWS if kind == "imagery" else expectations.trials_per_session
        facts = expectations.of(self.subject)
        outcomes = [
            report.run("beta_rows", where, _each(headers, lambda h: files.check_rows(h, rows))),
            report.run("beta_grid", where, _each(headers, lambda h: files.check_grid(h, facts.grid))),
            report.run("beta_chunks", where, _each(headers, files.check_chunks)),
            report.run(
                "beta_size", where, _each(headers, lambda h: files.check_size(h, real=expectations.real))
            ),
            report.run("nifti_header", where, _each(headers, lambda h: files.check_nifti_header(h, kind))),
        ]
        if voxels is None or not all(outcomes):
            report.skip(_VALUE_CHECKS, where, "needs sound headers and masks")
            return
        twins = [both for both in map(forms, stems) if len(both) == 2]
        if twins:
            report.run(
                "formats_agree", where, _each(twins, lambda t: files.check_formats_agree(t[0], t[1], voxels))
            )
        self._values(kind, headers, voxels)

    def _values(self, kind: str, headers: Sequence[BetaHeader], voxels: Voxels) -> None:
        where, report = self._where(kind), self.report
        chosen = voxels if kind == "imagery" else voxels.subset(_sample(len(voxels)))
        label = f"reading {kind} betas of subject {self.subject}"
        blocks = report.obtain(
            "beta_values",
            where,
            lambda: [
                (h.path, to_percent(read_betas(h.path, chosen))) for h in self.progress.track(headers, label)
            ],
        )
        if blocks is None:
            report.skip(_VALUE_CHECKS[1:], where, "needs readable values")
            return
        report.run("finite", where, _each(blocks, lambda b: files.check_finite(b[1], b[0])))
        report.run("psc_range", where, _each(blocks, lambda b: files.check_range(b[1], b[0])))
        report.run("psc_scale", where, _each(blocks, lambda b: files.check_scale(b[1], b[0])))
        if kind == "imagery":
            report.run("dead_voxels", where, lambda: check_dead_rows(blocks[0][1]))

    def _stores(self) -> None:
        """Compare every compact store that was begun with its hashes, the mask and the raw files."""
        for roi in get_args(Roi):
            options = replace(self.options, roi=roi)
            stored = StoredCore(self.dataset.layout, self.dataset.expectations, self.subject, options)
            if stored.begun:
                self.report.run(
                    "prepared_store", self._where(f"store of {roi}"), partial(self._store, stored)
                )

    def _store(self, stored: StoredCore) -> Warnings:
        voxels, store = stored.voxels, stored.store
        label = f"reading the store of subject {self.subject}"
        for session in self.progress.track(store.blocks, label):
            store.verified(session, stored.raw(session), voxels)
        n, of = len(store.blocks), store.outline.sessions
        return () if n == of else (f"prepared_store: {n} of {of} sessions are prepared",)

    def _core(self, source: CoreSource, voxels: Voxels | None) -> None:
        layout, where, report = self.dataset.layout, self._where("core"), self.report
        known = report.obtain("core_design", where, lambda: source.trials)
        if known is None:
            report.skip(["trial_repeats", "leakage", "test_set", "responses"], where, "needs the design")
        else:
            self._design(source, known)
        if isinstance(source, PreparedCore):
            if known is not None:
                self._prepared(source, known)
            return
        stems = [
            layout.core_betas(self.subject, k, self.options.beta_version)
            for k in range(1, source.sessions + 1)
        ]
        if isinstance(source, StoredCore):
            stems = [stem for stem in stems if forms(stem)]  # it needs none of them
        if stems:
            self._betas("core", stems, voxels)

    def _design(self, source: CoreSource, known: CoreTrials) -> None:
        layout, where, report = self.dataset.layout, self._where("core"), self.report
        report.run("trial_repeats", where, lambda: core.check_trial_repeats(known))
        train, test = split_rows(known, self.options.shared, source.facts.sessions)
        report.run(
            "leakage",
            where,
            lambda: core.check_leakage(
                known.image[train].tolist(), {*known.image[known.shared].tolist(), *scene_rows(layout)}
            ),
        )
        images = len(np.unique(known.image[test]))
        report.run(
            "test_set",
            where,
            lambda: core.check_test_set(images, int(test.sum()), self.options.shared, source.facts),
        )
        responses = layout.responses(self.subject)
        report.run_if(responses, "responses", where, lambda: core.check_responses(responses, known))

    def _prepared(self, source: PreparedCore, known: CoreTrials) -> None:
        where, report = self._where("prepared core"), self.report
        moments = report.obtain("prepared_rows", where, lambda: self._moments(source, known))
        if moments is None:
            report.skip(["prepared_scale"], where, "needs readable prepared betas")
        else:
            report.run("prepared_scale", where, lambda: core.check_prepared_scale(moments.mean, moments.std))
        archives = sorted(source.path.parent.glob(f"wds/subj{self.subject:02d}/*/0.tar"))
        index = read_index(source.index, self.subject)
        if archives:
            report.run(
                "prepared_behav",
                where,
                _each(archives, lambda a: core.check_behaviour_columns(read_behaviour(a), index, a)),
            )
        else:
            report.skip(["prepared_behav"], where, "no webdataset archives are there")

    def _moments(self, source: PreparedCore, known: CoreTrials) -> Moments:
        train, _ = split_rows(known, self.options.shared, source.facts.sessions)
        moments = Moments(source.facts.n_voxels)
        n = source.expectations.trials_per_session
        for session in self.progress.track(range(1, source.sessions + 1), "reading prepared betas"):
            betas, _ = source.read(session)
            moments.add(betas[train[(session - 1) * n : session * n]])
        return moments


_TARGET_CHECKS = ("target_images", "artwork", "target_pixels")
_HEADER_CHECKS = ("beta_rows", "beta_grid", "beta_chunks", "beta_size", "nifti_header")
_VALUE_CHECKS = ("beta_values", "finite", "psc_range", "psc_scale")
_TABLE_CHECKS = {
    "trial_numbers": trials.check_trial_numbers,
    "trial_onsets": trials.check_onsets,
    "run_order": trials.check_run_order,
    "run_letters": trials.check_run_letters,
    "cue_match": trials.check_cue_match,
    "repeat_sequence": trials.check_repeat_sequence,
}


def _each(items: Sequence[T], check: Callable[[T], Warnings]) -> Callable[[], Warnings]:
    """Return one check over several files."""
    return lambda: sum((check(item) for item in items), OK)


def _sample(n: int) -> NDArray[np.int64]:
    """Return the first, the last and some random columns, ascending."""
    rng = np.random.default_rng(np.random.SeedSequence([n, 2]))
    return np.unique([0, n - 1, *rng.integers(0, n, _SAMPLED).tolist()])
