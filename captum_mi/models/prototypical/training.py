"""How prototypical networks are trained, and how good they are, episode by episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from captum_mi._training import Progress, minimize
from captum_mi.models.prototypical.network import PrototypicalNetwork, class_means, closeness

if TYPE_CHECKING:
    from torch import Tensor, nn

    from captum_mi.datasets.episodes import Episodes


class Accuracy(NamedTuple):
    """Mean share of queries classified rightly, in [0, 1], and its standard error over episodes."""

    mean: float
    standard_error: float


def fit(
    backbone: nn.Module,
    episodes: Episodes,
    validation: Episodes,
    *,
    learning_rate: float = 1e-3,
    interval: int = 100,
) -> list[Progress]:
    """Trains a backbone, in place, to classify the queries of an episode by its support.

    Each episode is one step of Adam, whose learning rate falls to zero along half a cosine. The
    loss is the mean negative log-likelihood of the queries' ways, in nats.

    Args:
        backbone: embeds images (B, C, H, W) as (B, D); trained on its parameters' device.
        episodes: taken in their order.
        validation: the backbone ends as it was where most of their queries were classified rightly.
        learning_rate: at the start.
        interval: steps between two validations.

    Returns:
        one entry for each validation; its error is 1 - accuracy.

    Raises:
        ValueError: if the loss becomes NaN or infinite.

    Source: Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, algorithm 1.

    Example:
        >>> digits = [(torch.rand(1, 28, 28), i % 10) for i in range(60)]
        >>> backbone = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
        >>> known = Episodes(digits, length=10, classes=range(5))
        >>> fit(backbone, known, Episodes(digits, length=2, classes=range(5), seed=1))[-1].step
        10
    """
    device = _device(backbone)

    def loss(step: int) -> Tensor:
        episode = episodes[step - 1]
        features = backbone(torch.cat([episode.support, episode.query]).to(device))
        support, query = features.tensor_split([len(episode.support)])
        prototypes = class_means(support, episode.support_labels.to(device))
        return cross_entropy(closeness(query, prototypes), episode.query_labels.to(device))

    optimizer = torch.optim.Adam(backbone.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(episodes))
    return minimize(
        loss,
        backbone,
        optimizer,
        len(episodes),
        schedule=schedule,
        validate=lambda: 1 - accuracy(backbone, validation).mean,
        interval=interval,
    )


@torch.no_grad()
def accuracy(backbone: nn.Module, episodes: Episodes) -> Accuracy:
    """Classifies the queries of each episode by its support.

    Args:
        backbone: embeds images (B, C, H, W) as (B, D), in evaluation mode.
        episodes: at least two.

    Returns:
        the mean over episodes of the share classified rightly, and its standard error.

    Raises:
        RuntimeError: if the backbone is in training mode.
        ValueError: if there is only one episode.

    Example:
        >>> shades = [(torch.full((1, 8, 8), float(i % 10)), i % 10) for i in range(60)]
        >>> accuracy(nn.Flatten().eval(), Episodes(shades, length=3))
        Accuracy(mean=1.0, standard_error=0.0)
    """
    if len(episodes) < 2:
        raise ValueError("`episodes` must be at least 2 for a standard error, got 1")
    device = _device(backbone)
    shares = []
    for i in range(len(episodes)):
        episode = episodes[i]
        support, labels = episode.support.to(device), episode.support_labels.to(device)
        scores = PrototypicalNetwork(backbone, support, labels)(episode.query.to(device))
        right = scores.argmax(1).cpu() == episode.query_labels
        shares.append(right.double().mean())
    deviation, mean = torch.std_mean(torch.stack(shares))
    return Accuracy(float(mean), float(deviation) / len(shares) ** 0.5)


def _device(backbone: nn.Module) -> torch.device:
    return next((weight.device for weight in backbone.parameters()), torch.device("cpu"))
