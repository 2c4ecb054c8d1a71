"""The per-sample bottleneck (IBA) against Schulz et al.'s formulas, element by element."""

import math
import warnings

import pytest
import torch
from torch import nn

from captum_mi import MultimodalIB
from captum_mi.attr import LayerStatistics

SHAPE = (2, 5, 4)
SETTINGS = {"beta": 0.5, "n_steps": 5, "n_samples": 3, "seed": 3}


class Network(nn.Module):
    """Channel 1 is always negative; six elements are zero for every image."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.layer = nn.Identity()
        self.second = nn.Conv2d(2, 3, 2)
        self.last = nn.Linear(3, 3)
        self.register_buffer("open", torch.ones(SHAPE))
        self.open[0, 1, 1:3] = self.open[1, 2:4, 0:2] = 0
        with torch.no_grad():
            self.first.bias.copy_(torch.tensor([1.0, -9.0]))
            self.last.weight.mul_(10)  # the score counts beside the information

    def forward(self, x):
        return self.behind(self.layer(self.first(x) * self.open))

    def behind(self, z):
        return self.last(torch.tanh(self.second(z)).mean((2, 3)))


@pytest.fixture
def network():
    return Network().double().eval()


@pytest.fixture
def data():
    return 2 * torch.randn(40, 1, 7, 6).double()


def values(network, x):
    with torch.no_grad():
        return network.first(x) * network.open


def elements():
    return [(c, i, j) for c in range(SHAPE[0]) for i in range(SHAPE[1]) for j in range(SHAPE[2])]


def moments(samples):
    """Mean, deviation and share of nonzero samples of each element, as nested lists would give."""
    mean, std, active = {}, {}, {}
    for c, i, j in elements():
        seen = [float(sample[c, i, j]) for sample in samples]
        mean[c, i, j] = sum(seen) / len(seen)
        squares = sum((value - mean[c, i, j]) ** 2 for value in seen)
        std[c, i, j] = max(0.01, math.sqrt(squares / (len(seen) - 1)))
        active[c, i, j] = sum(value != 0.0 for value in seen) / len(seen)
    return mean, std, active


def reflected(position, size):
    """The index that a position outside the map mirrors, its border not repeated."""
    if position < 0:
        return -position
    return 2 * (size - 1) - position if position >= size else position


def smooth(plane, sigma):
    """Gaussian of 2 round(2 sigma) + 1 elements a side; ``plane`` is {element: value}."""
    reach = round(2 * sigma)
    weights = {
        (di, dj): math.exp(-(di * di + dj * dj) / (2 * sigma * sigma))
        for di in range(-reach, reach + 1)
        for dj in range(-reach, reach + 1)
    }
    total = sum(weights.values())
    return {
        (c, i, j): sum(
            weight / total * plane[c, reflected(i + di, SHAPE[1]), reflected(j + dj, SHAPE[2])]
            for (di, dj), weight in weights.items()
        )
        for c, i, j in elements()
    }


def as_tensor(plane):
    return torch.stack([plane[element] for element in elements()]).reshape(SHAPE)


def bottleneck(network, samples, z, target, *, sigma, beta, n_steps, n_samples, seed):
    """Adam's optimization of the open bottleneck, its loss written out element by element."""
    mean, std, active = moments(samples)
    alive = {element: float(active[element] > 0.01) for element in elements()}
    alpha = torch.full(SHAPE, 5.0).double().requires_grad_()
    first, second = torch.zeros(2, *SHAPE).double()
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, n_steps + 1):
        passing = {e: 1 / (1 + torch.exp(-alpha[e])) for e in elements()}
        if sigma is not None:
            passing = smooth(passing, sigma)
        nats = {}
        for e in elements():
            # KL between N(lambda z + (1 - lambda) mu, ((1 - lambda) sigma)^2) and N(mu, sigma^2)
            center = passing[e] * z[e] + (1 - passing[e]) * mean[e]
            width = (1 - passing[e]) * std[e]
            distance = (width**2 + (center - mean[e]) ** 2) / (2 * std[e] ** 2)
            nats[e] = alive[e] * (torch.log(std[e] / width) + distance - 0.5)
        capacity = as_tensor(nats)
        if step == n_steps:
            return capacity.detach()
        loss = beta * capacity.mean()
        noise = torch.randn((n_samples, 1, *SHAPE), generator=generator, dtype=torch.float64)
        for draw in noise[:, 0]:
            mixed = {
                e: alive[e] * (passing[e] * z[e] + (1 - passing[e]) * (mean[e] + std[e] * draw[e]))
                for e in elements()
            }
            logits = network.behind(as_tensor(mixed)[None])[0]
            evidence = logits[target] - torch.log(torch.exp(logits).sum())
            loss = loss - evidence / n_samples
        (gradient,) = torch.autograd.grad(loss, alpha)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        alpha = (alpha - move).detach().requires_grad_()
    return None


@pytest.mark.parametrize("sigma", [1.0, 0.6, None])
def test_equals_the_bottleneck_written_out(network, data, sigma):
    prior = LayerStatistics.fit(network, network.layer, data.split(16))
    samples = values(network, data)
    network.open[0, 1, 1:3] = 1  # what no image of the data moved, this one does
    x = 2 * torch.randn(2, 1, 7, 6).double()
    found = MultimodalIB(network, network.layer).attribute(
        x, [1, 2], objective="log_softmax", prior=prior, smoothing=sigma, **SETTINGS
    )
    latent = values(network, x)
    assert (latent[:, 0, 1, 1:3] != 0).all()
    for row, target in enumerate((1, 2)):
        expected = bottleneck(network, samples, latent[row], target, sigma=sigma, **SETTINGS)
        assert expected.std() > 0.01
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_statistics_equal_the_moments_written_out(network, data):
    prior = LayerStatistics.fit(network, network.layer, data.split(16))
    mean, std, active = moments(values(network, data))
    for e in elements():
        assert prior.mean[e] == pytest.approx(mean[e], rel=1e-5, abs=1e-6)
        assert max(0.01, prior.std[e]) == pytest.approx(std[e], rel=1e-5)
        assert prior.active[e] == pytest.approx(active[e])
    # Always negative is active, always zero is not.
    assert set(prior.active[1].flatten().tolist()) == {0.0, 1.0}
    assert (prior.mean[1] < 0).sum() == 16


@pytest.mark.parametrize("random", [nn.Dropout(0.3), nn.BatchNorm1d(4)])
def test_statistics_warn_of_training_mode(random):
    model = nn.Sequential(nn.Linear(3, 4), random, nn.Linear(4, 2))
    loader = [torch.randn(8, 3)]
    with pytest.warns(UserWarning, match=r"is in training mode.* call model.eval\(\) first"):
        LayerStatistics.fit(model, "2", loader)
    with pytest.warns(UserWarning, match="is in training mode"):
        LayerStatistics.fit(model.forward, model[2], loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LayerStatistics.fit(model.eval(), "2", loader)
