"""What is easy to forget in a mapped package layout."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from nsdbench import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
ROOTS = {"nsdbench": "nsdbench", "adapters": "nsdbench.adapters", "metrics": "nsdbench.metrics"}


def packages_on_disk() -> set[str]:
    found = set()
    for folder, dotted in ROOTS.items():
        for file in (REPOSITORY / folder).rglob("*.py"):
            parts = file.parent.relative_to(REPOSITORY / folder).parts
            if folder == "nsdbench" and parts[:1] in (("adapters",), ("metrics",)):
                continue  # the symlinks
            found.add(".".join((dotted, *parts)))
    return found


def test_every_package_directory_is_listed_for_the_wheel() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) - {"nsdbench.leaderboards"} == packages_on_disk()


def test_the_two_symlinks_point_to_the_mapped_folders() -> None:
    for name in ("adapters", "metrics"):
        link = REPOSITORY / "nsdbench" / name
        assert link.is_symlink()
        assert link.resolve() == REPOSITORY / name


def test_the_version_is_stated_once_and_the_same() -> None:
    assert PROJECT["project"]["version"] == __version__


def test_the_lock_pins_every_dependency_and_names_no_address() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pinned = {re.split(r"==", line)[0].lower().replace("_", "-") for line in lines}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s@/+]+", line) for line in lines)
    extra = PROJECT["project"]["optional-dependencies"]["dev"]
    for requirement in PROJECT["project"]["dependencies"] + extra:
        assert re.split(r"[><=\[]", requirement)[0].lower().replace("_", "-") in pinned


def test_no_module_imports_the_mapped_packages_by_their_folder_name() -> None:
    wrong = re.compile(r"^\s*(from|import) (adapters|metrics)\b", re.MULTILINE)
    for folder in (*ROOTS, "tests", "benchmarks"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            assert not wrong.search(file.read_text()), file
