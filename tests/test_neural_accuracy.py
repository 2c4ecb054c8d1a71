"""Neural estimators against truths: closed forms, quadrature, and more samples or wider critics."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from captum_mi.datasets import CorrelatedNormals
from captum_mi.estimators import MINE, NWJ, SMILE, InfoNCE, Training

NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)
MAPS = {"identity": lambda x: x, "cube": lambda x: x**3, "sine": np.sin}
SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
TABLE = {
    "identity": (1.6671, 0.7491, 0.4187, 0.2585, 0.1721),
    "cube": (1.2495, 0.4695, 0.2256, 0.1279, 0.0812),
    "sine": (1.5355, 0.6704, 0.3646, 0.2205, 0.1449),
}
"""Information of X, uniform on (-1, 1), and f(X) + sigma e, in nats: it is not that of X + e."""

QUICK = Training(batch_size=256, steps=1200)


def information(name, sigma):
    """h(Y) - h(Y | X) by quadrature."""

    def integrand(y):
        density = WEIGHTS / 2 @ norm.pdf(y, MAPS[name](NODES), sigma)
        return -density * math.log(density) if density > 0 else 0.0

    entropy, _ = quad(integrand, -1 - 8 * sigma, 1 + 8 * sigma, limit=400)
    return entropy - math.log(2 * math.pi * math.e * sigma**2) / 2


def noisy(name, sigma, n_samples=5000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n_samples)
    return x, MAPS[name](x) + sigma * rng.standard_normal(n_samples)


@pytest.mark.parametrize("name", MAPS)
def test_the_table_is_that_of_quadrature(name):
    found = [information(name, sigma) for sigma in SIGMAS]
    assert found == pytest.approx(TABLE[name], abs=5e-5)


def test_one_cell_of_the_table():
    options = Training(batch_size=128, steps=200, learning_rate=4e-3)
    found = MINE(hidden=(32,), training=options).estimate(*noisy("sine", 0.3, 3000))
    assert found.value == pytest.approx(0.6704, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("column", range(5))
def test_every_cell_of_the_table(name, column):
    found = MINE(training=QUICK).estimate(*noisy(name, SIGMAS[column]))
    assert found.value == pytest.approx(TABLE[name][column], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MINE, NWJ, InfoNCE, SMILE])
@pytest.mark.parametrize("nats", [0, 0.5, 1, 2])
def test_two_dimensions(kind, nats):
    found = kind().estimate(*CorrelatedNormals(nats).sample(10_000, seed=1))
    assert found.value == pytest.approx(nats, abs=0.1)
    assert found.std_error < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MINE, InfoNCE, SMILE])
def test_twenty_dimensions(kind):
    found = kind().estimate(*CorrelatedNormals(5.0, 20, 20).sample(10_000, seed=0))
    assert found.value == pytest.approx(5.0, rel=0.15)


@pytest.mark.slow
def test_the_error_falls_with_samples():
    errors = [error(Training(batch_size=100, steps=1500), n_samples) for n_samples in FEW_TO_MANY]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[-1]


@pytest.mark.slow
def test_the_error_falls_with_width():
    options = Training(batch_size=256, steps=600)
    errors = [error(options, 5000, (width,)) for width in (1, 4, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[-1]


FEW_TO_MANY = (300, 1200, 5000)


def error(options, n_samples, hidden=(256,)):
    """Mean lack of information over three samples of ten dimensions."""
    sampler = CorrelatedNormals(2.0, 10, 10)
    estimator = InfoNCE(hidden=hidden, training=options)
    found = [estimator.estimate(*sampler.sample(n_samples, seed)).value for seed in range(3)]
    return 2.0 - np.mean(found)
