"""Images in classes: some to train on, others to test and to record with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_mi._checks import check_choice

if TYPE_CHECKING:
    from pathlib import Path

DATASETS = ("digits", "mnist", "cifar10")
CLASSES = 10


class Images(NamedTuple):
    """Images with their classes.

    Attributes:
        images: (N, C, H, W), in [0, 1].
        labels: (N,) integers, from 0.
    """

    images: Tensor
    labels: Tensor

    def with_those_of(self, other: Images) -> Images:
        """Returns these and others."""
        images, labels = (torch.cat(pair) for pair in zip(self, other, strict=True))
        return Images(images, labels)


def read_images(dataset: str, root: Path | None = None) -> tuple[Images, Images]:
    """Reads the images to train on and those to test with, of ten classes.

    Args:
        dataset: "digits", scikit-learn's 1,797 of 8x8 pixels, a fifth of each class to test with;
            "mnist" or "cifar10", as torchvision reads them and splits them.
        root: the folder that torchvision reads from; digits need none.

    Raises:
        ValueError: if there is no such data set, or ``root`` does not hold it.

    Example:
        >>> train, test = read_images("digits")
        >>> train.images.shape, test.images.shape
        (torch.Size([1437, 1, 8, 8]), torch.Size([360, 1, 8, 8]))
    """
    if check_choice("dataset", dataset, DATASETS) == "digits":
        return _digits()
    from torchvision import datasets

    reader = datasets.MNIST if dataset == "mnist" else datasets.CIFAR10
    if root is None or not root.is_dir():
        raise ValueError(f"`root` must be the folder that holds the images, got {root}")
    try:
        train, test = (reader(root, train=train) for train in (True, False))
    except RuntimeError:
        raise ValueError(
            f"`root` {str(root)!r} holds no {reader.__name__};"
            f" torchvision.datasets.{reader.__name__}(root, download=True) downloads it"
        ) from None
    return _scaled(train.data, train.targets), _scaled(test.data, test.targets)


def _digits() -> tuple[Images, Images]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels / 16).float().reshape(-1, 1, 8, 8)
    rows = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    train, test = (Images(images[part], torch.from_numpy(labels[part])) for part in rows)
    return train, test


def _scaled(pixels: object, labels: object) -> Images:
    """Returns images of bytes, (N, H, W) or (N, H, W, C), as numbers, channels first."""
    images = torch.as_tensor(pixels).float() / 255
    images = images[:, None] if images.ndim == 3 else images.movedim(-1, 1).contiguous()
    return Images(images, torch.as_tensor(labels))
