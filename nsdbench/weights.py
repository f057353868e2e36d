"""Which weights metrics and models use, where their files are, and whether they are the right ones."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nsdbench.download import download
from nsdbench.errors import UsageError, WeightsError
from nsdbench.store import cache_root, read_json, sha256_file, write_json
from nsdbench.types import Progress, Silent

WEIGHTS_VARIABLE = "NSDBENCH_WEIGHTS"
PINS, HASHES = "pins.json", ".hashes.json"
TORCHVISION = "https://download.pytorch.org/models/"
BSD = "BSD-3-Clause (torchvision); trained on ImageNet-1k"
HUGGING_FACE = "https://huggingface.co/"
FIGSHARE = "https://figshare.com/ndownloader/files/"


@dataclass(frozen=True)
class Weights:
    """One weights file.

    Attributes
    ----------
    id : str
        Name in nsdbench; results made with the file carry it (or ``same_as``).
    filename : str
        Name in the weights folder.
    url : str
        Where the authors publish it.
    licence : str
        Licence or terms, as far as the authors state them.
    source : str
        What it is: architecture, training data, publication.
    used_by : tuple of str
        Metrics that need it under their canonical profile.
    sha256 : str or None
        Full hash, or None if nobody published one: then the first file seen is pinned.
    sha256_prefixes : tuple of str
        First hex digits that the hash may have, for files that carry them in their name.
    md5 : str or None
        Full MD5, where the authors publish that alone; compared before the SHA-256 is pinned.
    size : int or None
        Size in bytes, where known.
    same_as : str or None
        Id of the weights that this file repackages in another format; it is used when that one is absent.
    """

    id: str
    filename: str
    url: str
    licence: str
    source: str
    used_by: tuple[str, ...] = ()
    sha256: str | None = None
    sha256_prefixes: tuple[str, ...] = ()
    md5: str | None = None
    size: int | None = None
    same_as: str | None = None

    def accepts(self, sha256: str) -> bool:
        """Whether a file with this hash can be the published one."""
        return sha256.startswith((self.sha256,) if self.sha256 else self.sha256_prefixes or "")

    @property
    def expected(self) -> str:
        """The published hash in words."""
        return self.sha256 or " or ".join(f"{prefix}..." for prefix in self.sha256_prefixes)


def _torchvision(id: str, filename: str, source: str, used_by: tuple[str, ...] = ()) -> Weights:
    prefix = Path(filename).stem.rpartition("-")[2]
    return Weights(id, filename, TORCHVISION + filename, BSD, source, used_by, sha256_prefixes=(prefix,))


def _diffusers(id: str, path: str, licence: str, source: str) -> Weights:
    return Weights(id, id + Path(path).suffix, HUGGING_FACE + path, licence, source)


_OPENRAIL = "CreativeML OpenRAIL-M; the hub may ask for its acceptance"
_VERSATILE_LICENCE = "MIT (shi-labs/versatile-diffusion)"
_CLIP_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_ENTRIES = (
    _torchvision(
        "alexnet-imagenet1k-v1",
        "alexnet-owt-7be5be79.pth",
        "torchvision AlexNet, ImageNet-1k classification",
        ("alexnet2", "alexnet5", "lpips"),
    ),
    _torchvision(
        "inception-v3-imagenet1k-v1",
        "inception_v3_google-0cc3c7bd.pth",
        "torchvision Inception-v3, ImageNet-1k classification (converted from TensorFlow)",
        ("inception",),
    ),
    _torchvision(
        "efficientnet-b1-imagenet1k-v2",
        "efficientnet_b1-c27df63c.pth",
        "torchvision EfficientNet-B1, ImageNet-1k classification, second recipe",
        ("effnet",),
    ),
    _torchvision(
        "efficientnet-b1-imagenet1k-v1",
        "efficientnet_b1_rwightman-bac287d4.pth",
        "torchvision EfficientNet-B1, ImageNet-1k classification, ported from timm; profile brain-diffuser",
    ),
    Weights(
        "efficientnet-b1-imagenet1k-v1-old-name",
        "efficientnet_b1_rwightman-533bc792.pth",
        TORCHVISION + "efficientnet_b1_rwightman-533bc792.pth",
        BSD,
        "the same under its name before torchvision 0.16",
        # torchvision renamed these files because the old names did not match their content (pytorch/vision 8036)
        sha256_prefixes=("bac287d4", "533bc792"),
        same_as="efficientnet-b1-imagenet1k-v1",
    ),
    Weights(
        "clip-vit-l14-openai",
        "ViT-L-14.pt",
        f"https://openaipublic.azureedge.net/clip/models/{_CLIP_SHA256}/ViT-L-14.pt",
        "MIT (openai/CLIP)",
        "OpenAI CLIP ViT-L/14, 400 million image-text pairs; TorchScript archive",
        ("clip",),
        sha256=_CLIP_SHA256,
    ),
    Weights(
        "clip-vit-l14-openai-open-clip",
        "clip-vit-l14-openai.open_clip.safetensors",
        HUGGING_FACE + "timm/vit_large_patch14_clip_224.openai/resolve/main/open_clip_model.safetensors",
        "MIT (openai/CLIP)",
        "the same in open_clip's layout",
        same_as="clip-vit-l14-openai",
    ),
    Weights(
        "clip-vit-l14-openai-transformers",
        "clip-vit-l14-openai.transformers.safetensors",
        HUGGING_FACE + "openai/clip-vit-large-patch14/resolve/main/model.safetensors",
        "MIT (openai/CLIP)",
        "the same in the layout of Hugging Face transformers",
        same_as="clip-vit-l14-openai",
    ),
    Weights(
        "swav-resnet50-800ep",
        "swav_800ep_pretrain.pth.tar",
        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
        "CC BY-NC 4.0 (facebookresearch/swav)",
        "SwAV ResNet-50, 800 epochs on ImageNet-1k without labels (arXiv 2006.09882)",
        ("swav",),
    ),
    Weights(
        "vdvae-imagenet64-ema",
        "imagenet64-iter-1600000-model-ema.th",
        "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets-2/"
        "imagenet64-iter-1600000-model-ema.th",
        "MIT for the code (openai/vdvae); not stated for the weights",
        "VDVAE on ImageNet at 64 x 64 pixels, running mean of the weights (arXiv 2011.10650); 500 MB",
    ),
    Weights(
        "vgg19-caffe",
        "VGG_ILSVRC_19_layers.zip",
        FIGSHARE + "38225868",
        "not stated",
        "VGG19 as trained in Caffe (arXiv 1409.1556), and the contrast of its features; Kamitani Lab",
        md5="49f4d6dbf1024f33149352dfd309dc4d",
    ),
    Weights(
        "fc7-generator",
        "bvlc_reference_caffenet_generator_ILSVRC2012_Training.zip",
        FIGSHARE + "38361230",
        "not stated",
        "image generators of Dosovitskiy & Brox 2016 (arXiv 1602.02644); Kamitani Lab",
        md5="bf9d4de43782cb019de733ed7cf84926",
    ),
    _diffusers(
        "stable-diffusion-v1-4-unet",
        "CompVis/stable-diffusion-v1-4/resolve/main/unet/diffusion_pytorch_model.safetensors",
        _OPENRAIL,
        "Stable Diffusion 1.4, denoiser of image latents under a text (arXiv 2112.10752)",
    ),
    _diffusers(
        "stable-diffusion-v1-4-vae",
        "CompVis/stable-diffusion-v1-4/resolve/main/vae/diffusion_pytorch_model.safetensors",
        _OPENRAIL,
        "Stable Diffusion 1.4, autoencoder",
    ),
    _diffusers(
        "versatile-diffusion-image-unet",
        "shi-labs/versatile-diffusion/resolve/main/image_unet/diffusion_pytorch_model.bin",
        _VERSATILE_LICENCE,
        "Versatile Diffusion, denoiser of image latents under an image (arXiv 2211.08332); 3.4 GB",
    ),
    _diffusers(
        "versatile-diffusion-text-unet",
        "shi-labs/versatile-diffusion/resolve/main/text_unet/diffusion_pytorch_model.bin",
        _VERSATILE_LICENCE,
        "Versatile Diffusion, its counterpart under a text; only the attention layers are used; 6.8 GB",
    ),
    _diffusers(
        "versatile-diffusion-vae",
        "shi-labs/versatile-diffusion/resolve/main/vae/diffusion_pytorch_model.bin",
        _VERSATILE_LICENCE,
        "Versatile Diffusion, autoencoder",
    ),
)
REGISTRY: Mapping[str, Weights] = {entry.id: entry for entry in _ENTRIES}


@dataclass(frozen=True)
class Located:
    """A weights file that was found and whose hash was checked."""

    weights: Weights
    path: Path
    sha256: str


@dataclass(frozen=True)
class Status:
    """What :func:`verify` found out about one file; ``detail`` is one line for people."""

    id: str
    filename: str
    status: Literal["ok", "missing", "bad"]
    detail: str
    sha256: str | None = None


def folder(given: Path | None = None) -> Path:
    """Return the weights folder: ``given``, else ``$NSDBENCH_WEIGHTS``, else ``weights`` in the cache."""
    return given if given is not None else _default_folder()


def _default_folder() -> Path:
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named) if named else cache_root() / "weights"


def entry(id: str) -> Weights:
    """Return the registered weights ``id``.

    Raises
    ------
    UsageError
        If there are none.
    """
    if id not in REGISTRY:
        raise UsageError(f"there are no weights {id!r}", remedy=f"Known ids: {', '.join(REGISTRY)}.")
    return REGISTRY[id]


def for_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of the weights that these metrics need, without repeats; pixel metrics need none."""
    wanted = set(metrics)
    return tuple(w.id for w in REGISTRY.values() if wanted.intersection(w.used_by))


def require(ids: Iterable[str], folder: Path) -> None:
    """Check that all these weights are in ``folder``, without reading them.

    Raises
    ------
    WeightsError
        If some are not there: one message that names every file, and one command that gets them all.
    """
    missing = [wanted for wanted in map(entry, ids) if _present(wanted, folder) is None]
    if missing:
        where = "" if folder == _default_folder() else f" --weights-dir {shlex.quote(str(folder))}"
        addresses = "".join(f"\n     {wanted.filename}: {wanted.url}" for wanted in missing)
        raise WeightsError(
            f"{len(missing)} weights file{'s' if len(missing) > 1 else ''} missing in {folder}: "
            + ", ".join(wanted.filename for wanted in missing),
            remedy=f"Run `nsdbench weights fetch {' '.join(wanted.id for wanted in missing)}{where}`, or download "
            f"and put there:{addresses}",
        )


def _present(wanted: Weights, folder: Path) -> Weights | None:
    """Return the entry whose file is in ``folder``: the wanted one, or else one that repackages it."""
    candidates = (wanted, *(w for w in REGISTRY.values() if w.same_as == wanted.id))
    return next((w for w in candidates if (folder / w.filename).is_file()), None)


def locate(id: str, folder: Path) -> Located:
    """Return the file of weights ``id`` after checking its hash.

    If the file itself is absent, a repackaged one (``same_as``) is taken.

    Raises
    ------
    WeightsError
        If no file is there (the message says which, where, and how to get it), or its hash is wrong.
    """
    require([id], folder)
    found = _present(entry(id), folder) or entry(id)
    path = folder / found.filename
    return Located(found, path, checked_sha256(found, path))


def checked_sha256(weights: Weights, path: Path) -> str:
    """Return the SHA-256 of ``path``, a file of ``weights``, after comparing it with the registry and the pins.

    Weights without a published full hash are pinned on first use: the hash is written to ``pins.json`` beside
    them, and another file under the same name is refused from then on. Hashes are remembered by size and time
    of modification, so that large files are read once.

    Raises
    ------
    WeightsError
        If the file is not the published or the pinned one.
    """
    sha256 = _remembered_sha256(path)
    wrong = _mismatch(weights, sha256, path)
    if wrong:
        raise WeightsError(
            f"{path} is not the right file: {wrong}",
            remedy=f"Delete it and run `nsdbench weights fetch {weights.id}`.",
        )
    if weights.sha256 is None:
        _update(path.parent / PINS, weights.filename, sha256)
    return sha256


def _mismatch(weights: Weights, sha256: str, path: Path) -> str:
    """Say why the file ``path`` with this hash cannot be taken for ``weights``; empty if it can."""
    if not weights.accepts(sha256):
        return f"its sha256 is {sha256}, the published file has {weights.expected}"
    pins = path.parent / PINS
    pinned = _read(pins).get(weights.filename)
    if pinned is None and weights.md5 and (md5 := _md5(path)) != weights.md5:
        return f"its md5 is {md5}, the published file has {weights.md5}"
    return "" if pinned in (None, sha256) else f"its sha256 is {sha256}, but {pins} holds {pinned}"


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(id: str, folder: Path, *, progress: Progress | None = None, base_url: str | None = None) -> Path:
    """Download weights ``id`` into ``folder`` and return the path; a file that is already right is kept.

    Interrupted downloads continue where they stopped if a published hash can prove the result. The file gets
    its name only after size and hash were checked.

    Parameters
    ----------
    id : str
        Id of the weights.
    folder : Path
        Weights folder; made if necessary.
    progress : Progress, optional
        Told about every MiB.
    base_url : str, optional
        Mirror that holds the files under their names in the registry.

    Raises
    ------
    WeightsError
        If the download fails or delivers another file.
    """
    weights = entry(id)
    path = folder / weights.filename
    if path.is_file():
        checked_sha256(weights, path)
        return path
    url = f"{base_url.rstrip('/')}/{weights.filename}" if base_url else weights.url
    provable = bool(weights.sha256 or weights.sha256_prefixes or weights.md5)
    # nothing could prove that two halves belong together, nor keep two processes from mixing theirs
    part = folder / f".{weights.filename}{'' if provable else '.' + secrets.token_hex(6)}.part"
    download(url, part, progress=progress or Silent())
    sha256 = sha256_file(part)
    wrong = _mismatch(weights, sha256, part)
    if weights.size is not None and part.stat().st_size != weights.size:
        wrong = f"it has {part.stat().st_size} bytes instead of {weights.size}"
    if wrong:
        part.unlink()
        raise WeightsError(
            f"{url} delivered another file: {wrong}", remedy="Nothing was kept. Try another --mirror."
        )
    part.replace(path)
    checked_sha256(weights, path)
    return path


def verify(given: Path | None = None) -> list[Status]:
    """Return the state of the registered files in the weights folder (see :func:`folder`).

    Of repackaged files only those that are present are listed, and where one is, the original may be absent.
    """
    where = folder(given)
    present = {w.id for w in REGISTRY.values() if (where / w.filename).is_file()}
    replaced = {REGISTRY[id].same_as for id in present}
    return [
        _status(w, where / w.filename)
        for w in REGISTRY.values()
        if w.id in present or not (w.same_as or w.id in replaced)
    ]


def _status(weights: Weights, path: Path) -> Status:
    if not path.is_file():
        return Status(weights.id, path.name, "missing", f"not in {path.parent}")
    try:
        sha256 = checked_sha256(weights, path)
    except WeightsError as error:
        return Status(weights.id, path.name, "bad", error.message)
    proof = (
        "as published" if weights.sha256 or weights.sha256_prefixes or weights.md5 else "pinned on first use"
    )
    return Status(weights.id, path.name, "ok", f"sha256 {sha256[:12]}..., {proof}", sha256)


def _remembered_sha256(path: Path) -> str:
    facts = path.stat()
    stamp = [facts.st_size, facts.st_mtime_ns]
    known = _read(path.parent / HASHES).get(path.name)
    if isinstance(known, dict) and known.get("stamp") == stamp:
        return str(known["sha256"])
    sha256 = sha256_file(path)
    _update(path.parent / HASHES, path.name, {"stamp": stamp, "sha256": sha256})
    return sha256


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is not a table of file names", remedy="Delete it; it is made again.")
    return found


def _update(path: Path, name: str, value: Any) -> None:
    table = _read(path)
    if table.get(name) == value:
        return
    with _unless_read_only():  # a folder shared by an administrator: results carry the hash anyway
        write_json(path, table | {name: value})


@contextlib.contextmanager
def _unless_read_only() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
