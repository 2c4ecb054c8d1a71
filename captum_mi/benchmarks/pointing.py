"""Do a method's maps point at the named object of two-object scenes, where the truth is known?"""

from __future__ import annotations

from dataclasses import asdict
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm.auto import tqdm

from captum_mi.attr.methods import METHODS
from captum_mi.datasets import Scene, Scenes, scene_pairs
from captum_mi.evaluation.pointing import SEED, Pointing, judge
from captum_mi.explanation import Start, TowerStatistics, attribute_image
from captum_mi.maps import image_map, patch_size
from captum_mi.models import ImageTextSimilarity
from captum_mi.models.clip import preprocess

if TYPE_CHECKING:
    from captum_mi._protocols import Processor

TO_FIT = 256


def judge_scene(
    model: nn.Module,
    processor: Processor,
    scene: Scene,
    method: str,
    *,
    hidden_state: int | None = None,
    start: Start | None = None,
    **options: Any,
) -> tuple[list[Pointing], list[float]]:
    """Explains the scene with the text of each of its two objects and judges both maps.

    Returns:
        the verdicts on both maps, and their completeness gaps; none of a method without.
    """
    pixels = preprocess(model, processor, [scene.image])
    similarity = ImageTextSimilarity(model, processor, scene.texts)
    found = attribute_image(
        method,
        similarity,
        processor,
        pixels.expand(2, -1, -1, -1),
        [0, 1],
        hidden_state=hidden_state,
        start=start,
        **options,
    )
    heats = image_map(found.values, pixels, model=model)[:, 0]
    first, second = torch.from_numpy(scene.masks)
    half_a_patch = patch_size(model) / 2
    verdicts = [
        judge(heats[0], first, second, tolerance=half_a_patch),
        judge(heats[1], second, first, tolerance=half_a_patch),
    ]
    return verdicts, [] if found.gap is None else found.gap.tolist()


def pointing(
    model: nn.Module,
    processor: Processor,
    method: str,
    *,
    hidden_state: int | None = None,
    scenes: int = 200,
    **options: Any,
) -> dict[str, float]:
    """Judges a method on held-out two-object scenes; each object is named once.

    A method that starts at statistics gets those of 256 other scenes.

    Args:
        model: a CLIP trained on the scenes.
        processor: its processor.
        method: a name in ``METHODS``.
        hidden_state: the hidden state to explain, see ``models.towers.hidden_state``; None is the
            method's default.
        scenes: how many scenes.
        **options: arguments of the method's constructor or of its ``attribute``.

    Returns:
        the mean of each field of :class:`Pointing`, and the median completeness gap of a method
        that has one.
    """
    start = None
    if METHODS[method].start == "fitted":
        others = scene_pairs(TO_FIT, SEED + 1)
        start = TowerStatistics.fit(model, processor, others, (hidden_state, None))
    judged: list[Pointing] = []
    gaps: list[float] = []
    for scene in tqdm(Scenes(scenes, seed=SEED, objects=2), desc=method, leave=False):
        verdicts, missed = judge_scene(
            model, processor, scene, method, hidden_state=hidden_state, start=start, **options
        )
        judged += verdicts
        gaps += missed
    rows = [asdict(one) for one in judged]
    means = {name: mean(one[name] for one in rows) for name in rows[0]}
    return means | ({"gap": median(gaps)} if gaps else {})
