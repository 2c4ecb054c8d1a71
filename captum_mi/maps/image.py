"""From a layer's attribution to a map of the image that the model saw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from captum_mi._checks import brief
from captum_mi.maps.grid import TokenGrid, grid_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def image_map(
    attribution: Tensor,
    size: Sequence[int] | Tensor,
    *,
    model: nn.Module | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Turns a layer's attribution into a map of the image.

    Channels are summed, so the sign stays; a grid of patches loses its prefix tokens; the map is
    interpolated linearly. Nothing is normalized, see :func:`min_max`. The map lies on the pixels
    that the model saw, resized and cropped: see :func:`image_seen` and :func:`on_original`.

    Args:
        attribution: (B, C, h, w) of a convolution layer or (B, T, D) of a token layer.
        size: the pixels that the model saw, (B, 3, H, W), or their (H, W).
        model: the model, for a token layer: its patch size decides the grid.
        grid: rows and columns of patches, for a token layer of a model whose patches are known from
            elsewhere, such as ``image_grid_thw`` of Qwen2-VL; T - rows * columns tokens stand in
            front of them.

    Returns:
        (B, 1, H, W).

    Raises:
        TypeError: if the attribution is no tensor, or ``size`` is no size.
        ValueError: if the attribution is of another shape, no patch grid fits it, or a token layer
            comes with neither ``model`` nor ``grid``, or with both.

    Example:
        >>> image_map(torch.randn(2, 65, 128), pixels, model=clip).shape
        torch.Size([2, 1, 64, 64])
        >>> image_map(torch.randn(1, 24, 128), (56, 84), grid=(4, 6)).shape
        torch.Size([1, 1, 56, 84])
    """
    height, width = _size(size)
    if _checked(attribution).ndim == 4:
        rows, columns = attribution.shape[2:]
        if abs(rows * width - columns * height) > 2 * max(height, width):
            raise ValueError(
                f"`attribution` of shape {tuple(attribution.shape)} is no (B, C, h, w) map of an"
                f" image of {height}x{width}; `size` must be that of the pixels that the model saw;"
                " if the channels are last, as in a Swin transformer, give"
                " attribution.permute(0, 3, 1, 2)"
            )
        return _resize(attribution.sum(1, keepdim=True), (height, width))
    found = grid_of(attribution.shape[1], (height, width), model, grid)
    covered = (height, width)
    if grid is None:
        covered = (found.height * found.patch, found.width * found.patch)
    upsampled = _resize(_patches(attribution, found), covered)
    return pad(upsampled, (0, width - covered[1], 0, height - covered[0]))


def bits_per_pixel(
    capacity: Tensor,
    size: Sequence[int] | Tensor,
    *,
    model: nn.Module | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Spreads the information that passes a bottleneck over the pixels of the image.

    Args:
        capacity: (B, C, h, w) or (B, T, D), nats per element, from ``MultimodalIB``.
        size: the pixels that the model saw, or their (H, W), see :func:`image_map`.
        model: the model, for a token layer.
        grid: rows and columns of patches, instead of the model.

    Returns:
        (B, 1, H, W) bits per pixel; the sum is the total of the map's elements, but for the
        interpolation at the border.

    Source: Schulz et al. 2020, section 4.

    Example:
        >>> bits_per_pixel(torch.rand(1, 64, 7, 7), (224, 224)).shape
        torch.Size([1, 1, 224, 224])
    """
    height, width = _size(size)
    nats = image_map(capacity, (height, width), model=model, grid=grid)
    if capacity.ndim == 4 or grid is not None:
        rows, columns = grid or capacity.shape[2:]
        area = height * width / (rows * columns)
    else:
        area = grid_of(capacity.shape[1], (height, width), model, grid).patch ** 2
    return nats / (math.log(2) * area)


def patch_map(
    attribution: Tensor,
    size: Sequence[int] | Tensor | None = None,
    *,
    model: nn.Module | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Returns the map of a token layer at the resolution of its patches.

    Args:
        attribution: (B, T, D) of a token layer.
        size: the pixels that the model saw, or their (H, W); not needed with ``grid``.
        model: the model: its patch size decides the grid.
        grid: rows and columns of patches, instead of the model.

    Returns:
        (B, 1, h, w).

    Raises:
        ValueError: if no patch grid fits the tokens.

    Example:
        >>> patch_map(torch.randn(2, 65, 128), pixels, model=clip).shape
        torch.Size([2, 1, 8, 8])
    """
    if _checked(attribution).ndim != 3:
        raise ValueError(f"`attribution` must have shape (B, T, D), got {tuple(attribution.shape)}")
    if size is None and grid is None:
        raise ValueError(
            "`size` or `grid` must be given; give the pixels that the model saw, or (rows, columns)"
        )
    return _patches(
        attribution,
        grid_of(attribution.shape[1], (0, 0) if size is None else _size(size), model, grid),
    )


def min_max(values: Tensor) -> Tensor:
    """Scales each sample to [0, 1]; a constant sample becomes zeros.

    Args:
        values: (B, ...).

    Returns:
        the same shape.

    Example:
        >>> min_max(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
        tensor([[0., 1.],
                [0., 0.]])
    """
    flat = values.flatten(1)
    low = flat.amin(1, keepdim=True)
    span = flat.amax(1, keepdim=True) - low
    scaled = (flat - low) / span.where(span > 0, span.new_ones(()))
    return scaled.reshape(values.shape)


def _checked(attribution: Tensor) -> Tensor:
    if isinstance(attribution, (tuple, list)):
        raise TypeError(
            f"`attribution` must be a tensor, got a {type(attribution).__name__} of"
            f" {len(attribution)}; give its item of the layer to map, such as attribution[0]"
        )
    if attribution.ndim not in (3, 4):
        raise ValueError(
            "`attribution` must have shape (B, T, D) or (B, C, h, w), got"
            f" {tuple(attribution.shape)}"
        )
    return attribution


def _size(size: Sequence[int] | Tensor) -> tuple[int, int]:
    found = size.shape[2:] if isinstance(size, Tensor) and size.ndim == 4 else size
    if not isinstance(found, (tuple, list)) or [type(side) for side in found] != [int, int]:
        raise TypeError(
            "`size` must be the pixels that the model saw, (B, 3, H, W), or their (H, W), got"
            f" {brief(size)}"
        )
    height, width = found
    return height, width


def _patches(attribution: Tensor, grid: TokenGrid) -> Tensor:
    patches = attribution.sum(-1)[:, grid.prefix :]
    return patches.reshape(-1, 1, grid.height, grid.width)


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(values, size=size, mode="bilinear", align_corners=False)
