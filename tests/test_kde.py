"""Kernel densities against closed forms, quadrature, dense grids and slow rewritings."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.stats import norm
from sklearn.neighbors import KernelDensity as Reference

from captum_mi.estimators import KernelDensity, kde
from captum_mi.estimators.kde import leave_one_out_log_densities


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def densities(samples, bandwidth):
    """Leave-one-out densities by the definition."""
    n, dim = samples.shape
    gaps = np.linalg.norm(samples[:, None] - samples[None], axis=-1)
    kernel = np.exp(-((gaps / bandwidth) ** 2) / 2) / (bandwidth * math.sqrt(2 * math.pi)) ** dim
    np.fill_diagonal(kernel, 0)
    return kernel.sum(axis=1) / (n - 1)


def least_squares(samples, bandwidth):
    """The least-squares criterion by the definition."""
    n, dim = samples.shape
    squares = ((samples[:, None] - samples[None]) ** 2).sum(axis=-1)
    overlap = np.exp(-squares / (4 * bandwidth**2)) / (2 * bandwidth * math.sqrt(math.pi)) ** dim
    return overlap.sum() / n**2 - 2 * densities(samples, bandwidth).mean()


def likelihood(samples, bandwidth):
    with np.errstate(divide="ignore"):
        return -np.log(densities(samples, bandwidth)).mean()


CRITERIA = {"ml": likelihood, "lse": least_squares}


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_densities(dim, rng):
    samples = rng.standard_normal((40, dim)) + 100
    found = leave_one_out_log_densities(torch.from_numpy(samples), 0.3).numpy()
    np.testing.assert_allclose(found, np.log(densities(samples, 0.3)), rtol=1e-9)
    for i in (0, 17, 39):
        others = Reference(bandwidth=0.3, rtol=1e-12).fit(np.delete(samples, i, axis=0))
        assert found[i] == pytest.approx(others.score_samples(samples[[i]])[0], abs=1e-8)


def test_a_far_sample_keeps_its_density(rng):
    samples = np.vstack([rng.standard_normal((50, 1)), [[1e4]]])
    far = leave_one_out_log_densities(torch.from_numpy(samples), 0.1)[-1]
    nearest = 1e4 - samples[:-1].max()
    expected = norm.logpdf(nearest, scale=0.1) - math.log(50)
    assert float(far) == pytest.approx(expected, rel=1e-6)


def test_blocks_change_nothing(monkeypatch, rng):
    x, y = rng.standard_normal((2, 90, 2))
    for bandwidth in ("ml", "lse"):
        whole = KernelDensity(bandwidth).estimate(x, y)
        monkeypatch.setattr(kde, "CHUNK", 1000)
        assert KernelDensity(bandwidth).estimate(x, y).value == pytest.approx(whole.value)
        monkeypatch.undo()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("shape", ["normal", "uniform", "exponential", "clusters", "lines"])
@pytest.mark.parametrize("dim", [1, 2, 4])
def test_bandwidth_is_that_of_a_dense_grid(criterion, shape, dim, rng):
    n = 100
    samples = {
        "normal": lambda: rng.standard_normal((n, dim)) * np.logspace(0, 1, dim),
        "uniform": lambda: rng.random((n, dim)) * 1e-3,
        "exponential": lambda: rng.standard_exponential((n, dim)),
        "clusters": lambda: rng.integers(0, 3, (n, 1)) * 8 + rng.standard_normal((n, dim)),
        "lines": lambda: rng.standard_normal((n, 1)) + 1e-2 * rng.standard_normal((n, dim)),
    }[shape]()
    found = KernelDensity(criterion, whiten=False).select_bandwidth(samples)
    grid = samples.std() * np.logspace(-3, 0.3, 300)
    losses = [CRITERIA[criterion](samples, bandwidth) for bandwidth in grid]
    best = int(np.nanargmin(losses))
    assert 0 < best < len(grid) - 1
    assert found == pytest.approx(grid[best], rel=0.02)
    loss = CRITERIA[criterion](samples, found)
    assert loss <= losses[best] + 1e-5 * abs(losses[best])


def test_least_squares_is_an_integral(rng):
    samples = rng.standard_normal((60, 1))
    line = np.linspace(-8, 8, 4001)
    for bandwidth in (0.2, 0.6):
        density = norm.pdf(line[:, None], samples.T, bandwidth).mean(axis=1)
        expected = trapezoid(density**2, line) - 2 * densities(samples, bandwidth).mean()
        assert least_squares(samples, bandwidth) == pytest.approx(expected, abs=1e-9)


def test_a_scan_of_some_samples_finds_the_valley_of_all(rng):
    samples = rng.standard_normal((3000, 1))
    found = KernelDensity("ml").select_bandwidth(samples)
    near = [found * factor for factor in (0.9, 0.95, 1, 1.05, 1.1)]
    white = (samples - samples.mean()) / samples.std(ddof=1)
    losses = [
        -float(leave_one_out_log_densities(torch.from_numpy(white), bandwidth).mean())
        for bandwidth in near
    ]
    assert min(losses) == losses[2]


@pytest.mark.parametrize("bandwidth", ["ml", "lse"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_entropy_of_normals(bandwidth, dim, rng):
    samples = 3 * rng.standard_normal((2000, dim))
    truth = dim / 2 * math.log(2 * math.pi * math.e * 9)
    sampled = -norm.logpdf(samples, scale=3).sum(axis=1).mean()  # the estimate can know no better
    estimate = KernelDensity(bandwidth).entropy(samples)
    assert estimate.value == pytest.approx(sampled, abs=0.05)
    assert estimate.value == pytest.approx(truth, abs=4 * estimate.std_error + 0.05)


@pytest.mark.parametrize("bandwidth", ["ml", "lse"])
@pytest.mark.parametrize("nats", [0, 2, 5, 8])
def test_normals(bandwidth, nats, rng):
    rho = math.sqrt(1 - math.exp(-nats))
    x, noise = rng.standard_normal((2, 1500, 2))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    assert KernelDensity(bandwidth).estimate(x, y).value == pytest.approx(nats, abs=0.15)


def test_bandwidth_of_the_pair_serves_all(rng):
    x, noise = rng.standard_normal((2, 100, 2))
    y = x + noise
    joint = np.hstack([x, y])
    for criterion in CRITERIA:
        shared = KernelDensity(criterion).select_bandwidth(joint)
        given = KernelDensity(shared)
        parts = [given.entropy(part).value for part in (x, y, joint)]
        expected = parts[0] + parts[1] - parts[2]
        assert KernelDensity(criterion).estimate(x, y).value == pytest.approx(expected, abs=1e-9)


def test_sharing_lowers_the_bias_at_independence(rng):
    x, y = rng.random((2, 1000, 2))
    estimator = KernelDensity("ml")
    apart = [estimator.entropy(part).value for part in (x, y, np.hstack([x, y]))]
    assert abs(estimator.estimate(x, y).value) < 0.6 * abs(apart[0] + apart[1] - apart[2])


@pytest.mark.parametrize("n_labels", [2, 4, 16])
def test_labels_say_their_entropy(n_labels, rng):
    x = rng.random(1500)
    labels = (x * n_labels).astype(int)
    estimate = KernelDensity().estimate_discrete(x, labels)
    assert estimate.value == pytest.approx(math.log(n_labels), abs=0.1)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_repeated_samples_have_no_best_bandwidth(criterion, rng):
    samples = rng.standard_normal((50, 2))
    with pytest.raises(ValueError, match=r"`x` has no best bandwidth: .*shrinks; drop repeated"):
        KernelDensity(criterion).entropy(np.vstack([samples, samples]))
    estimate = KernelDensity(0.5).entropy(np.vstack([samples, samples]))
    assert math.isfinite(estimate.value)


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.inf, math.nan])
def test_bad_bandwidth(bandwidth):
    with pytest.raises(ValueError, match=f"`bandwidth` must be positive, got {bandwidth}"):
        KernelDensity(bandwidth)


def test_a_bandwidth_whose_squares_overflow_is_refused(rng):
    x, y = rng.standard_normal((2, 30))
    with pytest.raises(ValueError, match="`bandwidth` 1e-200 is too small: squared distances"):
        KernelDensity(1e-200).entropy(x)
    with pytest.raises(ValueError, match="`bandwidth` 1e-200 is too small"):
        KernelDensity(1e-200).estimate(x, y)
    assert math.isfinite(KernelDensity(1e-150).estimate(x, y).value)


def test_unknown_bandwidth():
    with pytest.raises(ValueError, match="`bandwidth` must be one of 'ml', 'lse', got 'best'"):
        KernelDensity("best")


@pytest.mark.parametrize("chunk", [2**19, 100])
def test_chosen_rows_are_those_of_all(chunk, monkeypatch, rng):
    monkeypatch.setattr(kde, "CHUNK", chunk)
    samples = rng.standard_normal((40, 2))
    rows = torch.tensor([33, 2, 17, 39, 5])
    found = leave_one_out_log_densities(torch.from_numpy(samples), 0.4, rows)
    np.testing.assert_allclose(found, np.log(densities(samples, 0.4))[rows], rtol=1e-9)


@pytest.mark.parametrize("bandwidth", [0.3, 1.2])
def test_least_squares_of_few_samples(bandwidth, rng):
    samples = rng.standard_normal((7, 2))
    found = kde._least_squares_loss(torch.from_numpy(samples), bandwidth, None)
    # In units of a standard normal density at its center, 1 / 2 pi.
    assert found / (2 * math.pi) == pytest.approx(least_squares(samples, bandwidth), rel=1e-9)
    parts = [
        kde._least_squares_loss(torch.from_numpy(samples), bandwidth, torch.tensor(rows))
        for rows in ([6, 1, 3], [0, 2, 4, 5])
    ]
    assert (3 * parts[0] + 4 * parts[1]) / 7 == pytest.approx(found, rel=1e-9)
