"""Networks that say how much of each place passes a bottleneck."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from captum_mi.estimators.critics import PlaceLinear

if TYPE_CHECKING:
    from captum_mi.attr.places import Places

OPEN = 2.0
"""Logit at which a mask starts: 0.88 of each place passes."""


class PointwiseMask(nn.Module):
    """Two layers at each place by itself: what passes there is a function of that place alone."""

    def __init__(self, channels: int, hidden: int, places: int | None) -> None:
        super().__init__()
        self.first = PlaceLinear(channels, hidden, places)
        self.last = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns lambda, (B, K), in [0, 1], of values (B, K, C)."""
        logits: Tensor = self.last(self.first(x).relu())
        return (logits.squeeze(-1) + OPEN).sigmoid()


class ConvolutionMask(nn.Module):
    """Two layers of 3 x 3 kernels: what passes at a place depends on the 5 x 5 around it."""

    def __init__(self, places: Places, hidden: int) -> None:
        super().__init__()
        self.sizes = places.map_sizes
        if len(self.sizes) != 2:
            raise ValueError(
                "`mask` 'conv3x3' needs a layer of maps (B, C, h, w), got one of"
                f" {places.shape}; use 'pointwise'"
            )
        self.first = nn.Conv2d(places.channels, hidden, 3, padding=1)
        self.last = nn.Conv2d(hidden, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns lambda, (B, K), in [0, 1], of values (B, K, C)."""
        maps = x.movedim(-1, 1).reshape(len(x), -1, *self.sizes)
        logits: Tensor = self.last(self.first(maps).relu())
        return (logits.flatten(1) + OPEN).sigmoid()
