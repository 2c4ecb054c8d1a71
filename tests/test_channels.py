"""Where layers of real models hold their channels, against what their shapes say to a reader."""

import pytest
import torch
import torchvision
from families import build
from torch import nn

from captum_mi.attr.channels import channel_axis
from captum_mi.models import ImageTextSimilarity, blocks


def value_of(layer, run):
    seen = []
    handle = layer.register_forward_hook(lambda _m, _a, output: seen.append(output))
    with torch.no_grad():
        run()
    handle.remove()
    return seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0]


def axis_of(model, layer, x, **options):
    value = value_of(layer, lambda: model(x))
    return channel_axis(value, layer, model, (x,), **options), tuple(value.shape)


@pytest.fixture(scope="module")
def swin():
    return torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2], num_classes=3)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (64, 32)])
def test_swin_holds_channels_last(swin, size):
    x = torch.randn(1, 3, *size)
    block = swin.features[1][0]
    for layer in (swin.features[1], swin.features[2], swin.features[3], block, block.norm1):
        axis, shape = axis_of(swin.eval(), layer, x)
        assert axis == 3
        assert shape[3] in (16, 32)
    # Convolution, permutation, normalization: only the shape tells, where it does.
    if size == (64, 64):
        with pytest.raises(ValueError, match=r"`channels_last` must be .* \(1, 16, 16, 16\)"):
            axis_of(swin, swin.features[0], x)
    else:
        assert axis_of(swin, swin.features[0], x)[0] == 3
    assert axis_of(swin, swin.features[0][0], x)[0] == 1


def test_convolution_networks_hold_channels_first():
    x = torch.randn(1, 3, 64, 64)
    resnet = torchvision.models.resnet18().eval()
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer4", "layer2.0", "layer3.1.bn2"):
        axis, shape = axis_of(resnet, resnet.get_submodule(name), x)
        assert axis == 1, (name, shape)
    convnext = torchvision.models.convnext_tiny().eval()
    for name in ("features.0", "features.1", "features.1.0", "features.2", "features.2.0"):
        axis, shape = axis_of(convnext, convnext.get_submodule(name), x)
        assert axis == 1, (name, shape)
    block = convnext.features[1][0].block
    assert axis_of(convnext, block[0], x)[0] == 1
    for layer in (block[1], block[2], block[3], block[4], block[5]):
        assert axis_of(convnext, layer, x)[0] == 3


def test_transformers_hold_channels_last():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, ["a heart"])
    x = torch.randn(2, 3, 32, 32)
    block = blocks(model)[1]
    embeddings = model.vision_model.embeddings
    for layer in (block, block.mlp, block.mlp.activation_fn, block.layer_norm1, embeddings):
        axis, shape = axis_of(similarity, layer, x)
        assert axis == 2, shape
    assert axis_of(similarity, embeddings.patch_embedding, x)[0] == 1


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 6, 3)
        )
        self.block = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))
        self.act = nn.GELU()
        self.mixed = nn.Sequential(nn.Conv1d(6, 6, 1), nn.Linear(6, 6))

    def forward(self, x):
        tokens = self.act(self.block(self.body(x).transpose(1, 2)))
        return self.mixed(tokens[:, :6]).mean((1, 2))[:, None]


def test_signals():
    model, x = Signal().eval(), torch.randn(2, 2, 24)
    for layer in (model.body, *(model.body[i] for i in (0, 1, 3, 4))):
        assert axis_of(model, layer, x)[0] == 1
    assert axis_of(model, model.block, x)[0] == 2
    assert axis_of(model, model.block[1], x)[0] == 2
    for layer in (model.body[2], model.act, model.mixed):
        with pytest.raises(ValueError, match=r"`channels_last` must be given: the value .* False"):
            axis_of(model, layer, x)
        for answer, expected in ((True, 2), (False, 1)):
            assert axis_of(model, layer, x, channels_last=answer)[0] == expected


def test_the_method_of_a_module_shows_its_modules():
    model, value = Signal(), torch.zeros(2, 4, 22)
    with pytest.raises(ValueError, match=r"layer 'body.2' \(ReLU\)"):
        channel_axis(value, model.body[2], model.forward)
    assert channel_axis(value, model.body[2], lambda x: model(x)) == 2


class FirstNorm(nn.LayerNorm):
    """Normalizes channels that come first, as ConvNeXt's in transformers can."""


class Causal(nn.Conv1d):
    """A convolution under a name of its own."""


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (nn.Conv3d(2, 4, 3), (1, 4, 5, 6, 7), 1),
        (nn.ReLU(), (1, 4, 5, 6, 7), 1),
        (nn.Sequential(nn.LayerNorm(7), nn.Linear(7, 7)), (1, 4, 5, 6, 7), 4),
        (nn.ReLU(), (1, 4, 5, 6), 1),
        (nn.Linear(3, 4), (2, 4), 1),
        (nn.LayerNorm((4, 5, 6)), (1, 4, 5, 6), 1),
        (torchvision.models.convnext.LayerNorm2d(4), (1, 4, 5, 6), 1),
        (FirstNorm(4), (1, 4, 5, 6), 1),
        (Causal(2, 4, 3), (1, 4, 9), 1),
        (nn.Embedding(5, 3), (1, 4, 3), 2),
        (nn.TransformerEncoderLayer(4, 2, batch_first=True), (1, 5, 4), 2),
        (nn.Conv2d(3, 4, 2), (1, 9, 4), 2),  # a patch embedding that hands out tokens
    ],
)
def test_types_that_tell(layer, shape, axis):
    assert channel_axis(torch.zeros(shape), layer, layer) == axis


def test_a_type_counts_more_than_a_shape_and_a_shape_more_than_what_is_inside():
    image = torch.zeros(1, 1, 64, 64)
    # A spectrogram that keeps its frequencies as channels: the shape alone would say otherwise.
    strip = nn.Conv2d(1, 64, (64, 32))
    assert channel_axis(torch.zeros(1, 64, 64, 2), strip, strip, (image,)) == 1
    rows = nn.Linear(64, 64)
    assert channel_axis(torch.zeros(1, 1, 64, 64), rows, rows, (image,)) == 3
    permuted = nn.Sequential(nn.Conv2d(1, 32, 4, 4), torchvision.ops.Permute([0, 2, 3, 1]))
    assert channel_axis(torch.zeros(1, 16, 16, 32), permuted, permuted, (image,)) == 3
    # The first of the inputs that is an image is meant.
    words = torch.zeros(1, 5)
    assert channel_axis(torch.zeros(1, 16, 16, 32), nn.ReLU(), permuted, (words, image)) == 3
