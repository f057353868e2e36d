"""Text encoders: the published layouts give one network, and the network computes its plain formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nsdbench.errors import WeightsError
from nsdbench.metrics.captions import CLIP_L, SENTENCE
from nsdbench.metrics.nets import clip_text, minilm
from nsdbench.metrics.nets.loading import filled
from nsdbench.metrics.nets.minilm import Bert, BertConfig, encode, mean_state, split

SMALL = BertConfig(vocabulary=30, positions=12, width=8, inner=16, heads=2, layers=2)


def random_bert() -> Bert:
    torch.manual_seed(0)
    model = Bert(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * weight + bias


def plain_bert(p: dict[str, Tensor], pieces: list[int]) -> Tensor:
    """The states of one unpadded text by the formulas of the paper, head by head."""
    e = "embeddings."
    x = p[e + "word_embeddings.weight"][pieces] + p[e + "position_embeddings.weight"][: len(pieces)]
    x = norm(x + p[e + "token_type_embeddings.weight"][0], p[e + "LayerNorm.weight"], p[e + "LayerNorm.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ p[name + ".weight"].T + p[name + ".bias"]

    for i in range(SMALL.layers):
        n = f"encoder.layer.{i}."
        q, k, v = (linear(f"{n}attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for a in range(0, SMALL.width, SMALL.width // SMALL.heads):
            h = slice(a, a + SMALL.width // SMALL.heads)
            logits = q[:, h] @ k[:, h].T / math.sqrt(SMALL.width // SMALL.heads)
            heads.append(logits.softmax(-1) @ v[:, h])
        x = norm(
            linear(n + "attention.output.dense", torch.cat(heads, -1)) + x,
            p[n + "attention.output.LayerNorm.weight"],
            p[n + "attention.output.LayerNorm.bias"],
        )
        y = linear(n + "intermediate.dense", x)
        y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        x = norm(
            linear(n + "output.dense", y) + x,
            p[n + "output.LayerNorm.weight"],
            p[n + "output.LayerNorm.bias"],
        )
    return x


def test_bert_computes_its_plain_formula_and_ignores_padding() -> None:
    model = random_bert()
    texts = [[3, 1, 4, 1, 5, 9], [2, 7]]
    padded = torch.tensor([texts[0], [*texts[1], 0, 0, 0, 0]])
    real = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    with torch.no_grad():
        states = model(padded, real)
        plain = [plain_bert(dict(model.state_dict()), text) for text in texts]
    assert torch.allclose(states[0], plain[0], atol=1e-5)
    assert torch.allclose(states[1, :2], plain[1], atol=1e-5)
    means = torch.stack([x.mean(0) for x in plain])
    assert torch.allclose(mean_state(states, real), means, atol=1e-5)


def test_words_are_split_as_the_uncased_models_do() -> None:
    assert split("A café's  sign: $5!") == ["a", "cafe", "'", "s", "sign", ":", "$", "5", "!"]
    assert split("ÀÉ\u0301x\tfoo\u200bbar\nx\u00a0y") == ["aex", "foobar", "x", "y"]
    assert split("\u4e2d\u56fda—b") == ["\u4e2d", "\u56fd", "a", "—", "b"]


def test_words_become_their_longest_pieces() -> None:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "a", "##f"]
    pieces = {name: number for number, name in enumerate(names)}
    assert encode("unaffable a", pieces) == [2, 4, 5, 6, 7, 3]
    assert encode("unaffabl", pieces) == [2, 1, 3]  # one unknown end makes the whole word unknown
    assert encode("a" * 101, pieces | {"##a": 9}) == [2, 1, 3]
    assert encode("a " * 400, pieces) == [2, *[7] * 254, 3]


@pytest.fixture
def small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Weights and word pieces of a small encoder in the form of the published files."""
    monkeypatch.setattr(minilm, "BertConfig", lambda: SMALL)
    monkeypatch.setattr(minilm, "_PIECES", 30)
    state = random_bert().state_dict() | {"pooler.dense.weight": torch.zeros(8, 8)}
    state["embeddings.position_ids"] = torch.arange(12)
    save_file(state, tmp_path / "model.safetensors")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "bird", *(f"w{i}" for i in range(23))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return tmp_path / "model.safetensors", tmp_path / "vocab.txt"


def test_the_files_give_the_mean_state_whatever_else_is_in_the_batch(small_files: tuple[Path, Path]) -> None:
    embed = minilm.load(*small_files, device="cpu")
    plain = plain_bert(dict(random_bert().state_dict()), [2, 4, 5, 6, 3]).mean(0)
    assert torch.allclose(embed(["A red bird"])[0], plain, atol=1e-5)
    assert torch.allclose(embed(["w1 w2 w3 w4 w5", "a red bird"])[1], plain, atol=1e-5)


def test_the_measure_is_the_cosine(small_files: tuple[Path, Path]) -> None:
    measure = SENTENCE.load(small_files, "cpu")
    one, same, other = measure.prepare(["a red bird", "A RED bird", "w1 w2"])
    a, b = minilm.load(*small_files, device="cpu")(["a red bird", "w1 w2"]).double()
    assert measure.compare(one, same) == pytest.approx(1)
    assert measure.compare(one, other) == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)))


def test_other_files_are_refused_by_name(small_files: tuple[Path, Path]) -> None:
    model, vocabulary = small_files
    with pytest.raises(WeightsError, match=r"vocab\.txt holds 29"):
        minilm.read_vocabulary(_cut(vocabulary))
    save_file({"embeddings.word_embeddings.weight": torch.zeros(30, 8)}, model)
    with pytest.raises(WeightsError, match=r"model\.safetensors does not fit Bert"):
        minilm.load(model, _restored(vocabulary), device="cpu")


def _cut(path: Path) -> Path:
    path.write_text(path.read_text().removesuffix("w22\n"))
    return path


def _restored(path: Path) -> Path:
    path.write_text(path.read_text() + "w22\n")
    return path


def test_the_published_sentence_encoder_has_22_7_million_parameters() -> None:
    with torch.device("meta"):
        model = Bert(BertConfig())
    assert sum(p.numel() for p in model.parameters()) == 22_713_216 - (384 * 384 + 384)  # without its pooler


def clip_model() -> Any:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(1)
    image = CLIPVisionCfg(layers=1, width=16, head_width=8, patch_size=8, image_size=16)
    text = CLIPTextCfg(context_length=77, vocab_size=50, width=16, heads=2, layers=2)
    return CLIP(16, image, text, quick_gelu=True).eval()


def in_hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower under the names that transformers gives its parts, query, key and value apart."""
    t = "text_model."
    found = {
        t + "embeddings.token_embedding.weight": state["token_embedding.weight"],
        t + "embeddings.position_embedding.weight": state["positional_embedding"],
        t + "embeddings.position_ids": torch.arange(77)[None],
        t + "final_layer_norm.weight": state["ln_final.weight"],
        t + "final_layer_norm.bias": state["ln_final.bias"],
        "text_projection.weight": state["text_projection"].T,
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    parts["attn.out_proj"] = "self_attn.out_proj"
    for i in range(2):
        own, theirs = f"transformer.resblocks.{i}.", f"{t}encoder.layers.{i}."
        for kind in ("weight", "bias"):
            for a, b in parts.items():
                found[f"{theirs}{b}.{kind}"] = state[f"{own}{a}.{kind}"]
            for x, piece in zip("qkv", state[f"{own}attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{theirs}self_attn.{x}_proj.{kind}"] = piece
    return found


@pytest.mark.parametrize("layout", ["openai", "hugging face"])
def test_the_text_tower_gives_the_embeddings_of_the_whole_model(layout: str) -> None:
    model = clip_model()
    state = {n: v for n, v in model.state_dict().items() if n.startswith(clip_text._OPENAI)}
    if layout == "hugging face":
        state = in_hugging_face_names(state)
    tower = clip_text.tower(16, 2, layers=2, vocabulary=50)
    filled(tower, clip_text.text_state(state), Path("file"), "cpu")
    numbers = torch.randint(1, 48, (3, 77), generator=torch.Generator().manual_seed(0))
    numbers[0, 5], numbers[1, 76], numbers[2, 1] = 49, 49, 49  # the end has the highest number
    with torch.no_grad():
        assert torch.allclose(tower(numbers), model.encode_text(numbers), atol=1e-5)


def test_the_text_towers_have_the_published_shapes() -> None:
    state = clip_text.tower(768, 12).state_dict()
    assert state["token_embedding.weight"].shape == (49408, 768)
    assert state["text_projection"].shape == (768, 768)
    assert len({name.split(".")[2] for name in state if name.startswith("transformer.")}) == 12
    assert clip_text.tower(512, 8).state_dict()["positional_embedding"].shape == (77, 512)


def test_a_file_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    save_file(dict(clip_model().state_dict()), tmp_path / "ViT-L-14.pt")
    with pytest.raises(WeightsError, match=r"ViT-L-14\.pt does not fit TextTransformer"):
        CLIP_L.load([tmp_path / "ViT-L-14.pt"], "cpu")
