"""Where a layer has its places: those of a map, or the tokens behind the prefix."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from captum_mi._intervention.hooks import module_name
from captum_mi.attr.channels import channel_axis
from captum_mi.maps import patch_size, token_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Places:
    """The places of a layer's value, and how they lie in it.

    Attributes:
        shape: of the value without the batch.
        axis: of the channels, counted with the batch.
        prefix: how many tokens lie before the places; they are none themselves.

    Example:
        >>> places = Places(shape=(4, 7, 7), axis=1)
        >>> places.count, places.channels, places.values(torch.randn(2, 4, 7, 7)).shape
        (49, 4, torch.Size([2, 49, 4]))
        >>> places.map(torch.zeros(2, 49)).shape
        torch.Size([2, 1, 7, 7])
    """

    shape: tuple[int, ...]
    axis: int
    prefix: int = 0

    @classmethod
    def of(
        cls,
        value: Tensor,
        layer: nn.Module,
        forward_func: Callable[..., object],
        inputs: Sequence[Tensor],
    ) -> Places:
        """Returns the places of a layer's value, (B, ...).

        Raises:
            ValueError: if it has none beside its channels, or it cannot be told which are which.
        """
        if value.ndim < 3:
            raise ValueError(
                f"layer {module_name(forward_func, layer)} must have places beside its channels,"
                f" such as (B, C, h, w) or (B, T, D), got {tuple(value.shape)}; choose an earlier"
                " layer"
            )
        try:
            axis = channel_axis(value, layer, forward_func, inputs)
        except ValueError as error:
            raise ValueError(
                f"layer {module_name(forward_func, layer)} does not tell which axis of"
                f" {tuple(value.shape)} holds its channels; choose one whose type does, such as a"
                " convolution, a norm or a linear layer"
            ) from error
        prefix = 0
        if value.ndim == 3 and axis == 2:
            with suppress(ValueError):  # tokens that are no patches are all places
                prefix = prefix_before_map(value.shape[1], inputs, forward_func)
        return cls(tuple(value.shape[1:]), axis, prefix)

    @property
    def channels(self) -> int:
        """C, the features of each place."""
        return self.shape[self.axis - 1]

    @property
    def count(self) -> int:
        """K, the number of places."""
        return math.prod(self.map_sizes)

    def check(self, latent: Tensor) -> None:
        """Raises ValueError if a layer's value, (B, ...), has another shape."""
        if tuple(latent.shape[1:]) != self.shape:
            raise ValueError(
                f"`layer` has {tuple(latent.shape[1:])} for these inputs, but was fitted on"
                f" {self.shape}; give inputs of that size, or fit again"
            )

    def values(self, latent: Tensor) -> Tensor:
        """Returns the values at the places, (B, K, C), of a layer's value."""
        return latent.movedim(self.axis, -1).flatten(1, -2)[:, self.prefix :]

    def put(self, values: Tensor, latent: Tensor) -> Tensor:
        """Returns a layer's value that is ``values``, (B, K, C), at the places, else ``latent``.

        Args:
            values: (B, K, C).
            latent: (B, ...), or (1, ...) for all.
        """
        placed = values.reshape(len(values), *self.map_sizes, -1).movedim(-1, self.axis)
        if not self.prefix:
            return placed
        before = latent[:, : self.prefix].expand(len(values), -1, -1)
        return torch.cat([before.to(placed), placed], dim=1)

    def map(self, numbers: Tensor) -> Tensor:
        """Returns one number for each place, (B, K), as a map.

        Returns:
            (B, 1, h, w), likewise for one and three axes; of tokens (B, T, 1), zero on the prefix.
        """
        if self.axis == 1 or len(self.shape) > 2:
            return numbers.reshape(len(numbers), 1, *self.map_sizes)
        return pad(numbers, (self.prefix, 0))[..., None]

    @property
    def map_sizes(self) -> tuple[int, ...]:
        """Places along each axis: (h, w), or the number of tokens behind the prefix."""
        sizes = [size for axis, size in enumerate(self.shape, 1) if axis != self.axis]
        sizes[0] -= self.prefix
        return tuple(sizes)


def prefix_before_map(
    tokens: int, inputs: Sequence[Tensor], forward_func: Callable[..., object]
) -> int:
    """Returns how many of a layer's tokens lie before the patches of an image.

    Found where the only input is an image (B, C, H, W), from the model's patch size if it has one;
    0 elsewhere.

    Raises:
        ValueError: if the tokens are no patches of the image.
    """
    image = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Tensor) else None
    if image is None or image.ndim != 4:
        return 0
    model = getattr(forward_func, "__self__", forward_func)
    with suppress(ValueError):  # no patches, or they were merged: the sizes alone tell
        if isinstance(model, nn.Module):
            return token_grid(tokens, image.shape[-2:], patch_size(model)).prefix
    return token_grid(tokens, image.shape[-2:]).prefix
