"""The permutation test: its level is exact, and it finds what a correlation does not."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import mutual_info_score

from captum_mi.estimators import (
    KSG,
    Estimate,
    MixedKSG,
    MutualInformationEstimator,
    PermutationTest,
    PlugIn,
    permutation_test,
)


class Product(MutualInformationEstimator):
    """A statistic that is quick: the mean product, and of labels the plug-in estimate."""

    def estimate(self, x, y):
        terms = torch.as_tensor(np.asarray(x) * np.asarray(y), dtype=torch.float64)
        return Estimate.of(terms)

    def estimate_discrete(self, x, labels):
        return Estimate(mutual_info_score(np.asarray(x), np.asarray(labels)), 0.0, len(x))


def quiet(x, y, **options):
    return permutation_test(x, y, show_progress=False, **options)


def test_the_level_is_exact():
    """P(p <= j / 20) is j / 20 under independence: counts within what chance allows."""
    rng = np.random.default_rng(0)
    found = np.array(
        [
            quiet(
                *rng.standard_normal((2, 12)), estimator=Product(), permutations=19, seed=s
            ).p_value
            for s in range(1000)
        ]
    )
    for share in (0.05, 0.1, 0.25, 0.5, 0.9):
        count = int((found <= share + 1e-9).sum())
        assert binomtest(count, 1000, share).pvalue > 0.005


@pytest.mark.filterwarnings("ignore:.*far below 0")
@pytest.mark.parametrize("discrete", [False, True])
def test_the_level_holds_for_the_default(discrete):
    found = []
    for seed in range(30):
        x, y = np.random.default_rng(seed).standard_normal((2, 30))
        y = y > 0 if discrete else y
        found.append(quiet(x, y, permutations=3, seed=seed, discrete=discrete).p_value)
    assert binomtest(sum(p <= 0.5 for p in found), 30, 0.5).pvalue > 0.02


def test_ties_count_against():
    """Of a table of 2 x 2 many shuffles are as extreme: counted, else p would be too small."""
    x = y = np.array([0, 0, 0, 1, 1, 1])
    found = quiet(x, y, estimator=Product(), discrete=True, permutations=300)
    # 2 of the 20 splits of three and three determine x.
    assert found.p_value == pytest.approx(0.1, abs=0.03)


def test_what_a_correlation_does_not_see():
    x, noise = np.random.default_rng(0).standard_normal((2, 200))
    found = quiet(x, x**2 + noise, permutations=39)
    assert found.p_value == 1 / 40
    assert found.null.max() < found.statistic.value
    assert found.statistic == MixedKSG().estimate(x, x**2 + noise)
    assert abs(found.null.mean()) < 0.03
    assert found.null.shape == (39,)


def test_the_null_by_hand():
    x, y = np.random.default_rng(0).standard_normal((2, 50))
    found = quiet(x, y, permutations=5, seed=3, estimator=KSG())
    rng = np.random.default_rng(3)
    by_hand = [KSG().estimate(x, y[rng.permutation(50)]).value for _ in range(5)]
    np.testing.assert_array_equal(found.null, by_hand)
    above = sum(value >= found.statistic.value for value in by_hand)
    assert found.p_value == (1 + above) / 6


def test_labels():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b"])[rng.integers(2, size=150)]
    x = rng.standard_normal(150) + 2 * (labels == "a")
    assert quiet(x, labels, discrete=True, permutations=39).p_value == 1 / 40
    null = quiet(x, np.random.default_rng(1).permutation(x) > 0, discrete=True, permutations=39)
    assert null.p_value > 0.1
    both = quiet(labels, np.where(x > 1, "c", "d"), estimator=PlugIn(), permutations=39)
    assert both.p_value == 1 / 40


def test_rows_stay_whole():
    x, noise = np.random.default_rng(0).standard_normal((2, 60, 2))
    y = x + noise
    expected = quiet(x, y, permutations=9).null
    given = [pd.DataFrame(y, index=np.arange(60) + 7), torch.from_numpy(y), y.tolist()]
    for kind in given:
        np.testing.assert_allclose(quiet(x, kind, permutations=9).null, expected, atol=1e-12)
    series = quiet(x, pd.Series(y[:, 0], index=np.arange(60) + 7), permutations=9).null
    np.testing.assert_allclose(series, quiet(x, y[:, 0], permutations=9).null, atol=1e-12)


def test_threads_change_nothing():
    x, y = np.random.default_rng(0).standard_normal((2, 60))
    alone = quiet(x, y, permutations=9)
    together = quiet(x, y, permutations=9, n_jobs=3)
    np.testing.assert_array_equal(alone.null, together.null)
    assert (quiet(x, y, permutations=9, seed=1).null != alone.null).any()


def test_warnings_come_once():
    """Those of the estimate; the shuffles repeat them."""
    x = np.repeat(np.random.default_rng(0).standard_normal(30), 2)
    y = np.random.default_rng(1).standard_normal(60)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet(x, y, estimator=KSG(), permutations=9)
    assert len(caught) == 1


def test_it_prints():
    test = PermutationTest(Estimate(0.25, 0.05, 100), 0.01, np.zeros(99))
    assert str(test) == "0.250 ± 0.050 nats, p = 0.01 from 99 permutations"


def test_permutations_are_positive():
    with pytest.raises(ValueError, match="`permutations` must be at least 1, got 0"):
        permutation_test([1, 2, 3], [1, 2, 3], permutations=0)
