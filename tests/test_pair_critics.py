"""Critics of pairs against reading one pair after another."""

import pytest
import torch
from torch import nn

from captum_mi.estimators.pair_critics import PAIR_CRITICS, ConcatPairs, SeparablePairs, tower

SHAPES = {"vectors": ((3,), (2,)), "images": ((2, 9, 5), (1, 33, 32)), "both": ((3,), (1, 16, 16))}
shaped = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
every = pytest.mark.parametrize("build", PAIR_CRITICS.values(), ids=PAIR_CRITICS)


@every
@shaped
def test_every_pair_is_scored_as_if_alone(build, shapes):
    critic = build(*shapes, (8, 4)).double()
    x, y = (torch.randn(n, *shape).double() for n, shape in zip((4, 5), shapes, strict=True))
    scores = critic(x, y)
    expected = [[critic(a[None], b[None]).item() for b in y] for a in x]
    torch.testing.assert_close(scores, torch.tensor(expected).double())
    assert scores.std() > 0
    torch.testing.assert_close(critic.score(x, y), scores.detach())
    assert not critic.score(x, y).requires_grad


@every
def test_scoring_in_parts(build, monkeypatch):
    critic = build((3,), (2,), (8,))
    x, y = torch.randn(9, 3), torch.randn(4, 2)
    read = []
    critic.of_x.register_forward_hook(lambda _module, args, _output: read.append(len(args[0])))
    monkeypatch.setattr(
        "captum_mi.estimators.pair_critics.AT_ONCE", 4 * 2 * critic.numbers_per_pair
    )
    torch.testing.assert_close(critic.score(x, y), critic(x, y).detach())
    assert read == [2, 2, 2, 2, 1, 9]


def test_a_concat_critic_is_a_network_of_x_and_y_side_by_side():
    critic = ConcatPairs((3,), (2,), (8, 4))
    first = nn.Linear(5, 8)
    first.weight.data = torch.cat([critic.of_x[0].weight, critic.of_y[0].weight], dim=1)
    first.bias.data = critic.of_x[0].bias + critic.of_y[0].bias
    network = nn.Sequential(first, *critic.of_both)
    assert [type(layer).__name__ for layer in network] == [
        "Linear",
        "LeakyReLU",
        "Linear",
        "LeakyReLU",
        "Linear",
    ]
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    expected = network(torch.cat([x, y], dim=1))[:, 0]
    torch.testing.assert_close(critic(x, y).diagonal(), expected)


def test_a_separable_critic_starts_with_small_scores():
    scores = SeparablePairs((20,), (20,))(torch.randn(200, 20), torch.randn(200, 20))
    assert 0.02 < scores.std() < 1


@pytest.mark.parametrize(
    ("shape", "blocks", "features"),
    [((1, 16, 16), 2, 128), ((3, 32, 32), 3, 128), ((1, 28, 20), 3, 96), ((2, 4, 3), 0, 24)],
)
def test_images_are_halved_down_to_four_pixels(shape, blocks, features):
    network = tower(shape, [10, 7])
    assert sum(isinstance(layer, nn.Conv2d) for layer in network) == blocks
    assert [layer.in_features for layer in network if isinstance(layer, nn.Linear)] == [
        features,
        10,
    ]
    assert network(torch.randn(2, *shape)).shape == (2, 7)
