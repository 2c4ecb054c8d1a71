"""The data sets of the command: which classes and images are trained on, which are held out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import ConcatDataset, Subset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    RandomAffine,
    Resize,
    ToTensor,
)

from captum_mi.datasets.episodes import Episodes, SceneClasses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]

DATA = ("scenes", "mnist", "folder")
SCENES = 8000, 2_000_003  # how many, and their seed
SIZE = 84  # of images from a folder, as Snell et al. have them
VALIDATION = 0.2  # of each class
VALIDATION_EPISODES = 50
QUERIES = 5
TURNS = (0, 1, 3)  # quarters; half a turn makes a 6 a 9, which is held out
DISTORTION = RandomAffine(
    15, (0.05, 0.05), (0.85, 1.15), (-15, 15, -15, 15), interpolation=InterpolationMode.BILINEAR
)
"""Of the digits to train on, drawn from torch's global generator."""


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
    images, labels, held_out = _read(data, root, train=True)
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
    images, labels, held_out = _read(data, root, train=False)
    return Episodes(images, ways, shots, QUERIES, length=length, labels=labels, classes=held_out)


def _read(data: str, root: Path | None, *, train: bool) -> tuple[Any, Labels, Sequence[int]]:
    """Returns images of all classes, the class of each, and the classes to hold out."""
    if data != "scenes" and (root is None or not root.is_dir()):
        raise ValueError(f"`root` must be the folder that holds the images, got {root}")
    if data == "mnist":
        return _digits(root, train=train)
    images: Any
    if data == "scenes":
        length, seed = SCENES
        images = SceneClasses(length, seed=seed)
    else:
        images = ImageFolder(root, Compose([Resize(SIZE), CenterCrop(SIZE), ToTensor()]))
    return images, np.asarray(images.targets), range(0, len(images.classes), 5)


def _digits(root: Path | None, *, train: bool) -> tuple[Any, Labels, Sequence[int]]:
    """Returns digits, of which the odd ones are held out.

    Five digits alone teach too little of what tells others apart, so those to train on are also
    turned, each turn a class of its own, and a little distorted whenever they are read.
    """
    distorted = [DISTORTION] if train else []
    parts, classes = [], []
    for turn in TURNS if train else (0,):
        turned = partial(torch.rot90, k=turn, dims=(1, 2))
        try:
            part = MNIST(root, transform=Compose([ToTensor(), turned, *distorted]))
        except RuntimeError:
            raise ValueError(
                f"`root` {str(root)!r} holds no MNIST; torchvision.datasets.MNIST(root,"
                " download=True) downloads it"
            ) from None
        parts.append(part)
        classes.append(10 * turn + np.asarray(part.targets))
    labels = np.concatenate(classes)
    return ConcatDataset(parts), labels, np.unique(labels[labels % 2 == 1]).tolist()
