"""Inputs that say nothing, and paths that start from them."""

import copy

import pytest
import torch
from families import FAMILIES, build

from captum_mi import NarrowingIB
from captum_mi.maps import special_tokens
from captum_mi.models import (
    EmbeddedText,
    ImageTextSimilarity,
    TextImageSimilarity,
    blank_ids,
    blank_pixels,
    blocks,
    tokenize,
)

TEXTS = ["a red circle", "a blue square and a green heart"]


def test_blank_pixels_are_the_mean_color(embedded):
    _, processor = embedded
    pixels = torch.randn(2, 3, 8, 8)
    assert blank_pixels(processor, pixels).eq(0).all()
    raw = copy.copy(processor.image_processor)
    raw.do_normalize = False
    assert blank_pixels(raw, pixels).eq(0.5).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_blank_ids_keep_what_is_no_word(family):
    model, processor = build(family)
    ids = tokenize(model, processor, TEXTS)["input_ids"]
    blank = blank_ids(processor, ids)
    special = special_tokens(processor, ids)
    assert torch.equal(blank[special], ids[special])
    assert blank[~special].eq(processor.tokenizer.pad_token_id).all()
    assert (~special).any()


def test_without_padding_there_is_no_blank_text(embedded):
    _, processor = embedded
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"`processor` must know a padding token"):
        blank_ids(tokenizer, torch.ones(1, 3, dtype=torch.long))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_from_a_blank_input_is_complete(family):
    """What the attributions sum to is the score over that of the blank, by running both."""
    model, processor = build(family)
    to_texts = ImageTextSimilarity(model, processor, TEXTS)
    pixels = torch.randn(1, 3, 32, 32)
    nib = NarrowingIB(to_texts, blocks(model)[0])
    found = nib.attribute(
        pixels, blank_pixels(processor, pixels), target=1, n_steps=50, method="gausslegendre"
    )
    with torch.no_grad():
        rise = to_texts(pixels)[0, 1] - to_texts(torch.zeros_like(pixels))[0, 1]
    torch.testing.assert_close(found.sum(), rise, atol=1e-3, rtol=0.02)


@pytest.mark.parametrize("family", ["clip", "clip-legacy", "metaclip2", "siglip"])
def test_a_path_from_padding_that_is_the_end_token_pools_at_the_end_of_the_text(family):
    """As OpenAI's CLIP and SigLIP pad: blank words look like ends, but are not pooled."""
    model, processor = build(family)
    processor.tokenizer.pad_token = "<eos>"
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32, dtype=torch.uint8)])
    ids = tokenize(model, processor, TEXTS[:1])["input_ids"]
    text = EmbeddedText(similarity, processor, TEXTS[:1])
    end = text.embeddings[:, :, 4:5]
    nib = NarrowingIB(similarity, blocks(model, "text")[0])
    attribution, delta = nib.attribute(
        ids,
        blank_ids(processor, ids),
        target=0,
        attribute_to_layer_input=True,
        return_convergence_delta=True,
    )
    with torch.no_grad():
        start = text(torch.where(text.special[:, None], text.embeddings, end))
        rise = similarity(ids) - start
    torch.testing.assert_close(attribution.sum() - delta, rise[0], atol=1e-5, rtol=1e-4)


def test_words_of_a_text_are_told_from_a_blank_one(embedded):
    """At the embeddings nothing but the words moves: special tokens get nothing."""
    model, processor = embedded
    image = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
    to_image = TextImageSimilarity(model, processor, [image])
    encoded = tokenize(model, processor, TEXTS[:1])
    ids = encoded["input_ids"]
    scores = NarrowingIB(to_image, blocks(model, "text")[0]).attribute(
        ids,
        blank_ids(processor, ids),
        target=0,
        additional_forward_args=encoded.get("attention_mask"),
        attribute_to_layer_input=True,
    )
    special = special_tokens(processor, ids)
    assert scores[special].eq(0).all()
    assert scores[~special].abs().sum(-1).gt(0).all()
