"""What every estimator of mutual information returns and offers, and those made of entropies."""

from __future__ import annotations

import inspect
import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from captum_mi.estimators._samples import (
    as_paired_samples,
    as_samples,
    check_least,
    check_varies,
    jittered,
    label_entropy,
    label_rows,
    warn_if_tied,
    whitened,
)
from captum_mi.estimators.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from captum_mi.estimators._samples import Samples


DOUBT = 3.0
"""Standard errors outside of what is possible, from which on a value is doubted."""
MOST_COLUMNS = 10
"""Columns of X and Y together up to which differences of their entropies are of use."""
HARMLESS = 0.05
"""Nats outside of what is possible, up to which it is not."""


class MutualInformationEstimator(ABC):
    """Estimates mutual information, in nats, from samples.

    A constructor stores each argument under its own name, so that ``repr`` rebuilds the estimator
    and scikit-learn's ``clone`` copies it; estimators of equal arguments are equal. Samples are
    (N, d) arrays, tensors or data frames, (N,) for d = 1, and computed with in float64.
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

    def value(self, x: Samples, y: Samples, *, discrete: bool = False) -> float:
        """Returns the value of an estimate alone, where many are made and a standard error is slow.

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``.
            discrete: whether ``y`` is a label, (N,).
        """
        return (self.estimate_discrete if discrete else self.estimate)(x, y).value

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the arguments of the constructor, as scikit-learn's estimators do.

        Args:
            deep: whether to give those of nested estimators too, as ``estimator__k``.
        """
        found = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        if deep:
            for name, value in list(found.items()):
                if isinstance(value, MutualInformationEstimator):
                    inner = value.get_params()
                    found |= {f"{name}__{key}": each for key, each in inner.items()}
        return found

    def set_params(self, **params: Any) -> MutualInformationEstimator:
        """Changes arguments, checked as by the constructor, and returns itself."""
        own = self.get_params(deep=False)
        for name, value in params.items():
            outer, _, inner = name.partition("__")
            if outer not in own:
                raise ValueError(f"`{name}` is no argument of {self!r}; there are {', '.join(own)}")
            own[outer] = own[outer].set_params(**{inner: value}) if inner else value
        vars(self).update(vars(type(self)(**own)))
        return self

    def __repr__(self) -> str:
        """Returns the call that builds this estimator."""
        arguments = ", ".join(
            f"{name}={value!r}" for name, value in self.get_params(deep=False).items()
        )
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        """Tells whether another is of the same class, with equal arguments."""
        if type(self) is not type(other) or not isinstance(other, MutualInformationEstimator):
            return NotImplemented
        return self.get_params(deep=False) == other.get_params(deep=False)

    def __hash__(self) -> int:
        """Returns a hash that equal estimators share."""
        return hash(repr(self))

    def _reported(self, found: Estimate, most: float = math.inf) -> Estimate:
        """Returns the estimate with its estimator's name, and warns if no truth explains it.

        Args:
            found: of a mutual information.
            most: nats, what the mutual information cannot exceed.
        """
        doubt, margin = "", max(DOUBT * found.std_error, HARMLESS)
        if found.value < -margin:
            doubt = "below 0, which no mutual information is"
        elif found.value > most + margin:
            doubt = f"above {most:.3f} nats, the entropy of the labels"
        if doubt:
            warnings.warn(
                f"{self!r} gives {found}, far {doubt}: its bias is larger than its standard error."
                " Take `MutualInformation()`, compress to fewer dimensions, or give more samples",
                stacklevel=3,
            )
        return replace(found, estimator=repr(self))


class EntropyEstimator(MutualInformationEstimator):
    r"""Estimates mutual information as a difference of entropies.

    .. math:: I(X;Y) = h(X) + h(Y) - h(X,Y) \qquad I(X;L) = h(X) - \sum_l p_l\, h(X|L=l)

    A subclass gives :math:`-\log p(x_i)` at each sample. The differences are taken sample by
    sample, which is what the standard error needs: errors common to the entropies cancel. It takes
    the terms for independent; what nearest neighbors, whose terms are not, add to it is added.

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
        if joint.shape[1] > MOST_COLUMNS:
            warnings.warn(
                f"{split} + {joint.shape[1] - split} columns are many for entropies, whose biases"
                " are large and do not cancel; take `MutualInformation()`",
                stacklevel=2,
            )
        entropy = self._pointwise_entropies(
            {"(x, y)": joint, "x": joint[:, :split], "y": joint[:, split:]}
        )
        terms = entropy["x"] + entropy["y"] - entropy["(x, y)"]
        noise = sum(self._noise(*space.shape) for space in (joint, first, second))
        return self._reported(Estimate.of(terms, noise))

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
        noise = self._noise(*samples.shape)
        for label, members in rows.items():
            members = members.to(samples.device)
            name = f"x of label {label!r}"
            reduction[members] -= self._pointwise_entropy(name, samples[members])
            share = len(members) / len(samples)
            noise += share**2 * self._noise(len(members), samples.shape[1])
        if len(rows) == 1:  # whose entropy is that of all samples, with the same error
            noise = 0.0
        return self._reported(Estimate.of(reduction, noise), label_entropy(rows))

    def entropy(self, x: Samples) -> Estimate:
        """Estimates the differential entropy.

        Args:
            x: (N, d).
        """
        samples = as_samples("x", x)
        warn_if_tied("x", samples, self.jitter)
        found = self._pointwise_entropy("x", jittered(samples, self.jitter))
        return replace(Estimate.of(found, self._noise(*samples.shape)), estimator=repr(self))

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

    def _noise(self, n_samples: int, dim: int) -> float:
        """Returns the variance of an entropy, square nats, that its terms' own does not show."""
        return 0.0

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
