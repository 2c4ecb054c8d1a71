"""How encoders are trained: batches in a seeded order, steps of Adam."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from captum_mi._checks import check_positive, check_positive_number
from captum_mi._training import Progress, minimize
from captum_mi.infomax.encoders import device_of, image_batches, layer_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@dataclass(frozen=True)
class Training:
    """How long, in what steps and with what random numbers.

    The learning rate falls to zero along half a cosine.

    Args:
        epochs: passes over the images.
        batch_size: images of a step; all others of the batch are an image's negatives.
        learning_rate: of Adam, at the start; the paper's is 1e-4.
        seed: of the weights, the order of the images and the noise.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> Training(epochs=3, batch_size=256).learning_rate
        0.001
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_positive("epochs", self.epochs)
        check_positive_number("learning_rate", self.learning_rate)
        if check_positive("batch_size", self.batch_size) < 2:
            raise ValueError("`batch_size` must be at least 2, for negatives, got 1")

    def run(
        self,
        loss: Callable[[Any], Tensor],
        module: nn.Module,
        batches: Callable[[torch.Generator], Iterator[Any]],
        steps: int,
        title: str,
    ) -> list[Progress]:
        """Minimizes a loss of batches by a module's parameters that take gradients.

        Args:
            loss: of a batch, 0-d.
            module: trained in place.
            batches: returns the batches of an epoch in an order drawn from the generator.
            steps: of an epoch.
            title: of the progress bar.

        Returns:
            one entry for each epoch.
        """
        generator = torch.Generator().manual_seed(self.seed)

        def endless() -> Iterator[Any]:
            while True:
                yield from batches(generator)

        trained = [weight for weight in module.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(trained, self.learning_rate)
        total = steps * self.epochs
        drawn = endless()
        with self.seeded(device_of(module)):
            return minimize(
                lambda _step: loss(next(drawn)),
                module,
                optimizer,
                total,
                schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total),
                interval=steps,
                title=title,
            )

    @contextmanager
    def seeded(self, device: torch.device) -> Iterator[None]:
        """Makes torch's own random numbers those of the seed, and others again behind it."""
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            yield

    def rows(self, count: int, generator: torch.Generator) -> list[Tensor]:
        """Draws the rows of the batches of an epoch, all of the same size."""
        size = min(self.batch_size, count)
        order = torch.randperm(count, generator=generator)
        return [rows for rows in torch.split(order, size) if len(rows) == size]


def train_on(
    images: Tensor | Iterable[Any],
    loss: Callable[[Tensor], Tensor],
    module: nn.Module,
    training: Training,
    title: str,
) -> list[Progress]:
    """Minimizes a loss of batches of images, which are brought to the module's device.

    Args:
        images: (N, ...), N at least 2, or a loader, gone through once an epoch in its own order.
        loss: of a batch, 0-d.
        module: trained in place.
        training: how.
        title: of the progress bar.

    Returns:
        one entry for each epoch.
    """
    device = device_of(module)
    if isinstance(images, Tensor):
        if len(images) < 2:
            raise ValueError(f"`images` must be at least 2, got {len(images)}")
        steps = len(images) // min(training.batch_size, len(images))
    else:
        steps = sum(1 for _ in image_batches(images, 1))

    def batches(generator: torch.Generator) -> Iterator[Tensor]:
        if isinstance(images, Tensor):
            yield from (images[rows] for rows in training.rows(len(images), generator))
        else:
            yield from image_batches(images, training.batch_size)

    return training.run(lambda batch: loss(batch.to(device)), module, batches, steps, title)


def train_supervised(
    encoder: nn.Module,
    layer: str,
    images: Tensor,
    labels: Tensor,
    training: Training | None = None,
) -> list[Progress]:
    """Trains an encoder, in place, so that a linear layer tells the classes from one of its layers.

    Args:
        encoder: of the images.
        layer: what the linear layer, which is thrown away, reads.
        images: (N, ...).
        labels: (N,), integers from 0.
        training: how; None for ``Training()``.

    Returns:
        one entry for each epoch, with the mean cross-entropy, nats.

    Example:
        >>> from captum_mi.infomax import ConvEncoder
        >>> images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % 2
        >>> images[labels == 1] /= 2
        >>> history = train_supervised(ConvEncoder(1, 8), "code", images, labels)
        >>> history[-1].loss < 0.1
        True
    """
    training = training or Training()
    device = device_of(encoder)
    with training.seeded(device):
        width = layer_values(encoder, [layer], images[:2].to(device))[layer].flatten(1).shape[1]
        head = nn.Linear(width, int(labels.max()) + 1).to(device)

    def loss(rows: Tensor) -> Tensor:
        values = layer_values(encoder, [layer], images[rows].to(device))[layer]
        return cross_entropy(head(values.flatten(1)), labels[rows].to(device))

    return training.run(
        loss,
        nn.ModuleList([encoder, head]),
        lambda generator: iter(training.rows(len(images), generator)),
        len(images) // min(training.batch_size, len(images)),
        "supervised",
    )
