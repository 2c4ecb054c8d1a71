"""Training by epochs, each of which can be done again: a killed run loses the last alone."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from captum_mi._checks import check_positive, check_positive_number
from captum_mi._training import minimize
from captum_mi.infoplane.noise import stochastic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from captum_mi.infoplane.classifier.data import Images
    from captum_mi.infoplane.noise import NoisyLayers

PAPER = {"learning_rate": 1e-5, "epochs": 300, "batch_size": 1024}
"""What the paper trains with, on 50,000 images."""


@dataclass(frozen=True)
class Training:
    """How a classifier is trained: by Adam, with noise at the input of each layer.

    The order of the images, the noise and the model's own random numbers depend on the seed and on
    the epoch's number alone, so that an epoch is the same wherever a run was resumed.

    Args:
        layers: dotted names of those that get noise.
        epochs: how many; may be raised later.
        learning_rate: of Adam.
        batch_size: images of a step.
        noise: deviation of the relative noise; 0 for none.
        seed: of order and noise.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> from captum_mi.infoplane.classifier import Classifier, Images
        >>> train = Images(torch.rand(40, 1, 8, 8), torch.arange(40) % 10)
        >>> list(Training(("L1", "L2"), epochs=2).run(Classifier(1, 8), train))
        [0, 1, 2]
    """

    layers: tuple[str, ...]
    epochs: int = 40
    learning_rate: float = 1e-3
    batch_size: int = 128
    noise: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_positive("epochs", self.epochs)
        check_positive("batch_size", self.batch_size)
        check_positive_number("learning_rate", self.learning_rate)
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"`noise` must be finite and not negative, got {self.noise}")

    def run(self, model: nn.Module, train: Images, state: Path | None = None) -> Iterator[int]:
        """Trains a model in place, and stops at the end of every epoch.

        Args:
            model: returns scores of the classes, (B, classes); their softmax is taken.
            train: the images.
            state: file that keeps weights and optimizer of the last whole epoch; where it is there,
                the run goes on behind it.

        Yields:
            the number of the epoch that the model has behind it: 0 before training, or that of
            ``state``, and those after it.

        Raises:
            ValueError: if the file is of another model or has more epochs, or training diverges.
        """
        optimizer = torch.optim.Adam(model.parameters(), self.learning_rate)
        done = 0
        if state is not None and state.exists():
            done = _restore(state, model, optimizer)
            if done > self.epochs:
                raise ValueError(f"`epochs` must be at least {done}, which are done already")
        elif state is not None:
            _keep(state, 0, model, optimizer)
        yield done
        for epoch in range(done + 1, self.epochs + 1):
            self._train(epoch, model, optimizer, train)
            if state is not None:
                _keep(state, epoch, model, optimizer)
            yield epoch

    def noisy(self, model: nn.Module, epoch: int, *, recorded: bool = False) -> NoisyLayers:
        """Adds the noise of an epoch: of its training, or of its record."""
        seed = _seed(self.seed, epoch, 1 + recorded)
        return stochastic(model, self.layers, self.noise, seed=seed)

    def _train(
        self, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer, train: Images
    ) -> None:
        device = next(model.parameters()).device
        drawn = torch.Generator().manual_seed(_seed(self.seed, epoch, 0))
        order = torch.randperm(len(train.images), generator=drawn)
        batches = torch.split(order, self.batch_size)

        def loss(step: int) -> Tensor:
            images, labels = (part[batches[step - 1]].to(device) for part in train)
            return cross_entropy(model(images), labels)

        with torch.random.fork_rng(), self.noisy(model, epoch):
            torch.manual_seed(_seed(self.seed, epoch, 3))
            minimize(loss, model, optimizer, len(batches), title=f"epoch {epoch}")


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _keep(state: Path, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the state of an epoch, whole or not at all."""
    partial = state.with_name(f"{state.name}.{os.getpid()}")
    kept = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(kept, partial)
    partial.replace(state)


def _restore(state: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    device = next(model.parameters()).device
    try:
        kept = torch.load(state, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        return int(kept["epoch"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{str(state)!r} holds no state of this model; remove it") from error
