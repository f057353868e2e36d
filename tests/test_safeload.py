"""Reading tensors without running code: formats, faithful values, hostile and damaged files."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from nsdbench.errors import WeightsError
from nsdbench.safeload import load_pt, load_state

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


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
    with pytest.raises(WeightsError, match="storage 0"):
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
