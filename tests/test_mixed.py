"""Mixtures of continuous and discrete against closed forms and a slow rewriting."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import psi
from sklearn.feature_selection import mutual_info_classif

from captum_mi.estimators import KSG, MixedKSG
from captum_mi.estimators._subsamples import block_variance


def uniform_steps(rng, n_samples):
    """Gao et al., experiment 1: X of m values, Y uniform on [X, X + 2]."""
    x = rng.integers(5, size=n_samples)
    return x, x + rng.uniform(0, 2, n_samples)


def inflated_poisson(rng, n_samples):
    """Gao et al., experiment 2: X exponential, Y zero or else Poisson of mean X."""
    x = rng.exponential(size=n_samples)
    return x, np.where(rng.random(n_samples) < 0.15, 0, rng.poisson(x))


def mixture(rng, n_samples):
    """Gao et al., section 5: normals of correlation .9 or signs that agree in .8, half and half."""
    first, noise = rng.standard_normal((2, n_samples))
    second = 0.9 * first + math.sqrt(0.19) * noise
    sign = rng.choice([-1.0, 1.0], n_samples)
    other = np.where(rng.random(n_samples) < 0.8, sign, -sign)
    discrete = rng.random(n_samples) < 0.5
    return np.where(discrete, sign, first), np.where(discrete, other, second)


def censored(rng, n_samples):
    """Normals of correlation .8, one cut off at 0; the truth by numerical integration."""
    x, noise = rng.standard_normal((2, n_samples))
    return x, np.maximum(0.8 * x + 0.6 * noise, 0)


def rain(rng, n_samples):
    """Two independent amounts, each zero in half of the rows."""
    dry = rng.random((2, n_samples)) < 0.5
    return np.where(dry, 0, rng.exponential(size=(2, n_samples)))


def counts(rng, n_samples):
    """Frequent values among rare ones, all of which repeat: none lies apart."""
    x = rng.poisson(20, n_samples)
    return x, (x + rng.normal(size=n_samples)).round(1)


def poisson_sum(rng, n_samples):
    x = rng.poisson(3, n_samples)
    return x, x + rng.poisson(3, n_samples)


POISSON = 2 * math.log(2) - np.euler_gamma - sum(math.log(i) / 2**i for i in range(1, 60))
SIGNS = math.log(2) + 0.8 * math.log(0.8) + 0.2 * math.log(0.2)
CASES = [
    (uniform_steps, math.log(5) - 4 * math.log(2) / 5, 0.03),
    (inflated_poisson, 0.85 * POISSON, 0.05),
    (mixture, math.log(2) + (SIGNS - math.log(0.19) / 2) / 2, 0.03),
    (censored, 0.38870, 0.03),
    (rain, 0.0, 0.03),
    (poisson_sum, 0.36778, 0.03),
]


@pytest.mark.parametrize(("sample", "truth", "error"), CASES)
def test_closed_forms(sample, truth, error):
    rng = np.random.default_rng(0)
    found = [MixedKSG().estimate(*sample(rng, 1000)) for _ in range(6)]
    values = np.array([each.value for each in found])
    assert values.mean() == pytest.approx(truth, abs=error)
    stated = np.mean([each.std_error for each in found])
    assert 0.5 < stated / values.std(ddof=1) < 2  # of six draws


def spread(column):
    """A column of samples scaled, and a second that tells frequent values of a mixed one apart."""
    values, inverse, times = np.unique(column, return_inverse=True, return_counts=True)
    frequent = times > max(0.02 * len(column), 3)
    mixed = frequent.any() and (times[~frequent] == 1).all() and (~frequent).any()
    mixed &= len(values) > 20
    aside = 1e3 * frequent[inverse] * mixed
    return np.stack([(column - column.mean()) / column.std(ddof=1), aside], axis=1)


def slow(x, y, k):
    """The estimate sample by sample, from the definition."""
    first, second = (
        np.hstack([spread(column) for column in np.reshape(each, (len(each), -1)).T])
        for each in (x, y)
    )
    total = 0.0
    for i in range(len(first)):
        near_x = abs(first - first[i]).max(axis=1)
        near_y = abs(second - second[i]).max(axis=1)
        near = np.maximum(near_x, near_y)
        radius = np.sort(near)[k]  # the sample itself is the first
        # Distances that differ by rounding alone are equal.
        inside = [gaps < radius - 1e-9 if radius else gaps == 0 for gaps in (near, near_x, near_y)]
        both, of_x, of_y = (int(each.sum()) for each in inside)
        total += psi(len(first)) + psi(both) - psi(of_x) - psi(of_y)
    return total / len(first)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("sample", [*(case[0] for case in CASES), counts])
def test_the_definition(sample, k):
    x, y = sample(np.random.default_rng(1), 150)
    assert MixedKSG(k).estimate(x, y).value == pytest.approx(slow(x, y, k), abs=1e-10)


def test_columns_of_several_kinds():
    rng = np.random.default_rng(2)
    x = np.stack([rng.integers(3, size=200), rng.normal(size=200), *rain(rng, 200)], axis=1)
    y = np.stack([x[:, 0] + rng.integers(2, size=200), x[:, 2]], axis=1)
    expected = slow(x, y, 3)
    assert MixedKSG().estimate(x, y).value == pytest.approx(expected, abs=1e-10)
    assert MixedKSG().estimate(torch.from_numpy(x), pd.DataFrame(y)).value == pytest.approx(
        expected, abs=1e-10
    )


def test_without_ties_it_is_ksg():
    x, noise = np.random.default_rng(0).standard_normal((2, 500, 2))
    found, expected = MixedKSG(4).estimate(x, x + noise), KSG(4).estimate(x, x + noise)
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    assert found.estimator == "MixedKSG(k=4)"


def test_labels_against_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    x = labels + rng.standard_normal(400)
    # It adds noise of 1e-10 and counts the closer ones by the same radius.
    expected = mutual_info_classif(x[:, None], labels, n_neighbors=3, random_state=0)
    found = MixedKSG().estimate_discrete(x, np.array(["a", "b", "c"])[labels])
    assert found.value == pytest.approx(expected[0], abs=1e-9)


def test_rare_labels():
    """No more samples than k: the farthest of a label is the last; a single one tells nothing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(60)
    labels = np.r_[np.zeros(56), 1, 1, 1, 2]
    total = 0.0
    for i in range(60):
        same = np.flatnonzero(labels == labels[i])
        if len(same) > 1:
            gaps = np.sort(abs(x[same] - x[i]))
            radius = gaps[min(5, len(same) - 1)]
            within = int((abs(x - x[i]) < radius - 1e-12).sum())
            total += psi(60) + psi(min(5, len(same) - 1)) - psi(len(same)) - psi(within)
    found = MixedKSG(5).estimate_discrete(x, labels)
    assert found.value == pytest.approx(total / 60, abs=1e-10)


def test_labels_of_tied_samples():
    """A mixed column and a label: amounts depend on the label, and so does their being zero."""
    rng = np.random.default_rng(3)
    label = rng.integers(2, size=3000)
    dry = rng.random(3000) < np.where(label, 0.8, 0.2)
    amount = np.where(dry, 0, rng.random(3000) + label)  # when not zero it tells the label
    found = MixedKSG().estimate_discrete(amount, label)
    truth = 0.5 * math.log(2) + 0.5 * SIGNS  # half of the rows are wet, and tell all
    assert found.value == pytest.approx(truth, abs=3 * found.std_error)
    assert found.std_error < 0.01
    as_number = MixedKSG().estimate(amount, label)
    assert as_number.value == pytest.approx(truth, abs=3 * as_number.std_error)


@pytest.mark.parametrize("n_samples", [200, 2000, 20_000])
def test_the_variance_of_blocks(n_samples):
    """Of a mean of numbers of variance 9; the error of one is 50 %, of the mean of 20 11 %."""
    found = [
        block_variance(numbers.__getitem__, n_samples, 4)
        for numbers in torch.randn(20, n_samples, generator=torch.manual_seed(0)) * 3
    ]
    assert np.mean(found) == pytest.approx(9 / n_samples, rel=0.33)
    assert np.std(found) / np.mean(found) < 0.7


def test_too_few_for_blocks():
    assert block_variance(torch.arange(9.0).__getitem__, 9, 5) == 0
    assert block_variance(torch.arange(9.0).__getitem__, 9, 4) > 0


@pytest.mark.parametrize("nats", [0.0, 1.0])
def test_the_standard_error_is_that_of_repeated_draws(nats):
    """Terms alone would show .8 of it."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 40, 200))
    y = math.sqrt(1 - math.exp(-2 * nats)) * x + math.exp(-nats) * noise
    found = [MixedKSG().estimate(*pair) for pair in zip(x, y, strict=True)]
    stated = math.sqrt(np.mean([each.std_error**2 for each in found]))
    assert 0.9 < stated / np.std([each.value for each in found]) < 1.35


def test_many_equal_samples_take_no_long():
    """Every pair of 20,000 equal samples would be 400 million distances."""
    rng = np.random.default_rng(0)
    rows = rng.random(40_000) < 0.5
    x, y = np.where(rows, 0, rng.random((2, 40_000)))
    found = MixedKSG().estimate(x, y)
    assert found.value == pytest.approx(math.log(2), abs=3 * found.std_error + 0.002)


def test_no_warning_of_ties():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MixedKSG().estimate(*rain(np.random.default_rng(0), 100))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.arange(3.0), "`x` must hold at least 4 samples"),
        (np.array(["a", "b", "c"]), "use `estimate_discrete`"),
        (np.array([0, np.nan, 1]), "`x` must be finite"),
        (np.zeros(3), "`x` has constant columns"),
    ],
)
def test_errors(x, match):
    with pytest.raises(ValueError, match=match):
        MixedKSG().estimate(x, [0, 1, 1])


@pytest.mark.parametrize("k", [0, -1])
def test_k_is_positive(k):
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        MixedKSG(k)
