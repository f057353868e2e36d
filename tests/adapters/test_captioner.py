"""Captions of image tokens: the text half of GIT, its greedy writing, its spelling, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nsdbench import weights
from nsdbench.adapters.nets import captioner, clip
from nsdbench.adapters.nets.captioner import (
    GIT_LARGE_COCO,
    MINI,
    Captioner,
    CaptionerConfig,
    Describer,
    TextDecoder,
    TokenConverter,
    describe,
    mini_describer,
    spelled,
)
from nsdbench.adapters.nets.checkpoints import on_meta
from nsdbench.errors import WeightsError

SMALL = CaptionerConfig(
    tokens_in=4,
    dim_in=20,
    tokens_out=5,
    dim_out=24,
    vocabulary=50,
    width=32,
    layers=3,
    heads=4,
    hidden=64,
    positions=30,
    longest=20,
    start=1,
    end=2,
)


def _network(seed: int = 0, *, spread: float = 0.4) -> Captioner:
    """Random weights that are large enough for captions to differ and to end at different places."""
    network = Captioner(SMALL)
    rng = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        value.data = spread * torch.randn(value.shape, generator=rng) + ("LayerNorm.weight" in name)
    network.decoder.output.bias.data[SMALL.end] += 3
    return network.eval().requires_grad_(False)


def _tokens(n: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, 4, 20, generator=torch.Generator().manual_seed(seed))


def _affine(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: dict[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def _attended(state: dict[str, Tensor], name: str, x: Tensor, images: int) -> Tensor:
    """Attention over the joint sequence (tokens, width), one head and one query at a time."""
    q, k, v = (_affine(state, f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
    size = SMALL.width // SMALL.heads
    seen = torch.zeros_like(x)
    for head in range(SMALL.heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            until = max(i + 1, images)  # all image tokens, and no text behind the query
            share = torch.exp(k[:until, part] @ q[i, part] / size**0.5)
            seen[i, part] = share / share.sum() @ v[:until, part]
    return seen


def _plain_logits(network: Captioner, tokens: Tensor, numbers: Tensor) -> Tensor:
    """GIT as its paper draws it, for one image: everything in one sequence, in double precision."""
    state = {name: value.double() for name, value in network.state_dict().items()}
    over_tokens = (
        state["converter.linear1.weight"] @ tokens.double() + state["converter.linear1.bias"][:, None]
    )
    converted = _affine(state, "converter.linear2", over_tokens)
    state = {name.removeprefix("decoder."): value for name, value in state.items()}
    projection = "git.visual_projection.visual_projection"
    image = _norm(state, f"{projection}.1", _affine(state, f"{projection}.0", converted), 1e-5)
    embedding = "git.embeddings"
    text = state[f"{embedding}.word_embeddings.weight"][numbers]
    text = text + state[f"{embedding}.position_embeddings.weight"][: len(numbers)]
    x = torch.cat([image, _norm(state, f"{embedding}.LayerNorm", text, 1e-12)])
    for i in range(SMALL.layers):
        name = f"git.encoder.layer.{i}"
        seen = _affine(state, f"{name}.attention.output.dense", _attended(state, name, x, len(image)))
        x = _norm(state, f"{name}.attention.output.LayerNorm", x + seen, 1e-12)
        inner = _affine(state, f"{name}.intermediate.dense", x)
        inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
        x = _norm(state, f"{name}.output.LayerNorm", x + _affine(state, f"{name}.output.dense", inner), 1e-12)
    return _affine(state, "output", x[len(image) :])


def test_logits_follow_the_plain_formula() -> None:
    network, tokens = _network(), _tokens(2)
    numbers = torch.randint(50, (2, 7), generator=torch.Generator().manual_seed(1))
    found = network(tokens, numbers)
    for row in range(2):
        expected = _plain_logits(network, tokens[row], numbers[row])
        torch.testing.assert_close(found[row].double(), expected, rtol=0, atol=5e-5)


def test_every_generated_word_is_the_likeliest_of_the_plain_formula() -> None:
    network, tokens = _network(3), _tokens(1)
    words = [SMALL.start]
    while len(words) < 8 and words[-1] != SMALL.end:
        words.append(int(_plain_logits(network, tokens[0], torch.tensor(words))[-1].argmax()))
    assert network.generate(tokens, max_length=8)[0].tolist() == words


def test_a_caption_depends_on_its_own_tokens_only() -> None:
    network, tokens = _network(1), _tokens(7)
    together = network.generate(tokens)
    assert len({tuple(row) for row in together.tolist()}) > 1
    for row, own in enumerate(tokens):
        alone = network.generate(own[None])[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()
        assert not together[row, len(alone) :].any()


def test_words_behind_the_end_are_padding_and_captions_have_a_longest_length() -> None:
    lengths = set()
    for seed in range(8):
        for row in _network(seed).generate(_tokens(6, seed)).tolist():
            assert row[0] == SMALL.start
            assert len(row) <= SMALL.longest
            end = row.index(SMALL.end) if SMALL.end in row else len(row)
            assert not any(row[end + 1 :])
            lengths.add(end)
    assert len(lengths) > 3


def test_writing_stops_when_every_caption_has_ended() -> None:
    network = _network()
    network.decoder.output.bias[SMALL.end] = 1e4
    assert network.generate(_tokens()).tolist() == [[SMALL.start, SMALL.end]] * 6


def test_what_text_sees_of_an_image_does_not_depend_on_the_text() -> None:
    decoder = _network().decoder
    memory = decoder.read(torch.randn(2, 5, 24))
    whole, _ = decoder.write(torch.tensor([[1, 7, 9]] * 2), memory)
    first, longer = decoder.write(torch.tensor([[1, 7]] * 2), memory)
    last, _ = decoder.write(torch.tensor([[9]] * 2), longer, first=2)
    torch.testing.assert_close(torch.cat([first, last], dim=1), whole)


def test_the_converter_maps_tokens_and_then_channels() -> None:
    network, tokens = _network(), _tokens(2)
    over_tokens, over_channels = network.converter.linear1, network.converter.linear2
    summed = torch.einsum("ot,ntc->noc", over_tokens.weight, tokens) + over_tokens.bias[:, None]
    expected = torch.einsum("dc,noc->nod", over_channels.weight, summed) + over_channels.bias
    torch.testing.assert_close(network.converter(tokens), expected)


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def test_the_published_converter_has_the_listed_entries(shared: Path) -> None:
    listing = json.loads(
        (shared / "data/state_dicts/mindeye2_clip_convert_bigG_to_L_epoch8.json").read_text()
    )
    assert _shapes(on_meta(lambda: TokenConverter(GIT_LARGE_COCO))) == listing


def _git_listing(config: CaptionerConfig) -> dict[str, list[int]]:
    """Entries of ``GitForCausalLM`` outside its image encoder."""
    width, hidden = config.width, config.hidden
    dense = {
        "git.visual_projection.visual_projection.0": [width, config.dim_out],
        "output": [config.vocabulary, width],
    }
    norms = ["git.embeddings.LayerNorm", "git.visual_projection.visual_projection.1"]
    for i in range(config.layers):
        layer = f"git.encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            dense[f"{layer}.attention.{name}"] = [width, width]
        dense |= {f"{layer}.intermediate.dense": [hidden, width], f"{layer}.output.dense": [width, hidden]}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    return {
        "git.embeddings.word_embeddings.weight": [config.vocabulary, width],
        "git.embeddings.position_embeddings.weight": [config.positions, width],
        **{f"{name}.weight": shape for name, shape in dense.items()},
        **{f"{name}.bias": shape[:1] for name, shape in dense.items()},
        **{f"{name}.{part}": [width] for name in norms for part in ("weight", "bias")},
    }


def test_the_published_decoder_has_the_names_and_the_size_of_git_large_coco() -> None:
    decoder = on_meta(lambda: TextDecoder(GIT_LARGE_COCO))
    assert _shapes(decoder) == _git_listing(GIT_LARGE_COCO)
    image_encoder = 303_179_776  # CLIP ViT-L/14 without projection; the hub counts 394 million for both
    assert sum(value.numel() for value in decoder.parameters()) + image_encoder == 394_196_026


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([2, 5, 6, 7, 3, 0, 0], "a dogs"),
        ([2, 5, 6, 8, 9, 5, 6, 10, 3], "a dog's a dog."),
        ([2, 1, 5, 11, 12, 13, 4], "a don't"),
        ([7, 5], "##s a"),
        ([2, 3], ""),
    ],
)
def test_captions_are_spelled_without_marks_and_without_gaps(numbers: list[int], text: str) -> None:
    vocabulary = [*captioner.SPECIAL, "a", "dog", "##s", "'", "s", ".", "don", "'", "t"]
    assert spelled(numbers, vocabulary) == text


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with small files in the published form, and what those hold that is left out."""
    network = _network()
    monkeypatch.setattr(captioner, "GIT_LARGE_COCO", SMALL)
    git = dict(network.decoder.state_dict())
    git["git.embeddings.position_ids"] = torch.arange(30)[None]
    git["git.image_encoder.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    git["git.image_encoder.vision_model.post_layernorm.bias"] = torch.zeros(24)
    torch.save(git, tmp_path / weights.entry(captioner.GIT).filename)
    torch.save(
        {"epoch": 8, "model_state_dict": dict(network.converter.state_dict())},
        tmp_path / weights.entry(captioner.CONVERTER).filename,
    )
    pieces = [*captioner.SPECIAL, *(f"word{i}" for i in range(45))]
    (tmp_path / weights.entry(captioner.VOCABULARY).filename).write_text("\n".join(pieces) + "\n")
    return tmp_path


def test_published_files_give_the_network_that_they_hold(published: Path) -> None:
    describer = captioner.published_describer(published)
    expected = _network().generate(_tokens())
    assert torch.equal(describer.captioner.generate(_tokens()), expected)
    words = [n for n in expected[0].tolist() if n >= len(captioner.SPECIAL)]
    assert describe(describer, _tokens())[0] == " ".join(f"word{n - 5}" for n in words)


@pytest.mark.parametrize(
    "change", [{"git.encoder.layer.3.output.dense.bias": torch.zeros(32)}, {"output.bias": torch.zeros(49)}]
)
def test_a_file_of_another_model_is_refused(published: Path, change: dict[str, Tensor]) -> None:
    state = dict(_network().decoder.state_dict()) | change
    torch.save(state, published / weights.entry(captioner.GIT).filename)
    with pytest.raises(WeightsError, match=captioner.GIT):
        captioner.published_describer(published)


def test_a_vocabulary_of_another_length_is_refused(published: Path) -> None:
    path = published / weights.entry(captioner.VOCABULARY).filename
    path.write_text("[PAD]\n")
    with pytest.raises(WeightsError, match=r"1 lines, not 50"):
        captioner.published_describer(published)


def test_the_miniature_says_words_of_the_simulated_world_about_anything() -> None:
    tokens = torch.randn(20, MINI.tokens_in, MINI.dim_in, generator=torch.Generator().manual_seed(0))
    assert clip.encode(describe(mini_describer(), tokens)).shape == (20, clip.CONTEXT)


def test_the_longest_caption_of_the_miniature_fits_the_text_tower() -> None:
    network = Captioner(MINI).eval().requires_grad_(False)
    network.decoder.output.bias[clip.WORDS.index("car") + 1] = 1e4
    describer = Describer(network, mini_describer().vocabulary)
    said = describe(describer, torch.zeros(1, MINI.tokens_in, MINI.dim_in))
    assert clip.encode(said)[0, -1] == clip.END


def test_logits_and_captions_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GitConfig(
        vision_config={
            "hidden_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "patch_size": 112,
        },
        vocab_size=SMALL.vocabulary,
        hidden_size=SMALL.width,
        num_hidden_layers=SMALL.layers,
        num_attention_heads=SMALL.heads,
        intermediate_size=SMALL.hidden,
        max_position_embeddings=SMALL.positions,
        bos_token_id=SMALL.start,
        eos_token_id=SMALL.end,
    )
    network = _network()
    original = transformers.GitForCausalLM(config).eval()

    class Given(nn.Module):
        """Stands in for the image encoder."""

        def forward(self, pixel_values: Tensor, **_: object) -> object:
            return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=pixel_values[:, 0])

    original.git.image_encoder = Given()
    original.load_state_dict(network.decoder.state_dict())
    pixels = network.converter(_tokens())[:, None]
    numbers = torch.randint(50, (6, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = original(input_ids=numbers, pixel_values=pixels).logits[:, -9:]
    torch.testing.assert_close(network(_tokens(), numbers), logits, rtol=0, atol=5e-5)
    assert torch.equal(original.generate(pixel_values=pixels, max_length=20), network.generate(_tokens()))
