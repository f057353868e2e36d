"""``nsdbench report``: results as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nsdbench.cli import options
from nsdbench.cli.output import Bars, Verbose, emit_json


def register(app: typer.Typer) -> None:
    """Add the verb to ``app``."""
    app.command("report", epilog="Example: nsdbench report runs/ --out report")(report)


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders, folders of runs, leaderboard directories or files. Default: ./runs."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where index.html goes.")] = Path("report"),
    published: Annotated[
        bool, typer.Option("--published", help="Add the published results, in tables of their own.")
    ] = False,
    no_stimuli: Annotated[
        bool,
        typer.Option("--no-stimuli", help="Leave out target images and models that show stimuli themselves."),
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the target images are. Default: the data set that the runs name."
        ),
    ] = None,
    gallery_targets: Annotated[
        int, typer.Option(min=1, metavar="N", help="Targets shown per split, chosen evenly by id.")
    ] = 12,
    gallery_samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples shown per target, the first ones.")
    ] = 3,
    gallery_subject: Annotated[
        int | None,
        typer.Option(min=1, max=8, metavar="N", help="Whose reconstructions. Default: the first subject."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    verbose: Verbose = False,
) -> None:
    """Write a page with tables, plots and a gallery, for any browser and without network.

    DIR/index.html holds everything. With results on real NSD data it contains
    stimuli and must stay on your computer; --no-stimuli leaves them out.
    """
    from nsdbench import report as pages

    choice = pages.Choice(gallery_targets, gallery_samples, gallery_subject, not no_stimuli, data_dir)
    made = pages.write(
        options.result_paths(paths, "report", published=published),
        out,
        published=published,
        choice=choice,
        progress=Bars(),
    )
    if json:
        document = {
            "page": str(made.path),
            "bytes": made.path.stat().st_size,
            "models": list(made.models),
            "notes": list(made.notes),
        }
        emit_json(document)
    else:
        print(made.path)
