"""Image maps and token scores."""

import math

import numpy as np
import pytest
import torch
import torchvision
from families import build
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate
from transformers import CLIPImageProcessor, SiglipImageProcessor

from captum_mi import visualization
from captum_mi.maps import (
    TokenGrid,
    bits_per_pixel,
    image_map,
    image_seen,
    min_max,
    on_original,
    patch_map,
    patch_size,
    special_tokens,
    token_grid,
    token_scores,
)
from captum_mi.models import tokenize


def vision_transformer(patch=8):
    """Anything with a patch embedding: what a map needs of a model."""
    return nn.Sequential(nn.Conv2d(3, 4, patch, patch), nn.Flatten(2))


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [
        (50, (224, 224), TokenGrid(1, 7, 7, 32)),
        (197, (224, 224), TokenGrid(1, 14, 14, 16)),
        (196, (224, 224), TokenGrid(0, 14, 14, 16)),
        (577, (336, 336), TokenGrid(1, 24, 24, 14)),
        (49, (48, 64), TokenGrid(1, 6, 8, 8)),
        (65, (64, 64), TokenGrid(1, 8, 8, 8)),
    ],
)
def test_token_grid_follows_the_image(tokens, size, expected):
    assert token_grid(tokens, size) == expected
    assert token_grid(tokens, size, expected.patch) == expected


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [
        (198, (224, 224), TokenGrid(2, 14, 14, 16)),
        (261, (224, 224), TokenGrid(5, 16, 16, 14)),
        (205, (224, 224), TokenGrid(9, 14, 14, 16)),
        (226, (250, 250), TokenGrid(1, 15, 15, 16)),
    ],
)
def test_registers_and_uncovered_pixels_need_the_patch_size(tokens, size, expected):
    assert token_grid(tokens, size, expected.patch) == expected
    with pytest.raises(ValueError, match=f"{tokens} tokens are not the whole square patches"):
        token_grid(tokens, size)


def test_token_grid_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"patches of an image of 32x64 .* `size` must be that of"):
        token_grid(3000, (32, 64))
    with pytest.raises(ValueError, match=r"40 tokens are not the 2x2 patches \(of size 16\) of an"):
        token_grid(40, (32, 32), 16)
    with pytest.raises(ValueError, match=r"65 tokens are not .* 400x600 with 0 or 1 tokens"):
        token_grid(65, (400, 600))


@pytest.mark.parametrize("size", [(400, 600), (600, 400), (60, 64), (64, 60), (72, 56)])
def test_a_size_that_the_model_did_not_see_is_refused(size):
    with pytest.raises(ValueError, match=f"image of {size[0]}x{size[1]} with 0 or 1 tokens"):
        image_map(torch.randn(1, 65, 4), size, model=vision_transformer())


def test_a_photograph_that_fits_by_chance_is_refused():
    assert token_grid(577, (1080, 1920)).height == 18  # what a guess makes of it
    with pytest.raises(ValueError, match="577 tokens are not the 77x137 patches"):
        image_map(torch.randn(1, 577, 4), (1080, 1920), model=vision_transformer(14))


def test_a_token_layer_needs_the_model_or_the_grid():
    model, attribution = vision_transformer(), torch.randn(1, 65, 4)
    for options in ({}, {"model": model, "grid": (8, 8)}):
        with pytest.raises(ValueError, match=r"65 tokens needs `model`.* or `grid`"):
            image_map(attribution, (64, 64), **options)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (224, "or their \\(H, W\\), got 224"),
        ((1, 3, 64, 64), "got \\(1, 3, 64, 64\\)"),
        (Image.new("RGB", (64, 64)), "got Image"),
        (torch.zeros(3, 64, 64), "got a tensor of shape \\(3, 64, 64\\)"),
        ((64.0, 64.0), "got \\(64.0, 64.0\\)"),
    ],
)
def test_what_is_no_size_is_refused(size, words):
    with pytest.raises(TypeError, match="`size` must be the pixels that the model saw.*" + words):
        image_map(torch.randn(1, 65, 4), size, model=vision_transformer())


def test_the_pixels_themselves_give_the_size():
    model, attribution = vision_transformer(), torch.randn(2, 49, 4)
    pixels = torch.zeros(2, 3, 48, 64)
    expected = image_map(attribution, (48, 64), model=model)
    torch.testing.assert_close(image_map(attribution, pixels, model=model), expected)
    maps = torch.randn(2, 4, 6, 8)
    torch.testing.assert_close(image_map(maps, pixels), image_map(maps, (48, 64)))
    torch.testing.assert_close(
        patch_map(attribution, pixels, model=model), attribution[:, 1:].sum(-1).view(2, 1, 6, 8)
    )


def test_a_tuple_of_attributions_is_refused():
    with pytest.raises(TypeError, match=r"got a tuple of 2; give its item .* attribution\[0\]"):
        image_map((torch.zeros(1, 4, 8, 8),) * 2, (8, 8))


def test_registers_are_taken_where_the_model_says_so():
    model, attribution = vision_transformer(), torch.randn(1, 69, 4)
    with pytest.raises(ValueError, match="69 tokens are not the 8x8 patches"):
        image_map(attribution, (64, 64), model=model)
    model.num_prefix_tokens = 5  # as timm has it
    low = patch_map(attribution, (64, 64), model=model)
    torch.testing.assert_close(low, attribution[:, 5:].sum(-1).view(1, 1, 8, 8))


def test_registers_of_the_configuration():
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Dinov2WithRegistersConfig(image_size=32, patch_size=8, num_register_tokens=7, **shape)
    model = Dinov2WithRegistersModel(config).eval()
    states = model(torch.randn(1, 3, 32, 32)).last_hidden_state.detach()
    assert states.shape == (1, 24, 16)
    low = patch_map(states, (32, 32), model=model)
    torch.testing.assert_close(low, states[:, 8:].sum(-1).view(1, 1, 4, 4))


def test_the_distillation_token_of_deit():
    from transformers import DeiTConfig, DeiTModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = DeiTModel(DeiTConfig(image_size=32, patch_size=8, **shape)).eval()
    states = model(torch.randn(1, 3, 32, 32)).last_hidden_state.detach()
    low = patch_map(states, (32, 32), model=model)
    torch.testing.assert_close(low, states[:, 2:].sum(-1).view(1, 1, 4, 4))


def test_packed_patches_lie_where_the_grid_says():
    attribution = torch.arange(24.0).view(1, 24, 1)
    low = patch_map(attribution, grid=(4, 6))
    torch.testing.assert_close(low, torch.arange(24.0).view(1, 1, 4, 6))
    torch.testing.assert_close(
        image_map(attribution, (56, 84), grid=(4, 6)),
        interpolate(low, (56, 84), mode="bilinear"),
    )
    behind_cls = torch.cat([torch.full((1, 1, 1), 99.0), attribution], dim=1)
    torch.testing.assert_close(patch_map(behind_cls, grid=(4, 6)), low)
    bits = bits_per_pixel(torch.ones(1, 24, 2), (56, 84), grid=(4, 6))
    assert bits.sum() == pytest.approx(48 / np.log(2))
    for grid in ((4, 7), (0, 24), (1, 6)):
        with pytest.raises(ValueError, match="`grid` must be the rows and columns of 24 tokens"):
            patch_map(attribution, grid=grid)


def test_patch_map_needs_a_size_or_a_grid():
    with pytest.raises(ValueError, match="`size` or `grid` must be given"):
        patch_map(torch.zeros(1, 65, 4), model=vision_transformer())


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_patch_size_of_a_model(family):
    model, _ = build(family)
    assert patch_size(model) == 8
    assert patch_size(torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8)) == 16
    with pytest.raises(ValueError, match="Linear has no patch embedding"):
        patch_size(torch.nn.Linear(2, 2))


def test_image_map_of_tokens_sums_channels_and_drops_the_prefix():
    attribution = torch.zeros(2, 49, 3)
    attribution[0, 0] = 100.0  # CLS
    attribution[0, 1 + 8 * 2 + 5] = torch.tensor([1.0, -3.0, 1.0])
    model = vision_transformer()
    low = patch_map(attribution, (48, 64), model=model)
    assert low.shape == (2, 1, 6, 8)
    assert low[0, 0, 2, 5] == -1.0
    assert low.abs().sum() == 1.0
    heat = image_map(attribution, (48, 64), model=model)
    assert heat.shape == (2, 1, 48, 64)
    row, column = divmod(heat[0, 0].argmin().item(), 64)
    assert (row // 8, column // 8) == (2, 5)
    assert (heat[1] == 0).all()


def test_image_map_leaves_pixels_that_no_patch_covers_at_zero():
    heat = image_map(torch.ones(1, 226, 4), (250, 250), model=vision_transformer(16))
    assert (heat[..., :240, :240] == 4).all()
    assert (heat[..., 240:, :] == 0).all()
    assert (heat[..., 240:] == 0).all()


def test_image_map_of_a_convolution_layer():
    attribution = torch.randn(2, 5, 4, 6)
    expected = interpolate(attribution.sum(1, keepdim=True), (32, 48), mode="bilinear")
    torch.testing.assert_close(image_map(attribution, (32, 48)), expected)


def test_image_map_takes_the_models_patch_size():
    model, _ = build("clip")
    attribution = torch.randn(1, 17, 4)
    torch.testing.assert_close(
        image_map(attribution, (32, 32), model=model), image_map(attribution, (32, 32), grid=(4, 4))
    )
    with pytest.raises(ValueError, match=r"patches \(of size 8\) of an image of 64x64"):
        image_map(attribution, (64, 64), model=model)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, T, D\) or \(B, C, h, w\), got \(3, 4\)"):
        image_map(torch.zeros(3, 4), (8, 8))


def processors():
    size = {"shortest_edge": 64}
    crop = {"height": 64, "width": 64}
    yield CLIPImageProcessor(size=size, crop_size=crop)
    yield CLIPImageProcessor(size={"shortest_edge": 80}, crop_size=crop)
    yield SiglipImageProcessor(size={"height": 64, "width": 48})


PROCESSORS = list(processors())


def photograph(height, width):
    """Seeded noise of low frequency: nothing that resizing could hide."""
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return Image.fromarray((255 * smooth[0].permute(1, 2, 0)).byte().numpy())


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_image_as_the_model_saw_it(processor):
    image = photograph(90, 120)
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    plain = processor(images=[image], return_tensors="pt", do_normalize=False)["pixel_values"]
    expected = plain[0].permute(1, 2, 0)
    torch.testing.assert_close(image_seen(pixels, processor), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(image_seen(pixels[0], processor), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"`pixels` must be one image .*got shape \(2, 3, "):
        image_seen(pixels.repeat(2, 1, 1, 1), processor)


@pytest.mark.parametrize(
    ("processor", "scales", "offsets"),
    [
        # Rows and columns: pixels of the map per pixel of the photograph; pixels cropped away.
        (PROCESSORS[0], (64 / 90, 85 / 120), (0, 10)),
        (PROCESSORS[1], (80 / 90, 106 / 120), (8, 21)),
        (PROCESSORS[2], (64 / 90, 48 / 120), (0, 0)),
    ],
)
def test_a_map_is_put_back_on_the_photograph(processor, scales, offsets):
    size = PROCESSORS.index(processor) == 2
    shape = (64, 48) if size else (64, 64)
    rows, columns = (torch.arange(float(side)) for side in shape)
    heat = torch.stack([rows[:, None].expand(shape), columns.expand(shape)])[:, None]
    found = on_original(heat, photograph(90, 120), processor)
    assert found.shape == (2, 1, 90, 120)
    places = [
        (torch.arange(float(side)) + 0.5) * scale - 0.5 - offset
        for side, scale, offset in zip((90, 120), scales, offsets, strict=True)
    ]
    inside = [(place > 0) & (place < side - 1) for place, side in zip(places, shape, strict=True)]
    seen = found[:, 0][:, inside[0]][:, :, inside[1]]
    torch.testing.assert_close(
        seen[0], places[0][inside[0]][:, None].expand_as(seen[0]), atol=0.1, rtol=0
    )
    torch.testing.assert_close(seen[1], places[1][inside[1]].expand_as(seen[1]), atol=0.1, rtol=0)
    outside = [(place < -1) | (place > side) for place, side in zip(places, shape, strict=True)]
    assert not found[:, 0, outside[0]].any()
    assert not found[:, 0][:, :, outside[1]].any()


@pytest.mark.parametrize("size", [(64, 64), (30, 41), (700, 400), (97, 1111)])
def test_photographs_of_any_size(size):
    processor, image = PROCESSORS[0], photograph(*size)
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    gray = image_seen(pixels, processor).mean(-1)[None, None]
    found = on_original(gray, image, processor)[0, 0]
    expected = torch.from_numpy(np.array(image)).double().mean(-1) / 255
    side = min(size)
    top, left = ((extent - side) // 2 for extent in size)
    inner = tuple(slice(start + side // 8, start + 7 * side // 8) for start in (top, left))
    torch.testing.assert_close(found[inner].double(), expected[inner], atol=0.05, rtol=0)


def test_a_processor_that_pads_is_refused():
    def processor(images, **_):
        (image,) = images
        padded = np.zeros((120, 120, 3), np.uint8)
        padded[: image.shape[0]] = image
        tensor = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255
        return {"pixel_values": tensor}

    processor.do_normalize = False
    with pytest.raises(ValueError, match="does more than resize and crop"):
        on_original(torch.zeros(1, 1, 120, 120), photograph(60, 120), processor)


def test_what_cannot_be_put_back_is_refused():
    with pytest.raises(ValueError, match=r"`heat` must have shape \(B, 1, 64, 64\), .*, 8, 8\)"):
        on_original(torch.zeros(1, 1, 8, 8), photograph(90, 120), PROCESSORS[0])
    with pytest.raises(ValueError, match=r"`image` must be a PIL image or .*\(3, 9, 12\)"):
        on_original(torch.zeros(1, 1, 64, 64), np.zeros((3, 9, 12)), PROCESSORS[0])


def test_what_the_picture_advises_works():
    processor, image = PROCESSORS[0], photograph(90, 120)
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    heat = image_map(torch.randn(1, 65, 4), pixels, model=vision_transformer())
    with pytest.raises(ValueError, match=r"maps.image_seen\(.*maps.on_original\(") as refused:
        visualization.overlay(np.asarray(image), heat)
    assert "size=" not in str(refused.value)
    visualization.overlay(image_seen(pixels, processor), heat)
    visualization.overlay(np.asarray(image), on_original(heat, image, processor))


def test_min_max_is_per_sample_and_keeps_constant_maps_finite():
    values = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    assert min_max(values).tolist() == [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    assert min_max(torch.randn(2, 1, 4, 4)).amax((1, 2, 3)).tolist() == [1.0, 1.0]


def test_token_scores_keep_special_tokens_apart_and_drop_padding():
    model, processor = build("clip")
    ids = tokenize(model, processor, ["a red circle", "a heart and a square"])["input_ids"]
    attribution = torch.arange(2.0 * 7 * 2).reshape(2, 7, 2) * (ids > 0)[..., None]
    first, second = token_scores(attribution, ids, processor)
    assert first.tokens == ("<bos>", "a", "red", "circle", "<eos>")
    assert first.special == (True, False, False, False, True)
    assert first.scores == (1.0, 5.0, 9.0, 13.0, 17.0)
    assert second.tokens == ("<bos>", "a", "heart", "and", "a", "square", "<eos>")
    with pytest.raises(ValueError, match=r"`input_ids` of shape \(2, 7\), got \(2, 3, 2\)"):
        token_scores(torch.zeros(2, 3, 2), ids, processor)


def test_maps_with_channels_last_are_refused():
    with pytest.raises(ValueError, match=r"no \(B, C, h, w\) map of .* 64x64.*permute"):
        image_map(torch.zeros(1, 32, 32, 16), (64, 64))
    assert image_map(torch.zeros(1, 3, 8, 11), (250, 333)).shape == (1, 1, 250, 333)


def test_padding_that_is_pooled_is_one_special_token():
    model, processor = build("siglip")
    ids = tokenize(model, processor, ["a heart"])["input_ids"]
    (scores,) = token_scores(torch.ones(1, 16, 2), ids, processor)
    assert scores.tokens == ("<bos>", "a", "heart", "<eos>", "<padding>")
    assert scores.scores == (2, 2, 2, 2, 24)
    assert scores.special == (True, False, False, True, True)


def test_padding_on_the_left_is_left_out():
    _, processor = build("clip")
    ids = torch.tensor([[0, 0, 1, 4, 10, 3], [0, 0, 0, 1, 4, 10]])
    attribution = (ids > 0).float()[..., None]
    ended, open_ended = token_scores(attribution, ids, processor)
    assert ended.tokens == ("<bos>", "a", "heart", "<eos>")
    assert open_ended.tokens == ("<bos>", "a", "heart")


def test_what_follows_the_end_is_no_word():
    _, processor = build("clip")
    ids = torch.tensor([[1, 4, 10, 3, 4, 3, 10], [1, 4, 10, 10, 10, 10, 3]])
    expected = [
        [True, False, False, True, True, True, True],
        [True, False, False, False, False, False, True],
    ]
    assert special_tokens(processor, ids).tolist() == expected
    first, _ = token_scores(torch.ones(2, 7, 1), ids, processor)
    assert first.tokens == ("<bos>", "a", "heart", "<eos>", "<padding>")
    assert first.scores == (1, 1, 1, 1, 3)


def test_byte_level_tokens_are_decoded():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(alphabet)}
    vocabulary["Ã©"] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, [("Ã", "©")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="!")
    ids = torch.tensor([tokenizer("é")["input_ids"]])
    (scores,) = token_scores(torch.ones(1, 1, 1), ids, tokenizer)
    assert scores.tokens == ("é",)


def test_token_scores_know_an_end_token_that_doubles_as_padding():
    _, processor = build("clip")
    tokenizer = processor.tokenizer
    tokenizer.pad_token = "<eos>"
    ids = torch.tensor([[1, 4, 10, 3, 3, 3]])
    attribution = torch.tensor([1.0, 1, 1, 1, 0, 0])[None, :, None]
    (scores,) = token_scores(attribution, ids, tokenizer)
    assert scores.tokens == ("<bos>", "a", "heart", "<eos>")


def test_pixels_that_no_patch_covers_lie_at_the_right_and_at_the_bottom():
    # 40 x 53 pixels in patches of 8: 5 rows of 6, five columns of pixels are left over.
    heat = image_map(torch.ones(1, 31, 4), (40, 53), model=vision_transformer())
    assert heat.shape == (1, 1, 40, 53)
    assert (heat[..., :48] == 4).all()
    assert (heat[..., 48:] == 0).all()
    turned = image_map(torch.ones(1, 31, 4), (53, 40), model=vision_transformer())
    torch.testing.assert_close(turned, heat.mT)


def test_bits_of_an_image_that_the_patches_do_not_cover_sum_to_the_total():
    nats = torch.ones(1, 226, 4)  # a class token, then 15 rows of 15 patches of 16 pixels
    bits = bits_per_pixel(nats, (250, 250), model=vision_transformer(16))
    assert bits.sum().item() == pytest.approx(225 * 4 / math.log(2), rel=1e-5)
    assert bits[0, 0, 0, 0].item() == pytest.approx(4 / math.log(2) / 16**2, rel=1e-5)


def test_only_an_image_processor_says_what_the_model_saw(embedded):
    clip, processor = embedded
    x = torch.rand(1, 3, 64, 64)
    for pixels, given in ((x, clip), (x, processor.tokenizer), (x.numpy(), processor)):
        with pytest.raises(TypeError, match=r"`pixels` must be the tensor .*image processor"):
            image_seen(pixels, given)


def test_the_model_and_the_grid_are_not_both_given():
    with pytest.raises(ValueError, match=r"one of the two, got both"):
        image_map(torch.ones(1, 31, 4), (40, 53), model=vision_transformer(), grid=(5, 6))
