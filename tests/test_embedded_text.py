"""Texts by their embeddings: the same numbers, whatever the family, and masks word by word."""

import copy

import pytest
import torch
from families import FAMILIES, build
from torch import nn

from captum_mi import NarrowingIB
from captum_mi.evaluation.published import PublishedEmbeddedText
from captum_mi.models import EmbeddedText, TextImageSimilarity, blocks, tokenize
from captum_mi.models.towers import token_embedding

TEXTS = ["a red circle", "a blue square and a green heart", "a heart and a heart"]


def embedded_text(family, texts=TEXTS, kind=EmbeddedText):
    model, processor = build(family)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    similarity = TextImageSimilarity(model, processor, list(images))
    return kind(similarity, processor, texts), similarity, processor


@pytest.mark.parametrize("family", FAMILIES)
def test_gives_the_cosines_of_the_texts(family):
    text, similarity, processor = embedded_text(family)
    expected = similarity(**tokenize(similarity.model, processor, TEXTS))
    torch.testing.assert_close(text(text.embeddings), expected)
    order = [2, 0, 0, 1, 2]
    torch.testing.assert_close(text(text.embeddings[order]), expected[order])


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_words_are_embeddings_scaled_where_they_are_looked_up(family):
    text, similarity, processor = embedded_text(family)
    scores = torch.rand(3, 1, text.embeddings.shape[-1])
    masks = text.masks(text.embeddings, scores)
    found = text(text.embeddings * masks)
    for i, words in enumerate(TEXTS):
        encoded = tokenize(similarity.model, processor, [words])
        factors = masks[i, :, : encoded["input_ids"].shape[1], None]
        handle = token_embedding(similarity.model).register_forward_hook(
            lambda _module, _args, output, factors=factors: output * factors
        )
        alone = similarity(**encoded)
        handle.remove()
        torch.testing.assert_close(found[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_masks_are_normalized_over_the_words_alone():
    text, _, _ = embedded_text("clip")
    scores = torch.full((3, 1, text.embeddings.shape[-1]), 9.0)  # special tokens score high
    scores[0, 0, 1:4] = torch.tensor([-1.0, 0.0, 1.0])
    masks = text.masks(text.embeddings, scores)
    torch.testing.assert_close(masks[0, 0, :4], torch.tensor([1.0, 0.0, 0.5, 1.0]))
    assert (masks[0, 0, 4:] == 1).all()
    again = text.masks(text.embeddings, masks)
    torch.testing.assert_close(again, masks)
    kept = text.masks(text.embeddings, scores.clamp(0, 1), normalize=False)
    torch.testing.assert_close(kept[0, 0, :4], torch.tensor([1.0, 0.0, 0.0, 1.0]))


def test_only_words_may_change_where_lengths_differ():
    text, _, _ = embedded_text("clip")
    with pytest.raises(ValueError, match="row 0 has the special tokens of none of the texts"):
        text(text.embeddings * 0.5)
    same_length, _, _ = embedded_text("clip", ["a red circle", "a blue heart"])
    assert same_length(same_length.embeddings * 0.5).shape == (2, 2)
    with pytest.raises(ValueError, match=r"must have shape \(B, 32, 9\), got \(3, 9, 32\)"):
        text(text.embeddings.transpose(1, 2))


def test_where_padding_is_the_end_token():
    model, processor = build("clip")
    processor.tokenizer.pad_token = "<eos>"
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32, dtype=torch.uint8)])
    text = EmbeddedText(similarity, processor, TEXTS)
    expected = torch.cat([similarity(**tokenize(model, processor, [words])) for words in TEXTS])
    torch.testing.assert_close(text(text.embeddings), expected, atol=1e-5, rtol=1e-4)


def test_a_deep_copy_works_on_its_own():
    text, _, _ = embedded_text("clip")
    other = copy.deepcopy(text)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    assert not torch.allclose(other(text.embeddings), text(text.embeddings), atol=1e-3)


def test_layers_are_explained_as_those_of_the_ids():
    text, similarity, processor = embedded_text("clip", TEXTS[:1])
    layer = blocks(similarity.model, "text")[1]
    expected = NarrowingIB(similarity, layer).attribute(
        tokenize(similarity.model, processor, TEXTS[:1])["input_ids"], target=1
    )
    found = NarrowingIB(text, layer).attribute(text.embeddings, target=1)
    torch.testing.assert_close(found, expected)


class Published(nn.Module):
    """The published text score, rewritten: rows of a copied embedding table are scaled in turn."""

    def __init__(self, similarity):
        super().__init__()
        self.similarity = copy.deepcopy(similarity)

    def score(self, words, scores):
        table = token_embedding(self.similarity.model).weight
        with torch.no_grad():
            for word, factor in zip(words.tolist(), scores.tolist(), strict=True):
                table[word] *= factor
        return self.similarity.unchecked(words[None])


@pytest.mark.parametrize("family", ["clip", "clip-legacy"])
def test_the_published_text_score(family):
    words = TEXTS[2]  # "a" and "heart" occur twice
    text, similarity, processor = embedded_text(family, [words], PublishedEmbeddedText)
    ids = tokenize(similarity.model, processor, [words])["input_ids"][0, 1:-1]
    assert text.embeddings.shape[-1] == len(ids) == 5
    scores = torch.tensor([0.5, 0.3, 1.0, 0.8, 0.2])
    masks = text.masks(text.embeddings, scores[None, None])
    torch.testing.assert_close(masks[0, 0], torch.tensor([0.4, 0.06, 1.0, 0.4, 0.06]))
    expected = Published(similarity).score(ids, scores)
    torch.testing.assert_close(text(text.embeddings * masks), expected)
    torch.testing.assert_close(text(text.embeddings), similarity.unchecked(ids[None]))


def test_the_published_score_differs_where_it_is_wrong():
    default, _, _ = embedded_text("clip", TEXTS[2:])
    published, _, _ = embedded_text("clip", TEXTS[2:], PublishedEmbeddedText)
    words = torch.tensor([[[0.5, 0.3, 1.0, 0.8, 0.2]]])
    assert not torch.allclose(default(default.embeddings), published(published.embeddings))
    # Pooled at the first token, it does not see what follows.
    changed = torch.tensor([[[1.0, 0.1, 0.1, 1.0, 0.1]]])
    torch.testing.assert_close(
        published(published.embeddings * changed), published(published.embeddings)
    )
    full = torch.cat([torch.ones(1, 1, 1), words, torch.ones(1, 1, 1)], dim=-1)
    masks = default.masks(default.embeddings, full, normalize=False)
    torch.testing.assert_close(masks[..., 1:-1], words)


def test_bad_arguments():
    text, _, processor = embedded_text("clip")
    encoded = processor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with pytest.raises(TypeError, match=r"must be a tensor \(B, D, T\), got a BatchEncoding"):
        text(encoded)
    with pytest.raises(ValueError, match="`texts` must be one text, got 3"):
        embedded_text("clip", kind=PublishedEmbeddedText)
