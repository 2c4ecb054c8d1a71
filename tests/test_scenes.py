"""Scenes: seeded, disjoint, described by their captions."""

import time

import numpy as np
import pytest
from torch.utils.data import DataLoader

from captum_mi.datasets import Scenes, single_object_texts
from captum_mi.datasets.scenes import COLORS, SHAPES


def test_a_scene_depends_on_seed_and_index_alone():
    scenes = Scenes(50, seed=3)
    first = scenes[7]
    scenes[3]
    again = Scenes(9, seed=3)[7]
    assert first.caption == again.caption
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, Scenes(50, seed=4)[7].image)
    assert np.array_equal(scenes[-1].image, scenes[49].image)
    with pytest.raises(IndexError, match="scene 50 of 50"):
        scenes[50]


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_masks_are_disjoint_and_lie_where_the_color_is(objects):
    for scene in Scenes(60, seed=1, objects=objects):
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert scene.masks.shape == (objects, 64, 64)
        assert scene.masks.sum(axis=0).max() == 1
        for (color, _), mask in zip(scene.objects, scene.masks, strict=True):
            assert 90 < mask.sum() < 460
            distance = abs(np.median(scene.image[mask], axis=0) - np.array(COLORS[color]))
            assert distance.max() < 16
            rows, columns = np.nonzero(mask)
            assert max(np.ptp(rows), np.ptp(columns)) <= 28


def test_objects_of_a_scene_differ_in_color_and_shape():
    for scene in Scenes(60, seed=2, objects=3):
        assert len({color for color, _ in scene.objects}) == 3
        assert len({shape for _, shape in scene.objects}) == 3


def test_every_kind_of_object_occurs():
    seen = {kind for scene in Scenes(600, seed=5, objects=3) for kind in scene.objects}
    assert len(seen) == 64
    assert len(COLORS) == len(SHAPES) == 8


def test_the_first_object_has_colors_of_its_own():
    named = "red", "green"
    scenes = Scenes(60, seed=4, objects=3, first_colors=named)
    first, *others = zip(*([color for color, _ in scene.objects] for scene in scenes), strict=True)
    assert set(first) == set(named)
    assert {*others[0], *others[1]} == set(COLORS) - set(named)
    for scene, plain in zip(scenes, Scenes(60, seed=4, objects=3), strict=True):
        assert np.array_equal(scene.masks, plain.masks)
        distance = abs(np.median(scene.image[scene.masks[0]], axis=0) - COLORS[scene.objects[0][0]])
        assert distance.max() < 16


def test_captions_name_all_or_some():
    scene = Scenes(20, seed=1, objects=3)[0]
    first, second, third = scene.texts
    assert scene.caption == f"{first}, {second} and {third}"
    named = [scene.named for scene in Scenes(300, seed=1, objects=3, name_all=False)]
    assert set(named) == {1, 2, 3}
    partly = next(s for s in Scenes(50, objects=3, name_all=False) if s.named == 2)
    assert partly.caption == " and ".join(partly.texts[:2])


def test_single_object_texts():
    texts = single_object_texts()
    assert len(set(texts)) == 64
    assert texts[0] == "a red circle"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"length": 0}, "`length` must be at least 1, got 0"),
        ({"length": 3, "objects": 4}, "`objects` must be one of None, 1, 2, 3, got 4"),
        ({"length": 3, "first_colors": ["pink"]}, "`first_colors` must be one of 'red', 'green'"),
        ({"length": 3, "first_colors": []}, "`first_colors` must be 1 to 6 colors, .* got 0"),
        ({"length": 3, "first_colors": list(COLORS)}, "two are left for other objects, got 8"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        Scenes(**arguments)


def test_workers_draw_the_same_scenes():
    scenes = Scenes(6, seed=1)
    drawn = [batch[0] for batch in DataLoader(scenes, 1, num_workers=2, collate_fn=list)]
    for scene, expected in zip(drawn, scenes, strict=True):
        assert np.array_equal(scene.image, expected.image)


@pytest.mark.slow
def test_500_scenes_a_second():
    scenes = Scenes(1000)
    begin = time.process_time()
    for scene in scenes:
        assert scene.named
    assert 1000 / (time.process_time() - begin) > 500
