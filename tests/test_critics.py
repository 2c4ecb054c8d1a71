"""Critics of a global representation and places: scores, sums in parts, and knowing the place."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_mi.estimators.bounds import pointwise_info_nce
from captum_mi.estimators.critics import ConcatCritic, PlaceLinear, SeparableCritic
from captum_mi.estimators.local_bounds import local_info_nce

CRITICS = [SeparableCritic, ConcatCritic]
IMAGES, PLACES, HIDDEN = 7, 4, 8


@pytest.fixture(params=CRITICS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def data():
    return torch.randn(IMAGES, 5), torch.randn(IMAGES, PLACES, 3)


def embedded(critic, z, x):
    return critic.embed_global(z), critic.embed_local(x)


def all_scores(critic, z, x):
    """(N, N, K): a pair at a time, each as if it were matched."""
    z, x = embedded(critic, z, x)
    rows = [
        torch.stack([critic.matched(z[n : n + 1], x[m : m + 1])[0] for m in range(len(x))])
        for n in range(len(z))
    ]
    return torch.stack(rows)


class LargestTensor(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had that was made inside."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numel = max(self.numel, made.numel())
        return made


@pytest.mark.parametrize("places", [None, PLACES])
def test_crossed_scores_are_those_of_matched_pairs(kind, places):
    critic, (z, x) = kind(5, 3, HIDDEN, places), data()
    expected = all_scores(critic, z, x)
    z, x = embedded(critic, z, x)
    crossed = critic.crossed(z, x.flatten(0, 1)).reshape(IMAGES, IMAGES, PLACES)
    torch.testing.assert_close(crossed, expected)
    torch.testing.assert_close(critic.matched(z, x), expected.diagonal().T)


def test_scores_are_those_of_their_formula():
    z, x = data()
    critic = SeparableCritic(5, 3, HIDDEN, PLACES)
    g = critic.to_score[0](critic.of_global(z).relu() / math.sqrt(HIDDEN))
    place = critic.of_local
    units = [place.linear(x[:, k]) * place.scale[k] + place.shift[k] for k in range(PLACES)]
    h = torch.stack([critic.to_score[1](each.relu()) for each in units], dim=1)
    expected = (g[:, None] * h).sum(-1)
    torch.testing.assert_close(critic.matched(*embedded(critic, z, x)), expected)

    critic = ConcatCritic(5, 3, HIDDEN)
    weight = torch.cat([critic.of_global.weight, critic.of_local.linear.weight], dim=1)
    bias = critic.of_global.bias + critic.of_local.linear.bias
    side_by_side = torch.cat([z[:, None].expand(-1, PLACES, -1), x], dim=-1)
    expected = critic.to_score((side_by_side @ weight.T + bias).relu()).squeeze(-1)
    torch.testing.assert_close(critic.matched(*embedded(critic, z, x)), expected)


@pytest.mark.parametrize("images_at_once", [1, 2, 3, IMAGES - 1, IMAGES, 100])
def test_in_parts_the_sum_over_others_and_its_gradient_are_the_same(kind, images_at_once):
    critic, (z, x) = kind(5, 3, HIDDEN, PLACES).double(), (each.double() for each in data())
    weights = torch.randn(IMAGES).double()
    own = torch.eye(IMAGES, dtype=torch.bool)[..., None]
    others = all_scores(critic, z, x).masked_fill(own, -math.inf).flatten(1).logsumexp(1)
    at_once = images_at_once * IMAGES * PLACES * critic.numbers_per_pair
    in_parts = critic.log_sum_others(*embedded(critic, z, x), at_once)
    torch.testing.assert_close(in_parts, others)
    parameters = list(critic.parameters())
    actual, expected = (
        torch.autograd.grad((weights * each).sum(), parameters, allow_unused=True)
        for each in (in_parts, others)
    )
    assert max(grad.abs().max() for grad in expected if grad is not None) > 0.01
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("at_once", [1, 100, 10**6])
def test_in_parts_the_sum_over_kept_places_is_the_same(kind, at_once):
    critic, (z, _) = kind(5, 3, HIDDEN), data()
    kept, first = torch.randn(9, HIDDEN), critic.embed_global(z)
    expected = critic.matched(first, kept[None].expand(IMAGES, -1, -1)).exp().sum(1).log()
    torch.testing.assert_close(critic.log_sum(first, kept, at_once), expected)


def test_scores_of_the_own_image_do_not_reach_the_sum_however_large(kind):
    critic, (z, x) = kind(5, 3, HIDDEN).double(), (each.double() for each in data())
    z, x = embedded(critic, z, x)
    for at_once in (1, 10**6):
        before = critic.log_sum_others(z, x, at_once)
        for n in range(IMAGES):
            moved = x.clone()
            moved[n] = 1e6
            after = critic.log_sum_others(z, moved, at_once)
            assert after[n] == before[n]
            assert not torch.equal(after, before)


def test_the_bound_of_its_scores_is_the_bound_of_their_matrix(kind):
    critic, (z, x) = kind(5, 3, HIDDEN, PLACES), data()
    expected = local_info_nce(all_scores(critic, z, x))
    z, x = embedded(critic, z, x)
    others = critic.log_sum_others(z, x, 60)[:, None]
    found = pointwise_info_nce(critic.matched(z, x), others, (IMAGES - 1) * PLACES)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gradients", [False, True])
def test_memory_is_bounded_by_the_scores_at_once(kind, gradients, monkeypatch):
    images, places, hidden = 40, 10, 3
    critic, parts = kind(5, 3, hidden, places), []
    z, x = embedded(critic, torch.randn(images, 5), torch.randn(images, places, 3))
    z, x = (each.detach().requires_grad_(gradients) for each in (z, x))
    whole = images**2 * places * critic.numbers_per_pair
    at_once = whole // 10
    crossed = critic.crossed
    monkeypatch.setattr(critic, "crossed", lambda z, x: (parts.append(len(x)), crossed(z, x))[1])
    with LargestTensor() as made:
        found = critic.log_sum_others(z, x, at_once)
        assert parts == [40] * 10
        if gradients:
            found.sum().backward()
            assert parts == [40] * 20  # scored again, for nothing was kept
    assert made.numel == at_once
    with LargestTensor() as made:
        critic.log_sum_others(z, x, whole)
    assert made.numel == whole
    with LargestTensor() as made:
        critic.log_sum(z.detach(), torch.randn(images * places, hidden), at_once)
    assert made.numel == at_once


def test_one_that_knows_the_place_scores_a_value_by_where_it_is(kind):
    z, x = data()
    same = x[:, :1].expand(-1, PLACES, -1)
    aware, blind = kind(5, 3, HIDDEN, PLACES), kind(5, 3, HIDDEN)
    scores = blind.matched(*embedded(blind, z, same))
    torch.testing.assert_close(scores, scores[:, :1].expand(-1, PLACES))
    scores = aware.matched(*embedded(aware, z, same))
    assert (scores.std(1) > 1e-3).all()
    order = torch.tensor([2, 0, 3, 1])
    moved, still = (blind.matched(*embedded(blind, z, each)) for each in (x[:, order], x))
    torch.testing.assert_close(moved, still[:, order])
    moved, still = (aware.matched(*embedded(aware, z, each)) for each in (x[:, order], x))
    assert not torch.allclose(moved, still[:, order], atol=1e-3)


def test_each_place_has_a_scale_and_a_shift():
    layer, plain = PlaceLinear(3, 8, places=4), PlaceLinear(3, 8, None)
    x = torch.randn(5, 4, 3)
    changed = x.clone()
    changed[:, 2] += 1
    moved = (layer(changed) - layer(x)).abs().amax((0, 2))
    assert (moved > 0).tolist() == [False, False, True, False]
    with torch.no_grad():
        layer.scale[1], layer.shift[1] = 0.0, 7.0
    assert (layer(x)[:, 1] == 7).all()
    assert torch.equal(plain(x), nn.functional.linear(x, plain.linear.weight, plain.linear.bias))
    assert [name for name, _ in plain.named_parameters()] == ["linear.weight", "linear.bias"]
