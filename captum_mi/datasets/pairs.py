"""Pairs of an image and a text, and scenes as pairs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from PIL import Image, ImageOps

from captum_mi.datasets.scenes import Scenes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pair:
    """An image and the text that goes with it; the image is read when it is asked for.

    Attributes:
        name: stable id: the file's path in its folder, the row of a data set, or the seed and
            number of a scene.
        text: the caption; empty if there is none, and then ``load`` fails.
        source: the image, the file that holds it, or that file's content.
        named: (height, width) bool, the pixels of the object that the text names; None where that
            is not known, as in photographs.
        other: the same of the remaining objects.
        problem: why the pair is of no use, if that is known before its image is opened.

    Example:
        >>> pair = scene_pairs(3)[0]
        >>> pair.load().size, pair.named.shape
        ((64, 64), (64, 64))
    """

    name: str
    text: str
    source: Path | bytes | Image.Image = field(repr=False)
    named: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    other: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    problem: str | None = None

    def load(self) -> Image.Image:
        """Reads the image, in RGB and turned as its EXIF orientation says.

        Raises:
            ValueError: naming the file, if it is absent, is no image, or has no usable caption.
        """
        if self.problem is not None:
            raise ValueError(self.problem)
        if not self.text:
            raise ValueError(f"image {self.name!r} has no caption")
        if isinstance(self.source, Image.Image):
            return _as_rgb(self.source)
        if isinstance(self.source, bytes):
            return _open(io.BytesIO(self.source), self.name)
        return read_image(self.source)


def read_image(path: str | Path) -> Image.Image:
    """Reads an image file, in RGB and turned as its EXIF orientation says.

    Args:
        path: the file.

    Returns:
        The image.

    Raises:
        ValueError: naming the file, if it is absent, cannot be read as an image, or has gray values
            of 32 bits, whose range is not known.
    """
    return _open(path, str(path))


def _open(file: str | Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(file) as opened:
            return _as_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise ValueError(f"there is no image {name!r}; give the path of an image file") from None
    except Exception as error:  # damaged files fail in as many ways as there are decoders
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{name!r} cannot be read as an image ({reason})") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    """Returns the image in RGB; Pillow would clip gray values of more than 8 bits to white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"gray values of mode {image.mode!r} have no known range; save the image with 8 bits"
        )
    return image.convert("RGB")


class Pairs(Sequence[Pair]):
    """Pairs that are made when they are asked for, every time anew and the same.

    Args:
        make: gives the pair of a number.
        numbers: the numbers of the pairs, in their order.
    """

    def __init__(self, make: Callable[[int], Pair], numbers: Sequence[int]) -> None:
        """Stores how to make which pairs."""
        self._make = make
        self._numbers = numbers

    def __len__(self) -> int:
        """Returns the number of pairs."""
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Pairs: ...
    def __getitem__(self, index: int | slice) -> Pair | Pairs:
        """Makes one pair, or returns a part of the pairs."""
        if isinstance(index, slice):
            return Pairs(self._make, self._numbers[index])
        return self._make(self._numbers[index])


def scene_pairs(
    length: int, seed: int = 0, *, first_colors: Sequence[str] | None = None
) -> Sequence[Pair]:
    """Returns two-object scenes, each with the text of its first object.

    Scenes are drawn when they are asked for, every time anew and the same.

    Args:
        length: number of pairs.
        seed: seed of the whole set.
        first_colors: those that the first object may have, and no other one, so that the image
            tells which one the text names; None: any color.

    Returns:
        The pairs; ``named`` and ``other`` are the masks of the two objects.

    Raises:
        ValueError: if ``length`` is not positive, or :class:`Scenes` does not take the colors.

    Example:
        >>> scene_pairs(200)[8].text == Scenes(200, objects=2)[8].texts[0]
        True
    """
    scenes = Scenes(length, seed=seed, objects=2, first_colors=first_colors)

    def pair(number: int) -> Pair:
        scene = scenes[number]
        named, other = scene.masks
        image = Image.fromarray(scene.image)
        return Pair(f"scene-{seed}-{number}", scene.texts[0], image, named, other)

    return Pairs(pair, range(length))
