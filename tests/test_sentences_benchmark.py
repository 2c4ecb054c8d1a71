"""Words of sentences beside what leaving them out costs, on an encoder of random weights."""

import re
import sys

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from transformers import BertConfig, BertModel

from captum_mi import NarrowingIB
from captum_mi.benchmarks import __main__ as commands
from captum_mi.benchmarks import sentences
from captum_mi.explanation.attribution import completeness_gap
from captum_mi.models import SentenceSimilarity


@pytest.fixture
def encoder(embedded):
    tokenizer = embedded[1].tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    return BertModel(config).eval(), tokenizer


def test_shipped_pairs_are_what_they_are_said_to_be():
    pairs = sentences.read_pairs()
    assert len(pairs) >= 60
    assert len({text for pair in pairs for text in pair}) == 2 * len(pairs)
    assert {6 <= len(first.split()) <= 14 for first, _ in pairs} == {True}


def test_judgment_by_ranks():
    scores = torch.tensor([0.3, 0.9, -0.2, 0.1, 0.1])
    deleted, blanked = torch.tensor([5.0, 1.0, 2.0, 4.0, 0]), torch.tensor([1.0, 5.0, 3.0, 3.0, 2])
    expected = [
        np.corrcoef(rankdata(scores), rankdata(costs))[0, 1] for costs in (deleted, blanked)
    ]
    found = sentences.judge(scores, deleted, blanked, torch.tensor([0.25]))
    assert found == pytest.approx((*expected, 0, 25))  # the highest has the fourth of the costs
    strongest = [
        sentences.judge(one, deleted, blanked, torch.zeros(1)).strongest for one in torch.eye(5)
    ]
    assert strongest == [1, 0, 0, 1, 0]


def test_the_mean_embedding_becomes_a_token(encoder):
    model, tokenizer = encoder
    expected = model.get_input_embeddings().weight.detach().mean(0)
    starts = sentences.starts_of(model, tokenizer)
    token = starts["mean embedding"].blank
    torch.testing.assert_close(model.get_input_embeddings().weight[token], expected)
    assert token == len(tokenizer)
    assert starts["padding"].blank == tokenizer.pad_token_id
    assert "mask" not in starts  # the embedded tokenizer has none
    assert starts["zero"] == (None, None)
    assert starts["zero, middles"] == (None, "riemann_middle")


def test_sentences_are_judged_at_every_start_and_state(encoder):
    model, tokenizer = encoder
    starts = sentences.starts_of(model, tokenizer)
    pair = ("a red circle and a heart", "a blue square")
    found = sentences.sentences(model, tokenizer, [pair, pair], starts)
    assert {name: array.shape for name, array in found.items()} == dict.fromkeys(starts, (2, 2, 4))
    similarity = SentenceSimilarity(model, tokenizer, pair[1:])
    ids = similarity.tokenize(pair[:1])["input_ids"]
    blank = ids.clone()
    blank[:, 1:-1] = tokenizer.unk_token_id
    with torch.no_grad():
        whole = float(similarity(ids))
        shorter = [
            float(similarity(**similarity.tokenize([text])))
            for text in (
                "red circle and a heart",
                "a circle and a heart",
                "a red and a heart",
                "a red circle a heart",
                "a red circle and heart",
                "a red circle and a",
            )
        ]
        padded = ids.repeat(6, 1)
        padded[range(6), range(1, 7)] = tokenizer.pad_token_id
        filled = similarity(padded)[:, 0]
    for state in (0, 1):
        attribution, delta = NarrowingIB(similarity, model.encoder.layer[0]).attribute(
            ids,
            blank,
            target=0,
            n_steps=10,
            return_convergence_delta=True,
            attribute_to_layer_input=state == 0,
        )
        expected = sentences.judge(
            attribution.sum(-1)[0, 1:-1],
            whole - torch.tensor(shorter),
            whole - filled,
            completeness_gap(attribution, delta),
        )
        np.testing.assert_allclose(found["unknown"][:, state], [expected] * 2, atol=1e-4)


def test_sentences_command(encoder, monkeypatch, capsys):
    monkeypatch.setattr(sentences, "load_sentence_encoder", lambda folder: (*encoder, "mean"))
    monkeypatch.setattr(sentences, "read_pairs", lambda: [("a red circle", "a heart")] * 9)
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "sentences", "--pairs", "2", "--model", "folder"]
    )
    commands.main()
    out = capsys.readouterr().out
    assert out.startswith("2 pairs")
    assert len(re.findall("^zero  ", out, re.MULTILINE)) == 4
    assert len(re.findall("^  less padding", out, re.MULTILINE)) == 4 * 4


def test_without_the_weights_the_remedy_is_named(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(sentences, "files", missing)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "sentences"])
    with pytest.raises(SystemExit, match="2"):
        commands.main()
    assert "pip install 'captum_mi[tutorials]'" in capsys.readouterr().err


def test_sentences_has_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "sentences", "--help"])
    with pytest.raises(SystemExit, match="0"):
        commands.main()
    assert "usage: python -m captum_mi.benchmarks sentences" in capsys.readouterr().out
