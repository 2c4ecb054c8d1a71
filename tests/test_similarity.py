"""The similarity modules against the families' own forward, and what they refuse."""

import pytest
import torch
from families import CONTEXT, FAMILIES, LEGACY_VOCABULARY, build, tokenizer
from torch.nn.functional import normalize

from captum_mi._intervention.split import split_at
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, load_clip, tokenize
from captum_mi.models.clip import preprocess
from captum_mi.models.towers import default_hidden_state, hidden_state, hidden_states

TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]


@pytest.mark.parametrize("family", FAMILIES)
def test_cosines_equal_the_models_own(family):
    model, processor = build(family)
    pixels = torch.randn(2, 3, 32, 32)
    encoded = tokenize(model, processor, TEXTS)
    output = model(**encoded, pixel_values=pixels)
    expected = normalize(output.image_embeds, dim=-1) @ normalize(output.text_embeds, dim=-1).T
    actual = ImageTextSimilarity(model, processor, TEXTS)(pixels)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    assert actual.std() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mirror_gives_the_same_cosine(family):
    model, processor = build(family)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    from_image = ImageTextSimilarity(model, processor, TEXTS)(pixels)
    from_text = TextImageSimilarity(model, processor, [image])(**tokenize(model, processor, TEXTS))
    torch.testing.assert_close(from_text, from_image.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_are_those_of_the_models_own_logits(family):
    model, processor = build(family)
    model.logit_scale.data.fill_(2.0)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    pixels = preprocess(model, processor, [image]).expand(3, -1, -1, -1)
    encoded = tokenize(model, processor, TEXTS)
    logits = model(**encoded, pixel_values=pixels).logits_per_image
    target = torch.tensor([2, 0, 1])
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    actual = similarity.log_likelihood(similarity(pixels), target)
    torch.testing.assert_close(actual, logits.log_softmax(1)[[0, 1, 2], [2, 0, 1]])
    mirror = TextImageSimilarity(model, processor, [image, image.flip(1)])
    cosines = mirror(**encoded)
    actual = mirror.log_likelihood(cosines, torch.tensor([0, 1, 1]))
    expected = (cosines * model.logit_scale.exp()).log_softmax(1)[[0, 1, 2], [0, 1, 1]]
    torch.testing.assert_close(actual, expected)


def test_a_temperature_is_one_by_the_scale_and_without_either_there_is_no_likelihood():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    cosines, target = torch.tensor([[0.1, 0.3, -0.2]]), torch.tensor([1])
    del model.logit_scale
    with pytest.raises(ValueError, match="CLIPModel has none; give a `log_likelihood` of your own"):
        similarity.log_likelihood(cosines, target)
    model.temperature = torch.nn.Parameter(torch.tensor(0.05))  # as ALIGN has it
    actual = similarity.log_likelihood(cosines, target)
    torch.testing.assert_close(actual, (cosines / 0.05).log_softmax(1)[:, 1])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ([0, 1], "one index for each of 1 rows, got a tensor of shape .2,."),
        ([0.5], "one index for each of 1 rows"),
        ([3], "`target` must be 0 to 2, got 3 to 3"),
        ([-1], "`target` must be 0 to 2, got -1 to -1"),
    ],
)
def test_a_likelihood_is_of_one_of_the_texts(target, words):
    similarity = ImageTextSimilarity(*build("clip"), TEXTS)
    with pytest.raises(ValueError, match=words):
        similarity.log_likelihood(torch.zeros(1, 3), torch.tensor(target))


@pytest.mark.parametrize("family", ["clip", "clip-legacy", "metaclip2", "chinese_clip", "altclip"])
def test_padding_does_not_change_a_text(family):
    model, processor = build(family)
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    together = similarity(**tokenize(model, processor, TEXTS))
    alone = torch.cat([similarity(**tokenize(model, processor, [text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_siglip_pads_to_its_context_and_refuses_less():
    model, processor = build("siglip")
    encoded = tokenize(model, processor, TEXTS)
    assert list(encoded) == ["input_ids"]
    assert encoded["input_ids"].shape == (3, CONTEXT)
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    with pytest.raises(ValueError, match=r"padded to 16 tokens.*got 8"):
        similarity(encoded["input_ids"][:, :8])


@pytest.mark.parametrize("family", ["clip", "chinese_clip", "altclip", "siglip"])
def test_text_longer_than_the_context_is_refused(family):
    model, processor = build(family)
    words = r"a text has 23 tokens, but the model reads at most 16; shorten 'a a a .*\.\.\.'"
    with pytest.raises(ValueError, match=words) as error:
        tokenize(model, processor, ["a heart", "a " * 20 + "x" * 5000])
    assert len(str(error.value)) < 200
    assert tokenize(model, processor, ["a " * 14])["input_ids"].shape == (1, 16)


@pytest.mark.parametrize(("family", "eos"), [("clip", 3), ("clip-legacy", 11)])
def test_missing_end_token_is_refused(family, eos):
    model, processor = build(family)
    vocabulary = LEGACY_VOCABULARY if family == "clip-legacy" else None
    bare = tokenizer(vocabulary) if vocabulary else tokenizer()
    bare._tokenizer.post_processor = None
    with pytest.raises(ValueError, match=rf"row 0 has no end token \({eos}\)"):
        tokenize(model, bare, ["a red circle"])
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    ids = tokenize(model, processor, ["a red circle", "a heart"])["input_ids"]
    ids[1, -2:] = 4
    with pytest.raises(ValueError, match=r"row 1 has no end token"):
        similarity(ids)


def test_a_legacy_model_pools_the_largest_id_and_not_the_end():
    model, processor = build("clip-legacy")
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    ids = torch.tensor([[10, 2, 8, 11], [10, 12, 8, 11]])  # 12 stands behind the end token, 11
    assert similarity(ids[:1]).shape == (1, 1)
    with pytest.raises(ValueError, match=r"row 1 has no end token \(11\)"):
        similarity(ids)


def test_noisy_token_ids_are_refused_with_a_remedy():
    model, processor = build("clip")
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    with pytest.raises(
        TypeError, match=r"integer token ids, got torch.float32.*behind the embedding"
    ):
        similarity(torch.randn(1, 5))


@pytest.mark.parametrize(
    ("texts", "error"),
    [([], "at least one text"), (["a heart", " "], "non-empty texts, got ' '")],
)
def test_empty_texts_are_refused(texts, error):
    model, processor = build("clip")
    with pytest.raises(ValueError, match=error):
        ImageTextSimilarity(model, processor, texts)


def test_one_string_is_not_a_list_of_texts():
    model, processor = build("clip")
    with pytest.raises(TypeError, match=r"single text 'a heart'"):
        ImageTextSimilarity(model, processor, "a heart")


def test_no_image_is_refused():
    model, processor = build("clip")
    with pytest.raises(ValueError, match=r"at least one image"):
        TextImageSimilarity(model, processor, [])


def test_unknown_words_warn():
    model, processor = build("clip")
    with pytest.warns(UserWarning, match=r"'a photo': there are words that the tok") as caught:
        tokenize(model, processor, ["a heart", "a photo"])
    assert len(caught) == 1
    assert "embedded" not in str(caught[0].message)
    assert "a heart" not in str(caught[0].message)


def test_unknown_words_of_the_embedded_model_warn_loudly(embedded):
    words = r"'tabby cat', 'a dog': .* colored shapes AND NOTHING ELSE.*load_clip\("
    with pytest.warns(UserWarning, match=words) as caught:
        ImageTextSimilarity(*embedded, ["tabby cat", "a red circle", "a dog"])
    assert len(caught) == 1


def test_a_long_text_draws_no_warning_of_transformers(caplog):
    model, processor = build("clip")
    processor.tokenizer.model_max_length = CONTEXT
    from transformers.utils import logging

    logging.enable_propagation()
    try:
        with pytest.raises(ValueError, match="has 22 tokens"):
            tokenize(model, processor, ["a " * 20])
    finally:
        logging.disable_propagation()
    assert caplog.text == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_other_image_sizes_get_interpolated_positions(family):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    pixels = torch.randn(2, 3, 48, 64)
    expected = model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True)
    expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    cosines = normalize(expected, dim=-1) @ similarity.text_embeddings.T
    torch.testing.assert_close(similarity(pixels), cosines)


def test_features_returned_as_a_tuple_are_understood(monkeypatch):
    model, processor = build("clip")
    pixels = torch.randn(1, 3, 32, 32)
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    expected = similarity(pixels)
    original = model.get_image_features

    def as_tuple(**kwargs):
        output = original(**kwargs)
        embedding = output if isinstance(output, torch.Tensor) else output.pooler_output
        return torch.zeros(1, 17, 32), embedding

    monkeypatch.setattr(model, "get_image_features", as_tuple)
    torch.testing.assert_close(similarity(pixels), expected)


def test_variable_resolution_model_is_refused():
    from transformers import Siglip2Config, Siglip2Model

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    shape["num_attention_heads"] = 2
    config = Siglip2Config(text_config=shape | {"vocab_size": 12}, vision_config=shape)
    model = Siglip2Model(config)
    with pytest.raises(ValueError, match=r"Siglip2Model takes no images of one fixed size"):
        TextImageSimilarity(model, build("siglip")[1], [torch.zeros(3, 32, 32)])


def batch(processor):
    images = [torch.zeros(3, 32, 32, dtype=torch.uint8)]
    return processor.image_processor(images=images, return_tensors="pt")


def test_what_are_no_pixels_is_refused():
    from PIL import Image

    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    pixels = torch.zeros(1, 3, 32, 32)
    wrong = [
        (batch(processor), r"got a BatchFeature; give its item, \[\"pixel_values\"\]"),
        (Image.new("RGB", (32, 32)), r"got a Image; make it with processor\(images=\[image\]"),
        ([pixels[0], torch.zeros(3, 40, 40)], r"got a list; make it with processor\("),
        (pixels.byte(), r"floating-point.*got torch.uint8; make it with processor\("),
    ]
    for value, words in wrong:
        with pytest.raises(TypeError, match="`pixel_values` must be .*" + words):
            similarity(value)
    with pytest.raises(ValueError, match=r"must have shape \(B, 3, H, W\), got \(3, 32, 32\)"):
        similarity(pixels[0])


def test_pixels_that_no_processor_scaled_warn(recwarn):
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    similarity(torch.randn(2, 3, 32, 32) + torch.randn(2, 3, 32, 32))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"`pixel_values` holds values beyond 20, .*processor\("):
        similarity(torch.linspace(0, 255, 3072).view(1, 3, 32, 32))


def test_what_are_no_token_ids_is_refused():
    model, processor = build("clip")
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    encoded = processor.tokenizer(["a heart"], return_tensors="pt")
    with pytest.raises(TypeError, match=r"got a BatchEncoding; give its parts, .*\(\*\*encoded\)"):
        similarity(encoded)
    with pytest.raises(TypeError, match=r"got a list; make them with tokenize\("):
        similarity([[1, 2]])


def test_one_image_is_not_a_list_of_images():
    from PIL import Image

    model, processor = build("clip")
    with pytest.raises(TypeError, match=r"`images` must be a list of images, got a Image; give"):
        TextImageSimilarity(model, processor, Image.new("RGB", (32, 32)))


def test_images_of_several_sizes_are_resized_by_the_processor():
    from PIL import Image

    model, processor = build("clip")
    images = [Image.new("RGB", size, "red") for size in ((40, 32), (64, 99))]
    together = TextImageSimilarity(model, processor, images).image_embeddings
    for image, expected in zip(images, together, strict=True):
        alone = TextImageSimilarity(model, processor, [image]).image_embeddings
        torch.testing.assert_close(alone[0], expected, atol=1e-5, rtol=0)


def test_pixels_are_the_processors_on_the_models_device():
    from PIL import Image

    model, processor = build("clip")
    images = [Image.new("RGB", (40, 32), "red"), Image.new("RGB", (64, 99), "blue")]
    expected = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    assert expected.shape == (2, 3, 32, 32)
    assert torch.equal(preprocess(model, processor, images), expected)
    assert preprocess(model.to("meta"), processor, images).device.type == "meta"


def test_an_encoder_without_a_configuration_is_refused():
    class Bare(torch.nn.Module):
        def get_image_features(self, pixel_values): ...

        def get_text_features(self, input_ids): ...

    with pytest.raises(ValueError, match=r"`model` is a Bare, which has no config; give an image"):
        ImageTextSimilarity(Bare(), build("clip")[1], TEXTS)


def test_what_embeds_no_images_is_refused():
    from transformers import ClapConfig, ClapModel

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text = shape | {"num_attention_heads": 2, "vocab_size": 12}
    audio = {"hidden_size": 16, "depths": [1], "num_attention_heads": [2]}
    audio |= {"patch_embeds_hidden_size": 8, "spec_size": 32, "num_mel_bins": 8}
    clap = ClapModel(ClapConfig(text_config=text, audio_config=audio))
    processor = build("clip")[1]
    words = "`model` is a ClapModel, which has no get_image_features; give an image-text model"
    with pytest.raises(ValueError, match=words):
        ImageTextSimilarity(clap, processor, TEXTS)
    with pytest.raises(ValueError, match=words):
        TextImageSimilarity(clap, processor, [torch.zeros(3, 32, 32)])


def test_the_bare_model_is_refused_with_a_remedy():
    model, _ = build("clip")
    ids = torch.tensor([[1, 4, 10, 3]])
    with pytest.raises(TypeError, match=r"got CLIPOutput; .* captum_mi.models.ImageTextSimilarity"):
        split_at(model, [blocks(model, "text")[0]], ids, (torch.randn(1, 3, 32, 32),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_give_float32_cosines(dtype):
    model, processor = build("clip")
    pixels = torch.randn(2, 3, 32, 32)
    expected = ImageTextSimilarity(model, processor, TEXTS)(pixels)
    actual = ImageTextSimilarity(model.to(dtype), processor, TEXTS)(pixels)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tower", ["image", "text"])
def test_blocks_are_the_towers_own(family, tower):
    model, processor = build(family, layers=4)
    found = blocks(model, tower)
    assert len(found) == 4
    owner = model.vision_model if tower == "image" else model.text_model
    assert all(any(block is module for module in owner.modules()) for block in found)
    assert blocks(ImageTextSimilarity(model, processor, TEXTS), tower) is found


def test_blocks_of_single_encoders():
    import torchvision
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3}
    small["num_attention_heads"] = 2
    assert len(blocks(ViTModel(ViTConfig(**small)))) == 3
    assert len(blocks(BertModel(BertConfig(vocab_size=9, **small)), "text")) == 3
    assert len(blocks(torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 16))) == 3


def test_training_flags_are_left_alone():
    model, processor = build("clip")
    model.train()
    model.vision_model.eval()
    before = [module.training for module in model.modules()]
    ImageTextSimilarity(model, processor, TEXTS)
    TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32)])
    assert [module.training for module in model.modules()] == before


def test_a_similarity_may_be_cast():
    model, processor = build("clip")
    pixels = torch.randn(2, 3, 32, 32)
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    expected = similarity(pixels)
    actual = similarity.to(torch.bfloat16)(pixels.to(torch.bfloat16))
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0)


def test_blocks_of_other_layouts():
    class Layout(torch.nn.Module):
        def __init__(self, **towers):
            super().__init__()
            for name, tower in towers.items():
                setattr(self, name, tower)

    vision, text = build("clip")[0].vision_model, build("clip")[0].text_model
    model = Layout(vision_model=vision, text_encoder=text)
    assert blocks(model, "text") is text.encoder.layers
    assert blocks(model, "image") is vision.encoder.layers
    with pytest.raises(ValueError, match=r"`tower` 'image' is not part of Layout"):
        blocks(Layout(language_model=text), "image")


def test_blocks_refuses_what_has_none():
    import torchvision

    with pytest.raises(ValueError, match=r"ResNet has no list of attention blocks"):
        blocks(torchvision.models.resnet18())
    with pytest.raises(ValueError, match=r"`tower` must be one of 'image', 'text', got 'audio'"):
        blocks(torchvision.models.resnet18(), "audio")


def test_hidden_states_are_counted_by_blocks_already_run():
    model, _ = build("clip")
    encoder = blocks(model, "image")
    pixels = torch.randn(1, 3, 32, 32)
    states = model.vision_model(pixels, output_hidden_states=True).hidden_states
    for index in range(6):
        layer, at_input = hidden_state(model, "image", index)
        suffix = split_at(
            lambda x: model.vision_model(x).pooler_output, [layer], pixels, at_input=at_input
        )[0]
        torch.testing.assert_close(suffix.latent[0], states[index])
    assert default_hidden_state(model, "image") == 2
    assert hidden_state(model, "image", 2) == (encoder[1], False)
    with pytest.raises(ValueError, match=r"`hidden_state` must be 0 to 5.*got 6"):
        hidden_state(model, "image", 6)


def test_embedded_model_loads_like_any_folder(embedded, tmp_path):
    model, processor = embedded
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, its_processor = load_clip(tmp_path)
    assert not again.training
    pixels = torch.randn(1, 3, 64, 64)
    expected = ImageTextSimilarity(model, processor, TEXTS)(pixels)
    torch.testing.assert_close(ImageTextSimilarity(again, its_processor, TEXTS)(pixels), expected)


def test_load_clip_names_what_cannot_be_read(tmp_path):
    with pytest.raises(OSError, match=r"holds no config.json"):
        load_clip(tmp_path)
    with pytest.raises(OSError, match=r"cannot load a model from 'no/such-model'"):
        load_clip("no/such-model")


def test_each_towers_default_leaves_three_of_its_own_blocks(embedded):
    model, _ = embedded
    assert (len(model.vision_model.encoder.layers), len(model.text_model.encoder.layers)) == (6, 4)
    assert hidden_states(model) == (3, 1)
    assert hidden_states(model, (None, 2)) == (3, 2)
    assert hidden_states(model, (5, None)) == (5, 1)


def test_every_method_says_what_it_takes():
    from captum_mi.attr import RISE, TokenGradCam

    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    given = processor.image_processor(images=[torch.rand(3, 32, 32)], return_tensors="pt")
    layer = blocks(model, "image")[1]
    with pytest.raises(TypeError, match=r"pixel_values"):
        TokenGradCam(similarity, layer).attribute(given, target=0)
    with pytest.raises(TypeError, match=r"`inputs`.*got BatchFeature.*pixel_values"):
        RISE(similarity).attribute(given, target=0)
    with pytest.raises(TypeError, match=r"`inputs`.*got torch.uint8.*processor"):
        RISE(similarity).attribute(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), target=0)
    with pytest.raises(TypeError, match=r"`forward_func` is a CLIPModel.*ImageTextSimilarity"):
        RISE(model).attribute(torch.rand(1, 3, 32, 32), target=0)
