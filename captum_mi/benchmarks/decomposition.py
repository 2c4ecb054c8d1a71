"""Does a decomposition find which of two objects decides, and what the other tells for nothing?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

from captum_mi._intervention.hooks import edit_output
from captum_mi._intervention.nested import map_tensors
from captum_mi.attr import InfoNCEDecomposition, LayerStatistics
from captum_mi.attr.decomposition import Decomposition
from captum_mi.benchmarks._paired import Average, mean, table
from captum_mi.datasets import Scenes
from captum_mi.datasets.scenes import NAMED, SHAPES
from captum_mi.evaluation.pointing import SEED
from captum_mi.explanation.decomposition import BETA, HIDDEN, LEARNING_RATE
from captum_mi.maps import patch_map, patch_size
from captum_mi.models import ImageTextSimilarity, load_clip
from captum_mi.models.clip import preprocess
from captum_mi.models.towers import hidden_state

if TYPE_CHECKING:
    import argparse

    from captum_mi._protocols import Processor

HELP = "does a decomposition find which of two objects decides?"
TEXTS = [f"a {color} {shape}" for color in NAMED for shape in SHAPES]
REGIONS = ("named object", "other object", "ground")
BATCH = 64
RUNS = 7


class Drawn(NamedTuple):
    """Scenes of two objects, of which one decides.

    Attributes:
        pixels: (N, 3, H, W), what the model reads.
        labels: (N,), which of ``TEXTS`` is true.
        areas: (N, 3, h, w), the share of each patch that is of each of ``REGIONS``.
    """

    pixels: Tensor
    labels: Tensor
    areas: Tensor


class Figures(NamedTuple):
    """What is found of each scene, (N,), or (N, regions).

    Attributes:
        nats: total, decision and redundant, the mean of each region's patches, and of all.
        mask: likewise, in [0, 1].
        share: of the decision's positive nats, in each region.
        area: of the pixels, in each region.
        right: 1 where the model chooses the true text.
        right_masked: 1 where it does behind the mask.
    """

    nats: dict[str, Tensor]
    mask: Tensor
    share: Tensor
    area: Tensor
    right: Tensor
    right_masked: Tensor


def draw(model: nn.Module, processor: Processor, length: int, seed: int) -> Drawn:
    """Draws scenes of a named object and another one; each may be anywhere and of any shape.

    Example:
        >>> drawn = draw(clip, processor, 5, seed=0)
        >>> drawn.pixels.shape, drawn.areas.shape
        (torch.Size([5, 3, 64, 64]), torch.Size([5, 3, 8, 8]))
    """
    scenes = Scenes(length, seed=seed, objects=2, first_colors=NAMED)
    pixels, labels, areas = [], [], []
    for number in tqdm(range(length), desc="scenes", leave=False, delay=2):
        scene = scenes[number]
        pixels.append(preprocess(model, processor, [scene.image])[0])
        labels.append(TEXTS.index(scene.texts[0]))
        objects = torch.from_numpy(scene.masks).float()
        ground = 1 - objects.sum(0, keepdim=True)
        areas.append(avg_pool2d(torch.cat([objects, ground]), patch_size(model)))
    return Drawn(torch.stack(pixels), torch.tensor(labels), torch.stack(areas))


def inside(maps: Tensor, areas: Tensor) -> Tensor:
    """Returns the mean over each region's pixels, and over all of them, (B, R + 1).

    Args:
        maps: (B, 1, h, w); a patch's pixels have its value.
        areas: (B, R, h, w), the share of each patch that is of each region.

    Example:
        >>> inside(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.5, 0.0]], [[0.5, 1.0]]]]))
        tensor([[1.0000, 2.3333, 2.0000]])
    """
    regions = torch.cat([areas, torch.ones_like(areas[:, :1])], dim=1)
    return (maps * regions).sum((2, 3)) / regions.sum((2, 3))


def positive_share(maps: Tensor, areas: Tensor) -> Tensor:
    """Returns each region's share of the positive values, (B, R); 0 if there are none.

    Args:
        maps: (B, 1, h, w), signed; a patch's pixels have equal parts of its value.
        areas: (B, R, h, w), the share of each patch that is of each region.

    Example:
        >>> areas = torch.tensor([[[[0.5, 0.0]], [[0.5, 1.0]]]])
        >>> positive_share(torch.tensor([[[[3.0, -1.0]]]]), areas)
        tensor([[0.5000, 0.5000]])
    """
    positive = maps.clamp(min=0)
    whole = positive.sum((2, 3))
    return (positive * areas).sum((2, 3)) / whole.where(whole > 0, 1.0)


@torch.no_grad()
def masked_scores(
    method: InfoNCEDecomposition, pixels: Tensor, mask: Tensor, prior: LayerStatistics
) -> Tensor:
    """Returns the model's scores where noise takes the place of what the mask does not let pass.

    Args:
        method: whose layer is masked, one of tokens.
        pixels: (B, 3, H, W).
        mask: (B, 1, h, w) in [0, 1].
        prior: of the layer; the noise has its means and deviations. The tokens before the patches
            have the mean alone.
    """
    prefix = len(prior.mean) - mask[0].numel()
    passing = torch.cat([mask.new_zeros(len(mask), prefix), mask.flatten(1)], dim=1)[..., None]
    deviation = prior.std.clone()
    deviation[:prefix] = 0

    def replace(latent: Tensor) -> Tensor:
        noise = prior.mean + deviation * torch.randn_like(latent)
        return passing * latent + (1 - passing) * noise

    with edit_output(method.layer, partial(map_tensors, replace)):
        found: Tensor = method.forward_func(pixels)
    return found


@torch.no_grad()
def judge(method: InfoNCEDecomposition, drawn: Drawn, *, seed: int = 0) -> Figures:
    """Decomposes scenes and compares the maps with the masks of their objects.

    Args:
        method: fitted on an ``ImageTextSimilarity`` with ``TEXTS``.
        drawn: scenes that were not fitted to.
        seed: of the noise behind the mask.
    """
    parts, right, right_masked = [], [], []
    prior = LayerStatistics.fit(method.forward_func, method.layer, torch.split(drawn.pixels, BATCH))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for pixels, labels, _ in zip(*(torch.split(one, BATCH) for one in drawn), strict=True):
            part = _placed(method, pixels)
            parts.append(part)
            right.append(method.forward_func(pixels).argmax(1) == labels)
            masked = masked_scores(method, pixels, part.mask, prior)
            right_masked.append(masked.argmax(1) == labels)
    maps = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("total", "decision", "redundant", "mask")
    }
    means = {name: inside(values, drawn.areas) for name, values in maps.items()}
    return Figures(
        mask=means.pop("mask"),
        nats=means,
        share=positive_share(maps["decision"], drawn.areas),
        area=drawn.areas.mean((2, 3)),
        right=torch.cat(right).float(),
        right_masked=torch.cat(right_masked).float(),
    )


def passes(method: InfoNCEDecomposition, pixels: Tensor) -> float:
    """Returns how many forward passes of the model an attribution of images takes, in time."""
    ratios = []
    with torch.no_grad():
        for run in range(RUNS + 1):
            begin = perf_counter()
            method.forward_func(pixels)
            middle = perf_counter()
            method.attribute(pixels)
            if run:  # the first warms up
                ratios.append((perf_counter() - middle) / (middle - begin))
    return median(ratios)


def report(found: Figures) -> str:
    """Returns the figures as text, means over scenes and their standard errors."""
    columns = [*REGIONS, "all"]
    rows = {name: values.double().numpy() for name, values in found.nats.items()}
    rows["mask, 0 to 1"] = found.mask.double().numpy()
    share, area = found.share[:, 0], found.area[:, 0]
    times = float(share.mean() / area.mean())
    ratio = Average(times, _mean((share - times * area) / area.mean()).error)
    redundant = found.nats["redundant"]
    more = redundant[:, 1] - redundant[:, 0]
    change = 100 * (found.right_masked - found.right)
    lines = {
        "decision's positive nats in the named object, share": _text(_mean(share), 3),
        "  the object's pixels, share": _text(_mean(area), 3),
        "  their ratio": _text(ratio, 1),
        "redundant nats in the other object less the named one": _text(_mean(more), 2),
        "accuracy of 32 texts, %": _text(_mean(100 * found.right), 1),
        "  behind the mask less that, points": _text(_mean(change), 1),
    }
    width = max(map(len, lines))
    shown = "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())
    return f"{table('nats of a patch', rows, columns)}\n\n{shown}"


def fit(
    similarity: ImageTextSimilarity, drawn: Drawn, options: argparse.Namespace
) -> InfoNCEDecomposition:
    """Fits as the command says, and prints how long it took."""
    layer, at_input = hidden_state(similarity.model, "image", options.hidden_state)
    if at_input:
        raise ValueError(
            "`--hidden-state` must be at least 1, got 0: the embeddings are no layer's output"
        )
    method = InfoNCEDecomposition(
        similarity, layer, similarity.embedding, hidden=HIDDEN, beta=options.beta
    )
    samples = TensorDataset(drawn.pixels, drawn.labels)
    begin = perf_counter()
    method.fit(DataLoader(samples, BATCH), options.epochs, learning_rate=LEARNING_RATE)
    seconds = perf_counter() - begin
    print(
        f"hidden state {options.hidden_state}, beta {options.beta:g}: {len(samples):,} scenes,"
        f" {options.epochs} epochs in {seconds:.0f} s"
    )
    return method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument("--scenes", type=int, default=1000, help="judged (default: 1000)")
    parser.add_argument("--images", type=int, default=10_000, help="fitted to (default: 10000)")
    parser.add_argument("--epochs", type=int, default=8, help="over them (default: 8)")
    parser.add_argument(
        "--hidden-state", type=int, default=2, help="of the image's tower (default: 2)"
    )
    parser.add_argument(
        "--beta", type=float, default=BETA, help=f"price of the mask (default: {BETA:g})"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write what was fitted")
    parser.add_argument("--fitted", type=Path, metavar="FILE", help="judge this, fit nothing")


def run(options: argparse.Namespace) -> None:
    """Fits, or reads what was fitted, and prints the figures."""
    model, processor = load_clip()
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    print(f"two-object scenes; the text of the {', '.join(NAMED[:-1])} or {NAMED[-1]} one decides")
    if options.fitted is not None:
        method = InfoNCEDecomposition.load(options.fitted, similarity)
    else:
        method = fit(similarity, draw(model, processor, options.images, SEED + 1), options)
    if options.out is not None:
        method.save(options.out)
    drawn = draw(model, processor, options.scenes, SEED)
    found = judge(method, drawn)
    cap = method.decompose(drawn.pixels[:1]).cap
    print(f"{options.scenes} scenes that were not fitted to; at most {cap:.2f} nats a patch")
    print(report(found))
    print(f"attribute takes the time of {passes(method, drawn.pixels[:BATCH]):.2f} forward passes")


def _placed(method: InfoNCEDecomposition, pixels: Tensor) -> Decomposition:
    """Returns the maps of images at the resolution of their patches, (B, 1, h, w)."""
    found = method.decompose(pixels)
    total, decision, mask = (
        patch_map(values, pixels, model=method.forward_func)
        for values in (found.total, found.decision, found.mask)
    )
    return Decomposition(total, decision, mask, found.cap)


def _mean(values: Tensor) -> Average:
    return mean(values.double().numpy())


def _text(average: Average, digits: int) -> str:
    return f"{average.value:.{digits}f} ± {average.error:.{digits}f}"
