"""Images, and the encoder that goes with them, with known information between Z and each place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_mi._checks import check_positive
from captum_mi.datasets.known_mi import Floats

SIDE = 8
"""Width and height of a place, pixels."""

SHARPNESS = 6.0
"""Slope of the logits: a label that is read has a probability of 0.98 or more."""


@dataclass(frozen=True)
class KnownPlaces(Dataset[tuple[Tensor, int]], ABC):
    """Labeled images of h x w places, with an encoder that shares known information with each.

    Item ``i`` is (image, label) and depends on ``seed`` and ``i`` alone. The encoder needs no
    training and gives every image its label. Its layers can be hooked by name: ``local``, one
    value per place; ``pool``, the global representation Z; ``head``, the logits.

    Args:
        length: number of images.
        seed: seed of the whole set.

    Raises:
        ValueError: if ``length`` is below 1.
    """

    length: int
    _: KW_ONLY
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_positive("length", self.length)

    @property
    @abstractmethod
    def total(self) -> Floats:
        """(h, w), I(Z; X_k) between the global representation and each place, nats."""

    @abstractmethod
    def encoder(self) -> nn.Module:
        """Returns the encoder, images to logits, in evaluation mode; always the same weights."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[Floats, int]:
        """Draws one image, (channels, height, width), and its label."""

    def __len__(self) -> int:
        """Returns the number of images."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Draws image ``index``, float32, and its label."""
        if not -self.length <= index < self.length:
            raise IndexError(f"image {index} of {self.length}")
        image, label = self.draw(np.random.default_rng((self.seed, index % self.length)))
        return torch.from_numpy(image.astype(np.float32)), label


def check_rows(name: str, rows: tuple[tuple[object, ...], ...]) -> None:
    """Raises if ``rows`` are not rows of one length, at least 1."""
    widths = [len(row) for row in rows]
    if not widths or min(widths) < 1 or min(widths) < max(widths):
        raise ValueError(f"`{name}` must be rows of one length, got lengths {widths}")


def enlarged(places: Floats) -> Floats:
    """Returns places, (..., h, w), each on 8 x 8 pixels."""
    return places.repeat(SIDE, axis=-2).repeat(SIDE, axis=-1)


def convolution(weight: Floats, bias: float = 0.0) -> nn.Conv2d:
    """Returns a convolution of these weights that steps by its own width."""
    out, channels, _, side = weight.shape
    layer = nn.Conv2d(channels, out, side, stride=side, device="meta")
    layer.weight = _parameter(weight)
    layer.bias = _parameter(np.full(out, bias))
    return layer


def linear(weight: Floats) -> nn.Linear:
    """Returns a linear layer of these weights, without bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = _parameter(weight)
    return layer


def _parameter(values: Floats) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32))
