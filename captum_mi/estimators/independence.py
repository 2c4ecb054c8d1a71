"""A test of independence that is exact at any sample size: mutual information of shuffled pairs."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from captum_mi._checks import check_positive
from captum_mi.estimators.mixed import MixedKSG

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from captum_mi.estimators._samples import Samples
    from captum_mi.estimators.base import MutualInformationEstimator
    from captum_mi.estimators.estimate import Estimate

DEFAULT: MutualInformationEstimator = MixedKSG()
"""What estimates where no estimator is named."""

ROUNDING = 1e-12  # nats: values that differ by less are equal, as those of tables often are


@dataclass(frozen=True)
class PermutationTest:
    """The outcome of a permutation test of independence.

    Attributes:
        statistic: the estimate of the mutual information.
        p_value: how often, under independence, an estimate is at least as large: between
            1 / (1 + permutations) and 1.
        null: (permutations,) nats, estimates with the pairing of X and Y shuffled.
    """

    statistic: Estimate
    p_value: float
    null: NDArray[np.float64]

    def __str__(self) -> str:
        """Returns the estimate and the p-value."""
        return f"{self.statistic}, p = {self.p_value:.2g} from {len(self.null)} permutations"


def permutation_test(
    x: Samples,
    y: Samples,
    *,
    estimator: MutualInformationEstimator = DEFAULT,
    permutations: int = 199,
    seed: int = 0,
    discrete: bool = False,
    n_jobs: int = 1,
    show_progress: bool = True,
) -> PermutationTest:
    r"""Tests whether X and Y are independent, by estimates with the samples of Y in random order.

    .. math:: p = \frac{1 + \#\{b : \hat I_b \ge \hat I\}}{1 + B}

    Under independence p is at most a with probability at most a, whatever the estimator, its bias
    and the number of samples; samples that depend on each other, as of a time series, break it.

    Args:
        x: (N, d_x).
        y: (N, d_y), row i drawn together with row i of ``x``.
        estimator: of the mutual information; a cheap one serves.
        permutations: B; 199 resolve a level of 5 %, and the smallest p is 1 / 200.
        seed: of the orders.
        discrete: whether ``y`` is a label, (N,).
        n_jobs: how many threads estimate; -1 for all cores.
        show_progress: whether to show a bar.

    Raises:
        ValueError: if ``permutations`` is not positive, or as the estimator does.

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero".

    Example:
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 200))
        >>> test = permutation_test(x, abs(x) + noise, permutations=99, show_progress=False)
        >>> print(test)
        0.106 ± 0.097 nats, p = 0.05 from 99 permutations
    """
    check_positive("permutations", permutations)
    rows: Any = y if isinstance(y, torch.Tensor) else getattr(y, "iloc", np.asarray(y))
    statistic = (estimator.estimate_discrete if discrete else estimator.estimate)(x, y)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(statistic.n_samples) for _ in range(permutations)]

    def shuffled(order: NDArray[np.int64]) -> float:
        return estimator.value(x, rows[order], discrete=discrete)

    with warnings.catch_warnings(), ThreadPoolExecutor(workers(n_jobs)) as pool:
        warnings.simplefilter("ignore")  # of the samples there is one already
        values = pool.map(shuffled, orders)
        bar = tqdm(
            values, "permutations", permutations, leave=False, disable=not show_progress, delay=2
        )
        null = np.array(list(bar))
    exceeded = int((null >= statistic.value - ROUNDING).sum())
    return PermutationTest(statistic, (1 + exceeded) / (1 + permutations), null)


def workers(n_jobs: int) -> int:
    """Returns how many threads ``n_jobs`` stands for, as scikit-learn counts: -1 is all cores."""
    return n_jobs if n_jobs > 0 else max((os.cpu_count() or 1) + 1 + n_jobs, 1)
