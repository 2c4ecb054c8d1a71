"""The data sets of the command: which classes and images are trained on, which are held out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
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

from captum_mi._training import split
from captum_mi.datasets.episodes import Episodes, SceneClasses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch.utils.data import Dataset

DATA = ("scenes", "mnist", "folder")
TRAINING_SCENES = 8000, 2_000_003  # how many, and their seed
HELD_OUT_SCENES = 4000, 2_000_029
SIZE = 84  # of images from a folder, as Snell et al. have them
VALIDATION = 0.15  # of each class
VALIDATION_EPISODES = 100
QUERIES = 5
DISTORTION = RandomAffine(
    15, (0.05, 0.05), (0.85, 1.15), (-15, 15, -15, 15), interpolation=InterpolationMode.BILINEAR
)
"""Of the digits to train on, drawn from torch's global generator."""


class Labeled(NamedTuple):
    """Images with their classes.

    Attributes:
        images: items that begin with an image (C, H, W).
        labels: the class of each.
        held_out: the classes that are not trained on.
    """

    images: Dataset[Any]
    labels: NDArray[np.integer[Any]]
    held_out: Sequence[int]


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
    known = np.setdiff1d(labels, held_out).tolist()
    generator = torch.Generator().manual_seed(seed)
    kept: list[int] = []
    checked: list[int] = []
    for label in known:
        rows = torch.from_numpy(np.flatnonzero(labels == label))
        first, second = split(len(rows), VALIDATION, generator)
        kept += rows[first].tolist()
        checked += rows[second].tolist()
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


def _read(data: str, root: Path | None, *, train: bool) -> Labeled:
    """Returns the images to train on or those to test with; of a folder all."""
    if data == "scenes":
        length, seed = TRAINING_SCENES if train else HELD_OUT_SCENES
        return _with_every_fifth_held_out(SceneClasses(length, seed=seed))
    if root is None or not root.is_dir():
        raise ValueError(f"`root` must be the folder that holds the images, got {root}")
    if data == "mnist":
        return _digits(root, train=train)
    crop = Compose([Resize(SIZE), CenterCrop(SIZE), ToTensor()])
    return _with_every_fifth_held_out(ImageFolder(root, crop))


def _with_every_fifth_held_out(images: Any) -> Labeled:  # noqa: ANN401
    return Labeled(images, np.asarray(images.targets), range(0, len(images.classes), 5))


def _digits(root: Path, *, train: bool) -> Labeled:
    """Returns digits, of which the odd ones are held out.

    Five digits alone teach too little of what tells others apart, so those to train on are also
    turned by quarters, each turn a class of its own, and a little distorted whenever they are read.
    """
    turns = range(4 if train else 1)
    steps = [[ToTensor(), partial(torch.rot90, k=quarters, dims=(1, 2))] for quarters in turns]
    distorted = [DISTORTION] if train else []
    try:
        parts = [MNIST(root, train, transform=Compose(own + distorted)) for own in steps]
    except RuntimeError:
        raise ValueError(
            f"`root` {str(root)!r} holds no MNIST; torchvision.datasets.MNIST(root, download=True)"
            " downloads it"
        ) from None
    digits = [np.asarray(part.targets) for part in parts]
    labels = np.concatenate([10 * quarters + digits[quarters] for quarters in turns])
    held_out = [10 * quarters + digit for quarters in turns for digit in range(1, 10, 2)]
    return Labeled(ConcatDataset(parts), labels, held_out)
