"""What every estimator of mutual information returns and offers, and those made of entropies."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch

from captum_mi.estimators._samples import (
    as_paired_samples,
    as_samples,
    check_least,
    check_varies,
    jittered,
    label_rows,
    warn_if_tied,
    whitened,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from captum_mi.estimators._samples import Samples


@dataclass(frozen=True)
class Estimate:
    """An estimated mutual information or entropy.

    Attributes:
        value: nats; nothing is clipped, so an estimate of a mutual information may be negative.
        std_error: nats, of the sampling; an estimator's bias is not in it.
        n_samples: N.

    Example:
        >>> Estimate(value=1.0, std_error=0.1, n_samples=500).interval(0.95)
        (0.8040036015459946, 1.1959963984540054)
    """

    value: float
    std_error: float
    n_samples: int

    @classmethod
    def of(cls, pointwise: Tensor) -> Estimate:
        """Returns the mean of one term for each sample, with its standard error.

        Args:
            pointwise: (N,), nats. A difference of entropies must come as one term for each sample,
                which pairs the errors of the entropies.
        """
        n_samples = len(pointwise)
        std_error = float(pointwise.std()) / math.sqrt(n_samples)
        return cls(float(pointwise.mean()), std_error, n_samples)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Returns the normal confidence interval of that level, in nats."""
        if not 0 < level < 1:
            raise ValueError(f"`level` must lie between 0 and 1, got {level}")
        half = NormalDist().inv_cdf((1 + level) / 2) * self.std_error
        return self.value - half, self.value + half


class MutualInformationEstimator(ABC):
    """Estimates mutual information, in nats, from samples.

    A constructor stores each argument under its own name, so that ``repr`` rebuilds the estimator.
    Samples are (N, d) arrays or tensors, (N,) for d = 1, and computed with in float64.
    """

    @abstractmethod
    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two continuous variables.

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``.
        """

    @abstractmethod
    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of a continuous and a discrete variable.

        Args:
            x: (N, d).
            labels: (N,), integers or strings, entry i drawn together with row i of ``x``.
        """

    def __repr__(self) -> str:
        """Returns the call that builds this estimator."""
        arguments = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in inspect.signature(type(self)).parameters
        )
        return f"{type(self).__name__}({arguments})"


class EntropyEstimator(MutualInformationEstimator):
    r"""Estimates mutual information as a difference of entropies.

    .. math:: I(X;Y) = h(X) + h(Y) - h(X,Y) \qquad I(X;L) = h(X) - \sum_l p_l\, h(X|L=l)

    A subclass gives :math:`-\log p(x_i)` at each sample. The differences are taken sample by
    sample, which is what the standard error needs: errors common to the entropies cancel. It takes
    the terms for independent; those of nearest neighbors are not quite, so that their true error is
    somewhat larger.

    Attributes:
        whiten: whether X, Y and (X, Y) are first mapped to covariance I, each by its own, and half
            the log-determinant added back: invertible linear maps then change no estimate.
        jitter: standard deviation of normal noise added to the samples, relative to each column's.
            A tiny one is no remedy for tied values: where X and (X, Y) have different ties,
            their entropies fall by different multiples of its logarithm.
    """

    whiten: bool = True
    jitter: float = 0.0

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of X and Y as h(X) + h(Y) - h(X, Y).

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``.
        """
        first, second = as_paired_samples(x, y)
        warn_if_tied("x", first, self.jitter)
        warn_if_tied("y", second, self.jitter)
        split = first.shape[1]
        joint = jittered(torch.cat([first, second], dim=1), self.jitter)
        entropy = self._pointwise_entropies(
            {"(x, y)": joint, "x": joint[:, :split], "y": joint[:, split:]}
        )
        return Estimate.of(entropy["x"] + entropy["y"] - entropy["(x, y)"])

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of a continuous and a discrete variable.

        The entropies given a label come from the samples of that label alone, whitened anew.

        Args:
            x: (N, d).
            labels: (N,), integers or strings, entry i drawn together with row i of ``x``.
        """
        samples = as_samples("x", x)
        rows = label_rows(labels, len(samples))
        warn_if_tied("x", samples, self.jitter)
        samples = jittered(samples, self.jitter)
        reduction = self._pointwise_entropy("x", samples)
        for label, members in rows.items():
            members = members.to(samples.device)
            name = f"x of label {label!r}"
            reduction[members] -= self._pointwise_entropy(name, samples[members])
        return Estimate.of(reduction)

    def entropy(self, x: Samples) -> Estimate:
        """Estimates the differential entropy.

        Args:
            x: (N, d).
        """
        samples = as_samples("x", x)
        warn_if_tied("x", samples, self.jitter)
        return Estimate.of(self._pointwise_entropy("x", jittered(samples, self.jitter)))

    @abstractmethod
    def _minus_log_densities(self, spaces: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Estimates -log density at each sample, leaving that sample out.

        Args:
            spaces: (N, d) samples by name; what the spaces share is fitted on the first.

        Returns:
            (N,) terms in nats for each name, whose mean estimates the entropy.
        """

    @abstractmethod
    def _least_samples(self, dim: int) -> int:
        """Returns the fewest samples of ``dim`` columns that the estimator takes."""

    def _pointwise_entropy(self, name: str, samples: Tensor) -> Tensor:
        return self._pointwise_entropies({name: samples})[name]

    def _pointwise_entropies(self, spaces: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, samples in spaces.items():
            check_least(name, samples, self._least_samples(samples.shape[1]), self)
            check_varies(name, samples)
        if not self.whiten:
            return self._minus_log_densities(spaces)
        # X and Y before (X, Y), for an error that names the one at fault.
        white = {name: whitened(name, spaces[name]) for name in reversed(spaces)}
        terms = self._minus_log_densities({name: white[name][0] for name in spaces})
        return {name: terms[name] + white[name][1] for name in spaces}
