"""Random masks of a layer's value, or of an input."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

ENLARGEMENTS = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Masks:
    """Seeded random masks of a batch, made a few at a time. Channels share a mask.

    Maps, of one to three axes of places, get smooth ones: grids of random cells, enlarged and
    shifted. Tokens (B, T, D) and features (B, D) get independent zeros and ones.

    Args:
        values: (B, ...), what is masked.
        axis: where its channels are; of three axes the last says tokens. Features have none.
        cells: cells of a grid along each side of a map.
        probability: that a cell, a token or a feature shows.
        keep: bool, (B, *places) or places, what is never masked.
        seed: of the masks.

    Raises:
        ValueError: if the values have too many axes, or ``keep`` does not fit.
    """

    def __init__(
        self,
        values: Tensor,
        axis: int,
        *,
        cells: int,
        probability: float,
        keep: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the streams of random numbers up."""
        if not 2 <= values.ndim <= 5:
            raise ValueError(
                "RISE masks maps with one to three axes beside (B, C), tokens (B, T, D) or features"
                f" (B, D), got {tuple(values.shape)}"
            )
        self.values = values
        self._axis = None if values.ndim == 2 else axis
        self._tokens = values.ndim == 3 and axis == 2
        self._places = tuple(
            side for i, side in enumerate(values.shape) if i not in (0, self._axis)
        )
        self._cells = cells
        self._probability = probability
        # A stream of its own for each quantity: drawing a few masks at a time changes none.
        self._streams = [
            torch.Generator().manual_seed(3 * seed + i) for i in range(1 + len(self._places))
        ]
        self._keep = None if keep is None else self._as_places(keep)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *places)."""
        return (len(self.values), *self._places)

    def draw(self, count: int) -> Tensor:
        """Draws masks (count, B or 1, *places) in [0, 1]."""
        independent = self._axis is None or self._tokens
        drawn = self._independent(count) if independent else self._smooth(count)
        drawn = drawn.to(self.values).unsqueeze(1)
        return drawn if self._keep is None else drawn.where(~self._keep, 1.0)

    def apply(self, drawn: Tensor) -> Tensor:
        """Masks the batch with each of some masks, (count * B, ...), copy by copy."""
        if self._axis is not None:
            drawn = drawn.unsqueeze(self._axis - self.values.ndim)
        return (drawn * self.values).flatten(0, 1)

    def as_map(self, found: Tensor) -> Tensor:
        """Gives (B, *places) one channel: behind tokens, before the places of a map."""
        if self._axis is None:
            return found
        return found.unsqueeze(-1 if self._tokens else 1)

    def _independent(self, count: int) -> Tensor:
        drawn = torch.rand(count, *self._places, generator=self._streams[0])
        return (drawn < self._probability) * 1.0

    def _smooth(self, count: int) -> Tensor:
        """Grids of random cells, enlarged to one cell more than the map and cropped at random."""
        cells = [min(self._cells, side) for side in self._places]
        lengths = [math.ceil(side / n) for side, n in zip(self._places, cells, strict=True)]
        grid = torch.rand(count, 1, *cells, generator=self._streams[0])
        masks = interpolate(
            (grid < self._probability) * 1.0,
            size=[(n + 1) * length for n, length in zip(cells, lengths, strict=True)],
            mode=ENLARGEMENTS[len(cells)],
            align_corners=False,
        )[:, 0].clamp(0, 1)
        for axis, (side, length) in enumerate(zip(self._places, lengths, strict=True), start=1):
            first = (torch.rand(count, 1, generator=self._streams[axis]) * length).long()
            rest = [side if i == axis else 1 for i in range(1, masks.ndim)]
            index = (first + torch.arange(side)).reshape(count, *rest)
            masks = masks.take_along_dim(index, dim=axis)
        return masks

    def _as_places(self, keep: Tensor) -> Tensor:
        if tuple(keep.shape) not in (self.shape, self._places):
            raise ValueError(
                f"`keep` must have shape {self.shape} or {self._places}, got {tuple(keep.shape)}"
            )
        return keep.to(self.values.device, torch.bool)
