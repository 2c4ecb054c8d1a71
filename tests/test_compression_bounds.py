"""Bounds on what compression loses, against Gaussians, whose information is known exactly."""

import math

import numpy as np
import pytest

from captum_mi.datasets import CorrelatedNormals, gaussian_information
from captum_mi.estimators.compression_bounds import (
    hidden_from_pca,
    information_range,
    linear_gap,
    maximum_entropy,
    noisy_entropy_range,
    noisy_information_limit,
    pca_gap,
)

CLOSE = 1e-9
INDEPENDENT = {"noise_is_independent": True}


def of(covariance, first, second):
    """I(first; second) of jointly normal coordinates, given as lists of indices."""
    both = [*first, *second]
    return gaussian_information(covariance[np.ix_(both, both)], len(first))


def signal_noise_and_target(rng, dim, deviation, *, from_noisy):
    """Covariance of (X, Z, X + Z, Y), Y one linear function of X, or of X + Z, plus noise."""
    root = rng.standard_normal((dim, dim)) * rng.uniform(0.1, 2, dim)
    blank, eye = np.zeros((dim, dim)), np.eye(dim)
    x, z = np.hstack([root, blank]), np.hstack([blank, deviation * eye])
    y = rng.standard_normal((1, dim)) @ (x + z if from_noisy else x)
    rows = np.vstack([x, z, x + z, y])
    rows = np.hstack([rows, np.zeros((len(rows), 1))])
    rows[-1, -1] = rng.uniform(0.05, 1)
    return rows @ rows.T


def test_statement_1_invertible_maps_keep_the_information():
    covariance = CorrelatedNormals(1.7, 3, 2, mix=True).covariance
    rng = np.random.default_rng(0)
    turn = np.zeros((5, 5))
    turn[:3, :3], turn[3:, 3:] = rng.standard_normal((3, 3)), rng.standard_normal((2, 2))
    assert gaussian_information(turn @ covariance @ turn.T, 3) == pytest.approx(1.7)
    # An injection into more dimensions, seen through any coordinates that fix it.
    wide = rng.standard_normal((6, 3))[:3]
    inject = np.block([[wide, np.zeros((3, 2))], [np.zeros((2, 3)), np.eye(2)]])
    assert gaussian_information(inject @ covariance @ inject.T, 3) == pytest.approx(1.7)


@pytest.mark.parametrize("variance", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("information", [0.0, 0.2, 3.0])
def test_statement_2_pca_keeps_nothing(information, variance):
    covariance = hidden_from_pca(information, variance)
    assert gaussian_information(covariance, 2) == pytest.approx(information)
    axis = np.linalg.eigh(covariance[:2, :2])[1][:, -1]
    encode = np.array([[*axis, 0], [0, 0, 1]])
    assert gaussian_information(encode @ covariance @ encode.T, 1) == pytest.approx(0, abs=CLOSE)


def test_statement_2_as_printed_gives_another_information():
    printed = np.diag([1.0, 0.5, 1.0])
    printed[1, 2] = printed[2, 1] = math.sqrt(1 - math.exp(-2 * 0.2))
    assert gaussian_information(printed, 2) == pytest.approx(0.538, abs=0.001)


@pytest.mark.parametrize("from_noisy", [False, True])
def test_statement_3_and_corollary_2(from_noisy):
    """The code (X + Z in some coordinates, X in all): X can be computed from it."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        dim = int(rng.integers(1, 4))
        covariance = signal_noise_and_target(rng, dim, rng.uniform(0.2, 2), from_noisy=from_noisy)
        x, z = list(range(dim)), list(range(dim, 2 * dim))
        y = [3 * dim]
        code = [*x, 2 * dim]  # X and the first coordinate of X + Z
        signal, both = of(covariance, x, y), of(covariance, [*x, *z], y)
        middle = of(covariance, code, y)
        assert signal <= middle + CLOSE
        assert middle <= both + CLOSE
        limits = {"noise_is_independent": False, "noise_information": both - signal}
        if not from_noisy:
            assert both == pytest.approx(signal, abs=1e-6)
            limits = INDEPENDENT
        low, high = information_range(middle, signal_is_recoverable=True, **limits)
        assert low - 1e-6 <= signal <= high + 1e-6
        noisy = of(covariance, list(range(2 * dim, 3 * dim)), y)
        low, high = information_range(noisy, signal_is_recoverable=False, **limits)
        assert low - 1e-6 <= signal <= high == math.inf


def test_maximum_entropy_is_that_of_normals_and_above_all_others():
    assert maximum_entropy([[4.0]]) == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 4))
    assert maximum_entropy(np.diag([1 / 12, 1 / 12])) > 0  # uniform on the unit square has 0
    laplace = 1 + math.log(2)
    assert maximum_entropy([[2.0]]) > laplace
    covariance = CorrelatedNormals(1.0, 1, 1).covariance
    assert maximum_entropy(covariance) == pytest.approx(2 * maximum_entropy([[1.0]]) - 1)
    assert maximum_entropy(np.ones((2, 2))) == -math.inf


def test_noisy_entropy_lies_in_its_range():
    # X is one of two points 20 deviations apart: h(X + Z) = h(Z) + log 2.
    low, high = noisy_entropy_range([[100.0]], 1.0, **INDEPENDENT)
    assert low == pytest.approx(0.5 * math.log(2 * math.pi * math.e))
    assert low < low + math.log(2) < high
    # A constant X meets the lower limit, a normal X the upper one.
    assert noisy_entropy_range([[0.0]], 0.3, **INDEPENDENT)[0] == pytest.approx(
        noisy_entropy_range([[0.0]], 0.3, **INDEPENDENT)[1]
    )


def test_noisy_information_limit_is_met_by_the_signal_itself():
    rng = np.random.default_rng(2)
    for _ in range(50):
        covariance = signal_noise_and_target(rng, 3, 0.7, from_noisy=False)
        signal, noisy, y = [0, 1, 2], [6, 7, 8], [9]
        limit = noisy_information_limit(covariance[:3, :3], 0.7, **INDEPENDENT)
        assert of(covariance, noisy, signal) == pytest.approx(limit)
        assert of(covariance, noisy, y) <= limit + CLOSE


def gaps(rng, *, from_noisy):
    """The true gap of a PCA code of X + Z, and both bounds."""
    dim, deviation = int(rng.integers(2, 6)), rng.uniform(0.2, 2)
    kept = int(rng.integers(1, dim))
    covariance = signal_noise_and_target(rng, dim, deviation, from_noisy=from_noisy)
    noisy, y = list(range(2 * dim, 3 * dim)), [3 * dim]
    signal = covariance[:dim, :dim]
    variances, axes = np.linalg.eigh(signal)
    variances, axes = variances[::-1].clip(0), axes[:, ::-1]
    encode = np.zeros((kept + 1, 3 * dim + 1))
    encode[:kept, 2 * dim : 3 * dim] = axes[:, :kept].T
    encode[-1, -1] = 1
    code = gaussian_information(encode @ covariance @ encode.T, kept)
    return (
        of(covariance, noisy, y) - code,
        linear_gap(signal, axes[:, :kept].T, deviation, **INDEPENDENT),
        pca_gap(variances, kept, deviation, **INDEPENDENT),
        0.5 * np.log1p(variances[kept:] / deviation**2).sum(),
    )


def test_the_gap_of_pca_stays_below_both_bounds():
    rng = np.random.default_rng(3)
    for _ in range(2000):
        gap, linear, pca, by_hand = gaps(rng, from_noisy=False)
        assert -CLOSE <= gap <= linear + CLOSE
        assert linear == pytest.approx(by_hand)
        assert linear <= pca + CLOSE


def test_a_target_computed_from_the_noisy_signal_breaks_the_bounds():
    """Why the independence of the noise is asked for by name."""
    rng = np.random.default_rng(4)
    trials = [gaps(rng, from_noisy=True) for _ in range(500)]
    assert 50 < sum(gap > pca for gap, _, pca, _ in trials) < 450


def test_the_linear_gap_holds_for_any_encoder_and_any_basis_of_it():
    rng = np.random.default_rng(5)
    for _ in range(300):
        covariance = signal_noise_and_target(rng, 4, 0.5, from_noisy=False)
        encoder = rng.standard_normal((2, 4))
        encode = np.zeros((3, 13))
        encode[:2, 8:12], encode[2, 12] = encoder, 1
        code = gaussian_information(encode @ covariance @ encode.T, 2)
        gap = of(covariance, [8, 9, 10, 11], [12]) - code
        bound = linear_gap(covariance[:4, :4], encoder, 0.5, **INDEPENDENT)
        assert -CLOSE <= gap <= bound + CLOSE
        again = linear_gap(covariance[:4, :4], [[1, 2], [0, 3]] @ encoder, 0.5, **INDEPENDENT)
        assert again == pytest.approx(bound)
    assert linear_gap(np.eye(3), rng.standard_normal((3, 3)), 1.0, **INDEPENDENT) == 0
    assert pca_gap([3.0, 2.0], 2, 1.0, **INDEPENDENT) == 0


@pytest.mark.parametrize(
    ("code", "noise", "expected"),
    [
        (1.5, 0.5, (1.0, 1.5)),
        (0.2, 0.5, (0.0, 0.2)),
        (-0.1, 0.0, (0.0, 0.0)),
        (math.inf, math.inf, (0.0, math.inf)),
    ],
)
def test_no_information_is_below_zero(code, noise, expected):
    found = information_range(
        code, signal_is_recoverable=True, noise_is_independent=False, noise_information=noise
    )
    assert found == pytest.approx(expected)


def test_the_gaps_are_those_of_a_calculation_by_hand():
    # Three axes of variances 8, 3, 1 under noise of variance 4 = 2^2.
    assert pca_gap([8.0, 3.0, 1.0], 1, 2.0, **INDEPENDENT) == pytest.approx(math.log(1 + 3 / 4))
    linear = linear_gap(np.diag([8.0, 3.0, 1.0]), [[1, 0, 0]], 2.0, **INDEPENDENT)
    assert linear == pytest.approx(math.log((1 + 3 / 4) * (1 + 1 / 4)) / 2)


def test_a_singular_covariance_has_no_entropy_whatever_rounding_leaves():
    rng = np.random.default_rng(6)
    for _ in range(200):
        root = rng.standard_normal((4, 3)) * 10 ** rng.uniform(-6, 6, (4, 1))
        assert maximum_entropy(root @ root.T) == -math.inf
    assert maximum_entropy(np.diag([1.0, 0.0])) == -math.inf
    # Small is not singular: units are free.
    tiny = 0.5 * math.log(2 * math.pi * math.e * 1e-40)
    unit = maximum_entropy([[1.0]])
    assert maximum_entropy(np.diag([1.0, 1e-40])) == pytest.approx(unit + tiny)


@pytest.mark.parametrize("deviation", [1e-3, 1e-9, 1e-30])
def test_little_noise_beside_a_singular_signal(deviation):
    # One signal of variance 1 in both coordinates: along the diagonal 2, across it 0.
    signal = np.ones((2, 2))
    limit = 0.5 * math.log(1 + 2 / deviation**2)
    assert noisy_information_limit(signal, deviation, **INDEPENDENT) == pytest.approx(limit)
    low, high = noisy_entropy_range(signal, deviation, **INDEPENDENT)
    assert low == pytest.approx(math.log(2 * math.pi * math.e * deviation**2))
    assert high == pytest.approx(low + limit)
    # The second reading of the same signal halves the noise: at most log(2) / 2.
    gap = linear_gap(signal, [[1.0, 0.0]], deviation, **INDEPENDENT)
    assert gap == pytest.approx(limit - 0.5 * math.log(1 + 1 / deviation**2), abs=1e-9)
    assert linear_gap(signal, [[1.0, 1.0]], deviation, **INDEPENDENT) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: noisy_information_limit(np.eye(2), 1.0, noise_is_independent=False), "later lay"),
        (lambda: noisy_entropy_range(np.eye(2), 1.0, noise_is_independent=False), "must be True"),
        (lambda: linear_gap(np.eye(2), [[1, 0]], 1.0, noise_is_independent=False), "must be True"),
        (lambda: pca_gap([1.0], 0, 1.0, noise_is_independent=False), "must be True"),
        (lambda: pca_gap([1.0], 0, 0.0, **INDEPENDENT), "`deviation` must be positive, got 0.0"),
        (lambda: pca_gap([1.0, 2.0], 0, 1.0, **INDEPENDENT), "`variances` must be a list of fall"),
        (lambda: pca_gap([2.0, 1.0], 3, 1.0, **INDEPENDENT), "`n` must lie between 0 and 2, got 3"),
        (lambda: linear_gap(np.eye(2), [[1, 0, 0]], 1.0, **INDEPENDENT), r"must be \(n', 2\)"),
        (lambda: linear_gap(np.eye(2), [[1, 0], [2, 0]], 1.0, **INDEPENDENT), "independent rows"),
        (lambda: maximum_entropy(np.zeros((2, 3))), r"square matrix, got shape \(2, 3\)"),
        (lambda: maximum_entropy([[1.0, 0.5], [0.0, 1.0]]), "`covariance` must be symmetric"),
        (lambda: maximum_entropy([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalues, got -1"),
        (lambda: maximum_entropy(np.zeros((0, 0))), r"square matrix, got shape \(0, 0\)"),
        (lambda: maximum_entropy([[math.nan]]), "`covariance` must be finite, got NaN or inf"),
        (lambda: noisy_entropy_range([[math.inf]], 1.0, **INDEPENDENT), "`covariance` must be fin"),
        (lambda: linear_gap(np.eye(2), [[1, math.nan]], 1.0, **INDEPENDENT), "`encoder` must be f"),
        (lambda: linear_gap(np.eye(2), np.zeros((0, 2)), 1.0, **INDEPENDENT), r"shape \(0, 2\)"),
        (lambda: hidden_from_pca(-1.0), "`information` must not be negative, got -1"),
        (lambda: hidden_from_pca(1.0, 1.0), "`variance` must lie between 0 and 1, got 1"),
        (
            lambda: information_range(
                1.0, signal_is_recoverable=True, noise_is_independent=True, noise_information=0.5
            ),
            "`noise_information` must be left out for independent noise, got 0.5",
        ),
        (
            lambda: information_range(
                1.0, signal_is_recoverable=True, noise_is_independent=False, noise_information=-1
            ),
            "`noise_information` must not be negative, got -1",
        ),
        (
            lambda: information_range(
                1.0, signal_is_recoverable=True, noise_is_independent=True, noise_information=-1
            ),
            "`noise_information` must not be negative, got -1",
        ),
        (
            lambda: information_range(
                1.0,
                signal_is_recoverable=True,
                noise_is_independent=False,
                noise_information=math.nan,
            ),
            "`noise_information` must not be negative, got nan",
        ),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
