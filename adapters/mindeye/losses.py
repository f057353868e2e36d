"""What MindEye's retrieval and low-level branches learn by: mixed voxels, and soft contrastive losses.

BiMixCo is the two-directional form of MixCo (Kim et al. 2020, arXiv 2010.06300); SoftCLIP takes the similarities among
the targets for labels (Gao et al. 2023, arXiv 2303.17561), both as in MindEye (Scotti et al. 2023, arXiv 2305.18274,
section 3.2). Everything here is computed on embeddings of unit length, (n, channels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Mixture(NamedTuple):
    """Voxels of which some items are mixed with a partner, ``betas * item + (1 - betas) * partner``.

    Attributes
    ----------
    voxels : tensor of shape (n, ...)
    partners : int tensor of shape (n,)
        The partner of each item, chosen or not: a permutation.
    betas : tensor of shape (n,)
        Share of the item itself; 1 where it is not mixed.
    selected : bool tensor of shape (n,)
        Items that are mixed.
    """

    voxels: Tensor
    partners: Tensor
    betas: Tensor
    selected: Tensor


@dataclass(frozen=True)
class Contrastive:
    """Which contrastive loss an epoch has, and at which temperature.

    The first epochs mix voxels and have BiMixCo; then SoftCLIP follows, its temperature rising from ``soft_start`` to
    ``soft_end``. The defaults are those of both models.

    Attributes
    ----------
    epochs : int
    mixed_share : float
        Share of the epochs with mixing, rounded down to whole epochs.
    mixco_temperature, soft_start, soft_end : float
    """

    epochs: int
    mixed_share: float = 0.33
    mixco_temperature: float = 0.006
    soft_start: float = 0.004
    soft_end: float = 0.0075

    @property
    def mixed_epochs(self) -> int:
        """Number of epochs with mixing: 79 of 240 in MindEye 1, 49 of 150 in MindEye 2."""
        return int(self.mixed_share * self.epochs)

    def mixes(self, epoch: int) -> bool:
        """Whether voxels are mixed in an epoch, counted from 0."""
        return epoch < self.mixed_epochs

    def temperature(self, epoch: int) -> float:
        """Return the temperature of an epoch, counted from 0."""
        if self.mixes(epoch):
            return self.mixco_temperature
        annealed = cosine_anneal(self.soft_start, self.soft_end, self.epochs - self.mixed_epochs)
        return float(annealed[epoch - self.mixed_epochs])

    def loss(self, epoch: int, preds: Tensor, targets: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        preds, targets : tensor of shape (n, ...)
            Flattened and normalised here.
        mixture : Mixture, optional
            How the voxels behind ``preds`` were mixed, in an epoch with mixing.
        """
        preds, targets = unit(preds), unit(targets)
        if not self.mixes(epoch):
            return soft_clip(preds, targets, self.temperature(epoch))
        partners, betas = (None, None) if mixture is None else (mixture.partners, mixture.betas)
        return bimixco(preds, targets, self.temperature(epoch), partners, betas)


def unit(embeddings: Tensor) -> Tensor:
    """Return embeddings (n, ...) as float32 (n, channels) of unit length."""
    return torch.nn.functional.normalize(embeddings.float().flatten(1), dim=-1)


def mixco(voxels: Tensor, rng: torch.Generator, beta: float = 0.15, share: float = 0.5) -> Mixture:
    """Mix a random part of a batch with partners from the same batch.

    Parameters
    ----------
    voxels : tensor of shape (n, ...)
        Left as it is.
    rng : torch.Generator
        Draws partners, shares and the selection.
    beta : float
        Both parameters of the Beta distribution of the shares.
    share : float
        Chance of an item to be mixed.
    """
    n, device = len(voxels), voxels.device
    partners = torch.randperm(n, generator=rng, device=rng.device).to(device)
    selected = (torch.rand(n, generator=rng, device=rng.device) <= share).to(device)
    betas = torch.where(selected, _beta(n, beta, rng).to(device), 1.0)
    mixed = mix(voxels, partners, betas)
    return Mixture(mixed, partners, betas, selected)


def mixco_within(
    parts: Sequence[Tensor],
    rng: torch.Generator,
    beta: float = 0.15,
    share: float = 0.5,
    legacy_bugs: bool = False,
) -> tuple[list[Tensor], Mixture]:
    """Mix the voxels of several subjects, each within its own part of a batch.

    Parameters
    ----------
    parts : sequence of tensor of shape (n_s, ...)
        The voxels of each subject, whose numbers differ.
    rng, beta, share
        As in :func:`mixco`.
    legacy_bugs : bool
        Partners are counted from the start of their subject's part, as in MindEye 2's training code, where they are
        then looked up in the whole batch: every subject's partners lie in the first rows.

    Returns
    -------
    voxels : list of tensor
        Mixed, one tensor per subject.
    mixture : Mixture
        Of the whole batch; its ``voxels`` are empty, (n, 0).
    """
    mixtures = [mixco(part, rng, beta, share) for part in parts]
    starts = np.cumsum([0, *(len(part) for part in parts)])[:-1].tolist()
    whole = Mixture(
        torch.cat([part.new_empty(len(part), 0) for part in parts]),
        torch.cat(
            [
                m.partners if legacy_bugs else m.partners + start
                for m, start in zip(mixtures, starts, strict=True)
            ]
        ),
        torch.cat([m.betas for m in mixtures]),
        torch.cat([m.selected for m in mixtures]),
    )
    return [m.voxels for m in mixtures], whole


def mix(values: Tensor, partners: Tensor, betas: Tensor) -> Tensor:
    """Return ``betas * values + (1 - betas) * values[partners]``, the shape of ``values`` (n, ...)."""
    shares = betas.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
    return shares * values + (1 - shares) * values[partners]


def bimixco(
    preds: Tensor,
    targets: Tensor,
    temperature: float,
    partners: Tensor | None = None,
    betas: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of predictions and targets in both directions, with the shares of mixing as labels.

    Parameters
    ----------
    preds, targets : tensor of shape (n, channels)
        Of unit length.
    temperature : float
    partners, betas : tensor of shape (n,), optional
        Of the mixing; without them every prediction belongs to its own target alone.

    Notes
    -----
    The labels are written one after the other, as published: an item that is its own partner ends with the label
    1 - beta, hence with none if it was not selected.
    """
    labels = torch.eye(len(preds), device=preds.device)
    if partners is not None and betas is not None:
        rows = torch.arange(len(preds), device=preds.device)
        labels = torch.diag(betas.float())
        labels[rows, partners] = 1 - betas.float()
    logits = _logits(preds, targets, temperature)
    return (_cross_entropy(logits, labels) + _cross_entropy(logits.T, labels.T)) / 2


def soft_clip(preds: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy in both directions, with the similarities among the targets as labels.

    Parameters
    ----------
    preds, targets : tensor of shape (n, channels)
        Of unit length.
    temperature : float
    """
    labels = _logits(targets, targets, temperature).softmax(dim=-1)
    logits = _logits(preds, targets, temperature)
    return (_cross_entropy(logits, labels) + _cross_entropy(logits.T, labels)) / 2


def soft_cont(student: Tensor, teacher: Tensor, augmented: Tensor, temperature: float) -> Tensor:
    """Return how far a student is from relating to augmented images as its teacher does.

    Parameters
    ----------
    student, teacher, augmented : tensor of shape (n, channels)
        Of unit length: the student's tokens, the teacher's tokens of the image, and of an augmented copy.
    temperature : float
        0.075 in MindEye 1, 0.2 in MindEye 2.
    """
    taught, learnt = _logits(teacher, augmented, temperature), _logits(student, augmented, temperature)
    ahead = _cross_entropy(learnt, taught.softmax(dim=-1))
    back = _cross_entropy(learnt.T, taught.T.softmax(dim=-1))
    return (ahead + back) / 2


def cosine_anneal(start: float, end: float, steps: int) -> NDArray[np.float64]:
    """Return ``steps`` values from ``start`` to ``end`` along half a cosine, (steps,)."""
    angles = np.linspace(0, np.pi, steps)
    return end + (start - end) / 2 * (1 + np.cos(angles))


def _logits(rows: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """Return float32 logits, in mixed precision too: small temperatures would enlarge its rounding."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows.float() @ columns.float().T / temperature


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -(labels * logits.log_softmax(dim=-1)).sum(dim=-1).mean()


def _beta(n: int, beta: float, rng: torch.Generator) -> Tensor:
    """Return float32 draws from Beta(beta, beta), (n,), which PyTorch has without a generator only."""
    seed = int(torch.randint(2**63 - 1, (), generator=rng, device=rng.device))
    return torch.from_numpy(np.random.default_rng(seed).beta(beta, beta, n).astype(np.float32))
