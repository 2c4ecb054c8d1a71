"""Grad-CAM on tokens by hand, on convolutions by Captum and by pytorch-grad-cam."""

import pytest
import torch
from captum.attr import LayerGradCam
from families import build
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from captum_mi.attr import TokenGradCam
from captum_mi.maps import image_map, min_max
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize


def by_hand(similarity, layer, inputs, target, *, prefix, elementwise, relu=True):
    values = []
    handle = layer.register_forward_hook(lambda _m, _a, output: values.append(output))
    scores = similarity(inputs)[:, target]
    handle.remove()
    value = values[0] if isinstance(values[0], torch.Tensor) else values[0][0]
    (gradient,) = torch.autograd.grad(scores.sum(), value)
    a, g = value.detach()[:, prefix:], gradient[:, prefix:]
    weights = g if elementwise else g.mean(1, keepdim=True)
    found = (weights * a).sum(-1, keepdim=True)
    found = found.relu() if relu else found
    return torch.cat([torch.zeros(len(a), prefix, 1), found], dim=1)


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize(("family", "prefix"), [("clip", 1), ("siglip", 0)])
def test_patches_are_the_map_of_a_token_layer(family, prefix, elementwise):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, ["a red circle", "a heart"])
    layer = blocks(model)[2]
    pixels = torch.randn(3, 3, 32, 32)
    for relu in (True, False):
        expected = by_hand(
            similarity, layer, pixels, 1, prefix=prefix, elementwise=elementwise, relu=relu
        )
        found = TokenGradCam(similarity, layer, elementwise=elementwise).attribute(
            pixels, target=1, relu_attributions=relu
        )
        assert found.abs().sum() > 0
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_all_tokens_are_the_map_of_a_text():
    model, processor = build("clip")
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32, dtype=torch.uint8)])
    layer = blocks(model, "text")[1]
    ids = tokenize(model, processor, ["a red circle and a heart"])["input_ids"]
    expected = by_hand(similarity, layer, ids, 0, prefix=0, elementwise=False, relu=False)
    found = TokenGradCam(similarity, layer).attribute(ids, target=0, relu_attributions=False)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.fixture
def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()


def test_convolutions_are_captums(network):
    x = torch.randn(3, 3, 32, 32)
    for relu in (True, False):
        torch.testing.assert_close(
            TokenGradCam(network, network[3]).attribute(x, target=2, relu_attributions=relu),
            LayerGradCam(network, network[3]).attribute(x, target=2, relu_attributions=relu),
        )


@pytest.mark.parametrize(("elementwise", "theirs"), [(False, GradCAM), (True, HiResCAM)])
def test_convolutions_are_pytorch_grad_cams(network, elementwise, theirs):
    x = torch.randn(3, 3, 32, 32)
    targets = [ClassifierOutputTarget(i) for i in (0, 2, 3)]
    with theirs(model=network, target_layers=[network[3]]) as cam:
        expected = torch.as_tensor(cam(input_tensor=x, targets=targets))
    found = TokenGradCam(network, network[3], elementwise=elementwise).attribute(
        x, target=[0, 2, 3]
    )
    assert found.shape == (3, 1, 8, 8)
    # Theirs is scaled to [0, 1] before it is enlarged, and again after.
    enlarged = min_max(image_map(min_max(found), (32, 32)))[:, 0]
    torch.testing.assert_close(enlarged, expected, atol=1e-3, rtol=0)


def test_other_layers_are_refused(network):
    with pytest.raises(ValueError, match=r"must be \(B, C, h, w\) or \(B, T, D\) for Grad-CAM"):
        TokenGradCam(network, network[5]).attribute(torch.randn(1, 3, 32, 32), target=0)
