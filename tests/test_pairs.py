"""Pairs of image and text: scenes, and the reading of images."""

import pickle
import re

import numpy as np
import pytest
from PIL import Image

from captum_mi.datasets import Pair, Scenes, scene_pairs

RED = (214, 39, 40)


def picture(path, size=(4, 3), color=RED, mode="RGB", **options):
    Image.new(mode, size, color).save(path, **options)
    return path


def test_scenes_are_pairs():
    pairs = scene_pairs(5, seed=3)
    scene = Scenes(5, seed=3, objects=2)[4]
    pair = pairs[-1]
    assert len(pairs) == 5
    assert (pair.name, pair.text) == ("scene-3-4", scene.texts[0])
    assert np.array_equal(np.asarray(pair.load()), scene.image)
    assert np.array_equal(pair.named, scene.masks[0])
    assert np.array_equal(pair.other, scene.masks[1])
    assert pair == pairs[4]
    assert pair == pickle.loads(pickle.dumps(pair))
    assert [p.name for p in pairs[1:4:2]] == ["scene-3-1", "scene-3-3"]
    assert [p.name for p in pairs] == [f"scene-3-{i}" for i in range(5)]
    with pytest.raises(IndexError):
        pairs[5]
    with pytest.raises(ValueError, match="`length` must be at least 1, got 0"):
        scene_pairs(0)


def test_the_object_that_a_scene_names_may_have_colors_of_its_own():
    pairs = scene_pairs(20, seed=3, first_colors=["red", "cyan"])
    scenes = Scenes(20, seed=3, objects=2, first_colors=["red", "cyan"])
    assert [pair.text for pair in pairs] == [scene.texts[0] for scene in scenes]
    assert {pair.text.split()[1] for pair in pairs} == {"red", "cyan"}
    assert np.array_equal(pairs[4].source, scenes[4].image)


def test_scenes_are_drawn_when_asked_for(monkeypatch):
    drawn = []
    draw = Scenes.__getitem__
    monkeypatch.setattr(Scenes, "__getitem__", lambda s, i: drawn.append(i) or draw(s, i))
    assert scene_pairs(10**6)[10:][7].name == "scene-0-17"
    assert drawn == [17]


def test_load_turns_to_rgb_and_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: to be shown a quarter clockwise
    turned = picture(tmp_path / "turned.jpg", size=(40, 20), exif=exif)
    for source in (turned, turned.read_bytes()):
        assert Pair("turned", "a wall", source).load().size == (20, 40)
    gray = Pair("gray", "fog", picture(tmp_path / "gray.png", mode="L", color=7)).load()
    assert gray.mode == "RGB"
    assert gray.getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize(("suffix", "order"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_gray_values_of_16_bits_keep_their_shades(tmp_path, suffix, order):
    shades = np.array([[0, 256, 32768], [40000, 65278, 65535]], dtype=order)
    file = tmp_path / f"1.{suffix}"
    kind = "I;16B" if order[0] == ">" else "I;16"
    Image.frombytes(kind, (3, 2), shades.tobytes()).save(file)
    expected = [[0, 1, 128], [156, 254, 255]]
    for source in (file, file.read_bytes(), Image.open(file)):
        found = np.asarray(Pair("1", "a wall", source).load())
        assert found.shape == (2, 3, 3)
        assert (found == np.array(expected)[..., None]).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_gray_values_of_an_unknown_range_are_refused(tmp_path, mode):
    picture(tmp_path / "1.tif", mode=mode, color=7)
    with pytest.raises(ValueError, match=rf"1.tif' cannot .*gray values of mode '{mode}' have no"):
        Pair("1", "a wall", tmp_path / "1.tif").load()


def test_load_names_what_it_cannot_read(tmp_path):
    cut = picture(tmp_path / "cut.png", size=(99, 99))
    cut.write_bytes(cut.read_bytes()[:60])
    (tmp_path / "note.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("cut.png", "note.jpg", "folder.jpg"):
        file = tmp_path / name
        with pytest.raises(ValueError, match=f"'{re.escape(str(file))}' cannot be read as an imag"):
            Pair(name, "a", file).load()
    with pytest.raises(ValueError, match=r"'row 3' cannot be read as an image"):
        Pair("row 3", "a", cut.read_bytes()).load()
    with pytest.raises(ValueError, match=r"there is no image '.*away.jpg'; give the path"):
        Pair("away.jpg", "a", tmp_path / "away.jpg").load()
    with pytest.raises(ValueError, match=r"image 'mute.jpg' has no caption"):
        Pair("mute.jpg", "", cut).load()
    with pytest.raises(ValueError, match=r"row 7 names no image"):
        Pair("row 7", "a", cut, problem="row 7 names no image").load()


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    picture(tmp_path / "huge.png", size=(30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"huge.png' cannot be read as an image .*pixels"):
        Pair("huge", "a wall", tmp_path / "huge.png").load()
