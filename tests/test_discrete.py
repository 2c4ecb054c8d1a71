"""The plug-in estimate of discrete variables, against tables that are known and scikit-learn."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import xlogy
from scipy.stats import entropy as shannon
from sklearn.metrics import mutual_info_score

from captum_mi.estimators import PlugIn
from captum_mi.estimators.discrete import value_codes

DEPENDENT = (np.eye(4) + 0.2) / (np.eye(4) + 0.2).sum()
INDEPENDENT = np.outer([0.5, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4])
ZIPF = 1 / np.arange(1, 31) / (1 / np.arange(1, 31)).sum()
RARE = np.outer(ZIPF, ZIPF)
SPREAD = np.full((20, 20), 1 / 400)


def truth(joint):
    return float(xlogy(joint, joint / np.outer(joint.sum(1), joint.sum(0))).sum())


def draw(joint, n_samples, seed=0):
    rng = np.random.default_rng(seed)
    return np.divmod(rng.choice(joint.size, n_samples, p=joint.ravel()), joint.shape[1])


def simulate(joint, n_samples, draws=150):
    """Values, standard errors and samples of many draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = [draw(joint, n_samples, seed) for seed in range(draws)]
        found = [PlugIn().estimate(x, y) for x, y in pairs]
    return (
        np.array([each.value for each in found]),
        np.array([each.std_error for each in found]),
        pairs,
    )


@pytest.mark.parametrize("joint", [DEPENDENT, INDEPENDENT, RARE[:5, :5] / RARE[:5, :5].sum()])
def test_the_jackknife_by_leaving_out(joint):
    """Of scikit-learn's plug-in estimate, each sample left out in turn."""
    x, y = draw(joint, 80)
    whole = mutual_info_score(x, y)
    without = [mutual_info_score(np.delete(x, i), np.delete(y, i)) for i in range(80)]
    pseudo = 80 * whole - 79 * np.array(without)
    found = PlugIn().estimate(x, y)
    assert found.value == pytest.approx(pseudo.mean(), abs=1e-12)
    least = (whole - pseudo.mean()) / 80
    assert found.std_error**2 == pytest.approx(max(pseudo.var(ddof=1) / 80, least), rel=1e-9)
    assert found.n_samples == 80
    assert found.estimator == "PlugIn()"


def test_the_entropy_by_leaving_out():
    x, _ = draw(DEPENDENT, 60)
    whole = shannon(np.bincount(x))
    without = [shannon(np.bincount(np.delete(x, i))) for i in range(60)]
    pseudo = 60 * whole - 59 * np.array(without)
    found = PlugIn().entropy(x)
    assert found.value == pytest.approx(pseudo.mean(), abs=1e-12)
    assert found.std_error == pytest.approx(pseudo.std(ddof=1) / np.sqrt(60), rel=1e-9)


@pytest.mark.parametrize(
    ("joint", "n_samples", "left"),
    [(DEPENDENT, 200, 0.05), (INDEPENDENT, 100, 0.1), (SPREAD, 1000, 0.2), (RARE, 1000, 0.35)],
)
def test_most_of_the_bias_is_removed(joint, n_samples, left):
    values, _, pairs = simulate(joint, n_samples)
    plug_in = np.array([mutual_info_score(x, y) for x, y in pairs])
    bias = values.mean() - truth(joint)
    assert plug_in.mean() - truth(joint) > 2 * plug_in.std() / np.sqrt(150)
    noise = 3 * values.std() / np.sqrt(150)
    assert abs(bias) < left * (plug_in.mean() - truth(joint)) + noise


@pytest.mark.parametrize(
    ("joint", "n_samples", "low", "high"),
    [
        (DEPENDENT, 300, 0.9, 1.15),
        (INDEPENDENT, 300, 1.2, 1.6),  # the root of 2 where all cells are filled
        (SPREAD, 2000, 1.3, 1.75),
        (RARE, 1000, 0.95, 1.35),
        (np.diag(ZIPF), 200, 0.9, 1.15),
    ],
)
def test_the_standard_error_is_that_of_repeated_draws(joint, n_samples, low, high):
    values, errors, _ = simulate(joint, n_samples)
    assert low < errors.mean() / values.std() < high


def test_intervals_hold_at_independence():
    """Where the delta method alone gives a standard error of 0 at a table that fits exactly."""
    values, errors, _ = simulate(np.full((2, 2), 0.25), 100)
    assert (abs(values) < 1.96 * errors).mean() > 0.95
    exact = PlugIn().estimate([0, 0, 1, 1] * 25, [0, 1, 0, 1] * 25)
    assert exact.std_error == pytest.approx(np.sqrt(0.5) / 100, rel=0.05)  # of chi-squared / 2 N


@pytest.mark.parametrize("seed", range(20))
def test_no_more_than_either_entropy(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, rng.integers(2, 30, 2), (40, 2)).T
    y = np.where(rng.random(40) < rng.random(), x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = PlugIn().estimate(x, y).value
    assert found <= min(PlugIn().entropy(x).value, PlugIn().entropy(y).value) + 1e-12


def test_a_function_of_the_other_has_its_entropy():
    x, _ = draw(DEPENDENT, 200)
    found = PlugIn().estimate(x, x // 2)
    assert found.value == pytest.approx(PlugIn().entropy(x // 2).value, abs=1e-12)
    assert PlugIn().estimate(x, np.zeros(200)).value == pytest.approx(0, abs=1e-12)


def test_labels_of_any_kind():
    x, y = draw(DEPENDENT, 200)
    expected = PlugIn().estimate(x, y)
    names = np.array(["a", "b", "c", "d"])
    kinds = [
        names[x],
        names[x].tolist(),
        names.astype(object)[x],
        pd.Series(names[x], index=np.arange(200) + 7),
        pd.Series(pd.Categorical(names[x])),
        pd.Series(x, dtype="Int64"),
        pd.Series([(each, "a") for each in x]),
        [(each, "a") for each in x],
        torch.from_numpy(x),
        x / 3,
        x[:, None],
        np.stack([x // 2, x % 2], axis=1),
        pd.DataFrame({"high": x // 2, "low": names[x % 2]}),
        torch.from_numpy(np.stack([x // 2, x % 2], axis=1)).requires_grad_(False),
    ]
    for kind in kinds:
        assert PlugIn().estimate(kind, y) == expected
        assert PlugIn().estimate_discrete(y, kind).value == pytest.approx(expected.value)


def test_codes_tell_rows_apart():
    rows = np.random.default_rng(0).integers(0, 3, (300, 12))
    expected = (rows[:, None] == rows[None]).all(axis=-1)
    codes = value_codes("x", rows)
    np.testing.assert_array_equal(codes[:, None] == codes[None], expected)


def test_rare_combinations_warn():
    names = np.arange(100).astype(str)
    with pytest.warns(UserWarning, match="100% of the samples have a combination"):
        PlugIn().estimate(names, np.arange(100) % 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PlugIn().estimate(*draw(DEPENDENT, 100))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        ([0, 1], r"`x` and `y` must have the same number of samples, got 2 and 3"),
        ([0, None, 1], "`x` must not be missing, got 1 rows"),
        ([[0, None], [1, 2], [1, 2]], "`x` must not be missing, got 1 rows"),
        (pd.Series(["a", pd.NA, pd.NA], dtype="string"), "got 2 rows"),
        (np.zeros((3, 1, 1)), r"`x` must be \(N,\) or \(N, d\)"),
        ([1], "`x` must hold at least 2 samples, got 1"),
    ],
)
def test_errors(x, match):
    with pytest.raises(ValueError, match=match):
        PlugIn().estimate(x, [0, 1, 1])


def test_errors_name_the_labels():
    with pytest.raises(ValueError, match="`labels` must not be missing"):
        PlugIn().estimate_discrete([0, 1], ["a", None])
