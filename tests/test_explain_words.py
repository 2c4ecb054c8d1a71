"""Words beside what blanking them does, sentences from both sides, and their commands."""

import json
import warnings

import numpy as np
import pytest
import torch
from families import FAMILIES, build, text_encoder
from PIL import Image

from captum_mi.attr.methods import METHODS, ready_methods
from captum_mi.cli import main
from captum_mi.datasets import Pair, Scenes, scene_pairs
from captum_mi.evaluation.pointing import SEED
from captum_mi.explanation import (
    TowerStatistics,
    attribute_text,
    explain_pairs,
    explain_sentences,
)
from captum_mi.models import EmbeddedText, SentenceSimilarity, TextImageSimilarity, tokenize
from captum_mi.models.towers import token_embedding

TEXTS = ["a red circle", "a blue square and a red heart", "a heart"]


@pytest.fixture(scope="module")
def encoder():
    """A small random BERT and a tokenizer."""
    _, processor = build("clip")
    torch.manual_seed(1)
    return text_encoder(processor.tokenizer), processor.tokenizer


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    for part in encoder:
        part.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_one_word_blanked_at_a_time(family):
    model, processor = build(family)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    (pair,) = explain_pairs(model, processor, image, ["a red circle"], n_steps=2).pairs
    similarity = TextImageSimilarity(model, processor, [image])
    text = EmbeddedText(similarity, processor, ["a red circle"])
    losses = dict(zip(pair.words.tokens.tokens, pair.words.losses, strict=True))
    for place, word in enumerate(("a", "red", "circle"), start=1):
        embeddings = text.embeddings.clone()
        with torch.no_grad():
            padding = token_embedding(model).weight[processor.tokenizer.pad_token_id]
            embeddings[0, :, place] = padding
            without = text(embeddings)
        assert losses[word] == pytest.approx(pair.cosine - float(without), abs=1e-5)
    assert np.isnan([losses["<bos>"], losses["<eos>"]]).all()
    written = pair.as_dict()["tokens"]
    assert [one["loss_without"] is None for one in written] == [one["special"] for one in written]
    assert json.dumps(pair.as_dict())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentences_are_explained_from_both_sides(encoder, pooling):
    model, tokenizer = encoder
    pairs = explain_sentences(model, tokenizer, TEXTS[0], TEXTS[1:], pooling=pooling, n_steps=3)
    assert [pair.texts for pair in pairs] == [(TEXTS[0], TEXTS[1]), (TEXTS[0], TEXTS[2])]
    for pair in pairs:
        for own, other, words in zip(pair.texts, pair.texts[::-1], pair.words, strict=True):
            similarity = SentenceSimilarity(model, tokenizer, [other], pooling=pooling)
            encoded = similarity.tokenize([own])
            found = attribute_text("nib", similarity, tokenizer, encoded, 0, n_steps=3)
            expected = found.values[0].sum(-1).tolist()
            assert words.tokens.scores == pytest.approx(expected, abs=1e-6)
            assert words.gap == pytest.approx(float(found.gap), rel=1e-3)
            with torch.no_grad():
                assert pair.cosine == pytest.approx(float(similarity(**encoded)), abs=1e-6)
                encoded["input_ids"][0, 2] = tokenizer.pad_token_id
                without = float(similarity(**encoded))
            assert words.losses[2] == pytest.approx(pair.cosine - without, abs=1e-5)


@pytest.mark.parametrize(
    "name", [name for name in ready_methods() if METHODS[name].start != "fitted"]
)
def test_every_method_explains_sentences(name, encoder):
    model, tokenizer = encoder
    (pair,) = explain_sentences(model, tokenizer, TEXTS[0], TEXTS[1:2], method=name, n_steps=2)
    assert np.isfinite(pair.words[0].tokens.scores).all()


def test_texts_are_explained_by_a_text_encoder(folder, encoder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["explain", *TEXTS, "--model", folder, "--steps", "3", "--out", str(out)]
    assert main(arguments) == 0
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert (numbers["text"], numbers["pooling"]) == (TEXTS[0], "mean")
    assert (numbers["start"], numbers["explained"]) == ("blank", "hidden state 0")
    expected = explain_sentences(*encoder, TEXTS[0], TEXTS[1:], n_steps=3)
    assert [one["texts"] for one in numbers["explanations"]] == [list(p.texts) for p in expected]
    first = numbers["explanations"][0]["tokens"][1]
    scores = [token["score"] for token in first]
    assert scores == pytest.approx(expected[0].words[1].tokens.scores, abs=1e-6)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed[1:5]] == [
        TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2]
    ]  # fmt: skip
    lost = max(
        (one["loss_without"], one["token"])
        for one in numbers["explanations"][0]["tokens"][0]
        if not one["special"]
    )
    assert printed[1].endswith(f"  {lost[1]} {lost[0]:+.3f}")
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size[0] > 500


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a heart"], "is a text encoder, which compares texts; give two or more, got 1"),
        (["a heart", " "], "a text must not be empty, got ' '"),
        (["scene.png", "a heart"], "sees no images, but 'scene.png' is the name of one; give te"),
        (["a heart", "a scene.png"], "sees no images, but 'a scene.png' is the name of one; give "),
        (["a heart", "absent.JPG"], "sees no images, but 'absent.JPG' is the name of one; give t"),
        (["a heart", "a bar", "--start", "x"], "`--start` of a text encoder must be zero or blank"),
        (["a heart", "a bar", "--method", "m2ib-prior"], "`--method` m2ib-prior starts at stat"),
    ],
)
def test_what_a_text_encoder_cannot_explain(
    arguments, words, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("scene.png", "a scene.png"):
        Image.fromarray(Scenes(1)[0].image).save(name)
    assert main(["explain", *arguments, "--model", folder]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "explanation.png").exists()


def test_a_text_may_be_longer_than_the_name_of_a_file(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long = "a red circle" + " " * 300 + "and a.png"
    arguments = ["explain", long, "a heart", "--model", folder, "--steps", "2"]
    assert main(arguments) == 0
    (written,) = json.loads((tmp_path / "explanation.json").read_text())["explanations"]
    assert written["texts"] == [long, "a heart"]
    assert [token["token"] for token in written["tokens"][0]][1:4] == ["a", "red", "circle"]


def test_statistics_are_fitted_and_started_from(embedded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--samples", "8", "--hidden-state", "2,1", "--out", "deep/stats.safetensors"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "hidden state 2 of 8 images, 1 of 8 texts\nwrote deep/stats.safetensors" in said
    loaded = TowerStatistics.load("deep/stats.safetensors")
    expected = TowerStatistics.fit(*embedded, scene_pairs(8, SEED + 1), (2, 1))
    assert torch.equal(loaded.image.mean, expected.image.mean)
    assert torch.equal(loaded.text.mean, expected.text.mean)
    command = ["explain", "--start", "deep/stats.safetensors", "--steps", "2"]
    assert main(command) == 0  # at the file's hidden states
    numbers = json.loads((tmp_path / "explanation.json").read_text())
    assert numbers["hidden_states"] == {"image": 2, "text": 1}
    assert numbers["start"] == "deep/stats.safetensors"
    scene = Scenes(9, objects=2)[8]
    pair = explain_pairs(
        *embedded, scene.image, [scene.caption], start=loaded, hidden_states=(2, 1), n_steps=2
    ).pairs[0]
    np.testing.assert_allclose(numbers["explanations"][0]["patches"], pair.patches, atol=1e-5)
    assert main([*command, "--hidden-state", "1"]) == 2
    assert "not of 1; fit them there, or set `--hidden-state" in capsys.readouterr().err
    assert main(["explain", "--start", "absent"]) == 2
    assert "no statistics 'absent'; write them with captum-mi fit" in capsys.readouterr().err


def test_a_map_that_misses_more_than_it_says_is_warned_of(embedded, tmp_path, capsys):
    scene = Scenes(9, objects=2)[8]
    options = {"method": "nib-zero", "hidden_states": (3, 0), "n_steps": 2}
    with pytest.warns(UserWarning, match="it misses more than it says") as told:
        (pair,) = explain_pairs(*embedded, scene.image, ["a black heart"], **options).pairs
    similarity = TextImageSimilarity(*embedded, [scene.image])
    encoded = tokenize(*embedded, ["a black heart"])
    found = attribute_text(
        "nib-zero", similarity, embedded[1], encoded, 0, hidden_state=0, n_steps=2
    )
    total, delta = float(found.values.sum()), float(found.delta)
    assert abs(delta) > abs(total)
    assert pair.words.gap == pytest.approx(abs(delta / (total - delta)), rel=1e-4)
    words = f"the words' map of 'a black heart' sums to {total:+.3f}, but along its path the cosine"
    assert any(words in str(one.message) for one in told)
    arguments = ["explain", "--start", "zero", "--hidden-state", "3,0", "--steps", "2"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    assert err.count("the words' map of 'a black heart' sums") == 1
    assert "give more `--steps`, or, for a path from zero, `--start` 'blank'" in err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain_pairs(*embedded, scene.image, ["a black heart"])


def test_each_text_has_the_gap_of_its_own_map(embedded):
    scene = Scenes(1, objects=2)[0]
    both = explain_pairs(*embedded, scene.image, scene.texts, n_steps=2).pairs
    for text, pair in zip(scene.texts, both, strict=True):
        (alone,) = explain_pairs(*embedded, scene.image, [text], n_steps=2).pairs
        assert pair.gap == pytest.approx(alone.gap, rel=1e-3)
    assert both[0].gap != pytest.approx(both[1].gap, rel=1e-2)


def test_where_the_cosine_gains_nothing_there_is_no_gap(embedded):
    """A text without words is its own blank."""
    with pytest.warns(UserWarning, match="every attribution .* is zero"):
        (pair,) = explain_pairs(*embedded, Scenes(1)[0].image, ["<pad>"], n_steps=2).pairs
    assert pair.words.gap is None
    assert json.dumps(pair.as_dict(), allow_nan=False)


@pytest.mark.parametrize("method", ["nib", "m2ib-prior"])
def test_statistics_of_another_model_are_refused(method, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, processor = build("clip")
    scenes = [Pair(str(i), "a red circle", pair.source) for i, pair in enumerate(scene_pairs(2))]
    TowerStatistics.fit(model, processor, scenes).save("other")
    assert main(["explain", "--method", method, "--start", "other", "--steps", "2"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "captum-mi explain: `--start` " in said
    assert "17, 32)" in said
    assert "65, 128)" in said


@pytest.mark.parametrize("arguments", [[], ["--data", "images"]])
def test_too_few_pairs_to_fit_are_told_in_flags(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a heart", "a star"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(Scenes(1)[0].image).save(tmp_path / "images" / name / "1.png")
    assert main(["fit", *arguments, "--samples", "1"]) == 2
    assert "`--data` must hold at least two samples, got 1" in capsys.readouterr().err
    assert not (tmp_path / "statistics.safetensors").exists()


def test_rows_that_cannot_be_fitted_are_told_in_flags(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.txt").write_text("image,caption\ngone.jpg,a heart\nlost.jpg,a star\n")
    assert main(["evaluate", "--data", "captions.txt", "--methods", "nib", "m2ib-prior"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "nib-mean and m2ib-prior start at statistics of the data, but `--data` must hold" in said
    assert "gone.jpg" in said
    assert "give others as `--methods`" in said
