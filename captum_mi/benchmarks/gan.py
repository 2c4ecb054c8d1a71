"""Does mutual information keep a GAN from dropping modes of a ring and of a grid?"""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import softplus

from captum_mi._checks import check_positive
from captum_mi._training import minimize
from captum_mi.datasets import GaussianModes
from captum_mi.estimators.pair_critics import SeparablePairs
from captum_mi.infomax import InformationRegularizer, clipped, frozen_call

if TYPE_CHECKING:
    import argparse

HELP = "does mutual information keep a GAN from dropping modes?"
DATA = {"ring": GaussianModes.ring(), "grid": GaussianModes.grid()}
UNITS = 128
NOISE = 2  # numbers
CODE = 2
BATCH = 256
LEARNING_RATE = 3e-3
BETAS = 0.5, 0.9
WEIGHT = 1.0
STEPS = 2500
JUDGED = 10_000  # samples
SHOWN = 2500  # of them, in a panel


class Row(NamedTuple):
    """What a trained generator covers.

    Attributes:
        data: "ring" or "grid".
        weight: of the mutual information; 0 for none.
        seed: of the weights, the data and the noise.
        modes: covered.
        high_quality: share of samples near a mode.
        divergence: of the modes' shares to equal ones, nats.
    """

    data: str
    weight: float
    seed: int
    modes: int
    high_quality: float
    divergence: float


def train(data: GaussianModes, weight: float, steps: int, seed: int) -> Tensor:
    """Trains a GAN of three layers each, and draws from its generator.

    Args:
        data: to imitate.
        weight: of the information of the code and the output; 0 trains the GAN alone.
        steps: of generator, discriminator and critic at once.
        seed: of everything random.

    Returns:
        10,000 samples, (N, 2).
    """
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        generator, discriminator = _network(NOISE + CODE, 2), _network(2, 1)
        regularizer = InformationRegularizer(SeparablePairs((CODE,), (2,), (UNITS,)))
    trained = nn.ModuleList([generator, discriminator, regularizer])
    weights = list(generator.parameters())

    def loss(_step: int) -> Tensor:
        inputs = torch.randn(BATCH, NOISE + CODE, generator=random)
        real, fake, codes = data.sample(BATCH, random), generator(inputs), inputs[:, NOISE:]
        of_real, of_fake = discriminator(real), discriminator(fake.detach())
        total = softplus(-of_real).mean() + softplus(of_fake).mean()
        fooled = softplus(-frozen_call(discriminator, fake)).mean()
        total = total + fooled
        if weight:
            term = -weight * regularizer.information(codes, fake)
            total = total + clipped(term, fooled, weights) + regularizer.critic_loss(codes, fake)
        return total

    optimizer = torch.optim.Adam(trained.parameters(), LEARNING_RATE, betas=BETAS)
    minimize(loss, trained, optimizer, steps, title=f"GAN, weight {weight:g}, seed {seed}")
    with torch.no_grad():
        samples: Tensor = generator(torch.randn(JUDGED, NOISE + CODE, generator=random))
    return samples


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, UNITS),
        nn.ReLU(),
        nn.Linear(UNITS, UNITS),
        nn.ReLU(),
        nn.Linear(UNITS, outputs),
    )


def picture(rows: list[Row], samples: list[Tensor], seed: int) -> Figure:
    """Draws real samples and those of one seed's generators, a line of panels per data set.

    Args:
        rows: what was measured.
        samples: (N, 2), for each row.
        seed: whose samples are drawn.
    """
    kinds = list(dict.fromkeys(row.data for row in rows))
    figure = Figure(figsize=(10, 3.5 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), 3, squeeze=False, sharex="row", sharey="row")
    for line, kind in zip(grid, kinds, strict=True):
        data = DATA[kind]
        drawn = [(data.sample(JUDGED, torch.Generator().manual_seed(seed)), f"{kind}: real")]
        for row, found in zip(rows, samples, strict=True):
            if (row.data, row.seed) == (kind, seed):
                covered = f"{row.modes} of {len(data.modes)} modes"
                good = f"{row.high_quality:.0%} near one"
                name = "with MINE" if row.weight else "without"
                drawn.append((found, f"{name}: {covered}, {good}"))
        for axes, (points, title) in zip(line, drawn, strict=True):
            axes.plot(*points[:SHOWN].T, ".", markersize=2, alpha=0.4)
            axes.set_title(title, fontsize="medium")
            limit = 1.3 * float(data.modes.abs().max())
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of a GAN (default: {STEPS})")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gan"),
        help="folder for CSV and PNG (default: gan)",
    )


def run(options: argparse.Namespace) -> None:
    """Prints what each generator covers and means over seeds; writes a table and a picture."""
    steps, seeds = check_positive("steps", options.steps), check_positive("seeds", options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    print("data  MINE     seed   modes  high quality  divergence, nats")
    rows, samples = [], []
    for name, data in DATA.items():
        for weight in (0.0, WEIGHT):
            found = []
            for seed in range(seeds):
                samples.append(train(data, weight, steps, seed))
                found.append(Row(name, weight, seed, *data.coverage(samples[-1])))
                _print(found[-1], str(seed))
            _print(
                Row(name, weight, 0, *(mean(each) for each in list(zip(*found, strict=True))[3:])),
                "mean",
            )
            rows += found
    with (options.out / "gan.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    picture(rows, samples, seed=0).savefig(options.out / "gan.png", dpi=120)
    print(f"wrote {options.out / 'gan'}.csv and .png")


def _print(row: Row, seed: str) -> None:
    print(
        f"{row.data}  {'with' if row.weight else 'without':7}  {seed:>4}  {row.modes:6.3g}"
        f"  {row.high_quality:12.3f}  {row.divergence:16.3f}",
        flush=True,
    )
