"""Captions as numbers: one per word, for the text side of the contrastive model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Words:
    """The words of a set of captions; 0 stands for no word.

    Parameters
    ----------
    captions : str array
        All captions that may come.
    """

    def __init__(self, captions: NDArray[np.str_]) -> None:
        split = [caption.split() for caption in np.unique(captions).tolist()]
        self.index = {word: i for i, word in enumerate(sorted({w for words in split for w in words}), 1)}
        self.length = max(map(len, split))

    def __len__(self) -> int:
        return len(self.index) + 1

    def encode(self, captions: NDArray[np.str_]) -> Tensor:
        """Return int64 word numbers of shape (n, length); an unknown word is a KeyError."""
        numbers = torch.zeros(len(captions), self.length, dtype=torch.int64)
        for row, caption in zip(numbers, captions.tolist(), strict=True):
            words = caption.split()
            row[: len(words)] = torch.tensor([self.index[word] for word in words])
        return numbers
