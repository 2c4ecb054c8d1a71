"""Nearest-neighbor estimators against closed forms and slow rewritings."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.special import gamma, polygamma, psi
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.neighbors import NearestNeighbors

from captum_mi.estimators import KSG, KozachenkoLeonenko, WeightedKozachenkoLeonenko, _neighbors
from captum_mi.estimators._neighbors import TREE_DIM, count_closer, nearest_distances
from captum_mi.estimators.neighbor_weights import (
    dependent_noise,
    independent_noise,
    neighbor_weights,
    weights_for,
)

LABEL_ESTIMATORS = [
    KozachenkoLeonenko(),
    KozachenkoLeonenko(3),
    WeightedKozachenkoLeonenko(),
    WeightedKozachenkoLeonenko(weights="code"),
    KSG(),
]
DIMS = sorted({1, 3, *TREE_DIM.values(), *(dim + 1 for dim in TREE_DIM.values()), 40})


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normals(rng, n_samples, nats, dim=2):
    rho = math.sqrt(1 - math.exp(-2 * nats / dim))
    x, noise = rng.standard_normal((2, n_samples, dim))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def distances(samples, norm=2):
    """(N, N - 1) sorted distances to the others, by the definition."""
    gaps = np.linalg.norm(samples[:, None] - samples[None], ord=norm, axis=-1)
    np.fill_diagonal(gaps, -1)
    return np.sort(gaps, axis=1)[:, 1:]


def weighted_entropy(samples, weights):
    """The weighted estimate, term by term."""
    n, dim = samples.shape
    volume = math.pi ** (dim / 2) / gamma(dim / 2 + 1)
    total = 0.0
    for row in distances(samples):
        for j, weight in enumerate(weights, start=1):
            total += weight * math.log(math.exp(-psi(j)) * volume * (n - 1) * row[j - 1] ** dim)
    return total / n


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("dim", DIMS)
def test_neighbors(dim, norm, rng):
    samples = rng.standard_normal((300, dim))
    samples[5] = samples[9]
    metric = NearestNeighbors(metric="euclidean" if norm == 2 else "chebyshev", algorithm="brute")
    expected = metric.fit(samples).kneighbors(n_neighbors=7)[0]
    found = nearest_distances(torch.from_numpy(samples), 7, norm).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(found, distances(samples, norm)[:, :7], rtol=1e-12)
    assert found[5, 0] == found[9, 0] == 0


def test_brute_force_keeps_small_distances(rng):
    samples = rng.standard_normal((50, 20))
    near = np.vstack([samples, samples + 1e-9 * rng.standard_normal((50, 20))]) + 100
    found = nearest_distances(torch.from_numpy(near), 1).numpy()
    np.testing.assert_allclose(found, distances(near)[:, :1], rtol=1e-12)


@pytest.mark.parametrize(("width", "chunk"), [(7, 21), (7, 7), (50, 50), (13, 400), (64, 6400)])
@pytest.mark.parametrize("k", [1, 20, 99])
def test_tiles_change_nothing(width, chunk, k, rng, monkeypatch):
    samples = torch.from_numpy(rng.standard_normal((100, 20)) + 1e3)
    monkeypatch.setattr(_neighbors, "WIDTH", width)
    monkeypatch.setattr(_neighbors, "CHUNK", chunk)
    gaps = (samples[:, None] - samples).norm(dim=-1)
    expected = gaps.sort(dim=1).values[:, 1 : k + 1]
    torch.testing.assert_close(nearest_distances(samples, k), expected, rtol=1e-12, atol=0)


def test_a_far_sample_spoils_no_other_neighbors(rng):
    samples = rng.standard_normal((600, 16))
    samples[0, 0] = 1e11
    expected = NearestNeighbors(n_neighbors=3, algorithm="kd_tree").fit(samples).kneighbors()[0]
    found = nearest_distances(torch.from_numpy(samples), 3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_all_others_are_neighbors(rng):
    for dim in DIMS:
        samples = torch.from_numpy(rng.standard_normal((6, dim)))
        np.testing.assert_allclose(nearest_distances(samples, 5), distances(samples.numpy()))


@pytest.mark.parametrize("dim", DIMS)
def test_counts_leave_ties_out(dim, rng):
    samples = rng.integers(0, 4, (200, dim)) / 3
    radius = rng.integers(1, 4, 200) / 3
    gaps = np.linalg.norm(samples[:, None] - samples[None], ord=math.inf, axis=-1)
    expected = (gaps < radius[:, None] - 1e-6).sum(axis=1) - 1
    found = count_closer(torch.from_numpy(samples), torch.from_numpy(radius))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_weights_meet_their_conditions(dim):
    for k in (5, 8, 20, 50):
        weights = neighbor_weights(k, dim, "paper")
        assert weights.sum() == pytest.approx(1, abs=1e-9)
        neighbors = np.arange(1, k + 1)
        for power in range(1, dim // 4 + 1):
            ratio = gamma(neighbors + 2 * power / dim) / gamma(neighbors)
            assert weights @ ratio == pytest.approx(0, abs=1e-9 * np.linalg.norm(ratio))
        allowed = {i * k // dim for i in range(1, dim + 1)}
        assert set(weights.nonzero()[0] + 1) <= allowed


@pytest.mark.parametrize(
    ("k", "dim", "expected"),
    [
        (5, 5, [1.54, 0.67, 0.06, -0.43, -0.84]),
        (5, 8, [9.85, -7.67, -7.23, -1.20, 7.25]),
        (5, 2, [0, 0.5, 0, 0, 0.5]),
        (5, 1, [0, 0, 0, 0, 1]),
    ],
)
def test_weights_of_the_paper(k, dim, expected):
    np.testing.assert_allclose(neighbor_weights(k, dim, "paper"), expected, atol=0.0101)


@pytest.mark.parametrize(("dim", "norm"), [(6, 2.23), (8, 16.2), (10, 24)])
def test_weights_are_the_shortest(dim, norm, rng):
    weights = neighbor_weights(5, dim, "paper")
    assert np.linalg.norm(weights) == pytest.approx(norm, rel=0.01)
    # Whatever else meets the conditions is at right angles to the shortest solution.
    neighbors = np.arange(1, 6)
    conditions = [gamma(neighbors + 2 * p / dim) / gamma(neighbors) for p in range(dim // 4 + 1)]
    null_space = np.linalg.svd(np.array(conditions))[2][len(conditions) :]
    assert np.abs(null_space @ weights).max() < 1e-9 * norm


@pytest.mark.parametrize("dim", [1, 2, 4, 8, 16, 50])
@pytest.mark.parametrize("k", [2, 5, 20, 50])
def test_weights_of_least_variance(k, dim):
    weights = neighbor_weights(k, dim)
    places = np.arange(1, k + 1)
    ratio = gamma(places + 2 / dim) / gamma(places)
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    if not 3 <= dim <= 16:
        np.testing.assert_array_equal(weights, np.eye(k)[-1])
        return
    assert weights @ ratio == pytest.approx(0, abs=1e-9 * np.linalg.norm(ratio))
    covariance = np.array([[polygamma(1, max(i, j)) for j in places] for i in places])
    # Directions that keep the conditions change the variance by nothing, to first order.
    null_space = np.linalg.svd(np.array([np.ones(k), ratio]))[2][2:]
    assert np.abs(null_space @ covariance @ weights).max(initial=0) < 1e-9 * k
    noise = independent_noise(weights)
    assert noise == pytest.approx(weights @ covariance @ weights)
    if k == 5 and dim == 4:
        assert noise == pytest.approx(1.523**2, rel=1e-3)


@pytest.mark.parametrize(("dim", "k"), [(1, 3), (2, 5), (4, 5)])
def test_the_noise_is_that_of_a_torus(dim, k):
    """Where the density is the same everywhere, all that an entropy varies by is noise."""
    rng = np.random.default_rng(0)
    weights = neighbor_weights(k, dim)
    means, own = [], []
    for _ in range(300):
        samples = rng.random((300, dim))
        distances, _ = cKDTree(samples, boxsize=1).query(samples, k=range(2, k + 2))
        terms = dim * np.log(distances) @ weights
        means.append(terms.mean())
        own.append(terms.var())
    assert np.mean(own) == pytest.approx(independent_noise(weights), rel=0.05)
    total = independent_noise(weights) + dependent_noise(weights, dim)
    assert 300 * np.var(means) == pytest.approx(total, rel=0.2)


def test_few_neighbors_where_their_noise_is_low():
    assert [len(weights_for(n, 4)) for n in (20, 200, 2000, 20_000)] == [5, 20, 7, 5]
    assert [len(weights_for(5000, dim)) for dim in (2, 4, 8, 16, 50)] == [5, 5, 7, 22, 5]
    assert len(weights_for(4, 2)) == 3
    assert len(weights_for(100, 2, 7)) == 7


def test_a_part_of_the_bias_stays_where_the_noise_would_exceed_its_limit():
    weights = weights_for(300, 16)
    assert len(weights) == 30
    assert independent_noise(weights) == pytest.approx(300 * 0.03**2)
    assert weights.sum() == pytest.approx(1)
    whole, last = neighbor_weights(30, 16), np.eye(30)[-1]
    share = (weights - last)[0] / (whole - last)[0]
    assert 0 < share < 1
    np.testing.assert_allclose(weights, last + share * (whole - last))


def test_weights_of_the_code():
    for dim in (1, 2, 4):
        np.testing.assert_array_equal(neighbor_weights(5, dim, "code"), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(neighbor_weights(5, 8, "code"), neighbor_weights(5, 8, "paper"))


@pytest.mark.parametrize(("k", "dim"), [(1, 4), (1, 5), (2, 8), (5, 20)])
def test_infeasible_weights(k, dim):
    with pytest.raises(ValueError, match=f"`k` must be larger in {dim} dimensions, got {k}: "):
        neighbor_weights(k, dim, "paper")


def test_too_many_dimensions_are_not_laid_on_k():
    words = "^80 dimensions are too many: no weights of 80 neighbors meet the 21 conditions"
    with pytest.raises(ValueError, match=words):
        neighbor_weights(80, 80, "paper")


def test_long_weights_warn(rng):
    with pytest.warns(UserWarning, match=r"k=5 neighbors in 12 dimensions have norm 359"):
        neighbor_weights(5, 12, "paper")
    with pytest.warns(UserWarning, match="norm"):
        WeightedKozachenkoLeonenko(5, weights="paper").entropy(rng.standard_normal((50, 12)))


def test_default_k_grows_with_the_dimension(rng):
    samples = rng.standard_normal((200, 8))
    for dim, k in ((2, 5), (5, 5), (8, 8)):
        expected = WeightedKozachenkoLeonenko(k, weights="paper").entropy(samples[:, :dim])
        found = WeightedKozachenkoLeonenko(weights="paper").entropy(samples[:, :dim])
        assert (found.value, found.std_error) == (expected.value, expected.std_error)


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_entropies_are_their_formula(dim, rng):
    samples = rng.standard_normal((80, dim))
    for k in (1, 4):
        last = np.eye(k)[-1]
        found = KozachenkoLeonenko(k, whiten=False).entropy(samples).value
        assert found == pytest.approx(weighted_entropy(samples, last), abs=1e-10)
    expected = weighted_entropy(samples, neighbor_weights(8, dim))
    found = WeightedKozachenkoLeonenko(8, whiten=False).entropy(samples).value
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(
    "estimator", [KozachenkoLeonenko, WeightedKozachenkoLeonenko], ids=lambda each: each.__name__
)
def test_entropies_of_uniforms_and_normals(estimator, dim, whiten, rng):
    estimator = estimator(whiten=whiten)
    sides = np.array([0.5, 2.0, 3.0])[:dim]
    estimate = estimator.entropy(sides * rng.random((4000, dim)))
    faces = 0.02 * dim  # balls reach over them, which an estimator of smooth densities does not see
    tolerance = 4 * estimate.std_error + faces
    assert estimate.value == pytest.approx(np.log(sides).sum(), abs=tolerance)
    estimate = estimator.entropy(sides * rng.standard_normal((4000, dim)))
    truth = dim / 2 * math.log(2 * math.pi * math.e) + np.log(sides).sum()
    assert estimate.value == pytest.approx(truth, abs=4 * estimate.std_error)


@pytest.mark.parametrize("nats", [0, 2, 4, 6, 8])
@pytest.mark.parametrize(
    "estimator",
    [KozachenkoLeonenko(), WeightedKozachenkoLeonenko()],
    ids=lambda each: type(each).__name__,
)
def test_normals(estimator, nats, rng):
    estimate = estimator.estimate(*normals(rng, 5000, nats))
    assert estimate.value == pytest.approx(nats, abs=0.15)


def test_normals_of_four_and_four(rng):
    for nats in (0, 4, 8):
        estimate = WeightedKozachenkoLeonenko().estimate(*normals(rng, 4000, nats, dim=4))
        assert estimate.value == pytest.approx(nats, abs=4 * estimate.std_error)


@pytest.mark.parametrize("dims", [(1, 1), (2, 3), (1, 20)])
def test_ksg_is_its_formula(dims, rng):
    x = rng.standard_normal((150, dims[0]))
    y = x[:, :1] + rng.standard_normal((150, dims[1]))
    gaps = [
        np.linalg.norm((each[:, None] - each[None]) / each.std(axis=0), ord=math.inf, axis=-1)
        for each in (x, y)
    ]
    total = 0.0
    for i in range(150):
        others = np.arange(150) != i
        radius = np.sort(np.maximum(gaps[0][i], gaps[1][i])[others])[2]
        n_x, n_y = ((gap[i][others] < radius).sum() for gap in gaps)
        total += psi(3) + psi(150) - psi(n_x + 1) - psi(n_y + 1)
    assert KSG(3).estimate(x, y).value == pytest.approx(total / 150, abs=1e-10)


@pytest.mark.parametrize("nats", [0.1, 1.0, 3.0])
def test_ksg_is_that_of_scikit_learn(nats, rng):
    x, y = normals(rng, 600, nats, dim=1)
    expected = mutual_info_regression(x, y[:, 0], n_neighbors=4, random_state=0)[0]
    assert KSG(4).estimate(x, y).value == pytest.approx(expected, abs=1e-6)
    labels = np.floor(2 * y[:, 0]).clip(-2, 1)
    expected = mutual_info_classif(x, labels, n_neighbors=4, random_state=0)[0]
    assert KSG(4).estimate_discrete(x, labels).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("nats", [0, 0.5, 1])
def test_ksg_of_normals(nats, rng):
    estimate = KSG().estimate(*normals(rng, 4000, nats))
    assert estimate.value == pytest.approx(nats, abs=3 * estimate.std_error)


def test_ksg_in_many_dimensions(rng):
    x, y = normals(rng, 1500, 0.5, dim=1)
    noise = 0.1 * rng.standard_normal((1500, 20))
    estimate = KSG().estimate(x + noise, y)  # twenty columns, a tree for none of the spaces but y
    assert estimate.value == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("n_labels", [2, 4, 8, 16])
@pytest.mark.parametrize("estimator", LABEL_ESTIMATORS, ids=repr)
def test_labels_say_their_entropy(estimator, n_labels, rng):
    x = rng.random((5000, 1 if isinstance(estimator, KSG) else 2))
    labels = (x[:, 0] * n_labels).astype(int)
    estimate = estimator.estimate_discrete(x, labels)
    assert estimate.value == pytest.approx(math.log(n_labels), abs=0.1)


@pytest.mark.parametrize("estimator", LABEL_ESTIMATORS, ids=repr)
def test_labels_of_noise(estimator, rng):
    x, labels = rng.standard_normal((2000, 2)), rng.integers(0, 3, 2000)
    estimate = estimator.estimate_discrete(x, labels)
    assert estimate.value == pytest.approx(0, abs=4 * estimate.std_error)


def test_repeated_samples_are_refused(rng):
    x, y = normals(rng, 100, 1.0)
    x, y = np.vstack([x, x[:10]]), np.vstack([y, y[:10]])
    words = r"`\(x, y\)` has 20 samples at distance 0 .* drop repeated rows"
    for estimator in (KozachenkoLeonenko(), KSG(1)):
        with pytest.raises(ValueError, match=words):
            estimator.estimate(x, y)
    with pytest.raises(ValueError, match="`x` has 20 samples at distance 0"):
        WeightedKozachenkoLeonenko(weights="code").entropy(x)
    with pytest.raises(ValueError, match=r"`x of label 0` has 10 samples at distance 0"):
        KSG(1).estimate_discrete(np.vstack([x[:5], x[:5], y]), [0] * 10 + [1] * len(y))


def test_repeated_samples_that_do_not_matter_warn(rng):
    x, y = normals(rng, 100, 1.0)
    x, y = np.vstack([x, x[:10]]), np.vstack([y, y[:10]])
    for estimator in (KozachenkoLeonenko(2), WeightedKozachenkoLeonenko(5, weights="paper")):
        with pytest.warns(UserWarning, match="`x` has 20 samples that repeat others"):
            assert math.isfinite(estimator.entropy(x).value)
    with pytest.warns(UserWarning, match="`y` has 96 samples that repeat.*estimate_discrete"):
        assert math.isfinite(KSG().estimate(x[:100], np.arange(100) % 4).value)


@pytest.mark.filterwarnings("error")
def test_jitter_separates(rng):
    x, y = normals(rng, 2000, 1.0)
    x, y = x.round(2), y.round(2)
    for estimator in (KozachenkoLeonenko(jitter=3e-3), KSG(jitter=1e-10)):
        estimate = estimator.estimate(x, y)
        assert estimate.value == pytest.approx(1, abs=0.15)
        assert estimator.estimate(x, y) == estimate
    with pytest.warns(UserWarning, match="`[xy]` has .* where ties differ .* Take `Mutual"):
        far_below = KozachenkoLeonenko(jitter=1e-10).estimate(x, y)
    assert far_below.value < 0.5


def test_jitter_ties_nothing(rng):
    x, y = rng.standard_normal((2, 1000))
    # the same noise on both, as large as they are, would be 0.14 nats
    assert abs(KSG(jitter=1.0).estimate(x, y).value) < 0.06
    assert abs(KSG(jitter=1.0).estimate_discrete(x, y > 0).value) < 0.06


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: KozachenkoLeonenko(0), ValueError, "`k` must be at least 1, got 0"),
        (lambda: KSG(2.5), TypeError, "`k` must be an integer, got 2.5"),
        (lambda: WeightedKozachenkoLeonenko(-1), ValueError, "`k` must be at least 1, got -1"),
        (
            lambda: WeightedKozachenkoLeonenko(weights="theirs"),
            ValueError,
            "`weights` must be one of 'variance', 'paper', 'code', got 'theirs'",
        ),
        (lambda: KSG(jitter=-1), ValueError, "`jitter` must be at least 0 and finite, got -1"),
        (lambda: KozachenkoLeonenko(jitter=math.nan), ValueError, "`jitter` must be .*got nan"),
    ],
)
def test_bad_arguments(build, error, words):
    with pytest.raises(error, match=words):
        build()
