"""Where the files of a data set lie, by the keys of the public NSD bucket."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from nsdbench.errors import DataError

BETA_FOLDERS = {"b1": "betas_assumehrf", "b2": "betas_fithrf", "b3": "betas_fithrf_GLMdenoise_RR"}
STORE_FOLDER = "nsdbench_prepared"
PREPARED_FOLDERS = (".", "mindeyev2")
_TOP_FOLDERS = ("nsddata", "nsddata_betas", "nsddata_stimuli", PREPARED_FOLDERS[1])
_BETA_SUFFIXES = (".hdf5", ".nii.gz")


@dataclass(frozen=True)
class Layout:
    """Paths below the root of a data set. Nothing here opens a file."""

    root: Path

    # stimuli and design
    @property
    def images(self) -> Path:
        return self.root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"

    @property
    def design(self) -> Path:
        return self.root / "nsddata/experiments/nsd/nsd_expdesign.mat"

    @property
    def stim_info(self) -> Path:
        return self.root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"

    @property
    def imagery_experiment(self) -> Path:
        return self.root / "nsddata/experiments/nsdimagery"

    @property
    def imagery_design(self) -> Path:
        return self.imagery_experiment / "designmatrixGLMsingle.mat"

    def pair_list(self, stimulus_set: str) -> Path:
        return self.imagery_experiment / f"{stimulus_set}_pair_list.mat"

    def target_folder(self, stimulus_set: str) -> Path:
        return self.imagery_experiment / "rawtargetimages" / f"set{stimulus_set}"

    # one subject
    def anatomy(self, subject: int) -> Path:
        return self.root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm"

    def roi(self, subject: int, name: str) -> Path:
        return self.anatomy(subject) / "roi" / f"{name}.nii.gz"

    def rois(self, subject: int) -> tuple[Path, ...]:
        """Return the ROI volumes that the loader reads."""
        return tuple(self.roi(subject, name) for name in ("nsdgeneral", "prf-visualrois", "streams"))

    def responses(self, subject: int) -> Path:
        return self.root / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"

    def run_folder(self) -> Path:
        return self.root / "nsddata/bdata/nsdimagery"

    def run_table(self, subject: int, run_name: str) -> Path:
        return self.run_folder() / f"nsdimagery_subj{subject:02d}_{run_name}.tsv"

    def core_betas(self, subject: int, session: int, version: str) -> Path:
        """Return the core beta file of a session, without suffix."""
        return self._betas(subject) / BETA_FOLDERS[version] / f"betas_session{session:02d}"

    def imagery_betas(self, subject: int, version: str) -> Path:
        """Return the NSD-Imagery beta file, without suffix."""
        return self._betas(subject) / f"nsdimagery{BETA_FOLDERS[version]}" / "betas_nsdimagery"

    def _betas(self, subject: int) -> Path:
        return self.root / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm"

    def store(self, subject: int, version: str, roi: str) -> Path:
        """Return the folder of a subject's compact copy of core betas (:mod:`nsdbench.data.voxelstore`)."""
        return self.root / STORE_FOLDER / f"subj{subject:02d}" / f"{version}-{roi}"

    # MindEye2's prepared core data
    @property
    def prepared(self) -> Path | None:
        """Folder with MindEye2's prepared files, or None."""
        for folder in PREPARED_FOLDERS:
            if next((self.root / folder).glob("betas_all_subj0?_fp32_renorm.hdf5"), None):
                return self.root / folder
        return None

    def prepared_betas(self, subject: int) -> Path | None:
        """Return the prepared betas of a subject, or None if absent."""
        if self.prepared is None:
            return None
        path = self.prepared / f"betas_all_subj{subject:02d}_fp32_renorm.hdf5"
        return path if path.is_file() else None

    # what is there
    def subjects(self) -> tuple[int, ...]:
        """Return the subjects that have betas of any kind."""
        found = [p.parent.name for p in self.root.glob("nsddata_betas/ppdata/subj*/func1pt8mm")]
        found += [p.parent.parent.name for p in self.root.glob(f"{STORE_FOLDER}/subj*/*/store.json")]
        if self.prepared is not None:
            found += [p.name for p in self.prepared.glob("betas_all_subj*_fp32_renorm.hdf5")]
        numbers = (re.search(r"subj(\d\d)", name) for name in found)
        return tuple(sorted({int(match.group(1)) for match in numbers if match}))


def forms(stem: Path) -> tuple[Path, ...]:
    """Return the existing files of a beta stem: HDF5 first, then NIfTI."""
    return tuple(p for s in _BETA_SUFFIXES if (p := stem.with_name(stem.name + s)).is_file())


def find_betas(stem: Path) -> Path:
    """Return the beta file to read: the HDF5, or the NIfTI where the HDF5 is absent.

    Raises
    ------
    DataError
        If neither exists.
    """
    found = forms(stem)
    if not found:
        raise DataError(
            f"betas are missing: {stem}.hdf5 (or .nii.gz)",
            remedy=f"Fetch it: `{fetch_command(stem)}`.",
        )
    return found[0]


def require(path: Path) -> Path:
    """Return ``path``; DataError if it is not a file."""
    if not path.is_file():
        raise DataError(
            f"file is missing: {path}",
            remedy=f"Fetch it: `{fetch_command(path)}`.",
        )
    return path


def fetch_command(path: Path) -> str:
    """Return the command that brings a file of the release (or of MindEye2) to where it belongs.

    For a file of all subjects it names those that have betas on disk, or else the first: without ``--subject``, four would
    be fetched.
    """
    at = next((k for k, part in enumerate(path.parts) if part in _TOP_FOLDERS), None)
    root = path.parent if at is None else Path(*path.parts[:at])
    imagery = "nsdimagery" in str(path) or path.parent.name in ("roi", "func1pt8mm")
    words = [
        "nsdbench data fetch --data-dir",
        shlex.quote(str(root)),
        "--for",
        "imagery" if imagery else "train",
    ]
    subject = re.search(r"subj(\d\d)", str(path))
    chosen = (int(subject.group(1)),) if subject else Layout(root).subjects() or (1,)
    words += ["--subject", ",".join(map(str, chosen))]
    version = next((v for v, folder in BETA_FOLDERS.items() if path.parent.name.endswith(folder)), "b3")
    if version != "b3":
        words += ["--beta-version", version]
    if at is not None and path.parts[at] == PREPARED_FOLDERS[1]:
        words += ["--source mindeye2"]
    return " ".join(words)


def again(path: Path) -> str:
    """Return the remedy for a damaged file."""
    return f"Delete it and fetch it again: `{fetch_command(path)}`."
