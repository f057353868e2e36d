"""Cluster files: what they mean, and which are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nsdbench.errors import DataError, UsageError
from nsdbench.execution.cluster import _KEYS, Cluster, Resources, read_cluster

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "cluster.toml"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read_text(text: str, **options: Any) -> Cluster:
        path = tmp_path / "cluster.toml"
        path.write_text(text)
        return read_cluster(path, **options)

    return read_text


def test_the_example_in_the_docs_says_what_its_comments_say() -> None:
    cluster = read_cluster(EXAMPLE)
    setup = ("module load cuda", "export NSDBENCH_WEIGHTS=$HOME/weights")
    options = (("constraint", "a100|h100"), ("no-requeue", True))
    usual = {"account": "vision-lab", "setup": setup, "options": options}
    assert cluster.resources("fit", "takagi") == Resources(
        1, 8, 64 * 1024, 8 * 60, "gpu", parallel=16, **usual
    )
    assert cluster.resources("score", "takagi") == Resources(1, 4, 32 * 1024, 90, "gpu", parallel=16, **usual)
    assert cluster.resources("publish", "") == Resources(0, 1, 4096, 30, "cpu", **usual)
    assert cluster.resources("fit", "ridge") == Resources(0, 8, 64 * 1024, 120, "cpu", parallel=16, **usual)
    assert cluster.resources("fit", "mindeye2").minutes == 36 * 60
    assert cluster.resources("fit", "mindeye2").memory_mb == 128 * 1024
    assert cluster.resources("reconstruct", "mindeye2") == cluster.resources("reconstruct", "takagi")


def test_without_a_file_only_stages_with_a_model_get_the_gpus() -> None:
    cluster = Cluster.default(gpus=2)
    stages = ("fit", "reconstruct", "score", "publish")
    assert [cluster.resources(stage, "ridge").gpus for stage in stages] == [2, 2, 2, 0]


def test_the_more_special_table_wins_and_options_add_up(read: Any) -> None:
    cluster = read(
        'cpus = 2\noptions = {a = 1, b = 1}\n[fit]\ncpus = 3\noptions.b = 2\n[models.ridge]\ncpus = 4\n'
        "[models.ridge.fit]\ncpus = 5\noptions = {c = true}\n"
    )  # fmt: skip
    assert cluster.resources("score", "icnn").cpus == 2
    assert cluster.resources("fit", "icnn").cpus == 3
    assert cluster.resources("score", "ridge").cpus == 4
    assert cluster.resources("fit", "ridge").cpus == 5
    assert cluster.resources("fit", "ridge").options == (("a", "1"), ("b", "2"), ("c", True))


def test_resources_can_be_compared_and_hashed_to_group_tasks(read: Any) -> None:
    cluster = read("options = {b = 1, a = 2}\n[models.icnn]\noptions = {a = 2}\n")
    assert len({cluster.resources("fit", "ridge"), cluster.resources("fit", "icnn")}) == 1


def test_the_number_of_gpus_can_come_from_outside(read: Any) -> None:
    assert read("cpus = 2", gpus=0).resources("fit", "ridge").gpus == 0
    assert read("gpus = 3", gpus=0).resources("fit", "ridge").gpus == 3


@pytest.mark.parametrize(
    ("value", "minutes"),
    [("90", 90), ('"1:30:00"', 90), ('"0:00:30"', 1), ('"2-12"', 3600), ('"1-0:30"', 1470), ('"100:00:00"', 6000)],
)  # fmt: skip
def test_times_are_read_as_slurm_reads_them(read: Any, value: str, minutes: int) -> None:
    assert read(f"time = {value}").resources("fit", "ridge").minutes == minutes


@pytest.mark.parametrize(
    ("value", "megabytes"), [("64GB", 65536), ("1.5G", 1536), ("800 mb", 800), ("1T", 1048576)]
)
def test_memory_is_counted_in_slurms_units(read: Any, value: str, megabytes: int) -> None:
    assert read(f'memory = "{value}"').resources("fit", "ridge").memory_mb == megabytes


@pytest.mark.parametrize(
    ("text", "where", "remedy"),
    [
        ("memroy = '4GB'", "memroy means", "memory"),
        ("[ffit]\ncpus = 1", "ffit means", "fit"),
        ("[fit]\ngpu = 1", "fit.gpu means", "gpus"),
        ("[models.mindeye-2]\ngpus = 1", "models.mindeye-2", "mindeye2"),
        ("[models.ridge.publish]\ngpus = 1", "models.ridge.publish means", "Known here"),
        ("fit = 3", "fit is a value", r"\[fit\]"),
        ("models = 3", "models is a value", r"\[models\]"),
        ("gpus = -1", "gpus is -1", "whole number from 0"),
        ("cpus = 0", "cpus is 0", "whole number from 1"),
        ("cpus = true", "cpus is True", "whole number"),
        ("gpus = 1.5", "gpus is 1.5", "whole number"),
        ("memory = 64", "memory is 64", "64GB"),
        ("memory = '0GB'", "memory is", "64GB"),
        ("time = '1:30'", "time is '1:30'", "1:30:00"),
        ("time = '0:00:00'", "time is", "1:30:00"),
        ("time = 0", "time is 0", "minutes"),
        ("setup = 'module load cuda'", "setup is", "list of lines"),
        ("partition = ''", "partition is", "quotation marks"),
        ('account = "a\\nb"', "account is", "quotation marks"),
        ("options = 3", "options is 3", "table"),
        ("options = {mem = '4G'}", "options is", "`memory`"),
        ("options = {cpus_per_task = 3}", "options is", "`cpus`"),
        ("[fit]\noptions = {array = '1-3'}", "fit.options is", "nsdbench sets it"),
        ("options = {nice = false}", "options is", "true if it is a flag"),
    ],
)
def test_what_means_nothing_is_refused_with_file_key_and_remedy(
    read: Any, tmp_path: Path, text: str, where: str, remedy: str
) -> None:
    with pytest.raises(UsageError, match=where) as caught:
        read(text)
    assert str(tmp_path / "cluster.toml") in caught.value.message
    assert re.search(remedy, caught.value.remedy)


def test_models_of_plug_ins_can_have_a_table(read: Any) -> None:
    assert read("[models.our_decoder]\ngpus = 4").resources("fit", "our_decoder").gpus == 4


def test_a_file_that_is_missing_or_no_toml_is_a_named_error(read: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_cluster(tmp_path / "absent.toml")
    with pytest.raises(DataError, match="not valid TOML"):
        read("cpus = = 1")
    (tmp_path / "latin.toml").write_bytes(b"partition = '\xe9'")
    with pytest.raises(DataError, match="not valid TOML"):
        read_cluster(tmp_path / "latin.toml")


def test_the_page_explains_every_key_and_names_the_defaults() -> None:
    rows = re.findall(
        r"^\| `(\w+)`(?:, `(\w+)`, `(\w+)`)? \|", EXAMPLE.with_suffix(".md").read_text(), re.MULTILINE
    )
    explained = {key for row in rows for key in row if key}
    assert explained == set(_KEYS)
    assert (Resources().cpus, Resources().memory_mb, Resources().minutes) == (8, 64 * 1024, 12 * 60)
