"""InfoNCE against its definition."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from captum_mi.estimators import info_nce


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
    with pytest.raises(ValueError, match=r"square matrix, got shape \(2, 3\)"):
        info_nce(torch.zeros(2, 3))
