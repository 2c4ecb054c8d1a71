"""Mixtures of small Gaussians in the plane, on which it shows which modes a generator dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from captum_mi._checks import check_positive_number

NEAR = 3.0  # deviations from a mode within which a sample is of high quality
LEAST_SHARE = 0.01  # of all samples that must lie near a mode that counts as covered


class Coverage(NamedTuple):
    """How well samples cover a mixture.

    Attributes:
        modes: how many have at least 1 % of all samples within 3 deviations.
        high_quality: share of the samples within 3 deviations of a mode.
        divergence: Kullback-Leibler divergence, nats, of the share of each mode in those samples
            to equal shares; infinite without any such sample.
    """

    modes: int
    high_quality: float
    divergence: float


@dataclass(frozen=True, eq=False)
class GaussianModes:
    """A mixture of round Gaussians, all with the same share and deviation.

    Args:
        modes: (M, d), their centers, further apart than 6 deviations.
        deviation: of each coordinate.

    Raises:
        ValueError: if ``modes`` is not (M, d), or ``deviation`` is not positive.

    Example:
        >>> ring = GaussianModes.ring()
        >>> samples = ring.sample(10_000, torch.Generator().manual_seed(0))
        >>> found = ring.coverage(samples)
        >>> found.modes, round(found.high_quality, 2), round(found.divergence, 2)
        (8, 0.99, 0.0)
    """

    modes: Tensor
    deviation: float

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if self.modes.ndim != 2 or not self.modes.numel():
            raise ValueError(f"`modes` must be (M, d), got shape {tuple(self.modes.shape)}")
        check_positive_number("deviation", self.deviation)

    @classmethod
    def ring(cls, n_modes: int = 8, radius: float = 2.0, deviation: float = 0.02) -> GaussianModes:
        """Returns modes at equal distances on a circle around zero.

        Source: Metz et al., "Unrolled generative adversarial networks", ICLR 2017, section 3.1.

        Example:
            >>> GaussianModes.ring(4).modes.round(decimals=3)[0]
            tensor([2., 0.])
        """
        angles = 2 * math.pi * torch.arange(n_modes) / n_modes
        return cls(radius * torch.stack([angles.cos(), angles.sin()], dim=1), deviation)

    @classmethod
    def grid(cls, side: int = 5, spacing: float = 1.0, deviation: float = 0.05) -> GaussianModes:
        """Returns modes on a square grid around zero.

        Example:
            >>> GaussianModes.grid(2).modes.tolist()
            [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
        """
        places = [spacing * (index - (side - 1) / 2) for index in range(side)]
        return cls(torch.tensor(list(product(places, places))), deviation)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws samples, (n, d)."""
        chosen = torch.randint(len(self.modes), (n,), generator=generator)
        noise = torch.randn(n, self.modes.shape[1], generator=generator)
        return self.modes[chosen] + self.deviation * noise

    def coverage(self, samples: Tensor) -> Coverage:
        """Judges samples, (N, d), by the modes next to which they lie."""
        distances, nearest = torch.cdist(samples, self.modes).min(dim=1)
        good = distances <= NEAR * self.deviation
        counts = torch.bincount(nearest[good], minlength=len(self.modes)).double()
        n_good = float(counts.sum())
        shares = counts / n_good
        divergence = float(torch.special.xlogy(shares, shares * len(counts)).sum())
        return Coverage(
            int((counts >= LEAST_SHARE * len(samples)).sum()),
            n_good / len(samples),
            divergence if n_good else math.inf,
        )
