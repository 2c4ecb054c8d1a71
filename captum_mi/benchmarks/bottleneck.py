"""The information bottleneck by MINE: what a code of digits keeps, and what it still tells."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from captum_mi._checks import check_positive
from captum_mi._training import minimize
from captum_mi.estimators import Estimate
from captum_mi.estimators.bounds import donsker_varadhan, pointwise_terms
from captum_mi.estimators.pair_critics import SeparablePairs
from captum_mi.infomax import InformationRegularizer
from captum_mi.infoplane.classifier.data import read_images

if TYPE_CHECKING:
    import argparse

    from captum_mi.infoplane.classifier.data import Images

HELP = "how much of digits can a noisy code forget and still tell them apart?"
BETAS = (0.0, 0.01, 0.1, 0.3, 0.7, 1.5)
CLASSES = 10
CODE = 4
LARGEST = 4.0
"""Deviations of the noise that a mean can lie from zero: the code stays within MINE's reach."""
UNITS = 256
BATCH = 256
LEARNING_RATE = 3e-4
CRITIC_RATE = 1e-3
"""Larger than the code's: a code that outruns the critic lowers the bound, not I(X; Z)."""
JUDGED = 2000
"""Test images whose codes are scored with each other."""


class NoisyCode(nn.Module):
    """Codes images by two layers and standard normal noise, and names their class linearly.

    Args:
        pixels: of an image.
    """

    def __init__(self, pixels: int) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(pixels, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, CODE),
            nn.Tanh(),
        )
        self.decoder = nn.Linear(CODE, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the means of codes, (N, 4), of images, (N, pixels)."""
        means: Tensor = LARGEST * self.layers(pixels)
        return means


class Row(NamedTuple):
    """What a code keeps, of test images; nats.

    Attributes:
        beta: weight of the information.
        information: I(X; Z) by MINE, on pairs that no training saw.
        std_error: its standard error.
        least: a lower bound that knows the code's noise, at most the logarithm of the images.
        most: an upper bound that knows it.
        accuracy: of the classes.
    """

    beta: float
    information: float
    std_error: float
    least: float
    most: float
    accuracy: float


def measure(train: Images, test: Images, beta: float, steps: int, seed: int) -> Row:
    r"""Trains a code, and measures it on test images.

    Minimizes :math:`H(Y|Z) + \beta\, I(X; Z)`, the first by its cross entropy, the second by MINE.

    Args:
        train: images to train on.
        test: others.
        beta: weight of the information.
        steps: of the code and the critic at once; then as many of the critic alone.
        seed: of weights, batches and noise.
    """
    random = torch.Generator().manual_seed(seed)
    pixels, of_test = train.images.flatten(1), test.images.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        code = NoisyCode(pixels.shape[1])
        regularizer = InformationRegularizer(
            SeparablePairs(pixels.shape[1:], (CODE,), (UNITS, UNITS))
        )

    def drawn() -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.randint(len(pixels), (BATCH,), generator=random)
        means = code(pixels[rows])
        return rows, pixels[rows], means + torch.randn(means.shape, generator=random)

    def loss(_step: int) -> Tensor:
        rows, x, z = drawn()
        total = cross_entropy(code.decoder(z), train.labels[rows]) + regularizer.critic_loss(x, z)
        return total + beta * regularizer.information(x, z) if beta else total

    def critic_loss(_step: int) -> Tensor:
        _, x, z = drawn()
        return regularizer.critic_loss(x, z)

    title = f"beta {beta:g}"
    both = torch.optim.Adam(code.parameters(), LEARNING_RATE)
    both.add_param_group({"params": list(regularizer.parameters()), "lr": CRITIC_RATE})
    minimize(loss, nn.ModuleList([code, regularizer]), both, steps, title=title)
    critic = torch.optim.Adam(regularizer.parameters(), CRITIC_RATE)
    minimize(critic_loss, regularizer, critic, steps, title=f"{title}, critic")
    with torch.no_grad():
        means = code(of_test)
        z = means + torch.randn(means.shape, generator=random)
        right = code.decoder(z).argmax(1) == test.labels
        scores = regularizer.critic.score(of_test[:JUDGED], z[:JUDGED]).double()
    found = Estimate.of(pointwise_terms(donsker_varadhan, scores))
    least, most = known_noise_bounds(means[:JUDGED], z[:JUDGED])
    return Row(beta, found.value, found.std_error, least, most, float(right.double().mean()))


def known_noise_bounds(means: Tensor, z: Tensor) -> tuple[float, float]:
    r"""Bounds the information of images and codes whose noise is standard normal, without a critic.

    .. math:: E \log \frac{p(z_i | x_i)}{\frac1N \sum_j p(z_i | x_j)} \le I(X; Z) \le
        E \log \frac{p(z_i | x_i)}{\frac1{N - 1} \sum_{j \ne i} p(z_i | x_j)}

    Args:
        means: (N, d), codes of N images without noise.
        z: (N, d), codes of the same images with noise of variance 1.

    Returns:
        the lower bound, at most log N, and the upper one, nats.

    Source: Poole et al., "On variational bounds of mutual information", ICML 2019, section 2.4 and
    eq. 12.
    """
    log_densities = -torch.cdist(z.double(), means.double()).square() / 2
    own, n = log_densities.diagonal(), len(z)
    others = log_densities.clone().fill_diagonal_(-math.inf)
    least = (own - log_densities.logsumexp(1)).mean() + math.log(n)
    most = (own - others.logsumexp(1)).mean() + math.log(n - 1)
    return float(least), float(most)


def picture(rows: list[Row]) -> Figure:
    """Draws the information against beta, and the accuracy against the information."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = range(len(rows))
    left.errorbar(
        places,
        [row.information for row in rows],
        [1.96 * row.std_error for row in rows],
        marker="o",
        label="MINE",
    )
    left.fill_between(
        places,
        [row.least for row in rows],
        [row.most for row in rows],
        color="tab:orange",
        alpha=0.3,
        label="bounds that know the noise",
    )
    left.axhline(math.log(CLASSES), color="gray", linestyle=":", label="log 10, of the classes")
    left.set_xticks(places, [f"{row.beta:g}" for row in rows])
    left.set(xlabel="beta", ylabel="I(X; Z), nats", ylim=(0, None))
    left.legend(fontsize="small")
    right.plot([row.information for row in rows], [row.accuracy for row in rows], marker="o")
    for row in rows:
        right.annotate(
            f"{row.beta:g}",
            (row.information, row.accuracy),
            xytext=(4, -12),
            textcoords="offset points",
        )
    right.axvline(math.log(CLASSES), color="gray", linestyle=":")
    right.set(xlabel="I(X; Z) by MINE, nats", ylabel="accuracy, test images; labels: beta")
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with MNIST, as torchvision reads it (default: scikit-learn's digits)",
    )
    parser.add_argument("--steps", type=int, default=1000, help="of each code (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bottleneck"),
        help="folder for the CSV and PNG file (default: bottleneck)",
    )


def run(options: argparse.Namespace) -> None:
    """Prints a line for each beta, and writes a table and a picture."""
    steps = check_positive("steps", options.steps)
    train, test = read_images("digits" if options.data is None else "mnist", options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{len(train.labels)} digits, {len(test.labels)} others to judge by; information in nats")
    print(" beta  I(X; Z) by MINE  known noise, between  accuracy")
    rows = []
    for beta in BETAS:
        row = measure(train, test, beta, steps, options.seed)
        rows.append(row)
        print(
            f"{beta:5g}  {row.information:6.3f} ± {row.std_error:5.3f}   {row.least:6.3f} and"
            f" {row.most:6.3f}     {row.accuracy:8.4f}",
            flush=True,
        )
    with (options.out / "bottleneck.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    picture(rows).savefig(options.out / "bottleneck.png", dpi=120)
    print(f"wrote {options.out / 'bottleneck'}.csv and .png")
