"""The default: which estimator it chooses, why, and how near it comes to the truth."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from captum_mi.datasets import CorrelatedNormals
from captum_mi.estimators import (
    KSG,
    PCA,
    CopulaNeighbors,
    KozachenkoLeonenko,
    MixedKSG,
    MutualInformation,
    PlugIn,
    dithered,
)
from captum_mi.estimators._dimension import fills, intrinsic_dimension


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def poisson_information(rate, more):
    """Of X ~ Poisson(rate) and X + Poisson(more), by the sum over their values."""
    n = np.arange(200)
    log_factorial = np.cumsum(np.log(np.maximum(n, 1)))
    entropy = []
    for each in (rate + more, more):
        log_p = n * math.log(each) - each - log_factorial
        entropy.append(-(np.exp(log_p) * log_p).sum())
    return entropy[0] - entropy[1]


def test_ordered_columns(rng):
    x, y = CorrelatedNormals(1.0, 3, 2).sample(800)
    found = MutualInformation().estimate(pd.DataFrame(x), torch.from_numpy(y).float())
    single = y.astype(np.float32).astype(float)
    assert found.value == pytest.approx(CopulaNeighbors().estimate(x, single).value, abs=1e-9)
    assert found.estimator == repr(CopulaNeighbors())
    assert found.notes == ("CopulaNeighbors was chosen: the columns have values in an order.",)


def test_many_columns():
    x, y = CorrelatedNormals(1.0, 12, 12, mix=True).sample(800)
    found = MutualInformation().estimate(x, y)
    assert found.value == KSG(control_variate=True).estimate(x, y).value
    assert found.value == pytest.approx(1, abs=0.15)
    assert found.notes == ("KSG was chosen: x and y have more than 16 columns together.",)
    assert MutualInformation().estimate(x[:, :8], y[:, :8]).estimator == repr(CopulaNeighbors())


def test_labels(rng):
    x = rng.integers(0, 3, 1000)
    y = np.where(rng.random(1000) < 0.7, x, rng.integers(0, 3, 1000))
    words = np.array(["red", "green", "blue"])[x]
    found = MutualInformation().estimate(words, y)
    assert found.value == PlugIn().estimate(x, y).value
    assert found.estimator == repr(PlugIn())
    assert MutualInformation().estimate(x, words).value == pytest.approx(math.log(3), abs=0.02)


def test_counts(rng):
    few = rng.poisson(3, 5000)
    found = MutualInformation().estimate(few, few + rng.poisson(3, 5000))
    assert found.value == pytest.approx(poisson_information(3, 3), abs=0.02)
    many = rng.poisson(60, 5000)
    found = MutualInformation().estimate(many, many + rng.poisson(3, 5000))
    assert found.estimator == repr(CopulaNeighbors())
    assert found.value == pytest.approx(poisson_information(60, 3), abs=0.05)


@pytest.mark.parametrize("swap", [False, True])
def test_a_label_and_numbers(swap, rng):
    labels = rng.integers(0, 4, 1500)
    x = np.exp(labels[:, None] * 10 + rng.standard_normal((1500, 2)))
    words = np.array(list("abcd"))[labels]
    pair = (words, x) if swap else (x, words)
    found = MutualInformation().estimate(*pair)
    assert found.value == pytest.approx(math.log(4), abs=0.01)
    assert found.estimator == repr(KSG())
    if not swap:
        assert MutualInformation().estimate_discrete(x, words) == found


def test_frequent_values_among_others(rng):
    rain = rng.exponential(size=2000) * (rng.random(2000) < 0.6)
    y = (rain > 0) + 0.3 * rng.standard_normal(2000)
    found = MutualInformation().estimate(rain, y)
    assert found.estimator == repr(MixedKSG())
    assert found.value == MixedKSG().estimate(rain, y).value
    wet = rain > 0
    found = MutualInformation().estimate(rain, wet)
    assert found.estimator == repr(MixedKSG())
    shares = np.array([wet.mean(), 1 - wet.mean()])
    assert found.value == pytest.approx(-(shares * np.log(shares)).sum(), abs=0.02)


def test_labels_beside_numbers_by_the_chain_rule(rng):
    labels, u = rng.integers(0, 2, 3000), rng.standard_normal(3000)
    # I(L; Y) is that of the label, I(U; Y | L) is log(2) / 2 for one label and 0 for the other.
    y = 100 * labels + np.where(labels, u, 0) + rng.standard_normal(3000)
    table = pd.DataFrame({"label": np.where(labels, "yes", "no"), "u": u})
    found = MutualInformation().estimate(table, y)
    share = labels.mean()
    of_label = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found.value == pytest.approx(of_label + share * math.log(2) / 2, abs=0.05)
    assert found.notes[0].startswith("The chain rule was used")
    given = [MutualInformation().estimate(u[labels == i], y[labels == i]) for i in (0, 1)]
    parts = [(1 - share) * given[0].std_error, share * given[1].std_error]
    of_labels = MutualInformation().estimate(y, labels).std_error
    assert found.std_error == pytest.approx(math.hypot(of_labels, *parts))
    assert MutualInformation().estimate(y, table).value == found.value
    with pytest.raises(ValueError, match=r"combination of labels .* at least 50 rows, got 20"):
        MutualInformation().estimate(
            table.iloc[:100].assign(label=["a"] * 20 + ["b"] * 80), y[:100]
        )


def test_a_surface_has_no_density(rng):
    turn, noise = rng.uniform(0, 9, 2000), rng.standard_normal(2000)
    curve = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1)
    for x, y, name in ((curve, turn + noise, "x"), (turn + noise, curve, "y")):
        found = MutualInformation().estimate(x, y)
        assert found.estimator == repr(KSG())
        assert f"{name} lies on fewer dimensions than its 2 columns" in found.notes[0]
    assert found.value == KSG().estimate(turn + noise, curve).value


@pytest.mark.parametrize(("dim", "columns"), [(1, 2), (2, 3), (3, 4), (3, 8)])
def test_intrinsic_dimension(dim, columns, rng):
    samples = torch.from_numpy(rng.standard_normal((1500, dim)))
    assert intrinsic_dimension(samples) == pytest.approx(dim, rel=0.2)
    assert fills(samples)
    angles = [torch.sin(samples + shift) for shift in range(columns // dim + 1)]
    bent = torch.cat([samples, *angles], dim=1)[:, :columns]
    assert intrinsic_dimension(bent) == pytest.approx(dim, rel=0.25)
    assert not fills(bent)


@pytest.mark.parametrize("dim", [8, 25, 50])
def test_many_columns_have_a_density(dim, rng):
    assert fills(torch.from_numpy(rng.standard_normal((2000, dim))))


def test_wide_variables_are_compressed_and_the_result_says_so(rng):
    x = rng.standard_normal((1000, 8, 8)) * np.linspace(1, 10, 8)
    y = x[:, 0, -1] + rng.standard_normal(1000)
    found = MutualInformation().estimate(x, y)
    flat = torch.from_numpy(x.reshape(1000, 64))
    pca = PCA(10).fit(flat)
    assert found.value == CopulaNeighbors().estimate(pca.transform(flat), y).value
    kept = float(pca.variances[:10].sum() / pca.variances.sum())
    assert f"PCA(n=10) of x keeps {100 * kept:.1f} % of the variance" in found.notes[1]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], "number of samples"),
        (3.0, [1.0], r"`x` must be \(N,\), \(N, d\) or \(N, ...\), got 3.0"),
        (["a", None, "b"] * 5, [1.0] * 15, "must not be missing"),
    ],
)
def test_bad_input(x, y, words):
    with pytest.raises(ValueError, match=words):
        MutualInformation().estimate(x, y)


def test_columns_that_differ_by_little(rng):
    shared, rest, noise = rng.standard_normal((3, 2000))
    x = np.stack([shared, shared + 1e-3 * rest], axis=1)
    found = MutualInformation().estimate(x, rest + noise)
    assert found.estimator == repr(KSG(whiten=True))
    assert found.value == pytest.approx(math.log(2) / 2, abs=0.06)
    assert "columns of x differ by too little for ranks to show" in found.notes[0]


def test_a_label_that_occurs_once(rng):
    few = np.r_[rng.poisson(8, 2000).clip(max=17), 19]
    found = MutualInformation().estimate(few, few + rng.poisson(80, 2001))
    assert found.estimator == repr(MixedKSG())
    assert "a label, of which some occur but once" in found.notes[0]
    assert found.value == pytest.approx(0.05, abs=0.05)


def test_a_warning_where_a_code_keeps_little(rng):
    x = rng.standard_normal((1500, 100))
    with pytest.warns(UserWarning, match="100 columns of `x` are compressed to 10, .* but 1[0-9]%"):
        MutualInformation().estimate(x, x[:, 0] + rng.standard_normal(1500))


def test_units_do_not_matter_where_few_samples_of_a_table_are_compressed(rng):
    x = rng.standard_normal((150, 12))
    y = x[:, 0] + 0.1 * rng.standard_normal(150)
    found = MutualInformation().estimate(x, y)
    assert found.value > 0.3
    assert found.notes[1].startswith("PCA(n=10) of x keeps")
    units = np.array([1e-6, *[1000.0] * 11])
    assert MutualInformation().estimate(x * units, y).value == found.value


def test_what_errors_on_counts_advise(rng):
    x = rng.poisson(3, 5000)
    y = x + rng.poisson(3, 5000)
    truth = poisson_information(3, 3)
    with pytest.raises(ValueError, match=r"take `MutualInformation\(\)`.* dithered\(x, y\)"):
        KozachenkoLeonenko().estimate(x, y)
    assert MutualInformation().estimate(x, y).value == pytest.approx(truth, abs=0.018)
    assert KSG().estimate(*dithered(x, y)).value == pytest.approx(truth, abs=0.03)
