"""Features of images: one decode, one resize and one forward pass each, ground truths cached by content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nsdbench.errors import DataError, WeightsError
from nsdbench.metrics.metric import Features
from nsdbench.metrics.nets.network import FeatureNet
from nsdbench.metrics.profiles import Profile
from nsdbench.metrics.resize import Views
from nsdbench.store import atomic_path, digest
from nsdbench.types import Progress, Stimuli

CACHE_FORMAT = "features/1"
Node = tuple[str, str]  # (source, node)


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
        """Return the wanted features of a batch, float32 arrays of shape (n, ...).

        Raises
        ------
        WeightsError
            If a value is NaN or infinite.
        """
        activations = self.extract(views)
        found = {(self.name, node): activations[node].float().cpu().numpy() for node in self.nodes}
        for (_, node), values in found.items():
            if not np.isfinite(values).all():
                raise WeightsError(
                    f"{self.name} gives values at {node} that are not finite",
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
        return self.folder / f"{digest(CACHE_FORMAT, images, weights, node, 'float32')}.npy"


def truth_features(
    stimuli: Stimuli,
    pool: Sequence[str],
    wanted: Sequence[Source],
    profile: Profile,
    cache: TruthCache,
    *,
    batch_size: int,
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
        batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        with contextlib.ExitStack() as stack:
            files = {
                node: stack.enter_context(stack.enter_context(atomic_path(path)).open("wb"))
                for node, path in missing.items()
            }
            for batch in progress.track(batches, "ground-truth features"):
                views = Views([square_image(stimuli, i) for i in batch], profile, truth=True)
                for source in todo:
                    for node, values in source(views).items():
                        if node in files:
                            _append(files[node], values, len(pool))
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
