"""Cosines without each word, against texts that are written without it."""

import pytest
import torch
from families import FAMILIES, build
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from captum_mi.datasets import Scenes
from captum_mi.models import SentenceSimilarity, TextImageSimilarity, cosines_without, tokenize
from captum_mi.models.towers import token_embedding

WORDS = ["a", "blue", "square", "and", "a", "green", "heart"]


def shortened(words):
    """The text without each of its words in turn."""
    return [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [7, 14], ids=["short", "context-filled"])
def test_each_row_is_the_text_written_without_the_word(family, length):
    model, processor = build(family)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    similarity = TextImageSimilarity(model, processor, list(images))
    words = (WORDS * 2)[:length]
    found = cosines_without(similarity, processor, tokenize(model, processor, [" ".join(words)]))
    with torch.no_grad():
        expected = torch.cat(
            [similarity(**tokenize(model, processor, [text])) for text in shortened(words)]
        )
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1 : length + 1], expected, atol=1e-5, rtol=1e-4)
    assert found[length + 1 :].isnan().all()
    assert expected.std(0).gt(1e-3).all()


def test_the_mask_of_a_text_padded_to_the_whole_context():
    model, processor = build("siglip")
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    similarity = TextImageSimilarity(model, processor, [image])

    def masked(words):
        ids = tokenize(model, processor, [" ".join(words)])["input_ids"]
        return {"input_ids": ids, "attention_mask": (ids != processor.tokenizer.pad_token_id).int()}

    found = cosines_without(similarity, processor, masked(WORDS))
    torch.testing.assert_close(found[1:2], similarity(**masked(WORDS[1:])), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("padding", ["<pad>", "<eos>"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_blanked_word_leaves_the_others_and_the_end_in_their_places(family, padding):
    model, processor = build(family)
    encoded = tokenize(model, processor, [" ".join(WORDS)])  # OpenAI's CLIP pads with its end token
    processor.tokenizer.pad_token = padding
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    similarity = TextImageSimilarity(model, processor, list(images))
    found = cosines_without(similarity, processor, encoded, blank=True)
    table = token_embedding(model)
    row = table.weight[processor.tokenizer.pad_token_id].detach().clone()
    for place in range(len(found)):
        if not 1 <= place <= len(WORDS):
            assert found[place].isnan().all()
            continue
        ids = encoded["input_ids"].clone()
        with torch.no_grad():  # "a" occurs twice: an unused word's row is made that of padding
            unused = processor.tokenizer.convert_tokens_to_ids("circle")
            table.weight[unused] = row
            ids[0, place] = unused
            expected = similarity(**(encoded | {"input_ids": ids}))[0]
        torch.testing.assert_close(found[place], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_behind_the_text_changes_nothing(family):
    model, processor = build(family)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    similarity = TextImageSimilarity(model, processor, [image])
    text = " ".join(WORDS)
    alone = tokenize(model, processor, [text])
    both = tokenize(model, processor, [text, f"{text} and a heart"])
    first = {name: value[:1] for name, value in both.items()}
    expected, found = (cosines_without(similarity, processor.tokenizer, e) for e in (alone, first))
    torch.testing.assert_close(found[1:8], expected[1:8], atol=1e-5, rtol=1e-4)
    assert found[8:].isnan().all()


def sentence_encoders(tokenizer):
    shape = {"vocab_size": len(tokenizer)}
    bert = BertConfig(
        **shape, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    gpt2 = GPT2Config(
        **shape, n_positions=20, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=3
    )
    return {"mean": BertModel(bert), "cls": BertModel(bert), "last": GPT2Model(gpt2)}


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_sentences(embedded, pooling):
    tokenizer = embedded[1].tokenizer
    model = sentence_encoders(tokenizer)[pooling].eval()
    similarity = SentenceSimilarity(model, tokenizer, ["a red circle", "a heart"], pooling=pooling)
    found = cosines_without(similarity, tokenizer, similarity.tokenize([" ".join(WORDS)]))
    texts = shortened(WORDS)
    with torch.no_grad():
        expected = torch.cat([similarity(**similarity.tokenize([text])) for text in texts])
    torch.testing.assert_close(found[1:-1], expected, atol=1e-5, rtol=1e-4)
    assert found[[0, -1]].isnan().all()
    assert found.shape == (9, 2)


def test_the_embedded_model_knows_words_by_their_places(embedded):
    model, processor = embedded
    scene = Scenes(1, objects=2)[0]
    similarity = TextImageSimilarity(model, processor, [scene.image])
    encoded = tokenize(model, processor, [scene.caption])
    words = scene.caption.split()
    deleted, blanked = (
        similarity(**encoded)[:, 0] - cosines_without(similarity, processor, encoded, blank=b)[:, 0]
        for b in (False, True)
    )
    fillers = [place for place, word in enumerate(words, 1) if word in ("a", "and")]
    named = [place for place in range(1, 8) if place not in fillers]
    assert deleted[fillers].min() > 0.1
    assert blanked[fillers].abs().max() < 0.02 < 0.1 < blanked[named].min()


def test_where_nothing_would_remain_there_is_no_cosine(embedded):
    tokenizer = embedded[1].tokenizer
    model = sentence_encoders(tokenizer)["last"].eval()
    similarity = SentenceSimilarity(model, tokenizer, ["a heart", "a circle"], pooling="last")
    word = tokenizer("heart")["input_ids"][1]
    for ids in ([word], [1, 3]):
        found = cosines_without(similarity, tokenizer, {"input_ids": torch.tensor([ids])})
        assert found.shape == (len(ids), 2)
        assert found.isnan().all()
    one = {"input_ids": torch.tensor([[word]])}
    padding = torch.tensor([[tokenizer.pad_token_id]])
    found = cosines_without(similarity, tokenizer, one, blank=True)
    torch.testing.assert_close(found, similarity(padding))


def test_one_text_at_a_time():
    model, processor = build("clip")
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32, dtype=torch.uint8)])
    with pytest.raises(ValueError, match=r"`encoded` must be one text, \(1, T\), got \(2, 5\)"):
        cosines_without(
            similarity, processor, tokenize(model, processor, ["a red heart", "a blue circle"])
        )
