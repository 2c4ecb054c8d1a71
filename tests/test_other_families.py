"""Dual encoders beyond the usual six: similarities and embedded texts against their own forward."""

import pytest
import torch
import transformers as t
from families import CONTEXT, LEGACY_VOCABULARY, VOCABULARY, processor
from torch.nn.functional import normalize

from captum_mi import NarrowingIB
from captum_mi.models import (
    EmbeddedText,
    ImageTextSimilarity,
    TextImageSimilarity,
    blocks,
    tokenize,
)

TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
VISION = SHAPE | {"image_size": 32, "patch_size": 8}
TEXT = SHAPE | {
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 3,
}
LARGEST = {"pad_token_id": 0, "bos_token_id": 10, "eos_token_id": 11}


def config(kind, text=TEXT, vision=VISION, **options):
    return kind(text_config=text, vision_config=vision, projection_dim=24, **options)


GROUPS = {"depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 0]}
BUILDERS = {
    "owlvit": lambda: t.OwlViTModel(config(t.OwlViTConfig, TEXT | LARGEST)),
    "owlv2": lambda: t.Owlv2Model(config(t.Owlv2Config, TEXT | LARGEST)),
    "groupvit": lambda: t.GroupViTModel(config(t.GroupViTConfig, vision=VISION | GROUPS)),
    "clipseg": lambda: t.CLIPSegModel(config(t.CLIPSegConfig)),
    "aimv2": lambda: t.Aimv2Model(config(t.Aimv2Config)),
    "blip": lambda: t.BlipModel(config(t.BlipConfig)),
    "vision-text": lambda: t.VisionTextDualEncoderModel(
        t.VisionTextDualEncoderConfig.from_vision_text_configs(
            t.ViTConfig(**VISION), t.BertConfig(**TEXT), projection_dim=24
        )
    ),
    "flava": lambda: t.FlavaModel(
        t.FlavaConfig(
            image_config=VISION,
            text_config=TEXT,
            multimodal_config=SHAPE,
            hidden_size=32,
            projection_dim=24,
        )
    ),
}


def build(family):
    torch.manual_seed(1)
    model = BUILDERS[family]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 2 * parameter.shape[-1] ** -0.5)
            elif "bias" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model.eval(), processor(LEGACY_VOCABULARY if "owl" in family else VOCABULARY)


def own_cosines(model, encoded, pixels):
    if isinstance(model, t.FlavaModel):
        # As FlavaForPreTraining compares them.
        images = model.image_projection(model.image_model(pixels).last_hidden_state[:, 0])
        texts = model.text_projection(model.text_model(**encoded).last_hidden_state[:, 0])
    else:
        output = model(**encoded, pixel_values=pixels)
        images, texts = output.image_embeds, output.text_embeds
    return normalize(images, dim=-1) @ normalize(texts.flatten(0, -2), dim=-1).T


@pytest.mark.parametrize("family", BUILDERS)
def test_cosines_equal_the_models_own(family):
    model, processor = build(family)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    encoded = tokenize(model, processor, TEXTS)
    with torch.no_grad():
        expected = own_cosines(model, encoded, pixels)
        found = ImageTextSimilarity(model, processor, TEXTS)(pixels)
        mirrored = TextImageSimilarity(model, processor, [image])(**encoded)
    assert found.shape == (1, 3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored, expected.T, atol=1e-5, rtol=0)
    assert expected.std() > 0.005


@pytest.mark.parametrize("family", BUILDERS)
def test_texts_by_their_embeddings(family):
    model, processor = build(family)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    similarity = TextImageSimilarity(model, processor, [image])
    text = EmbeddedText(similarity, processor, TEXTS)
    with torch.no_grad():
        expected = similarity(**tokenize(model, processor, TEXTS))
        torch.testing.assert_close(text(text.embeddings), expected, atol=1e-5, rtol=0)
        assert not torch.allclose(text(text.embeddings * text.special[:, None]), expected)
    layer = blocks(model, "text")[0]
    attribution = NarrowingIB(text, layer).attribute(text.embeddings, target=0)
    assert attribution.shape == (3, text.embeddings.shape[-1], 32)
    assert attribution.any()


@pytest.mark.parametrize("family", ["owlvit", "clipseg", "groupvit", "aimv2"])
def test_a_text_without_its_end_is_refused(family):
    model, processor = build(family)
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    ids = tokenize(model, processor, TEXTS[:1])["input_ids"]
    with pytest.raises(ValueError, match=r"row 0 has no end token"):
        similarity(ids[:, :-1])


@pytest.mark.parametrize("family", BUILDERS)
def test_other_image_sizes_run_or_are_refused_in_one_line(family):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    if family in ("aimv2", "groupvit"):
        for size in ((48, 64), (16, 64)):  # as many patches as the model knows, and yet others
            with pytest.raises(ValueError, match=r"must be 32x32, for .* no other positions, got"):
                similarity(torch.randn(1, 3, *size))
        return
    pixels = torch.randn(1, 3, 48, 64)
    found = similarity(pixels)
    assert found.shape == (1, 3)
    assert found.isfinite().all()
    assert not torch.allclose(found, similarity(pixels[..., :32, :32]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("family", BUILDERS)
def test_pixels_are_cast_to_the_models_precision(family, dtype):
    model, processor = build(family)
    pixels = torch.randn(2, 3, 32, 32).to(dtype).float()
    similarity = ImageTextSimilarity(model, processor, TEXTS).to(dtype)
    expected = similarity(pixels.to(dtype))
    torch.testing.assert_close(similarity(pixels), expected)
    assert expected.std() > 0.01


def test_video_models_are_refused():
    frames = {"mit_hidden_size": 32, "mit_num_attention_heads": 4, "mit_num_hidden_layers": 1}
    model = t.XCLIPModel(config(t.XCLIPConfig, vision=VISION | frames))
    with pytest.raises(ValueError, match="is a XCLIPModel, which has no get_image_features; give"):
        ImageTextSimilarity(model, processor(), TEXTS)
