"""Bounds against their definitions, and with the best critic against the truth."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from captum_mi.datasets import CorrelatedNormals
from captum_mi.estimators import (
    donsker_varadhan,
    info_nce,
    jensen_shannon,
    log_mean_exp,
    nwj,
    pointwise_terms,
    smile,
    tuba,
)

ALL = [donsker_varadhan, nwj, jensen_shannon, smile, info_nce]
every = pytest.mark.parametrize("bound", ALL, ids=lambda bound: bound.__name__)


def others(scores):
    return torch.stack([scores[i, j] for i in range(5) for j in range(5) if i != j])


def matched(scores):
    return torch.stack([scores[i, i] for i in range(5)])


def softplus(values):
    return torch.log(1 + values.exp())


DEFINITIONS = {
    donsker_varadhan: lambda f: matched(f).mean() - others(f).exp().mean().log(),
    nwj: lambda f: matched(f).mean() - others(f).exp().mean() / math.e,
    jensen_shannon: lambda f: (
        2 * math.log(2) - softplus(-matched(f)).mean() - softplus(others(f)).mean()
    ),
    smile: lambda f: (
        matched(f).mean() - others(f).exp().clamp(math.exp(-5), math.exp(5)).mean().log()
    ),
    info_nce: lambda f: (matched(f) - f.exp().mean(1).log()).mean(),
}


def test_equals_cross_entropy_up_to_log_n():
    scores = torch.randn(7, 7).double()
    expected = math.log(7) - cross_entropy(scores, torch.arange(7))
    torch.testing.assert_close(info_nce(scores), expected)


def test_is_log_n_for_perfect_scores_and_zero_for_none():
    assert info_nce(1000 * torch.eye(16)).item() == pytest.approx(math.log(16), rel=1e-6)
    assert info_nce(torch.zeros(16, 16)).item() == pytest.approx(0, abs=1e-6)


def test_bounds_the_information_of_a_gaussian_pair():
    generator = torch.Generator().manual_seed(0)
    rho, n = 0.9, 2000
    x = torch.randn(n, generator=generator).double()
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(n, generator=generator).double()
    # Optimal critic: log p(y | x) - log p(y).
    scores = -((y[None] - rho * x[:, None]) ** 2) / (2 * (1 - rho**2)) + y[None] ** 2 / 2
    truth = -0.5 * math.log(1 - rho**2)
    of_this_sample = truth + scores.diagonal().mean().item()
    assert info_nce(scores).item() == pytest.approx(of_this_sample, abs=0.02)
    assert of_this_sample == pytest.approx(truth, abs=4 * rho / math.sqrt(n))


def test_minus_infinity_leaves_a_negative_out():
    scores = torch.randn(3, 3).double()
    masked = scores.clone()
    masked[0, 2] = -math.inf
    rows = [[0, 1], [0, 1, 2], [0, 1, 2]]
    expected = (
        math.log(3)
        + sum(scores[i, i] - torch.logsumexp(scores[i, row], 0) for i, row in enumerate(rows)) / 3
    )
    torch.testing.assert_close(info_nce(masked), expected)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"square matrix of .* got shape \(2, 3\)"):
        info_nce(torch.zeros(2, 3))
    for bound in (donsker_varadhan, nwj, jensen_shannon, smile):
        for shape in ((2, 3), (1, 1), (4,)):
            with pytest.raises(ValueError, match="square matrix of at least 2 rows, got shape"):
                bound(torch.zeros(shape))


@every
def test_equals_its_definition(bound):
    scores = 4 * torch.randn(5, 5).double()
    torch.testing.assert_close(bound(scores), DEFINITIONS[bound](scores))


@every
def test_scores_may_be_large(bound):
    scores = torch.full((6, 6), -1000.0)
    scores.fill_diagonal_(1000.0).requires_grad_()
    value = bound(scores)
    value.backward()
    assert value.isfinite()
    assert scores.grad.isfinite().all()
    limits = {
        donsker_varadhan: 2000,
        nwj: 1000,
        jensen_shannon: 2 * math.log(2),
        smile: 1005,
        info_nce: math.log(6),
    }
    assert value.item() == pytest.approx(limits[bound])


def test_a_baseline_of_the_partition_touches_donsker_varadhan():
    scores = (3 * torch.randn(9, 9).double()).requires_grad_()
    value = donsker_varadhan(scores)
    log_partition = log_mean_exp(scores).detach()
    touching = tuba(scores, log_baseline=log_partition)
    torch.testing.assert_close(touching, value)
    torch.testing.assert_close(
        torch.autograd.grad(touching, scores), torch.autograd.grad(value, scores)
    )
    assert tuba(scores, log_baseline=log_partition + 0.5) < value
    assert tuba(scores, log_baseline=log_partition - 0.5) < value


def test_smile_without_a_limit_is_donsker_varadhan():
    scores = 9 * torch.randn(9, 9)
    torch.testing.assert_close(smile(scores, clip=math.inf), donsker_varadhan(scores))
    assert smile(scores, clip=1.0) > donsker_varadhan(scores)


@every
def test_a_sample_of_twice_the_weight(bound):
    """Is one that stands there twice, where no pair of the two is among the negatives."""
    scores = torch.randn(5, 5).double()
    rows = torch.tensor([0, 1, 2, 3, 4, 4])
    log_weights = torch.bincount(rows).double().log() - 7
    found = bound(scores, log_weights)
    p = torch.bincount(rows).double() / 6
    pairs = torch.outer(p, p).fill_diagonal_(0)
    pairs /= pairs.sum()
    diagonal = p @ scores.diagonal()
    expected = {
        donsker_varadhan: lambda: diagonal - (pairs * scores.exp()).sum().log(),
        nwj: lambda: diagonal - (pairs * scores.exp()).sum() / math.e,
        smile: lambda: diagonal - (pairs * scores.exp()).sum().log(),  # none reaches e^5
        jensen_shannon: lambda: (
            2 * math.log(2) - p @ softplus(-scores.diagonal()) - (pairs * softplus(scores)).sum()
        ),
        info_nce: lambda: diagonal - p @ (scores.exp() @ p).log(),
    }
    torch.testing.assert_close(found, expected[bound]())


@every
def test_terms_are_the_bound_and_its_slopes(bound):
    scores = torch.randn(7, 7).double()
    terms = pointwise_terms(bound, scores)
    torch.testing.assert_close(terms.mean(), bound(scores))
    step = 1e-6 * torch.eye(7).double()
    slopes = torch.stack([(bound(scores, a) - bound(scores, -a)) / 2e-6 for a in step])
    torch.testing.assert_close(terms, bound(scores) + 7 * slopes, rtol=1e-5, atol=1e-6)


def log_ratio(nats, squares, products, dim):
    """log p(x, y) / p(x) p(y) of |x|^2 + |y|^2 and x y."""
    squared = 1 - math.exp(-2 * nats / dim)
    return nats - (squared * squares - 2 * math.sqrt(squared) * products) / (2 * (1 - squared))


def normal_scores(nats, dim, n_samples, seed):
    """The log ratio of every pair of samples."""
    x, y = (
        torch.from_numpy(side) for side in CorrelatedNormals(nats, dim, dim).sample(n_samples, seed)
    )
    return log_ratio(nats, (x**2).sum(1)[:, None] + (y**2).sum(1), x @ y.T, dim)


def test_the_ratio_is_that_of_torch_distributions():
    sampler = CorrelatedNormals(1.5, 2, 2)
    covariance = torch.from_numpy(sampler.covariance)
    joint = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance)
    standard = torch.distributions.Normal(torch.zeros(()).double(), 1.0)
    both = torch.cat([torch.from_numpy(side) for side in sampler.sample(6, 0)], dim=1)
    expected = joint.log_prob(both) - standard.log_prob(both).sum(1)
    torch.testing.assert_close(normal_scores(1.5, 2, 6, 0).diagonal(), expected)


@every
@pytest.mark.parametrize(("dim", "nats"), [(2, 1.5), (20, 1.0)])
def test_the_best_critic_gives_the_truth(bound, dim, nats):
    """And the standard error is the spread of many estimates."""
    shift = 1.0 if bound is nwj else 0.0  # the best critic is 1 + log ratio
    kwargs = {"clip": 20.0} if bound is smile else {}
    found, stated = [], []
    for seed in range(60):
        scores = normal_scores(nats, dim, 500, seed) + shift
        terms = pointwise_terms(lambda f, a: bound(f, a, **kwargs), scores)
        found.append(terms.mean())
        stated.append(terms.std() / math.sqrt(500))
    found, stated = torch.stack(found), torch.stack(stated)
    truth = twice_jensen_shannon(dim, nats) if bound is jensen_shannon else nats
    # InfoNCE of N samples falls short by about (E_Q r^2 - 1) / 2N.
    lack = (math.exp(2 * nats) - 1) / 1000 if bound is info_nce else 0.0
    assert found.mean().item() == pytest.approx(truth - lack, abs=0.015)
    assert stated.mean().item() == pytest.approx(found.std().item(), rel=0.25)


def twice_jensen_shannon(dim, nats):
    """By its definition, from many draws of the log ratio under P and under Q."""
    x, y = (
        torch.from_numpy(side) for side in CorrelatedNormals(nats, dim, dim).sample(200_000, 999)
    )
    p, q = (log_ratio(nats, (x**2 + y**2).sum(1), (x * y).sum(1), dim) for y in (y, y.roll(1, 0)))
    return (2 * math.log(2) - softplus(-p).mean() - softplus(q).mean()).item()


def test_jensen_shannon_stops_at_two_log_two_and_info_nce_at_log_n():
    scores = normal_scores(12.0, 20, 100, 0)
    assert jensen_shannon(scores).item() == pytest.approx(2 * math.log(2), abs=0.1)
    assert jensen_shannon(scores) < 2 * math.log(2)
    assert info_nce(scores).item() == pytest.approx(math.log(100), abs=0.05)
    assert info_nce(scores) < math.log(100)
    assert donsker_varadhan(scores) > 6


def test_small_batches_bias_the_gradient_of_donsker_varadhan():
    """But not that of the bound whose baseline is the partition of all samples."""
    scores = normal_scores(1.5, 2, 400, 0)
    own = torch.eye(400, dtype=torch.bool)

    # The critic scale * s: at the best one the gradient is 0, at 0.8 it is not.
    def slope(bound, rows):
        scale = torch.tensor(0.8, dtype=torch.double, requires_grad=True)
        return torch.autograd.grad(bound(scale * scores[rows][:, rows]), scale)[0]

    everything = slope(donsker_varadhan, torch.arange(400))
    log_partition = (0.8 * scores).masked_fill(own, -math.inf).logsumexp((0, 1))
    log_partition = log_partition - math.log(400 * 399)
    draws = [torch.randperm(400)[:4] for _ in range(2000)]
    naive = torch.stack([slope(donsker_varadhan, rows) for rows in draws])
    corrected = torch.stack(
        [slope(lambda f: tuba(f, log_baseline=log_partition), rows) for rows in draws]
    )
    error = corrected.std() / math.sqrt(len(draws))
    assert abs(corrected.mean() - everything) < 3 * error
    assert naive.mean() - everything > 8 * naive.std() / math.sqrt(len(draws))


def test_the_divergence_of_normals():
    """The closed form behind the informations of normals, against torch's."""
    mixing = torch.randn(2, 3, 3).double()
    mean, covariance = torch.randn(2, 3).double(), mixing @ mixing.mT + torch.eye(3)
    p, q = (
        torch.distributions.MultivariateNormal(*each) for each in zip(mean, covariance, strict=True)
    )
    inverse, apart = covariance[1].inverse(), mean[1] - mean[0]
    expected = (
        covariance[1].logdet()
        - covariance[0].logdet()
        - 3
        + (inverse @ covariance[0]).trace()
        + apart @ inverse @ apart
    ) / 2
    found = torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    sampler = CorrelatedNormals(2.5, 2, 3, mix=True)
    joint = torch.from_numpy(sampler.covariance)
    apart = torch.block_diag(joint[:2, :2], joint[2:, 2:])
    zero = torch.zeros(5).double()
    divergence = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(zero, joint),
        torch.distributions.MultivariateNormal(zero, apart),
    )
    assert divergence.item() == pytest.approx(2.5, abs=1e-10)
