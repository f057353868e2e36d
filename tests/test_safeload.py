"""Reading tensors without running code: formats, faithful values, hostile and damaged files."""

from __future__ import annotations

import collections
import contextlib
import mmap
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from nsdbench import torchzip
from nsdbench.errors import WeightsError
from nsdbench.safeload import load_checkpoint, load_pt, load_state

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Detected pickle protocol")


class Network(nn.Module):
    """Parameters, buffers, nesting, plain attributes, half precision, and a transposed view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.Linear(2, 2).half(), nn.ReLU(), nn.Linear(2, 5).double())
        self.turned = nn.Parameter(torch.arange(12.0).reshape(4, 3).t())
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.sizes = [1, 2]
        self.label = "net"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value)
        for name, value in expected.items()
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    torch.manual_seed(1)
    torch.jit.save(torch.jit.script(Network()), str(path))
    return path


def test_a_torchscript_archive_gives_the_state_dict_of_its_module(tmp_path: Path) -> None:
    net = Network()
    torch.jit.save(torch.jit.script(net), str(tmp_path / "net.pt"))
    assert _same(load_state(tmp_path / "net.pt"), net.state_dict())


def test_a_traced_archive_gives_the_state_dict_of_its_module(tmp_path: Path) -> None:
    net = Network().eval()
    torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3, 4, 4)), str(tmp_path / "net.pt"))
    assert _same(load_state(tmp_path / "net.pt"), net.state_dict())


def test_a_state_dict_is_mapped_from_its_file_and_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.bin"
    torch.save({"image.weight": torch.arange(6.0), "text.weight": torch.ones(2)}, path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("PyTorch reads the file as a whole"))
    (found,) = load_state(path, keep=("image.",)).values()
    assert torch.equal(found, torch.arange(6.0))
    offset = path.read_bytes().index(torch.arange(6.0).numpy().tobytes())
    with path.open("r+b") as handle:  # a mapped number follows its file
        handle.seek(offset)
        handle.write(struct.pack("<f", 9.0))
    assert found[0] == 9.0


def test_an_entry_of_another_kind_goes_to_the_reader_of_pytorch(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "shape": torch.Size([2])}, tmp_path / "net.bin")
    assert _same(load_state(tmp_path / "net.bin"), {"a": torch.ones(2)})


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_state_dict_survives_torch_save(tmp_path: Path, zipped: bool) -> None:
    net = Network()
    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert _same(load_state(tmp_path / "net.pth"), net.state_dict())


def test_a_state_dict_inside_a_training_checkpoint_is_found(tmp_path: Path) -> None:
    net = Network()
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "net.pth.tar")
    assert _same(load_state(tmp_path / "net.pth.tar"), net.state_dict())


def test_safetensors_are_recognized_by_content(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    save_file(state, tmp_path / "net.bin")
    assert _same(load_state(tmp_path / "net.bin"), state)


def test_only_the_wanted_part_is_returned_from_every_format(tmp_path: Path, script: Path) -> None:
    state = {name: value.contiguous() for name, value in Network().state_dict().items()}
    torch.save(state, tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors")
    for path in (script, tmp_path / "net.pth", tmp_path / "net.safetensors"):
        assert set(load_state(path, keep=("conv.", "head.2"))) == {
            "conv.weight", "conv.bias", "head.2.weight", "head.2.bias",
        }  # fmt: skip


class Hostile:
    """Runs a command when an unguarded pickle loader meets it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def _with_structure(source: Path, path: Path, structure: bytes) -> Path:
    """Copy a TorchScript archive with another ``data.pkl``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, structure if name.endswith("/data.pkl") else old.read(name))
    return path


def test_the_hostile_example_is_really_hostile(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Hostile(tmp_path / "touched")))
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize("kind", ["zip", "old", "torchscript"])
def test_a_file_that_wants_to_run_a_command_is_refused_by_name(
    tmp_path: Path, script: Path, kind: str
) -> None:
    path, touched = tmp_path / "bad.pt", tmp_path / "touched"
    if kind == "torchscript":
        _with_structure(script, path, pickle.dumps(Hostile(touched), protocol=2))
    else:
        torch.save({"a": Hostile(touched)}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(WeightsError, match=r"bad.pt asks for the Python object posix.system"):
        load_state(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    "function",
    [subprocess.call, eval, getattr, torch.load, torch.hub.load, __import__],
    ids=lambda f: f.__name__,
)
def test_a_torchscript_archive_may_not_name_any_other_function(
    tmp_path: Path, script: Path, function: object
) -> None:
    class Call:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return function, ("x",)

    path = _with_structure(script, tmp_path / "bad.pt", pickle.dumps(Call(), protocol=2))
    with pytest.raises(WeightsError, match="asks for the Python object"):
        load_state(path)


def test_names_below_an_allowed_name_are_refused_too(tmp_path: Path, script: Path) -> None:
    # protocol 4 can ask for attributes of attributes
    structure = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."
    with pytest.raises(WeightsError, match=r"collections.OrderedDict.__init__"):
        load_state(_with_structure(script, tmp_path / "bad.pt", structure))


def test_a_structure_that_contains_itself_ends(tmp_path: Path, script: Path) -> None:
    # module {"a": the same module}
    loop = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    with pytest.raises(WeightsError, match="damaged"):
        load_state(_with_structure(script, tmp_path / "bad.pt", loop))


def _tensor(count: int, offset: int, shape: int, stride: int = 1) -> bytes:
    """A module with one float tensor over storage 0."""

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pid = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + number(count)
        + b"tQ"
    )
    view = b"(" + pid + number(offset) + number(shape) + b"\x85" + number(stride) + b"\x85\x89N" + b"tR"
    return (
        b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00act"
        + b"orch._utils\n_rebuild_tensor_v2\n"
        + view
        + b"sb."
    )


@pytest.fixture
def four_floats(tmp_path: Path) -> Path:
    class Four(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

        def forward(self) -> torch.Tensor:
            return self.a

    torch.jit.save(torch.jit.script(Four()), str(tmp_path / "four.pt"))
    return tmp_path / "four.pt"


def test_views_into_a_storage_are_kept(tmp_path: Path, four_floats: Path) -> None:
    path = _with_structure(four_floats, tmp_path / "view.pt", _tensor(4, offset=1, shape=2, stride=2))
    assert load_state(path)["a"].tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("count", "offset", "shape", "stride"),
    [
        (4, 1, 4, 1),
        (4, 0, 5, 1),
        (4, 0, 2, 4),
        (4, -1, 2, 1),
        (4, 0, 2, -1),
        (5, 0, 4, 1),
        (3, 0, 3, 1),
        (-4, 0, 4, 1),
    ],
)
def test_views_beyond_their_storage_are_refused(
    tmp_path: Path, four_floats: Path, count: int, offset: int, shape: int, stride: int
) -> None:
    path = _with_structure(four_floats, tmp_path / "bad.pt", _tensor(count, offset, shape, stride))
    with pytest.raises(WeightsError, match="damaged"):
        load_state(path)


def test_compressed_storages_are_refused(tmp_path: Path, four_floats: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(four_floats) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(WeightsError, match="compressed"):
        load_state(path)


@pytest.mark.parametrize("suffix", ["torchscript", "zip", "old", "safetensors"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.97])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, fraction: float) -> None:
    net, path = Network(), tmp_path / "net.pt"
    if suffix == "torchscript":
        torch.jit.save(torch.jit.script(net), str(path))
    elif suffix == "safetensors":
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=suffix == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(WeightsError, match=r"net.pt"):
        load_state(path)


def test_a_flipped_byte_in_a_torchscript_storage_is_noticed(four_floats: Path) -> None:
    data = four_floats.read_bytes()
    at = data.index(struct.pack("<4f", 1, 2, 3, 4))
    four_floats.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with pytest.raises(WeightsError, match=r"four.pt is damaged"):
        load_state(four_floats)


@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_give_a_named_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "any.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"any.pt"):
        load_state(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_message_never_recommends_to_switch_the_protection_off(tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(collections.Counter("abc"), protocol=4))
    with pytest.raises(WeightsError) as caught:
        load_state(tmp_path / "bad.pkl")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 1}, torch.zeros(3), {"state_dict": 5}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="not a state dict"):
        load_state(tmp_path / "list.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none.pt cannot be read"):
        load_state(tmp_path / "none.pt")


def test_plain_containers_of_tensors_can_be_read(tmp_path: Path) -> None:
    torch.save({"x": [torch.ones(2), 3]}, tmp_path / "plain.pt")
    assert load_pt(tmp_path / "plain.pt")["x"][1] == 3


class Annealing:
    """Stands for what schedules pickle: an object of a class, with a function among its attributes."""

    def __init__(self) -> None:
        self.function, self.method = os.path.join, self.anneal

    def anneal(self) -> float:
        return 0.5


def _trained(**entries: object) -> dict[str, object]:
    """Return what a training writes: weights, optimizer, schedule with code, and curves."""
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    counts["a"].append(1)
    return {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "lr_scheduler": {"annealing": Annealing(), "call": getattr, "counts": counts},
        "train_losses": [np.float64(0.5), np.arange(3)],
        **entries,
    }


def _saved(path: Path, content: object, protocol: int = 2) -> Path:
    torch.save(content, path, pickle_protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_weights_of_a_checkpoint_with_code_in_its_schedule_are_read(
    tmp_path: Path, protocol: int
) -> None:
    content = _trained()
    path = _saved(tmp_path / "last.pth", content, protocol)
    with pytest.raises(WeightsError):
        load_state(path)  # the plain reader refuses it
    weights = content["model_state_dict"]
    assert isinstance(weights, dict)
    assert _same(load_checkpoint(path), weights)


def test_reading_a_checkpoint_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unwanted.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import unwanted  # type: ignore[import-not-found]

    path = _saved(tmp_path / "last.pth", _trained(extra=unwanted.Thing()))
    del sys.modules["unwanted"]
    assert b"unwanted" in zipfile.ZipFile(path).read("last/data.pkl")
    assert load_checkpoint(path).keys() == {"weight", "bias"}
    assert "unwanted" not in sys.modules


class Call:
    """A pickle of it calls ``function`` with ``arguments``; what comes of that gets ``state``."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.reduced = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def _gadgets(touched: Path) -> dict[str, object]:
    """Return objects that run code when an unguarded loader meets them."""
    code = f"__import__('pathlib').Path({str(touched)!r}).touch()"
    return {
        "command": Call(os.system, f"touch {touched}"),
        "expression": Call(eval, code),
        "statement": Call(exec, code),
        "nested": Call(eval, Call(str.strip, f" {code} ")),
        "process": Call(os.popen, f"touch {touched}"),
        "state": Call(collections.OrderedDict, state={"items": Call(eval, code)}),
        "key": {Call(eval, code): 1},
    }


GADGETS = tuple(_gadgets(Path("any")))


@pytest.mark.parametrize("kind", GADGETS)
def test_gadgets_are_really_gadgets(tmp_path: Path, kind: str) -> None:
    gadget = _gadgets(tmp_path / "touched")[kind]
    with contextlib.suppress(TypeError):
        pickle.loads(pickle.dumps(gadget))
    for _ in range(100):
        if (tmp_path / "touched").exists():
            return
        time.sleep(0.05)
    pytest.fail("nothing was touched")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", GADGETS)
def test_code_beside_the_weights_is_not_run(tmp_path: Path, kind: str, protocol: int) -> None:
    touched = tmp_path / "touched"
    content = _trained(lr_scheduler=_gadgets(touched)[kind])
    assert load_checkpoint(_saved(tmp_path / "last.pth", content, protocol)).keys() == {"weight", "bias"}
    assert not touched.exists()


@pytest.mark.parametrize("kind", [kind for kind in GADGETS if kind not in ("state", "key")])
def test_code_in_place_of_a_weight_is_not_run_but_named(tmp_path: Path, kind: str) -> None:
    touched = tmp_path / "touched"
    weights = {"weight": torch.zeros(2), "bias": _gadgets(touched)[kind]}
    path = _saved(tmp_path / "last.pth", _trained(model_state_dict=weights))
    with pytest.raises(
        WeightsError, match=r"last.pth: entry 'bias' of model_state_dict is \w+\.\w+, not a tensor"
    ):
        load_checkpoint(path)
    assert not touched.exists()


@pytest.mark.parametrize("where", ["beside", "instead of"])
def test_code_in_files_from_before_the_zip_format_is_not_run(tmp_path: Path, where: str) -> None:
    touched, path = tmp_path / "touched", tmp_path / "last.pth"
    gadget = _gadgets(touched)["command"]
    content = _trained(lr_scheduler=gadget) if where == "beside" else gadget
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="asks for the Python object"):
        load_checkpoint(path)
    assert not touched.exists()


def test_files_from_before_the_zip_format_are_read_if_they_hold_only_tensors(tmp_path: Path) -> None:
    net, path = nn.Linear(3, 2), tmp_path / "old.pth"
    torch.save({"model": net.state_dict()}, path, _use_new_zipfile_serialization=False)
    assert _same(load_checkpoint(path), net.state_dict())


def test_a_container_that_brings_its_own_methods_is_read_as_what_it_is(tmp_path: Path) -> None:
    weights = Call(collections.OrderedDict, [("a", torch.ones(2))], state={"items": list, "get": list})
    path = _saved(tmp_path / "last.pth", {"model_state_dict": weights})
    assert load_checkpoint(path)["a"].tolist() == [1, 1]


@pytest.mark.parametrize("container", ["model_state_dict", "state_dict", "model"])
def test_weights_are_found_in_the_usual_places(tmp_path: Path, container: str) -> None:
    path = _saved(tmp_path / "net.pth", {container: {"a": torch.ones(2)}, "optimizer": {"b": torch.ones(3)}})
    assert load_checkpoint(path).keys() == {"a"}


def test_a_bare_state_dict_is_a_checkpoint(tmp_path: Path) -> None:
    state = Network().state_dict()
    assert _same(load_checkpoint(_saved(tmp_path / "net.pth", state)), state)


def test_parameters_are_read_as_tensors(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pth", {"model": dict(nn.Linear(3, 2).named_parameters())})
    assert {name: tuple(value.shape) for name, value in load_checkpoint(path).items()} == {
        "weight": (2, 3),
        "bias": (2,),
    }


def test_the_prefixes_of_parallel_and_compiled_models_are_taken_off(tmp_path: Path) -> None:
    names = ("module.a", "_orig_mod.module.b", "trunk._orig_mod.c", "submodule.d")
    path = _saved(tmp_path / "net.pth", {"state_dict": {name: torch.ones(1) for name in names}})
    assert set(load_checkpoint(path)) == {"a", "b", "trunk.c", "submodule.d"}


def test_names_that_a_prefix_makes_equal_are_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pth", {"module.a": torch.ones(1), "a": torch.ones(1)})
    with pytest.raises(WeightsError, match="holds a twice"):
        load_checkpoint(path)


def test_only_the_wanted_weights_are_returned_and_checked(tmp_path: Path) -> None:
    state = {"unet.a": torch.ones(1), "unet.b": torch.ones(1), "clip.c": torch.tensor([torch.nan])}
    path = _saved(tmp_path / "net.ckpt", {"state_dict": state})
    assert load_checkpoint(path, drop=("clip.",)).keys() == {"unet.a", "unet.b"}
    assert load_checkpoint(path, keep=("unet.",), drop=("unet.b",)).keys() == {"unet.a"}
    with pytest.raises(WeightsError, match="no weights of the wanted names"):
        load_checkpoint(path, keep=("vae.",))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, value: float, dtype: torch.dtype, zipped: bool
) -> None:
    state = {"a": torch.ones(3, dtype=dtype), "b": torch.tensor([[0, 1], [2, value]], dtype=dtype)}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"net.pth: b holds a value that is not finite"):
        load_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_shared_their_numbers_become_independent(tmp_path: Path, zipped: bool) -> None:
    numbers = torch.arange(6.0)
    state = {"a": numbers, "b": numbers, "c": numbers.view(2, 3)[:, 1], "d": torch.zeros(1)}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(tmp_path / "net.pth")
    assert _same(loaded, state)
    loaded["a"].zero_()
    assert loaded["b"].tolist() == [0, 1, 2, 3, 4, 5]
    assert loaded["c"].tolist() == [1, 4]
    save_file({name: value.contiguous() for name, value in loaded.items()}, tmp_path / "net.safetensors")


def test_changing_weights_does_not_change_the_file(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pth", {"model": {"a": torch.ones(1000)}})
    load_checkpoint(path)["a"].zero_()
    assert load_checkpoint(path)["a"].sum() == 1000


def test_large_files_are_mapped_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = mmap.mmap

    def recorded(handle: int, length: int, **options: Any) -> mmap.mmap:
        sizes.append(length)
        return original(handle, length, **options)

    monkeypatch.setattr(mmap, "mmap", recorded)
    monkeypatch.setattr(torchzip, "MAPPED_BYTES", 100_000)
    counts = (1, 30_000, 0, 10_000, 10_000, 10_000, 1, 30_000)
    weights = {f"w{i}": torch.randn(count) for i, count in enumerate(counts)}
    assert _same(load_checkpoint(_saved(tmp_path / "net.pth", {"model": weights})), weights)
    # only a storage that is larger itself may make a part larger
    assert len(sizes) > 2
    assert max(sizes) <= 120_000 + mmap.ALLOCATIONGRANULARITY


def test_weights_that_are_not_aligned_in_the_archive_are_read(tmp_path: Path) -> None:
    weights = {"a": torch.arange(5.0), "b": torch.arange(3).double()}
    aligned = _saved(tmp_path / "net.pth", {"model": weights})
    path = tmp_path / "packed.pth"
    with zipfile.ZipFile(aligned) as old, zipfile.ZipFile(path, "w") as new:
        new.writestr("net/x", b"abc")
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert _same(load_checkpoint(path), weights)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.97])
def test_a_checkpoint_that_was_cut_short_is_named(tmp_path: Path, fraction: float) -> None:
    path = _saved(tmp_path / "last.pth", _trained())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(WeightsError, match=r"last.pth is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("change", ["compressed", "shorter", "missing"])
def test_storages_that_are_not_what_the_structure_says_are_refused(tmp_path: Path, change: str) -> None:
    whole = _saved(tmp_path / "net.pth", {"model": {"a": torch.arange(64.0)}})
    path = tmp_path / "bad.pth"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content, kind = old.read(name), zipfile.ZIP_STORED
            if name.endswith("data/0"):
                if change == "missing":
                    continue
                content = content[:-4] if change == "shorter" else content
                kind = zipfile.ZIP_DEFLATED if change == "compressed" else kind
            new.writestr(name, content, kind)
    with pytest.raises(WeightsError, match=r"bad.pth is damaged"):
        load_checkpoint(path)


def test_a_tensor_that_repeats_its_numbers_without_end_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pth", {"model": {"a": torch.ones(1).expand(10**6, 10**6)}})
    with pytest.raises(WeightsError, match=r"net.pth is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds list, not a training checkpoint"),
        ({"epoch": 3, "optimizer": {}}, "entry 'epoch' of the file is int, not a tensor"),
        ({"model": {"a": 1}}, "entry 'a' of model is int, not a tensor"),
        ({"model": {1: torch.ones(1)}}, "1 is not the name of a tensor"),
        ({"model_state_dict": {}}, "no weights"),
    ],
)
def test_files_without_weights_say_what_they_hold(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(_saved(tmp_path / "net.pth", content))


def test_a_folder_of_deepspeed_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    with pytest.raises(WeightsError, match="is a folder") as caught:
        load_checkpoint(tmp_path / "last")
    assert "zero_to_fp32" in caught.value.remedy


def test_a_torchscript_archive_is_no_checkpoint(script: Path) -> None:
    with pytest.raises(WeightsError, match="TorchScript"):
        load_checkpoint(script)


def test_a_checkpoint_may_be_safetensors(tmp_path: Path) -> None:
    save_file({"module.a": torch.ones(2), "b": torch.ones(1)}, tmp_path / "net.safetensors")
    assert load_checkpoint(tmp_path / "net.safetensors", drop=("b",)).keys() == {"module.a"}


@given(content=st.binary(max_size=300))
def test_a_checkpoint_of_arbitrary_bytes_gives_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"any.pt"):
        load_checkpoint(path)


@given(structure=st.binary(max_size=120))
def test_any_structure_gives_weights_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, structure: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("any/data.pkl", b"\x80\x02" + structure + b".")
    with contextlib.suppress(WeightsError):
        load_checkpoint(path)
