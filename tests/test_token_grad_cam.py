"""Grad-CAM on tokens by hand, on convolutions by Captum and by pytorch-grad-cam."""

import inspect
import warnings

import pytest
import torch
import torchvision
from captum.attr import LayerGradCam, LayerGradientXActivation
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
    words = r"layer '5' \(Flatten\) must have places beside its channels.* got \(1, 32\)"
    with pytest.raises(ValueError, match=words):
        TokenGradCam(network, network[5]).attribute(torch.randn(1, 3, 32, 32), target=0)


@pytest.mark.parametrize("options", [{}, {"attr_dim_summation": False}])
@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_signals_and_volumes_are_captums(dimensions, at_input, options):
    convolution = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions]
    model = nn.Sequential(
        convolution(2, 4, 3), nn.Tanh(), convolution(4, 5, 2), nn.Flatten(), nn.LazyLinear(3)
    )
    x = torch.randn(2, 2, *[7, 6, 5][:dimensions])
    model(x)
    options = {"target": [0, 2], "attribute_to_layer_input": at_input, **options}
    for relu in (True, False):
        found = TokenGradCam(model, model[2]).attribute(x, relu_attributions=relu, **options)
        expected = LayerGradCam(model, model[2]).attribute(x, relu_attributions=relu, **options)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected.detach())


def test_an_activation_of_a_signal_has_to_be_said():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 5, 2), nn.Flatten(), nn.LazyLinear(3)
    )
    x = torch.randn(2, 2, 9)
    model(x)
    method = TokenGradCam(model, model[1])
    with pytest.raises(ValueError, match=r"`channels_last` must be given: .* layer '1' \(ReLU\)"):
        method.attribute(x, target=1)
    expected = LayerGradCam(model, model[1]).attribute(x, target=1, relu_attributions=True)
    assert expected.max() > 0
    found = method.attribute(x, target=1, channels_last=False)
    torch.testing.assert_close(found, expected.detach())
    assert method.attribute(x, target=1, channels_last=True).shape == (2, 4, 1)


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("name", ["features.1", "features.3.0", "features.3.0.norm1"])
def test_a_swin_transformer_by_hand(name, elementwise):
    model = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2], num_classes=3)
    model = model.double().eval()
    nn.init.normal_(model.head.weight)
    layer = model.get_submodule(name)
    x = torch.randn(2, 3, 32, 64).double()
    values = []
    handle = layer.register_forward_hook(lambda _m, _a, output: values.append(output))
    score = model(x)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, values)
    weights = gradient if elementwise else gradient.mean((1, 2), keepdim=True)
    products = (weights * values[0]).detach()
    method = TokenGradCam(model, layer, elementwise=elementwise)
    found = method.attribute(x, target=1, relu_attributions=False)
    expected = products.sum(3)[:, None]
    assert found.shape == (2, 1, *values[0].shape[1:3])
    assert found.shape[3] == 2 * found.shape[2]
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected)
    assert image_map(found, (32, 64)).shape == (2, 1, 32, 64)
    kept = method.attribute(x, target=1, relu_attributions=False, attr_dim_summation=False)
    torch.testing.assert_close(kept, products)


def test_channels_of_tokens_are_kept_on_demand():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, ["a red circle"])
    layer, pixels = blocks(model)[2], torch.randn(2, 3, 32, 32)
    options = {"target": 0, "relu_attributions": False}
    summed = TokenGradCam(similarity, layer).attribute(pixels, **options)
    kept = TokenGradCam(similarity, layer).attribute(pixels, attr_dim_summation=False, **options)
    assert kept.shape == (2, 17, 32)
    assert kept[:, 0].abs().max() == 0
    torch.testing.assert_close(kept.sum(2, keepdim=True), summed)


def test_signature_starts_as_captums():
    captums = list(inspect.signature(LayerGradCam.attribute).parameters)
    assert list(inspect.signature(TokenGradCam.attribute).parameters)[: len(captums)] == captums
    captums = list(inspect.signature(LayerGradCam.__init__).parameters)
    assert list(inspect.signature(TokenGradCam.__init__).parameters)[: len(captums)] == captums


def test_grad_kwargs_reach_autograd(network):
    with pytest.raises(TypeError, match="nonsense"):
        TokenGradCam(network, network[3]).attribute(
            torch.randn(1, 3, 32, 32), target=0, grad_kwargs={"nonsense": 1}
        )


@pytest.mark.parametrize("elementwise", [False, True])
def test_the_input_of_a_layer(network, elementwise):
    x = torch.randn(2, 3, 32, 32)
    captums = LayerGradientXActivation if elementwise else LayerGradCam
    expected = captums(network, network[2]).attribute(x, target=1, attribute_to_layer_input=True)
    found = TokenGradCam(network, network[2], elementwise=elementwise).attribute(
        x, target=1, attribute_to_layer_input=True, relu_attributions=False
    )
    assert expected.abs().max() > 1e-3
    assert found.shape == (2, 1, 16, 16)
    torch.testing.assert_close(found, expected.detach().sum(1, keepdim=True))


class TwoMaps(nn.Module):
    """A layer with two tensors, whose product is the score: each weighs the other."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Module()
        self.layer.first, self.layer.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.layer.forward = lambda x: (self.layer.first(x), self.layer.second(x))

    def forward(self, x):
        first, second = self.layer(x)
        return (first * second.tanh()).flatten(1).sum(1)


def test_tensors_of_a_layer_are_explained_beside_each_other():
    model, x = TwoMaps(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        first, second = model.layer.first(x), model.layer.second(x)
    gradients = second.tanh(), first * (1 - second.tanh() ** 2)
    found = TokenGradCam(model, model.layer).attribute(x, relu_attributions=False)
    assert isinstance(found, tuple)
    for one, value, gradient in zip(found, (first, second), gradients, strict=True):
        expected = (gradient.mean((2, 3), keepdim=True) * value).sum(1, keepdim=True)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(one, expected)


class Registers(nn.Module):
    """A vision transformer with one class token and eight registers before its 16 patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, stride=8)
        self.prefix = nn.Parameter(torch.randn(9, 6))
        self.layer = nn.LayerNorm(6)
        self.mix = nn.Linear(25, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix.expand(len(x), -1, -1), patches], dim=1)
        return self.head(self.mix(self.layer(tokens).transpose(1, 2)).tanh()[..., 0])


@pytest.mark.parametrize("bound", [False, True])
def test_the_models_patches_tell_the_prefix(bound):
    model, x = Registers(), torch.randn(2, 3, 32, 32)
    method = TokenGradCam(model.forward if bound else model, model.layer)
    found = method.attribute(x, target=0, relu_attributions=False)
    assert found[:, :9].abs().max() == 0
    assert (found[:, 9:] != 0).all()
    asked = method.attribute(x, target=0, relu_attributions=False, prefix_tokens=9)
    torch.testing.assert_close(found, asked)
    other = method.attribute(x, target=0, relu_attributions=False, prefix_tokens=1)
    assert (other[:, 1:] != 0).all()


def test_patches_that_were_merged_are_counted_from_the_sizes():
    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.layer = nn.Conv2d(3, 6, 4, stride=4), nn.LayerNorm(6)

        def forward(self, x):
            merged = self.layer(nn.functional.avg_pool2d(self.patches(x), 2).flatten(2).mT)
            return merged.tanh().sum((1, 2))

    model = Merged()
    found = TokenGradCam(model, model.layer).attribute(
        torch.randn(1, 3, 32, 32), relu_attributions=False
    )
    assert found.shape == (1, 16, 1)
    assert (found != 0).all()


@pytest.mark.parametrize("elementwise", [False, True])
def test_evidence_against_is_no_lack_of_influence(elementwise):
    """What the ReLU removes has reached the output, whatever is left."""

    class Differences(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return (self.layer(x) * torch.tensor([1.0, -1.0, -1.0])[:, None]).sum((1, 2))[:, None]

    model = Differences()
    method = TokenGradCam(model, model.layer, elementwise=elementwise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = method.attribute(torch.ones(1, 3, 2), target=0, channels_last=True)
    assert found.flatten().tolist() == [2.0 * elementwise, 0.0, 0.0]
    with pytest.warns(UserWarning, match="only one token"):
        method.attribute(torch.tensor([[[1.0, 1], [0, 0], [0, 0]]]), 0, channels_last=True)
