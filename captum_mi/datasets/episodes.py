"""Few-shot episodes over a labeled data set, and scenes as a labeled data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_mi._checks import brief, check_positive
from captum_mi.datasets.scenes import Scenes, single_object_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Episode:
    """A small classification task: a few labeled images of each class, and images to classify.

    Attributes:
        support: (ways * shots, C, H, W), the labeled images, way after way.
        support_labels: (ways * shots,), the way of each, in 0 .. ways - 1.
        query: (ways * queries, C, H, W), the images to classify, way after way.
        query_labels: (ways * queries,), the way of each.
        classes: the label that each way has in the data set.
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    classes: tuple[int, ...]


class Episodes(Dataset[Episode]):
    """Episodes of N ways and K shots, drawn from a labeled data set.

    Episode ``i`` depends on ``seed`` and ``i`` alone, given a data set whose items do not change.
    Its classes differ, and no image is drawn twice.

    Args:
        dataset: its items begin with an image (C, H, W), a tensor, and a label.
        ways: classes of an episode, N.
        shots: labeled images of each, K.
        queries: images of each to classify.
        length: number of episodes.
        labels: an integer for each item; None takes ``dataset.targets`` or ``dataset.labels``, and
            without those reads every item once.
        classes: the labels to draw from, such as those held out; None draws from all.
        seed: seed of the whole set.

    Raises:
        TypeError: if the labels are not integers; from an episode, if its images are not tensors.
        ValueError: if the labels are not one for each item, or there are too few classes or images
            of a class.

    Example:
        >>> digits = [(torch.rand(1, 28, 28), i % 10) for i in range(60)]
        >>> episode = Episodes(digits, ways=3, queries=2, length=100, classes=range(5, 10))[0]
        >>> episode.support.shape, episode.query.shape
        (torch.Size([3, 1, 28, 28]), torch.Size([6, 1, 28, 28]))
        >>> episode.query_labels
        tensor([0, 0, 1, 1, 2, 2])
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any],
        ways: int = 5,
        shots: int = 1,
        queries: int = 1,
        *,
        length: int,
        labels: Iterable[int] | None = None,
        classes: Collection[int] | None = None,
        seed: int = 0,
    ) -> None:
        """Finds the items of each class; no image is kept."""
        self.dataset = dataset
        self.ways = check_positive("ways", ways)
        self.shots = check_positive("shots", shots)
        self.queries = check_positive("queries", queries)
        self.length = check_positive("length", length)
        self.seed = seed
        known = _labels(dataset, labels)
        drawn = np.unique(known if classes is None else list(classes)).tolist()
        self._items = {label: np.flatnonzero(known == label) for label in drawn}
        if len(drawn) < ways:
            raise ValueError(
                f"`ways` must be at most {len(drawn)}, the number of classes to draw from,"
                f" got {ways}"
            )
        for label, items in self._items.items():
            if len(items) < shots + queries:
                raise ValueError(
                    f"`shots` and `queries` need {shots + queries} images of each class, but class"
                    f" {label} has {len(items)}; leave it out of `classes`"
                )

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return self.length

    def __getitem__(self, index: int) -> Episode:
        """Draws episode ``index``."""
        if not -self.length <= index < self.length:
            raise IndexError(f"episode {index} of {self.length}")
        rng = np.random.default_rng((self.seed, index % self.length))
        classes = rng.choice(list(self._items), self.ways, replace=False).tolist()
        each = self.shots + self.queries
        items = [rng.choice(self._items[label], each, replace=False).tolist() for label in classes]
        ways = torch.arange(self.ways)
        return Episode(
            support=self._images([item for way in items for item in way[: self.shots]]),
            support_labels=ways.repeat_interleave(self.shots),
            query=self._images([item for way in items for item in way[self.shots :]]),
            query_labels=ways.repeat_interleave(self.queries),
            classes=tuple(classes),
        )

    def _images(self, items: Sequence[int]) -> Tensor:
        images = [self.dataset[item][0] for item in items]
        for item, image in zip(items, images, strict=True):
            if not isinstance(image, Tensor) or image.ndim != 3:
                raise TypeError(
                    f"`dataset` must hold tensors (C, H, W), but item {item} holds {brief(image)};"
                    " give it a transform, such as torchvision.transforms.ToTensor()"
                )
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise ValueError(
                f"`dataset` must hold images of one shape, got {' and '.join(map(str, shapes))};"
                " give it a transform that resizes and crops"
            )
        return torch.stack(images)


def _labels(dataset: Any, labels: Iterable[int] | None) -> NDArray[np.integer[Any]]:  # noqa: ANN401
    """Returns the label of each item."""
    for name in ("targets", "labels"):
        labels = getattr(dataset, name, None) if labels is None else labels
    if labels is None:
        labels = [dataset[item][1] for item in range(len(dataset))]
    found = np.asarray(labels)
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"`labels` must be integers, got {found.dtype}")
    if found.shape != (len(dataset),):
        raise ValueError(
            f"`labels` must be one for each of {len(dataset)} items, got shape {found.shape}"
        )
    return found


class SceneClasses(Dataset[tuple[Tensor, int]]):
    """Scenes of one object as images of 64 classes, its pairs of a color and a shape.

    Args:
        length: number of scenes; drawn here and kept, 12 kB each.
        seed: seed of the whole set.

    Attributes:
        targets: the class of each scene.
        classes: the name of each class, "a red circle"; colors outermost.

    Raises:
        ValueError: if ``length`` is not positive.

    Example:
        >>> scenes = SceneClasses(20)
        >>> image, label = scenes[3]
        >>> image.shape, scenes.classes[label] == Scenes(20, objects=1)[3].texts[0]
        (torch.Size([3, 64, 64]), True)
    """

    def __init__(self, length: int, *, seed: int = 0) -> None:
        """Draws the scenes."""
        self.classes = single_object_texts()
        scenes = Scenes(length, seed=seed, objects=1)
        drawn = [scenes[i] for i in range(length)]
        self.targets = [self.classes.index(scene.texts[0]) for scene in drawn]
        self._images = [scene.image for scene in drawn]

    def __len__(self) -> int:
        """Returns the number of scenes."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Returns an image (3, 64, 64) in [0, 1] and its class."""
        image = torch.from_numpy(self._images[index]).permute(2, 0, 1)
        return image.float() / 255, self.targets[index]
