"""Permutations and sign patterns, all of them where they can be listed, and the p-values they give."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXACT_UP_TO = 8  # 8! = 40,320 arrangements are listed; above that, arrangements are drawn
SIGNS_UP_TO = 14  # 2^14 = 16,384 sign patterns are listed
ROUNDING = 1e-12  # statistics closer than this are equal


def p_values(draws: Floats, observed: Floats, *, exact: bool) -> Floats:
    """Return the share of arrangements whose statistic reaches the observed one.

    Drawn arrangements count the observation itself: ``(1 + #) / (1 + B)`` is never zero and never too small (Phipson
    and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39). A complete list contains it anyway. An undefined statistic
    (NaN) gets 1.

    Parameters
    ----------
    draws : float array of shape (..., n_arrangements)
    observed : float array of shape (...)
    exact : bool
        Whether the arrangements are all there are.
    """
    reached = (~(draws < np.asarray(observed)[..., None] - ROUNDING)).sum(axis=-1)
    n = draws.shape[-1]
    return np.asarray(reached / n if exact else (1 + reached) / (1 + n), dtype=np.float64)


def permutations(
    n: int, n_draws: int, seed: tuple[int, ...], *, listed: bool = True
) -> tuple[NDArray[np.int64], bool]:
    """Return permutations of ``range(n)`` by row and whether they are all of them.

    Parameters
    ----------
    n : int
        Number of things.
    n_draws : int
        How many to draw where they are not listed.
    seed : tuple of int
        Seed of the draws; equal seeds and sizes give equal draws.
    listed : bool
        Whether to list all where there are few enough.
    """
    if listed and n <= EXACT_UP_TO:
        return _all_permutations(n), True
    rng = np.random.default_rng(np.random.SeedSequence([*seed, n]))
    return rng.permuted(np.tile(np.arange(n), (n_draws, 1)), axis=1), False


@functools.cache
def _all_permutations(n: int) -> NDArray[np.int64]:
    """Return all permutations of ``range(n)``, shape (n!, n), identity first."""
    if n == 1:
        return np.zeros((1, 1), np.int64)
    shorter = _all_permutations(n - 1) + 1
    blocks = []
    for first in range(n):
        rest = np.where(shorter <= first, shorter - 1, shorter)
        blocks.append(np.column_stack([np.full(len(rest), first), rest]))
    return np.concatenate(blocks)


# those of a thousand targets take long, and the next model asks for the same ones
@functools.lru_cache(maxsize=1)
def sign_patterns(n: int, n_draws: int, seed: int) -> tuple[Floats, bool]:
    """Return rows of n signs, -1 or 1, read-only, and whether they are all of them."""
    exact = n <= SIGNS_UP_TO
    if exact:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        bits = np.random.default_rng(np.random.SeedSequence([seed, n, 2])).integers(2, size=(n_draws, n))
    signs = np.asarray(1 - 2 * bits, dtype=np.float64)
    signs.flags.writeable = False
    return signs, exact
