"""Parameters of the simulated dataset: presets, validation, content hash, text form."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from nsdbench.errors import UsageError
from nsdbench.store import digest

SIM_VERSION = 1
"""Generator version: +1 whenever the same parameters would give other files."""

PresetName = Literal["tiny", "default", "large"]


@dataclass(frozen=True)
class Preset:
    """Sizes that go together.

    Attributes
    ----------
    n_shared, n_own : int
        Images that all subjects see, and further images of each subject.
    voxel_divisor : int
        nsdgeneral holds the real voxel count divided by this.
    subjects : tuple of int
        Subjects that exist unless the configuration names others.
    """

    n_shared: int
    n_own: int
    voxel_divisor: int
    subjects: tuple[int, ...]

    @property
    def n_seen(self) -> int:
        """Distinct images per subject; three presentations of each fill whole sessions."""
        return self.n_shared + self.n_own

    @property
    def n_sessions(self) -> int:
        """Core sessions of 750 trials."""
        return 3 * self.n_seen // TRIALS_PER_SESSION


TRIALS_PER_SESSION = 750
_FACTORS = ("snr", "isnr", "cue", "scene_gain")
PRESETS: dict[str, Preset] = {
    "tiny": Preset(n_shared=60, n_own=190, voxel_divisor=24, subjects=(1, 7)),
    "default": Preset(n_shared=100, n_own=650, voxel_divisor=8, subjects=(1, 2, 5, 7)),
    "large": Preset(n_shared=250, n_own=2000, voxel_divisor=2, subjects=(1, 2, 5, 7)),
}


@dataclass(frozen=True)
class SimConfig:
    """What determines every byte of a simulated dataset.

    Attributes
    ----------
    preset : {"tiny", "default", "large"}
        Numbers of images, voxels and sessions.
    seed : int
        Root of all random draws, 0 or greater.
    snr : float
        Factor on the noise-ceiling SNR of every voxel; 0 leaves no signal at all, in no session.
    isnr : float
        Factor on the imagery gains; 0 leaves imagery trials without image content.
    cue : float
        Strength of the response to the cue letter on screen.
    scene_gain : float
        Gain of the high-level regions for the six scenes of set B, seen again and again in one run. 1 means no
        adaptation; see docs/sim.md for the calibration.
    subjects : tuple of int, optional
        Subjects 1..8; None takes those of the preset.
    """

    preset: PresetName = "default"
    seed: int = 0
    snr: float = 1.0
    isnr: float = 1.0
    cue: float = 0.25
    scene_gain: float = 0.4
    subjects: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(
                f"sim has no preset {self.preset!r}", remedy=f"Choose one of {', '.join(PRESETS)}."
            )
        if self.seed < 0:
            raise UsageError(f"sim: seed is {self.seed}", remedy="Give an integer of 0 or more.")
        for name in _FACTORS:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"sim: {name} is {value}", remedy="Give a finite number of 0 or more.")
        chosen = self.effective_subjects
        if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(1, 9)):
            raise UsageError(f"sim: subjects are {chosen}", remedy="Name different subjects from 1 to 8.")

    @property
    def sizes(self) -> Preset:
        """The preset's sizes."""
        return PRESETS[self.preset]

    @property
    def effective_subjects(self) -> tuple[int, ...]:
        """The subjects that exist, ascending."""
        return tuple(sorted(self.sizes.subjects if self.subjects is None else self.subjects))

    @property
    def n_images(self) -> int:
        """Rows of ``imgBrick``."""
        return self.sizes.n_shared + self.sizes.n_own * len(self.effective_subjects)

    def parameters(self) -> dict[str, Any]:
        """Return all effective parameters, JSON-ready."""
        numbers = {
            name: float(getattr(self, name)) for name in _FACTORS
        }  # 0 and 0.0 are the same configuration
        return {**asdict(self), **numbers, "subjects": list(self.effective_subjects)}

    def hash(self) -> str:
        """Return the digest of the generator version and all effective parameters."""
        return digest("sim", SIM_VERSION, self.parameters(), asdict(self.sizes))


def parse_config(text: str) -> SimConfig:
    """Return the configuration written as ``sim``, ``sim:tiny`` or ``sim:preset=tiny,snr=0,seed=3``.

    Several subjects are joined by ``+``: ``sim:tiny,subjects=1+2``.

    Raises
    ------
    UsageError
        For another dataset name, an unknown or repeated key (near keys are suggested) or a value out of range.
    """
    name, _, options = text.partition(":")
    if name != "sim":
        raise UsageError(
            f"{text!r} is not a simulated dataset", remedy="Write sim, sim:tiny or sim:snr=0.5,seed=3."
        )
    values: dict[str, Any] = {}
    for item in filter(None, options.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            key, value = "preset", item
        if key in values:
            raise UsageError(f"sim: {key} is given twice in {text!r}", remedy="Give each key once.")
        values[key] = _value(key, value)
    return SimConfig(**values)


def _value(key: str, text: str) -> Any:
    known = [field.name for field in fields(SimConfig)]
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or known
        raise UsageError(f"sim has no parameter {key!r}", remedy=f"Did you mean {', '.join(near)}?")
    try:
        if key == "preset":
            return text
        if key == "seed":
            return int(text)
        if key == "subjects":
            return tuple(int(part) for part in text.split("+"))
        return float(text)
    except ValueError:
        form = {"seed": "an integer", "subjects": "subject numbers such as 1+2"}.get(key, "a number")
        raise UsageError(
            f"sim: {key}={text} is not {form}", remedy=f"Write {key}= followed by {form}."
        ) from None
