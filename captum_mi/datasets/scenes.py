"""Seeded scenes of colored shapes: an image, a caption and one mask per object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from captum_mi._checks import check_choice, check_positive, enumerated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Shape = Callable[[Floats, Floats], NDArray[np.bool_]]

SIZE = 64
SUPERSAMPLING = 2
RADIUS = (10.0, 14.0)
MAX_OBJECTS = 3
MAX_TILT = np.deg2rad(12.0)

NAMED = ("red", "green", "blue", "yellow")
"""Colors of the objects that texts name where the other object of a scene has another."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 150, 54),
    "blue": (40, 80, 210),
    "yellow": (240, 215, 40),
    "cyan": (50, 205, 215),
    "purple": (145, 60, 180),
    "white": (245, 245, 245),
    "black": (18, 18, 18),
}


def _circle(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return np.hypot(x, y) <= 0.85


def _square(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return np.maximum(abs(x), abs(y)) <= 0.7


def _triangle(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return (y <= 0.5) & (y >= 1.75 * abs(x) - 1.0)


def _diamond(x: Floats, y: Floats) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = 1.4 * abs(x) + abs(y) <= 1.0
    return inside


def _star(x: Floats, y: Floats) -> NDArray[np.bool_]:
    turn = 2 * np.pi / 5
    angle = (np.arctan2(x, -y) + turn / 2) % turn - turn / 2
    along, across = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * abs(np.sin(angle))
    tip, notch = 1.0, 0.45
    notch_x, notch_y = notch * np.cos(turn / 2), notch * np.sin(turn / 2)
    inside: NDArray[np.bool_] = across * (tip - notch_x) <= (tip - along) * notch_y
    return inside


def _cross(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 0.9)


def _heart(x: Floats, y: Floats) -> NDArray[np.bool_]:
    x, y = 1.3 * x, 0.1 - 1.3 * y
    return (x**2 + y**2 - 1) ** 3 - x**2 * y**3 <= 0


def _bar(x: Floats, y: Floats) -> NDArray[np.bool_]:
    return (abs(x) <= 0.92) & (abs(y) <= 0.38)


SHAPES: dict[str, Shape] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "bar": _bar,
}


@dataclass(frozen=True)
class Scene:
    """One drawn scene.

    Attributes:
        image: (64, 64, 3) uint8, channels last: what image processors and ``PIL.Image.fromarray``
            take.
        caption: the named objects, such as "a red circle and a blue square".
        objects: (color, shape) of every object, named or not; the named ones come first.
        masks: (objects, 64, 64) bool, the pixels of each object; disjoint.
        named: how many of the objects the caption names.
    """

    image: NDArray[np.uint8]
    caption: str
    objects: tuple[tuple[str, str], ...]
    masks: NDArray[np.bool_]
    named: int

    @property
    def texts(self) -> list[str]:
        """One text per object: "a red circle"."""
        return [f"a {color} {shape}" for color, shape in self.objects]


def single_object_texts() -> list[str]:
    """Returns every text "a COLOR SHAPE", 64 in all, colors outermost."""
    return [f"a {color} {shape}" for color in COLORS for shape in SHAPES]


class Scenes(Dataset[Scene]):
    """Scenes of one to three non-overlapping colored shapes on textured ground.

    Scene ``i`` depends on ``seed`` and ``i`` alone. The objects of a scene differ in color and in
    shape.

    Args:
        length: number of scenes.
        seed: seed of the whole set.
        objects: exact number of objects per scene, 1 to 3; None draws it for each scene.
        name_all: whether the caption names every object or a random non-empty part of them.
        first_colors: those that the first object may have, and no other one; None: any color.

    Raises:
        ValueError: if ``length`` or ``objects`` is out of range, ``first_colors`` names none that
            there is, or leaves fewer than two.

    Example:
        >>> scene = Scenes(10, seed=0, objects=2)[3]
        >>> scene.image.shape, scene.masks.shape
        ((64, 64, 3), (2, 64, 64))
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int = 0,
        objects: int | None = None,
        name_all: bool = True,
        first_colors: Sequence[str] | None = None,
    ) -> None:
        """Stores the settings; nothing is drawn before a scene is asked for."""
        self.length = check_positive("length", length)
        self.objects = check_choice("objects", objects, (None, *range(1, MAX_OBJECTS + 1)))
        self.seed = seed
        self.name_all = name_all
        self.first_colors = None if first_colors is None else _check_colors(first_colors)

    def __len__(self) -> int:
        """Returns the number of scenes."""
        return self.length

    def __getitem__(self, index: int) -> Scene:
        """Draws scene ``index``."""
        if not -self.length <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        rng = np.random.default_rng((self.seed, index % self.length))
        count = self.objects or int(rng.integers(1, MAX_OBJECTS + 1))
        colors: list[str] = rng.permutation(list(COLORS)).tolist()
        if self.first_colors is not None:
            first = next(color for color in colors if color in self.first_colors)
            colors = [first, *(color for color in colors if color not in self.first_colors)]
        colors = colors[:count]
        shapes = rng.permutation(list(SHAPES))[:count].tolist()
        image = _ground(rng)
        masks = np.zeros((count, SIZE, SIZE), dtype=bool)
        for mask, color, shape, (center, radius) in zip(
            masks, colors, shapes, _places(rng, count), strict=True
        ):
            _draw(rng, image, mask, COLORS[color], SHAPES[shape], center, radius)
        named = count if self.name_all else int(rng.integers(1, count + 1))
        objects = tuple(zip(colors, shapes, strict=True))
        return Scene(
            image=np.round(image).clip(0, 255).astype(np.uint8),
            caption=enumerated([f"a {color} {shape}" for color, shape in objects[:named]]),
            objects=objects,
            masks=masks,
            named=named,
        )


def _check_colors(first_colors: Sequence[str]) -> set[str]:
    """Returns the colors of first objects; raises ValueError if others could have none."""
    found = {check_choice("first_colors", color, COLORS) for color in first_colors}
    most = len(COLORS) - (MAX_OBJECTS - 1)
    if not 1 <= len(found) <= most:
        raise ValueError(
            f"`first_colors` must be 1 to {most} colors, so that two are left for other objects,"
            f" got {len(found)}"
        )
    return found


_AXIS = np.arange(SIZE, dtype=np.float32)


def _ground(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draws a muted ground, (64, 64, 3): a tint, plane waves and grain."""
    tint = rng.uniform(80, 160) + rng.uniform(-18, 18, size=3)
    frequency = rng.uniform(0.1, 0.9, size=(3, 1))
    direction = rng.uniform(0, 2 * np.pi, size=(3, 1))
    phase = rng.uniform(0, 2 * np.pi, size=(3, 1))
    # A plane wave is the real part of a product of one factor per axis.
    rows = np.exp(1j * (frequency * np.sin(direction) * _AXIS + phase)).astype(np.complex64)
    columns = np.exp(1j * frequency * np.cos(direction) * _AXIS).astype(np.complex64)
    waves = rng.uniform(2, 10, size=(3, 1)).astype(np.float32)
    texture = ((waves * rows).T @ columns).real
    grain = 6 * rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    ground: NDArray[np.float32] = (texture + grain)[..., None] + tint.astype(np.float32)
    return ground


def _places(rng: np.random.Generator, count: int) -> list[tuple[NDArray[np.float64], float]]:
    """Draws ``count`` discs, (center, radius), inside the image, that do not touch."""
    while True:
        radii = rng.uniform(*RADIUS, size=count)
        centers = rng.uniform(radii[:, None], SIZE - radii[:, None], size=(count, 2))
        gaps = np.linalg.norm(centers[:, None] - centers, axis=-1) - radii[:, None] - radii
        np.fill_diagonal(gaps, np.inf)
        if (gaps > 1).all():
            return list(zip(centers, radii.tolist(), strict=True))


def _draw(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    color: tuple[int, int, int],
    inside: Shape,
    center: NDArray[np.float64],
    radius: float,
) -> None:
    """Paints one object, tilted a little, with anti-aliased edges; marks the pixels it covers."""
    low = np.floor(center - radius).astype(int).clip(0)
    high = np.ceil(center + radius).astype(int).clip(max=SIZE)
    steps = [
        (np.arange(a * SUPERSAMPLING, b * SUPERSAMPLING, dtype=np.float32) + 0.5) / SUPERSAMPLING
        for a, b in zip(low, high, strict=True)
    ]
    dy = ((steps[0] - np.float32(center[0])) / np.float32(radius))[:, None]
    dx = ((steps[1] - np.float32(center[1])) / np.float32(radius))[None, :]
    tilt = rng.uniform(-MAX_TILT, MAX_TILT)
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    covered = inside(cos * dx + sin * dy, cos * dy - sin * dx)
    height, width = high - low
    coverage = covered.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).mean(
        axis=(1, 3), dtype=np.float32
    )[..., None]
    shade = np.array(color, dtype=np.float32) + rng.uniform(-14, 14, size=3).astype(np.float32)
    window = np.s_[low[0] : high[0], low[1] : high[1]]
    image[window] += coverage * (shade - image[window])
    mask[window] = coverage[..., 0] > 0.5
