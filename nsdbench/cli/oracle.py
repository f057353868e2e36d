"""``nsdbench oracle``: whether a decoder's networks give true features back as images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Bars, Verbose, emit_json, say, table

if TYPE_CHECKING:
    from nsdbench.oracle import Verification


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(epilog="Example: nsdbench oracle --model mindeye2 --preset published --images photographs/")(
        oracle
    )


def oracle(
    model: Annotated[str, typer.Option(metavar="NAME", help="Model id, or package.module:Class.")],
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Preset. Default: mini without --images, else the first."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Square PNG or JPEG files, and NAME.txt with captions for models that read text. "
            "Default for preset mini: simulated scenes that no network has seen.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=2, metavar="N", help="How many images.")] = 10,
    at_least: Annotated[
        float | None,
        typer.Option(min=-1, max=1, metavar="R", help="Mean pixel correlation to reach. Default: .5."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Determines every draw.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=options.FILES, help="PNG file: images and copies."),
    ] = None,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Verify a decoder without brain data: images, their true features, images again.

    Near copies are expected. Where the mean pixel correlation stays below
    --at-least, weights or their conversion are wrong: exit code 1. Needs the
    pretrained networks of the model, not the checkpoint of a subject.
    """
    from nsdbench import oracle as verification
    from nsdbench.adapters.base import Context

    adapter, used = verification.chosen(model, preset, images)
    context = Context(options.pick_device(device), weights_dir)
    found = verification.verify(
        adapter, used, verification.read_images(images, n), context, seed=seed, progress=Bars()
    )
    wanted = verification.EXPECTED if at_least is None else at_least
    ok = found.mean.pixcorr >= wanted
    if out is not None:
        found.save_sheet(out)
    if as_json:
        emit_json(_document(found, wanted, ok))
    else:
        _print(found)
        verdict = "as expected" if ok else "too unlike: weights or their conversion are wrong"
        say(
            f"{found.model}-{found.preset}: near copies have a mean pixcorr of at least {wanted:g}; {verdict}"
        )
    if not ok:
        raise typer.Exit(1)


def _document(found: Verification, wanted: float, ok: bool) -> dict[str, object]:
    return {
        "ok": ok,
        "model": found.model,
        "preset": found.preset,
        "at_least": wanted,
        "mean": asdict(found.mean),
        "copies": [asdict(copy) for copy in found.copies],
    }


def _print(found: Verification) -> None:
    rows = [
        [copy.image, *(f"{value:.3f}" for value in (copy.pixcorr, copy.ssim, copy.other))]
        for copy in (*found.copies, found.mean)
    ]
    table(["image", "pixcorr", "ssim", "pixcorr with the other images"], rows)
