"""Deep InfoMax: its encoders, its objectives and the training, against loops and known values."""

import math

import pytest
import torch
from helpers import snapshot
from torch import nn

from captum_mi.infomax import (
    ConvEncoder,
    DeepInfoMax,
    Information,
    Mixture,
    PriorMatching,
    Training,
)
from captum_mi.infomax.encoders import image_batches, layer_values, places, read_layers
from captum_mi.infomax.objectives import BOUNDS, CRITICS
from captum_mi.infomax.training import train_supervised


def small_encoder():
    """Two layers, the second of which changes the first's tensor in place."""
    layers = [nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(48, 5))


def images(count=40):
    """Images of one bright bar, whose column and brightness differ."""
    generator = torch.Generator().manual_seed(2)
    drawn = 0.1 * torch.rand(count, 1, 8, 8, generator=generator)
    drawn[torch.arange(count), 0, :, torch.arange(count) % 8] += 1
    return drawn


@pytest.mark.parametrize(
    ("channels", "size", "shapes"),
    [
        (1, 28, {"conv1": (64, 14, 14), "conv2": (128, 7, 7), "fc": (1024,), "code": (64,)}),
        (3, 32, {"conv1": (64, 16, 16), "conv2": (128, 8, 8), "conv3": (256, 4, 4)}),
        (1, 8, {"conv1": (64, 8, 8), "conv2": (128, 4, 4)}),
    ],
)
def test_the_encoder_has_the_papers_shape(channels, size, shapes):
    encoder = ConvEncoder(channels, size)
    found = layer_values(encoder, list(shapes), torch.rand(2, channels, size, size))
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == shapes
    assert (found["conv2"] >= 0).all()
    kernels = [one.kernel_size for one in encoder.modules() if isinstance(one, nn.Conv2d)]
    assert kernels == ([(4, 4)] * 3 if size == 32 else [(5, 5)] * 2)
    with pytest.raises(ValueError, match="`size` must be at least 4 pixels, got 3"):
        ConvEncoder(1, 3)


def test_layers_are_read_as_they_fire_and_nothing_stays():
    model, x = small_encoder(), images(6)
    before = snapshot(model)
    found = layer_values(model, ["1", "4"], x)
    with torch.no_grad():
        torch.testing.assert_close(found["1"], model[1](model[0](x)))  # not yet changed in place
    found["4"].sum().backward()
    assert model[0].weight.grad is not None
    model.zero_grad()
    assert snapshot(model)["hooks"] == before["hooks"]
    with pytest.raises(ValueError, match="Sequential has no layer 'x'; there are 0, 1, 2, 3, 4"):
        layer_values(model, ["x"], x)
    twice = nn.Sequential(model[0], model[1], model[1])
    with pytest.raises(ValueError, match="layer '1' must fire once"):
        layer_values(twice, ["1"], x)


def test_reading_many_images_leaves_the_model_bit_by_bit():
    model = small_encoder().train()
    model[1].eval()
    before, state = snapshot(model), {k: v.clone() for k, v in model.state_dict().items()}
    whole = read_layers(model, ["0", "4"], images(1100))
    assert [tuple(one.shape) for one in whole.values()] == [(1100, 48), (1100, 5)]
    assert snapshot(model) == before
    assert all(torch.equal(state[name], one) for name, one in model.state_dict().items())
    loader = [(part, None) for part in images(1100).split(300)]
    torch.testing.assert_close(read_layers(model, ["4"], loader)["4"], whole["4"])
    with pytest.raises(TypeError, match="got a batch of str"):
        list(image_batches([("a", 1)], 3))


def test_places_are_in_the_order_of_the_map():
    map_ = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    found = places(map_)
    assert found.shape == (2, 20, 3)
    assert torch.equal(found[1, 7], map_[1, :, 1, 2])
    tokens = torch.rand(2, 9, 3)
    assert places(tokens) is tokens
    with pytest.raises(ValueError, match=r"got shape \(2, 1, 1, 1, 1\)"):
        places(torch.rand(2, 1, 1, 1, 1))


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("bound", BOUNDS)
def test_objectives_are_loops_over_codes_and_places(critic, bound):
    codes, maps = torch.randn(4, 6), torch.randn(4, 3, 2)
    objective = Information(6, 2, Mixture(bound=bound, critic=critic, units=8))
    network = objective.critic
    scores = torch.zeros(4, 4, 3)
    for n in range(4):
        for m in range(4):
            for k in range(3):
                z, x = network.embed_global(codes[n, None]), network.embed_local(maps[m, None])
                scores[n, m, k] = network.matched(z, x)[0, k]
    torch.testing.assert_close(objective.scores(codes, maps), scores)
    own = [scores[n, n, k] for n in range(4) for k in range(3)]
    others = [[scores[n, m, k] for m in range(4) for k in range(3) if m != n] for n in range(4)]
    flat = torch.stack([torch.stack(row) for row in others])
    expected = {
        "dv": torch.stack(own).mean() - flat.exp().mean().log(),
        "jsd": torch.stack(own).sigmoid().log().mean()
        + (1 - flat.sigmoid()).log().mean()
        + 2 * math.log(2),
        "infonce": torch.stack(
            [
                (one.exp() / ((one.exp() + flat[i // 3].exp().sum()) / 10)).log()
                for i, one in enumerate(own)
            ]
        ).mean(),
    }
    torch.testing.assert_close(objective(codes, maps), expected[bound])


def test_prior_matching_of_a_known_discriminator():
    prior = PriorMatching(2, penalty=3.0)
    line = nn.Linear(2, 1)
    line.weight.data, line.bias.data = torch.tensor([[2.0, -1.0]]), torch.tensor([0.5])
    prior.discriminator = line
    codes = torch.randn(50, 2, requires_grad=True)
    draws = torch.rand(50, 2, generator=torch.Generator().manual_seed(3))
    on_fake, on_real = line(codes.sigmoid()), line(draws)
    expected = -on_real.sigmoid().log().mean() - (1 - on_fake.sigmoid()).log().mean()
    expected = expected + 3 / 2 * (5 + 5)  # the squared gradient, 2² + 1², on both
    found = prior.discriminator_loss(codes, torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, expected)
    found.backward()
    assert codes.grad is None
    assert line.weight.grad is not None
    line.zero_grad()
    loss = prior.encoder_loss(codes)
    torch.testing.assert_close(loss, -on_fake.sigmoid().log().mean())
    loss.backward()
    assert codes.grad is not None
    assert line.weight.grad is None
    far = torch.full((40, 2), -9.0)
    line.weight.data, line.bias.data = torch.tensor([[9.0, 0.0]]), torch.tensor([-0.01])
    assert prior.told_apart(far, torch.Generator().manual_seed(0)) == 1.0


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("critic", CRITICS)
def test_every_mixture_trains_any_network(bound, critic):
    torch.manual_seed(1)
    mixture = Mixture(0.5, 1.0, 0.1, bound, critic, units=16)
    infomax = DeepInfoMax(small_encoder(), "1", "4", mixture)
    infomax.fit(images(), Training(epochs=25, batch_size=20, learning_rate=1e-2))
    assert len(infomax.history) == 25
    assert infomax.history[-1].loss < infomax.history[0].loss
    found = infomax.bounds(images(), batch_size=20)
    assert found.keys() == {"global", "local", "told_apart"}
    caps = {"dv": math.inf, "jsd": 2 * math.log(2), "infonce": math.log(1 + 19 * 16)}
    assert 0.01 < found["local"] <= caps[bound]
    assert 0.4 < found["told_apart"] <= 1


def test_the_loss_is_the_weighted_sum():
    infomax = DeepInfoMax(small_encoder(), "1", "4", Mixture(2.0, 3.0, 0.5, units=8))
    infomax.fit(images(), Training(epochs=1, batch_size=40)).eval()
    batch = images(12)
    found = layer_values(infomax.encoder, ["1", "4"], batch)
    map_ = found["1"].flatten(2).mT
    noise = torch.Generator().manual_seed(5)
    expected = (
        -2 * infomax.whole(found["4"], found["1"].flatten(2).mT.reshape(12, 1, -1))
        - 3 * infomax.local(found["4"], map_)
        + 0.5 * infomax.prior.encoder_loss(found["4"])
        + infomax.prior.discriminator_loss(found["4"], torch.Generator().manual_seed(5))
    )
    torch.testing.assert_close(infomax._loss(batch, noise), expected)
    alone = DeepInfoMax(small_encoder(), "1", "4", Mixture(0, 1, 0))
    alone.fit(images(), Training(epochs=1))
    assert alone.whole is None
    assert alone.prior is None


def test_training_is_seeded_frozen_parts_stay_and_modes_return(tmp_path):
    codes = []
    for seed in (0, 0, 1):
        torch.manual_seed(4)
        encoder = small_encoder()
        encoder[0].requires_grad_(requires_grad=False)
        frozen = encoder[0].weight.clone()
        before = torch.random.get_rng_state()
        infomax = DeepInfoMax(encoder, "1", "4", Mixture(0, 1, 0.1, units=8))
        infomax.fit(images(), Training(epochs=2, batch_size=8, seed=seed))
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(encoder[0].weight, frozen)
        assert all(part.training for part in encoder.modules())
        assert not [name for name, *counts in snapshot(encoder)["hooks"] if any(counts)]
        codes.append(infomax.transform(images()))
    assert torch.equal(codes[0], codes[1])
    assert not torch.allclose(codes[0], codes[2])
    path = tmp_path / "infomax.safetensors"
    infomax.save(path)
    loaded = DeepInfoMax.load(path, small_encoder())
    assert torch.equal(loaded.transform(images()), codes[2])
    assert loaded.bounds(images(), 20) == infomax.bounds(images(), 20)
    assert loaded.mixture == infomax.mixture
    with pytest.raises(ValueError, match="`encoder` is not that of"):
        DeepInfoMax.load(path, ConvEncoder(1, 8))


def test_a_loader_serves_as_images_do():
    torch.manual_seed(4)
    loader = torch.utils.data.DataLoader(list(zip(images(), range(40), strict=True)), 20)
    infomax = DeepInfoMax(small_encoder(), "1", "4", Mixture(units=8))
    infomax.fit(loader, Training(epochs=3))
    assert [check.step for check in infomax.history] == [2, 4, 6]
    assert infomax.transform(loader).shape == (40, 5)


def test_prior_matching_makes_marginals_uniform():
    from captum_mi.infomax import distance_to_uniform

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Identity())
    x = torch.randn(512, 1, 1, 2) * 4 + 3
    before = distance_to_uniform(encoder(x).detach())
    infomax = DeepInfoMax(encoder, "1", "2", Mixture(0, 0, 1))
    infomax.fit(x, Training(epochs=40, batch_size=128, learning_rate=1e-2))
    assert distance_to_uniform(infomax.transform(x)) < before / 2
    assert infomax.bounds(x)["told_apart"] < 0.7


def test_supervised_training_is_of_the_encoder():
    x = images(64)
    labels = torch.arange(64) % 8 // 4
    encoder = small_encoder()
    history = train_supervised(encoder, "4", x, labels, Training(8, 16, 1e-2))
    assert history[-1].loss < 0.1 < history[0].loss


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alpha": -1}, "`alpha` must be finite and not negative, got -1"),
        ({"beta": 0, "gamma": 0}, "must not all be 0"),
        ({"bound": "x"}, "`bound` must be one of 'dv', 'jsd', 'infonce', got 'x'"),
        ({"critic": "x"}, "`critic` must be one of 'dot', 'concat', got 'x'"),
        ({"units": 0}, "`units` must be at least 1, got 0"),
    ],
)
def test_mixtures_that_are_none_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Mixture(**arguments)


def test_trainings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="`batch_size` must be at least 2"):
        Training(batch_size=1)
    with pytest.raises(ValueError, match="`images` must hold batches of at least two images"):
        DeepInfoMax(small_encoder(), "1", "4").fit(images(1))
    with pytest.raises(RuntimeError, match="not fitted; call fit"):
        DeepInfoMax(small_encoder(), "1", "4").bounds(images())
