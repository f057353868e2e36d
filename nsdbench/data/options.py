"""The choices a reader of the data must make, with the benchmark's defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

from nsdbench.data.facts import BetaVersion
from nsdbench.data.rois import Roi, VoxelOrder
from nsdbench.errors import UsageError


@dataclass(frozen=True)
class LoadOptions:
    """How betas are prepared. Every field is recorded in ``Trials.provenance``.

    Attributes
    ----------
    beta_version : {"b3", "b2", "b1"}
        GLM preparation: GLMsingle with denoising and ridge (b3), library HRF (b2), assumed HRF (b1, core only).
    imagery_norm : {"run_z", "none", "core_train_stats"}
        NSD-Imagery betas standardized within each run over all its rows, left in percent signal change, or
        standardized by the mean and deviation of the core training trials.
    core_norm : {"train_stats", "session_z", "none"}
        Core betas standardized by statistics of the non-shared trials, pooled over sessions or per session.
    imagery_runs : {"all", "1", "2"}
        Both imagery runs of a set or one of them; the first repeats the trial order of the vision run, so the
        second alone is a control.
    average : {"mean", "none"}
        Average the repeats of a target (never applied to training trials).
    label_source : {"condition", "cue"}
        Name vision rows by the image shown or, to reproduce a suspected practice, by the letter on the screen.
    shared : {1000, 982, 515}
        Test-set definition, which also fixes the sessions that are used: all; all but the last three; the
        first 30 with only images seen three times in them.
    voxel_order : {"xyz_c", "zyx_c"}
        Column order: C-order walk of the (X, Y, Z) or of the (Z, Y, X) mask.
    roi : {"nsdgeneral", "streams"}
        Which ROI volume selects the voxels (label > 0).
    """

    beta_version: BetaVersion = "b3"
    imagery_norm: Literal["run_z", "none", "core_train_stats"] = "run_z"
    core_norm: Literal["train_stats", "session_z", "none"] = "train_stats"
    imagery_runs: Literal["all", "1", "2"] = "all"
    average: Literal["mean", "none"] = "mean"
    label_source: Literal["condition", "cue"] = "condition"
    shared: Literal[1000, 982, 515] = 1000
    voxel_order: VoxelOrder = "xyz_c"
    roi: Roi = "nsdgeneral"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            choices = get_args(hints[field.name])
            value = getattr(self, field.name)
            if value not in choices:
                raise UsageError(
                    f"{field.name} cannot be {value!r}",
                    remedy=f"Choose from: {', '.join(map(str, choices))}.",
                )
