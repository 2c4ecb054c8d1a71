"""The benchmark of absent objects: its texts, its areas, and who tells them apart."""

import argparse

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from captum_mi.benchmarks import absence
from captum_mi.benchmarks.absence import area, score_texts, table, texts_of
from captum_mi.datasets import Scenes
from captum_mi.evaluation.pointing import SEED
from captum_mi.explanation import attribute_image
from captum_mi.models import ImageTextSimilarity
from captum_mi.models.clip import preprocess


def test_absent_is_what_no_object_of_the_scene_has():
    drawn = set()
    for number, scene in enumerate(Scenes(30, objects=2)[i] for i in range(30)):
        texts = texts_of(scene, (0, number))
        assert texts[0] == scene.texts[0]
        (present, both, color, shape) = (text.split()[1:] for text in texts)
        colors, shapes = zip(*scene.objects, strict=True)
        assert both[0] not in colors
        assert both[1] not in shapes
        assert color == [both[0], present[1]]
        assert shape == [present[0], both[1]]
        assert texts == texts_of(scene, (0, number))
        drawn.add(tuple(both))
    assert len(drawn) > 15


def test_area_is_that_of_scikit_learn_and_its_error_that_of_resampled_scenes():
    rng = np.random.default_rng(0)
    scene = rng.normal(size=200)  # what both texts of a scene share
    present = scene + rng.normal(size=200) + 1.5
    absent = (scene + rng.normal(size=200)).round(1)
    present = present.round(1)  # ties
    found = area(torch.tensor(present), torch.tensor(absent))

    def scored(rows):
        labels = np.repeat([1, 0], len(rows))
        return roc_auc_score(labels, np.concatenate([present[rows], absent[rows]]))

    assert found.value == pytest.approx(scored(np.arange(200)))
    resampled = [scored(rng.integers(0, 200, 200)) for _ in range(400)]
    assert found.std_error == pytest.approx(np.std(resampled), rel=0.1)
    independent = area(torch.tensor(present), torch.tensor(rng.permutation(absent)))
    assert independent.std_error > 1.2 * found.std_error
    assert np.isnan(area(torch.ones(1), torch.zeros(1)).std_error)


def test_scores_are_those_of_each_text_alone(embedded):
    model, processor = embedded
    scores = score_texts(model, processor, ["nib"], scenes=2, n_steps=3)
    assert {name: tuple(one.shape) for name, one in scores.items()} == dict.fromkeys(
        ["cosine", "nib sum", "nib maximum"], (2, 4)
    )
    scene = Scenes(2, seed=SEED, objects=2)[1]
    pixels = preprocess(model, processor, [scene.image])
    similarity = ImageTextSimilarity(model, processor, texts_of(scene, (SEED, 1))[3:])
    alone = attribute_image("nib", similarity, processor, pixels, 0, n_steps=3).values[0]
    for name, expected in {
        "cosine": similarity(pixels)[0, 0],
        "nib sum": alone.sum(),
        "nib maximum": alone[1:].sum(1).max(),
    }.items():
        torch.testing.assert_close(scores[name][1, 3], expected, atol=1e-5, rtol=1e-4)


def test_a_path_from_a_blank_image_tells_absent_objects(embedded):
    scores = score_texts(*embedded, ["nib"], scenes=5, n_steps=3)
    for kind in (1, 2, 3):
        assert area(scores["cosine"][:, 0], scores["cosine"][:, kind]).value == 1
    for name in ("nib sum", "nib maximum"):
        assert area(scores[name][:, 0], scores[name][:, 1]).value > 0.9


def test_table():
    scores = {"cosine": torch.tensor([[3.0, 1.0, 2.0, 3.0], [2.0, 1.0, 4.0, 2.0]])}
    assert table(scores).splitlines() == [
        "score   color and shape            color            shape",
        "cosine    1.000 ± 0.000    0.375 ± 0.500    0.500 ± 0.000",
    ]


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(absence, "TO_FIT", 4)
    parser = argparse.ArgumentParser()
    absence.add_arguments(parser)
    options = parser.parse_args(["--scenes", "2", "--steps", "2", "--methods", "nib-mean", "m2ib"])
    absence.run(options)
    first, *_, cosine, sum_, maximum, _, last = capsys.readouterr().out.splitlines()
    assert first.startswith("2 two-object scenes")
    assert cosine.startswith("cosine ")
    assert sum_.startswith("nib-mean sum ")
    assert maximum.startswith("nib-mean maximum ")
    assert last.startswith("m2ib maximum ")
