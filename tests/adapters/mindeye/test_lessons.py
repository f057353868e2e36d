"""The losses of both MindEyes, put together by hand on tiny networks, and where their gradients go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nsdbench.adapters.mindeye.augment import target_view
from nsdbench.adapters.mindeye.encoder import EncoderConfig, MindEye1, MindEye1Config
from nsdbench.adapters.mindeye.examples import Examples, Targets
from nsdbench.adapters.mindeye.lessons import HighLevel, LowLevel, Shared, Weights
from nsdbench.adapters.mindeye.losses import (
    Contrastive,
    Mixture,
    bimixco,
    mixco,
    mixco_within,
    soft_clip,
    soft_cont,
    unit,
)
from nsdbench.adapters.mindeye.lowlevel import LowLevelConfig, VoxelLatents
from nsdbench.adapters.mindeye.trunk import MindEye2, MindEye2Config, TrunkConfig
from nsdbench.adapters.nets.prior import PriorConfig
from nsdbench.adapters.scaling import Scaling
from nsdbench.types import Trials

N, TOKENS, DIM, SIDE, MAPS = 12, 2, 8, 4, 5
PRIOR = PriorConfig(dim=DIM, tokens=TOKENS, depth=1, heads=2, dim_head=4, steps=10)
LOW = LowLevelConfig(map_side=2, map_channels=4, decoder=(8, 8), groups=4, maps_dim=MAPS)
CONTRASTIVE = Contrastive(4)
MIXED, SOFT = 0, 2
"""Epochs of each kind."""
WEIGHTS = Weights(prior=7.0, contrast=3.0, low_level=0.6, maps=0.2)


def examples(voxels: int, seed: int, images: int = N) -> Examples:
    """Trials of 12 images, two of each, with random targets."""
    draw = np.random.default_rng(seed)
    shown = np.array([f"img{k:02d}" for k in range(images)] * 2)
    n = len(shown)
    betas = draw.standard_normal((n, voxels), np.float32)
    numbers = np.arange(n)
    train = Trials(betas, shown, "train", np.full(n, "core"), numbers, numbers, 1, {})
    targets = Targets(
        draw.standard_normal((images, TOKENS, DIM), np.float32).astype(np.float16),
        draw.standard_normal((images, 4, SIDE, SIDE), np.float32),
        draw.standard_normal((images, 2, 4, MAPS), np.float32).astype(np.float16),
    )
    return Examples.of(train, Scaling.of(betas, ddof=0), targets, "cpu")


def rng(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def high() -> HighLevel:
    torch.manual_seed(1)
    network = MindEye1(9, MindEye1Config(EncoderConfig(16, 1, TOKENS, DIM, 6), PRIOR)).eval()
    return HighLevel(network, examples(9, 1), 6, CONTRASTIVE, WEIGHTS)


@pytest.fixture
def low() -> LowLevel:
    torch.manual_seed(2)
    return LowLevel(VoxelLatents(9, 16, 1, LOW).eval(), examples(9, 1), 6, 0.25, WEIGHTS)


@pytest.fixture
def shared() -> Shared:
    """Two subjects with other voxels and other numbers of images."""
    torch.manual_seed(3)
    trunk = TrunkConfig(16, 2, 1, TOKENS, DIM, DIM, low_level=LOW)
    network = MindEye2((9, 7), MindEye2Config(trunk, PRIOR)).eval()
    return Shared(network, (examples(9, 1), examples(7, 2, 9)), 4, CONTRASTIVE, WEIGHTS)


def first(lesson: Any, epoch: int = SOFT) -> Any:
    return next(iter(lesson.batches(epoch, rng(9))))


def close(found: Tensor, expected: Tensor | float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-5, atol=1e-6)


# MindEye1, high level


def test_mindeye1_takes_the_repeat_with_the_number_of_the_step(high: HighLevel) -> None:
    batches = list(high.batches(0, rng()))
    assert [step for step, _ in batches] == list(range(high.steps)) == [0, 1]
    calls = []
    high.network.voxel2clip.register_forward_pre_hook(lambda _, given: calls.append(given[0]))
    for batch in batches:
        high.losses(batch, SOFT, rng())
    for (step, images), given in zip(batches, calls, strict=True):
        assert torch.equal(given, high.examples.repeat(images, step))


def test_mindeye1_has_softclip_and_the_error_of_the_prior(high: HighLevel) -> None:
    step, images = first(high)
    tokens = high.examples.tokens(images)
    backbone, retrieval = high.network.voxel2clip(high.examples.repeat(images, step))
    terms = high.losses((step, images), SOFT, rng())
    assert terms.keys() == {"prior", "contrast"}
    close(terms["prior"], 7 * high.network.loss(tokens, backbone, rng())[0])
    close(terms["contrast"], 3 * soft_clip(unit(retrieval), unit(tokens), CONTRASTIVE.temperature(SOFT)))


def test_mindeye1_mixes_voxels_first_and_teaches_the_prior_with_the_others(high: HighLevel) -> None:
    step, images = first(high)
    tokens, draws = high.examples.tokens(images), rng()
    mixture = mixco(high.examples.repeat(images, step), draws)
    assert 0 < mixture.selected.sum() < len(images)
    backbone, retrieval = high.network.voxel2clip(mixture.voxels)
    terms = high.losses((step, images), MIXED, rng())
    kept = ~mixture.selected
    close(terms["prior"], 7 * high.network.loss(tokens[kept], backbone[kept], draws)[0])
    labels = mixture.partners, mixture.betas
    close(terms["contrast"], 3 * bimixco(unit(retrieval), unit(tokens), 0.006, *labels))


def test_mindeye1_as_published_teaches_the_prior_with_mixed_items_too(high: HighLevel) -> None:
    step, images = first(high)
    tokens, draws = high.examples.tokens(images), rng()
    mixture = mixco(high.examples.repeat(images, step), draws)
    backbone, _ = high.network.voxel2clip(mixture.voxels)
    terms = replace(high, legacy_bugs=True).losses((step, images), MIXED, rng())
    close(terms["prior"], 7 * high.network.loss(tokens, backbone, draws)[0])
    fixed = high.losses((step, images), MIXED, rng())
    assert not torch.isclose(terms["prior"], fixed["prior"])
    close(terms["contrast"], fixed["contrast"])


def test_mindeye1_may_learn_images_that_are_altered_anew_in_every_step(high: HighLevel) -> None:
    pictures, seen = torch.rand(N, 3, 16, 16, generator=rng()), []
    answer = torch.randn(6, TOKENS, DIM, generator=rng(1))

    def embed(images: Tensor) -> Tensor:
        seen.append(images)
        return answer

    given = replace(high.examples, read=lambda numbers: pictures[list(numbers)])
    altering = replace(high, examples=given, embed=embed)
    step, images = first(altering)
    terms = [altering.losses((step, images), SOFT, rng(seed)) for seed in (5, 6)]
    draws = rng(5)
    assert torch.equal(seen[0], target_view(pictures[images], draws))
    assert not torch.equal(seen[0], seen[1])
    backbone, retrieval = high.network.voxel2clip(given.repeat(images, step))
    close(terms[0]["prior"], 7 * high.network.loss(answer, backbone, draws)[0])
    temperature = CONTRASTIVE.temperature(SOFT)
    close(terms[0]["contrast"], 3 * soft_clip(unit(retrieval), unit(answer), temperature))


def test_a_batch_in_which_all_items_are_mixed_teaches_the_prior_nothing(high: HighLevel) -> None:
    pair = replace(high, batch=2)
    step, images = first(pair)
    voxels = pair.examples.repeat(images, step)
    seed = next(s for s in range(99) if mixco(voxels, rng(s)).selected.all())
    terms = pair.losses((step, images), MIXED, rng(seed))
    close(terms["prior"], 0.0)
    sum(terms.values()).backward()  # type: ignore[union-attr, no-untyped-call]
    assert pair.network.voxel2clip.lin1.weight.grad is not None


def test_every_part_of_mindeye1_learns(high: HighLevel) -> None:
    high.network.train()
    sum(high.losses(first(high), SOFT, rng()).values()).backward()  # type: ignore[union-attr, no-untyped-call]
    idle = {name for name, p in high.network.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == set()
    for name in ("voxel2clip.lin0.0.weight", "voxel2clip.projector.8.weight", "net.learned_query"):
        assert high.network.get_parameter(name).grad.abs().max() > 0  # type: ignore[union-attr]


# MindEye1, low level


def test_the_low_level_network_has_the_error_of_latents_and_the_likeness_of_all_places(low: LowLevel) -> None:
    images = first(low)
    latents, maps = low.network(low.examples.blended(images, rng()), maps=True)
    terms = low.losses(images, 0, rng())
    error = (latents - low.examples.latents(images)).abs().mean()
    close(terms["latents"], error / 0.25)
    teacher, altered = low.examples.maps(images)
    places = [unit(one.reshape(-1, MAPS)) for one in (maps, teacher, altered)]
    assert places[0].shape == (6 * 4, MAPS)
    close(terms["maps"], 0.2 * soft_cont(places[0], places[1], places[2], 0.075))
    assert terms.keys() == {"latents", "maps"}


def test_every_part_of_the_low_level_network_learns(low: LowLevel) -> None:
    low.network.train()
    sum(low.losses(first(low), 0, rng()).values()).backward()  # type: ignore[union-attr, no-untyped-call]
    assert all(p.grad is not None for p in low.network.parameters())


# MindEye2


def by_hand(
    shared: Shared, images: tuple[Tensor, ...], mixed: bool
) -> tuple[Any, Mixture | None, torch.Generator]:
    """What the network says of a batch, how it was mixed, and the generator that the prior continues with."""
    draws = rng()
    voxels = [part.one(some, draws) for part, some in zip(shared.parts, images, strict=True)]
    mixture = None
    if mixed:
        voxels, mixture = mixco_within(voxels, draws, legacy_bugs=shared.legacy_bugs)
    network = shared.network
    hidden = torch.cat([network.ridge(voxels[0], 0), network.ridge(voxels[1], 1)])
    return network.backbone(hidden, maps=True), mixture, draws


def both(shared: Shared, name: str, images: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([getattr(part, name)(some) for part, some in zip(shared.parts, images, strict=True)])


def test_an_epoch_of_several_subjects_ends_with_the_one_of_fewest_images(shared: Shared) -> None:
    assert shared.steps == 2
    batches = list(shared.batches(0, rng()))
    assert [[len(part) for part in batch] for batch in batches] == [[4, 4], [4, 4]]
    assert all(int(batch[1].max()) < 9 for batch in batches)


def test_mindeye2_has_four_terms_over_the_batches_of_all_subjects(shared: Shared) -> None:
    images = first(shared)
    out, _, draws = by_hand(shared, images, mixed=False)
    tokens = both(shared, "tokens", images)
    terms = shared.losses(images, SOFT, rng())
    assert terms.keys() == {"prior", "contrast", "latents", "maps"}
    close(terms["prior"], 7 * shared.network.diffusion_prior.loss(tokens, out.backbone, draws)[0])
    temperature = CONTRASTIVE.temperature(SOFT)
    close(terms["contrast"], 3 * soft_clip(unit(out.retrieval), unit(tokens), temperature))
    close(terms["latents"], 0.6 * functional.l1_loss(out.latents, both(shared, "latents", images)))
    teacher, altered = (
        torch.cat([part.maps(some)[k] for part, some in zip(shared.parts, images, strict=True)])
        for k in (0, 1)
    )
    student, teacher, altered = (unit(one.reshape(-1, MAPS)) for one in (out.maps, teacher, altered))
    close(terms["maps"], 0.6 * 0.2 * soft_cont(student, teacher, altered, 0.2))


def test_mindeye2_mixes_within_subjects_and_mixes_the_latents_alike(shared: Shared) -> None:
    images = first(shared)
    out, mixture, draws = by_hand(shared, images, mixed=True)
    assert mixture is not None
    assert 0 < mixture.selected.sum() < 8
    assert mixture.partners[:4].max() < 4 <= mixture.partners[4:].min()
    tokens, latents = both(shared, "tokens", images), both(shared, "latents", images)
    terms, kept = shared.losses(images, MIXED, rng()), ~mixture.selected
    close(terms["prior"], 7 * shared.network.diffusion_prior.loss(tokens[kept], out.backbone[kept], draws)[0])
    labels = mixture.partners, mixture.betas
    close(terms["contrast"], 3 * bimixco(unit(out.retrieval), unit(tokens), 0.006, *labels))
    share = mixture.betas[:, None, None, None]
    wanted = share * latents + (1 - share) * latents[mixture.partners]
    close(terms["latents"], 0.6 * (out.latents - wanted).abs().mean())


def test_mindeye2_as_published_looks_partners_up_among_the_first_rows_and_mixes_no_latents(
    shared: Shared,
) -> None:
    legacy = replace(shared, legacy_bugs=True)
    images = first(legacy)
    out, mixture, draws = by_hand(legacy, images, mixed=True)
    assert mixture is not None
    assert mixture.partners.max() < 4
    tokens, latents = both(legacy, "tokens", images), both(legacy, "latents", images)
    terms = legacy.losses(images, MIXED, rng())
    close(terms["prior"], 7 * legacy.network.diffusion_prior.loss(tokens, out.backbone, draws)[0])
    close(
        terms["contrast"],
        3 * bimixco(unit(out.retrieval), unit(tokens), 0.006, mixture.partners, mixture.betas),
    )
    close(terms["latents"], 0.6 * (out.latents - latents).abs().mean())
    fixed = shared.losses(images, MIXED, rng())
    assert not any(torch.isclose(terms[name], fixed[name]) for name in ("prior", "contrast", "latents"))
    close(terms["maps"], fixed["maps"])


def test_without_a_low_level_branch_its_terms_are_left_out() -> None:
    trunk = TrunkConfig(16, 1, 1, TOKENS, DIM, DIM)
    lesson = Shared(MindEye2((9,), MindEye2Config(trunk, PRIOR)), (examples(9, 1),), 4, CONTRASTIVE)
    assert lesson.losses(first(lesson), MIXED, rng()).keys() == {"prior", "contrast"}


@pytest.mark.parametrize("epoch", [MIXED, SOFT])
def test_every_part_of_mindeye2_learns_but_the_dead_mixer(shared: Shared, epoch: int) -> None:
    shared.network.train()
    sum(shared.losses(first(shared), epoch, rng()).values()).backward()  # type: ignore[union-attr, no-untyped-call]
    idle = {name for name, p in shared.network.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == {name for name, _ in shared.network.named_parameters() if ".mixer_blocks1." in name}
    for name in ("ridge.linears.0.weight", "ridge.linears.1.weight", "backbone.mixer_blocks2.1.1.3.bias"):
        assert shared.network.get_parameter(name).grad.abs().max() > 0  # type: ignore[union-attr]


def test_the_prior_and_the_other_heads_share_the_layer_of_the_subject(shared: Shared) -> None:
    terms = shared.losses(first(shared), SOFT, rng())
    weight = shared.network.ridge.linears[1].weight
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, [weight], retain_graph=True)
        assert gradient.abs().max() > 0, name
