"""Errors about absent files name the command that brings them, and that command brings them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsdbench.cli.data import app
from nsdbench.data.layout import Layout, fetch_command

LAYOUT = Layout(Path("/data/my nsd"))


@pytest.mark.parametrize(
    "path",
    [
        LAYOUT.imagery_betas(1, "b3").with_suffix(".hdf5"),
        LAYOUT.imagery_betas(5, "b2").with_suffix(".hdf5"),
        LAYOUT.core_betas(2, 12, "b3").with_suffix(".hdf5"),
        LAYOUT.core_betas(2, 12, "b1").with_suffix(".hdf5"),
        LAYOUT.run_table(7, "visA"),
        LAYOUT.pair_list("A"),
        LAYOUT.target_folder("B") / "shared0385_nsd28752.png",
        LAYOUT.roi(3, "streams"),
        LAYOUT.anatomy(3) / "brainmask.nii.gz",
        LAYOUT.design,
        LAYOUT.images,
        LAYOUT.responses(1),
        LAYOUT.root / "mindeyev2/betas_all_subj01_fp32_renorm.hdf5",
        LAYOUT.root / "mindeyev2/COCO_73k_subj_indices.hdf5",
    ],
    ids=lambda path: path.name,
)
def test_the_command_of_a_remedy_plans_the_file(path: Path) -> None:
    nsdbench, data, *words = shlex.split(fetch_command(path))
    assert (nsdbench, data, words[:3]) == ("nsdbench", "data", ["fetch", "--data-dir", "/data/my nsd"])
    result = CliRunner().invoke(app, [*words, "--offline", "--json"])
    assert result.exception is None, result.exception
    planned = [entry["file"] for entry in json.loads(result.stdout)["files"]]
    assert path.relative_to(LAYOUT.root).as_posix() in planned
