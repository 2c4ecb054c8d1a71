"""Critics of pairs: networks that score every sample of X with every sample of Y."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

EMBEDDING = 128  # numbers of which a separable critic takes the scalar product
CHANNELS = 8
SIDE = 4  # pixels, down to which convolutions halve an image
AT_ONCE = 2**24  # numbers in memory when pairs are scored without gradient


class PairCritic(nn.Module, ABC):
    """Scores samples of X and of Y, every one with every one.

    A sample is a vector, (d,), read by linear layers, or an image, (C, H, W), read by convolutions
    of 8 channels and pooling down to 4x4 pixels and then by linear layers; X and Y may differ.

    Args:
        shape_x: of a sample of X.
        shape_y: of a sample of Y.
        hidden: units of each hidden layer, at least one.
    """

    numbers_per_pair: int
    """Numbers in memory for each pair that is scored."""

    @abstractmethod
    def __init__(
        self, shape_x: Sequence[int], shape_y: Sequence[int], hidden: Sequence[int]
    ) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the scores, (N, M), of N samples of X and M samples of Y."""

    @torch.no_grad()
    def score(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the scores, (N, M), without gradient and with bounded memory."""
        rows = max(1, AT_ONCE // (len(y) * self.numbers_per_pair))
        return torch.cat([self(part, y) for part in torch.split(x, rows)])


class SeparablePairs(PairCritic):
    r"""The scalar product of two networks, :math:`g(x) \cdot h(y)`.

    N samples of X and of Y are read once each, so that all pairs of a large batch are cheap.

    Example:
        >>> critic = SeparablePairs((3,), (1, 16, 16), hidden=(8,))
        >>> critic(torch.randn(5, 3), torch.randn(7, 1, 16, 16)).shape
        torch.Size([5, 7])
    """

    numbers_per_pair = 1

    def __init__(
        self, shape_x: Sequence[int], shape_y: Sequence[int], hidden: Sequence[int] = (256,)
    ) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__(shape_x, shape_y, hidden)
        self.of_x, self.of_y = (tower(shape, [*hidden, EMBEDDING]) for shape in (shape_x, shape_y))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the scores, (N, M), of N samples of X and M samples of Y."""
        first: Tensor = self.of_x(x) * EMBEDDING**-0.5
        second: Tensor = self.of_y(y)
        return first @ second.T


class ConcatPairs(PairCritic):
    """One network that reads x and y side by side; images pass convolutions of their own first.

    Everything behind the first linear layer runs for each pair: use batches of some 100.

    Example:
        >>> critic = ConcatPairs((3,), (1, 16, 16), hidden=(8, 8))
        >>> critic(torch.randn(5, 3), torch.randn(7, 1, 16, 16)).shape
        torch.Size([5, 7])
    """

    def __init__(
        self, shape_x: Sequence[int], shape_y: Sequence[int], hidden: Sequence[int] = (256,)
    ) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__(shape_x, shape_y, hidden)
        # A linear layer of x and y side by side is the sum of one of x and one of y.
        self.of_x, self.of_y = (tower(shape, hidden[:1]) for shape in (shape_x, shape_y))
        self.of_both = nn.Sequential(nn.LeakyReLU(), *dense([*hidden, 1]))
        self.numbers_per_pair = max(hidden)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the scores, (N, M), of N samples of X and M samples of Y."""
        scores: Tensor = self.of_both(self.of_x(x)[:, None] + self.of_y(y))
        return scores.squeeze(-1)


PAIR_CRITICS: dict[str, Callable[[Sequence[int], Sequence[int], Sequence[int]], PairCritic]] = {
    "separable": SeparablePairs,
    "concat": ConcatPairs,
}
"""Short name -> factory that takes the shapes of x and of y and the hidden units."""


def tower(shape: Sequence[int], units: Sequence[int]) -> nn.Sequential:
    """Builds a network of one sample: convolutions if it is an image, then linear layers.

    Args:
        shape: (d,) or (C, H, W).
        units: of each linear layer; the last one's are the outputs.
    """
    if len(shape) == 1:
        return nn.Sequential(*dense([shape[0], *units]))
    channels, *sides = shape
    layers: list[nn.Module] = []
    while max(sides) > SIDE:
        layers += [nn.Conv2d(channels, CHANNELS, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True)]
        layers.append(nn.LeakyReLU())
        channels, sides = CHANNELS, [-(-side // 2) for side in sides]
    features = channels * sides[0] * sides[1]
    return nn.Sequential(*layers, nn.Flatten(), *dense([features, *units]))


def dense(units: Sequence[int]) -> list[nn.Module]:
    """Builds linear layers from each number of units to the next, with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(units):
        layers += [nn.LeakyReLU(), nn.Linear(before, after)]
    return layers[1:]
