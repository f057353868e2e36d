"""Feature networks from weights files: the same numbers as torchvision, OpenAI's definition, transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from nsdbench import weights as registry
from nsdbench.errors import WeightsError
from nsdbench.metrics.nets import load_net, loading
from nsdbench.metrics.nets.clip import CLIP, vision_transformer, visual_state
from nsdbench.store import sha256_file

MEAN, STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
CLIP_MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))
CLIP_STD = torch.tensor((0.26862954, 0.26130258, 0.27577711))
Install = Callable[[str, object], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Save something under the file name of registered weights, and register its hash instead of the real one."""

    def put(id: str, content: object) -> Path:
        entry = registry.REGISTRY[id]
        path = tmp_path / entry.filename
        if isinstance(content, torch.jit.ScriptModule):
            content.save(str(path))
        elif path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(content, path)
        else:
            torch.save(content, path)
        faked = dataclasses.replace(entry, sha256=sha256_file(path), sha256_prefixes=())
        monkeypatch.setattr(registry.registry, "REGISTRY", {**registry.REGISTRY, id: faked})
        return tmp_path

    return put


def _randomized(module: nn.Module) -> nn.Module:
    """Give every parameter and statistic its own value, so that a mix-up cannot go unnoticed."""
    generator = torch.Generator().manual_seed(3)
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            value.zero_()
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            value.copy_(noise * (2 / value[0].numel()) ** 0.5)
        else:
            value.copy_(1 + 0.1 * noise.abs() if name.endswith(("weight", "var")) else 0.1 * noise)
    return module.eval()


def _torchvision(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):  # skips torchvision's own initialisation, which takes seconds
        module = build()
    return _randomized(module.to_empty(device="cpu"))


def _alexnet_checkpoint(model: nn.Module) -> dict[str, Tensor]:
    """The convolutional part, and one small entry to stand for the 200 MB of classifier."""
    trunk = {name: value for name, value in model.state_dict().items() if name.startswith("features.")}
    return trunk | {"classifier.6.bias": torch.zeros(1000)}


def _images(n: int, size: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(8).random((n, 3, size, size), dtype=np.float32))


def _normalized(images: Tensor, mean: Tensor = MEAN, std: Tensor = STD) -> Tensor:
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def _hooked(model: nn.Module, node: str, images: Tensor) -> Tensor:
    """Output of one module of torchvision's own forward pass."""
    caught: list[Tensor] = []
    handle = model.get_submodule(node).register_forward_hook(lambda _m, _i, out: caught.append(out.clone()))
    with torch.no_grad():
        model(_normalized(images))
    handle.remove()
    return caught[0]


def _close(found: Tensor, expected: Tensor) -> None:
    scale = expected.abs().max().item()
    torch.testing.assert_close(found.flatten(1), expected.flatten(1), rtol=0, atol=1e-5 * scale)


def test_alexnet_gives_the_five_relu_outputs_of_torchvision(install: Install) -> None:
    model, images = _torchvision(models.alexnet), _images(2, 96)
    folder = install("alexnet-imagenet1k-v1", _alexnet_checkpoint(model))
    found = load_net("alexnet", weights_dir=folder)(images)
    assert list(found) == [f"features.{i}" for i in (1, 4, 7, 9, 11)]
    for node, features in found.items():
        _close(features, _hooked(model, node, images))


def test_inception_gives_the_pool_of_torchvision_after_its_own_input_transform(install: Install) -> None:
    model = _torchvision(lambda: models.inception_v3(transform_input=True, init_weights=False))
    folder, images = install("inception-v3-imagenet1k-v1", model.state_dict()), _images(2, 112)
    expected = _hooked(model, "avgpool", images)
    _close(load_net("inception", weights_dir=folder)(images)["avgpool"], expected)
    model.transform_input = False
    assert not torch.allclose(expected, _hooked(model, "avgpool", images), rtol=1e-2)


@pytest.mark.parametrize(("variant", "id"), [("", "v2"), ("v2", "v2"), ("v1", "v1")])
def test_effnet_gives_the_pool_of_torchvision_for_each_variant(
    install: Install, variant: str, id: str
) -> None:
    model, images = _torchvision(models.efficientnet_b1), _images(2, 64)
    folder = install(f"efficientnet-b1-imagenet1k-{id}", model.state_dict())
    net = load_net("effnet", variant=variant, weights_dir=folder)
    assert net.weights_id == f"efficientnet-b1-imagenet1k-{id}"
    _close(net(images)["avgpool"], _hooked(model, "avgpool", images))


def test_the_old_file_name_of_effnet_v1_counts_as_the_same_weights(install: Install) -> None:
    model = _torchvision(models.efficientnet_b1)
    folder = install("efficientnet-b1-imagenet1k-v1-old-name", model.state_dict())
    net = load_net("effnet", variant="v1", weights_dir=folder)
    assert net.weights_id == "efficientnet-b1-imagenet1k-v1"


def test_swav_gives_the_pool_of_a_resnet50_without_its_projection_head(install: Install) -> None:
    model, images = _torchvision(models.resnet50), _images(2, 64)
    trunk = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    head = {"projection_head.0.weight": torch.zeros(4, 2048), "prototypes.weight": torch.zeros(3, 4)}
    folder = install(
        "swav-resnet50-800ep", {f"module.{name}": value for name, value in (trunk | head).items()}
    )
    found = load_net("swav", weights_dir=folder)(images)["avgpool"]
    _close(found, _hooked(model, "avgpool", images))


def test_older_checkpoints_without_batch_counters_load(install: Install) -> None:
    state = {n: v for n, v in _torchvision(models.resnet50).state_dict().items() if "num_batches" not in n}
    bare = {f"module.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    net = load_net("swav", weights_dir=install("swav-resnet50-800ep", bare))
    assert torch.isfinite(net(_images(1, 64))["avgpool"]).all()


@pytest.mark.parametrize("change", ["extra", "missing", "misshapen"])
def test_weights_that_do_not_fit_exactly_are_refused(install: Install, change: str) -> None:
    state = _alexnet_checkpoint(_torchvision(models.alexnet))
    if change == "extra":
        state["features.20.weight"] = torch.zeros(1)
    elif change == "missing":
        del state["features.0.bias"]
    else:
        state["features.0.bias"] = torch.zeros(5)
    folder = install("alexnet-imagenet1k-v1", state)
    with pytest.raises(WeightsError, match=r"alexnet-owt-7be5be79.pth does not fit alexnet"):
        load_net("alexnet", weights_dir=folder)


def test_a_loaded_network_says_which_file_it_came_from(install: Install) -> None:
    folder = install("alexnet-imagenet1k-v1", _alexnet_checkpoint(_torchvision(models.alexnet)))
    net = load_net("alexnet", weights_dir=folder)
    assert (net.weights_id, net.untrained) == ("alexnet-imagenet1k-v1", False)
    assert net.weights_sha256 == sha256_file(folder / "alexnet-owt-7be5be79.pth")


def test_missing_weights_say_file_folder_address_and_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_net("alexnet", weights_dir=tmp_path)
    assert "alexnet-owt-7be5be79.pth" in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in caught.value.remedy
    assert "nsdbench weights fetch alexnet-imagenet1k-v1" in caught.value.remedy


SMALL = {"size": 28, "patch": 14, "width": 16, "layers": 2, "heads": 2, "output": 8}


@pytest.fixture
def small_clip(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A small image tower with known values, which also replaces ViT-L/14 in the table of networks."""
    small = dataclasses.replace(CLIP, build=lambda: vision_transformer(**SMALL), size=28)
    monkeypatch.setattr(loading, "NETS", {**loading.NETS, "clip": small})
    return _randomized(vision_transformer(**SMALL))


def _encode_image(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """CLIP's image encoder written out from its definition (two heads of width 8, QuickGELU)."""

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (16,), state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    patches = functional.conv2d(_normalized(images, CLIP_MEAN, CLIP_STD), state["conv1.weight"], stride=14)
    tokens = patches.flatten(2).transpose(1, 2)
    first = state["class_embedding"].expand(len(images), 1, 16)
    x = norm(torch.cat([first, tokens], 1) + state["positional_embedding"], "ln_pre")
    for i in range(2):
        block = f"transformer.resblocks.{i}"
        joint = (
            norm(x, f"{block}.ln_1") @ state[f"{block}.attn.in_proj_weight"].T
            + state[f"{block}.attn.in_proj_bias"]
        )
        q, k, v = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in joint.chunk(3, dim=2))
        mixed = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, dim=3) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{block}.attn.out_proj")
        hidden = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(hidden * torch.sigmoid(1.702 * hidden), f"{block}.mlp.c_proj")
    return norm(x[:, 0], "ln_post") @ state["proj"]


class _WholeClip(nn.Module):
    """Image tower and something else, with half-precision values, like OpenAI's archive."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.token_embedding = nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_clip_from_a_torchscript_archive_in_half_precision_encodes_images(
    install: Install, small_clip: nn.Module
) -> None:
    whole, images = _WholeClip(small_clip), _images(3, 28)
    archive = torch.jit.trace(whole, images, check_trace=False)
    archive.half()
    net = load_net("clip", weights_dir=install("clip-vit-l14-openai", archive))
    rounded = {name: value.half().float() for name, value in small_clip.state_dict().items()}
    found = net(images)["image_embeds"]
    assert found.dtype == torch.float32
    _close(found, _encode_image(rounded, images))


def test_clip_from_open_clip_safetensors_encodes_images_under_the_same_id(
    install: Install, small_clip: nn.Module
) -> None:
    state = {f"visual.{name}": value for name, value in small_clip.state_dict().items()}
    state |= {"logit_scale": torch.zeros(1), "transformer.resblocks.0.ln_1.weight": torch.zeros(4)}
    net, images = (
        load_net("clip", weights_dir=install("clip-vit-l14-openai-open-clip", state)),
        _images(2, 28),
    )
    assert net.weights_id == "clip-vit-l14-openai"
    _close(net(images)["image_embeds"], _encode_image(small_clip.state_dict(), images))


def _hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The small tower under the names of ``openai/clip-vit-large-patch14``."""
    tower = "vision_model."
    found = {
        "visual_projection.weight": state["proj"].T.contiguous(),
        f"{tower}embeddings.class_embedding": state["class_embedding"],
        f"{tower}embeddings.patch_embedding.weight": state["conv1.weight"],
        f"{tower}embeddings.position_embedding.weight": state["positional_embedding"],
        f"{tower}embeddings.position_ids": torch.arange(5)[None],
        "text_model.final_layer_norm.bias": torch.zeros(3),
    }
    for kind in ("weight", "bias"):
        found[f"{tower}pre_layrnorm.{kind}"] = state[f"ln_pre.{kind}"]
        found[f"{tower}post_layernorm.{kind}"] = state[f"ln_post.{kind}"]
        for i in range(2):
            ours, theirs = f"transformer.resblocks.{i}.", f"{tower}encoder.layers.{i}."
            for letter, part in zip("qkv", state[f"{ours}attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{theirs}self_attn.{letter}_proj.{kind}"] = part.clone()
            found[f"{theirs}self_attn.out_proj.{kind}"] = state[f"{ours}attn.out_proj.{kind}"]
            found[f"{theirs}layer_norm1.{kind}"] = state[f"{ours}ln_1.{kind}"]
            found[f"{theirs}layer_norm2.{kind}"] = state[f"{ours}ln_2.{kind}"]
            found[f"{theirs}mlp.fc1.{kind}"] = state[f"{ours}mlp.c_fc.{kind}"]
            found[f"{theirs}mlp.fc2.{kind}"] = state[f"{ours}mlp.c_proj.{kind}"]
    return found


def test_clip_from_transformers_safetensors_encodes_images(install: Install, small_clip: nn.Module) -> None:
    state, images = _hugging_face_names(dict(small_clip.state_dict())), _images(2, 28)
    net = load_net("clip", weights_dir=install("clip-vit-l14-openai-transformers", state))
    _close(net(images)["image_embeds"], _encode_image(small_clip.state_dict(), images))


def test_the_names_of_transformers_are_those_of_the_library_itself() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not a dependency")
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28,
        patch_size=14, projection_dim=8,
    )  # fmt: skip
    theirs, images = _randomized(transformers.CLIPVisionModelWithProjection(config)), _images(2, 28)
    with torch.no_grad():
        expected = theirs(pixel_values=_normalized(images, CLIP_MEAN, CLIP_STD)).image_embeds
    _close(_encode_image(visual_state(dict(theirs.state_dict())), images), expected)


def test_clip_refuses_images_of_another_size(install: Install, small_clip: nn.Module) -> None:
    state = {f"visual.{name}": value for name, value in small_clip.state_dict().items()}
    net = load_net("clip", weights_dir=install("clip-vit-l14-openai-open-clip", state))
    with pytest.raises(Exception, match="28 x 28 pixels, got 42"):
        net(_images(1, 42))
