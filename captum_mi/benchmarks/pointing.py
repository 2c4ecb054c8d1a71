"""Do a method's maps point at the named object of two-object scenes, where the truth is known?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from tqdm.auto import tqdm

from captum_mi.datasets import Scene, Scenes
from captum_mi.evaluation.pointing import SEED, Pointing, judge
from captum_mi.explanation import attribute_image
from captum_mi.maps import image_map, patch_size
from captum_mi.models import ImageTextSimilarity, blank_pixels
from captum_mi.models.clip import preprocess

if TYPE_CHECKING:
    from captum_mi._protocols import Processor

Start = Literal["zero", "blank"]


def judge_scene(
    model: nn.Module,
    processor: Processor,
    scene: Scene,
    method: str,
    *,
    hidden_state: int,
    start: Start = "zero",
    **options: Any,
) -> list[Pointing]:
    """Explains the scene with the text of each of its two objects and judges both maps."""
    pixels = preprocess(model, processor, [scene.image])
    if start == "blank":
        options["baselines"] = blank_pixels(processor, pixels).expand(2, -1, -1, -1)
    similarity = ImageTextSimilarity(model, processor, scene.texts)
    attribution = attribute_image(
        method,
        similarity,
        pixels.expand(2, -1, -1, -1),
        [0, 1],
        hidden_state=hidden_state,
        **options,
    )
    heats = image_map(attribution, pixels, model=model)[:, 0]
    first, second = torch.from_numpy(scene.masks)
    half_a_patch = patch_size(model) / 2
    return [
        judge(heats[0], first, second, tolerance=half_a_patch),
        judge(heats[1], second, first, tolerance=half_a_patch),
    ]


def pointing(
    model: nn.Module,
    processor: Processor,
    method: str,
    *,
    hidden_state: int,
    scenes: int = 200,
    start: Start = "zero",
    **options: Any,
) -> dict[str, float]:
    """Judges a method on held-out two-object scenes; each object is named once.

    Args:
        model: a CLIP trained on the scenes.
        processor: its processor.
        method: a name in ``METHODS``.
        hidden_state: the hidden state to explain, see ``models.towers.hidden_state``.
        scenes: how many scenes.
        start: where the path of a method starts that takes ``baselines``: the zero latent, or the
            latent of an image of the mean color.
        **options: arguments of the method's constructor or of its ``attribute``.

    Returns:
        the mean of each field of :class:`Pointing`.
    """
    judged: list[Pointing] = []
    for scene in tqdm(Scenes(scenes, seed=SEED, objects=2), desc=method, leave=False):
        judged += judge_scene(
            model, processor, scene, method, hidden_state=hidden_state, start=start, **options
        )
    verdicts = [asdict(one) for one in judged]
    return {name: sum(one[name] for one in verdicts) / len(verdicts) for name in verdicts[0]}
