"""Normal scores, and what is estimated from them: against closed forms and slow rewritings."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import digamma, gammaln
from scipy.stats import norm
from sklearn.feature_selection import mutual_info_classif

from captum_mi.datasets import CorrelatedNormals, CorrelatedStudent, CorrelatedUniforms
from captum_mi.estimators import KSG, CopulaNeighbors, GaussianCopula
from captum_mi.estimators._scores import normal_scores
from captum_mi.estimators.neighbor_weights import neighbor_weights


def test_scores_are_quantiles_of_ranks():
    values = torch.tensor([[30.0, -1.0], [1e300, 5.0], [-4.0, 0.0], [31.0, 2.0]])
    expected = norm.ppf([[3 / 8, 1 / 8], [7 / 8, 7 / 8], [1 / 8, 3 / 8], [5 / 8, 5 / 8]])
    np.testing.assert_allclose(normal_scores(values).numpy(), expected)


def test_ties_are_in_random_order():
    values = torch.tensor([0.0, 1.0] * 500)[:, None]
    scores = normal_scores(values)[:, 0].numpy()
    assert len(np.unique(scores)) == 1000
    assert (scores[::2] < 0).all()
    assert (scores[1::2] > 0).all()
    assert abs(np.corrcoef(scores[::2], np.arange(500))[0, 1]) < 0.1
    assert not torch.equal(normal_scores(values), normal_scores(values, 1))
    assert torch.equal(normal_scores(values), normal_scores(values))


def entropy(samples, k, dim):
    """Of whitened samples, by all distances, with the weights of least variance."""
    factor = np.linalg.cholesky(np.cov(samples.T))
    white = (samples - samples.mean(0)) @ np.linalg.inv(factor).T
    nearest = np.sort(cdist(white, white), axis=1)[:, 1 : k + 1]
    ball = dim / 2 * math.log(math.pi) - gammaln(dim / 2 + 1)
    weights = neighbor_weights(k, dim)
    terms = dim * np.log(nearest) - digamma(np.arange(1, k + 1))
    constant = math.log(len(samples) - 1) + ball + np.log(np.diag(factor)).sum()
    return (terms @ weights).mean() + constant


@pytest.mark.parametrize("dims", [(1, 1), (2, 3)])
def test_copula_neighbors_are_their_formula(dims):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, dims[0]))
    y = np.exp(x[:, :1] + rng.standard_normal((200, dims[1])))
    orders = [np.random.default_rng(7).permutation(200)]
    found = CopulaNeighbors(6, shuffles=1, seed=7).estimate(x, y)
    ranks = [np.argsort(np.argsort(each, axis=0), axis=0) for each in (x, y)]
    first, second = (norm.ppf((each + 0.5) / 200) for each in ranks)
    of_pairs = entropy(np.hstack([first, second]), 6, sum(dims))
    of_shuffled = entropy(np.hstack([first, second[orders[0]]]), 6, sum(dims))
    assert found.value == pytest.approx(of_shuffled - of_pairs, abs=1e-9)
    assert found.estimator == "CopulaNeighbors(k=6, shuffles=1, seed=7, n_jobs=-1)"


def test_shuffles_are_averaged():
    x, y = CorrelatedNormals(1.0).sample(200)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(200) for _ in range(3)]
    ranks = [np.argsort(np.argsort(each, axis=0), axis=0) for each in (x, y)]
    first, second = (norm.ppf((each + 0.5) / 200) for each in ranks)
    k = 20
    of_shuffled = [entropy(np.hstack([first, second[order]]), k, 4) for order in orders]
    expected = np.mean(of_shuffled) - entropy(np.hstack([first, second]), k, 4)
    assert CopulaNeighbors(k).estimate(x, y).value == pytest.approx(expected, abs=1e-9)


SAMPLERS = {
    "normals 1": CorrelatedNormals(1.0, 1, 1),
    "normals 8": CorrelatedNormals(1.0, 8, 8, mix=True),
    "normals 25": CorrelatedNormals(1.0, 25, 25, mix=True),
    "uniforms 4": CorrelatedUniforms(3.0, 4, 4),
    "Student 2": CorrelatedStudent(1.5, 2, 2, 2),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_copula_neighbors_know_the_truth(name):
    sampler = SAMPLERS[name]
    x, y = sampler.sample(2000, seed=4)
    estimate = CopulaNeighbors().estimate(x, y)
    assert abs(estimate.value - sampler.mutual_information) < 0.13
    assert 0.02 < estimate.std_error < 0.06
    independent = CopulaNeighbors().estimate(x, sampler.sample(2000, seed=5)[1])
    assert abs(independent.value) < 0.13


def test_increasing_maps_change_nothing():
    x, y = CorrelatedNormals(1.0).sample(300)
    for estimator in (CopulaNeighbors(), GaussianCopula(), KSG(control_variate=True)):
        plain = estimator.estimate(x, y)
        assert estimator.estimate(np.exp(5 * x), y**3).value == plain.value
        labels = (y[:, 0] > 0).astype(int)
        if not isinstance(estimator, KSG):
            mapped = estimator.estimate_discrete(np.exp(5 * x), labels)
            assert mapped.value == estimator.estimate_discrete(x, labels).value


@pytest.mark.parametrize("estimator", [CopulaNeighbors(), GaussianCopula()], ids=repr)
def test_standard_errors(estimator):
    """They are those of repeated samples, here within 20 %."""
    sampler = CorrelatedNormals(1.0, 1, 1)
    found = [estimator.estimate(*sampler.sample(400, seed)) for seed in range(120)]
    values = np.array([each.value for each in found])
    assert values.mean() == pytest.approx(1, abs=0.02)
    assert np.mean([each.std_error for each in found]) == pytest.approx(values.std(), rel=0.2)


def test_the_standard_error_knows_the_noise_of_neighbors():
    """At independence there is nothing else that the estimate varies by."""
    sampler = CorrelatedNormals(0.0, 2, 2)
    found = [CopulaNeighbors().estimate(*sampler.sample(400, seed)) for seed in range(60)]
    spread = np.std([each.value for each in found])
    assert spread < np.mean([each.std_error for each in found]) < 1.6 * spread


@pytest.mark.parametrize("dims", [(1, 1), (3, 2), (10, 10)])
def test_the_bias_of_a_gaussian_copula_is_removed(dims):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 100, dims[0])), rng.standard_normal((200, 100, dims[1]))
    found = [GaussianCopula().estimate(*pair) for pair in zip(x, y, strict=True)]
    values = np.array([each.value for each in found])
    assert values.mean() == pytest.approx(0, abs=4 * values.std() / math.sqrt(200))
    assert np.mean([each.std_error for each in found]) == pytest.approx(values.std(), rel=0.5)


def test_gaussian_copula_of_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    x = rng.standard_normal((4000, 2)) * np.where(labels, 1.0, 3.0)[:, None]
    estimate = GaussianCopula().estimate_discrete(x, labels)
    scores = normal_scores(torch.from_numpy(x)).numpy()
    dets = [np.linalg.slogdet(np.cov(scores[labels == label].T))[1] for label in (0, 1)]
    whole = np.linalg.slogdet(np.cov(scores.T))[1]
    shares = np.bincount(labels) / 4000
    assert estimate.value == pytest.approx(whole / 2 - shares @ dets / 2, abs=2e-3)
    assert abs(GaussianCopula().estimate_discrete(x, rng.permutation(labels)).value) < 0.01


def test_copula_neighbors_of_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 3000)
    x = rng.standard_normal((3000, 2)) + 10 * labels[:, None]
    assert CopulaNeighbors().estimate_discrete(x, labels).value == pytest.approx(
        math.log(4), abs=0.1
    )
    noise = CopulaNeighbors().estimate_discrete(x, rng.permutation(labels))
    assert abs(noise.value) < 4 * noise.std_error
    with pytest.raises(ValueError, match=r"`x of label 9` must hold at least 2 samples .* got 1"):
        CopulaNeighbors().estimate_discrete(x, np.where(np.arange(3000) == 5, 9, labels))


def test_counts_and_float32_are_no_exception():
    rng = np.random.default_rng(0)
    rate = rng.integers(10, size=5000)
    counts = rate + rng.integers(10, size=5000)  # they share 0.491 nats
    assert CopulaNeighbors().estimate(rate, counts).value == pytest.approx(0.491, abs=0.05)
    single = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    estimate = CopulaNeighbors().estimate(
        single, single + torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    )
    assert estimate.value == pytest.approx(math.log(2) / 2, abs=0.03)


def test_what_determines_each_other_is_refused():
    x = np.random.default_rng(0).standard_normal((100, 2))
    with pytest.raises(ValueError, match="`x` and `y` determine each other"):
        GaussianCopula().estimate(x, x[:, ::-1])
    with pytest.raises(ValueError, match=r"covariance of `\(x, y\)` is degenerate"):
        CopulaNeighbors().estimate(x, x)


@pytest.mark.parametrize(("dim", "nats"), [(2, 1.0), (5, 1.0), (25, 1.0), (2, 5.0)])
def test_the_control_variate_removes_the_bias_of_a_gaussian_copula(dim, nats):
    x, y = CorrelatedUniforms(nats, dim, dim).sample(1500, seed=1)
    controlled = KSG(control_variate=True).estimate(x, y)
    assert controlled.value == pytest.approx(nats, abs=0.15)
    if dim > 2:
        assert KSG().estimate(x, y).value < nats - 0.3


def test_whitening_shows_ksg_what_columns_share():
    rng = np.random.default_rng(0)
    shared, rest, noise = rng.standard_normal((3, 2000))
    x = np.stack([shared, shared + 1e-3 * rest], axis=1)
    y = rest + noise  # log(2) / 2 = 0.347 nats
    assert KSG().estimate(x, y).value == pytest.approx(0, abs=0.05)
    assert KSG(whiten=True).estimate(x, y).value == pytest.approx(0.347, abs=0.08)


def test_ksg_warns_where_its_bias_rules():
    x, y = CorrelatedNormals(6.0).sample(500)
    with pytest.warns(UserWarning, match="nats are more than KSG measures well, 3:"):
        KSG().estimate(x, y)


def test_the_error_of_ksg_is_that_of_repeated_samples():
    sampler = CorrelatedNormals(1.0)
    found = [KSG().estimate(*sampler.sample(300, seed)) for seed in range(60)]
    values = np.array([each.value for each in found])
    assert np.mean([each.std_error for each in found]) == pytest.approx(values.std(), rel=0.25)


def test_the_error_of_many_samples_is_that_of_some_of_them(monkeypatch):
    from captum_mi.estimators import ksg

    x, y = CorrelatedNormals(1.0).sample(1200)
    whole = KSG().estimate(x, y)
    monkeypatch.setattr(ksg, "HALVED", 300)
    some = KSG().estimate(x, y)
    assert some.value == whole.value
    assert some.std_error == pytest.approx(whole.std_error, rel=0.4)


def test_ksg_of_a_rare_label_takes_fewer_neighbors():
    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(300), np.ones(300), 2, 2].astype(int)
    x = rng.standard_normal((602, 1)) + 20 * labels[:, None]
    expected = mutual_info_classif(x, labels, n_neighbors=3, random_state=0)[0]
    assert KSG().estimate_discrete(x, labels).value == pytest.approx(expected, abs=1e-6)


def test_the_control_variate_takes_sides_of_different_dimensions():
    x, y = CorrelatedNormals(1.0, 4, 2, mix=True).sample(1500)
    assert KSG(control_variate=True).estimate(x, y).value == pytest.approx(1, abs=0.12)


def test_the_value_alone_needs_no_halves(monkeypatch):
    x, y = CorrelatedNormals(1.0).sample(300)
    for estimator in (KSG(), KSG(control_variate=True), KSG(whiten=True), CopulaNeighbors()):
        assert estimator.value(x, y) == estimator.estimate(x, y).value
    labels = y[:, 0] > 0
    expected = KSG().estimate_discrete(x, labels).value
    assert KSG().value(x, labels, discrete=True) == expected
    monkeypatch.setattr(KSG, "_with_error", None)
    assert KSG().value(x, y) > 0
