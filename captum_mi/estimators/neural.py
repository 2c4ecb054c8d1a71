"""Neural estimators of mutual information: each a bound that a critic is trained to raise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_mi._checks import check_positive_number
from captum_mi.estimators.bounds import (
    donsker_varadhan,
    info_nce,
    jensen_shannon,
    log_mean_exp,
    nwj,
    smile,
    tuba,
)
from captum_mi.estimators.neural_base import NeuralEstimator
from captum_mi.estimators.neural_training import Training

if TYPE_CHECKING:
    from captum_mi.estimators.bounds import Bound

DOMINANT = 0.5  # share of one sample in a mean that is no longer one
AVERAGING = 0.01  # of MINE's moving average, the share of the newest batch


class _OfPartition(NeuralEstimator):
    """An estimator whose value has the mean of exponentials of scores, without a limit."""

    def _check(self, scores: Tensor) -> None:
        others = scores.clone().fill_diagonal_(-math.inf)
        largest = max(others.logsumexp(dim).max() for dim in (0, 1))
        share = float((largest - others.logsumexp((0, 1))).exp())
        if share > DOMINANT:
            raise ValueError(
                f"the critic diverged, or the information is more than {len(scores)} held-out"
                f" samples can show: {share:.0%} of the mean of e^score over other pairs are one"
                " sample's; give more samples, choose a smaller `learning_rate`, or take `InfoNCE`"
                " or `SMILE`"
            )


class MINE(_OfPartition):
    """Mutual information neural estimation: the Donsker-Varadhan bound.

    The gradient of its logarithm is biased in small batches, as the mean inside it is of the same
    batch; it is taken with a moving average of that mean instead, 1 % of it the newest batch's.

    Source: Belghazi et al., "Mutual information neural estimation", ICML 2018, sections 3.1 and
    3.2.

    Example:
        >>> from captum_mi.datasets import CorrelatedNormals
        >>> x, y = CorrelatedNormals(1.0, dim_x=1, dim_y=1).sample(2000)
        >>> found = MINE(hidden=(32,), training=Training(steps=200, batch_size=128)).fit(x, y)
        >>> 0.7 < found.estimate.value < 1.2, found.history[-1].step
        (True, 200)
    """

    def _bound(self) -> Bound:
        return donsker_varadhan

    def _objective(self) -> MovingAverageBound:
        return MovingAverageBound()


class MovingAverageBound:
    """The bound of a baseline that is the moving average of the mean of e^score over batches.

    Of each batch, it has the gradient of the Donsker-Varadhan bound as if the mean of all batches
    were the batch's own. The average begins with the first batch, and stays in log space.

    Attributes:
        log_average: 0-d, after the batches so far; None before the first.
    """

    def __init__(self) -> None:
        """Begins without a batch."""
        self.log_average: Tensor | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        """Takes in a batch's score matrix, (N, N), and returns its bound, 0-d."""
        newest = log_mean_exp(scores.detach())
        if self.log_average is None:
            self.log_average = newest
        self.log_average = torch.logaddexp(
            self.log_average + math.log1p(-AVERAGING), newest + math.log(AVERAGING)
        )
        return tuba(scores, log_baseline=self.log_average)


class NWJ(_OfPartition):
    """The bound of Nguyen, Wainwright and Jordan, without a logarithm around a mean.

    Source: Nguyen et al., "Estimating divergence functionals and the likelihood ratio by convex
    risk minimization", IEEE Transactions on Information Theory 2010.

    Example:
        >>> NWJ(hidden=(128, 128)).hidden
        (128, 128)
    """

    def _bound(self) -> Bound:
        return nwj


class JSD(NeuralEstimator):
    """Twice the Jensen-Shannon divergence of joint distribution and product: at most 2 log 2.

    A lower bound of the mutual information, far below it above a nat: a robust measure of
    dependence. :class:`SMILE` makes an estimate of the same critic.

    Source: Hjelm et al., "Learning deep representations by mutual information estimation and
    maximization", ICLR 2019, eq. 4.

    Example:
        >>> JSD(training=Training(seed=3)).training.seed
        3
    """

    def _bound(self) -> Bound:
        return jensen_shannon


class InfoNCE(NeuralEstimator):
    """The bound of telling each x's own y among those of all held-out samples.

    At most the logarithm of their number, in blocks of at most 2,048: 7.6 nats.

    Source: van den Oord et al., "Representation learning with contrastive predictive coding", 2018.

    Example:
        >>> InfoNCE().critic
        'separable'
    """

    def _bound(self) -> Bound:
        return info_nce


class SMILE(NeuralEstimator):
    r"""A critic trained as that of :class:`JSD`, and the Donsker-Varadhan value of clipped scores.

    No bound: it can lie above the truth, and does for large informations.

    Args:
        clip: tau; exponentials of scores are clipped to :math:`e^{-\tau}` and :math:`e^{\tau}`.
        critic: as of the other estimators.
        hidden: the same.
        training: the same.

    Source: Song and Ermon, "Understanding the limitations of variational mutual information
    estimators", ICLR 2020, section 4.

    Example:
        >>> SMILE(1.0).clip
        1.0
    """

    def __init__(
        self,
        clip: float = 5.0,
        critic: str = "separable",
        hidden: tuple[int, ...] = (256,),
        training: Training | None = None,
    ) -> None:
        """Stores the arguments."""
        super().__init__(critic, hidden, training)
        self.clip = check_positive_number("clip", clip)

    def _bound(self) -> Bound:
        return partial(smile, clip=self.clip)

    def _validation(self) -> Callable[[Tensor], Tensor]:
        return jensen_shannon
