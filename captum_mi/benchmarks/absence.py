"""Does an attribution tell a text that names an object from one whose object is absent?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi.attr import METHODS
from captum_mi.benchmarks.pointing import TO_FIT
from captum_mi.datasets import Scene, Scenes, scene_pairs
from captum_mi.datasets.scenes import COLORS, SHAPES
from captum_mi.evaluation.pointing import SEED
from captum_mi.explanation import TowerStatistics, attribute_image
from captum_mi.maps import patch_map
from captum_mi.models import ImageTextSimilarity, load_clip
from captum_mi.models.clip import preprocess

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from captum_mi._protocols import Processor

HELP = "does a map tell that a text's object is not there?"
BOTTLENECKS = [name for name, method in METHODS.items() if method.start is not None]
ABSENT = ("color and shape", "color", "shape")
"""What of the object that a text names is nowhere in the scene."""


class Area(NamedTuple):
    """Area under a ROC curve, and its standard error."""

    value: float
    std_error: float


def texts_of(scene: Scene, seed: Sequence[int]) -> list[str]:
    """Returns the text of the scene's first object, and what it is with absent parts.

    Args:
        scene: a scene.
        seed: of the draw of one color and one shape that no object of the scene has.

    Returns:
        4 texts: as it is, and for each entry of ``ABSENT``.

    Example:
        >>> texts_of(Scenes(1, objects=2)[0], (0,))
        ['a blue heart', 'a black star', 'a black heart', 'a blue star']
    """
    rng = np.random.default_rng(seed)
    colors, shapes = zip(*scene.objects, strict=True)
    color, shape = scene.objects[0]
    other_color = rng.choice([one for one in COLORS if one not in colors])
    other_shape = rng.choice([one for one in SHAPES if one not in shapes])
    named = [(color, shape), (other_color, other_shape), (other_color, shape), (color, other_shape)]
    return [f"a {color} {shape}" for color, shape in named]


def score_texts(
    model: nn.Module,
    processor: Processor,
    methods: Sequence[str],
    *,
    scenes: int = 400,
    **options: Any,
) -> dict[str, Tensor]:
    """Scores how much each text of each scene is there.

    Args:
        model: a CLIP trained on the scenes.
        processor: its processor.
        methods: names in ``METHODS``, of methods that explain a token layer.
        scenes: how many scenes of two objects.
        **options: arguments of the methods' constructors or of their ``attribute``, for those that
            take them.

    Returns:
        scores (scenes, 4) of the texts of :func:`texts_of`: "cosine", and for each method "NAME
        sum", of its whole attribution, and "NAME maximum", of its patches.
    """
    found: dict[str, list[Tensor]] = {"cosine": []}
    for method in methods:
        found |= {f"{method} sum": [], f"{method} maximum": []}
    starts = {
        method: TowerStatistics.fit(model, processor, scene_pairs(TO_FIT, SEED + 1))
        if METHODS[method].start == "fitted"
        else None
        for method in methods
    }
    drawn = Scenes(scenes, seed=SEED, objects=2)
    for number in tqdm(range(scenes), desc="scenes", leave=False):
        scene = drawn[number]
        texts = texts_of(scene, (SEED, number))
        similarity = ImageTextSimilarity(model, processor, texts)
        pixels = preprocess(model, processor, [scene.image])
        with torch.no_grad():
            found["cosine"].append(similarity(pixels)[0])
        for method in methods:
            attribution = attribute_image(
                method,
                similarity,
                processor,
                pixels.expand(len(texts), -1, -1, -1),
                list(range(len(texts))),
                start=starts[method],
                **METHODS[method].taken(**options),
            ).values
            patches = patch_map(attribution, pixels, model=model)
            found[f"{method} sum"].append(attribution.flatten(1).sum(1))
            found[f"{method} maximum"].append(patches.flatten(1).amax(1))
    return {name: torch.stack(one) for name, one in found.items()}


def area(present: Tensor, absent: Tensor) -> Area:
    r"""Returns how often a present text scores above an absent one, ties counting half.

    The two scores of one scene are no independent draws, so the standard error is over scenes: each
    moves the area A by the share of absent scores below its present one, and by the share of
    present scores above its absent one,

    .. math:: \mathrm{SE}^2 = \frac{1}{S (S - 1)} \sum_s (a_s + b_s - 2 A)^2

    Args:
        present: (S,) score of each scene's present text.
        absent: (S,) of its absent one.

    Source: Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997.

    Example:
        >>> area(torch.tensor([2.0, 4.0, 5.0]), torch.tensor([1.0, 3.0, 3.0])).value
        0.7777777777777778
    """
    difference = present.double()[:, None] - absent.double()
    above = (difference > 0).double() + (difference == 0).double() / 2  # (S, S)
    value = float(above.mean())
    shifts = above.mean(1) + above.mean(0) - 2 * value  # (S,)
    scenes = len(shifts)
    error = (shifts.square().sum() / (scenes * (scenes - 1))).sqrt()  # NaN for one scene
    return Area(value, float(error))


def table(scores: dict[str, Tensor]) -> str:
    """Returns a line for each score: its areas for each kind of absence."""
    width = max(map(len, scores))
    lines = [f"{'score':{width}}" + "".join(f"  {absent:>15}" for absent in ABSENT)]
    for name, score in scores.items():
        areas = [area(score[:, 0], score[:, kind]) for kind in range(1, 1 + len(ABSENT))]
        cells = [f"{one.value:.3f} ± {one.std_error:.3f}" for one in areas]
        lines.append(f"{name:{width}}" + "".join(f"  {cell:>15}" for cell in cells))
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("--scenes", type=int, default=400, help="how many (default: 400)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a method (default: 10)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=BOTTLENECKS,
        default=BOTTLENECKS,
        metavar="METHOD",
        help=f"any of {', '.join(BOTTLENECKS)} (default: all)",
    )


def run(options: argparse.Namespace) -> None:
    """Runs the benchmark and prints what it found."""
    model, processor = load_clip()
    scores = score_texts(
        model, processor, options.methods, scenes=options.scenes, n_steps=options.steps
    )
    print(
        f"{options.scenes} two-object scenes, an object of each named as it is, and with parts that"
        " the scene has not\n"
        "area under the ROC curve of present against absent texts, by what is absent\n"
        f"{table(scores)}"
    )
