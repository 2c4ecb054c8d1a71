"""GANs on modes in the plane, with and without mutual information in their loss."""

import csv
import math
import sys

import pytest
import torch
from torch import nn

from captum_mi.benchmarks import __main__ as commands
from captum_mi.benchmarks import gan
from captum_mi.datasets import GaussianModes
from captum_mi.estimators.bounds import donsker_varadhan
from captum_mi.estimators.pair_critics import SeparablePairs
from captum_mi.infomax import InformationRegularizer, clipped


@pytest.fixture
def line():
    """Four modes on a line."""
    return GaussianModes(torch.tensor([[0.0, 0], [10, 0], [20, 0], [30, 0]]), 1.0)


def test_coverage_of_hand_made_samples(line):
    places = torch.tensor([[0.0, 0], [10, 2.9], [20, 3.1], [30, 0]])
    samples = places.repeat_interleave(torch.tensor([594, 198, 200, 8]), dim=0)
    found = line.coverage(samples)
    assert found.modes == 2  # the third's are too far, the fourth's fewer than 1 %
    assert found.high_quality == 0.8
    shares = torch.tensor([594, 198, 0, 8]) / 800
    uniform = torch.full((4,), 0.25)
    expected = sum(s * math.log(s / u) for s, u in zip(shares, uniform, strict=True) if s)
    assert found.divergence == pytest.approx(float(expected), rel=1e-5)


def test_one_percent_covers_a_mode(line):
    samples = line.modes[[0, 1]].repeat_interleave(torch.tensor([990, 10]), dim=0)
    assert line.coverage(samples).modes == 2


def test_coverage_without_a_sample_near_a_mode(line):
    assert line.coverage(torch.full((10, 2), 5.0)) == (0, 0.0, math.inf)


def test_ring_and_grid():
    ring, grid = GaussianModes.ring(), GaussianModes.grid()
    torch.testing.assert_close(ring.modes.norm(dim=1), torch.full((8,), 2.0))
    torch.testing.assert_close(ring.modes[2], torch.tensor([0.0, 2.0]))
    assert grid.modes.unique(dim=0).shape == (25, 2)
    assert grid.modes.min() == -2
    assert grid.modes.max() == 2


def test_samples_have_the_mixtures_moments():
    modes = GaussianModes(torch.tensor([[0.0, 0], [10, 0]]), 0.5)
    samples = modes.sample(20_000, torch.Generator().manual_seed(0))
    assert float((samples[:, 0] > 5).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(samples[:, 1].std()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("modes", "deviation", "wrong"),
    [(torch.zeros(3), 1.0, r"`modes` must be .* \(3,\)"), (torch.zeros(2, 2), 0.0, "`deviation`")],
)
def test_wrong_mixtures(modes, deviation, wrong):
    with pytest.raises(ValueError, match=wrong):
        GaussianModes(modes, deviation)


@pytest.mark.parametrize(("length", "expected"), [(50.0, 5.0), (2.0, 2.0)])
def test_clipped_gradient(length, expected):
    """One norm of all parameters: of L it is 5, of R ``length``; the direction stays R's."""
    a, b = (torch.zeros(1, requires_grad=True) for _ in range(2))
    loss = (3 * a + 4 * b).sum()
    term = length * (0.6 * a - 0.8 * b + 1).sum()
    gradient = torch.stack(torch.autograd.grad(clipped(term, loss, [a, b]), [a, b]))
    torch.testing.assert_close(gradient[:, 0], expected * torch.tensor([0.6, -0.8]))


@pytest.fixture
def regularizer():
    torch.manual_seed(0)
    return InformationRegularizer(SeparablePairs((2,), (3,), (8,)))


def test_information_reaches_the_network_alone(regularizer):
    codes, layer = torch.randn(16, 2), nn.Linear(2, 3)
    outputs = layer(codes)
    found = regularizer.information(codes, outputs)
    torch.testing.assert_close(found, donsker_varadhan(regularizer.critic(codes, outputs)))
    found.backward()
    assert layer.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in regularizer.parameters())


def test_critic_loss_reaches_the_critic_alone(regularizer):
    codes, layer = torch.randn(16, 2), nn.Linear(2, 3)
    outputs = layer(codes)
    regularizer.critic_loss(codes, outputs).backward()
    assert layer.weight.grad is None
    # The first batch's moving average is its own mean: the gradient is that of the bound itself.
    weights = list(regularizer.parameters())
    bound = donsker_varadhan(regularizer.critic(codes, outputs))
    for weight, slope in zip(weights, torch.autograd.grad(bound, weights), strict=True):
        torch.testing.assert_close(weight.grad, -slope)


def test_a_generator_learns_to_show_its_code(regularizer):
    """Nothing but the information trains it: its sign is right, and the critic follows."""
    layer = nn.Linear(4, 3)
    nn.init.normal_(layer.weight, std=0.05)
    both = nn.ModuleList([layer, regularizer])
    optimizer = torch.optim.Adam(both.parameters(), 1e-2)
    for _ in range(100):
        codes = torch.randn(64, 2)
        outputs = layer(torch.cat([torch.randn(64, 2), codes], dim=1))
        loss = regularizer.critic_loss(codes, outputs) - regularizer.information(codes, outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    of_noise, of_code = layer.weight.detach().split(2, dim=1)
    assert of_code.norm() > 5 * of_noise.norm()


def test_training_is_seeded_and_the_weight_matters():
    data = gan.DATA["ring"]
    once, again, without = (gan.train(data, weight, 3, seed=1) for weight in (1.0, 1.0, 0.0))
    assert torch.equal(once, again)
    assert once.shape == (gan.JUDGED, 2)
    assert not torch.equal(once, without)


def test_gan_command(monkeypatch, capsys, tmp_path):
    argv = ["benchmarks", "gan", "--steps", "2", "--seeds", "2", "--out", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", argv)
    commands.main()
    out = capsys.readouterr().out
    assert out.count("mean") == 4
    with (tmp_path / "new" / "gan.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = [(d, w, s) for d in ("ring", "grid") for w in ("0.0", "1.0") for s in "01"]
    assert [(row["data"], row["weight"], row["seed"]) for row in rows] == expected
    assert (tmp_path / "new" / "gan.png").stat().st_size > 10_000
