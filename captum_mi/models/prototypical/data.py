"""The data sets of the command: which classes and images are trained on, which are held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import train_test_split
from torch.utils.data import Subset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from captum_mi.datasets.episodes import Episodes, SceneClasses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DATA = ("scenes", "mnist", "folder")
SCENES = 8000, 2_000_003  # how many, and their seed
SIZE = 84  # of images from a folder, as Snell et al. have them
VALIDATION = 0.2  # of each class
VALIDATION_EPISODES = 100
QUERIES = 5


def training_episodes(
    data: str, root: Path | None, *, ways: int, shots: int, length: int, seed: int
) -> tuple[Episodes, Episodes]:
    """Returns episodes to train on and to validate with: of the same classes, of other images.

    Args:
        data: one of ``DATA``.
        root: the folder that holds it; None for scenes.
        ways: classes of an episode.
        shots: labeled images of each.
        length: number of episodes to train on.
        seed: draws the images to validate with, and the episodes.

    Raises:
        ValueError: if ``root`` does not hold the data, or there are too few classes or images.
    """
    images, held_out = _read(data, root)
    labels = np.asarray(images.targets)
    known = np.flatnonzero(~np.isin(labels, held_out))
    kept, checked = train_test_split(
        known, test_size=VALIDATION, stratify=labels[known], random_state=seed
    )
    train, validation = (
        Episodes(
            Subset(images, rows), ways, shots, QUERIES, length=n, labels=labels[rows], seed=seed
        )
        for rows, n in ((kept, length), (checked, VALIDATION_EPISODES))
    )
    return train, validation


def held_out_episodes(
    data: str, root: Path | None, *, ways: int, shots: int, length: int
) -> Episodes:
    """Returns episodes of the classes that are not trained on; always the same.

    Args:
        data: one of ``DATA``.
        root: the folder that holds it; None for scenes.
        ways: classes of an episode.
        shots: labeled images of each.
        length: number of episodes.

    Raises:
        ValueError: if ``root`` does not hold the data, or there are too few classes or images.
    """
    images, held_out = _read(data, root)
    return Episodes(images, ways, shots, QUERIES, length=length, classes=held_out)


def _read(data: str, root: Path | None) -> tuple[Any, Sequence[int]]:
    """Returns images of all classes, and the classes to hold out."""
    if data == "scenes":
        length, seed = SCENES
        scenes = SceneClasses(length, seed=seed)
        return scenes, range(0, len(scenes.classes), 5)
    if root is None or not root.is_dir():
        raise ValueError(f"`root` must be the folder that holds the images, got {root}")
    if data == "folder":
        folder = ImageFolder(root, Compose([Resize(SIZE), CenterCrop(SIZE), ToTensor()]))
        return folder, range(0, len(folder.classes), 5)
    try:
        return MNIST(root, transform=ToTensor()), range(1, 10, 2)
    except RuntimeError:
        raise ValueError(
            f"`root` {str(root)!r} holds no MNIST; torchvision.datasets.MNIST(root, download=True)"
            " downloads it"
        ) from None
