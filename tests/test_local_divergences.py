"""Donsker-Varadhan and Jensen-Shannon of a representation and places: loops and known truths."""

import math

import pytest
import torch

from captum_mi.estimators import (
    local_donsker_varadhan,
    local_jensen_shannon,
)

BOUNDS = [local_donsker_varadhan, local_jensen_shannon]


def loops(scores):
    """Both definitions, one pair at a time."""
    n_images, _, n_places = scores.shape
    own, others = [], []
    for n in range(n_images):
        for m in range(n_images):
            for k in range(n_places):
                (own if n == m else others).append(float(scores[n, m, k]))
    dv = sum(own) / len(own) - math.log(sum(map(math.exp, others)) / len(others))
    jsd = sum(math.log(1 / (1 + math.exp(-s))) for s in own) / len(own)
    jsd += sum(math.log(1 - 1 / (1 + math.exp(-s))) for s in others) / len(others)
    return dv, jsd + 2 * math.log(2)


@pytest.mark.parametrize("shape", [(2, 1), (3, 4), (5, 2)])
def test_equal_their_definitions_pair_by_pair(shape):
    scores = 2 * torch.randn(shape[0], *shape).double()
    found = [float(bound(scores)) for bound in BOUNDS]
    assert found == pytest.approx(loops(scores))


def test_own_places_are_matched_and_never_others():
    """Each own score moves the bound by its weight, and by nothing through the others."""
    scores = torch.randn(4, 4, 3).double()
    raised = scores.clone()
    raised[2, 2, 1] += 5
    difference = local_donsker_varadhan(raised) - local_donsker_varadhan(scores)
    assert float(difference) == pytest.approx(5 / 12)


def test_minus_infinity_elsewhere_is_a_pair_told_apart():
    scores = torch.randn(3, 3, 2).double()
    scores[0, 1] = -math.inf
    assert [float(bound(scores)) for bound in BOUNDS] == pytest.approx(
        [float(bound(scores.nan_to_num(neginf=-600))) for bound in BOUNDS]
    )


def test_the_best_critic_of_a_gaussian_pair():
    """Its log ratio gives the information, and twice the Jensen-Shannon divergence."""
    rho, n_images = 0.8, 3000
    z = torch.randn(n_images).double()
    x = rho * z + math.sqrt(1 - rho**2) * torch.randn(n_images).double()
    spread = 1 - rho**2
    log_ratio = -((x[None] - rho * z[:, None]) ** 2) / (2 * spread) + x[None] ** 2 / 2
    log_ratio -= math.log(spread) / 2
    truth = -0.5 * math.log(spread)
    found = local_donsker_varadhan(log_ratio[..., None])
    of_this_sample = float(log_ratio.diagonal().mean())
    assert float(found) == pytest.approx(of_this_sample, abs=0.02)
    assert of_this_sample == pytest.approx(truth, abs=4 * rho / math.sqrt(n_images))
    # By quadrature: JSD = H(M) - (H(P) + H(Q)) / 2 on a grid.
    grid = torch.linspace(-7, 7, 1401).double()
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    q = (-(a**2 + b**2) / 2).exp() / (2 * math.pi)
    p = (-(a**2 - 2 * rho * a * b + b**2) / (2 * spread)).exp() / (2 * math.pi * spread**0.5)
    m = (p + q) / 2
    divergence = sum(torch.special.xlogy(one, one / m).sum() for one in (p, q)) * 0.01**2
    assert float(local_jensen_shannon(log_ratio[..., None])) == pytest.approx(
        float(divergence), abs=0.03
    )
    assert float(divergence) == pytest.approx(0.2673, abs=1e-3)


def test_caps_and_constants():
    perfect = 200 * torch.eye(6).double()[:, :, None].expand(-1, -1, 5) - 100
    assert float(local_jensen_shannon(perfect)) == pytest.approx(2 * math.log(2))
    assert float(local_donsker_varadhan(perfect)) == pytest.approx(200)  # has no cap
    for constant in (0.0, 700.0, -700.0):
        scores = torch.full((5, 5, 3), constant).double()
        assert float(local_donsker_varadhan(scores)) == pytest.approx(0, abs=1e-9)
    assert float(local_jensen_shannon(torch.zeros(5, 5, 3))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 4), (3, 3), (2, 2, 1, 1)])
def test_other_shapes_are_refused(bound, shape):
    with pytest.raises(ValueError, match=r"must be \(N, N, K\), N at least 2, got shape \("):
        bound(torch.zeros(shape))
