"""The blocks of a tower, wherever it sits, against the attribute paths written out by hand."""

from operator import attrgetter

import pytest
import torch
import torchvision
import transformers as t
from families import build
from torch import nn

from captum_mi.models import EmbeddedText, TextImageSimilarity, blocks
from captum_mi.models.towers import hidden_states

SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
VISION = SHAPE | {"image_size": 32, "patch_size": 8, "num_hidden_layers": 4}
TEXT = SHAPE | {"vocab_size": 12, "max_position_embeddings": 20}
BOTH = {"text_config": TEXT, "vision_config": VISION}


def clipseg():
    decoder = {"reduce_dim": 8, "extract_layers": [1, 2], "decoder_num_attention_heads": 2}
    return t.CLIPSegConfig(**BOTH, **decoder)


def vision_text():
    return t.VisionTextDualEncoderConfig.from_vision_text_configs(
        t.ViTConfig(**VISION), t.BertConfig(**TEXT)
    )


def flava():
    parts = {"image_config": VISION, "text_config": TEXT, "multimodal_config": SHAPE}
    return t.FlavaConfig(**parts, hidden_size=16, projection_dim=8)


def align():
    vision = {"image_size": 32, "num_hidden_layers": 4, "width_coefficient": 0.1}
    vision |= {"depth_coefficient": 0.1, "hidden_dim": 16}
    return t.AlignConfig(text_config=TEXT, vision_config=vision)


def groupvit():
    vision = VISION | {"depths": [2, 3, 2], "num_group_tokens": [4, 2, 0]}
    vision |= {"num_output_groups": [4, 2, 0]}
    return t.GroupViTConfig(text_config=TEXT, vision_config=vision)


def altclip():
    text = TEXT | {"project_dim": 8, "pad_token_id": 0}
    return t.AltCLIPConfig(text_config=text, vision_config=VISION)


CLIP = ("vision_model.encoder.layers", "text_model.encoder.layers")
TOWERS = {
    "clip": (lambda: t.CLIPModel(t.CLIPConfig(**BOTH)), *CLIP),
    "siglip": (lambda: t.SiglipModel(t.SiglipConfig(**BOTH)), *CLIP),
    "metaclip2": (lambda: t.MetaClip2Model(t.MetaClip2Config(**BOTH)), *CLIP),
    "clipseg": (lambda: t.CLIPSegModel(clipseg()), *CLIP),
    "clipseg segmentation": (
        lambda: t.CLIPSegForImageSegmentation(clipseg()),
        *[f"clip.{path}" for path in CLIP],
    ),
    "owlvit": (lambda: t.OwlViTModel(t.OwlViTConfig(**BOTH)), *CLIP),
    "owlvit detection": (
        lambda: t.OwlViTForObjectDetection(t.OwlViTConfig(**BOTH)),
        *[f"owlvit.{path}" for path in CLIP],
    ),
    "owlv2": (lambda: t.Owlv2Model(t.Owlv2Config(**BOTH)), *CLIP),
    "groupvit": (lambda: t.GroupViTModel(groupvit()), None, CLIP[1]),
    "altclip": (
        lambda: t.AltCLIPModel(altclip()),
        CLIP[0],
        "text_model.roberta.encoder.layers",
    ),
    "chinese_clip": (
        lambda: t.ChineseCLIPModel(t.ChineseCLIPConfig(**BOTH)),
        CLIP[0],
        "text_model.encoder.layer",
    ),
    "blip": (lambda: t.BlipModel(t.BlipConfig(**BOTH)), CLIP[0], "text_model.encoder.layer"),
    "blip retrieval": (
        lambda: t.BlipForImageTextRetrieval(t.BlipConfig(**BOTH)),
        CLIP[0],
        "text_encoder.encoder.layer",
    ),
    "flava": (
        lambda: t.FlavaModel(flava()),
        "image_model.encoder.layer",
        "text_model.encoder.layer",
    ),
    "align": (lambda: t.AlignModel(align()), None, "text_model.encoder.layer"),
    "vision-text": (
        lambda: t.VisionTextDualEncoderModel(vision_text()),
        "vision_model.layers",
        "text_model.encoder.layer",
    ),
    "aimv2": (lambda: t.Aimv2Model(t.Aimv2Config(**BOTH)), *CLIP),
}


class Around(nn.Module):
    """A module around a model, under whatever name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


@pytest.mark.parametrize("family", TOWERS)
def test_blocks_of_each_tower(family):
    build_model, image, text = TOWERS[family]
    model = build_model()
    for tower, path, count in (("image", image, 4), ("text", text, 3)):
        if path is None:
            continue
        expected = attrgetter(path)(model)
        assert len(expected) == count
        assert blocks(model, tower) is expected
        for around in (
            Around(net=model),
            Around(model=model),
            Around(head=nn.Linear(2, 2), scorer=Around(backbone=model)),
        ):
            assert blocks(around, tower) is expected


def test_a_tower_beside_other_attention():
    model = build("clip")[0]
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2), 2)
    around = Around(decoder=decoder, clip=model)
    assert blocks(around, "image") is model.vision_model.encoder.layers
    assert blocks(around, "text") is model.text_model.encoder.layers


def test_similarities_hold_their_towers():
    model, processor = build("clip")
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    text = EmbeddedText(TextImageSimilarity(model, processor, [image]), processor, ["a heart"])
    assert blocks(text, "text") is model.text_model.encoder.layers
    assert blocks(text.similarity, "image") is model.vision_model.encoder.layers


def test_the_layout_of_open_clip():
    def transformer(count):
        blocks = [nn.TransformerEncoderLayer(16, 2) for _ in range(count)]
        return Around(resblocks=nn.ModuleList(blocks))

    model = Around(visual=Around(transformer=transformer(4)), transformer=transformer(3))
    assert blocks(model, "image") is model.visual.transformer.resblocks
    assert blocks(model, "text") is model.transformer.resblocks


@pytest.mark.parametrize(
    ("model", "last"),
    [
        (torchvision.models.VisionTransformer(32, 8, 4, 2, 16, 16), "encoder_layer_3"),
        (t.ViTModel(t.ViTConfig(**VISION)), "ViTLayer"),
        (t.ViTForImageClassification(t.ViTConfig(**VISION)), "ViTLayer"),
        (t.BertForSequenceClassification(t.BertConfig(**TEXT)), "BertLayer"),
        (t.GPT2LMHeadModel(t.GPT2Config(n_embd=16, n_layer=4, n_head=2)), "GPT2Block"),
    ],
    ids=["torchvision vit", "vit", "vit classifier", "bert classifier", "gpt2"],
)
def test_blocks_of_single_encoders(model, last):
    expected = [
        module
        for name, module in model.named_modules()
        if last in (type(module).__name__, name.rsplit(".")[-1]) or "encoder_layer_" in name[-16:]
    ]
    found = list(blocks(model))
    assert len(found) == (3 if last == "BertLayer" else 4)
    assert found == expected


def test_a_list_inside_a_block_is_no_stage():
    def block():
        attention = nn.TransformerEncoderLayer(16, 2).self_attn
        return Around(mix=nn.Sequential(attention), rest=nn.Linear(16, 16))

    model = Around(patches=nn.Linear(4, 16), layers=nn.ModuleList([block() for _ in range(3)]))
    assert blocks(model) is model.layers


def refusal(model, tower="image"):
    with pytest.raises(ValueError, match=r"`model`|`tower`") as refused:
        blocks(model, tower)
    return str(refused.value)


def names_in(message, model):
    """Every name that the message lists is a module of the model."""
    names = message.rsplit(", of ", 1)[-1].rsplit(", among ", 1)[-1].split(", ")
    for name in names:
        if name != "...":
            assert model.get_submodule(name) is not model
    return names


def test_stages_are_refused_by_name():
    swin = torchvision.models.SwinTransformer([4, 4], 8, [2, 2, 2], [2, 2, 2], [4, 4])
    message = refusal(swin)
    assert "has 3 in its image tower" in message
    assert names_in(message, swin) == ["features.1", "features.3", "features.5"]
    config = t.SwinConfig(image_size=32, embed_dim=8, depths=[2, 2], num_heads=[2, 2])
    hugging_face = t.SwinModel(config)
    assert len(names_in(refusal(hugging_face), hugging_face)) == 2
    group = t.GroupViTModel(groupvit())
    assert names_in(refusal(group), group) == [
        f"vision_model.encoder.stages.{i}.layers" for i in range(3)
    ]
    bart = t.BartModel(
        t.BartConfig(
            vocab_size=12,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
        )
    )
    assert names_in(refusal(bart, "text"), bart) == ["encoder.layers", "decoder.layers"]


def test_towers_without_attention_are_refused_by_name():
    resnet = torchvision.models.resnet18()
    message = refusal(resnet)
    assert "ResNet has no list of attention blocks in its image tower" in message
    assert names_in(message, resnet) == ["layer1", "layer2", "layer3", "layer4"]
    model = t.AlignModel(align())
    assert names_in(refusal(model), model) == ["vision_model.encoder.blocks"]


def test_towers_under_names_that_say_nothing_are_refused_by_name():
    model = build("clip")[0]
    around = Around(eye=model.vision_model.encoder, ear=model.text_model.encoder)
    message = refusal(around)
    assert names_in(message, around) == ["eye.layers", "ear.layers"]


def test_two_models_are_refused():
    pair = Around(first=build("clip")[0], second=build("siglip")[0])
    message = refusal(pair, "text")
    assert "must have one text tower" in message
    assert "first.text_model, second.text_model" in message
    clip = build("clip")[0]
    shared = Around(first=Around(clip=clip), second=Around(clip=clip))
    assert blocks(shared, "text") is clip.text_model.encoder.layers


def test_hidden_states_are_two(embedded):
    model, _ = embedded
    assert hidden_states(model, (2, None)) == (2, 1)
    with pytest.raises(TypeError, match=r"`hidden_states` must be two, .* got 3$"):
        hidden_states(model, 3)
