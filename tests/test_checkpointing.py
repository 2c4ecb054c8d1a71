"""Activation checkpointing around, behind and before the layer: right or refused, never wrong."""

import pytest
import torch
from families import build
from oracles import assert_same, narrowed
from torch import nn
from torch.utils.checkpoint import checkpoint

from captum_mi.attr import GenericAttention, LayerRISE, MultimodalIB, NarrowingIB

pytestmark = [
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning"),
]
METHODS = {
    "NarrowingIB": lambda model, layer, x: NarrowingIB(model, layer).attribute(
        x, target=1, n_steps=5
    ),
    "NarrowingIB of the input": lambda model, layer, x: NarrowingIB(model, layer).attribute(
        x, target=1, n_steps=5, attribute_to_layer_input=True
    ),
    "MultimodalIB": lambda model, layer, x: MultimodalIB(model, layer).attribute(
        x, target=1, n_steps=4, n_samples=3
    ),
    "RISE": lambda model, layer, x: LayerRISE(model, layer).attribute(x, target=1, n_masks=20),
}
ALWAYS_RIGHT = [("before", True), ("before", False), ("behind", False)]
RIGHT_OR_REFUSED = [("around", True), ("around", False), ("behind", True)]


def right_or_refused(explain, expected, tolerance=1e-6):
    """Passes if the call gives the expected value, or an error that says why not."""
    try:
        found = explain()
    except (ValueError, RuntimeError) as error:
        assert "checkpoint" in str(error).lower()  # noqa: PT017
    else:
        assert_same(found, expected, tolerance)


class Checkpointed(nn.Module):
    """Keeps no activation of a block, but runs it again in the backward pass."""

    def __init__(self, block, use_reentrant):
        super().__init__()
        self.block, self.use_reentrant = block, use_reentrant

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=self.use_reentrant)


def assemble(parts):
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(30, 3).double()).eval()


def checkpointed(position, use_reentrant, index=1):
    """Returns (model, the same without checkpointing, their common layer)."""
    parts = [
        nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)).double()
        for _ in range(3)
    ]
    plain, where = assemble(parts), ["before", "around", "behind"].index(position)
    wrapped = Checkpointed(parts[where], use_reentrant)
    return nn.Sequential(*plain[:where], wrapped, *plain[where + 1 :]), plain, parts[1][index]


@pytest.fixture
def x():
    return torch.randn(2, 5, 6, dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("position", "use_reentrant"), ALWAYS_RIGHT)
def test_a_block_before_or_behind_the_layer(position, use_reentrant, method, x):
    model, plain, layer = checkpointed(position, use_reentrant)
    assert_same(METHODS[method](model, layer, x), METHODS[method](plain, layer, x), 1e-6)


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("position", "use_reentrant"), RIGHT_OR_REFUSED)
def test_a_block_around_the_layer_or_reentrant_behind_it(position, use_reentrant, method, index, x):
    """A layer at the start of the block may keep as much for the way back as without narrowing."""
    model, plain, layer = checkpointed(position, use_reentrant, index)
    expected = METHODS[method](plain, layer, x)
    right_or_refused(lambda: METHODS[method](model, layer, x), expected)


@pytest.mark.parametrize(("position", "use_reentrant"), ALWAYS_RIGHT)
def test_the_expected_numbers_are_those_of_hook_and_rerun(position, use_reentrant, x):
    model, plain, layer = checkpointed(position, use_reentrant)
    found = METHODS["NarrowingIB"](model, layer, x)
    assert_same(found, narrowed(plain, (x,), layer, 1, n_steps=5), 1e-6)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_the_layer_is_the_checkpointed_module(use_reentrant, x):
    """Its own hook runs outside the checkpoint, which then lies before the latent."""
    model, plain, _ = checkpointed("around", use_reentrant)
    expected = narrowed(plain, (x,), plain[1], 1, n_steps=5)
    found = METHODS["NarrowingIB"](model, model[1], x)
    assert_same(found, expected, 1e-6)
    of_input = narrowed(plain, (x,), plain[1], 1, n_steps=5, at_input=True)
    explain = METHODS["NarrowingIB of the input"]
    right_or_refused(lambda: explain(model, model[1], x), of_input)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("wrapped", [0, 1, 2])
def test_attention(wrapped, use_reentrant, x):
    parts = [
        nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True).double()
        for _ in range(3)
    ]
    plain = assemble(parts)
    expected = GenericAttention(plain, nn.ModuleList(parts[1:2])).attribute(x, target=1)
    model = nn.Sequential(
        *(
            Checkpointed(part, use_reentrant) if i == wrapped else part
            for i, part in enumerate(parts)
        ),
        *plain[3:],
    )
    method = GenericAttention(model, nn.ModuleList(parts[1:2]))
    right_or_refused(lambda: method.attribute(x, target=1), expected)


CLIP_LAYERS = {
    "vision_model.pre_layrnorm": True,
    "vision_model.encoder.layers.1": True,
    "vision_model.encoder.layers.1.mlp": False,
    "vision_model.encoder.layers.1.self_attn.out_proj": False,
    "vision_model.post_layernorm": True,
}


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("name", CLIP_LAYERS)
def test_hugging_face(name, use_reentrant):
    model, _ = build("clip", layers=3)
    model = model.double().train()
    assert not any(m.p for m in model.modules() if isinstance(m, nn.Dropout))
    layer, x = model.get_submodule(name), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    ids = torch.tensor([[1, 4, 5, 8, 3], [1, 4, 6, 9, 3], [1, 4, 7, 10, 3]])

    def similarity(pixel_values):
        return model(input_ids=ids, pixel_values=pixel_values).logits_per_image

    expected = narrowed(similarity, (x,), layer, 1, n_steps=5)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    if CLIP_LAYERS[name] and not use_reentrant:
        assert_same(METHODS["NarrowingIB"](similarity, layer, x), expected, 1e-6)
    else:
        right_or_refused(lambda: METHODS["NarrowingIB"](similarity, layer, x), expected)


TIMM_LAYERS = {
    "patch_embed": True,
    "blocks.1": False,
    "blocks.1.mlp": False,
    "norm": True,
}


@pytest.mark.parametrize("name", TIMM_LAYERS)
def test_timm(name):
    timm = pytest.importorskip("timm")
    model = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=3
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(2 * torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    model = model.double().eval()
    layer, x = model.get_submodule(name), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = narrowed(model, (x,), layer, 1, n_steps=5)
    model.set_grad_checkpointing(True)
    if TIMM_LAYERS[name]:
        assert_same(METHODS["NarrowingIB"](model, layer, x), expected, 1e-6)
    else:
        right_or_refused(lambda: METHODS["NarrowingIB"](model, layer, x), expected)
