"""Attention methods against explicit matrices and the attentions that Hugging Face returns."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
import torchvision
from families import build
from torch import nn
from torch.nn import functional

from captum_mi._intervention.attention import _attend, attention_probabilities
from captum_mi.attr import AttentionSaliency, GenericAttention
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize

TEXTS = ["a red circle", "a blue square and a green heart"]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.project = nn.Linear(width, 3 * width)
        self.heads = heads

    def forward(self, x):
        parts = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts)
        return x + mixed.transpose(1, 2).flatten(2)


class Reader(nn.Module):
    """Two blocks by hand; reads token 0."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(6, 2), Block(6, 2)])
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])

    def explicit(self, x, target):
        """Attentions and their gradients, everything written out."""
        found = []
        for block in self.blocks:
            q, k, v = block.project(x).chunk(3, dim=-1)
            parts = []
            for head in range(2):
                columns = slice(3 * head, 3 * head + 3)
                scores = q[..., columns] @ k[..., columns].transpose(1, 2) / 3**0.5
                parts.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
            attention = torch.stack(parts, dim=1)
            found.append(attention)
            values = v.unflatten(-1, (2, 3)).transpose(1, 2)
            x = x + (attention @ values).transpose(1, 2).flatten(2)
        score = self.head(x[:, 0])[:, target].sum()
        return found, torch.autograd.grad(score, found)


@pytest.fixture
def reader():
    return Reader().double()


@pytest.fixture
def tokens():
    return torch.randn(3, 5, 6, dtype=torch.float64)


def test_rollout_of_two_layers(reader, tokens):
    attentions, gradients = reader.explicit(tokens, 1)
    rolled = torch.eye(5, dtype=torch.float64).expand(3, 5, 5)
    for attention, gradient in zip(attentions, gradients, strict=True):
        mean = (attention * gradient).clamp(min=0).mean(1)
        rolled = rolled + mean @ rolled
    expected = (rolled - torch.eye(5, dtype=torch.float64))[:, 0, :, None].detach()
    found = GenericAttention(reader, reader.blocks).attribute(tokens, target=1)
    assert found.shape == (3, 5, 1)
    assert (found >= 0).all()
    torch.testing.assert_close(found, expected)


def test_start_layer(reader, tokens):
    attentions, gradients = reader.explicit(tokens, 1)
    last = (attentions[1] * gradients[1]).clamp(min=0).mean(1)[:, 0, :, None].detach()
    for layer, start in ((reader.blocks, -1), (reader.blocks, 1), (reader.blocks[1], 0)):
        found = GenericAttention(reader, layer, start_layer=start).attribute(tokens, target=1)
        torch.testing.assert_close(found, last)
    with pytest.raises(ValueError, match=r"`start_layer` must be -2 to 1.* got 2"):
        GenericAttention(reader, reader.blocks, start_layer=2).attribute(tokens, target=1)


def test_saliency_of_the_last_attention(reader, tokens):
    _, gradients = reader.explicit(tokens, 2)
    saliency = gradients[1].abs().mean(1)[:, 0, :, None]
    for layer in (reader.blocks, reader.blocks[1]):
        torch.testing.assert_close(
            AttentionSaliency(reader, layer).attribute(tokens, target=2), saliency
        )


def test_a_list_of_blocks_is_no_rollout(reader, tokens):
    words = r"`layer` must be one module.* got a list of 2; give nn.ModuleList\(blocks\)"
    with pytest.raises(TypeError, match=words):
        GenericAttention(reader, list(reader.blocks))
    expected = GenericAttention(reader, reader.blocks).attribute(tokens, target=1)
    remedy = GenericAttention(reader, nn.ModuleList(list(reader.blocks)))
    torch.testing.assert_close(remedy.attribute(tokens, target=1), expected)


def test_a_list_of_layers_reads_each(reader, tokens):
    both = AttentionSaliency(reader, list(reader.blocks)).attribute(tokens, target=1)
    assert isinstance(both, list)
    for found, block in zip(both, reader.blocks, strict=True):
        torch.testing.assert_close(
            found, AttentionSaliency(reader, block).attribute(tokens, target=1)
        )


def test_frozen_models_and_plain_inputs(reader, tokens):
    expected = GenericAttention(reader, reader.blocks).attribute(tokens, target=1)
    reader.requires_grad_(False)
    torch.testing.assert_close(
        GenericAttention(reader, reader.blocks).attribute(tokens, target=1), expected
    )


def eager(model, tower, inputs, score):
    """Attentions that Hugging Face returns, and the score's gradients by them."""
    model.set_attn_implementation("eager")
    encoder = model.vision_model if tower == "image" else model.text_model
    found = []

    def capture(_module, _args, output):
        found.append(output[1])

    def ask(_module, args, kwargs):  # transformers below 5 returns attentions on request only
        return args, {**kwargs, "output_attentions": True}

    with ExitStack() as stack:
        for block in encoder.encoder.layers:
            hook = block.self_attn.register_forward_pre_hook(ask, with_kwargs=True)
            stack.callback(hook.remove)
            stack.callback(block.self_attn.register_forward_hook(capture).remove)
        gradients = torch.autograd.grad(score(inputs), found)
    return [part.detach() for part in found], gradients


@pytest.mark.parametrize("own", ["sdpa", "eager"])
def test_the_image_tower_as_hugging_face_computes_it(own):
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    pixels = torch.randn(2, 3, 32, 32)
    attentions, gradients = eager(model, "image", pixels, lambda x: similarity(x)[:, 1].sum())
    model.set_attn_implementation(own)
    last = (attentions[-1] * gradients[-1]).relu().mean(1)[:, 0, :, None]
    encoder = blocks(model)
    found = GenericAttention(similarity, encoder, start_layer=-1).attribute(pixels, target=1)
    torch.testing.assert_close(found, last, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(
        AttentionSaliency(similarity, encoder[-1]).attribute(pixels, target=1),
        gradients[-1].abs().mean(1)[:, 0, :, None],
        atol=1e-6,
        rtol=1e-3,
    )
    rolled = torch.eye(17).expand(2, 17, 17)
    for attention, gradient in zip(attentions, gradients, strict=True):
        rolled = rolled + (attention * gradient).relu().mean(1) @ rolled
    expected = (rolled - torch.eye(17))[:, 0, :, None]
    torch.testing.assert_close(
        GenericAttention(similarity, encoder).attribute(pixels, target=1),
        expected,
        atol=1e-6,
        rtol=1e-3,
    )


@pytest.mark.parametrize("family", ["clip", "clip-legacy"])
def test_texts_are_read_where_each_of_them_ends(family):
    model, processor = build(family)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    similarity = TextImageSimilarity(model, processor, [image])
    encoded = tokenize(model, processor, TEXTS)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    ends = mask.sum(1) - 1
    assert ends.tolist() == [4, 8]
    attentions, gradients = eager(
        model, "text", ids, lambda x: similarity(x, attention_mask=mask)[:, 0].sum()
    )
    model.set_attn_implementation("sdpa")
    product = (attentions[-1] * gradients[-1]).relu().mean(1)
    expected = product[torch.arange(2), ends][..., None]
    found = GenericAttention(similarity, blocks(model, "text"), start_layer=-1).attribute(
        ids, target=0, additional_forward_args=mask
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)
    assert found[0, 5:].abs().max() == 0


@pytest.mark.parametrize("failure", [False, True])
def test_the_implementation_of_each_tower_is_restored(failure):
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    model.set_attn_implementation({"vision_config": "eager", "text_config": "sdpa"})
    before = [tower.config._attn_implementation for tower in (model.vision_model, model.text_model)]
    assert before == ["eager", "sdpa"]
    fused = functional.scaled_dot_product_attention
    method = GenericAttention(similarity, blocks(model))
    if failure:
        with pytest.raises((AssertionError, IndexError)):
            method.attribute(torch.randn(1, 3, 32, 32), target=9)
    else:
        method.attribute(torch.randn(1, 3, 32, 32), target=0)
    after = [tower.config._attn_implementation for tower in (model.vision_model, model.text_model)]
    assert after == before
    assert functional.scaled_dot_product_attention is fused


def test_a_tower_without_a_pooled_token_reads_them_all():
    model, processor = build("siglip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    pixels = torch.randn(2, 3, 32, 32)
    attentions, gradients = eager(model, "image", pixels, lambda x: similarity(x)[:, 0].sum())
    model.set_attn_implementation("sdpa")
    expected = (attentions[-1] * gradients[-1]).relu().mean(1).mean(1)[..., None]
    found = GenericAttention(similarity, blocks(model)[-1]).attribute(pixels, target=0)
    assert found.shape == (2, 16, 1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)


def test_a_torchvision_transformer():
    model = torchvision.models.VisionTransformer(16, 4, 3, 2, 8, 16, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    model.requires_grad_(False)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad(), attention_probabilities(model.encoder.layers) as found:
        inside = model(x)
    torch.testing.assert_close(inside, model(x), atol=1e-5, rtol=1e-5)
    assert [part.shape for part in found] == [(2, 2, 17, 17)] * 3
    torch.testing.assert_close(found[0].sum(-1), torch.ones(2, 2, 17))
    scores = GenericAttention(model, model.encoder.layers).attribute(x, target=3)
    assert scores.shape == (2, 17, 1)
    assert scores.sum() > 0


def test_a_bert_like_text_tower():
    model, processor = build("chinese_clip")
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32, dtype=torch.uint8)])
    encoded = tokenize(model, processor, TEXTS)
    found = GenericAttention(similarity, blocks(model, "text")).attribute(
        encoded["input_ids"], target=0, additional_forward_args=encoded["attention_mask"]
    )
    assert found.shape == (2, 9, 1)
    assert (found[:, :5] > 0).any(dim=1).all()
    assert found[0, 5:].abs().max() == 0  # padding


def test_attention_that_torch_does_not_compute_is_refused():
    model = torchvision.models.SwinTransformer(
        [2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=3
    ).eval()
    with pytest.raises(ValueError, match="ran no attention that can be read"):
        GenericAttention(model, model.features[1]).attribute(torch.randn(1, 3, 8, 8), target=0)


def test_a_layer_must_be_a_module():
    with pytest.raises(TypeError, match="`layer` must be a module or a list of modules, got str"):
        GenericAttention(Reader(), "blocks").attribute(torch.randn(1, 5, 6), target=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.rand(2, 1, 5, 5) > 0.3},
        {"attn_mask": torch.randn(2, 1, 5, 5, dtype=torch.float64)},
        {"enable_gqa": True},
    ],
)
def test_written_out_attention_is_torchs(options):
    query, key, value = torch.randn(3, 2, 4, 5, 3, dtype=torch.float64)
    if options.get("enable_gqa"):
        key, value = key[:, :2], value[:, :2]
    mixed, probabilities = _attend(query, key, value, **options)
    expected = functional.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(mixed, expected, equal_nan=True)
    assert probabilities.shape == (2, 4, 5, 5)


def test_a_query_that_sees_nothing_gets_zeros():
    query, key, value = torch.randn(3, 1, 1, 3, 2, requires_grad=True)
    mask = torch.tensor([[True, False, False], [False, False, False], [True, True, False]])
    mixed, probabilities = _attend(query, key, value, attn_mask=mask)
    assert probabilities[0, 0, 1].abs().max() == 0
    (gradient,) = torch.autograd.grad(mixed.sum(), query)
    assert gradient.isfinite().all()


def test_threads_wait_for_each_other(reader, tokens):
    expected = GenericAttention(reader, reader.blocks).attribute(tokens, target=1)

    def explain(_):
        return GenericAttention(reader, reader.blocks).attribute(tokens, target=1)

    fused = functional.scaled_dot_product_attention
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(explain, range(30)):
            torch.testing.assert_close(found, expected)
    assert functional.scaled_dot_product_attention is fused


def test_training_mode_warns():
    model = torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, dropout=0.3, num_classes=5)
    with pytest.warns(UserWarning, match="in training mode"):
        GenericAttention(model, model.encoder.layers).attribute(torch.randn(1, 3, 16, 16), target=0)


def test_towers_are_restored_when_the_layer_holds_the_whole_model():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, ["a heart"])
    model.set_attn_implementation({"": "eager", "vision_config": "eager", "text_config": "sdpa"})
    parts = model, model.vision_model, model.text_model
    before = [part.config._attn_implementation for part in parts]
    assert before == ["eager", "eager", "sdpa"]
    GenericAttention(similarity, similarity).attribute(torch.randn(1, 3, 32, 32), target=0)
    assert [part.config._attn_implementation for part in parts] == before


def small_encoder(layers=1):
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(block, layers, enable_nested_tensor=False).double().eval()


METHODS_OF_ATTENTION = [GenericAttention, AttentionSaliency]


@pytest.mark.parametrize("method", METHODS_OF_ATTENTION)
def test_a_model_that_returns_no_tensor_is_refused(method):
    encoder, x = small_encoder(), torch.randn(2, 3, 8).double()
    with pytest.raises(TypeError, match=r"`forward_func` must return a tensor .* got tuple"):
        method(lambda x: (encoder(x)[:, 0],), encoder.layers).attribute(x, target=1)


@pytest.mark.parametrize("method", METHODS_OF_ATTENTION)
def test_a_gradient_that_is_not_finite_is_refused(method):
    encoder, x = small_encoder(), torch.randn(2, 3, 8).double()

    def root(x):
        return (encoder(x)[:, 0] * 0).sqrt()

    with pytest.raises(ValueError, match="the gradient behind layer ModuleList is not finite"):
        method(root, encoder.layers).attribute(x, target=1)


@pytest.mark.parametrize("method", METHODS_OF_ATTENTION)
def test_attention_that_does_not_reach_the_score_is_zero_and_warns(method):
    encoder, x = small_encoder(), torch.randn(2, 3, 8).double()

    def beside(x):
        encoder(x)
        return x[:, 0] * torch.ones((), dtype=x.dtype, requires_grad=True)

    with pytest.warns(UserWarning, match="every attribution of layer ModuleList is zero"):
        found = method(beside, encoder.layers).attribute(x, target=1)
    assert not found.any()
