"""Samplers with known mutual information: the truth they state is the truth they draw from."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from captum_mi.datasets import (
    CorrelatedNormals,
    CorrelatedStudent,
    CorrelatedUniforms,
    DiscreteLabels,
    gaussian_information,
)
from captum_mi.datasets.known_mi import Transformed, rotation

N = 20_000


def correlated(sampler, n=N, seed=0):
    return np.cov(np.hstack(sampler.sample(n, seed)).T)


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (2, 2), (10, 4), (3, 5)])
@pytest.mark.parametrize("information", [0.0, 0.5, 8.0])
def test_normals_have_the_information_of_their_covariance(information, dim_x, dim_y, mix):
    normals = CorrelatedNormals(information, dim_x, dim_y, mix=mix, mix_seed=3)
    assert gaussian_information(normals.covariance, dim_x) == pytest.approx(information, abs=1e-8)
    drawn = correlated(normals)
    assert abs(drawn - normals.covariance).max() < 5 * math.sqrt(2 / N)
    # The plug-in information is biased by its chi-square's mean over 2 N.
    expected = information + dim_x * dim_y / (2 * N)
    assert gaussian_information(drawn, dim_x) == pytest.approx(expected, abs=0.06)


def test_one_pair_agrees_with_the_bivariate_formula():
    covariance = CorrelatedNormals(1.0, 1, 1).covariance
    assert -0.5 * math.log(1 - covariance[0, 1] ** 2) == pytest.approx(1.0)
    assert np.array_equal(np.diag(covariance), np.ones(2))


def test_mixing_turns_each_side_and_leaves_no_coordinate_out():
    plain, mixed = (CorrelatedNormals(4.0, 3, 3, mix=mix) for mix in (False, True))
    assert np.count_nonzero(plain.covariance) == 12
    assert abs(mixed.covariance[:3, 3:]).min() > 0.001
    other = CorrelatedNormals(4.0, 3, 3, mix=True, mix_seed=1)
    assert not np.allclose(mixed.covariance, other.covariance)
    sides = zip(plain.sample(50), mixed.sample(50), strict=True)
    assert all(
        np.allclose(np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1)) for one, two in sides
    )


def test_a_large_information_keeps_the_difference_of_the_sides():
    x, y = CorrelatedNormals(30.0, 1, 1).sample(N)
    assert np.std(x - y) == pytest.approx(math.exp(-30), rel=0.05)


def test_uniforms_are_uniform_with_the_copula_of_the_normals():
    uniforms = CorrelatedUniforms(1.5, 2, 3, mix=True)
    x, y = uniforms.sample(N)
    for column in np.hstack([x, y]).T:
        assert stats.kstest(column, "uniform").pvalue > 0.001
    normals = CorrelatedNormals(1.5, 2, 3, mix=True)
    assert np.allclose(stats.norm.ppf(x), normals.sample(N)[0])
    assert abs(correlated(uniforms) - uniforms.covariance).max() < 0.003


def log_ratio(student, x, y):
    """log p(x, y) / (p(x) p(y)) by SciPy's densities."""
    information = student.mutual_information - student.scale_information
    shape = CorrelatedNormals(information, student.dim_x, student.dim_y).covariance
    k, nu = student.dim_x, student.degrees
    joint = stats.multivariate_t(shape=shape, df=nu).logpdf(np.hstack([x, y]))
    first = stats.multivariate_t(shape=shape[:k, :k], df=nu).logpdf(x)
    return joint - first - stats.multivariate_t(shape=shape[k:, k:], df=nu).logpdf(y)


@pytest.mark.parametrize("degrees", [1, 2.5, 10])
@pytest.mark.parametrize(("dim_x", "dim_y"), [(1, 1), (2, 3)])
def test_student_information_is_the_mean_log_ratio(degrees, dim_x, dim_y):
    student = CorrelatedStudent(1.4, dim_x, dim_y, degrees)
    ratio = log_ratio(student, *student.sample(N, seed=1))
    assert ratio.mean() == pytest.approx(1.4, abs=4 * ratio.std() / math.sqrt(N))


def test_student_scale_information():
    assert CorrelatedStudent(1.0, 1, 1, 1).scale_information == pytest.approx(
        math.log(8 * math.pi) - 3  # two coordinates of a Cauchy vector
    )
    assert CorrelatedStudent(1.0, 2, 2, 1e6).scale_information == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match=r"at least 0\.2242 for 1 \+ 1 dimensions with 1 degrees"):
        CorrelatedStudent(0.1, 1, 1, 1)
    x, y = CorrelatedStudent(0.5, 1, 2, 4).sample(N)
    assert stats.kstest(x[:, 0], stats.t(4).cdf).pvalue > 0.001
    assert stats.kstest(y[:, 1], stats.t(4).cdf).pvalue > 0.001


def test_a_bijection_keeps_the_information_and_the_pairs():
    normals = CorrelatedNormals(2.0)
    cubes = normals.transformed(x=lambda x: x**3).transformed(y=np.exp)
    assert cubes.mutual_information == 2.0
    x, y = cubes.sample(100, seed=5)
    u, v = normals.sample(100, seed=5)
    assert np.array_equal(x, u**3)
    assert np.array_equal(y, np.exp(v))
    assert isinstance(cubes, Transformed)


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_labels_are_equal_shares_and_a_function_of_x(classes):
    sampler = DiscreteLabels(classes, dim_x=1)
    assert sampler.mutual_information == pytest.approx(math.log(classes))
    x, labels = sampler.sample(N)
    assert labels.dtype == np.int64
    shares = np.bincount(labels, minlength=classes) / N
    assert np.allclose(shares, 1 / classes, atol=4 * math.sqrt(0.25 / N))
    neighbor = KNeighborsClassifier(1).fit(x[::2], labels[::2])
    assert neighbor.score(x[1::2], labels[1::2]) > 0.998


@pytest.mark.parametrize(
    "sampler",
    [
        CorrelatedNormals(1.0, 2, 3, mix=True),
        CorrelatedUniforms(1.0),
        CorrelatedStudent(1.0),
        DiscreteLabels(3),
    ],
)
def test_samples_are_seeded_and_leave_the_global_state(sampler):
    state = np.random.get_state()[1].copy()  # noqa: NPY002, the global state is the subject
    x, y = sampler.sample(30, seed=2)
    again = sampler.sample(30, seed=2)
    other = sampler.sample(30, seed=3)
    assert np.array_equal(x, again[0])
    assert np.array_equal(y, again[1])
    assert not np.array_equal(x, other[0])
    assert x.dtype == np.float64
    assert eval(repr(sampler)) == sampler
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CorrelatedNormals(-1.0), "`mutual_information` must lie between 0 and 100 nats"),
        (lambda: CorrelatedNormals(math.nan), "`mutual_information` must lie between"),
        (lambda: CorrelatedNormals(1.0, 0), "`dim_x` must be at least 1, got 0"),
        (lambda: CorrelatedNormals(1.0).sample(0), "`n` must be at least 1, got 0"),
        (lambda: CorrelatedStudent(1.0, degrees=0), "`degrees` must be positive, got 0"),
        (lambda: DiscreteLabels(0), "`classes` must be at least 1, got 0"),
        (lambda: gaussian_information(np.eye(2), 2), "`dim_x` must lie between 1 and 1, got 2"),
        (lambda: gaussian_information(np.ones((2, 2)), 1), "least eigenvalue is"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_common_scale_of_student_samples_is_drawn_anew_for_every_seed():
    # A scale with half a degree of freedom decides the length of x; two seeds share none.
    student = CorrelatedStudent(3.0, degrees=0.5)
    one, two = (np.linalg.norm(student.sample(4000, seed)[0], axis=1) for seed in (0, 1))
    assert abs(stats.spearmanr(one, two).statistic) < 4 / math.sqrt(4000)


def test_rotations_are_uniform_among_all():
    rng = np.random.default_rng(0)
    turns = np.stack([rotation(3, rng) for _ in range(2000)])
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3))
    # Rows and columns are uniform on the sphere, whose coordinates are uniform (Archimedes).
    for entries in turns.reshape(-1, 9).T:
        assert stats.kstest(entries, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert np.mean(np.linalg.det(turns) > 0) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2000))
