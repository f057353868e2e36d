"""What the tasks of each stage and model ask a cluster for, from defaults and a small TOML file.

The more special table wins: ``[models.NAME.STAGE]``, then ``[models.NAME]``, ``[STAGE]``, the top of the file, the defaults.
``publish`` belongs to no model and needs no GPU: of the top of the file, only what admits a job to the cluster counts for it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nsdbench.adapters import registry
from nsdbench.errors import DataError, UsageError

STAGES = ("fit", "reconstruct", "score", "publish")
NOT_FOR_PUBLISH = ("gpus", "cpus", "memory_mb", "minutes", "parallel")
OWN_OPTIONS = ("array", "dependency", "error", "job-name", "open-mode", "output", "requeue", "signal", "wrap")
"""Options of sbatch that the executor needs for itself; ``no-requeue`` is free."""
KEYS_OF_OPTIONS = {
    "account": "account", "cpus-per-task": "cpus", "gpus": "gpus", "gpus-per-node": "gpus", "mem": "memory",
    "partition": "partition", "qos": "qos", "time": "time",
}  # fmt: skip
_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([MGT])B?", re.IGNORECASE)
_IN_MB = {"M": 1, "G": 1024, "T": 1024**2}
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Resources:
    """What one array of tasks asks for; arrays are made of tasks that ask for the same.

    Attributes
    ----------
    gpus, cpus : int
        Of a task.
    memory_mb : int
        Main memory of a task, in MiB.
    minutes : int
        After which Slurm ends a task.
    partition, account, qos : str or None
        None: the default of the site.
    setup : tuple of str
        Lines of bash that precede a task, such as ``module load cuda``.
    python : str or None
        Command that starts Python on a node; None: this interpreter.
    parallel : int or None
        How many tasks of an array run at once; None: as many as fit.
    options : tuple of (str, str or True)
        Further options of sbatch without their dashes; True: a flag.
    """

    gpus: int = 1
    cpus: int = 8
    memory_mb: int = 64 * 1024
    minutes: int = 12 * 60
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    setup: tuple[str, ...] = ()
    python: str | None = None
    parallel: int | None = None
    options: tuple[tuple[str, str | bool], ...] = ()


@dataclass(frozen=True)
class Cluster:
    """Resources by stage and model.

    Attributes
    ----------
    base, publish : Resources
        The defaults of tasks with a model, and of the one without.
    common : mapping
        What the top of the file changes.
    stages : mapping of str to mapping
        What ``[STAGE]`` changes.
    models : mapping of (str, str) to mapping
        What ``[models.NAME.STAGE]`` changes, and under the stage ``""`` what ``[models.NAME]`` does.
    """

    base: Resources = Resources()
    publish: Resources = Resources(gpus=0, cpus=1, memory_mb=4096, minutes=30)
    common: Settings = field(default_factory=dict)
    stages: Mapping[str, Settings] = field(default_factory=dict)
    models: Mapping[tuple[str, str], Settings] = field(default_factory=dict)

    @classmethod
    def default(cls, gpus: int) -> Cluster:
        """Return what is asked for without a file: tasks with a model get ``gpus`` GPUs."""
        return cls(Resources(gpus=gpus))

    def resources(self, stage: str, model: str) -> Resources:
        """Return what a task of ``stage`` asks for; ``model`` does not matter for ``publish``."""
        if stage == "publish":
            admission = {k: v for k, v in self.common.items() if k not in NOT_FOR_PUBLISH}
            return _changed(self.publish, admission, self.stages.get(stage, {}))
        of_model = (self.models.get((model, which), {}) for which in ("", stage))
        return _changed(self.base, self.common, self.stages.get(stage, {}), *of_model)


def _changed(base: Resources, *changes: Settings) -> Resources:
    """Apply changes one after the other; options add up, everything else replaces."""
    merged: dict[str, Any] = {}
    options: dict[str, str | bool] = {}
    for change in changes:
        merged |= change
        options |= dict(change.get("options", ()))
    return replace(base, **{**merged, "options": tuple(sorted(options.items()))})


def read_cluster(path: Path, *, gpus: int = 1) -> Cluster:
    """Read a cluster file.

    Parameters
    ----------
    path : Path
        TOML; docs/cluster.md lists its keys.
    gpus : int
        Of tasks with a model, where the file does not say.

    Raises
    ------
    DataError
        If there is no such file or it is not TOML.
    UsageError
        If it holds a key that means nothing, or a value that cannot be.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"the cluster file {path} cannot be read ({error.strerror})",
            remedy="docs/cluster.toml is an example.",
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is not valid TOML: {error}", remedy="Correct that line.") from error
    return _Reader(path).cluster(document, gpus)


class _Reader:
    """Turns the tables of a file into settings; every complaint names file, table and key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cluster(self, document: Mapping[str, Any], gpus: int) -> Cluster:
        tables = {key: value for key, value in document.items() if key in (*STAGES, "models")}
        common = {key: value for key, value in document.items() if key not in tables}
        by_model = self._table(tables.pop("models", {}), "models")
        models: dict[tuple[str, str], Settings] = {}
        for name, value in by_model.items():
            self._require_model(name)
            table = self._table(value, f"models.{name}")
            of_stages = {key: table[key] for key in STAGES[:-1] if key in table}
            rest = {key: v for key, v in table.items() if key not in of_stages}
            models[name, ""] = self._settings(rest, f"models.{name}", STAGES[:-1])
            for stage, settings in of_stages.items():
                models[name, stage] = self._settings(settings, f"models.{name}.{stage}")
        return replace(
            Cluster.default(gpus),
            common=self._settings(common, "", (*STAGES, "models")),
            stages={stage: self._settings(value, stage) for stage, value in tables.items()},
            models=models,
        )

    def _require_model(self, name: str) -> None:
        """Refuse what looks like a misspelt model; the names of plug-ins are not all known before they are loaded."""
        known = registry.table()
        near = [] if name in known else difflib.get_close_matches(name.replace("-", "_"), known, n=1)
        if near:
            raise UsageError(
                f"{self.path}: [models.{name}] names no known model", remedy=f"Did you mean {near[0]}?"
            )

    def _table(self, value: object, name: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise UsageError(
                f"{self.path}: {name} is a value, not a table", remedy=f"Begin it with a line [{name}]."
            )
        return value

    def _settings(self, value: object, table: str, tables: Collection[str] = ()) -> Settings:
        found = {}
        for key, raw in self._table(value, table).items():
            where = f"{table}.{key}" if table else key
            if key not in _KEYS:
                raise UsageError(
                    f"{self.path}: {where} means nothing here", remedy=_nearest(key, (*_KEYS, *tables))
                )
            name, convert = _KEYS[key]
            try:
                found[name] = convert(raw)
            except (TypeError, ValueError) as error:
                raise UsageError(f"{self.path}: {where} is {raw!r}", remedy=f"{error}") from None
        return found


def _nearest(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}Known here: {', '.join(known)}. Other options of sbatch go into `options`."


# conversions of single values; what they raise is the remedy


def _count(least: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"Write a whole number from {least}.")
        return value

    return convert


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError('Write a text in quotation marks, such as "gpu".')
    return value


def _lines(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise ValueError('Write a list of lines, such as ["module load cuda"].')
    return tuple(value)


def _megabytes(value: Any) -> int:
    found = _MEMORY.fullmatch(value) if isinstance(value, str) else None
    amount = int(float(found[1]) * _IN_MB[found[2].upper()]) if found else 0
    if not amount:
        raise ValueError('Write an amount with its unit, such as "64GB" or "800MB".')
    return amount


def _minutes(value: Any) -> int:
    """Read minutes as a number, or a time as Slurm writes it: ``[days-]hours[:minutes[:seconds]]``."""
    complaint = 'Write minutes (90) or a time such as "1:30:00" or "2-12:00:00".'
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    # Slurm takes "1:30" for minutes and seconds and "90" for minutes: without days, only all three parts are clear
    if found is None or (found[1] is None and found[4] is None):
        raise ValueError(complaint)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = (days * 24 + hours) * 60 + minutes + (seconds > 0)
    if not total:
        raise ValueError(complaint)
    return total


def _options(value: Any) -> tuple[tuple[str, str | bool], ...]:
    if not isinstance(value, dict):
        raise TypeError('Write a table, such as {constraint = "a100"}.')
    found: dict[str, str | bool] = {}
    for key, raw in value.items():
        name = key.lstrip("-").replace("_", "-")
        if name in KEYS_OF_OPTIONS:
            raise ValueError(f"Write `{KEYS_OF_OPTIONS[name]}` outside of `options` instead of {key}.")
        if name in OWN_OPTIONS:
            raise ValueError(f"Leave out {key}: nsdbench sets it.")
        if raw is not True and (isinstance(raw, bool) or not isinstance(raw, str | int)):
            raise ValueError(f"Give {key} a text or a number, or true if it is a flag.")
        found[name] = raw if raw is True else str(raw)
    return tuple(sorted(found.items()))


_KEYS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "partition": ("partition", _text),
    "account": ("account", _text),
    "qos": ("qos", _text),
    "gpus": ("gpus", _count(0)),
    "cpus": ("cpus", _count(1)),
    "memory": ("memory_mb", _megabytes),
    "time": ("minutes", _minutes),
    "parallel": ("parallel", _count(1)),
    "setup": ("setup", _lines),
    "python": ("python", _text),
    "options": ("options", _options),
}
"""By key of the file: the attribute of :class:`Resources`, and what makes its value."""
