"""Samples as large or small as float64 holds, and far from zero."""

import math

import numpy as np
import pytest
import torch

from captum_mi.estimators import KSG, KernelDensity, KozachenkoLeonenko, WeightedKozachenkoLeonenko
from captum_mi.estimators._samples import standardized

ESTIMATORS = [
    KozachenkoLeonenko(jitter=1e-9),
    KozachenkoLeonenko(whiten=False),
    WeightedKozachenkoLeonenko(),
    KernelDensity(),
    KernelDensity(whiten=False),
    KSG(jitter=1e-9),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("unit", [1e-300, 1e-155, 1e155, 1e300])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_any_scale(estimator, unit, rng):
    x, noise = rng.standard_normal((2, 200, 2))
    expected = estimator.estimate(x, x + noise)
    found = estimator.estimate(x * unit, (x + noise) * unit)
    assert found.value == pytest.approx(expected.value, abs=1e-6)
    assert found.std_error == pytest.approx(expected.std_error, abs=1e-6)
    labels = x[:, 0] > 0
    discrete = estimator.estimate_discrete(x * unit, labels).value
    assert discrete == pytest.approx(estimator.estimate_discrete(x, labels).value, abs=1e-6)
    if not isinstance(estimator, KSG):
        change = 2 * math.log(unit)
        entropy = estimator.entropy(x * unit).value
        assert entropy == pytest.approx(estimator.entropy(x).value + change, abs=1e-6)


def test_each_column_has_its_own_scale(rng):
    x = rng.standard_normal((100, 4)) * [1e-300, 1, 1e300, 1] + [0, 5, 0, 0]

    standard, deviations = standardized(torch.from_numpy(x[:, :3]))
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(0), 1)
    np.testing.assert_allclose(deviations.numpy() / [1e-300, 1, 1e300], [1, 1, 1], rtol=0.2)


def test_columns_that_vary_within_their_rounding(rng):
    x = 1e18 + 128 * rng.permutation(20)
    with pytest.raises(ValueError, match="`x` is degenerate: its columns vary by no more than the"):
        KozachenkoLeonenko().entropy(x)
