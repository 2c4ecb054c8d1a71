"""InfoNCE of a representation and places: against loops, its caps and its ill-posed forms."""

import math

import pytest
import torch

from captum_mi.estimators import info_nce, local_info_nce, pointwise_info_nce


def loops(scores):
    """The definition, one pair at a time."""
    n_images, _, n_places = scores.shape
    found = torch.zeros(n_images, n_places, dtype=scores.dtype)
    for n in range(n_images):
        others = [scores[n, m, k].exp() for m in range(n_images) for k in range(n_places) if m != n]
        for k in range(n_places):
            own = scores[n, n, k].exp()
            found[n, k] = scores[n, n, k] - ((own + sum(others)) / (1 + len(others))).log()
    return found


def perfect(n_images, n_places):
    """Scores that tell every place of the own image from all of the others'."""
    return 1000 * torch.eye(n_images)[:, :, None].expand(-1, -1, n_places)


def gaussian_pairs(rho, n_samples):
    """Pairs of correlated normal numbers, and the optimal critic: log p(x | z) - log p(x)."""
    z = torch.randn(n_samples).double()
    x = rho * z + math.sqrt(1 - rho**2) * torch.randn(n_samples).double()

    def critic(z, x):
        return -((x - rho * z) ** 2) / (2 * (1 - rho**2)) + x**2 / 2 - math.log(1 - rho**2) / 2

    return z, x, critic


@pytest.mark.parametrize("shape", [(2, 1), (3, 4), (5, 2)])
def test_equals_the_definition_pair_by_pair(shape):
    n_images, n_places = shape
    scores = 3 * torch.randn(n_images, n_images, n_places).double()
    torch.testing.assert_close(local_info_nce(scores), loops(scores))


def test_of_one_place_its_mean_is_info_nce():
    scores = 2 * torch.randn(6, 6, 1).double()
    torch.testing.assert_close(local_info_nce(scores).mean(), info_nce(scores[:, :, 0]))


def test_the_own_images_other_places_are_no_negatives():
    scores = torch.randn(4, 4, 3).double()
    changed = scores.clone()
    changed[2, 2, 1] += 5
    difference = local_info_nce(changed) - local_info_nce(scores)
    assert difference[2, 1] > 1
    difference[2, 1] = 0
    assert torch.equal(difference, torch.zeros(4, 3).double())


def test_the_cap_counts_the_places_of_other_images():
    found = local_info_nce(perfect(64, 49))
    torch.testing.assert_close(found, torch.full((64, 49), math.log(1 + 63 * 49)))
    assert found.mean().item() == pytest.approx(8.035, abs=5e-4)
    assert (local_info_nce(100 * torch.randn(8, 8, 5)) <= math.log(1 + 7 * 5) + 1e-5).all()


def test_with_the_own_images_places_left_in_the_cap_is_log_n():
    """The other way to repair the printed equation: no gain from K."""
    scores = perfect(64, 49)
    matched = scores.diagonal().T
    left_in = matched - scores.flatten(1).logsumexp(1)[:, None] + math.log(64 * 49)
    assert left_in.mean().item() == pytest.approx(math.log(64), abs=1e-4)
    assert left_in.mean().item() == pytest.approx(4.159, abs=5e-4)


def test_scores_that_say_nothing_give_nothing():
    for constant in (0.0, -700.0, 700.0):
        found = local_info_nce(torch.full((5, 5, 3), constant).double())
        torch.testing.assert_close(found, torch.zeros(5, 3).double())
    # Of independent pairs no critic makes more than nothing, in the mean.
    assert local_info_nce(torch.randn(200, 200, 5)).mean() < 0


def test_infinite_scores():
    scores = torch.randn(3, 3, 2)
    scores[0, 1:] = -math.inf  # no other image's place looks like its own
    scores[1, 1, 0] = -math.inf  # the own one is impossible
    found = local_info_nce(scores)
    torch.testing.assert_close(found[0], torch.full((2,), math.log(5)))
    assert found[1, 0] == -math.inf
    assert found[1, 1].isfinite()
    assert found[2].isfinite().all()


def test_gradients_are_those_of_the_definition():
    scores = torch.randn(3, 3, 2).double().requires_grad_()
    weights = torch.randn(3, 2).double()
    actual, expected = (
        torch.autograd.grad((weights * bound(scores)).sum(), scores)[0]
        for bound in (local_info_nce, loops)
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 4), (3, 3), (2, 2, 1, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(N, N, K\), N at least 2, got shape \("):
        local_info_nce(torch.zeros(shape))


def test_the_pointwise_form_broadcasts_and_is_exact_far_from_zero():
    matched = torch.tensor([[0.0, 2.0, -5000.0], [1.0, 5000.0, 0.0]]).double()
    others = torch.tensor([[1.5], [-1.0]]).double()
    found = pointwise_info_nce(matched, others, 9)
    assert found.shape == (2, 3)
    for n, k in [(0, 0), (0, 1), (1, 0), (1, 2)]:
        s, rest = matched[n, k].item(), math.exp(others[n, 0])
        expected = s - math.log((math.exp(s) + rest) / 10)
        assert found[n, k].item() == pytest.approx(expected)
    assert found[0, 2].item() == pytest.approx(-5000 - 1.5 + math.log(10))
    assert found[1, 1].item() == pytest.approx(math.log(10))


def test_it_bounds_the_information_of_gaussian_places():
    rho, n_images = 0.9, 400
    z, x, critic = gaussian_pairs(rho, n_images)
    scores = torch.zeros(n_images, n_images, 4).double()  # three places of noise: log r = 0
    scores[:, :, 0] = critic(z[:, None], x[None])
    found = local_info_nce(scores)
    truth = -0.5 * math.log(1 - rho**2)
    of_this_sample = critic(z, x).mean().item()
    assert of_this_sample == pytest.approx(truth, abs=0.1)
    assert found[:, 0].mean().item() == pytest.approx(of_this_sample, abs=0.03)
    assert found[:, 1:].mean().abs() < 0.03


def test_what_it_bounds_is_the_mean_over_places():
    """A critic may take from one place what it gives to another: alone, neither is bounded."""
    scores = torch.zeros(300, 300, 4)
    scores[:, :, 0] = 5.0  # whatever z and x are
    found = local_info_nce(scores).mean(0)
    assert found[0] > 1
    assert found.mean() < 0


def test_of_matched_pairs_alone_every_critic_gives_less_than_nothing():
    """Equation 2 as printed, read with the joint: mean f - log mean e^f over the same pairs."""
    for scale in (0.1, 1.0, 10.0):
        for _ in range(20):
            matched = scale * torch.randn(64, 49)
            assert matched.mean() - (matched.flatten().logsumexp(0) - math.log(64 * 49)) < 0
    constant = torch.full((64 * 49,), 0.3)
    assert (constant.mean() - constant.logsumexp(0) + math.log(64 * 49)).abs() < 1e-5


def test_read_with_the_product_it_is_the_lautum_information():
    """Equation 2 as printed: the numerator on unmatched pairs bounds KL(P_Z P_X || P_ZX)."""
    rho = 0.8
    z, x, critic = gaussian_pairs(rho, 400_000)
    unmatched = -critic(z, x.roll(1))  # the best critic of this direction
    matched = -critic(z, x)
    value = unmatched.mean() - (matched.logsumexp(0) - math.log(len(z)))
    lautum = rho**2 / (1 - rho**2) + 0.5 * math.log(1 - rho**2)
    information = -0.5 * math.log(1 - rho**2)
    assert value.item() == pytest.approx(lautum, abs=0.05)
    assert (lautum, information) == pytest.approx((1.267, 0.511), abs=5e-4)
