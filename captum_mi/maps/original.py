"""The image that the model saw, and the photograph that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from captum_mi._protocols import image_processor_of

if TYPE_CHECKING:
    from captum_mi._protocols import Image, ImageProcessor, Processor


def image_seen(pixels: Tensor, processor: Processor | ImageProcessor) -> Tensor:
    """Returns the image as the model saw it, resized and cropped: what a map is drawn over.

    Args:
        pixels: (1, 3, H, W) or (3, H, W), of the processor.
        processor: the processor, or the image processor, that made them.

    Returns:
        (H, W, 3) in [0, 1].

    Raises:
        TypeError: if these are no pixels, or no image processor.
        ValueError: if there is not one image.

    Example:
        >>> image_seen(pixels, processor).shape
        torch.Size([64, 64, 3])
    """
    image_processor = image_processor_of(processor)
    if not isinstance(pixels, Tensor) or not hasattr(image_processor, "do_normalize"):
        raise TypeError(
            "`pixels` must be the tensor that the image processor `processor` made, its"
            f" 'pixel_values', got {type(pixels).__name__} and {type(processor).__name__}"
        )
    image = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
    if image.ndim != 3 or len(image) != 3:
        raise ValueError(
            "`pixels` must be one image (1, 3, H, W) or (3, H, W), got shape"
            f" {tuple(pixels.shape)}; give pixels[i]"
        )
    image = image.detach().float().cpu()
    if image_processor.do_normalize:
        mean = torch.tensor(image_processor.image_mean)[:, None, None]
        std = torch.tensor(image_processor.image_std)[:, None, None]
        image = image * std + mean
    return image.clamp(0, 1).permute(1, 2, 0)


def on_original(heat: Tensor, image: Image, processor: Processor | ImageProcessor) -> Tensor:
    """Puts a map back on the image that the processor resized and cropped.

    Where the processor took the pixels from is found by giving it an image of two ramps, so every
    processor that resizes along the axes and crops is understood.

    Args:
        heat: (B, 1, H, W), from :func:`image_map`.
        image: the image that the processor was given: a PIL image, or an array (H0, W0, 3).
        processor: the processor, or the image processor, that made the pixels.

    Returns:
        (B, 1, H0, W0), interpolated linearly; zero where the model saw nothing.

    Raises:
        ValueError: if the map is none of the processor's images, or the processor does more than
            resize and crop (padding, for one).

    Example:
        >>> photograph = np.zeros((90, 120, 3), np.uint8)
        >>> on_original(torch.ones(1, 1, 64, 64), photograph, processor).shape
        torch.Size([1, 1, 90, 120])
    """
    shape = np.shape(np.asarray(image))
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"`image` must be a PIL image or an array (H, W, 3), got shape {tuple(shape)}"
        )
    height, width = shape[:2]
    ramps = np.zeros((height, width, 3), np.uint8)
    ramps[..., 0] = np.linspace(0, 255, width).round()
    ramps[..., 1] = np.linspace(0, 255, height).round()[:, None]
    image_processor = image_processor_of(processor)
    pixels = image_processor(images=[ramps], return_tensors="pt")["pixel_values"]
    if heat.ndim != 4 or heat.shape[1] != 1 or heat.shape[2:] != pixels.shape[2:]:
        raise ValueError(
            f"`heat` must have shape (B, 1, {pixels.shape[2]}, {pixels.shape[3]}), that of the"
            f" processor's images, got {tuple(heat.shape)}"
        )
    seen = image_seen(pixels, image_processor)
    columns = _places(seen[..., 0], width)
    rows = _places(seen[..., 1].T, height)
    where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
    return grid_sample(
        heat,
        where.to(heat).expand(len(heat), -1, -1, -1),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )


def _places(ramp: Tensor, length: int) -> Tensor:
    """Returns where the pixels of an axis of the original lie in the map, in [-1, 1].

    ``ramp`` (n, m) rises along its last axis from 0 to 1 over the original's length; the places
    (length,) are counted as ``grid_sample`` does.
    """
    count = ramp.shape[1]
    middle = slice(count // 8, count - count // 8)  # borders are overshot by the resampling
    index = torch.arange(count, dtype=torch.float64)[middle]
    found = ramp.double()[:, middle] * (length - 1)
    line = found.mean(0)
    centered = index - index.mean()
    slope = (centered * line).sum() / (centered**2).sum()
    fitted = line.mean() + slope * centered
    # One gray level, and half a pixel of either image, are what rounding makes of a ramp.
    tolerance = length / 255 + max(1.0, abs(float(slope)))
    if (found - fitted).abs().amax() > tolerance:
        raise ValueError(
            "`processor` does more than resize and crop; the map cannot be put back on the image"
        )
    places = index.mean() + (torch.arange(length, dtype=torch.float64) - line.mean()) / slope
    return (2 * places + 1) / count - 1
