"""The networks of the decomposition: two critics with their negatives, and the mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_mi.attr._place_masks import ConvolutionMask, PointwiseMask
from captum_mi.estimators.bounds import pointwise_info_nce
from captum_mi.estimators.critics import ConcatCritic, Critic, SeparableCritic

if TYPE_CHECKING:
    from captum_mi.attr.layer_statistics import LayerStatistics
    from captum_mi.attr.places import Places

CRITICS: dict[str, type[Critic]] = {"separable": SeparableCritic, "concat": ConcatCritic}
MASKS = ("pointwise", "conv3x3")


class LocalInformation(nn.Module):
    """A critic of Z and the places, and the places of other images that it compares with.

    Args:
        critic: scores Z with places.
        hidden: dimension of the critic's embeddings.
        n_negatives: how many places are kept, M.
        scores_at_once: numbers in memory at a time.

    Attributes:
        negatives: (M, hidden), embedded places of held-out images, as many of each place.
    """

    negatives: Tensor

    def __init__(self, critic: Critic, hidden: int, n_negatives: int, scores_at_once: int) -> None:
        super().__init__()
        self.critic = critic
        self.scores_at_once = scores_at_once
        self.register_buffer("negatives", torch.zeros(n_negatives, hidden))

    @property
    def cap(self) -> float:
        """Largest value that a place can have, nats."""
        return math.log1p(len(self.negatives))

    def in_batch(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns pointwise values, (N, K), with the other images of the batch as negatives."""
        first, second = self.critic.embed_global(z), self.critic.embed_local(x)
        others = self.critic.log_sum_others(first, second, self.scores_at_once)
        n_others = (len(x) - 1) * x.shape[1]
        return pointwise_info_nce(self.critic.matched(first, second), others[:, None], n_others)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns pointwise values, (N, K), with the kept places as negatives."""
        first, second = self.critic.embed_global(z), self.critic.embed_local(x)
        others = self.critic.log_sum(first, self.negatives, self.scores_at_once)
        matched = self.critic.matched(first, second)
        return pointwise_info_nce(matched, others[:, None], len(self.negatives))

    @torch.no_grad()
    def keep(self, x: Tensor, n_each: int, generator: torch.Generator) -> None:
        """Keeps of each of the places, (N, K, C), those of ``n_each`` images, drawn anew."""
        embedded = self.critic.embed_local(x)
        n_images, n_places, _ = embedded.shape
        order = torch.rand(n_images, n_places, generator=generator).argsort(0).to(x.device)
        columns = torch.arange(n_places, device=x.device)
        self.negatives = embedded[order[:n_each], columns].flatten(0, 1)


class Networks(nn.Module):
    """All that is fitted: statistics, mask, and the information of the places and of what passes.

    Args:
        places: of the layer.
        z_dim: dimension of Z.
        critic: short name of the critics' class.
        mask: "pointwise" or "conv3x3".
        hidden: units of each layer.
        place_aware: whether critics and mask know the place.
        scores_at_once: numbers in memory at a time.
        n_negatives: how many places are kept; none before the critics are trained.

    Attributes:
        places: of the layer.
        total: of Z and X.
        decision: of Z and X'.
    """

    latent_mean: Tensor
    mean: Tensor
    std: Tensor
    center: Tensor
    spread: Tensor
    z_mean: Tensor
    z_std: Tensor

    def __init__(
        self,
        places: Places,
        z_dim: int,
        *,
        critic: str,
        mask: str,
        hidden: int,
        place_aware: bool,
        scores_at_once: int,
        n_negatives: int = 0,
    ) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__()
        self.places = places
        known = places.count if place_aware else None

        def information() -> LocalInformation:
            network = CRITICS[critic](z_dim, places.channels, hidden, known)
            return LocalInformation(network, hidden, n_negatives, scores_at_once)

        self.total, self.decision = information(), information()
        self.mask = (
            ConvolutionMask(places, hidden)
            if mask == "conv3x3"
            else PointwiseMask(places.channels, hidden, known)
        )
        each = places.count, places.channels
        shapes = {"latent_mean": (1, *places.shape), "mean": each, "std": each}
        shapes |= {"center": each[1:], "spread": each[1:], "z_mean": (z_dim,), "z_std": (z_dim,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def set_statistics(self, latent: LayerStatistics, z: LayerStatistics) -> None:
        """Takes the statistics of the layer and of Z."""
        self.latent_mean.copy_(latent.mean[None])
        self.mean.copy_(self.places.values(latent.mean[None])[0])
        self.std.copy_(self.places.values(latent.std[None])[0])
        self.center.copy_(self.mean.mean(0))
        variance = self.std.square().mean(0) + (self.mean - self.center).square().mean(0)
        self.spread.copy_(_spread(variance.sqrt(), self.center))
        self.z_mean.copy_(z.mean)
        self.z_std.copy_(_spread(z.std, z.mean))

    def read(self, latent: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the values at the places, (N, K, C), and standardized Z, (N, D).

        Raises:
            ValueError: if the layers have other shapes than were fitted.
        """
        self.places.check(latent)
        if z.shape[1] != len(self.z_mean):
            raise ValueError(
                f"`global_layer` has {z.shape[1]} numbers for each of these inputs, but was fitted"
                f" on {len(self.z_mean)}; give the layer and inputs of the size that were fitted"
            )
        return self.places.values(latent).float(), (z - self.z_mean) / self.z_std

    def standardized(self, x: Tensor) -> Tensor:
        """Returns values with a mean of 0 and a deviation of 1 in each channel, over all places."""
        return (x - self.center) / self.spread

    def masks(self, x: Tensor) -> Tensor:
        """Returns lambda, (N, K), of values (N, K, C)."""
        found: Tensor = self.mask(self.standardized(x))
        return found

    def masked(self, x: Tensor, masks: Tensor, noise: Tensor) -> Tensor:
        """Returns X', (N, K, C): values mixed with noise of each element's mean and deviation.

        Args:
            x: (N, K, C).
            masks: (N, K).
            noise: standard normal, (N, K, C) or (1, K, C) for all.
        """
        share = masks[..., None]
        return share * x + (1 - share) * (self.mean + self.std * noise)


def _spread(deviation: Tensor, mean: Tensor) -> Tensor:
    """Returns the deviation, and 1 where it is no more than rounding."""
    rounding = 8 * torch.finfo(mean.dtype).eps * mean.abs()
    return torch.where(deviation > rounding, deviation, 1.0)
