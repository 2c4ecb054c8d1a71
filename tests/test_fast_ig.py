"""FastIG against Captum: exact on homogeneous networks."""

import inspect

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradientXActivation
from families import build
from torch import nn

from captum_mi.attr import FastIG
from captum_mi.models import ImageTextSimilarity, blocks


def test_is_integrated_gradients_on_a_homogeneous_network():
    model = nn.Sequential(
        nn.Identity(),
        nn.Linear(5, 8, bias=False),
        nn.ReLU(),
        nn.Linear(8, 8, bias=False),
        nn.ReLU(),
        nn.Linear(8, 3, bias=False),
    )
    x = torch.randn(6, 5)
    found = FastIG(model, model[0]).attribute(x, target=1)
    for n_steps in (2, 7):
        expected = IntegratedGradients(model).attribute(
            x, target=1, n_steps=n_steps, method="riemann_right"
        )
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(1), model(x)[:, 1], atol=1e-6, rtol=1e-5)


def test_is_captums_gradient_times_activation_on_a_convolution_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        FastIG(model, model[0]).attribute(x, target=[0, 2]),
        LayerGradientXActivation(model, model[0]).attribute(x, target=[0, 2]).detach(),
    )


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_on_an_image_text_model(family):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, ["a red circle", "a heart"])
    layer = blocks(model)[2]
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        FastIG(similarity, layer).attribute(pixels, target=1),
        LayerGradientXActivation(similarity, layer).attribute(pixels, target=1).detach(),
        atol=1e-6,
        rtol=1e-4,
    )


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("at_input", [True, False])
def test_options_are_captums(multiply, at_input):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
    x = torch.randn(2, 3, 8, 8)
    ours, captums = (
        kind(model, model[1], None, multiply) for kind in (FastIG, LayerGradientXActivation)
    )
    assert ours.multiplies_by_inputs is multiply
    torch.testing.assert_close(
        ours.attribute(x, [0, 2], None, at_input),
        captums.attribute(x, [0, 2], None, at_input).detach(),
    )


def test_signature_starts_as_captums():
    captums = list(inspect.signature(LayerGradientXActivation.attribute).parameters)
    assert list(inspect.signature(FastIG.attribute).parameters) == captums
    captums = list(inspect.signature(LayerGradientXActivation.__init__).parameters)
    ours = list(inspect.signature(FastIG.__init__).parameters)
    assert ours == captums[: len(ours)]
    model = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="nonsense"):
        FastIG(model, model).attribute(torch.randn(1, 2), grad_kwargs={"nonsense": 1})
