"""Compressing samples to a few numbers before their mutual information is estimated."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from captum_mi._checks import check_positive
from captum_mi.estimators._samples import as_real, check_finite
from captum_mi.estimators._scatter import Scatter, principal_axes
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.estimate import Estimate

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples

SPARE = 16
"""Components followed beside those kept, batch by batch."""
BLOCK = 2**22
"""Entries of the samples that are taken to float64 at a time."""


class Compressor(ABC):
    """A map of samples to codes of ``n`` numbers. ``fit`` works in place, as in scikit-learn.

    Attributes:
        n: numbers in a code.
    """

    n: int

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """True once it can transform."""

    @property
    @abstractmethod
    def kept(self) -> float:
        """Share of the samples' variance that their codes keep, 0 to 1.

        Codes may leave out information nonetheless: it need not lie where the variance does.

        Raises:
            RuntimeError: if it is not fitted.
        """

    @abstractmethod
    def fit(self, x: Samples) -> Compressor:
        """Learns from samples, (N, ...), and returns itself."""

    @abstractmethod
    def transform(self, x: Samples) -> Tensor:
        """Returns the codes of samples.

        Args:
            x: (N, ...), samples of the shape it was fitted on.

        Returns:
            (N, n), float64, on the device of ``x``.

        Raises:
            RuntimeError: if it is not fitted.
            ValueError: if the samples have another shape, or hold NaN or infinity.
        """


@dataclass(eq=False)
class PCA(Compressor):
    """Principal components: the linear code with the least squared error.

    Samples of any shape are flattened. The sign of a component is such that its largest entry is
    positive.

    Args:
        n: number of components.

    Attributes:
        mean: (d,).
        components: (n, d), orthonormal rows, of falling variance; maybe fewer after
            :meth:`partial_fit`.
        variances: (min(N, d),) variances of all components, kept or not, with N - 1; the largest
            ones after :meth:`partial_fit`.
        total_variance: their sum, with those that ``variances`` leaves out.

    Example:
        >>> x = torch.randn(100, 8, 8)
        >>> pca = PCA(2).fit(x)
        >>> pca.transform(x).shape
        torch.Size([100, 2])
    """

    n: int
    mean: Tensor = field(init=False, repr=False)
    components: Tensor = field(init=False, repr=False)
    variances: Tensor = field(init=False, repr=False)
    total_variance: float = field(init=False, repr=False)
    _scatter: Scatter | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Checks the argument."""
        check_positive("n", self.n)

    @property
    def fitted(self) -> bool:
        """True once there are components."""
        return hasattr(self, "components")

    @property
    def kept(self) -> float:
        """Share of the variance along the components, of the samples of ``fit``."""
        if not self.fitted:
            raise not_fitted(self)
        variance = float(self.variances[: len(self.components)].sum())
        return variance / self.total_variance if self.total_variance else 0.0

    def fit(self, x: Samples) -> PCA:
        """Finds the components of samples, (N, ...); at least ``n`` of them and ``n`` features."""
        samples = finite_samples(x).double().flatten(1)
        if min(samples.shape) < self.n or len(samples) < 2:
            raise ValueError(
                f"PCA({self.n}) needs at least {max(self.n, 2)} samples and {self.n} features of"
                f" `x`, got {tuple(samples.shape)}; lower `n`"
            )
        mean = samples.mean(0)
        scales, axes = principal_axes(samples - mean, self.n)
        rounding = torch.finfo(torch.float32 if _is_single(x) else torch.float64).eps
        # The largest singular value of entries that are noise, with a margin.
        largest = float(torch.linalg.vector_norm(samples, math.inf))
        least = rounding * largest * sum(math.sqrt(n) for n in samples.shape)
        least += torch.finfo(torch.float64).eps * max(samples.shape) * float(scales[0])
        rank = int((scales > least).sum())
        if rank < self.n:
            raise ValueError(
                f"`n` must be at most {rank}, the rank of `x`, got {self.n}; further"
                " components would be rounding noise"
            )
        self._scatter = None
        self._take(mean, axes, scales.square() / (len(samples) - 1))
        self.total_variance = float(self.variances.sum())
        return self

    def partial_fit(self, x: Samples) -> PCA:
        """Takes in another batch of samples, (N, ...), and keeps none of it.

        After the last batch the components are close to those of :meth:`fit` on all batches, and
        the same where few more than ``n`` have a variance. Where fewer than ``n`` have one above
        the rounding, or a millionth of the largest deviation, ``components`` and the codes have
        fewer columns: none for samples that are all the same.

        Raises:
            ValueError: if a batch has other features than the first.
        """
        samples = finite_samples(x).flatten(1)
        if self._scatter is None:
            self._scatter = Scatter(self.n + SPARE)
        else:
            check_shape(samples, self.mean.shape)
        scatter = self._scatter
        scatter.add(samples if samples.is_floating_point() else samples.double())
        squares = scatter.factor.square().sum(1)
        freedom = max(scatter.seen - 1, 1)
        self._take(scatter.mean, scatter.factor / squares.sqrt()[:, None], squares / freedom)
        self.total_variance = scatter.total / freedom
        return self

    def _take(self, mean: Tensor, axes: Tensor, variances: Tensor) -> None:
        kept = axes[: self.n]
        largest = kept.gather(1, kept.abs().argmax(1, keepdim=True))
        self.mean, self.variances, self.components = mean, variances, kept * largest.sign()

    def transform(self, x: Samples) -> Tensor:
        """Returns the (N, n) coordinates along the components."""
        if not self.fitted:
            raise not_fitted(self)
        samples = finite_samples(x).flatten(1)
        check_shape(samples, self.mean.shape)
        mean, axes = self.mean.to(samples.device), self.components.to(samples.device).T
        parts = torch.split(samples, max(1, BLOCK // samples.shape[1]))
        return torch.cat([(part.double() - mean) @ axes for part in parts])


class Compressed(MutualInformationEstimator):
    r"""Another estimator's estimate between codes of X and of Y.

    It estimates :math:`I(E_x(X); E_y(Y))`, never more than I(X; Y), and equal to it if each code
    keeps all that its variable tells about the other. A compressor that is fitted already is used
    as it is. One that is not is fitted on the samples of each estimate, on a copy: the compressor
    given stays unfitted. The notes of the estimate say which share of the variance each code keeps.

    Args:
        estimator: estimates between the codes.
        x: compressor of X; None leaves X as it is.
        y: compressor of Y; None leaves Y as it is. It may be the same fitted object as ``x``.

    Source: Butakov et al., ICLR 2024, algorithm 1.

    Example:
        >>> from captum_mi.datasets import GaussianBumps
        >>> from captum_mi.estimators import KSG
        >>> x, y = GaussianBumps(2.0).sample(1000)
        >>> estimate = Compressed(KSG(), x=PCA(2), y=PCA(2)).estimate(x, y)
        >>> 1 < estimate.value < 2.5
        True
        >>> estimate.notes[0]
        'PCA(n=2) of x keeps 58.1 % of the variance; what it leaves out may hold information.'
    """

    def __init__(
        self,
        estimator: MutualInformationEstimator,
        *,
        x: Compressor | None = None,
        y: Compressor | None = None,
    ) -> None:
        """Stores the arguments."""
        self.estimator = estimator
        self.x = x
        self.y = y

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of the codes of two continuous variables.

        Args:
            x: (N, ...), what the compressor of X takes.
            y: (N, ...), row i drawn together with row i of ``x``.
        """
        first, of_x = codes_of("x", self.x, x)
        second, of_y = codes_of("y", self.y, y)
        found = self.estimator.estimate(first, second)
        return replace(found, estimator=repr(self)).noted(*of_x, *of_y)

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information between the codes of X and a discrete variable.

        Args:
            x: (N, ...), what the compressor of X takes.
            labels: (N,), integers or strings.
        """
        codes, notes = codes_of("x", self.x, x)
        found = self.estimator.estimate_discrete(codes, labels)
        return replace(found, estimator=repr(self)).noted(*notes)


def codes_of(
    name: str, compressor: Compressor | None, samples: Samples
) -> tuple[Samples, tuple[str, ...]]:
    """Returns the codes of a variable, and notes on what they keep of it."""
    if compressor is None:
        return samples, ()
    try:
        if not compressor.fitted:
            compressor = copy.deepcopy(compressor).fit(samples)
        codes = compressor.transform(samples)
    except ValueError as error:  # what a compressor calls `x` may be Y here
        raise ValueError(str(error).replace("`x`", f"`{name}`")) from error
    note = (
        f"{type(compressor).__name__}(n={compressor.n}) of {name} keeps"
        f" {100 * compressor.kept:.1f} % of the variance; what it leaves out may hold information."
    )
    return codes, (note,)


def not_fitted(compressor: Compressor) -> RuntimeError:
    """Returns the error of a compressor that is used before it is fitted."""
    return RuntimeError(f"{compressor!r} is not fitted; call fit(x) first")


def finite_samples(x: Samples) -> Tensor:
    """Returns ``x`` as a real, finite tensor (N, ...), on its device if it is a tensor."""
    samples = as_real("x", x)
    if samples.ndim < 2:
        raise ValueError(f"`x` must be (N, d) or (N, ...), got shape {tuple(samples.shape)}")
    check_finite("x", samples)
    return samples


def check_shape(samples: Tensor, shape: torch.Size) -> None:
    """Raises ValueError if samples have another shape than those of ``fit``."""
    if samples.shape[1:] != shape:
        raise ValueError(
            f"`x` must be (N, {', '.join(map(str, shape))}) as in `fit`, got shape"
            f" {tuple(samples.shape)}"
        )


def _is_single(x: Samples) -> bool:
    return str(getattr(x, "dtype", "")).removeprefix("torch.") in ("float16", "bfloat16", "float32")
