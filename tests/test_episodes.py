"""Episodes: seeded, disjoint, of the classes asked for; scenes as a labeled data set."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FakeData

from captum_mi.datasets import Episodes, SceneClasses, Scenes

LABELS = [i % 7 for i in range(70)]


def numbered(labels=LABELS):
    """Items whose image shows the item's number."""
    return [(torch.full((1, 2, 3), float(i)), label) for i, label in enumerate(labels)]


def items_of(images):
    return images[:, 0, 0, 0].int().tolist()


def test_an_episode_depends_on_seed_and_index_alone():
    episodes = Episodes(numbered(), length=50, seed=3)
    first = episodes[7]
    episodes[3]
    again = Episodes(numbered(), length=9, seed=3)[7]
    assert first.classes == again.classes
    assert torch.equal(first.support, again.support)
    assert torch.equal(first.query, again.query)
    assert not torch.equal(first.support, Episodes(numbered(), length=9, seed=4)[7].support)
    assert torch.equal(episodes[-1].query, episodes[49].query)
    assert not torch.equal(first.support, episodes[8].support)
    with pytest.raises(IndexError, match="episode 50 of 50"):
        episodes[50]


def test_images_are_of_their_ways_and_none_is_drawn_twice():
    episodes = Episodes(numbered(), ways=4, shots=3, queries=2, length=40)
    for episode in episodes:
        support, query = items_of(episode.support), items_of(episode.query)
        assert len(set(support + query)) == 4 * (3 + 2)
        assert len(set(episode.classes)) == 4
        assert episode.support_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert episode.query_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        for items, ways in ((support, episode.support_labels), (query, episode.query_labels)):
            assert [LABELS[item] for item in items] == [episode.classes[way] for way in ways]


def test_every_image_and_every_order_of_the_classes_occurs():
    episodes = list(Episodes(numbered(), ways=2, queries=2, length=400, classes=[1, 4, 4]))
    assert {episode.classes for episode in episodes} == {(1, 4), (4, 1)}
    drawn = {item for episode in episodes for item in items_of(episode.support)}
    assert drawn == {i for i in range(70) if LABELS[i] in (1, 4)}


def test_the_order_in_which_classes_are_given_does_not_matter():
    first, second = (
        Episodes(numbered(), ways=2, length=9, classes=classes)
        for classes in ([5, 2, 3], {2, 3, 5})
    )
    assert [one.classes for one in first] == [one.classes for one in second]


class Attributed(list):
    """Items with their labels at hand; reading one for its label fails."""

    def __init__(self, name, labels):
        super().__init__([(torch.zeros(1, 2, 2), None)] * len(labels))
        setattr(self, name, labels)


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_are_read_from_the_data_set(name, kind):
    episodes = Episodes(Attributed(name, kind([4, 4, 9, 9])), ways=2, length=5)
    assert set(episodes[0].classes) == {4, 9}


def test_given_labels_come_first():
    data = Attributed("targets", [0, 0, 0, 0])
    assert set(Episodes(data, ways=2, length=1, labels=[1, 2, 1, 2])[0].classes) == {1, 2}


def test_labels_are_read_from_the_items():
    images = torch.rand(60, 3, 8, 8)
    data = TensorDataset(images, torch.arange(60) % 3)
    episode = Episodes(data, ways=3, shots=2, length=4)[2]
    assert episode.support.shape == (6, 3, 8, 8)
    rows = [(images == image).flatten(1).all(1).nonzero().item() for image in episode.support]
    assert [row % 3 for row in rows] == np.repeat(episode.classes, 2).tolist()


def test_a_loader_passes_episodes_on():
    episodes = Episodes(numbered(), length=4)
    for loaded, drawn in zip(DataLoader(episodes, batch_size=None), episodes, strict=True):
        assert torch.equal(loaded.query, drawn.query)
        assert loaded.classes == drawn.classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 0}, "`ways` must be at least 1, got 0"),
        ({"shots": 0}, "`shots` must be at least 1, got 0"),
        ({"queries": 0}, "`queries` must be at least 1, got 0"),
        ({"length": 0}, "`length` must be at least 1, got 0"),
        ({"ways": 8}, "`ways` must be at most 7, the number of classes to draw from, got 8"),
        ({"classes": {1, 2}}, "`ways` must be at most 2, the number of classes"),
        ({"shots": 6, "queries": 5}, "need 11 images of each class, but class 0 has 10; leave"),
        ({"ways": 2, "classes": (1, 99)}, "need 2 images of each class, but class 99 has 0"),
        ({"labels": [1, 2]}, r"`labels` must be one for each of 70 items, got shape \(2,\)"),
    ],
)
def test_impossible_episodes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Episodes(numbered(), **({"length": 5} | options))


def test_labels_must_be_integers():
    with pytest.raises(TypeError, match="`labels` must be integers, got float64"):
        Episodes(numbered(), length=5, labels=np.linspace(0, 1, 70))


def test_images_must_be_tensors_of_one_shape():
    photographs = FakeData(20, (3, 8, 8), num_classes=2)
    with pytest.raises(TypeError, match=r"holds Image; give it a transform, such as .*ToTensor"):
        Episodes(photographs, ways=2, length=1)[0]
    mixed = [(torch.zeros(1, 4, 4 + i), i % 2) for i in range(4)]
    with pytest.raises(ValueError, match=r"of one shape, got \(1, 4, \d\) and .*; give it"):
        Episodes(mixed, ways=2, length=1)[0]


def test_scenes_of_one_object_have_the_class_of_their_text():
    scenes, drawn = SceneClasses(30, seed=5), Scenes(30, seed=5, objects=1)
    assert len(scenes) == len(scenes.targets) == 30
    assert len(scenes.classes) == 64
    for (image, label), target, scene in zip(scenes, scenes.targets, drawn, strict=True):
        assert label == target
        assert scene.texts == [scenes.classes[label]]
        np.testing.assert_array_equal((image * 255).round().permute(1, 2, 0), scene.image)
        assert image.dtype == torch.float32
