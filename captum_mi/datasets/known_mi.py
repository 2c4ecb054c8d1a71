"""Samplers of pairs (X, Y) whose mutual information is known exactly and travels with them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, ndtr

from captum_mi._checks import check_positive, check_positive_number

Floats = NDArray[np.float64]
Map = Callable[[Floats], Floats]

MAX_INFORMATION = 100.0
"""Nats; above 30 for each pair of coordinates, more and more samples have equal sides."""


class KnownInformation(ABC):
    """Pairs (X, Y) with known mutual information.

    Attributes:
        mutual_information: the exact value of I(X; Y), nats.
    """

    if TYPE_CHECKING:  # read-only, as are a field of a frozen dataclass and a property

        @property
        def mutual_information(self) -> float:
            """I(X; Y), nats."""

    @abstractmethod
    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Draws independent pairs.

        Args:
            n: number of pairs.
            seed: the same seed gives the same pairs.

        Returns:
            x and y, (n, ...) each, float64.
        """

    def transformed(self, *, x: Map | None = None, y: Map | None = None) -> Transformed:
        """Returns the pairs (x(X), y(Y)); injective maps leave the mutual information as it is.

        Args:
            x: injective map of samples, (n, ...) to (n, ...), row by row; None leaves X as it is.
            y: the same for Y.

        Example:
            >>> cubes = CorrelatedNormals(1.0).transformed(x=lambda x: x**3)
            >>> cubes.mutual_information
            1.0
        """
        return Transformed(self, x=x, y=y)


@dataclass(frozen=True)
class Transformed(KnownInformation):
    """The pairs of another sampler under injective maps, which keep the mutual information.

    The maps are taken to be injective; one that is not can only lose information.

    Args:
        pairs: the sampler.
        x: injective map of samples of X, or None.
        y: injective map of samples of Y, or None.
    """

    pairs: KnownInformation
    x: Map | None = None
    y: Map | None = None

    @property
    def mutual_information(self) -> float:
        """I(X; Y) of the sampler beneath, nats."""
        return self.pairs.mutual_information

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Draws pairs and maps each side."""
        x, y = self.pairs.sample(n, seed)
        return (self.x(x) if self.x else x), (self.y(y) if self.y else y)


@dataclass(frozen=True)
class CorrelatedNormals(KnownInformation):
    r"""Jointly normal X and Y, standard normal each, of any mutual information.

    Coordinates are correlated in :math:`\min(n', m')` independent pairs that share the information:

    .. math:: \rho = \sqrt{1 - e^{-2 I / \min(n', m')}}

    Args:
        mutual_information: I(X; Y), nats, from 0 to 100.
        dim_x: n', dimension of X.
        dim_y: m', dimension of Y.
        mix: whether to rotate X and Y, each at random, so that every coordinate of one depends on
            every coordinate of the other.
        mix_seed: seed of the two rotations; they belong to the distribution, not to the sample.

    Raises:
        ValueError: if the information is negative or above 100, or a dimension below 1.

    Source: Butakov et al., "Information bottleneck analysis of deep neural networks via lossy
    compression", ICLR 2024, eq. 7; the rotations are in the authors' code only.

    Example:
        >>> normals = CorrelatedNormals(2.0, dim_x=2, dim_y=3, mix=True)
        >>> x, y = normals.sample(100, seed=0)
        >>> x.shape, y.shape
        ((100, 2), (100, 3))
        >>> round(gaussian_information(normals.covariance, 2), 6)
        2.0
    """

    mutual_information: float
    dim_x: int = 2
    dim_y: int = 2
    mix: bool = False
    mix_seed: int = 0

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_information(self.mutual_information)
        check_positive("dim_x", self.dim_x)
        check_positive("dim_y", self.dim_y)

    @property
    def covariance(self) -> Floats:
        """(n' + m', n' + m') covariance of (X, Y)."""
        correlation, _ = pair_correlation(self.mutual_information, min(self.dim_x, self.dim_y))
        turn_x, turn_y = self._rotations()
        cross = correlation * turn_x @ np.eye(self.dim_x, self.dim_y) @ turn_y.T
        return np.block([[np.eye(self.dim_x), cross], [cross.T, np.eye(self.dim_y)]])

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Draws x, (n, dim_x), and y, (n, dim_y)."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((check_positive("n", n), self.dim_x))
        y = rng.standard_normal((n, self.dim_y))
        pairs = min(self.dim_x, self.dim_y)
        correlation, rest = pair_correlation(self.mutual_information, pairs)
        y[:, :pairs] = correlation * x[:, :pairs] + rest * y[:, :pairs]
        turn_x, turn_y = self._rotations()
        return x @ turn_x.T, y @ turn_y.T

    def _rotations(self) -> tuple[Floats, Floats]:
        if not self.mix:
            return np.eye(self.dim_x), np.eye(self.dim_y)
        rng = np.random.default_rng((self.mix_seed, 1))  # apart from the samples' streams
        return rotation(self.dim_x, rng), rotation(self.dim_y, rng)


@dataclass(frozen=True)
class CorrelatedUniforms(CorrelatedNormals):
    """X and Y uniform on unit cubes: the normal distribution function of correlated normals.

    A bijection of each coordinate, so the mutual information is that of the normals. Arguments as
    for :class:`CorrelatedNormals`.

    Example:
        >>> x, y = CorrelatedUniforms(2.0).sample(1000)
        >>> bool(x.min() > 0 and x.max() < 1)
        True
    """

    @property
    def covariance(self) -> Floats:
        """(n' + m', n' + m') covariance of (X, Y): that of uniforms with a Gaussian copula."""
        covariance: Floats = np.arcsin(super().covariance / 2) / (2 * np.pi)
        return covariance

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Draws x, (n, dim_x), and y, (n, dim_y), in (0, 1)."""
        x, y = super().sample(n, seed)
        return ndtr(x), ndtr(y)


@dataclass(frozen=True)
class CorrelatedStudent(KnownInformation):
    r"""X and Y jointly multivariate Student: correlated normals over one common random scale.

    Its information is that of the normals plus what the common scale alone contributes:

    .. math:: I = I_{normal} + h_\nu(n') + h_\nu(m') - h_\nu(n' + m')

    with :math:`h_\nu(d)` the entropy of the standard Student distribution in d dimensions.

    Args:
        mutual_information: I(X; Y), nats, at least what the common scale contributes.
        dim_x: n', dimension of X.
        dim_y: m', dimension of Y.
        degrees: the degrees of freedom nu; any positive number.

    Raises:
        ValueError: if the information is below the common scale's part, which the error names.

    Source: Arellano-Valle et al., "Shannon entropy and mutual information for multivariate
    skew-elliptical distributions", Scandinavian Journal of Statistics 40 (2013).

    Example:
        >>> student = CorrelatedStudent(1.0, dim_x=1, dim_y=1, degrees=3)
        >>> round(student.scale_information, 4)
        0.0424
    """

    mutual_information: float
    dim_x: int = 2
    dim_y: int = 2
    degrees: float = 5.0

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_information(self.mutual_information)
        check_positive("dim_x", self.dim_x)
        check_positive("dim_y", self.dim_y)
        check_positive_number("degrees", self.degrees)
        if self.mutual_information < self.scale_information:
            raise ValueError(
                f"`mutual_information` must be at least {self.scale_information:.4g} for"
                f" {self.dim_x} + {self.dim_y} dimensions with {self.degrees} degrees of freedom,"
                f" got {self.mutual_information}"
            )

    @property
    def scale_information(self) -> float:
        """I(X; Y) without any correlation: the common scale's part, nats."""
        parts = [_student_entropy(d, self.degrees) for d in (self.dim_x, self.dim_y)]
        return sum(parts) - _student_entropy(self.dim_x + self.dim_y, self.degrees)

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Floats]:
        """Draws x, (n, dim_x), and y, (n, dim_y)."""
        rest = max(self.mutual_information - self.scale_information, 0.0)
        x, y = CorrelatedNormals(rest, self.dim_x, self.dim_y).sample(n, seed)
        rng = np.random.default_rng((seed, 2))  # apart from the stream of the normals
        scale = np.sqrt(self.degrees / rng.chisquare(self.degrees, size=(n, 1)))
        return x * scale, y * scale


@dataclass(frozen=True)
class DiscreteLabels(KnownInformation):
    """X uniform on the unit cube and a label: a slice of its first coordinate.

    The label is floor(classes * X_0): a function of X with equal classes, so I(X; label) is
    log(classes).

    Args:
        classes: number of labels.
        dim_x: dimension of X.

    Example:
        >>> x, labels = DiscreteLabels(4).sample(5, seed=0)
        >>> labels
        array([2, 0, 3, 2, 2])
        >>> round(DiscreteLabels(4).mutual_information, 4)
        1.3863
    """

    classes: int
    dim_x: int = 2

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_positive("classes", self.classes)
        check_positive("dim_x", self.dim_x)

    @property
    def mutual_information(self) -> float:
        """I(X; label), nats."""
        return math.log(self.classes)

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, NDArray[Any]]:
        """Draws x, (n, dim_x), float64, and labels, (n,), int64."""
        x = np.random.default_rng(seed).random((check_positive("n", n), self.dim_x))
        return x, np.floor(self.classes * x[:, 0]).astype(np.int64)


def gaussian_information(covariance: Floats, dim_x: int) -> float:
    r"""Returns the mutual information of jointly normal X and Y from their covariance.

    .. math:: I = \frac12 \log \frac{\det C_X \det C_Y}{\det C}

    Args:
        covariance: (d, d), positive definite, of (X, Y).
        dim_x: how many of its first coordinates are X.

    Returns:
        nats.

    Raises:
        ValueError: if ``dim_x`` leaves X or Y empty, or the covariance is not positive definite.

    Example:
        >>> round(gaussian_information(np.array([[1.0, 0.6], [0.6, 1.0]]), 1), 4)
        0.2231
    """
    covariance = np.asarray(covariance, dtype=np.float64)
    if not 0 < dim_x < len(covariance):
        raise ValueError(f"`dim_x` must lie between 1 and {len(covariance) - 1}, got {dim_x}")
    x, y = covariance[:dim_x, :dim_x], covariance[dim_x:, dim_x:]
    return (log_determinant(x) + log_determinant(y) - log_determinant(covariance)) / 2


def log_determinant(covariance: Floats) -> float:
    """Returns the log determinant of a positive definite matrix; refuses any other."""
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        smallest = np.linalg.eigvalsh(covariance).min()
        raise ValueError(
            f"`covariance` must be positive definite, its least eigenvalue is {smallest:.3g}"
        ) from error
    return float(2 * np.log(np.diag(factor)).sum())


def check_information(value: float) -> float:
    """Returns ``value`` if it can be the information of a sampler."""
    if not 0 <= value <= MAX_INFORMATION:
        raise ValueError(
            f"`mutual_information` must lie between 0 and {MAX_INFORMATION:g} nats, got {value}"
        )
    return value


def pair_correlation(information: float, pairs: int) -> tuple[float, float]:
    """Returns rho and sqrt(1 - rho^2) of pairs of coordinates that share the information."""
    return math.sqrt(-math.expm1(-2 * information / pairs)), math.exp(-information / pairs)


def rotation(dim: int, rng: np.random.Generator) -> Floats:
    """Draws an orthogonal matrix, (dim, dim), uniformly among all (Haar)."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    matrix: Floats = q * np.sign(np.diag(r))
    return matrix


def _student_entropy(dim: int, degrees: float) -> float:
    """Returns the entropy of the standard Student distribution, nats, less the log of pi nu."""
    half = degrees / 2
    shape = half + dim / 2
    entropy = gammaln(half) - gammaln(shape) + shape * (digamma(shape) - digamma(half))
    return float(entropy)
