"""Text encoders as classifiers, against pooling by hand and folders of sentence-transformers."""

import json

import pytest
import torch
from families import text_encoder
from torch.nn.functional import cosine_similarity
from transformers import GPT2Config, GPT2Model

from captum_mi import NarrowingIB
from captum_mi.attr.methods import METHODS, ready_methods
from captum_mi.models import SentenceSimilarity, load_sentence_encoder

TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]


@pytest.fixture
def encoder(embedded):
    _, processor = embedded
    return text_encoder(processor.tokenizer), processor.tokenizer


def by_hand(model, tokenizer, text, pooling):
    ids = torch.tensor([tokenizer(text)["input_ids"]])  # one by one: no padding at all
    with torch.no_grad():
        hidden = model(input_ids=ids).last_hidden_state[0]
    return {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]


@pytest.mark.parametrize(
    ("pooling", "side"),
    [("mean", "right"), ("cls", "right"), ("last", "right"), ("mean", "left"), ("last", "left")],
)
def test_cosines_of_pooled_tokens_whatever_the_padding(encoder, pooling, side, monkeypatch):
    model, tokenizer = encoder
    monkeypatch.setattr(tokenizer, "padding_side", side)
    if side == "left":  # positions that do not depend on the padding
        model.embeddings.position_embeddings.weight.data.zero_()
    similarity = SentenceSimilarity(model, tokenizer, TEXTS[:2], pooling=pooling)
    found = similarity(**similarity.tokenize(TEXTS))
    vectors = [by_hand(model, tokenizer, text, pooling) for text in TEXTS]
    expected = torch.tensor(
        [[float(cosine_similarity(a, b, dim=0)) for b in vectors[:2]] for a in vectors]
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert similarity.text_embeddings.norm(dim=1).tolist() == pytest.approx([1, 1])


def test_without_a_mask_every_token_counts(encoder):
    model, tokenizer = encoder
    similarity = SentenceSimilarity(model, tokenizer, TEXTS[:1])
    encoded = similarity.tokenize(TEXTS[:1])
    torch.testing.assert_close(similarity(encoded["input_ids"]), torch.ones(1, 1))


@pytest.mark.parametrize("name", [name for name in ready_methods() if name != "chefer"])
def test_every_method_explains_it(name, encoder):
    model, tokenizer = encoder
    similarity = SentenceSimilarity(model, tokenizer, TEXTS[:2])
    encoded = similarity.tokenize(TEXTS)
    options = {"n_masks": 20} if name == "rise" else {}
    found = METHODS[name](similarity, model.encoder.layer[0]).attribute(
        encoded["input_ids"],
        target=1,
        additional_forward_args=encoded["attention_mask"],
        **options,
    )
    assert found.shape[:2] == encoded["input_ids"].shape
    assert found.isfinite().all()


def test_a_path_from_words_to_words_is_complete(encoder):
    """From a text of padding to the text: the sum is the difference of the cosines."""
    model, tokenizer = encoder
    similarity = SentenceSimilarity(model, tokenizer, TEXTS[:1])
    encoded = similarity.tokenize(["a green heart"])
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    blank = ids.clone()
    blank[:, 1:-1] = tokenizer.pad_token_id
    found = NarrowingIB(similarity, model.encoder.layer[0]).attribute(
        ids,
        blank,
        target=0,
        additional_forward_args=mask,
        n_steps=50,
        method="gausslegendre",
        attribute_to_layer_input=True,
    )
    with torch.no_grad():
        rise = similarity(ids, mask) - similarity(blank, mask)
    torch.testing.assert_close(found.sum(), rise[0, 0], atol=1e-5, rtol=1e-3)
    assert found[:, [0, -1]].eq(0).all()


def test_bad_texts_are_said(encoder):
    model, tokenizer = encoder
    with pytest.raises(TypeError, match="`texts` must be a list"):
        SentenceSimilarity(model, tokenizer, "a heart")
    with pytest.raises(ValueError, match="`pooling` must be one of 'mean', 'cls', 'last', got 'm"):
        SentenceSimilarity(model, tokenizer, TEXTS, pooling="max")
    similarity = SentenceSimilarity(model, tokenizer, TEXTS)
    with pytest.raises(ValueError, match=r"a text has \d+ tokens, but the model reads at most 3\d"):
        similarity.tokenize(["a heart", " ".join(["heart"] * 60)])
    longest = tokenizer.model_max_length
    assert similarity.tokenize(["heart " * (longest - 2)])["input_ids"].shape == (1, longest)
    with pytest.raises(ValueError, match=f"a text has {longest + 1} tokens"):
        similarity.tokenize(["heart " * (longest - 1)])


def folder_of(tmp_path, encoder, *, pooling=None, modules=("Transformer", "Pooling", "Normalize")):
    model, tokenizer = encoder
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    if pooling is not None:
        kinds = [{"type": f"sentence_transformers.models.{kind}"} for kind in modules]
        (tmp_path / "modules.json").write_text(json.dumps(kinds))
        (tmp_path / "1_Pooling").mkdir()
        settings = {"word_embedding_dimension": 16} | dict.fromkeys(pooling, True)
        settings["pooling_mode_max_tokens"] = settings.get("pooling_mode_max_tokens", False)
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [
        (None, "mean"),
        (["pooling_mode_mean_tokens"], "mean"),
        (["pooling_mode_cls_token"], "cls"),
        (["pooling_mode_lasttoken"], "last"),
    ],
)
def test_a_folder_says_how_it_pools(tmp_path, encoder, modes, pooling):
    model, tokenizer, found = load_sentence_encoder(folder_of(tmp_path, encoder, pooling=modes))
    assert found == pooling
    assert not model.training
    ours = SentenceSimilarity(model, tokenizer, TEXTS, pooling=found)
    theirs = SentenceSimilarity(*encoder, TEXTS, pooling=pooling)
    torch.testing.assert_close(ours.text_embeddings, theirs.text_embeddings)


@pytest.mark.parametrize(
    ("modes", "modules", "message"),
    [
        (["pooling_mode_max_tokens"], ("Transformer", "Pooling"), "pools by pooling_mode_max"),
        ([], ("Transformer", "Pooling"), "pools by nothing"),
        (
            ["pooling_mode_mean_tokens", "pooling_mode_cls_token"],
            ("Transformer", "Pooling"),
            "pools by pooling_mode_mean_tokens and pooling_mode_cls_token",
        ),
        (["pooling_mode_mean_tokens"], ("Transformer", "Pooling", "Dense"), "Pooling, Dense, not"),
    ],
)
def test_other_ways_to_embed_are_refused(tmp_path, encoder, modes, modules, message):
    with pytest.raises(ValueError, match=message):
        load_sentence_encoder(folder_of(tmp_path, encoder, pooling=modes, modules=modules))


def test_weights_that_cannot_be_read_are_said(tmp_path, encoder):
    folder_of(tmp_path, encoder)
    (tmp_path / "model.safetensors").write_bytes(b"\1" * 99)
    with pytest.raises(OSError, match=r"cannot load a text encoder from '.*'; give .* \(.*header"):
        load_sentence_encoder(tmp_path)


def test_a_decoder_pools_its_last_token(encoder):
    _, tokenizer = encoder
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=20, n_embd=16, n_layer=2, n_head=2)
    model = GPT2Model(config).eval()
    similarity = SentenceSimilarity(model, tokenizer, TEXTS, pooling="last")
    vectors = torch.stack([by_hand(model, tokenizer, text, "last") for text in TEXTS])
    expected = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(similarity.text_embeddings, expected, atol=1e-5, rtol=0)
