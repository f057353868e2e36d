"""``nsdbench oracle``: what a decoder makes of true features, to see whether its networks are the right ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nsdbench.adapters import registry
from nsdbench.adapters.base import Adapter, Context
from nsdbench.adapters.nets.shipped import located
from nsdbench.errors import DataError, UsageError
from nsdbench.pretraining.corpus import held_out_stimuli
from nsdbench.pretraining.sheet import contact_sheet
from nsdbench.reconstructions import read_targets
from nsdbench.schema import RunKey
from nsdbench.scoring import ScoreSettings, score
from nsdbench.store import atomic_path
from nsdbench.types import Progress, Reconstructions, Silent, Stimuli

EXPECTED = 0.5
"""Mean pixel correlation below which copies are taken to be wrong. On ten simulated scenes the five miniature decoders
reach .71 to .91, and their copies .10 with the other scenes."""
SCENES_SEED = 0


@dataclass(frozen=True)
class Copy:
    """How like its image a copy is.

    Attributes
    ----------
    image : str
        Id of the image.
    pixcorr, ssim : float
        As the benchmark scores them.
    other : float
        Mean pixel correlation of the copy with the other images: what a copy of nothing would have.
    """

    image: str
    pixcorr: float
    ssim: float
    other: float


@dataclass(frozen=True)
class Verification:
    """Copies of some images, and how good they are.

    Attributes
    ----------
    model, preset : str
    stimuli : Stimuli
    made : Reconstructions
        One sample per image.
    copies : tuple of Copy
    """

    model: str
    preset: str
    stimuli: Stimuli
    made: Reconstructions
    copies: tuple[Copy, ...]

    @property
    def mean(self) -> Copy:
        """The mean over all images."""
        columns = ((c.pixcorr, c.ssim, c.other) for c in self.copies)
        return Copy("mean", *np.mean(list(columns), axis=0).tolist())

    def save_sheet(self, path: Path) -> None:
        """Write a picture of the images and their copies."""
        rows = {
            "image": [self.stimuli.image(name) for name in self.made.targets],
            "copy": list(self.made.images[:, 0]),
        }
        with atomic_path(path) as temporary:
            contact_sheet(rows, len(self.copies)).save(temporary, "PNG", optimize=True)


def chosen(model: str, preset: str | None, images: Path | None) -> tuple[type[Adapter], str]:
    """Return the decoder and the preset to verify: for scenes ``mini``, for photographs the first one.

    Raises
    ------
    UsageError
        If the model or preset is unknown, or would be shown images of a world that is not its own.
    """
    adapter = registry.load(registry.one(model))
    preset = preset or ("mini" if images is None and "mini" in adapter.presets else adapter.presets[0])
    adapter(preset)  # raises the error that lists the presets
    if not adapter.verifiable():
        raise UsageError(f"{adapter.name} makes no images of features, so there is nothing to verify")
    if images is None and preset != "mini":
        raise UsageError(
            f"preset {preset} of {adapter.name} needs photographs",
            remedy="Give a folder of square PNG or JPEG files with --images.",
        )
    return adapter, preset


def read_images(folder: Path | None, n: int) -> Stimuli:
    """Return the first ``n`` images of a folder, by default held-out scenes of the simulated world.

    A text file beside an image, of the same name, holds its captions, one per line; some decoders need them.

    Raises
    ------
    DataError
        If the folder holds fewer than two images, or one that is damaged or not square.
    """
    if folder is None:
        return held_out_stimuli(n, SCENES_SEED)
    found = read_targets(folder, n)
    if len(found.ids) < 2:
        raise DataError(
            f"{folder} holds one image; copies are compared with other images, so give at least two"
        )
    texts = {name: folder / f"{name}.txt" for name in found.ids}
    return replace(found, captions={name: _lines(path) for name, path in texts.items() if path.is_file()})


def verify(
    adapter: type[Adapter],
    preset: str,
    stimuli: Stimuli,
    context: Context,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verification:
    """Encode images, decode them without brain data, and compare.

    Raises
    ------
    WeightsError
        If pretrained networks of the decoder are missing; nothing has been computed then.
    DataError
        If the decoder cannot read an image, or lacks its caption.
    """
    progress = progress or Silent()
    located(adapter.requires.get(preset, ()), context.weights_dir)
    decoder = adapter(preset, context)
    made = decoder.copies(stimuli, stimuli.ids, seed=seed, progress=progress)
    copies = _compared(made, stimuli, RunKey("oracle", "oracle", adapter.name, preset, 0, "vision"))
    return Verification(adapter.name, preset, stimuli, made, copies)


def _compared(made: Reconstructions, stimuli: Stimuli, key: RunKey) -> tuple[Copy, ...]:
    items = score(made, stimuli, key, settings=ScoreSettings(("pixcorr", "ssim"))).items.to_pylist()
    found = {(row["stimulus"], row["metric"]): row for row in items}
    return tuple(
        Copy(
            name,
            found[name, "pixcorr"]["value"],
            found[name, "ssim"]["value"],
            found[name, "pixcorr"]["floor"],
        )
        for name in stimuli.ids
    )


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})", remedy="Save it as UTF-8 text.") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())
