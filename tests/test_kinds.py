"""What kind of values a column holds, and the noise that makes steps continuous."""

import numpy as np
import pandas as pd
import pytest
import torch

from captum_mi.estimators import KSG, dithered, kind_of
from captum_mi.estimators.kinds import grid_step, numbers_of

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(1000)
FLAGS = [True, False, None] * 20

KINDS = {
    "texts": (["a", "b", "a"], "label"),
    "pandas texts": (pd.Series(["a", None], dtype="string"), "label"),
    "booleans": (NORMAL > 0, "label"),
    "nullable booleans": (pd.Series(FLAGS, dtype="boolean"), "label"),
    "booleans among objects": (pd.Series(FLAGS, dtype=object), "label"),
    "categories of numbers": (pd.Series(pd.Categorical(np.arange(100))), "label"),
    "objects": (pd.Series([("a", 1), ("b", 2)]), "label"),
    "twenty integers": (np.arange(200) % 20, "label"),
    "twenty-one integers": (np.arange(210) % 21, "count"),
    "nine rows each": (np.arange(180) % 20, "count"),
    "few numbers": (np.array([0.1, 2.5, 7.0])[np.arange(60) % 3], "label"),
    "a tensor of classes": (torch.arange(300) % 10, "label"),
    "nullable integers": (pd.Series([1, 2, None] * 20, dtype="Int64"), "label"),
    "nullable counts": (pd.Series([*range(50), None] * 4, dtype="Int64"), "count"),
    "integers among objects": (pd.Series([*range(50), None] * 4, dtype=object), "count"),
    "a Poisson count": (RNG.poisson(20, 1000), "count"),
    "a count of large mean": (RNG.poisson(400, 1000), "count"),
    "a heavy tail": (RNG.zipf(2, 1000), "count"),
    "rounded": (NORMAL.round(2), "count"),
    "rounded float32": (NORMAL.astype(np.float32).round(2), "count"),
    "eighths of a byte": (RNG.integers(0, 256, 1000) / 255, "count"),
    "normals": (NORMAL, "continuous"),
    "one column": (NORMAL[:, None], "continuous"),
    "one column of lists": (NORMAL[:, None].tolist(), "continuous"),
    "a data frame": (pd.DataFrame({"a": NORMAL}), "continuous"),
    "nullable floats": (pd.Series(NORMAL, dtype="Float64"), "continuous"),
    "float32": (torch.randn(100_000, generator=torch.Generator().manual_seed(0)), "continuous"),
    "missing and infinite": (np.r_[NORMAL, [np.nan] * 90, [np.inf] * 90], "continuous"),
    "integers that never repeat": (RNG.permutation(1000), "continuous"),
    "identifiers": (RNG.integers(10**9, size=10**4), "continuous"),
    "dates": (pd.date_range("2020", periods=99), "continuous"),
    "durations": (pd.Series(pd.to_timedelta(np.arange(99) // 2, unit="h")), "count"),
    "zeros": (np.where(RNG.random(1000) < 0.04, 0, NORMAL), "mixed"),
    "a clipped scale": (NORMAL.clip(-1, 1), "mixed"),
    "large integers and zeros": (
        np.where(NORMAL > 0.5, RNG.integers(10**7, size=1000), 0),
        "mixed",
    ),
    "zeros below a tie of rounding": (np.where(RNG.random(1000) < 0.01, 0, NORMAL), "continuous"),
    "rows drawn twice": (RNG.choice(NORMAL, 1000), "mixed"),
    "logarithms of counts": (np.log1p(RNG.poisson(20, 1000)), "mixed"),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds(case):
    column, expected = KINDS[case]
    assert kind_of(column) == expected


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (np.zeros((4, 2)), r"must be \(N,\) or \(N, 1\), got shape \(4, 2\)"),
        ([np.nan, np.inf], "got none that is finite"),
        ([1j, 2j], "must be real"),
    ],
)
def test_no_column(column, match):
    with pytest.raises(ValueError, match=match):
        kind_of(column)


@pytest.mark.parametrize("step", [1.0, 5.0, 0.1, 1 / 255, 2.0**-20, 1e6])
def test_the_step_of_a_grid(step):
    places = 3 + 2 * RNG.poisson(20, 1000)  # all odd
    assert grid_step(step * places) == pytest.approx(2 * step, rel=1e-9)
    single = (step * places).astype(np.float32).astype(np.float64)
    assert grid_step(single) == pytest.approx(2 * step, rel=1e-6)


def test_the_step_need_not_be_among_the_gaps():
    assert grid_step(np.array([0.0, 6.0, 21.0, 31.0])) == 1.0
    assert grid_step(np.array([0.0, 0.6, 2.1, 3.6])) == pytest.approx(0.3)


def test_the_step_of_large_integers():
    assert grid_step(2.0**29 + 64.0 * np.array([0, 1, 5, 7])) == 64


def test_no_grid():
    assert grid_step(NORMAL) is None
    assert grid_step(np.array([2.0, 2.0])) is None
    assert grid_step(np.sqrt(np.arange(9.0))) is None


def test_dates_are_numbers():
    days = pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-03"]))
    first, missing, last = numbers_of(days)
    unit = (days[2] - days[0]) / (last - first)
    assert unit in {pd.Timedelta(1, "ns"), pd.Timedelta(1, "us")}
    assert np.isnan(missing)


def test_rounding_down_undoes_the_dither():
    table = np.stack([RNG.poisson(9, 500) * 3.0, NORMAL[:500], NORMAL[:500].round(1)], axis=1)
    (noisy,) = dithered(table)
    for column, step in ((0, 3.0), (2, 0.1)):
        noise = (noisy[:, column] - table[:, column]) / step
        assert 0 <= noise.min() < 0.01
        assert 0.99 < noise.max() < 1
        assert noise.mean() == pytest.approx(1 / 2, abs=0.04)  # three standard errors
        assert noise.var() == pytest.approx(1 / 12, abs=0.01)
    np.testing.assert_array_equal(noisy[:, 1], table[:, 1])
    assert abs(np.corrcoef(noisy[:, 0] - table[:, 0], noisy[:, 2] - table[:, 2])[0, 1]) < 0.13


def test_each_variable_has_noise_of_its_own():
    counts = RNG.poisson(9, 500)
    first, second = dithered(counts, torch.from_numpy(counts))
    assert isinstance(first, np.ndarray)
    assert isinstance(second, torch.Tensor)
    assert abs(np.corrcoef(first[:, 0] - counts, second.numpy()[:, 0] - counts)[0, 1]) < 0.13


def test_the_seed_decides():
    counts = RNG.poisson(9, 500)
    np.testing.assert_array_equal(dithered(counts)[0], dithered(counts)[0])
    assert (dithered(counts)[0] != dithered(counts, seed=1)[0]).all()


def test_a_dither_keeps_the_information():
    """A table of 4 x 4: the exact value is a finite sum, and no jitter comes near it."""
    joint = (np.eye(4) + 0.2) / (np.eye(4) + 0.2).sum()
    truth = (joint * np.log(joint * 16)).sum()
    x, y = np.divmod(RNG.choice(16, 4000, p=joint.ravel()), 4)
    found = KSG().estimate(*dithered(x, y))
    assert found.value == pytest.approx(truth, abs=3 * found.std_error)
    assert found.std_error < 0.03


def test_an_error_says_which_variable():
    with pytest.raises(ValueError, match=r"`variables\[1\]` must hold numbers"):
        dithered([1.0, 2.0], ["a", "b"])
