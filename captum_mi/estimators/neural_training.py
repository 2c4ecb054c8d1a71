"""How a critic of pairs is trained, where its training stops, and what it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from captum_mi._checks import check_positive, check_positive_number
from captum_mi._training import Progress, minimize, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from captum_mi.estimators.pair_critics import PairCritic

LEAST_SAMPLES = 20
BLOCK = 2048  # held-out samples scored with each other
STOPPING = 1 / 3  # share of the held-out samples on which the training stops
INTERVAL = 20  # steps between two checks


@dataclass(frozen=True)
class Training:
    """How a critic is trained, by Adam, with every other pair of a batch as negatives.

    Args:
        steps: at most.
        batch_size: pairs drawn in a step, of which no sample stands in two.
        learning_rate: of Adam.
        held_out: share of the samples that are not trained on. On a third of them, at most 2,048,
            the training stops and the best state is chosen; on the others it is judged.
        patience: checks in a row, each after 20 steps, without a better bound before training ends;
            None never ends it.
        seed: of weights, split and batches; the global random state is left as it was.
        device: that trains; None for that of the samples.

    Example:
        >>> Training(steps=500, learning_rate=5e-4).batch_size
        512
    """

    steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 1e-3
    held_out: float = 0.3
    patience: int | None = 20
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_positive("steps", self.steps)
        if check_positive("batch_size", self.batch_size) < 2:
            raise ValueError(f"`batch_size` must be at least 2, got {self.batch_size}")
        check_positive_number("learning_rate", self.learning_rate)
        if not 0 < self.held_out < 1:
            raise ValueError(f"`held_out` must lie between 0 and 1, got {self.held_out}")
        if self.patience is not None:
            check_positive("patience", self.patience)


def train(
    x: Tensor,
    y: Tensor,
    build: Callable[[], PairCritic],
    objective: Callable[[Tensor], Tensor],
    validation: Callable[[Tensor], Tensor],
    training: Training,
    title: str,
) -> tuple[PairCritic, list[Progress], Iterator[Tensor]]:
    """Trains a critic on pairs, and scores those that were held out to judge it.

    Args:
        x: (N, ...), float32, at least 20.
        y: (N, ...).
        build: makes the critic, with weights from torch's global generator.
        objective: bound of a batch's score matrix, which is maximized.
        validation: bound of the held-out score matrix, by which training stops.
        training: the options.
        title: of the progress bar.

    Returns:
        the critic in its best state, the checks, whose error is minus the bound, and the score
        matrices, float64 on the CPU, of blocks of held-out pairs on which nothing was chosen.
    """
    if len(x) < LEAST_SAMPLES:
        raise ValueError(
            f"`x` must hold at least {LEAST_SAMPLES} samples to train on, got {len(x)}"
        )
    device = training.device or x.device
    generator = torch.Generator().manual_seed(training.seed)
    kept, held_out = split(len(x), training.held_out, generator)
    size = min(training.batch_size, len(kept))
    n_stopping = min(ceil(STOPPING * len(held_out)), BLOCK)
    stopping, judging = held_out[:n_stopping], held_out[n_stopping:]
    if min(size, n_stopping, len(judging)) < 2:
        raise ValueError(
            f"`held_out` leaves {len(kept)} of {len(x)} samples to train on, {n_stopping} to stop"
            f" on and {len(judging)} to judge by, each must be at least 2; got {training.held_out}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(training.seed)
        critic = build().to(device)

    def pairs(rows: Tensor) -> tuple[Tensor, Tensor]:
        return x[rows.to(x.device)].to(device), y[rows.to(y.device)].to(device)

    batches = _batches(kept, size, generator)
    to_stop = pairs(stopping)
    history = minimize(
        lambda _step: -objective(critic(*pairs(next(batches)))),
        critic,
        torch.optim.Adam(critic.parameters(), training.learning_rate),
        training.steps,
        validate=lambda: -float(validation(critic.score(*to_stop))),
        interval=INTERVAL,
        patience=training.patience,
        title=title,
    )
    critic.requires_grad_(requires_grad=False).eval()
    blocks = torch.tensor_split(judging, ceil(len(judging) / BLOCK))
    return critic, history, (critic.score(*pairs(rows)).cpu().double() for rows in blocks)


def _batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields batches of rows, shuffled anew when too few are left, without end."""
    while True:
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        yield from (part for part in torch.split(shuffled, size) if len(part) == size)
