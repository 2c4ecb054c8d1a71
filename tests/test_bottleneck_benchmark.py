"""The information bottleneck by MINE on digits."""

import csv
import math
import sys

import pytest
import torch

from captum_mi.benchmarks import __main__ as commands
from captum_mi.benchmarks import bottleneck
from captum_mi.infoplane.classifier.data import Images


def test_known_noise_bounds_hold_the_information_of_gaussians():
    """Means of variance 3 in two dimensions: 2 * log(1 + 3) / 2 nats."""
    random = torch.Generator().manual_seed(0)
    means = 3**0.5 * torch.randn(4000, 2, generator=random)
    z = means + torch.randn(means.shape, generator=random)
    least, most = bottleneck.known_noise_bounds(means, z)
    assert least == pytest.approx(math.log(4), abs=0.04)
    assert most == pytest.approx(math.log(4), abs=0.04)
    assert least < most


def test_known_noise_bounds_by_hand():
    means = torch.tensor([[0.0], [2.0], [5.0]])
    z = torch.tensor([[0.5], [2.0], [4.0]])
    p = torch.exp(-((z - means.T) ** 2) / 2).double()
    least = torch.stack([(p[i, i] / p[i].mean()).log() for i in range(3)]).mean()
    most = torch.stack([(p[i, i] / ((p[i].sum() - p[i, i]) / 2)).log() for i in range(3)]).mean()
    assert bottleneck.known_noise_bounds(means, z) == pytest.approx((float(least), float(most)))


@pytest.fixture
def images():
    """Ten classes, each a lit pixel, with noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 10
    lit = torch.eye(10)[labels] + 0.1 * torch.rand(600, 10, generator=random)
    return Images(lit.reshape(-1, 1, 2, 5), labels)


def test_a_large_beta_makes_the_code_forget(images, monkeypatch):
    monkeypatch.setattr(bottleneck, "UNITS", 32)
    monkeypatch.setattr(bottleneck, "BATCH", 64)
    monkeypatch.setattr(bottleneck, "LEARNING_RATE", 5e-3)
    monkeypatch.setattr(bottleneck, "CRITIC_RATE", 1e-2)
    free, tight = (bottleneck.measure(images, images, beta, 150, seed=0) for beta in (0.0, 5.0))
    assert free.accuracy > 0.95
    assert tight.most < 0.3 < 2 < free.least
    assert tight.information < free.information


def test_bottleneck_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bottleneck, "BETAS", (0.0, 1.0))
    argv = ["benchmarks", "bottleneck", "--steps", "2", "--out", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", argv)
    commands.main()
    assert "1437 digits, 360 others" in capsys.readouterr().out
    with (tmp_path / "new" / "bottleneck.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["beta"] for row in rows] == ["0.0", "1.0"]
    assert (tmp_path / "new" / "bottleneck.png").stat().st_size > 10_000
