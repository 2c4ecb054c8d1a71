"""Mutual information from counts of neighbors, in nats."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from scipy.special import digamma

from captum_mi._checks import check_jobs, check_positive
from captum_mi.estimators._neighbors import (
    check_duplicates,
    count_closer,
    nearest_distances,
    warn_of_duplicates,
)
from captum_mi.estimators._samples import (
    as_paired_samples,
    as_samples,
    check_jitter,
    check_least,
    jittered,
    label_entropy,
    label_rows,
    n_duplicates,
    standardized,
    whitened,
)
from captum_mi.estimators._scores import normal_scores
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.estimate import Estimate
from captum_mi.estimators.gaussian import gaussian_information

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples

HALVES = 8
"""Pairs of random halves that an error is estimated from."""
HALVED = 1_000
"""Samples, drawn anew for each pair, that are halved: all would take 8 times as long."""
SATURATED = 3.0
"""Nats above which the bias dominates the error."""


class KSG(MutualInformationEstimator):
    r"""Mutual information from counts inside the ball of the k-th neighbor, largest coordinate.

    .. math:: \hat I = \psi(k) + \psi(N) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle

    where :math:`n_x` samples are strictly closer in X than the k-th neighbor is in (X, Y). Each
    column is scaled to standard deviation 1. The least biased of the three near independence;
    a strong dependence in several dimensions is underestimated.

    A label takes the place of Y in :meth:`estimate_discrete`: the ball is that of the k-th
    neighbor of the same label.

    Args:
        k: which neighbor.
        whiten: map X and Y to covariance I each first: for columns of X that differ by little
            which matters, but spread together. It may hurt where the columns themselves matter.
        control_variate: map each column to normal scores, whiten X and Y, and add by how much the
            estimate misses the truth on simulated normals of the same covariance. It removes the
            bias of what a Gaussian copula shares, and with it most of the bias in many dimensions.
        jitter: noise that separates duplicates, in standard deviations of each column.
        n_jobs: threads that search for neighbors, as scikit-learn counts them; -1 takes all cores.

    Warns:
        UserWarning: if samples of X or of Y repeat; where the k-th neighbor in (X, Y), or of the
            same label, lies at distance 0 it is an error. If the estimate exceeds 3 nats without
            control variate, for above it falls short of the truth, the more the more dimensions.

    Source: Kraskov, Stoegbauer and Grassberger 2004, "Estimating mutual information", algorithm 1;
    labels: Ross 2014, "Mutual information between discrete and continuous data sets".

    Example:
        >>> import numpy as np
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 2000))
        >>> estimate = KSG().estimate(x, x + noise)  # the truth is 0.347
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        0.34 +- 0.02
    """

    def __init__(
        self,
        k: int = 3,
        *,
        whiten: bool = False,
        control_variate: bool = False,
        jitter: float = 0.0,
        n_jobs: int | None = -1,
    ) -> None:
        """Stores and checks the arguments."""
        self.n_jobs = check_jobs(n_jobs)
        self.k = check_positive("k", k)
        self.whiten = whiten
        self.control_variate = control_variate
        self.jitter = check_jitter(jitter)

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two continuous variables, by Kraskov et al."""
        first, second = as_paired_samples(x, y)
        check_least("x", first, self.k + 1, self)
        if self.control_variate:
            return self._reported(self._controlled(first, second))
        # Noise of both at once: drawn for each alone it would be the same, and shared.
        joint = jittered(torch.cat([first, second], dim=1), self.jitter)
        first, second = joint.tensor_split([first.shape[1]], dim=1)
        first, second = self._scaled("x", first), self._scaled("y", second)
        for name, samples in {"x": first, "y": second}.items():
            warn_of_duplicates(name, n_duplicates(samples))
        found = self._with_error(first, second)
        if found.value > SATURATED and first.shape[1] + second.shape[1] > 2:
            warnings.warn(
                f"{found.value:.2f} nats are more than KSG measures well, {SATURATED:g}: in several"
                " dimensions it falls short of a strong dependence; take `MutualInformation()`",
                stacklevel=2,
            )
        return self._reported(found)

    def value(self, x: Samples, y: Samples, *, discrete: bool = False) -> float:
        """Returns the value of an estimate alone, without the halves behind its standard error."""
        if discrete or self.control_variate:
            return super().value(x, y, discrete=discrete)
        first, second = as_paired_samples(x, y)
        check_least("x", first, self.k + 1, self)
        return float(self._terms(self._scaled("x", first), self._scaled("y", second)).mean())

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of a continuous and a discrete variable, by Ross."""
        samples = self._scaled("x", jittered(as_samples("x", x), self.jitter))
        radius = samples.new_empty(len(samples))
        shares = samples.new_empty(len(samples))
        nearest = samples.new_empty(len(samples))
        rows_of_label = label_rows(labels, len(samples))
        for label, rows in rows_of_label.items():
            members = samples[rows]
            name = f"x of label {label!r}"
            check_least(name, members, 2, self)
            k = min(self.k, len(members) - 1)
            radius[rows] = nearest_distances(members, k, math.inf, self.n_jobs)[:, -1]
            shares[rows] = len(members)
            nearest[rows] = k
            check_duplicates(name, radius[rows], radius[rows])
        closer = count_closer(samples, radius).double() + 1
        terms = nearest.digamma() + digamma(len(samples)) - shares.digamma() - closer.digamma()
        return self._reported(Estimate.of(terms), label_entropy(rows_of_label))

    def _scaled(self, name: str, samples: Tensor) -> Tensor:
        if self.whiten:
            return whitened(name, samples)[0]
        return standardized(samples)[0]

    def _controlled(self, x: Tensor, y: Tensor) -> Estimate:
        x = whitened("x", normal_scores(x))[0]
        y = whitened("y", normal_scores(y, 1))[0]
        exact = gaussian_information(x, y)
        rng = torch.Generator().manual_seed(0)
        drawn = torch.randn(len(x), x.shape[1] + y.shape[1], generator=rng, dtype=torch.float64)
        of_x, of_y = drawn.to(x.device).tensor_split([x.shape[1]], dim=1)
        # Y of the simulation is what X tells of it, and a rest of the right covariance.
        cross = x.T @ y / (len(x) - 1)
        rest = torch.eye(y.shape[1], dtype=x.dtype, device=x.device) - cross.T @ cross
        of_y = of_x @ cross + of_y @ torch.linalg.cholesky(rest).T
        simulated = self._terms(of_x, of_y)
        found = self._with_error(x, y)
        correction = exact.value - float(simulated.mean())
        noise = float(simulated.var()) / len(x)
        return Estimate(
            found.value + correction, math.hypot(found.std_error, math.sqrt(noise)), len(x)
        )

    def _with_error(self, x: Tensor, y: Tensor) -> Estimate:
        """Returns the mean of the terms, and the error that random halves of some samples show.

        The difference of two halves' estimates varies four times as that of the whole does.
        """
        terms = self._terms(x, y)
        if bool((terms == terms[0]).all()):
            warnings.warn(
                f"every sample gives {float(terms[0]):.3f} nats, the most that KSG can tell from"
                f" {len(x)} samples: x and y determine each other",
                stacklevel=4,
            )
        plain = Estimate.of(terms)
        if len(x) < 4 * (self.k + 1):
            return plain
        generator = torch.Generator().manual_seed(0)
        squares = []
        for _ in range(HALVES):
            order = torch.randperm(len(x), generator=generator)[:HALVED].to(x.device)
            values = [float(self._terms(x[half], y[half]).mean()) for half in order.chunk(2)]
            squares.append(((values[0] - values[1]) / 2) ** 2)
        spread = math.sqrt(sum(squares) / len(squares) * min(1, HALVED / len(x)))
        return Estimate(plain.value, max(plain.std_error, spread), len(x))

    def _terms(self, x: Tensor, y: Tensor) -> Tensor:
        joint = torch.cat([x, y], dim=1)
        radius = nearest_distances(joint, self.k, math.inf, self.n_jobs)[:, -1]
        check_duplicates("(x, y)", radius, radius)
        terms = torch.full_like(radius, digamma(self.k) + digamma(len(joint)))
        for samples in (x, y):
            terms -= torch.digamma(count_closer(samples, radius).double() + 1)
        return terms
