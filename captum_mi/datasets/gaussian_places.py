"""Gaussian places: one signal at different strengths, with information in closed form."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from captum_mi._checks import check_positive_number
from captum_mi.datasets.known_local import (
    SHARPNESS,
    SIDE,
    KnownPlaces,
    check_rows,
    convolution,
    enlarged,
    linear,
)
from captum_mi.datasets.known_mi import Floats, gaussian_information


@dataclass(frozen=True)
class GaussianPlaces(KnownPlaces):
    r"""Places that show one normal signal at different strengths, each with noise of its own.

    With a standard normal s and independent normal noise of the variances v_x and v_z,

    .. math:: X_k = a_k s + e_k, \quad Z = s + e, \quad
        I(Z; X_k) = -\tfrac12 \log(1 - \rho_k^2), \quad
        \rho_k = \frac{a_k}{\sqrt{(a_k^2 + v_x)(1 + v_z)}}

    The first channel shows X_k on all pixels of place k; ``local``, (B, 1, h, w), is its mean. The
    encoder's ``pool``, (B, 1), is the mean of the places weighted by a_k / sum a^2, plus the second
    channel, which ``local`` does not read: it shows what this mean lacks of Z. The label is whether
    Z is positive; what decides it has no closed form, so the total alone is known.

    Args:
        length: number of images.
        seed: seed of the whole set.
        strengths: h rows of w strengths a_k, not all 0; a place of strength 0 shares nothing.
        place_variance: v_x.
        global_variance: v_z.

    Raises:
        ValueError: if ``length`` is below 1, a variance is not positive, or the strengths are not
            rows of one length or all 0.

    Example:
        >>> places = GaussianPlaces(100, strengths=((0.0, 1.0),), place_variance=0.1)
        >>> places.total.round(3)
        array([[0.   , 0.876]])
        >>> image, label = places[0]
        >>> image.shape, label
        (torch.Size([2, 8, 16]), 1)
        >>> places.encoder()(image[None]).argmax().item()
        1
    """

    _: KW_ONLY
    strengths: tuple[tuple[float, ...], ...] = (
        (0.0, 0.3, 1.0, 3.0),
        (0.3, 0.0, 3.0, 0.0),
        (1.0, 3.0, 0.0, 0.3),
        (0.0, 1.0, 0.3, 0.0),
    )
    place_variance: float = 0.1
    global_variance: float = 0.1

    def __post_init__(self) -> None:
        """Checks the arguments."""
        super().__post_init__()
        check_rows("strengths", self.strengths)
        if not np.isfinite(self.strengths).all() or not np.any(self.strengths):
            raise ValueError(f"`strengths` must be finite and not all 0, got {self.strengths}")
        check_positive_number("place_variance", self.place_variance)
        check_positive_number("global_variance", self.global_variance)

    @property
    def total(self) -> Floats:
        """(h, w), I(Z; X_k) between the global representation and each place, nats."""
        return np.array(
            [[self._information(strength) for strength in row] for row in self.strengths]
        )

    def draw(self, rng: np.random.Generator) -> tuple[Floats, int]:
        """Draws one image, (2, 8 h, 8 w), and its label, 0 or 1."""
        strengths = np.array(self.strengths)
        signal = rng.standard_normal()
        z = signal + math.sqrt(self.global_variance) * rng.standard_normal()
        noise = math.sqrt(self.place_variance) * rng.standard_normal(strengths.shape)
        x = strengths * signal + noise
        lacking = z - (self._weights * x).sum()
        return enlarged(np.stack([x, np.full_like(x, lacking)])), int(z > 0)

    def encoder(self) -> nn.Module:
        """Returns the encoder: ``local``, ``pool``, ``head``.

        Returns:
            images, (B, 2, 8 h, 8 w), to logits, (B, 2), in evaluation mode; its weights depend on
            the strengths alone.
        """
        return _GaussianEncoder(self._weights).eval()

    @property
    def _weights(self) -> Floats:
        strengths = np.array(self.strengths)
        weights: Floats = strengths / (strengths**2).sum()
        return weights

    def _information(self, strength: float) -> float:
        place, pool = strength**2 + self.place_variance, 1 + self.global_variance
        return gaussian_information(np.array([[place, strength], [strength, pool]]), 1)


class _GaussianEncoder(nn.Module):
    """Z of :class:`GaussianPlaces` and logits of its being negative or positive."""

    def __init__(self, weights: Floats) -> None:
        super().__init__()
        reads_first = np.zeros((1, 2, SIDE, SIDE))
        reads_first[:, 0] = 1 / SIDE**2
        self.local = convolution(reads_first)
        self.pool = linear(np.append(weights, 1.0)[None])
        self.head = linear(np.array([[-SHARPNESS], [SHARPNESS]]))

    def forward(self, images: Tensor) -> Tensor:
        """Turns images, (B, 2, 8 h, 8 w), to logits, (B, 2)."""
        places = self.local(images).flatten(1)
        rest = images[:, 1].flatten(1).mean(dim=1, keepdim=True)
        logits: Tensor = self.head(self.pool(torch.cat([places, rest], dim=1)))
        return logits
