"""``captum-mi explain``: what it writes, and what it says about bad input."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from families import build
from matplotlib.figure import Figure
from PIL import Image

from captum_mi.attr import METHODS, NarrowingIB
from captum_mi.attr.methods import Method, Place, ready_methods
from captum_mi.cli import COMMANDS, main
from captum_mi.datasets import Scenes
from captum_mi.estimators import COMPRESSORS, ESTIMATORS
from captum_mi.evaluation.rows import CONTROLS, SWEEPS
from captum_mi.explanation import explain_pairs
from captum_mi.models.tiny_clip import FOLDER


@pytest.fixture
def scene_file(tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(Scenes(1, seed=5, objects=2)[0].image).save(path)
    return str(path)


def test_without_arguments_a_shipped_scene_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain"]) == 0
    numbers = json.loads((tmp_path / "explanation.json").read_text())
    assert numbers["image"] == "shipped scene"
    assert numbers["method"] == "nib"
    assert numbers["steps"] == 10
    assert numbers["hidden_states"] == {"image": 1, "text": 0}
    assert set(numbers["versions"]) == {"captum_mi", "captum", "torch", "transformers"}
    assert len(numbers["explanations"]) == 3
    for explanation in numbers["explanations"]:
        assert np.shape(explanation["patches"]) == (8, 8)
        words = [token["token"] for token in explanation["tokens"] if not token["special"]]
        assert words == explanation["text"].split()
    with Image.open(tmp_path / "explanation.png") as picture:
        assert picture.size[0] > 1000
    out = capsys.readouterr().out
    assert out.startswith("text ")
    assert "wrote explanation.png and explanation.json" in out


def test_an_image_and_texts(scene_file, tmp_path, embedded, capsys):
    texts = ["a red circle", "a blue square and a red heart"]
    out = tmp_path / "deep" / "er" / "result.png"
    arguments = ["explain", scene_file, *texts, "--steps", "4", "--hidden-state", "4,2"]
    arguments += ["--out", str(out)]
    assert main(arguments) == 0
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["hidden_states"] == {"image": 4, "text": 2}
    with Image.open(scene_file) as image:
        expected = explain_pairs(
            *embedded, image.convert("RGB"), texts, hidden_states=(4, 2), n_steps=4
        )
    for written, pair in zip(numbers["explanations"], expected.pairs, strict=True):
        assert written["text"] == pair.text
        assert written["cosine"] == pytest.approx(pair.cosine, abs=1e-5)
        np.testing.assert_allclose(written["patches"], pair.patches, atol=1e-5)
    assert str(out) in capsys.readouterr().out


def test_a_local_folder_and_a_gray_image(tmp_path, embedded):
    model, processor = embedded
    model.save_pretrained(tmp_path / "clip")
    processor.save_pretrained(tmp_path / "clip")
    Image.fromarray(np.arange(100 * 80, dtype=np.uint8).reshape(100, 80)).save(
        tmp_path / "gray.png"
    )
    arguments = ["explain", str(tmp_path / "gray.png"), "a red circle", "--model"]
    arguments += [str(tmp_path / "clip"), "--out", str(tmp_path / "gray-out")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "gray-out.json").read_text())["model"] == str(tmp_path / "clip")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.png", "a heart"], "there is no image 'nowhere.png'; give the path"),
        (["broken.png", "a heart"], "'broken.png' cannot be read as an image"),
        (["cut.png", "a heart"], "'cut.png' cannot be read as an image"),
        (["good.png"], "image 'good.png' needs at least one text: .* good.png 'a red circle'"),
        (["a " * 200], "no image 'a .*'; give the path .* texts, `--model` with a text encoder"),
        (["a red circle"], "no image 'a red circle'; give the path .* texts, `--model` with"),
        (["good.png", "cut.png", "a heart"], "'cut.png' is the name of an image, not a text; one"),
        (["good.png", "--steps", "3", "cut.png"], "'cut.png' is the name of an image, not a text"),
        (["good.png", "a heart", "--magic", "3"], "there is no '--magic' here; captum-mi exp"),
        (["."], "'.' cannot be read as an image .Is a directory."),
        (["good.png", "a heart", "other.JPG"], "'other.JPG' is the name of an image, not a text"),
        (["good.png", "a heart", " "], "a text must not be empty, got ' '"),
        (
            ["good.png", "a heart", "--method", "magic"],
            "`--method` must be one of 'nib'.*got 'magic'",
        ),
        (["good.png", "a heart", "--steps", "0"], "`--steps` must be at least 1, got 0"),
        (["good.png", "a heart", "--steps", "1"], "`--steps` must be at least 2 for nib, got 1"),
        (["good.png", "a heart", "--out", "good.png/a"], "`--out` cannot be written: .*good.png'"),
        (["good.png", "a heart", "--out", "taken"], "`--out` must name a file, 'taken.png' is a f"),
        (
            ["good.png", "a heart", "--hidden-state", "-1"],
            "`--hidden-state N,M .* must be 0 to 6.* got -1",
        ),
        (
            ["good.png", "a heart", "--hidden-state", "7"],
            "`--hidden-state N,M .* must be 0 to 6.*image tower",
        ),
        (
            ["good.png", "a heart", "--hidden-state", "3,5"],
            "`--hidden-state N,M .* must be 0 to 4.*text tower",
        ),
        (
            ["good.png", "a heart", "--model", "no/hub"],
            "cannot load a model from 'no/hub'; give a local",
        ),
        (["good.png", "a heart", "--model", "."], "folder '.' holds no config.json"),
        (["good.png", "a heart", "--model", "torn"], "cannot load a model from 'torn'; .* header"),
        (["good.png", "a " * 40], "42 tokens, .* at most 32|at most 32 tokens, .* got 42"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(Scenes(1)[0].image)
    image.save("good.png")
    (tmp_path / "taken.png").mkdir()
    shutil.copytree(FOLDER, "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"\1" * 99)
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:900])
    assert main(["explain", *arguments]) == 2
    captured = capsys.readouterr()
    own = [line for line in captured.err.splitlines() if line.startswith("captum-mi explain: ")]
    lines = [line for line in own if not line.startswith("captum-mi explain: warning: ")]
    assert len(lines) == 1
    assert re.search(words, lines[0])
    names = re.findall("`([^`]*)`", lines[0])
    assert all(name.startswith("--") or name == "TEXT" for name in names)
    assert "Traceback" not in captured.err
    assert not list(tmp_path.glob("explanation*"))


def test_each_tower_is_explained_at_its_own_hidden_state(scene_file, tmp_path, embedded):
    out = tmp_path / "out"
    arguments = ["explain", scene_file, "a red circle", "--steps", "3", "--hidden-state", "4,2"]
    arguments += ["--method", "nib-zero"]
    assert main([*arguments, "--out", str(out)]) == 0
    (written,) = json.loads(out.with_suffix(".json").read_text())["explanations"]
    clip, processor = embedded
    with Image.open(scene_file) as image:
        pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    text = processor(text=["a red circle"], return_tensors="pt")
    with torch.no_grad():
        of_image, of_text = (
            part / part.norm()
            for part in (
                clip.get_image_features(pixel_values=pixels).pooler_output,
                clip.get_text_features(**text).pooler_output,
            )
        )

    def to_text(x):
        features = clip.get_image_features(pixel_values=x).pooler_output
        return features @ of_text[0] / features.norm(dim=1)

    def to_image(ids, mask):
        features = clip.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return features @ of_image[0] / features.norm(dim=1)

    layers = clip.vision_model.encoder.layers[3], clip.text_model.encoder.layers[1]
    in_image = NarrowingIB(to_text, layers[0]).attribute(pixels, n_steps=3)
    in_text = NarrowingIB(to_image, layers[1]).attribute(
        text["input_ids"], additional_forward_args=text["attention_mask"], n_steps=3
    )
    np.testing.assert_allclose(written["patches"], in_image[0, 1:].sum(-1).reshape(8, 8), atol=1e-5)
    scores = [token["score"] for token in written["tokens"]]
    np.testing.assert_allclose(scores, in_text[0].sum(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "unit", "heads", "colors"),
    [
        ("nib", "cosine", "most for it .*most against it", "red raises the cosine, blue lowers"),
        ("m2ib", "nats", "most nats .*fewest nats", "the darker, the more nats are needed"),
        ("gradcam", None, "most relevant .*least relevant", "the darker, the more relevant"),
    ],
)
def test_the_unit_is_named(method, unit, heads, colors, tmp_path, monkeypatch, capsys):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    arguments = ["explain", "--method", method, "--steps", "2", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["unit"] == unit
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert re.search(heads, head)
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert re.search(colors, " ".join(texts))
    assert any(re.fullmatch(r"a cyan triangle: cosine 0\.\d{3}", text) for text in texts)
    words = [one for one in numbers["explanations"][0]["tokens"] if not one["special"]]
    best = max(words, key=lambda one: one["score"])
    sign = "+" if unit == "cosine" else ""
    assert f"  {best['token']} {best['score']:{sign}.3f}  " in first
    if unit != "cosine":
        least = min(words, key=lambda one: (one["score"], one["token"]))
        assert f"  {least['token']} {least['score']:.3f}  " in first
    lost = max(words, key=lambda one: one["loss_without"])
    assert first.endswith(f"  {lost['token']} {lost['loss_without']:+.3f}")


def test_images_without_a_model_are_warned_of(scene_file, tmp_path, embedded, capsys):
    warning = "warning: without `--model` the embedded model explains, which knows eight shapes"
    arguments = ["explain", scene_file, "a red circle", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    err = capsys.readouterr().err
    assert err.count(warning) == 1
    assert "for photographs give `--model openai/clip-vit-base-patch32`" in err
    model, processor = embedded
    model.save_pretrained(tmp_path / "clip")
    processor.save_pretrained(tmp_path / "clip")
    assert main([*arguments, "--model", str(tmp_path / "clip")]) == 0
    assert warning not in capsys.readouterr().err
    assert main(["explain", "--out", str(tmp_path / "out")]) == 0
    assert warning not in capsys.readouterr().err


def test_texts_may_stand_behind_options(scene_file, tmp_path):
    out = tmp_path / "out"
    arguments = [
        "explain",
        scene_file,
        "a star",
        "--steps",
        "2",
        "a red circle",
        "--out",
        str(out),
        "a heart",
    ]
    assert main(arguments) == 0
    explanations = json.loads(out.with_suffix(".json").read_text())["explanations"]
    assert [one["text"] for one in explanations] == ["a star", "a red circle", "a heart"]


@pytest.mark.parametrize("value", ["1,2,3", "9,", "3.5", "²", "--3"])
def test_a_malformed_hidden_state_is_a_usage_error(value, capsys):
    with pytest.raises(SystemExit, match=r"2"):
        main(["explain", "x.png", "a heart", f"--hidden-state={value}"])
    assert f"must be a number N, or N,M; got {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--sweep", "n_steps"]])
def test_an_unknown_method_is_refused_before_a_model_is_loaded(more, tmp_path, capsys):
    arguments = ["evaluate", "--model", "no/hub", "--methods", "nib", "magic", *more]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert re.search("`--methods` must be one of 'nib'.*got 'magic'", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_shows_examples(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"] if command else ["--help"])
    out = capsys.readouterr().out
    assert f"captum-mi {command or 'COMMAND'}" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("explain", METHODS),
        ("evaluate", [*ready_methods(), *CONTROLS, *SWEEPS]),
        ("fit", ["nib-mean", "m2ib-prior", "infonce"]),
        ("estimate", [*ESTIMATORS, *COMPRESSORS]),
    ],
)
def test_help_knows_every_name(command, names, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    words = re.findall(r"[\w-]+", capsys.readouterr().out)
    assert set(names) <= set(words)


def test_help_takes_the_methods_facts_from_their_table(monkeypatch, capsys):
    layered = Method(
        "layered", "captum_mi.attr:FastIG", Place.HIDDEN_STATES, "cosine", least_steps=1
    )
    placed = Method("placed", "captum_mi.attr:FastIG", Place.ALL_BLOCKS, "nats")
    monkeypatch.setitem(METHODS, "layered", layered)
    monkeypatch.setitem(METHODS, "placed", placed)
    said = {}
    for command in ("explain", "evaluate"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        said[command] = " ".join(capsys.readouterr().out.split())
    assert "mfaba, fastig, infonce, layered, placed (default: nib)" in said["explain"]
    assert "fastig layered placed, and to compare with, ig (Captum's Int" in said["evaluate"]
    for text in said.values():
        assert "m2ib, m2ib-prior, gradcam, fastig and layered explain the hidden state" in text
        assert "(default: 1,0 for nib, nib-mean, m2ib and m2ib-prior, otherwise three bl" in text
        assert "m2ib, m2ib-prior, mfaba and layered (default: 10)" in text
    for words in (
        "nib-mean, rise, mfaba, fastig and layered say what speaks for a text",
        "the numbers of m2ib, m2ib-prior and placed are the nats",
        "those of infonce, which takes no texts, are nats of the image's embedding",
        "rise, chefer, attention, mfaba, infonce and placed explain a place of their own",
    ):
        assert words in said["explain"]


def test_help_of_masks_names_what_takes_them(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "--help"])
    (said,) = re.findall(r"masks of (\w+) \(default", capsys.readouterr().out)
    assert [said] == [name for name, method in METHODS.items() if method.takes("n_masks")]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
)
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from captum_mi.cli import main\n"
        f"try: main({arguments})\n"
        "finally: print(sorted({'captum', 'numpy', 'pandas', 'PIL', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "captum_mi", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == version("captum_mi")


@pytest.mark.parametrize("family", ["clip", "siglip", "chinese_clip", "altclip", "metaclip2"])
def test_every_family_is_explained(family):
    model, processor = build(family)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    result = explain_pairs(model, processor, image, ["a red circle", "a heart"], n_steps=3)
    assert result.pixels.shape == (32, 32, 3)
    torch.testing.assert_close(result.pixels, image.permute(1, 2, 0) / 255)
    assert result.pairs[0].patches.shape == (4, 4)
    assert result.pairs[0].heat.shape == (32, 32)
    assert result.pairs[0].words.tokens.tokens == ("<bos>", "a", "red", "circle", "<eos>")
    assert result.pairs[1].heat.abs().sum() > 0
