"""``captum-mi fit`` and ``explain`` with ``--method infonce``."""

import json
import re
from pathlib import Path

import pytest
import torch
from families import build
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file

from captum_mi.attr import InfoNCEDecomposition
from captum_mi.cli import _decomposition, main
from captum_mi.datasets import Scenes
from captum_mi.datasets.scenes import NAMED
from captum_mi.evaluation.pointing import SEED
from captum_mi.explanation import decompose_image, load_decomposition

METHOD = ["--method", "infonce"]
SCENE = Scenes(9, objects=2, first_colors=NAMED)[8].image


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A file that the command wrote in a few seconds."""
    path = tmp_path_factory.mktemp("fit") / "deep" / "fitted.safetensors"
    command = ["fit", *METHOD, "--samples", "30", "--epochs", "6", "--hidden-state", "2"]
    assert main([*command, "--out", str(path)]) == 0
    return path


def test_what_was_fitted_explains(fitted, embedded, tmp_path, capsys, monkeypatch):
    texts = []
    save = Figure.savefig

    def noted(figure, *arguments, **options):
        texts.extend(text.get_text() for text in figure.axes[0].texts)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    out = tmp_path / "out"
    assert main(["explain", *METHOD, "--fitted", str(fitted), "--out", str(out)]) == 0
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["image"] == "shipped scene"
    assert numbers["unit"] == "pointwise nats"
    assert numbers["explained"] == "places of vision_model.encoder.layers.1"
    assert numbers["fitted"] == str(fitted)
    expected = decompose_image(load_decomposition(fitted, *embedded), embedded[1], SCENE)
    (written,) = numbers["explanations"]
    assert written == expected.as_dict()
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size[0] > 700
    drawn = [float(text.split()[1]) for text in texts if text.startswith("mean ")]
    assert texts.index("image") < texts.index("total") < texts.index("redundant")
    assert drawn == pytest.approx(list(written["means"].values()), abs=1e-2)
    assert len({round(value, 2) for value in drawn}) >= 3
    assert texts[-1] == f"method infonce, {numbers['explained']}, model embedded"
    head, *lines, last, _, wrote = capsys.readouterr().out.splitlines()
    assert head.split() == ["mean", "nats", "most", "nats", "at", "row,", "column"]
    assert [line.split()[0] for line in lines] == ["total", "decision", "redundant"]
    for line in lines:
        name, mean, most, *place = line.split()
        assert float(mean) == pytest.approx(written["means"][name], abs=1e-3)
        row, column = (int(number.strip(",")) for number in place)
        assert float(most) == pytest.approx(written["places"][name][row - 1][column - 1], abs=1e-3)
        assert float(most) == pytest.approx(max(map(max, written["places"][name])), abs=1e-3)
    mask = 100 * written["means"]["mask"]
    assert last == f"of at most {written['cap']:.2f} nats a place; {mask:.0f} % pass the mask"
    assert wrote == f"wrote {out}.png and {out}.json"


def test_without_a_file_the_shipped_one_explains(fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(SCENE).save("scene.png")
    monkeypatch.setattr(_decomposition, "FITTED", str(fitted))
    assert main(["explain", "scene.png", *METHOD]) == 0
    numbers = json.loads((tmp_path / "explanation.json").read_text())
    assert (numbers["image"], numbers["fitted"]) == ("scene.png", "shipped")
    assert numbers["explained"].endswith("the text of the red, green, blue or yellow object")
    assert "hidden_states" not in numbers
    assert capsys.readouterr().err.count("without `--model` the embedded model explains") == 1


def test_the_fit_says_what_it_found(fitted, tmp_path, capsys, embedded):
    again = tmp_path / "again.safetensors"
    command = ["fit", *METHOD, "--samples", "30", "--epochs", "6", "--hidden-state", "2,0"]
    assert main([*command, "--seed", "0", "--out", str(again)]) == 0
    first, second = load_file(fitted), load_file(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)  # the seed decides
    first, second, *parts, last, wrote = capsys.readouterr().out.splitlines()
    texts = len(
        {scene.texts[0] for scene in Scenes(30, seed=SEED + 1, objects=2, first_colors=NAMED)}
    )
    where = f"the places of hidden state 2 in 27 images, and the choice among {texts} texts"
    assert first == f"scenes of two objects, one named: {where}"
    assert second == "means over 3 others, nats ± standard error:"
    numbers = [re.fullmatch(r"  (\w+) +(-?[\d.]+) ± [\d.]+", line).groups() for line in parts]
    assert [name for name, _ in numbers] == ["total", "decision", "redundant"]
    total, decision, redundant = (float(value) for _, value in numbers)
    assert total == pytest.approx(decision + redundant, abs=2e-3)
    cap = load_decomposition(again, *embedded).decompose(torch.zeros(1, 3, 64, 64)).cap
    assert re.fullmatch(rf"  of at most {cap:.2f}; \d+ % pass the mask", last)
    assert wrote == f"wrote {again}"


def test_a_folder_of_images_and_texts_to_choose_among(tmp_path, monkeypatch, capsys):
    for i, scene in enumerate(Scenes(30, objects=1)):
        (tmp_path / "images" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(tmp_path / "images" / str(i % 2) / f"{i}.PNG")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    seen = {}
    monkeypatch.chdir(tmp_path)
    real = InfoNCEDecomposition.fit

    def fit(self, loader, epochs, *, learning_rate, seed):
        seen.update(loader=loader, epochs=epochs, seed=seed, texts=self.forward_func.texts)
        return real(self, loader, 1, seed=seed)

    monkeypatch.setattr(InfoNCEDecomposition, "fit", fit)
    command = ["fit", *METHOD, "--data", "images", "--texts", "a red bar", "a blue star"]
    assert main([*command, "--epochs", "3", "--seed", "7", "--samples", "25"]) == 0
    assert seen["texts"] == ["a red bar", "a blue star"]
    assert (seen["epochs"], seen["seed"]) == (3, 7)
    assert all(isinstance(batch, torch.Tensor) for batch in seen["loader"])
    files = sorted(file for file in Path("images").rglob("*.PNG"))
    taken = [files[i * 30 // 25] for i in range(25)]  # evenly spread
    assert [pair.source for pair in seen["loader"].dataset.dataset.pairs] == taken
    captured = capsys.readouterr()
    assert captured.out.startswith(
        "25 images of images: the places of hidden state 2 in 22 images,"
    )
    assert "and the choice among 2 texts\n" in captured.out
    assert captured.err.count("without `--model` the embedded model explains") == 1
    assert (tmp_path / "infonce.safetensors").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", *METHOD, "good.png", "a heart"], "infonce takes no TEXT, got 'a heart': what"),
        (["explain", *METHOD, "--start", "zero"], "`--start` is not for `--method` infonce, which"),
        (["explain", *METHOD, "--model", "x"], "infonce needs `--fitted`, the file that captum-mi"),
        (["explain", *METHOD, "gone.png", "--fitted", "x"], "there is no image 'gone.png'"),
        (["explain", *METHOD, "--fitted", "gone"], "`--fitted` 'gone' is no file; fit and save"),
        (["explain", *METHOD, "--fitted", "good.png"], "`--fitted` 'good.png' holds no fitted"),
        (["explain", "--fitted", "x"], "`--fitted` is not for `--method` nib, which needs no fit"),
        (["fit", "--method", "nib"], "`--method` must be one of 'nib-mean', 'm2ib-prior', 'infon"),
        (["fit", "--epochs", "3"], "`--epochs` is for `--method` infonce, nib-mean takes none"),
        (["fit", "--seed", "3"], "`--seed` is for `--method` infonce"),
        (["fit", "--texts", "a", "b"], "`--texts` is for `--method` infonce"),
        (["fit", *METHOD, "--epochs", "0"], "`--epochs` must be at least 1, got 0"),
        (["fit", *METHOD, "--samples", "0"], "`--samples` must be at least 1, got 0"),
        (["fit", *METHOD, "--samples", "5"], "`--data` must hold 24 images at least .* got 5"),
        (["fit", *METHOD, "--texts", "a heart"], "`--texts` must be two at least"),
        (["fit", *METHOD, "--data", "gone", "--texts", "a", "b"], "`--data` 'gone' is no file"),
        (["fit", *METHOD, "--hidden-state", "0"], "`--hidden-state N,M .*` must be at least 1"),
        (["fit", *METHOD, "--model", "gone"], "cannot load a model from 'gone'"),
        (["fit", *METHOD, "--out", "good.png"], "`--out` 'good.png' is there already; name a new"),
        (["fit", "--out", "good.png"], "`--out` 'good.png' is there already; name a new file"),
        (["fit", *METHOD, "--out", "good.png/x"], "`--out` cannot be written: .*good.png' is no f"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(SCENE).save("good.png")
    assert main(arguments) == 2
    own = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith(f"captum-mi {arguments[0]}: ") and "warning: " not in line
    ]
    (line,) = own
    assert re.search(words, line)
    assert [path.name for path in tmp_path.iterdir()] == ["good.png"]


def test_a_file_of_another_model_is_refused(fitted):
    with pytest.raises(
        ValueError, match=r"has no module 'model\.vision_model\.encoder\.layers\.1'"
    ):
        load_decomposition(fitted, *build("clip", layers=1))
    other = load_decomposition(fitted, *build("clip"))
    with pytest.raises(ValueError, match=r"has \(17, 32\) .* but was fitted on \(65, 128\)"):
        decompose_image(other, build("clip")[1], SCENE)
