"""Features of images: one decode, one resize and one forward pass each, ground truths cached by content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.errors import DataError, WeightsError
from nsdbench.metrics.metric import Features
from nsdbench.metrics.nets.network import FeatureNet
from nsdbench.metrics.profiles import Profile
from nsdbench.metrics.resize import Views
from nsdbench.prefetch import prefetched
from nsdbench.store import atomic_path, digest
from nsdbench.types import Progress, Stimuli

CPU_BATCH = 8  # larger batches are slower on a CPU
_AHEAD = 2  # batches that wait for a GPU
CACHE_FORMAT = "features/1"
Node = tuple[str, str]  # (source, node)
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Source:
    """Something that turns views of images into named features.

    Attributes
    ----------
    name : str
        Name of a network or of a weights-free function.
    nodes : tuple of str
        Nodes that are wanted of it.
    extract : callable
        ``extract(views)`` gives one float32 ``(n, ...)`` tensor per node.
    net : FeatureNet or None
        The network behind it; None for features that are cheap enough not to be cached.
    size : int
        Input side of the network in pixels.
    """

    name: str
    nodes: tuple[str, ...]
    extract: Callable[[Views], Mapping[str, Tensor]]
    net: FeatureNet | None = None
    size: int = 0

    def __call__(self, views: Views) -> dict[Node, NDArray[np.float32]]:
        """Return the wanted features of a batch; see :func:`extract`."""
        return extract((self,), views)


def extract(wanted: Sequence[Source], views: Views) -> dict[Node, NDArray[np.float32]]:
    """Return the features of a batch, float32 arrays of shape (n, ...).

    A GPU gets the work of all networks before the first result is waited for.

    Raises
    ------
    WeightsError
        If a value is NaN or infinite.
    """
    by_network_first = sorted(wanted, key=lambda source: source.net is None)
    outputs = {source.name: source.extract(views) for source in by_network_first}
    nodes = [(source.name, node) for source in wanted for node in source.nodes]
    coming = {(name, node): outputs[name][node].to("cpu", non_blocking=True) for name, node in nodes}
    for gpu in {outputs[name][node].device for name, node in nodes if outputs[name][node].is_cuda}:
        torch.cuda.synchronize(gpu)  # only then have the copies arrived
    found = {node: values.float().numpy() for node, values in coming.items()}
    for (name, node), values in found.items():
        if not np.isfinite(values).all():
            raise WeightsError(
                f"{name} gives values at {node} that are not finite",
                remedy="Its weights are damaged; run `nsdbench weights verify`.",
            )
    return found


def sources(
    wanted: Iterable[Features], profile: Profile, load: Callable[[str], FeatureNet]
) -> tuple[Source, ...]:
    """Return one source per network or function, each with all nodes that any metric wants of it.

    ``load(name)`` is called once per network.
    """
    nodes: dict[str, list[str]] = {}
    functions: dict[str, Callable[[Views], Mapping[str, Tensor]] | None] = {}
    for features in wanted:
        known = nodes.setdefault(features.source, [])
        known += [node for node in features.nodes if node not in known]
        functions[features.source] = features.extract
    return tuple(
        _network(load(name), tuple(nodes[name]), profile.net_size(name), name)
        if function is None
        else Source(name, tuple(nodes[name]), function)
        for name, function in functions.items()
    )


def _network(net: FeatureNet, nodes: tuple[str, ...], size: int, name: str) -> Source:
    def extract(views: Views) -> Mapping[str, Tensor]:
        return net(views.at(size))

    return Source(name, nodes, extract, net, size)


@dataclass(frozen=True)
class Pace:
    """How images go through networks.

    Attributes
    ----------
    batch_size : int
        Images per forward pass.
    ahead : int
        Batches that are decoded and resized in another thread before they are asked for; also batches of features that
        wait to be compared. 0 does one thing after the other.
    pinned : bool
        Whether batches lie in memory from which a GPU copies while it computes.
    """

    batch_size: int
    ahead: int = 0
    pinned: bool = False


def pace(device: str, batch_size: int) -> Pace:
    """Return what suits a torch device.

    On a CPU batches are small and nothing is done ahead: all of it wants the same cores.
    """
    if torch.device(device).type == "cpu":
        return Pace(max(1, min(batch_size, CPU_BATCH)))
    return Pace(max(1, batch_size), _AHEAD, pinned=True)


def each_batch(
    batches: Iterable[Batch],
    images: Callable[[Batch], list[NDArray[np.uint8]]],
    wanted: Sequence[Source],
    profile: Profile,
    pace: Pace,
    *,
    truth: bool,
) -> Iterator[dict[Node, NDArray[np.float32]]]:
    """Yield the features of every batch; ``images`` decodes it. Each stage is ``pace.ahead`` batches before the next.

    Raises
    ------
    WeightsError
        If a network gives values that are not finite.
    """

    def prepare(batch: Batch) -> Views:
        views = Views(images(batch), profile, truth=truth)
        for source in wanted:
            if source.net is not None:
                views.pin(source.size) if pace.pinned else views.at(source.size)
        return views

    views = prefetched(prepare, batches, ahead=pace.ahead)
    return prefetched(lambda batch: extract(wanted, batch), views, ahead=pace.ahead)


@dataclass(frozen=True)
class TruthCache:
    """Where features of ground truths are kept, as one ``.npy`` file per node that is read as a memory map.

    Attributes
    ----------
    folder : Path
        Network features; file names are hashes of images, weights, preprocessing and resizing, so an entry can
        never be stale.
    scratch : Path
        Features that are recomputed in every call; the caller removes this folder.
    """

    folder: Path
    scratch: Path

    def path(
        self, source: Source, node: str, pool: Sequence[str], stimuli: Stimuli, profile: Profile
    ) -> Path:
        """Return the file of one node of one source for the ground truths ``pool``."""
        if source.net is None:
            return self.scratch / f"{source.name}-{node}.npy"
        net = source.net
        images = (stimuli.content_hash, tuple(pool), profile.resize, profile.stage1_truth, source.size)
        weights = (net.name, net.weights_id, net.weights_sha256, net.preprocessing_version)
        arithmetic = {"fp32": "float32", "bf16": "bfloat16"}[profile.precision]
        return self.folder / f"{digest(CACHE_FORMAT, images, weights, node, arithmetic)}.npy"


def truth_features(
    stimuli: Stimuli,
    pool: Sequence[str],
    wanted: Sequence[Source],
    profile: Profile,
    cache: TruthCache,
    *,
    pace: Pace,
    progress: Progress,
) -> dict[Node, NDArray[np.float32]]:
    """Return the features of the ground truths ``pool``, read from the cache or computed into it.

    Returns
    -------
    mapping of (source, node) to float32 array of shape (n_pool, ...)
        Read-only memory maps.

    Raises
    ------
    DataError
        If an image cannot be scored (not a square RGB image) or a cached file is damaged.
    """
    paths = {(s.name, node): cache.path(s, node, pool, stimuli, profile) for s in wanted for node in s.nodes}
    missing = {node: path for node, path in paths.items() if not path.exists()}
    todo = [source for source in wanted if any((source.name, node) in missing for node in source.nodes)]
    if todo:
        step = pace.batch_size
        batches = [pool[i : i + step] for i in range(0, len(pool), step)]

        def decode(ids: Sequence[str]) -> list[NDArray[np.uint8]]:
            return [square_image(stimuli, one) for one in ids]

        with contextlib.ExitStack() as stack:
            files = {
                node: stack.enter_context(stack.enter_context(atomic_path(path)).open("wb"))
                for node, path in missing.items()
            }
            features = each_batch(batches, decode, todo, profile, pace, truth=True)
            for found in progress.track(features, "ground-truth features", len(batches)):
                for node in missing:
                    _append(files[node], found[node], len(pool))
    return {node: _read(path, len(pool)) for node, path in paths.items()}


def square_image(stimuli: Stimuli, stimulus: str) -> NDArray[np.uint8]:
    """Return a ground-truth image, refusing shapes that would have to be stretched."""
    image = stimuli.image(stimulus)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1]:
        raise DataError(
            f"ground truth {stimulus} is {image.dtype} {image.shape}, not a square 8-bit RGB image",
            remedy="Crop or pad it to a square; nsdbench never stretches an image.",
        )
    return image


def _append(file: BinaryIO, values: NDArray[np.float32], n_rows: int) -> None:
    """Append rows to a ``.npy`` file; plain writes, because a full disk kills a process that writes a memory map."""
    if file.tell() == 0:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, *values.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
    file.write(np.ascontiguousarray(values, dtype="<f4").tobytes())


def _read(path: Path, n_rows: int) -> NDArray[np.float32]:
    try:
        values: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise DataError(
            f"cached features {path} are damaged ({error})", remedy="Delete that file."
        ) from error
    if len(values) != n_rows:
        raise DataError(
            f"cached features {path} hold {len(values)} images, not {n_rows}", remedy="Delete that file."
        )
    return values
