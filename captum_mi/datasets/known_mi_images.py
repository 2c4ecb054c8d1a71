"""Images whose mutual information is known: drawn one-to-one from parameters with a known one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ndtr

from captum_mi._checks import check_positive
from captum_mi.datasets.known_mi import (
    CorrelatedNormals,
    CorrelatedUniforms,
    Floats,
    KnownInformation,
    Transformed,
    check_information,
)

SHARPNESS = 10.0
FEATURES = 32
MIN_SIDE = 2  # pixels


@dataclass(frozen=True)
class KnownImages(KnownInformation):
    """Pairs of images, each drawn injectively from a vector of parameters.

    Different parameters give different images, so the images share exactly the information that
    their parameters share. ``parameters`` is the sampler of the parameters alone: at the same seed
    it gives the parameters of the same images.

    Args:
        mutual_information: I(X; Y), nats, from 0 to 100.
        size: width and height of an image, pixels.
        mix: whether the parameters' normals are rotated, each side at random.
        mix_seed: seed of the two rotations.

    Raises:
        ValueError: if the information is out of range or the images are too small.
    """

    mutual_information: float
    size: int = 16
    mix: bool = False
    mix_seed: int = 0

    dim: ClassVar[int]
    """Number of parameters of an image."""

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_information(self.mutual_information)
        if check_positive("size", self.size) <= MIN_SIDE:
            raise ValueError(f"`size` must be at least {MIN_SIDE + 1} pixels, got {self.size}")

    @property
    def parameters(self) -> KnownInformation:
        """The sampler of the images' parameters, (n, dim) each side, in [0, 1]."""
        return self._uniforms()

    @abstractmethod
    def draw(self, parameters: Floats) -> Floats:
        """Draws one image per row of parameters.

        Args:
            parameters: (n, dim), in [0, 1].

        Returns:
            (n, size, size), in [0, 1].
        """

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Draws x and y, (n, size, size) each."""
        x, y = self.parameters.sample(n, seed)
        return self.draw(x), self.draw(y)

    def _uniforms(self) -> CorrelatedUniforms:
        return CorrelatedUniforms(
            self.mutual_information, self.dim, self.dim, self.mix, self.mix_seed
        )

    def _offsets(self, centers: Floats) -> Floats:
        """Returns the distances, (n, size), of pixels to a coordinate on an axis of [0, 1]."""
        offsets: Floats = np.linspace(0, 1, self.size) - centers[:, None]
        return offsets


@dataclass(frozen=True)
class GaussianBumps(KnownImages):
    r"""Round bumps at two coordinates p.

    .. math:: e^{-10 ((x - p_0)^2 + (y - p_1)^2)}

    Source: Butakov et al., ICLR 2024, section 5, "2D Gaussians".

    Example:
        >>> bumps = GaussianBumps(3.0, size=32)
        >>> x, y = bumps.sample(5, seed=0)
        >>> x.shape
        (5, 32, 32)
        >>> bumps.parameters.sample(5, seed=0)[0].shape
        (5, 2)
    """

    dim = 2

    def draw(self, parameters: Floats) -> Floats:
        """Draws (n, size, size) images; x runs along the rows' columns, y down the rows."""
        dx, dy = (self._offsets(parameters[:, i]) for i in range(2))
        images: Floats = (
            np.exp(-SHARPNESS * dy**2)[:, :, None] * np.exp(-SHARPNESS * dx**2)[:, None]
        )
        return images


@dataclass(frozen=True)
class CorrelatedBumps(KnownImages):
    r"""Tilted bumps with five parameters: place p0, p1, narrowness p2, p3 and correlation p4.

    .. math:: e^{-10 (a^2 dx^2 + b^2 dy^2 + (2 p_4 - 1) a b\, dx\, dy)},
        \quad a = 1 + p_2,\ b = 1 + p_3

    Example:
        >>> CorrelatedBumps(3.0).sample(4)[1].shape
        (4, 16, 16)
    """

    dim = 5

    def draw(self, parameters: Floats) -> Floats:
        """Draws (n, size, size) images."""
        dx, dy = (
            (1 + parameters[:, 2 + i, None]) * self._offsets(parameters[:, i]) for i in range(2)
        )
        dx, dy = dx[:, None, :], dy[:, :, None]
        tilt = (2 * parameters[:, 4] - 1)[:, None, None]
        images: Floats = np.exp(-SHARPNESS * (dx**2 + dy**2 + tilt * dx * dy))
        return images


@dataclass(frozen=True)
class Rectangles(KnownImages):
    r"""White rectangles on black; a pixel is the share of its area that is covered.

    With :math:`m = 2 / size` and two uniform numbers per axis,

    .. math:: left = (1 - m)(1 - \sqrt{1 - u_0}), \quad right = left + m + u_1 (1 - left - m)

    so that a side is at least two pixels long and every rectangle that fits is equally likely.

    Source: Butakov et al., ICLR 2024, section 5, "Rectangles".

    Example:
        >>> rectangles = Rectangles(3.0, size=32)
        >>> image, (x0, x1, y0, y1) = (
        ...     part[0] for part in (rectangles.sample(1)[0], rectangles.parameters.sample(1)[0])
        ... )
        >>> bool(np.isclose(image.mean(), (x1 - x0) * (y1 - y0)))
        True
    """

    dim = 4

    @property
    def parameters(self) -> KnownInformation:
        """The sampler of (left, right, top, bottom) of X and of Y, (n, 4) each, in [0, 1]."""
        return Transformed(self._uniforms(), x=self.edges, y=self.edges)

    def edges(self, uniforms: Floats) -> Floats:
        """Turns four uniform numbers to the four edges, a bijection.

        Args:
            uniforms: (n, 4), in [0, 1].

        Returns:
            (n, 4), left, right, top, bottom, in [0, 1].
        """
        least = MIN_SIDE / self.size
        start = (1 - least) * (1 - np.sqrt(1 - uniforms[:, 0::2]))
        stop = start + least + uniforms[:, 1::2] * (1 - start - least)
        return np.stack([start, stop], axis=-1).reshape(len(uniforms), 4)

    def draw(self, parameters: Floats) -> Floats:
        """Draws (n, size, size) images from (n, 4) edges."""
        pixels = np.arange(self.size)
        edges = self.size * parameters.reshape(-1, 2, 2, 1)  # image, axis, start or stop, 1
        inside = np.minimum(edges[:, :, 1], pixels + 1) - np.maximum(edges[:, :, 0], pixels)
        across, down = np.moveaxis(inside.clip(0, 1), 1, 0)  # (n, size) each
        images: Floats = down[:, :, None] * across[:, None, :]
        return images


@dataclass(frozen=True)
class AntiPCA(KnownInformation):
    r"""Vectors whose information lies where PCA does not look.

    A signal x and a nuisance z, both uniform on (-1, 1), give the features

    .. math:: \max(a_j, 0.1\, j\, a_j), \quad a_j = x + j z, \quad j = 0, \dots, 31

    but the first two features are x and z themselves. Nearly all variance is the nuisance's. X and
    Y share the signal's information only; each has a nuisance of its own.

    Args:
        mutual_information: I(X; Y), nats, from 0 to 100.

    Source: Butakov et al., ICLR 2024, figure 6c.

    Example:
        >>> x, y = AntiPCA(2.0).sample(10)
        >>> x.shape
        (10, 32)
    """

    mutual_information: float

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_information(self.mutual_information)

    @property
    def parameters(self) -> KnownInformation:
        """The sampler of signal and nuisance, (n, 2) each side, in (-1, 1)."""
        return _SignalAndNuisance(self.mutual_information)

    def draw(self, parameters: Floats) -> Floats:
        """Turns (n, 2) signals and nuisances to (n, 32) features, injectively."""
        steps = np.arange(FEATURES)
        sums = parameters[:, :1] + steps * parameters[:, 1:]
        features: Floats = np.maximum(sums, 0.1 * steps * sums)
        features[:, :2] = parameters
        return features

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Draws x and y, (n, 32) each."""
        x, y = self.parameters.sample(n, seed)
        return self.draw(x), self.draw(y)


@dataclass(frozen=True)
class _SignalAndNuisance(KnownInformation):
    mutual_information: float

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        signals = CorrelatedNormals(self.mutual_information, 1, 1).sample(n, seed)
        rng = np.random.default_rng((seed, 2))  # apart from the stream of the signals
        x, y = (
            np.hstack([2 * ndtr(signal) - 1, rng.uniform(-1, 1, size=(n, 1))]) for signal in signals
        )
        return x, y
