"""Vectors and images as a critic reads them: checked, and standardized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from captum_mi.estimators._samples import as_real, as_samples

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples


@dataclass(frozen=True, eq=False)
class Standardization:
    """The mean and deviation of each column of vectors, or of each channel of images.

    Attributes:
        mean: (1, d) or (1, C, 1, 1), float64.
        deviation: of that shape.

    Example:
        >>> samples = vectors_or_images("x", 5 + torch.randn(100, 8, 8))
        >>> Standardization.of(samples)(samples).shape
        torch.Size([100, 1, 8, 8])
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Standardization:
        """Takes them from samples, (N, d) or (N, C, H, W)."""
        axes = (0,) if samples.ndim == 2 else (0, 2, 3)
        deviation, mean = torch.std_mean(samples, dim=axes, keepdim=True)
        return cls(mean, deviation)

    def __call__(self, samples: Tensor) -> Tensor:
        """Returns samples standardized, float32, on the device of its own."""
        return ((samples.to(self.mean) - self.mean) / self.deviation).float()


def vectors_or_images(name: str, value: Samples) -> Tensor:
    """Returns samples as (N, d) or (N, C, H, W), float64.

    Args:
        name: the argument, for the wording of errors.
        value: (N, d) or (N,); or images, (N, H, W) or (N, C, H, W).

    Raises:
        ValueError: on fewer than two samples, NaN or infinite entries, or constant columns or
            channels.
    """
    samples = as_real(name, value)
    if samples.ndim not in (3, 4):
        return as_samples(name, value)
    images = (samples[:, None] if samples.ndim == 3 else samples).double()
    if len(images) < 2:
        raise ValueError(f"`{name}` must hold at least 2 samples, got {len(images)}")
    broken = ~images.flatten(1).isfinite().all(dim=1)
    if broken.any():
        raise ValueError(
            f"`{name}` must be finite, got NaN or infinity in {int(broken.sum())} of {len(images)}"
            f" images, the first is image {int(broken.nonzero()[0, 0])}; drop them"
        )
    channels = images.transpose(0, 1).flatten(1)
    constant = (channels == channels[:, :1]).all(dim=1).nonzero().flatten().tolist()
    if constant:
        listed = ", ".join(map(str, constant))
        raise ValueError(f"`{name}` has constant channels, {listed}; drop them")
    return images
