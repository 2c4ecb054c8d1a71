"""Prior matching: an adversary makes the codes' distribution uniform and independent."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus


def discriminator(dim: int) -> nn.Sequential:
    """Returns the paper's discriminator of codes, 1000-200-1 with ReLU; (B, dim) to (B, 1).

    Example:
        >>> discriminator(64)(torch.rand(5, 64)).shape
        torch.Size([5, 1])
    """
    layers = nn.Linear(dim, 1000), nn.ReLU(), nn.Linear(1000, 200), nn.ReLU(), nn.Linear(200, 1)
    return nn.Sequential(*layers)


class PriorMatching(nn.Module):
    r"""Matches the sigmoids of codes to the uniform distribution on :math:`[0, 1]^D`.

    A discriminator learns to tell uniform samples u, as real, from y, the sigmoids of codes, and
    the encoder to be taken for real:

    .. math:: L_D = E\,\mathrm{sp}(-D(u)) + E\,\mathrm{sp}(D(y))
        + \frac{p}{2} \left( E |\nabla D(u)|^2 + E |\nabla D(y)|^2 \right) \qquad
        L_E = E\,\mathrm{sp}(-D(y))

    with :math:`\mathrm{sp}(v) = \log(1 + e^v)`; :math:`L_E` does not saturate where the
    discriminator wins. Where both have converged, :math:`L_D = 2 \log 2`.

    Args:
        dim: D.
        penalty: p, weight of the squared gradients, which steadies the training.

    Source: Hjelm et al., ICLR 2019, eq. 7; the penalty is that of Mescheder et al., "Which training
    methods for GANs do actually converge?", ICML 2018, eq. 9, on both kinds of samples.

    Example:
        >>> prior = PriorMatching(64)
        >>> codes = torch.randn(32, 64)
        >>> prior.encoder_loss(codes).shape, round(prior.discriminator_loss(codes).item(), 1)
        (torch.Size([]), 1.4)
    """

    def __init__(self, dim: int, penalty: float = 1.0) -> None:
        """Draws the discriminator's weights from torch's global generator."""
        super().__init__()
        self.discriminator = discriminator(dim)
        self.penalty = penalty

    def discriminator_loss(self, codes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the discriminator's loss, 0-d; no gradient reaches the codes.

        Args:
            codes: (N, D).
            generator: draws the uniform samples, on the codes' device; None for torch's own.
        """
        fake = codes.detach().sigmoid()
        real = torch.rand(fake.shape, generator=generator, device=fake.device, dtype=fake.dtype)
        of_real, steepness_of_real = self._scores(real)
        of_fake, steepness_of_fake = self._scores(fake)
        likelihoods = softplus(-of_real).mean() + softplus(of_fake).mean()
        return likelihoods + self.penalty / 2 * (steepness_of_real + steepness_of_fake)

    def encoder_loss(self, codes: Tensor) -> Tensor:
        """Returns the encoder's loss, 0-d; no gradient reaches the discriminator."""
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        return softplus(-functional_call(self.discriminator, frozen, codes.sigmoid())).mean()

    @torch.no_grad()
    def told_apart(self, codes: Tensor, generator: torch.Generator | None = None) -> float:
        """Returns the share of codes and uniform samples told apart; 0.5 is chance.

        Args:
            codes: (N, D).
            generator: draws as many uniform samples.
        """
        fake = codes.sigmoid()
        real = torch.rand(fake.shape, generator=generator, device=fake.device, dtype=fake.dtype)
        right = (self.discriminator(real) > 0).float().mean()
        return float(right + (self.discriminator(fake) <= 0).float().mean()) / 2

    def _scores(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores, (N, 1), and the mean squared gradient of a score."""
        samples = samples.requires_grad_()
        scores = self.discriminator(samples)
        (gradient,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
        return scores, gradient.square().sum(1).mean()
