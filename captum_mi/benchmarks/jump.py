"""Where along its path does the score rise: at once behind the zero latent, or on the way?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi._intervention.hooks import edit_output, layer_value
from captum_mi._intervention.nested import tensors
from captum_mi.attr import NarrowingIB
from captum_mi.benchmarks._paired import Array, middle, table
from captum_mi.benchmarks.speed import HIDDEN_STATE, RandomCLIP
from captum_mi.datasets import Scenes
from captum_mi.explanation.attribution import completeness_gap
from captum_mi.models import ImageTextSimilarity, blank_pixels, load_clip
from captum_mi.models.clip import preprocess
from captum_mi.models.towers import default_hidden_state, hidden_state

if TYPE_CHECKING:
    import argparse

HELP = "how much of the score's rise lies next to the start of a path?"
FRACTIONS = (1.0, 0.1, 0.01, 0.001, 0.0001, 0.0)
STEPS = (10, 20, 100)
QUADRATURES = ("riemann_right", "riemann_middle", "gausslegendre")


class Case(NamedTuple):
    """Images, their targets, and the layer of a model to explain.

    Attributes:
        score: gives the scores (B, K) of images.
        layer: the layer.
        pixels: (B, 3, H, W).
        blank: (B, 3, H, W), images that say nothing.
        target: (B,) the score to explain in each row.
    """

    score: Callable[[Tensor], Tensor]
    layer: nn.Module
    pixels: Tensor
    blank: Tensor
    target: Tensor


@torch.no_grad()
def shares(case: Case, *, from_blank: bool) -> Array:
    r"""Returns how far the score still is from the start's at fractions of a path, (B, fractions).

    .. math:: \left|\frac{F(s + \lambda (z - s)) - F(s)}{F(z) - F(s)}\right|

    with z the layer's output and s the start, zero or the output for the blank images.
    """
    start = torch.zeros(())
    if from_blank:
        start = next(tensors(layer_value(lambda: case.score(case.blank), case.layer)))

    def score_at(fraction: float) -> Tensor:
        def move(latent: Tensor) -> Tensor:
            return start + fraction * (latent - start)

        with edit_output(case.layer, move):
            return case.score(case.pixels).gather(1, case.target[:, None])[:, 0]

    scores = torch.stack([score_at(fraction) for fraction in FRACTIONS], dim=1)
    rises = (scores - scores[:, -1:]) / (scores[:, :1] - scores[:, -1:])
    return rises.abs().double().numpy()


def gaps(case: Case, method: str, *, from_blank: bool) -> Array:
    """Returns what is missing from the attributions' sum at each number of steps, (B, numbers)."""
    found = []
    for n_steps in STEPS:
        attribution, delta = NarrowingIB(case.score, case.layer).attribute(
            case.pixels,
            case.blank if from_blank else None,
            target=case.target,
            n_steps=n_steps,
            method=method,
            internal_batch_size=len(case.pixels),
            return_convergence_delta=True,
        )
        found.append(completeness_gap(attribution, delta))
    return torch.stack(found, dim=1).double().numpy()


def random_clip(images: int, seed: int = 0) -> Case:
    """Returns a CLIP of ViT-B/32 size with random weights, and images of noise.

    The score is the cosine to the image's own embedding, which is 1 whatever the weights.
    """
    torch.manual_seed(seed)
    clip = RandomCLIP()
    pixels = torch.randn(images, *clip.pixels.shape[1:])
    with torch.no_grad():
        own = clip.image(pixels)
    return Case(
        lambda given: clip.image(given) @ own.T,
        hidden_state(clip.model, "image", HIDDEN_STATE)[0],
        pixels,
        torch.zeros_like(pixels),
        torch.arange(images),
    )


def embedded_clip(images: int) -> Case:
    """Returns the embedded CLIP, on scenes of two objects and a text that names one of them."""
    model, processor = load_clip()
    drawn = Scenes(images, objects=2)
    scenes = [drawn[index] for index in range(images)]
    pixels = preprocess(model, processor, [scene.image for scene in scenes])
    return Case(
        ImageTextSimilarity(model, processor, [scene.texts[0] for scene in scenes]),
        hidden_state(model, "image", default_hidden_state(model, "image"))[0],
        pixels,
        blank_pixels(processor, pixels),
        torch.arange(images),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument(
        "--images", type=int, default=4, help="of the large random CLIP (default: 4)"
    )
    parser.add_argument("--scenes", type=int, default=64, help="of the embedded CLIP (default: 64)")


def run(options: argparse.Namespace) -> None:
    """Prints for either model where the score rises, and what steps miss of it."""
    print("Paths from the zero latent and from a blank image, three blocks before the end of two")
    print("CLIPs; medians ± standard errors")
    cases = {
        "CLIP of ViT-B/32 size, random weights, images of noise": (random_clip, options.images),
        "embedded CLIP, scenes of two objects": (embedded_clip, options.scenes),
    }
    starts = {"zero latent": False, "blank image": True}
    for name, (make, images) in cases.items():
        case = make(images)
        print(f"\n{name}: {images}")
        rises = {start: 100 * shares(case, from_blank=blank) for start, blank in starts.items()}
        title = "distance from F(start), % of |F(z) - F(start)|, at these fractions of z - start"
        print(table(title, rises, FRACTIONS, average=middle, digits=1))
        missing = {
            f"{start}, {method}": 100 * gaps(case, method, from_blank=blank)
            for start, blank in starts.items()
            for method in tqdm(QUADRATURES, desc=start, leave=False)
        }
        title = "completeness gap, % of |F(z) - F(start)|, at these numbers of steps"
        print(table(title, missing, STEPS, average=middle, digits=2), flush=True)
