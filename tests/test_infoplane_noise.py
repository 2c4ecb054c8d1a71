"""Noise in layers: its mean and scale, when it is drawn, and that nothing of it is left."""

import copy
import math

import pytest
import torch
from torch import nn

from captum_mi.infoplane import stochastic


class Doubled(nn.Module):
    def forward(self, values, *, mask=None, places=None):
        self.got = values, mask, places
        return 2 * values, places


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


@pytest.fixture
def model():
    return nn.Sequential(nn.Identity(), nn.Tanh(), nn.Linear(50, 50)).eval()


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("at", ["input", "output"])
def test_mean_and_scale(relative, at):
    layer = nn.Sequential(nn.Threshold(-math.inf, 0.0), nn.Flatten(1))
    values = torch.tensor([0.0, 1.0, -5.0])
    scale = 0.2 * (values.abs() if relative else torch.ones(3))
    with stochastic(layer, ["0"], 0.2, relative, at=at):
        found = layer(values.expand(40_000, 3))
    assert (abs(found.mean(0) - values) <= 4 * scale / math.sqrt(40_000)).all()
    torch.testing.assert_close(found.std(0), scale, rtol=0.02, atol=0)
    assert abs(torch.corrcoef(found.T)[1, 2]) < 0.02


def test_noise_of_the_input_passes_through_the_layer(model):
    x = torch.randn(9, 50)
    with stochastic(model, [model[1]], 0.5, relative=False, at="input"):
        assert (model[1](x).abs() < 1).all()
    with stochastic(model, [model[1]], 0.5, relative=False, at="output"):
        assert (model[1](x).abs() > 1).any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_each_pass_draws_anew(model, training, mode):
    x = torch.randn(9, 50)
    with mode(), stochastic(model.train(training), ["0", "2"], 0.1):
        assert not torch.equal(model(x), model(x))


def test_the_seed_decides_and_no_other_random_numbers_do(model):
    x = torch.randn(9, 50)
    drawn = []
    for seed in (1, 1, 2):
        state = torch.get_rng_state()
        with stochastic(model, ["0", "2"], 0.1, seed=seed):
            drawn.append(model(x))
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(1)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_nothing_is_left(model):
    x = torch.randn(9, 50)
    clean = model(x)
    handle = stochastic(model, ["0", "1"], 0.1, at="output")
    assert handle.names == ("0", "1")
    assert len(hooks_of(model)) == 2
    handle.remove()
    handle.remove()
    with pytest.raises(RuntimeError), stochastic(model, ["0", "2"], 0.1):
        model(torch.randn(9, 3))
    assert not hooks_of(model)
    assert torch.equal(model(x), clean)


def test_a_layer_that_is_named_twice_gets_its_noise_once(model):
    with stochastic(model, ["0", model[0], "0"], 1.0, relative=False):
        assert model[0](torch.zeros(1000, 50)).std() == pytest.approx(1, rel=0.02)


def test_every_floating_argument_gets_noise_whatever_its_name():
    layer = Doubled()
    places, mask = torch.arange(4), torch.tensor([0.0, 1.0, -math.inf, 1.0])
    with stochastic(layer, [""], 0.1):
        _, returned = layer(values=torch.ones(4), mask=mask, places=places)
    values, noisy_mask, passed = layer.got
    assert (values != 1).all()
    assert noisy_mask[0] == 0
    assert noisy_mask[1] != 1
    assert noisy_mask[2] == -math.inf
    assert passed is places
    assert returned is places
    with stochastic(layer, [""], 0.1, at="output"):
        output, returned = layer(torch.ones(4), places=places)
    assert (output != 2).all()
    assert returned is places


def test_gradients_pass(model):
    x = torch.randn(9, 50, requires_grad=True)
    with stochastic(model, ["0"], 0.3):
        noisy = model[0](x)
    noisy.sum().backward()
    torch.testing.assert_close(x.grad, noisy.detach() / x.detach())
    assert (x.grad != 1).all()


def test_noise_that_rounding_would_swallow_is_an_error(model):
    x = torch.randn(9, 50).bfloat16()
    with stochastic(model, ["0"], 1e-3), pytest.raises(ValueError, match=r"least 0.0078 .*bfloat"):
        model[0](x)
    with stochastic(model, ["0"], 1e-2):
        assert not torch.equal(model[0](x), x)
    with stochastic(model, ["0"], 0.0):
        assert torch.equal(model[0](x), x)


@pytest.mark.filterwarnings("ignore:.*torch.compile")
def test_compiled_models_are_seen_to(model):
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(9, 50)
    clean = compiled(x)
    with stochastic(model, ["0"], 0.1):
        assert not torch.equal(compiled(x), clean)
        assert not torch.equal(compiled(x), compiled(x))
    assert torch.equal(compiled(x), clean)


def test_a_copy_of_a_noisy_model_draws_by_itself(model):
    x = torch.randn(9, 50)
    with stochastic(model, ["0"], 0.1):
        twin = copy.deepcopy(model)
        drawn = model(x), model(x)
        assert torch.equal(twin(x), drawn[0])
        assert torch.equal(twin(x), drawn[1])
    assert torch.equal(model(x), model(x))


def test_what_is_drawn_in_between_is_drawn_again(model):
    x = torch.randn(9, 50)
    with stochastic(model, ["0"], 0.1) as noise:
        with noise.kept():  # before the first draw
            between = model(x)
        assert torch.equal(model(x), between)
        with noise.kept():
            between = model(x)
        assert torch.equal(model(x), between)
        assert not torch.equal(model(x), between)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((["0"], -0.1), ValueError, "`sigma` must be finite and not negative, got -0.1"),
        ((["0"], math.nan), ValueError, "`sigma` must be finite"),
        ((["7"], 0.1), ValueError, "`layers` names '7', which Sequential has not"),
        (([], 0.1), ValueError, "`layers` must hold at least one layer"),
        (([nn.ReLU()], 0.1), ValueError, "`layers` holds a ReLU that is no part of Sequential"),
        (("0", 0.1), TypeError, "`layers` must be a list"),
        (([0], 0.1), TypeError, "`layers` must hold modules or their names, got a int"),
    ],
)
def test_bad_arguments(model, arguments, error, message):
    with pytest.raises(error, match=message):
        stochastic(model, *arguments)
    with pytest.raises(ValueError, match="`at` must be one of 'input', 'output', got 'both'"):
        stochastic(model, ["0"], 0.1, at="both")
    assert not hooks_of(model)
