"""Do a method's word scores rank the words as leaving them out does?"""

from __future__ import annotations

from functools import partial
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi.attr.methods import METHODS, ready_methods
from captum_mi.benchmarks.pointing import TO_FIT
from captum_mi.datasets import Pair, Scenes
from captum_mi.datasets.scenes import COLORS, SHAPES
from captum_mi.evaluation.controls import CONTROLS
from captum_mi.evaluation.pointing import SEED
from captum_mi.evaluation.rows import Row, table_rows
from captum_mi.evaluation.run import mask_words
from captum_mi.evaluation.samples import Sample, read_sample
from captum_mi.explanation import TowerStatistics
from captum_mi.models import cosines_without, load_clip

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from captum_mi._protocols import Processor

HELP = "do word scores rank the words as leaving them out does?"
SIGNED_CONTROLS = ("ig", "inverted")


class Caption(NamedTuple):
    """How a row scores the words of one caption.

    Attributes:
        blanked: rank correlation with what the cosine loses where each word is padding instead.
        deleted: rank correlation with what it loses where each word is deleted.
        colors: share of the color words whose score is positive.
        shapes: the same of the shape words.
        text_drop: what the cosine loses where words are masked by their scores, in hundredths.
    """

    blanked: float
    deleted: float
    colors: float
    shapes: float
    text_drop: float


def full_captions(length: int, seed: int = SEED) -> list[Pair]:
    """Returns two-object scenes, each with the caption that names both objects.

    Example:
        >>> full_captions(1)[0].text
        'a white bar and a yellow triangle'
    """
    scenes = Scenes(length, seed=seed, objects=2)
    return [
        Pair(f"scene-{seed}-{number}", scene.caption, Image.fromarray(scene.image))
        for number, scene in enumerate(scenes[i] for i in range(length))
    ]


def judge_words(
    model: nn.Module, processor: Processor, rows: Sequence[Row], pairs: Sequence[Pair]
) -> dict[str, list[Caption]]:
    """Explains the words of captions with every row, and leaves each word out.

    Args:
        model: a CLIP trained on the scenes, whose tokens are whole words.
        processor: its processor.
        rows: the rows of a table, see :func:`table_rows`.
        pairs: scenes with captions.

    Returns:
        for each row's name, what it makes of each caption.

    Example:
        >>> judged = judge_words(clip, processor, table_rows(["random"]), full_captions(3))
        >>> [caption.colors for caption in judged["random"]]  # noise in [0, 1]
        [1.0, 1.0, 1.0]
    """
    judged: dict[str, list[Caption]] = {row.name: [] for row in rows}
    for pair in tqdm(pairs, desc="captions", leave=False):
        sample = read_sample(model, processor, pair)
        losses = [_losses(sample, blank=blank) for blank in (True, False)]
        for row in rows:
            judged[row.name].append(_judge(sample, row.token_scores(sample).values, losses))
    return judged


def agreement(scores: Tensor, losses: Tensor) -> float:
    """Returns Spearman's rank correlation; 0 for scores that rank nothing, all being equal.

    Example:
        >>> agreement(torch.tensor([0.1, 5.0, 0.2]), torch.tensor([1.0, 3.0, 2.0]))
        1.0
    """
    if scores.max() == scores.min():
        return 0.0
    return float(spearmanr(scores.cpu(), losses.cpu()).statistic)


def table(judged: dict[str, list[Caption]]) -> str:
    """Returns a line for each row: means over the captions, some with standard errors."""
    width = max(map(len, ("method", *judged)))
    heads = f"{'method':{width}}  {'rank, blanked':>14}  {'rank, deleted':>14}"
    lines = [f"{heads}  {'colors > 0':>10}  {'shapes > 0':>10}  {'text drop':>12}"]
    for name, captions in judged.items():
        blanked, deleted, colors, shapes, drops = zip(*captions, strict=True)
        signs = [f"{fmean(colors):.3f}", f"{fmean(shapes):.3f}"] if _signed(name) else ["-", "-"]
        lines.append(
            f"{name:{width}}  {_with_error(blanked, 3):>14}  {_with_error(deleted, 3):>14}"
            f"  {signs[0]:>10}  {signs[1]:>10}  {_with_error(drops, 2):>12}"
        )
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    known = (*ready_methods(), *CONTROLS)
    parser.add_argument("--scenes", type=int, default=400, help="how many (default: 400)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a method (default: 10)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=known,
        default=[*ready_methods(), "ig", "random"],
        metavar="METHOD",
        help=f"any of {', '.join(known)} (default: all methods, ig and random)",
    )


def run(options: argparse.Namespace) -> None:
    """Runs the benchmark and prints what it found."""
    model, processor = load_clip()
    fit = partial(TowerStatistics.fit, model, processor, full_captions(TO_FIT, SEED + 1))
    rows = table_rows(options.methods, fitted=fit, n_steps=options.steps)
    judged = judge_words(model, processor, rows, full_captions(options.scenes))
    print(
        f"{options.scenes} captions such as 'a red circle and a blue square'\n"
        "rank: correlation of the words' scores with what the cosine loses without each word,"
        " blanked or deleted\n"
        f"colors, shapes > 0: share of these words that score above 0\n{table(judged)}"
    )


def _losses(sample: Sample, *, blank: bool) -> Tensor:
    """Returns what the cosine loses without each word, (words,)."""
    without = cosines_without(sample.to_image, sample.processor, sample.encoded, blank=blank)
    with torch.no_grad():
        whole: Tensor = sample.to_image(**sample.encoded)
    return (whole - without)[~sample.text.special[0], 0]


def _judge(sample: Sample, token_scores: Tensor, losses: Sequence[Tensor]) -> Caption:
    scores = token_scores[0, 0, ~sample.text.special[0]]
    scored = list(zip(sample.pair.text.split(), scores.tolist(), strict=True))
    blanked, deleted = (agreement(scores, loss) for loss in losses)
    return Caption(
        blanked,
        deleted,
        fmean(score > 0 for word, score in scored if word in COLORS),
        fmean(score > 0 for word, score in scored if word in SHAPES),
        float(mask_words(sample, token_scores).drop()),
    )


def _signed(name: str) -> bool:
    """Returns True if a row's scores speak for and against."""
    return name in SIGNED_CONTROLS or (name in METHODS and METHODS[name].unit == "cosine")


def _with_error(values: Sequence[float], digits: int) -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):.{digits}f} ± {error:.{digits}f}"
