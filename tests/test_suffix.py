"""LayerSuffix against the full forward pass with the layer's output replaced by a hook."""

import weakref
from collections import Counter

import pytest
import torch
import torchvision
from families import build
from helpers import InPlaceSkip, replaced, snapshot
from torch import nn
from torch.nn.functional import relu

from captum_mi._intervention.split import split_at
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize

TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]


def check(forward_func, layer, args, copies=3, tolerance=1e-5):
    """Compares the suffix with the oracle, copies together and apart; returns the suffix."""
    suffix = split_at(forward_func, [layer], args)[0]
    torch.testing.assert_close(suffix.output, forward_func(*args), atol=tolerance, rtol=tolerance)
    latent = suffix.latent[0]
    news = [latent * scale + 0.1 * torch.randn_like(latent) for scale in (0.5, 1.0, 2.0)][:copies]
    expected = torch.cat([replaced(forward_func, layer, args, new) for new in news])
    assert expected.std() > 0
    rest = [tensor.repeat(copies, *[1] * (tensor.ndim - 1)) for tensor in suffix.latent[1:]]
    actual = suffix(torch.cat(news), *rest)
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
    alone = torch.cat([suffix(new, *suffix.latent[1:]) for new in news])
    torch.testing.assert_close(alone, expected, atol=tolerance, rtol=tolerance)
    assert suffix._together, "copies ran one by one"
    return suffix


@pytest.mark.parametrize("index", range(4))
def test_sequential(index):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Linear(5, 3))
    if index == 3:
        model.append(nn.Tanh())
    check(model, model[index], (torch.randn(2, 4),))


def resnet():
    model = torchvision.models.resnet18().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    return model


@pytest.mark.parametrize(
    "name", ["conv1", "bn1", "relu", "layer2", "layer2.0.conv1", "layer2.0.bn2", "layer3.1.bn1"]
)
def test_resnet_with_in_place_relu_and_shared_modules(name):
    model = resnet()
    check(model, model.get_submodule(name), (torch.randn(2, 3, 32, 32),), tolerance=1e-4)


@pytest.mark.parametrize(
    "name", ["denseblock1", "denseblock2.denselayer1", "denseblock2.denselayer2.conv1", "norm5"]
)
def test_densenet_with_skip_connections_over_the_layer(name):
    model = torchvision.models.DenseNet(8, (2, 2, 2), 16, num_classes=5).eval()
    check(model, model.features.get_submodule(name), (torch.randn(2, 3, 32, 32),), tolerance=1e-4)


class UNet(nn.Module):
    """Skip connections over the bottom, one normalization used on both sides of it."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.bottom = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = relu(self.norm(self.down(x)), inplace=True)
        inner = self.norm(self.bottom(skip))
        skip += self.up(inner)
        return self.head(torch.cat([skip, self.norm(self.up(inner))], 1)).mean((2, 3))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["down", "bottom"])
def test_unet_with_shared_module_and_in_place_skip(name, batch):
    model = UNet()
    check(model, model.get_submodule(name), (torch.randn(batch, 3, 8, 8),))


def test_torchvision_vit():
    model = torchvision.models.VisionTransformer(32, 8, 4, 2, 16, 32, num_classes=3).eval()
    nn.init.normal_(model.heads.head.weight)
    for batch in (1, 2):
        check(model, blocks(model)[1], (torch.randn(batch, 3, 32, 32),))


def test_swin_windows_run_copy_by_copy():
    model = torchvision.models.SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4]).eval()
    suffix = split_at(model, [model.features[2]], torch.randn(2, 3, 32, 32))[0]
    latent = suffix.latent[0]
    expected = replaced(model, model.features[2], (torch.randn(2, 3, 32, 32),), latent / 2)
    torch.testing.assert_close(suffix(latent / 2), expected)


@pytest.mark.parametrize("family", ["clip", "siglip", "altclip", "chinese_clip", "metaclip2"])
@pytest.mark.parametrize("batch", [1, 3])
def test_image_towers(family, batch):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    check(similarity, blocks(model, "image")[2], (torch.randn(batch, 3, 32, 32),))


@pytest.mark.parametrize("family", ["clip", "siglip", "altclip", "chinese_clip", "metaclip2"])
@pytest.mark.parametrize("batch", [1, 3])
def test_text_towers_with_padding(family, batch):
    model, processor = build(family)
    similarity = TextImageSimilarity(model, processor, list(torch.rand(4, 3, 32, 32)))
    encoded = tokenize(model, processor, TEXTS[:batch])
    check(similarity, blocks(model, "text")[2], tuple(encoded.values()))


def test_bert_with_attention_mask():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
    )
    model = BertModel(config).eval()
    ids = torch.randint(0, 20, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0

    def pooled(ids, mask):
        return model(input_ids=ids, attention_mask=mask).pooler_output

    check(pooled, blocks(model, "text")[1], (ids, mask))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_layers_that_return_a_tuple(implementation):
    model, processor = build("clip")
    model.set_attn_implementation(implementation)
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    layer, returned = blocks(model, "image")[2].self_attn, []
    handle = layer.register_forward_hook(lambda _m, _a, output: returned.append(output))
    suffix = check(similarity, layer, (torch.randn(2, 3, 32, 32),))
    handle.remove()
    assert isinstance(returned[0], tuple)
    assert len(suffix.latent) == sum(value is not None for value in returned[0])


def test_layer_that_returns_a_one_tuple():
    class OneTuple(nn.Module):
        def forward(self, x):
            return (torch.tanh(x),)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.wrap, self.last = nn.Linear(3, 4), OneTuple(), nn.Linear(4, 2)

        def forward(self, x):
            (hidden,) = self.wrap(self.first(x))
            return self.last(hidden)

    model = Model()
    check(model, model.wrap, (torch.randn(2, 3),))


def test_layer_that_returns_a_model_output():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    check(similarity, model.vision_model.encoder, (torch.randn(2, 3, 32, 32),))


@pytest.mark.parametrize("name", ["layers.2", "layers.2.self_attn", "layers.2.mlp"])
def test_layer_inputs(name):
    model, processor = build("clip")
    layer = model.text_model.encoder.get_submodule(name)
    similarity = TextImageSimilarity(model, processor, list(torch.rand(2, 3, 32, 32)))
    args = tuple(tokenize(model, processor, TEXTS).values())
    suffix = split_at(similarity, [layer], args, at_input=True)[0]
    (latent,) = suffix.latent

    def hook(_module, args, kwargs):
        if args:
            return (latent / 2, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": latent / 2}

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    expected = similarity(*args)
    handle.remove()
    torch.testing.assert_close(suffix(latent / 2), expected)
    twice = torch.cat([latent / 2, latent])
    torch.testing.assert_close(suffix(twice), torch.cat([expected, similarity(*args)]))


def test_additive_attention_mask_is_no_latent():
    model, processor = build("clip")
    model.set_attn_implementation("eager")
    similarity = TextImageSimilarity(model, processor, [torch.rand(3, 32, 32)])
    args = tuple(tokenize(model, processor, TEXTS).values())
    suffix = split_at(similarity, [blocks(model, "text")[2]], args, at_input=True)[0]
    assert [tensor.shape for tensor in suffix.latent] == [(3, 9, 32)]


class Masked(nn.Module):
    """A block that takes its additive mask by position, as those of transformers 4 do."""

    def forward(self, x, mask):
        return x + nn.functional.scaled_dot_product_attention(x, x, x, mask[:, 0])


@pytest.mark.parametrize("hidden", [0, 2])
def test_a_mask_is_no_latent_whether_it_hides_or_not(hidden):
    block = Masked()
    mask = torch.zeros(3, 1, 5, 5)
    mask[..., 5 - hidden :] = -torch.inf

    def model(x):
        return block(x.tanh(), mask[: len(x)]).sum((1, 2))

    x = torch.randn(3, 5, 4)
    suffix = split_at(model, [block], (x,), at_input=True)[0]
    assert [tensor.shape for tensor in suffix.latent] == [(3, 5, 4)]
    torch.testing.assert_close(suffix(suffix.latent[0] / 2), block(x.tanh() / 2, mask).sum((1, 2)))


def test_a_black_image_is_latent():
    layer = nn.Conv2d(1, 2, 3)
    suffix = split_at(
        lambda x: layer(x).sum((2, 3)), [layer], (torch.zeros(2, 1, 5, 5),), at_input=True
    )[0]
    assert [tensor.shape for tensor in suffix.latent] == [(2, 1, 5, 5)]


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_second_image_is_latent_whatever_it_shows(fill):
    class Sum(nn.Module):
        def forward(self, a, b):
            return 2 * a + b * a

    layer = Sum()
    images = torch.randn(2, 1, 5, 5), torch.full((2, 1, 5, 5), fill)
    suffix = split_at(lambda a, b: layer(a, b).sum((2, 3)), [layer], images, at_input=True)[0]
    assert len(suffix.latent) == 2


@pytest.mark.parametrize("name", ["first", "relu", "layer"])
def test_in_place_modules_change_what_is_used_again_later(name):
    model = InPlaceSkip()
    for batch in (1, 2):
        check(model, model.get_submodule(name), (torch.randn(batch, 1, 8, 8),))


def test_a_module_that_returns_its_argument_still_does():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.same = nn.Linear(3, 4), nn.Dropout(0.5)
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            skip = self.first(x)
            alias = self.same(skip)
            alias += 1
            return self.head(self.layer(alias).tanh() + skip)

    model = Model().eval()
    check(model, model.layer, (torch.randn(2, 3),))


def test_what_a_trace_cannot_see_is_said():
    class Change(nn.Module):
        def forward(self, *, x):
            return x.mul_(2) + 0

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.change = nn.Linear(3, 4), Change()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            skip = self.first(x)
            return self.head(self.layer(self.change(x=skip)).tanh() + skip)

    model = Model()
    suffix = split_at(model, [model.layer], torch.randn(2, 3))[0]
    words = r"does not repeat .* changes in place .*keyword argument"
    with pytest.raises(RuntimeError, match=words):
        suffix(suffix.latent[0])


def test_inputs_changed_in_place_are_changed_once_and_not_for_the_caller():
    layer = nn.Linear(3, 3)

    def forward_func(x):
        x.sub_(0.5)
        return layer(x.tanh()).tanh() + x

    x = torch.randn(2, 3)
    original = x.clone()
    suffix = split_at(forward_func, [layer], x)[0]
    assert torch.equal(x, original)
    torch.testing.assert_close(suffix(suffix.latent[0]), suffix.output)
    torch.testing.assert_close(suffix.output, forward_func(original))


class Question(nn.Module):
    """A recurrent encoder, whose state has the batch on its second axis, in front of the layer."""

    def __init__(self):
        super().__init__()
        self.encode = nn.LSTM(3, 4, batch_first=True)
        self.layer, self.head = nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x):
        _, (state, _) = self.encode(x)
        return self.head(torch.cat([self.layer(x.sum(1)).tanh(), state[-1]], 1))


class Positions(nn.Module):
    """A position table whose rows may be as many as the batch's."""

    def __init__(self, repeat):
        super().__init__()
        self.repeat = repeat
        self.table, self.layer, self.head = nn.Embedding(5, 3), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        positions = self.table(torch.arange(5))
        hidden = self.layer(x).tanh()
        if self.repeat:
            positions = positions[None].repeat(len(x), 1, 1)
        return self.head(hidden + 0 * positions.sum()).mean(1) + positions.mean((-2, -1))[..., None]


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("kind", ["question", "positions", "repeated positions"])
def test_axes_that_only_look_like_the_batch_do_not_matter(kind, batch):
    model = Question() if kind == "question" else Positions(kind.startswith("repeated"))
    if kind == "positions":
        model.head.bias.requires_grad_(False)

    def forward_func(x):
        output = model(x)
        return output if len(output) == len(x) else output.expand(len(x), -1)

    x = torch.randn(batch, 5, 3)
    suffix = split_at(forward_func, [model.layer], x)[0]
    news = [suffix.latent[0] * scale for scale in (0.5, 1.0, 2.0)]
    expected = torch.cat([replaced(forward_func, model.layer, (x,), new) for new in news])
    torch.testing.assert_close(suffix(torch.cat(news)), expected)


def test_fused_transformer_layers_with_padding():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3).eval()
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])

    def pooled(x):
        return encoder(x, src_key_padding_mask=padding.repeat(len(x) // 2, 1))[:, 0]

    fused = torch.backends.mha.get_fastpath_enabled()
    check(pooled, encoder.layers[1], (torch.randn(2, 5, 8),))
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_random_models_are_refused():
    model = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(64, 2)).train()
    with pytest.warns(UserWarning, match=r"'2' \(Dropout\) is in training mode"):
        suffix = split_at(model, [model[0]], torch.randn(2, 3))[0]
    words = r"does not repeat its output .*call model.eval\(\), for '2' \(Dropout\)"
    with pytest.raises(RuntimeError, match=words):
        suffix(suffix.latent[0])
    with pytest.raises(RuntimeError, match=r"does not repeat its output"):
        suffix(suffix.latent[0].repeat(3, 1))


def test_infinity_names_the_layer():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    with torch.no_grad():
        model[0].bias[1] = -torch.inf
    with pytest.raises(ValueError, match=r"layer '0' \(Linear\) holds NaN or infinity"):
        split_at(model, [model[0]], torch.zeros(1, 3))


def test_any_callable_and_further_arguments():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def forward_func(x, scale, power, offset):
        return model(x) * scale[:, None] ** power + offset["value"]

    args = (torch.randn(3, 3), torch.rand(3) + 1, 2, {"value": torch.ones(2)})
    suffix = split_at(forward_func, [model[1]], args[0], args[1:])[0]
    expected = torch.cat(
        [replaced(forward_func, model[1], args, suffix.latent[0] * s) for s in (0, 2)]
    )
    actual = suffix(torch.cat([suffix.latent[0] * 0, suffix.latent[0] * 2]))
    torch.testing.assert_close(actual, expected)


def test_a_bank_of_negatives_is_not_repeated():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))

    def log_share(x, bank):
        return (model(x) @ bank.T).log_softmax(-1)

    args = (torch.randn(2, 3), torch.randn(7, 5))
    suffix = split_at(log_share, [model[1]], *args)[0]
    latent = suffix.latent[0]
    expected = torch.cat([replaced(log_share, model[1], args, latent * s) for s in (0.5, 1)])
    torch.testing.assert_close(suffix(torch.cat([latent / 2, latent])), expected)


def test_rows_that_depend_on_each_other_run_copy_by_copy():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))

    def in_batch(x):
        hidden = model(x)
        return (hidden @ hidden.T).log_softmax(-1).diagonal()

    args = (torch.randn(4, 3),)
    suffix = split_at(in_batch, [model[1]], *args)[0]
    latent = suffix.latent[0]
    expected = torch.cat([replaced(in_batch, model[1], args, latent * s) for s in (0.5, 1)])
    torch.testing.assert_close(suffix(torch.cat([latent / 2, latent])), expected)
    assert not suffix._together


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_a_weak_dependence_between_rows_is_noticed(share):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))

    def centered(x):
        hidden = model(x)
        return hidden - share * hidden.mean(0)

    x = torch.randn(2, 3)
    suffix = split_at(centered, [model[1]], x)[0]
    news = [suffix.latent[0] * scale for scale in (0.5, 2.0)]
    expected = torch.cat([replaced(centered, model[1], (x,), new) for new in news])
    torch.testing.assert_close(suffix(torch.cat(news)), expected)
    assert not suffix._together


@pytest.mark.parametrize("first", [(1.0, 1.0), (1.0 + 1e-6, 1.0 + 2e-6)])
def test_copies_that_are_alike_prove_nothing(first):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))

    def centered(x):
        hidden = model[:2](x)
        return model[2](hidden - hidden.mean(0) / 2)

    x = torch.randn(1, 3)
    suffix = split_at(centered, [model[1]], x)[0]
    for scales in (first, (0.5, 2.0)):
        news = [suffix.latent[0] * scale for scale in scales]
        expected = torch.cat([replaced(centered, model[1], (x,), new) for new in news])
        torch.testing.assert_close(suffix(torch.cat(news)), expected)


@pytest.mark.parametrize("fill", [-1e4, -1e9, -torch.inf])
def test_a_huge_column_hides_no_dependence(fill):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))
    masked = torch.tensor([False, False, False, False, True])

    def scaled(x):
        hidden = model[:2](x)
        return model[2](hidden / hidden.abs().max()).masked_fill(masked, fill)

    x = torch.randn(2, 3)
    suffix = split_at(scaled, [model[1]], x)[0]
    news = [suffix.latent[0] * scale for scale in (0.5, 1.0, 2.0)]
    expected = torch.cat([replaced(scaled, model[1], (x,), new) for new in news])
    torch.testing.assert_close(suffix(torch.cat(news)), expected)


class Capacity(nn.Module):
    """Keeps as many of the batch's tokens as there is room for, as mixtures of experts do."""

    def __init__(self, room):
        super().__init__()
        self.room = room
        self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.layer(x).tanh()
        kept = torch.arange(hidden.shape[:2].numel()) < self.room
        return self.head(hidden * kept.reshape(*hidden.shape[:2], 1)).mean(1)


@pytest.mark.parametrize("room", [8, 12, 25])
def test_room_for_few_copies_is_noticed_when_more_come(room):
    model, x = Capacity(room), torch.randn(1, 5, 3)
    suffix = split_at(model, [model.layer], x)[0]
    for copies in (2, 3, 6):
        news = [suffix.latent[0] * (1 + i) / copies for i in range(copies)]
        expected = torch.cat([replaced(model, model.layer, (x,), new) for new in news])
        torch.testing.assert_close(suffix(torch.cat(news)), expected)
    assert not suffix._together


def test_a_branch_on_the_batch_is_noticed_at_the_end_that_takes_the_other():
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2))
    x = torch.randn(1, 3)
    threshold = model[0](x).abs().mean().item() / 2

    def branching(x):
        hidden = model[:2](x)
        return model[2](hidden if hidden.abs().mean() > threshold else hidden.square())

    suffix = split_at(branching, [model[1]], x, move=lambda latent: latent / 10)[0]
    news = [suffix.latent[0] * scale for scale in (0.1, 0.6, 1.0)]
    expected = torch.cat([replaced(branching, model[1], (x,), new) for new in news])
    torch.testing.assert_close(suffix(torch.cat(news)), expected)


@pytest.mark.parametrize("at_input", [False, True])
def test_hooks_of_the_layer_may_change_it_in_place(at_input):
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2))
    if at_input:
        model[1].register_forward_pre_hook(lambda _m, args: (args[0].mul_(1.5),))
    else:
        model[1].register_forward_hook(lambda _m, _a, output: output.mul_(1.5))
    x = torch.randn(1, 1, 3)[0]
    suffix = split_at(model, [model[1]], x, at_input=at_input)[0]
    latent = suffix.latent[0]
    torch.testing.assert_close(latent, 1.5 * model[0](x).detach())
    torch.testing.assert_close(suffix(latent / 2), model[2](latent / 2))


class Towers(nn.Module):
    """A layer of two tensors, of numbers and of an id."""

    def __init__(self):
        super().__init__()
        self.numbers, self.users = nn.Linear(3, 4), nn.Embedding(9, 4)

    def forward(self, x, user):
        return self.numbers(x), self.users(user.long().flatten())


class Fields(nn.Module):
    """A layer of two embeddings, of columns that do not share their values."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Embedding(1000, 4), nn.Embedding(3, 4)

    def forward(self, columns):
        return self.first(columns[:, 0].long()), self.second(columns[:, 1].long())


class Mixed(Towers):
    """A layer of two tensors, of numbers and of one column of ids."""

    def forward(self, x, columns):
        return super().forward(x, columns[:, 0])


class Gated(nn.Module):
    """A layer of hidden states and of a hard gate, which small changes leave as it is."""

    def __init__(self):
        super().__init__()
        self.numbers = nn.Linear(4, 4)

    def forward(self, x):
        return self.numbers(x), (x > 0).float()


class Whole(Towers):
    """A layer that takes whole numbers alone."""

    def forward(self, x, user):
        if (x != x.round()).any():
            raise ValueError("not whole")
        return super().forward(x, user)


IDS = torch.tensor([[500, 1], [7, 2]])
TWO_TENSORS = {
    "ids": (Towers, (torch.randn(2, 3), torch.tensor([1, 2]))),
    "equal ids": (Towers, (torch.randn(2, 3), torch.tensor([[1], [1]]))),
    "numbers for ids": (Towers, (torch.randn(2, 3), torch.tensor([[2.0], [8.0]]))),
    "black": (Towers, (torch.zeros(2, 3), torch.tensor([1, 2]))),
    "columns": (Fields, (IDS,)),
    "gate": (Gated, (torch.tensor([[1.0, -1.0, 2.0, 3.0], [1.0, 1.0, -2.0, 3.0]]),)),
    "one number a row": (Towers, (torch.randn(2, 3), torch.tensor([2.0, 8.0]))),
    "whole numbers": (Whole, (torch.ones(2, 3), torch.tensor([1, 2]))),
    "a column of equal ids": (Mixed, (torch.randn(2, 3), torch.tensor([[1, 5], [1, 7]]))),
    "columns of numbers": (Fields, (IDS.float(),)),
}


@pytest.mark.parametrize("kind", TWO_TENSORS)
def test_tensors_that_depend_on_the_inputs_stay_latent(kind):
    make, inputs = TWO_TENSORS[kind]
    layer, head = make(), nn.Linear(8, 2)
    suffix = split_at(lambda *given: head(torch.cat(layer(*given), 1).tanh()), [layer], inputs)[0]
    assert [tensor.shape for tensor in suffix.latent] == [(2, 4)] * 2


class Keeping(nn.Linear):
    """Keeps its last output, which the model uses later."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last.clone()


def test_what_a_module_keeps_is_that_of_the_inputs_beside_two_tensors():
    first, layer, head = Keeping(3, 4), nn.Identity(), nn.Linear(4, 2)

    def model(x):
        hidden = first(x)
        one, other = layer((hidden.tanh(), hidden.sin()))
        return head(one + other) * first.last[:, :1]

    x = torch.randn(2, 3)
    suffix = split_at(model, [layer], x)[0]
    actual = suffix(*(part / 2 for part in suffix.latent))
    expected = head(sum(suffix.latent) / 2) * first(x)[:, :1]
    torch.testing.assert_close(actual, expected)


def test_a_single_number_beside_the_rows_is_no_latent():
    first, layer, head = nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2)

    def model(x):
        hidden, loss = layer((first(x), first(x).mean()))
        return head(hidden) + 0 * loss

    for batch in (1, 3):
        suffix = split_at(model, [layer], torch.randn(batch, 3))[0]
        assert [tensor.shape for tensor in suffix.latent] == [(batch, 4)]


def test_the_given_latent_is_left_as_it_is():
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.ReLU(inplace=True), nn.Linear(4, 2))
    suffix = split_at(model, [model[1]], torch.randn(2, 3))[0]
    own, given = suffix.latent[0].clone(), -torch.ones(2, 4)
    suffix(given)
    suffix(suffix.latent[0])
    assert torch.equal(given, -torch.ones(2, 4))
    assert torch.equal(suffix.latent[0], own)


@pytest.mark.parametrize("batch", [1, 2])
def test_an_argument_of_one_number_does_not_part_the_copies(batch):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def scaled(x, temperature):
        return model(x) / temperature

    args = (torch.randn(batch, 3), torch.tensor([0.5]))
    check(scaled, model[1], args)


def test_outputs_that_are_not_finite_in_another_column_do_not_matter():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        model[2].bias[2] = torch.nan
    suffix = split_at(model, [model[1]], torch.randn(2, 3))[0]
    news = torch.cat([suffix.latent[0] / 2, suffix.latent[0]])
    torch.testing.assert_close(suffix(news)[:, :2], model[2](news)[:, :2])


class TwoInputs(nn.Module):
    """A layer that takes one tensor by position and another one by keyword."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Bilinear(4, 4, 4), nn.Linear(4, 2)
        self.layer.forward = self.multiply
        self.first = nn.Linear(3, 4)

    def multiply(self, hidden, *, gate):
        return hidden * gate

    def forward(self, x):
        hidden = self.first(x)
        return self.head(self.layer(hidden.tanh(), gate=hidden.sigmoid()))


def test_keyword_arguments_are_no_latent_beside_positional_ones():
    model, x = TwoInputs(), torch.randn(2, 3)
    suffix = split_at(model, [model.layer], x, at_input=True)[0]
    (latent,) = suffix.latent
    expected = model.head(latent / 2 * model.first(x).sigmoid())
    torch.testing.assert_close(suffix(latent / 2), expected)


class Rotated(nn.Module):
    """A block that hands on a table of positions beside its tokens, as T5's bias and rotary ones.

    The table is the same for all inputs, whether it has one row or as many as the batch.
    """

    def __init__(self, rows):
        super().__init__()
        self.rows = rows
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.table, self.block = nn.Parameter(torch.randn(1, 5, 4)), nn.Identity()

    def forward(self, x):
        table = self.table.expand(len(x) if self.rows == "all" else 1, -1, -1)
        hidden, table = self.block((self.first(x).tanh(), table))
        return self.head(hidden * table).sum(1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rows", ["one", "all"])
def test_what_does_not_depend_on_the_input_is_no_latent(rows, batch):
    model, x = Rotated(rows), torch.randn(batch, 5, 3)
    for at_input in (False, True):
        suffix = split_at(model, [model.block], x, at_input=at_input)[0]
        (latent,) = suffix.latent
        assert latent.shape == (batch, 5, 4)
        expected = [model.head(latent * scale * model.table).sum(1) for scale in (0.5, 2.0)]
        actual = suffix(torch.cat([latent / 2, latent * 2]))
        torch.testing.assert_close(actual, torch.cat(expected))


def test_all_tensors_stay_latent_where_nothing_tells_them_apart():
    embed, block = nn.Embedding(5, 3), nn.Identity()

    def model(ids):
        hidden = embed(ids)
        first, second = block((hidden, hidden.tanh()))
        return (first * second).sum(1)

    ids = torch.tensor([[2], [3]])  # one token: there are no two to exchange
    suffix = split_at(model, [block], ids)[0]
    assert [tensor.shape for tensor in suffix.latent] == [(2, 1, 3)] * 2


def test_a_row_without_an_axis_for_the_batch_gets_one():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            hidden = self.layer(x.flatten(0, 1)).tanh()
            return self.head(hidden).unflatten(0, x.shape[:2]).mean(1)

    model, x = Packed(), torch.randn(1, 5, 3)
    suffix = split_at(model, [model.layer], x)[0]
    latent = suffix.latent[0]
    assert latent.shape == (1, 5, 4)
    news = [latent * scale for scale in (0.5, 1.0, 2.0)]
    expected = torch.cat([replaced(model, model.layer, (x,), new[0]) for new in news])
    torch.testing.assert_close(suffix(torch.cat(news)), expected)
    with pytest.raises(ValueError, match=r"shape \(10, 4\).*batch of 2.*one row at a time"):
        split_at(model, [model.layer], torch.randn(2, 5, 3))


def test_several_layers_are_placed_at_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    between = nn.Linear(4, 4)

    def skipping(x):
        first = model[:2](x)
        return model[4](between(first) + model[2:4](first))

    x = torch.randn(2, 3)
    for layers in ([model[1], model[3]], [model[3], model[1]]):
        (suffix,) = split_at(skipping, layers, x, jointly=True)
        first, second = suffix.latent if layers[0] is model[1] else suffix.latent[::-1]
        torch.testing.assert_close(suffix(*suffix.latent), skipping(x))
        news = [(part / 2, part) for part in suffix.latent]
        actual = suffix(*(torch.cat(part) for part in news))
        expected = torch.cat([model[4](between(first / 2) + second / 2), skipping(x)])
        torch.testing.assert_close(actual, expected)
        assert [len(parts) for parts in suffix.split(suffix.latent)] == [1, 1]


def test_a_layer_and_one_inside_it_are_placed_at_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), nn.Tanh())
    x = torch.randn(2, 3)
    (suffix,) = split_at(model, [model[1], model[1][0]], x, jointly=True)
    outer, inner = suffix.latent
    torch.testing.assert_close(suffix(outer / 2, inner / 3), (outer / 2).tanh())


def test_a_moved_latent_is_checked_by_the_call_that_holds_it():
    runs = Counter()
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[2].register_forward_hook(lambda *_: runs.update(["head"]))
    x = torch.randn(2, 3)
    suffix = split_at(model, [model[1]], x, move=lambda latent: latent / 2)[0]
    z = model[:2](x).detach()
    torch.testing.assert_close(suffix.latent[0], z)
    torch.testing.assert_close(suffix.output, model[2](z / 2))
    runs.clear()
    scales = (0.25, 0.5, 0.75, 1.0)
    actual = suffix(torch.cat([z * scale for scale in scales]))
    assert runs["head"] == 3  # together, and either end alone
    runs.clear()
    suffix(torch.cat([z * scale for scale in scales]))
    assert runs["head"] == 1
    expected = torch.cat([model[2](z * scale) for scale in scales])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_recurrent_layer_gives_its_sequence(batch):
    class Model(nn.Module):
        def __init__(self, kind, **options):
            super().__init__()
            self.layer, self.head = kind(3, 4, 2, **options), nn.Linear(4, 2)

        def forward(self, x):
            if not self.layer.batch_first:
                x = x.transpose(0, 1)
            return self.head(self.layer(x)[0].tanh().sum(1 if self.layer.batch_first else 0))

    x = torch.randn(batch, 5, 3)
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        model = Model(kind, batch_first=True)
        (suffix,) = split_at(model, [model.layer], x)
        (latent,) = suffix.latent
        assert latent.shape == (batch, 5, 4)
        torch.testing.assert_close(suffix(latent / 2), model.head((latent / 2).tanh().sum(1)))
    if batch > 1:
        model = Model(nn.LSTM)
        with pytest.raises(ValueError, match=r"batch of 2.*batch_first=True"):
            split_at(model, [model.layer], x)


def test_a_frozen_backbone_in_inference_mode():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.change = nn.Linear(3, 4), nn.ReLU(inplace=True)
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            with torch.inference_mode():
                features = self.change(self.backbone(x))
            return self.head(self.layer(features.clone()).tanh() * features)

    model, x = Model(), torch.randn(2, 3)
    suffix = split_at(model, [model.layer], x)[0]
    latent = suffix.latent[0].clone().requires_grad_()
    suffix(latent / 2).sum().backward()
    features = model.backbone(x).relu().detach()
    new = suffix.latent[0].clone().requires_grad_()
    expected = model.head((new / 2).tanh() * features)
    torch.testing.assert_close(suffix(suffix.latent[0] / 2), expected)
    torch.testing.assert_close(latent.grad, torch.autograd.grad(expected.sum(), new)[0])


@pytest.mark.parametrize("name", ["traced", "layer"])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_traced_modules_run_again(name):
    traced = torch.jit.trace(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(2, 3))
    model = nn.Sequential(traced, nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    layer = traced if name == "traced" else model[1]
    check(model, layer, (torch.randn(2, 3),))
    assert model(torch.randn(2, 3)).shape == (2, 2)


def test_decisions_are_no_scores():
    layer = nn.Linear(3, 3)
    with pytest.raises(TypeError, match=r"floating-point scores.*got torch.int64.*logits"):
        split_at(lambda x: layer(x).argmax(1), [layer], torch.randn(2, 3))


def test_a_layer_without_gradients_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    suffix = split_at(torch.no_grad()(model), [model[1]], torch.randn(2, 3))[0]
    with pytest.raises(ValueError, match=r"layer Tanh runs without gradients.*torch.no_grad"):
        suffix(suffix.latent[0])
    with torch.no_grad():
        torch.testing.assert_close(suffix(suffix.latent[0]), suffix.output)


def test_functional_use_of_the_batch_size_follows_the_copies():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layer = nn.Linear(3, 4), nn.Linear(4, 4)
            self.cls = nn.Parameter(torch.randn(1, 1, 4))

        def forward(self, x):
            hidden = self.layer(self.embed(x))
            return torch.cat([self.cls.expand(len(x), -1, -1), hidden], 1).tanh().sum(1)

    model = Model()
    for batch in (1, 2):
        check(model, model.layer, (torch.randn(batch, 5, 3),))


def test_several_layers_share_one_run():
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    x = torch.randn(2, 3)
    counts = Counter()
    for i, module in enumerate(model):
        module.register_forward_hook(lambda *_, i=i: counts.update([i]))
    suffixes = split_at(model, [model[2], model[0]], x)
    assert counts == {0: 1, 1: 1, 2: 1, 3: 1}
    for suffix, index in zip(suffixes, (2, 0), strict=True):
        torch.testing.assert_close(
            suffix(suffix.latent[0] / 2), replaced(model, model[index], (x,), suffix.latent[0] / 2)
        )


def test_hooks_of_the_user_still_act():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda _m, _a, output: output * 2)
    model[1].register_forward_hook(lambda _m, _a, output: output + 1)
    x = torch.randn(2, 3)
    suffix = split_at(model, [model[1]], x)[0]
    torch.testing.assert_close(suffix.latent[0], torch.tanh(2 * nn.Linear.forward(model[0], x)) + 1)
    torch.testing.assert_close(suffix(suffix.latent[0]), model(x))
    before_layer = split_at(model, [model[2]], x)[0]
    torch.testing.assert_close(before_layer(before_layer.latent[0]), model(x))


@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("move", [None, lambda latent: latent / 3])
def test_hooks_that_collect_see_the_latent_in_place(move, at_input):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Identity(), nn.Linear(4, 2))
    layer, seen = model[2], {}
    if at_input:
        layer.register_forward_pre_hook(lambda _m, args: seen.update(value=args[0]))
    else:
        layer.register_forward_hook(lambda _m, _a, output: seen.update(value=output))

    def collecting(x):
        return model(x) + seen["value"].square()[:, :2]

    x = torch.randn(2, 3)
    suffix = split_at(collecting, [layer], x, at_input=at_input, move=move)[0]
    latent = suffix.latent[0]
    news = [latent / 2, latent / 3, latent]
    expected = torch.cat([model[3](new) + new.square()[:, :2] for new in news])
    torch.testing.assert_close(suffix(torch.cat(news)), expected)


def test_layer_called_by_a_module_that_does_not_own_it():
    inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    class Caller(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Linear(3, 3)
            self.hidden = [inner]

        def forward(self, x):
            first = self.own(x)
            return self.own(self.hidden[0](first)) + first

    model = Caller()
    check(model, inner[0], (torch.randn(2, 3),))
    check(model, inner[1], (torch.randn(2, 3),))


def test_nothing_is_left_behind_after_success_or_error():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(2, 3)
    before = snapshot(model)
    suffix = split_at(model, [model[1]], x)[0]
    suffix(suffix.latent[0])
    assert snapshot(model) == before

    def broken(x):
        model(x)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        split_at(broken, [model[1]], x)
    assert snapshot(model) == before
    calls = Counter()

    def breaks_later(x):
        calls.update(["call"])
        if calls["call"] > 1:
            model[0](x)
            raise ArithmeticError
        return model(x)

    suffix = split_at(breaks_later, [model[1]], x)[0]
    with pytest.raises(ArithmeticError):
        suffix(suffix.latent[0])
    assert snapshot(model) == before


def test_an_instance_forward_is_put_back():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    original = model[0].forward
    patched = lambda x: 3 * original(x)  # noqa: E731
    model[0].forward = patched
    suffix = split_at(model, [model[1]], torch.randn(2, 3))[0]
    suffix(suffix.latent[0])
    assert model[0].forward is patched


def test_activations_die_with_the_suffix():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    suffix = split_at(model, [model[1]], torch.randn(2, 3))[0]
    suffix(suffix.latent[0].requires_grad_()).sum().backward()
    latent = weakref.ref(suffix.latent[0])
    del suffix
    assert latent() is None


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(self.layer(x))


def test_refusals_name_layer_and_remedy():
    model = Twice()
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"'layer' \(Linear\) fired 2 times.*runs once"):
        split_at(model, [model.layer], x)
    with pytest.raises(ValueError, match=r"'unused' \(Linear\) fired 0 times.*copy of the model"):
        split_at(model, [model.unused], x)
    with pytest.raises(TypeError, match=r"`layer` must be a module.*got str; .*get_submodule"):
        split_at(model, ["layer"], x)


def test_outputs_of_another_kind_are_refused():
    layer = nn.Linear(3, 3)
    x = torch.randn(2, 3)
    with pytest.raises(TypeError, match=r"must return a tensor \(B,\) or \(B, C\), got dict"):
        split_at(lambda x: {"logits": layer(x)}, [layer], x)
    with pytest.raises(ValueError, match=r"one row for each of the 2 input rows, got shape \(\)"):
        split_at(lambda x: layer(x).sum(), [layer], x)


def test_sequence_first_layers_are_refused():
    encoder = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=False).eval()
    with pytest.raises(ValueError, match=r"shape \(5, 2, 8\).*batch of 2.*batch_first=True"):
        split_at(lambda x: encoder(x.transpose(0, 1)).mean(0), [encoder], torch.randn(2, 5, 8))


def test_sequence_first_layer_of_as_many_tokens_as_rows_is_still_right():
    encoder = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=False).eval()
    head = nn.Linear(8, 3)
    x = torch.randn(4, 4, 8)

    def forward_func(x):
        return head(encoder(x.transpose(0, 1)).tanh()[0])

    suffix = split_at(forward_func, [encoder], x)[0]
    latent = suffix.latent[0]
    expected = torch.cat([replaced(forward_func, encoder, (x,), latent * s) for s in (0.5, 2)])
    torch.testing.assert_close(suffix(torch.cat([latent / 2, latent * 2])), expected)


def test_nan_names_the_layer():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    with pytest.raises(ValueError, match=r"layer '0' \(Linear\) holds NaN"):
        split_at(model, [model[0]], torch.full((1, 3), float("nan")))


def test_latent_of_another_shape_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    suffix = split_at(model, [model[0]], torch.randn(2, 3))[0]
    with pytest.raises(ValueError, match=r"has \[\(2, 4\)\], got \[\(3, 4\)\]"):
        suffix(torch.randn(3, 4))


def test_another_path_through_the_model_is_refused():
    layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    runs = Counter()

    def wandering(x):
        runs.update(["run"])
        x = layers[0](x)
        if runs["run"] > 1:
            x = layers[0](x)
        return layers[1](x)

    suffix = split_at(wandering, [layers[1]], torch.randn(2, 3))[0]
    with pytest.raises(RuntimeError, match=r"Linear ran more often before layer.*same path"):
        suffix(suffix.latent[0])


def test_data_parallel_is_refused(monkeypatch):
    parallel = nn.DataParallel(nn.Linear(3, 2))
    monkeypatch.setattr(parallel, "device_ids", [0, 1])
    for forward_func in (parallel, parallel.forward, lambda x: parallel(x)):
        with pytest.raises(ValueError, match=r"DataParallel on devices \[0, 1\].*parallel.module"):
            split_at(forward_func, [parallel.module], torch.randn(2, 3))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.BatchNorm1d])
def test_training_mode_warns(kind):
    model = nn.Sequential(nn.Linear(3, 4), kind(4) if kind is nn.BatchNorm1d else kind(0.5))
    words = rf"'1' \({kind.__name__}\) is in training mode.*model.eval"
    with pytest.warns(UserWarning, match=words):
        split_at(model, [model[0]], torch.randn(2, 3))


def test_compiled_models_run_eagerly():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 3)
    compiled(x)
    suffix = split_at(compiled, [model[1]], x)[0]
    torch.testing.assert_close(
        suffix(suffix.latent[0] / 2), replaced(model, model[1], (x,), suffix.latent[0] / 2)
    )


def test_inference_mode_inputs():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.inference_mode():
        suffix = split_at(model, [model[1]], torch.randn(2, 3))[0]
    latent = suffix.latent[0].requires_grad_()
    suffix(latent).sum().backward()
    assert latent.grad is not None


def test_a_layer_that_fires_again_later_is_said():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head, self.runs = nn.Linear(3, 3), nn.Linear(3, 2), 0

        def forward(self, x):
            self.runs += 1
            once = self.layer(x)
            return self.head(once if self.runs == 1 else self.layer(x))

    model = Again()
    (suffix,) = split_at(model, [model.layer], torch.randn(2, 3))
    with pytest.raises(RuntimeError, match="fired 2 times when the model ran again"):
        suffix(*suffix.latent)
