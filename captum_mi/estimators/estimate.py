"""What every estimator returns: a value in nats with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """An estimated mutual information or entropy.

    It is a number where one is asked for: ``float(estimate)`` and ``f"{estimate:.3f}"`` give nats.

    Attributes:
        value: nats; nothing is clipped, so an estimate of a mutual information may be negative.
        std_error: nats, of the sampling; an estimator's bias is not in it.
        n_samples: N.
        estimator: the call that builds what computed it; empty if it was no estimator.
        notes: what a reader of the value should know, one sentence each: why an estimator was
            chosen, what a compressor left out.

    Example:
        >>> estimate = Estimate(value=1.0, std_error=0.1, n_samples=500)
        >>> print(estimate, f"{estimate:.1f}", round(estimate.bits, 2))
        1.000 ± 0.100 nats 1.0 1.44
        >>> estimate.interval(0.95)
        (0.8040036015459946, 1.1959963984540054)
    """

    value: float
    std_error: float
    n_samples: int
    estimator: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, pointwise: Tensor, noise: float = 0.0) -> Estimate:
        """Returns the mean of one term for each sample, with its standard error.

        Args:
            pointwise: (N,), nats. A difference of entropies must come as one term for each sample,
                which pairs the errors of the entropies.
            noise: variance of the mean, square nats, that the terms' own does not show, because
                they depend on each other.
        """
        n_samples = len(pointwise)
        variance = float(pointwise.var()) / n_samples + noise
        return cls(float(pointwise.mean()), math.sqrt(variance), n_samples)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Returns the normal confidence interval of that level, in nats."""
        if not 0 < level < 1:
            raise ValueError(f"`level` must lie between 0 and 1, got {level}")
        half = NormalDist().inv_cdf((1 + level) / 2) * self.std_error
        return self.value - half, self.value + half

    @property
    def bits(self) -> float:
        """The value in bits."""
        return self.value / math.log(2)

    def noted(self, *notes: str) -> Estimate:
        """Returns the estimate with more notes behind its own."""
        return replace(self, notes=self.notes + notes)

    def __float__(self) -> float:
        """Returns the value, nats."""
        return self.value

    def __str__(self) -> str:
        """Returns the value and its standard error."""
        return f"{self.value:.3f} ± {self.std_error:.3f} nats"

    def __format__(self, spec: str) -> str:
        """Returns the value as a format specification asks; without one, as ``str`` does."""
        return format(self.value, spec) if spec else str(self)
