"""Images with known mutual information: drawn right, one-to-one, within their ranges, fast."""

import time

import numpy as np
import pytest
from scipy import stats

from captum_mi.datasets import (
    AntiPCA,
    CorrelatedBumps,
    CorrelatedNormals,
    GaussianBumps,
    Rectangles,
)

IMAGES = [GaussianBumps, CorrelatedBumps, Rectangles]


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_drawn_from_the_parameters(kind, size):
    sampler = kind(2.0, size=size, mix=True)
    assert sampler.mutual_information == sampler.parameters.mutual_information == 2.0
    x, y = sampler.sample(200, seed=4)
    for images, parameters in zip((x, y), sampler.parameters.sample(200, seed=4), strict=True):
        assert images.shape == (200, size, size)
        assert images.dtype == np.float64
        assert images.min() >= 0
        assert images.max() <= 1
        assert parameters.shape == (200, kind.dim)
        assert parameters.min() > 0
        assert parameters.max() < 1
        assert np.array_equal(images, sampler.draw(parameters))
        assert len(np.unique(images.reshape(200, -1), axis=0)) == 200
    assert np.array_equal(x, kind(2.0, size=size, mix=True).sample(200, seed=4)[0])


def test_bumps_pixel_by_pixel():
    p = np.array([[0.2, 0.7], [0.9, 0.1]])
    images = GaussianBumps(1.0, size=5).draw(p)
    grid = np.linspace(0, 1, 5)
    for image, (px, py) in zip(images, p, strict=True):
        for row, y in enumerate(grid):
            for column, x in enumerate(grid):
                expected = np.exp(-10 * ((x - px) ** 2 + (y - py) ** 2))
                assert image[row, column] == pytest.approx(expected)


def test_correlated_bumps_pixel_by_pixel():
    p = np.array([[0.2, 0.7, 0.3, 0.9, 0.1]])
    (image,) = CorrelatedBumps(1.0, size=5).draw(p)
    grid = np.linspace(0, 1, 5)
    dx, dy = grid[None, :] - 0.2, grid[:, None] - 0.7
    exponent = 1.3**2 * dx**2 + 1.9**2 * dy**2 + (2 * 0.1 - 1) * 1.3 * 1.9 * dx * dy
    assert np.allclose(image, np.exp(-10 * exponent))
    round_ones = np.array([[0.2, 0.7, 0.0, 0.0, 0.5]])
    plain = GaussianBumps(1.0, size=5).draw(round_ones[:, :2])
    assert np.allclose(CorrelatedBumps(1.0, size=5).draw(round_ones), plain)


@pytest.mark.parametrize("size", [16, 33])
def test_a_rectangle_covers_its_area(size):
    rectangles = Rectangles(3.0, size=size)
    images, edges = rectangles.sample(500)[0], rectangles.parameters.sample(500)[0]
    left, right, top, bottom = edges.T
    area = (right - left) * (bottom - top)
    assert np.allclose(images.mean(axis=(1, 2)), area)
    assert ((right - left).min(), (bottom - top).min()) >= (2 / size, 2 / size)
    # The center of mass is the center.
    middles = (np.arange(size) + 0.5) / size
    across = images.sum(axis=1) @ middles / images.sum(axis=(1, 2))
    assert abs(across - (left + right) / 2).max() < 0.5 / size


def test_a_rectangle_pixel_by_pixel():
    image = Rectangles(1.0, size=4).draw(np.array([[0.125, 0.75, 0.25, 0.9375]]))[0]
    across, down = np.array([0.5, 1, 1, 0]), np.array([0, 1, 1, 0.75])
    assert np.allclose(image, down[:, None] * across)


def test_rectangle_edges_are_one_to_one_and_all_equally_likely():
    rectangles = Rectangles(0.0, size=16)
    uniforms = np.random.default_rng(0).random((5000, 4))
    left, right = rectangles.edges(uniforms)[:, :2].T
    least = 2 / 16
    assert np.allclose(1 - (1 - left / (1 - least)) ** 2, uniforms[:, 0])
    assert np.allclose((right - left - least) / (1 - left - least), uniforms[:, 1])
    # Uniform on a triangle: its two legs are exchangeable.
    assert stats.ks_2samp(left, 1 - right).pvalue > 0.001
    assert rectangles.edges(np.array([[0.0, 0.0, 0.0, 1.0]])).tolist() == [[0, least, 0, 1]]


def test_anti_pca_by_its_formula():
    sampler = AntiPCA(1.5)
    x, y = sampler.sample(300, seed=2)
    signal, nuisance = sampler.parameters.sample(300, seed=2)[0].T
    assert sampler.mutual_information == sampler.parameters.mutual_information == 1.5
    assert x.shape == y.shape == (300, 32)
    assert np.array_equal(x[:, :2], np.stack([signal, nuisance], axis=1))
    for j in range(2, 32):
        total = signal + j * nuisance
        assert np.allclose(x[:, j], np.maximum(total, 0.1 * j * total))
    normals = CorrelatedNormals(1.5, 1, 1).sample(300, seed=2)[0]
    assert np.allclose(stats.norm.ppf((signal + 1) / 2), normals[:, 0])
    other = sampler.parameters.sample(5000, seed=2)
    assert abs(np.corrcoef(other[0][:, 1], other[1][:, 1])[0, 1]) < 0.06
    assert np.ptp(other[0][:, 1]) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("kind", IMAGES)
def test_five_thousand_images_in_a_second(kind):
    parameters = kind(1.0, size=32).parameters.sample(5000)[0]
    begin = time.process_time()
    images = kind(1.0, size=32).draw(parameters)
    assert images.shape == (5000, 32, 32)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("kind", [*IMAGES, AntiPCA])
def test_repr_rebuilds(kind):
    assert eval(repr(kind(2.0))) == kind(2.0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`mutual_information` must lie between 0 and 100"):
        AntiPCA(-0.5)
    with pytest.raises(ValueError, match="`mutual_information` must lie between 0 and 100"):
        Rectangles(101.0)
    with pytest.raises(ValueError, match="`size` must be at least 3 pixels, got 2"):
        GaussianBumps(1.0, size=2)
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        GaussianBumps(1.0).sample(0)
