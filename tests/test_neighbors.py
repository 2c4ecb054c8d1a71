"""Distances to neighbors where rounding, scales and threads could spoil them."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from captum_mi.estimators import _neighbors
from captum_mi.estimators._neighbors import TREE_DIM, count_closer, nearest_distances

NORMS = {"euclidean": 2, "chebyshev": math.inf}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def by_differences(samples, k, metric="euclidean"):
    gaps = cdist(samples, samples, metric)
    np.fill_diagonal(gaps, math.inf)
    return np.sort(gaps, axis=1)[:, :k]


@pytest.mark.parametrize("gap", [1e6, 1e8, 1e12])
@pytest.mark.parametrize("width", [2**14, 70])
def test_distant_clusters(gap, width, rng, monkeypatch):
    monkeypatch.setattr(_neighbors, "WIDTH", width)
    samples = rng.standard_normal((300, 20))
    samples[rng.random(300) < 0.4] += gap
    found = nearest_distances(torch.from_numpy(samples), 4)
    np.testing.assert_allclose(found, by_differences(samples, 4), rtol=1e-12)


def test_pairs_closer_than_products_resolve(rng):
    """More than the spare candidates lie where products see no difference to the sample."""
    centers = rng.standard_normal((30, 20))
    samples = np.repeat(centers, 20, axis=0) + 1e-9 * rng.standard_normal((600, 20))
    found = nearest_distances(torch.from_numpy(samples), 3)
    np.testing.assert_allclose(found, by_differences(samples, 3), rtol=1e-6)


def test_products_are_not_doubted_without_need(rng):
    samples = torch.from_numpy(rng.standard_normal((2000, 20)))
    distances = samples.new_empty(2000, 5)
    assert not _neighbors._nearest_by_products(samples, distances).any()
    repeated = samples[:100].repeat(20, 1)
    assert not _neighbors._nearest_by_products(repeated, distances).any()
    assert (distances == 0).all()


@pytest.mark.parametrize("metric", NORMS)
@pytest.mark.parametrize("dim", [1, max(TREE_DIM.values()) + 1])
@pytest.mark.parametrize("unit", [1e-300, 1e-155, 1e155, 1e300])
def test_any_scale(metric, dim, unit, rng):
    samples = rng.standard_normal((50, dim))
    found = nearest_distances(torch.from_numpy(samples * unit), 3, NORMS[metric])
    np.testing.assert_allclose(found / unit, by_differences(samples, 3, metric), rtol=1e-12)
    counts = count_closer(torch.from_numpy(samples * unit), found[:, 2])
    if metric == "chebyshev":
        assert (counts == 2).all()


@pytest.mark.parametrize("n_jobs", [None, 1, 2, -1])
def test_threads_change_nothing(n_jobs, rng):
    samples = torch.from_numpy(rng.standard_normal((200, 3)))
    assert torch.equal(nearest_distances(samples, 4, n_jobs=n_jobs), nearest_distances(samples, 4))


@pytest.mark.parametrize("n_jobs", [None, 3, -1])
def test_threads_are_those_asked_for(n_jobs, rng, monkeypatch):
    asked = []

    class Tree(_neighbors.cKDTree):
        def query(self, *args, workers, **options):
            asked.append(workers)
            return super().query(*args, workers=workers, **options)

    monkeypatch.setattr(_neighbors, "cKDTree", Tree)
    nearest_distances(torch.from_numpy(rng.standard_normal((50, 3))), 2, n_jobs=n_jobs)
    assert asked == [n_jobs or 1]


def test_two_hundred_thousand_rows(rng):
    samples = torch.from_numpy(rng.random((200_000, 1)))
    distances = nearest_distances(samples, 1, math.inf, n_jobs=-1)[:, 0]
    order = samples[:, 0].argsort()
    gaps = samples[order, 0].diff()
    ends = torch.tensor([math.inf], dtype=torch.float64)
    expected = torch.minimum(torch.cat([ends, gaps]), torch.cat([gaps, ends]))
    torch.testing.assert_close(distances[order], expected, rtol=1e-9, atol=0)
