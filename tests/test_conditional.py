"""Conditional mutual information against closed forms and a slow rewriting."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import psi

from captum_mi.estimators import ConditionalKSG, MixedKSG

COVARIANCE = np.array(
    [[1.0, 0.7, 0.5, 0.2], [0.7, 1.0, 0.4, 0.3], [0.5, 0.4, 1.0, 0.1], [0.2, 0.3, 0.1, 1.0]]
)


def of_normals(x, y, z):
    """The truth, by determinants of blocks of the covariance."""

    def det(*blocks):
        chosen = np.concatenate(blocks)
        return np.linalg.det(COVARIANCE[np.ix_(chosen, chosen)])

    return 0.5 * math.log(det(x, z) * det(y, z) / (det(z) * det(x, y, z)))


@pytest.mark.parametrize(("x", "y", "z"), [([0], [1], [2]), ([0], [1], [2, 3]), ([0, 3], [1], [2])])
def test_normals(x, y, z):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(5):
        samples = rng.multivariate_normal(np.zeros(4), COVARIANCE, 1500)
        found.append(ConditionalKSG().estimate(samples[:, x], samples[:, y], samples[:, z]))
    error = np.mean([each.std_error for each in found]) / math.sqrt(5)
    values = [each.value for each in found]
    assert np.mean(values) == pytest.approx(of_normals(x, y, z), abs=3 * error + 0.01)
    assert error < 0.02
    assert found[0].n_samples == 1500
    assert found[0].estimator == "ConditionalKSG(k=3)"


def test_a_common_cause_and_a_common_effect():
    x, y, noise = np.random.default_rng(0).standard_normal((3, 2000))
    cause = ConditionalKSG(5).estimate(noise + x, noise + y, noise)
    assert cause.value == pytest.approx(0, abs=3 * cause.std_error)
    effect = ConditionalKSG(5).estimate(x, y, x + y + noise)
    assert effect.value == pytest.approx(-0.5 * math.log(1 - 0.25), abs=3 * effect.std_error)


def spread(column):
    """Scaled, frequent values of a mixed column aside."""
    _, inverse, times = np.unique(column, return_inverse=True, return_counts=True)
    frequent = times > max(0.02 * len(column), 3)
    mixed = frequent.any() and not frequent.all() and (times[~frequent] == 1).all()
    mixed &= len(times) > 20
    aside = 1e3 * frequent[inverse] * mixed
    return np.stack([(column - column.mean()) / column.std(ddof=1), aside], axis=1)


def slow(x, y, z, k):
    """The estimate sample by sample, from the definition."""
    first, second, given = (
        np.hstack([spread(column) for column in np.reshape(each, (len(each), -1)).T])
        for each in (x, y, z)
    )
    total = 0.0
    for i in range(len(first)):
        x_gap, y_gap, z_gap = (abs(each - each[i]).max(axis=1) for each in (first, second, given))
        radius = np.sort(np.max([x_gap, y_gap, z_gap], axis=0))[k]
        for sign, *gaps in (
            (1, x_gap, y_gap, z_gap),
            (-1, x_gap, z_gap),
            (-1, y_gap, z_gap),
            (1, z_gap),
        ):
            largest = np.max(gaps, axis=0)
            inside = largest < radius - 1e-9 if radius else largest == 0
            total += sign * psi(inside.sum())
    return total / len(first)


@pytest.mark.parametrize("k", [1, 4])
def test_the_definition(k):
    rng = np.random.default_rng(1)
    z = rng.standard_normal((150, 2))
    x, y = z.sum(axis=1) + rng.standard_normal((2, 150))
    amount = np.where(rng.random(150) < 0.5, 0, abs(x))
    count = rng.poisson(np.exp(y))
    for given in [(x, y, z), (amount, count, z), (amount, y, count), (z, count, amount)]:
        assert ConditionalKSG(k).estimate(*given).value == pytest.approx(slow(*given, k), abs=1e-10)
    as_frames = pd.Series(x), torch.from_numpy(y), pd.DataFrame(z)
    assert ConditionalKSG(k).estimate(*as_frames).value == pytest.approx(
        slow(x, y, z, k), abs=1e-10
    )


def test_a_table():
    """Y is the exclusive or of X and Z: X and Y are independent, given Z they are the same."""
    x, z = np.random.default_rng(0).integers(2, size=(2, 1000))
    found = ConditionalKSG().estimate(x, x ^ z, z)
    assert found.value == pytest.approx(math.log(2), abs=0.01)
    by_label = ConditionalKSG().estimate_discrete(x, x ^ z, np.array(["a", "b"])[z])
    assert by_label.value == pytest.approx(math.log(2), abs=0.01)


def test_labels_are_weighted():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 400, p=[0.6, 0.3, 0.1])
    x, noise = rng.standard_normal((2, 400))
    y = np.where(labels == "a", x, 0) + noise
    expected = 0.0
    for label in "abc":
        rows = labels == label
        # Scaled as all samples are: a scale of one label's own would move a few neighbors.
        part = slow_pair(x[rows] / x.std(), y[rows] / y.std(), 3)
        expected += rows.mean() * part
    found = ConditionalKSG().estimate_discrete(x, y, labels)
    assert found.value == pytest.approx(expected, abs=1e-10)
    assert found.value == pytest.approx(0.6 * math.log(2) / 2, abs=3 * found.std_error)


def slow_pair(x, y, k):
    """Kraskov et al.'s algorithm 1."""
    first, second = abs(x[:, None] - x), abs(y[:, None] - y)
    radius = np.sort(np.maximum(first, second), axis=1)[:, [k]] - 1e-12
    of_x, of_y = (first < radius).sum(axis=1), (second < radius).sum(axis=1)
    return psi(k) + psi(len(x)) - (psi(of_x) + psi(of_y)).mean()


def test_rare_labels():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 40))
    labels = np.r_[np.zeros(36), 1, 1, 1, 2]
    rest = slow_pair(x[:36] / x.std(), y[:36] / y.std(), 5)
    found = ConditionalKSG(5).estimate_discrete(x, y, labels)
    assert found.value == pytest.approx(36 * rest / 40, abs=1e-10)


def test_the_standard_error_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)
    z, *noises = rng.standard_normal((3, 25, 300))
    x, y = z + noises[0], z + noises[1]
    found = [ConditionalKSG().estimate(*each) for each in zip(x, y, z, strict=True)]
    stated = math.sqrt(np.mean([each.std_error**2 for each in found]))
    assert 0.75 < stated / np.std([each.value for each in found]) < 1.4


def test_independent_of_the_condition_it_is_the_unconditional():
    rng = np.random.default_rng(0)
    x, noise, z = rng.standard_normal((3, 3000))
    found, expected = ConditionalKSG().estimate(x, x + noise, z), MixedKSG().estimate(x, x + noise)
    assert found.value == pytest.approx(expected.value, abs=3 * found.std_error)


@pytest.mark.parametrize(
    ("z", "match"),
    [
        ([0, 1, 2], r"`x` and `z` must have the same number of samples, got 4 and 3"),
        ([0, np.nan, 1, 2], "`z` must be finite"),
        ([1, 1, 1, 1], "`z` has constant columns"),
    ],
)
def test_errors(z, match):
    with pytest.raises(ValueError, match=match):
        ConditionalKSG().estimate([0, 1, 2, 3], [0, 2, 1, 3], z)


def test_errors_of_labels():
    with pytest.raises(ValueError, match="`x` and `labels` must have the same number"):
        ConditionalKSG().estimate_discrete([0, 1, 2, 3], [0, 2, 1, 3], ["a"] * 3)
    with pytest.raises(ValueError, match="`x` must hold at least 4 samples"):
        ConditionalKSG().estimate([0, 1, 2], [0, 2, 1], [0, 1, 2])
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        ConditionalKSG(0)


def test_no_warning_of_ties():
    x, z = np.random.default_rng(0).integers(2, size=(2, 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConditionalKSG().estimate(x, x ^ z, z)
