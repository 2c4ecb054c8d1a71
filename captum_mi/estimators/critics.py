"""Critics: networks that score how well a global representation and a place belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LEAST = -1e30  # a score that adds nothing to a sum of exponentials, and has a gradient


class Critic(nn.Module, ABC):
    """Scores a global representation z with a place x, both embedded first.

    Args:
        global_dim: dimension of z.
        local_dim: dimension of x.
        hidden: units of each layer, H.
        places: how many places there are, K, for a critic that knows which one x is: each has a
            scale and a shift of its own in the first layer. None for one that does not.
    """

    numbers_per_pair: int
    """Numbers in memory for each pair that is scored."""

    def __init__(
        self, global_dim: int, local_dim: int, hidden: int = 256, places: int | None = None
    ) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__()
        self.of_global = nn.Linear(global_dim, hidden)
        self.of_local = PlaceLinear(local_dim, hidden, places)

    @abstractmethod
    def embed_global(self, z: Tensor) -> Tensor:
        """Returns the embeddings, (N, H), of z, (N, global_dim)."""

    @abstractmethod
    def embed_local(self, x: Tensor) -> Tensor:
        """Returns the embeddings, (N, K, H), of all places x, (N, K, local_dim), in order."""

    @abstractmethod
    def matched(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns the scores, (N, K), of embeddings (N, H) with their own places (N, K, H)."""

    @abstractmethod
    def crossed(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns the scores, (N, M), of every embedding (N, H) with every one of (M, H)."""

    def log_sum_others(self, z: Tensor, x: Tensor, at_once: int) -> Tensor:
        """Returns the log-sum-exp of the scores of z with the places of all other images.

        Args:
            z: (N, H), embedded.
            x: (N, K, H), embedded.
            at_once: how many numbers may be in memory at a time; as many images as fit are scored
                together, one at least, and scored again for the gradient.

        Returns:
            (N,).
        """
        n_images, n_places, _ = x.shape
        rows = max(1, at_once // (n_images * n_places * self.numbers_per_pair))

        def part(z: Tensor, x: Tensor, first: int) -> Tensor:
            scores = self.crossed(z, x.flatten(0, 1)).reshape(n_images, *x.shape[:2])
            images = torch.arange(n_images, device=z.device)
            own = images[:, None] == images[first : first + len(x)]
            return scores.masked_fill(own[..., None], LEAST).flatten(1).logsumexp(dim=1)

        if rows >= n_images:
            return part(z, x, 0)
        parts: list[Tensor] = [
            checkpoint(
                part,
                z,
                x[first : first + rows],
                first,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for first in range(0, n_images, rows)
        ]
        return torch.stack(parts).logsumexp(dim=0)

    def log_sum(self, z: Tensor, x: Tensor, at_once: int) -> Tensor:
        """Returns the log-sum-exp, (N,), of the scores of z, (N, H), with all of x, (M, H)."""
        rows = max(1, at_once // (len(x) * self.numbers_per_pair))
        parts = torch.split(z, rows)
        return torch.cat([self.crossed(part, x).logsumexp(dim=1) for part in parts])


class SeparableCritic(Critic):
    r"""The scalar product of two networks of two layers, :math:`g(z) \cdot h(x, k)`.

    The units between the layers of g are divided by :math:`\sqrt{H}`, so that scores start small.

    Example:
        >>> critic = SeparableCritic(global_dim=6, local_dim=3, places=4)
        >>> z = critic.embed_global(torch.randn(5, 6))
        >>> x = critic.embed_local(torch.randn(5, 4, 3))
        >>> critic.matched(z, x).shape, critic.crossed(z, x.flatten(0, 1)).shape
        (torch.Size([5, 4]), torch.Size([5, 20]))
    """

    numbers_per_pair = 1

    def __init__(
        self, global_dim: int, local_dim: int, hidden: int = 256, places: int | None = None
    ) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__(global_dim, local_dim, hidden, places)
        self.to_score = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(2)])
        self.scale = hidden**-0.5

    def embed_global(self, z: Tensor) -> Tensor:
        """Returns the embeddings, (N, H), of z, (N, global_dim)."""
        found: Tensor = self.to_score[0](self.of_global(z).relu() * self.scale)
        return found

    def embed_local(self, x: Tensor) -> Tensor:
        """Returns the embeddings, (N, K, H), of all places x, (N, K, local_dim), in order."""
        found: Tensor = self.to_score[1](self.of_local(x).relu())
        return found

    def matched(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns the scores, (N, K), of embeddings (N, H) with their own places (N, K, H)."""
        return torch.einsum("nh,nkh->nk", z, x)

    def crossed(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns the scores, (N, M), of every embedding (N, H) with every one of (M, H)."""
        return z @ x.T


class ConcatCritic(Critic):
    """A network of two layers that reads z and x side by side; slower than a separable one.

    Example:
        >>> critic = ConcatCritic(global_dim=6, local_dim=3, hidden=8)
        >>> z = critic.embed_global(torch.randn(5, 6))
        >>> x = critic.embed_local(torch.randn(5, 4, 3))
        >>> critic.matched(z, x).shape, critic.crossed(z, x.flatten(0, 1)).shape
        (torch.Size([5, 4]), torch.Size([5, 20]))
    """

    def __init__(
        self, global_dim: int, local_dim: int, hidden: int = 256, places: int | None = None
    ) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__(global_dim, local_dim, hidden, places)
        self.to_score = nn.Linear(hidden, 1)
        self.numbers_per_pair = hidden

    def embed_global(self, z: Tensor) -> Tensor:
        """Returns the embeddings, (N, H), of z, (N, global_dim)."""
        found: Tensor = self.of_global(z)
        return found

    def embed_local(self, x: Tensor) -> Tensor:
        """Returns the embeddings, (N, K, H), of all places x, (N, K, local_dim), in order."""
        found: Tensor = self.of_local(x)
        return found

    def matched(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns the scores, (N, K), of embeddings (N, H) with their own places (N, K, H)."""
        found: Tensor = self.to_score((z[:, None] + x).relu())
        return found.squeeze(-1)

    def crossed(self, z: Tensor, x: Tensor) -> Tensor:
        """Returns the scores, (N, M), of every embedding (N, H) with every one of (M, H)."""
        return self.matched(z, x[None])


class PlaceLinear(nn.Module):
    """A linear layer whose units have a scale and a shift of their own at each of K places.

    Args:
        inputs: features of each place.
        outputs: units.
        places: K; None for a plain linear layer.

    Example:
        >>> PlaceLinear(3, 8, places=4)(torch.randn(5, 4, 3)).shape
        torch.Size([5, 4, 8])
    """

    def __init__(self, inputs: int, outputs: int, places: int | None) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.places = places
        if places is not None:
            self.scale = nn.Parameter(1 + torch.randn(places, outputs) / 2)
            self.shift = nn.Parameter(torch.randn(places, outputs) / 2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the units, (N, K, outputs), of all places x, (N, K, inputs), in order."""
        found: Tensor = self.linear(x)
        return found if self.places is None else found * self.scale + self.shift
