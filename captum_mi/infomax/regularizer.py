"""Mutual information in the loss of another network: MINE that is raised or lowered by training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_mi.estimators.bounds import donsker_varadhan
from captum_mi.estimators.neural import MovingAverageBound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from captum_mi.estimators.pair_critics import PairCritic


class InformationRegularizer(nn.Module):
    r"""Estimates the information of X and Y by MINE while a network that makes Y is trained.

    With a network's loss L and a weight b, minimize

    .. math:: L \mp b\, I_{\text{MINE}}(X; Y) + L_T

    where the critic's loss :math:`L_T` reaches the critic alone, and the information the network
    alone: minus keeps a generator from dropping modes, plus is the information bottleneck.

    Args:
        critic: scores pairs of X and Y.

    Source: Belghazi et al., "Mutual information neural estimation", ICML 2018, sections 5.1 and
    5.3.

    Example:
        >>> from captum_mi.estimators.pair_critics import SeparablePairs
        >>> regularizer = InformationRegularizer(SeparablePairs((2,), (3,)))
        >>> codes, outputs = torch.randn(64, 2), torch.randn(64, 3)
        >>> regularizer.information(codes, outputs).shape
        torch.Size([])
        >>> regularizer.critic_loss(codes, outputs).shape
        torch.Size([])
    """

    def __init__(self, critic: PairCritic) -> None:
        """Keeps the critic, and starts the moving average of its loss."""
        super().__init__()
        self.critic = critic
        self._objective = MovingAverageBound()

    def critic_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns minus the bound that the critic raises, 0-d; no gradient reaches x and y.

        Args:
            x: (N, ...), N of at least 2.
            y: (N, ...), row i drawn together with row i of ``x``.
        """
        return -self._objective(self.critic(x.detach(), y.detach()))

    def information(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the Donsker-Varadhan bound, 0-d, nats; no gradient reaches the critic.

        Args:
            x: (N, ...), N of at least 2.
            y: (N, ...), row i drawn together with row i of ``x``.
        """
        return donsker_varadhan(frozen_call(self.critic, x, y))


def frozen_call(network: nn.Module, *inputs: Tensor) -> Tensor:
    """Runs a network such that gradients reach its inputs, but not its weights.

    Example:
        >>> layer, x = torch.nn.Linear(3, 1), torch.zeros(3, requires_grad=True)
        >>> frozen_call(layer, x).sum().backward()
        >>> layer.weight.grad is None, x.grad is None
        (True, False)
    """
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    outputs: Tensor = functional_call(network, weights, inputs)
    return outputs


def clipped(term: Tensor, loss: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    r"""Scales a term of a loss such that its gradient is no longer than that of the rest.

    .. math:: \min\left( 1, \frac{|\nabla L|}{|\nabla R|} \right) R

    with one norm of all parameters' gradients: an information has no upper end, and its gradient
    would outgrow that of a generator's loss.

    Args:
        term: R, 0-d.
        loss: L, 0-d, which stays as it is; add the two.
        parameters: all reached by both.

    Returns:
        0-d tensor; its gradient is that of R, clipped.

    Source: Belghazi et al., "Mutual information neural estimation", ICML 2018, appendix 8.1.1.

    Example:
        >>> weight = torch.tensor([1.0], requires_grad=True)
        >>> clipped(10 * weight.sum(), 2 * weight.sum(), [weight])
        tensor(2., grad_fn=<MulBackward0>)
    """
    parameters = list(parameters)
    steepness, limit = (
        torch.cat(
            [part.flatten() for part in torch.autograd.grad(each, parameters, retain_graph=True)]
        ).norm()
        for each in (term, loss)
    )
    return torch.where(steepness > limit, limit / steepness, 1.0) * term
