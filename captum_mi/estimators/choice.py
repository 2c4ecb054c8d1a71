"""The default: an estimator that is chosen by the kind and the number of columns."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from captum_mi.estimators._dimension import fills
from captum_mi.estimators._samples import as_samples, whitened
from captum_mi.estimators._scores import normal_scores
from captum_mi.estimators._variable import WIDE, Variable
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.compression import PCA, codes_of
from captum_mi.estimators.copula import CopulaNeighbors
from captum_mi.estimators.discrete import PlugIn, check_same_length, value_codes
from captum_mi.estimators.estimate import Estimate
from captum_mi.estimators.ksg import KSG
from captum_mi.estimators.mixed import MixedKSG

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples
    from captum_mi.estimators._variable import Codes

CODE = 10
"""Columns that a variable of many is compressed to."""
LITTLE = 0.5
"""Share of the variance of which a warning is due."""
MANY = 16
"""Columns of both variables up to which densities are estimated."""
GROUP = 50
"""Rows that a label must have for other columns to be looked at given it."""


class MutualInformation(MutualInformationEstimator):
    r"""Mutual information of any two variables: the estimator is chosen, and the result says which.

    Columns are told apart by :func:`kind_of`. Then, in this order:

    1. two variables of labels: :class:`PlugIn`;
    2. labels beside other columns in one variable: the chain rule,
       :math:`I(L, U; Y) = I(L; Y) + \sum_l p_l\, I(U; Y | L = l)`, each term by these rules;
    3. labels against other columns: :class:`KSG` of their normal scores, or :class:`MixedKSG` if
       one has frequent values, or a label occurs but once. It compares neighbors of a label with
       all samples, needs no density of many dimensions and never exceeds the entropy of the labels
       by more than its error;
    4. a column with frequent values among others: :class:`MixedKSG`, for such a column has no
       density;
    5. a variable of more than 50 columns, or more than a twentieth of the samples:
       :class:`PCA` to 10 components first, for distances between few samples of many columns tell
       little; the result says what it leaves out;
    6. a variable that lies on fewer dimensions than it has columns, as points of a surface do:
       :class:`KSG`, which estimates no entropy, and so needs no density; whitened, if it only
       seems to, because columns differ by little;
    7. more than 16 columns together: :class:`KSG` with a control variate. No neighbor is near among
       so many, and densities that go by distances can be far too high;
    8. all else, counts among it: :class:`CopulaNeighbors`, whose bias cancels where variables are
       independent and where increasing maps of their columns are jointly normal.

    Args:
        seed: of what is drawn: shuffles, and the order of ties.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal(2000)
        >>> estimate = MutualInformation().estimate(x, np.exp(x + rng.standard_normal(2000)))
        >>> print(estimate)  # the truth is 0.347
        0.327 ± 0.022 nats
        >>> print(*estimate.notes)
        CopulaNeighbors was chosen: the columns have values in an order.
    """

    def __init__(self, *, seed: int = 0) -> None:
        """Stores the argument."""
        self.seed = seed

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two variables.

        Args:
            x: (N,), (N, d) or (N, ...): numbers, labels, or a data frame of both.
            y: the same, row i drawn together with row i of ``x``.
        """
        first, second = Variable.of("x", x), Variable.of("y", y)
        check_same_length("y", len(second), len(first))
        return self._estimate(first, second)

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of a variable and a label.

        Args:
            x: (N,), (N, d) or (N, ...): numbers, labels, or a data frame of both.
            labels: (N,), of any kind.
        """
        first = Variable.of("x", x)
        second = Variable(value_codes("labels", labels), None, mixed=False)
        check_same_length("labels", len(second), len(first))
        return self._estimate(first, second)

    def _estimate(self, x: Variable, y: Variable) -> Estimate:
        if x.labels is None and y.labels is not None:
            x, y = y, x  # information is symmetric
        if x.labels is None:
            return self._of_numbers(x, y)
        if x.numbers is not None:
            return self._by_chain_rule(x, y)
        if y.labels is None:
            return self._of_label(y, x.labels)
        if y.numbers is not None:
            return self._by_chain_rule(y, x)
        return _because(PlugIn().estimate(x.labels, y.labels), "both variables are labels")

    def _of_label(self, x: Variable, labels: Codes) -> Estimate:
        if x.mixed or np.bincount(labels).min() == 1:
            found = MixedKSG().estimate_discrete(x.samples, labels)
            why = "the other has frequent values" if x.mixed else "of which some occur but once"
            return _because(found, f"one variable is a label, {why}")
        samples, notes = _narrow("x", x.samples)
        found = KSG().estimate_discrete(normal_scores(samples, self.seed), labels)
        return _because(found, "one variable is a label, the other is in an order", *notes)

    def _of_numbers(self, x: Variable, y: Variable) -> Estimate:
        if x.mixed or y.mixed:
            found = MixedKSG().estimate(x.samples, y.samples)
            return _because(found, "a column has frequent values among others")
        first, notes = _narrow("x", x.samples)
        second, more = _narrow("y", y.samples)
        notes += more
        for name, samples in {"x": first, "y": second}.items():
            if fills(whitened(name, normal_scores(samples, self.seed))[0]):
                continue
            if fills(whitened(name, samples)[0]):
                found = KSG(whiten=True).estimate(first, second)
                why = f"columns of {name} differ by too little for ranks to show"
            else:
                found = KSG().estimate(first, second)
                why = f"{name} lies on fewer dimensions than its {samples.shape[1]} columns"
            return _because(found, why, *notes)
        if first.shape[1] + second.shape[1] > MANY:
            found = KSG(control_variate=True).estimate(first, second)
            return _because(found, f"x and y have more than {MANY} columns together", *notes)
        found = CopulaNeighbors(seed=self.seed).estimate(first, second)
        return _because(found, "the columns have values in an order", *notes)

    def _by_chain_rule(self, x: Variable, y: Variable) -> Estimate:
        """Estimates I(L, U; Y) of labels L and numbers U as I(L; Y) + I(U; Y | L)."""
        labels = Variable(x.labels, None, mixed=False)
        whole = self._estimate(labels, y)
        value, variance = whole.value, whole.std_error**2
        for label in np.unique(labels.codes):
            rows = np.flatnonzero(labels.codes == label)
            if len(rows) < GROUP:
                raise ValueError(
                    f"a combination of labels beside other columns must have at least {GROUP}"
                    f" rows, got {len(rows)}; merge rare labels, or leave their columns out"
                )
            part = self._estimate(Variable(None, x.samples[rows], x.mixed), y.rows(rows))
            share = len(rows) / len(x)
            value += share * part.value
            variance += (share * part.std_error) ** 2
        found = Estimate(value, math.sqrt(variance), len(x), repr(self))
        return found.noted(
            "The chain rule was used, for there are labels beside other columns:"
            f" {whole.value:.3f} nats are the labels', the rest what the others add given them."
        )


def _because(found: Estimate, why: str, *notes: str) -> Estimate:
    chosen = found.estimator.partition("(")[0]
    return found.noted(f"{chosen} was chosen: {why}.", *notes)


def _narrow(name: str, samples: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Compresses samples of many columns; returns a note on what that leaves out."""
    n_samples, dim = samples.shape
    if dim <= min(WIDE, max(n_samples // 20, CODE)):
        return samples, ()
    if dim <= WIDE:  # columns of a table, which have units of their own
        samples = normal_scores(samples)
    compressor = PCA(min(CODE, dim, n_samples)).fit(samples)
    if compressor.kept < LITTLE:
        warnings.warn(
            f"{dim} columns of `{name}` are compressed to {compressor.n}, which keep but"
            f" {compressor.kept:.0%} of their variance, and maybe little of their information; take"
            " `GaussianCopula` or another compressor, or choose columns",
            stacklevel=5,
        )
    codes, notes = codes_of(name, compressor, samples)
    return as_samples(name, codes), notes
