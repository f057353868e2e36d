"""A request as a JSON document, so that a process on another machine can work on the same cells."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nsdbench import protocol
from nsdbench.adapters.base import Context
from nsdbench.cells import RunRequest
from nsdbench.errors import DataError
from nsdbench.scoring import ScoreSettings
from nsdbench.types import Progress

if TYPE_CHECKING:
    from nsdbench.data import Dataset

C = TypeVar("C")


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: the options ``--dataset``, ``--data-dir`` and ``--cache`` as they were given."""

    name: str
    data_dir: Path | None = None
    cache: Path | None = None

    def open(self, progress: Progress | None = None) -> tuple[Dataset, str]:
        """Open the data set, see :func:`nsdbench.protocol.resolve_dataset`."""
        return protocol.resolve_dataset(self.name, self.data_dir, cache=self.cache, progress=progress)


@dataclass(frozen=True)
class Order:
    """What the tasks of a job need to know.

    Attributes
    ----------
    request : RunRequest
    source : Source
    dataset_hash : str
        Content hash of the data set when the job was made.
    folder : Path
        Working directory, from which relative paths are meant.
    """

    request: RunRequest
    source: Source
    dataset_hash: str
    folder: Path

    @classmethod
    def of(cls, request: RunRequest, source: Source, dataset: Dataset) -> Order:
        """Return the order of a request that was made in the present working directory."""
        return cls(request, source, dataset.content_hash, Path.cwd())

    def dataset(self, progress: Progress | None = None) -> Dataset:
        """Open the data set, and make sure that it is still the same.

        Raises
        ------
        DataError
            If it has changed since the job was made.
        """
        dataset, _ = self.source.open(progress)
        if dataset.content_hash != self.dataset_hash:
            raise DataError(
                f"the data set in {dataset.root} has changed since the job was made",
                remedy="Run the same command again.",
            )
        return dataset

    def enter(self) -> None:
        """Make the folder of the order the working directory of this process."""
        os.chdir(self.folder)

    def document(self) -> dict[str, Any]:
        """Return the order as :func:`nsdbench.store.write_json` takes it; :func:`read` gets it back."""
        return asdict(self)


def read(document: Mapping[str, Any]) -> Order:
    """Return the order that :meth:`Order.document` described.

    Raises
    ------
    DataError
        If it is none.
    """
    from nsdbench.data import LoadOptions

    try:
        request = dict(document["request"])
        request["load"] = LoadOptions(**request["load"])
        request["scoring"] = _restored(ScoreSettings, request["scoring"], ("weights_dir", "cache"))
        request["context"] = _restored(
            Context, request["context"], ("weights_dir", "start", "scratch", "features")
        )
        return Order(
            request=_restored(RunRequest, request, ("out", "leaderboard")),
            source=_restored(Source, document["source"], ("data_dir", "cache")),
            dataset_hash=document["dataset_hash"],
            folder=Path(document["folder"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"not the order of a job: {error}", remedy="Run the same command again.") from error


def _restored(kind: type[C], document: Mapping[str, Any], paths: Collection[str]) -> C:
    """Return a dataclass from its fields as JSON has them: lists were tuples, and some texts were paths."""
    values = {field.name: document[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return kind(**{n: Path(v) if n in paths and v is not None else v for n, v in values.items()})
