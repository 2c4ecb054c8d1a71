"""What the neural estimators share: samples, critic, training and the held-out value."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from captum_mi._checks import check_choice, check_positive
from captum_mi.estimators._samples import label_entropy, label_rows
from captum_mi.estimators._standardized import Standardization, vectors_or_images
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.bounds import pointwise_terms
from captum_mi.estimators.estimate import Estimate
from captum_mi.estimators.neural_training import Training, train
from captum_mi.estimators.pair_critics import PAIR_CRITICS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from captum_mi._training import Progress
    from captum_mi.estimators._samples import Samples
    from captum_mi.estimators.bounds import Bound
    from captum_mi.estimators.pair_critics import PairCritic


@dataclass(frozen=True, eq=False)
class FittedCritic:
    """A trained critic and what it found.

    Attributes:
        estimate: on the held-out pairs.
        critic: in its best state; it reads standardized samples.
        history: the checks; their error is minus the bound on the part that stops the training.
        of_x: standardizes X.
        of_y: standardizes Y.
    """

    estimate: Estimate
    critic: PairCritic
    history: list[Progress]
    of_x: Standardization
    of_y: Standardization

    def scores(self, x: Samples, y: Samples) -> Tensor:
        """Returns the scores, (N, M), of N samples of X with M of Y, float64 on the CPU.

        Near the best critic they are the log ratio of joint density and product of densities, up to
        a constant of the estimator.
        """
        device = next(self.critic.parameters()).device
        first = self.of_x(vectors_or_images("x", x)).to(device)
        second = self.of_y(vectors_or_images("y", y)).to(device)
        return self.critic.score(first, second).cpu().double()


class NeuralEstimator(MutualInformationEstimator):
    r"""Estimates mutual information by the best lower bound that a trained critic reaches.

    Samples are vectors, (N, d) or (N,), or images, (N, H, W) or (N, C, H, W), of any type, which
    convolutions read; they are standardized, by column or by channel. Labels are read as one-hot
    vectors. The value is of held-out pairs, to whose sampling the standard error refers, and whose
    number is the ``n_samples`` of the estimate. What the critic did not learn is missing from it,
    so that it tends to be low, the more so the fewer samples there are, but sampling can lift it
    above the truth.

    Args:
        critic: "separable", the scalar product of a network of X and one of Y, or "concat", one
            network of both, which is slower by far: give it batches of some 100.
        hidden: units of the critic's hidden layers.
        training: the options.
    """

    def __init__(
        self,
        critic: str = "separable",
        hidden: tuple[int, ...] = (256,),
        training: Training | None = None,
    ) -> None:
        """Stores the arguments."""
        self.critic = check_choice("critic", critic, PAIR_CRITICS)
        self.hidden = tuple(check_positive("hidden", units) for units in hidden)
        if not self.hidden:
            raise ValueError("`hidden` must name the units of at least one layer, got ()")
        self.training = training or Training()

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two variables.

        Args:
            x: (N, d_x), (N, H, W) or (N, C, H, W), N of at least 20.
            y: the same, row i drawn together with row i of ``x``.

        Raises:
            ValueError: if samples are NaN, infinite or constant, or if the training diverges.
        """
        return self.fit(x, y).estimate

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of a continuous and a discrete variable.

        Args:
            x: (N, d), (N, H, W) or (N, C, H, W), N of at least 20.
            labels: (N,), integers or strings, entry i drawn together with row i of ``x``.

        Raises:
            ValueError: as :meth:`estimate`.
        """
        samples = vectors_or_images("x", x)
        rows = label_rows(labels, len(samples))
        one_hot = torch.zeros(len(samples), len(rows))
        for column, members in enumerate(rows.values()):
            one_hot[members, column] = 1
        _, _, terms = self._train(Standardization.of(samples)(samples), one_hot)
        return self._reported(Estimate.of(terms), label_entropy(rows))

    def fit(self, x: Samples, y: Samples) -> FittedCritic:
        """Trains a new critic, and estimates with it; arguments and errors of :meth:`estimate`."""
        first, second = vectors_or_images("x", x), vectors_or_images("y", y)
        if len(first) != len(second):
            raise ValueError(
                "`x` and `y` must have the same number of samples, got"
                f" {len(first)} and {len(second)}"
            )
        of_x, of_y = Standardization.of(first), Standardization.of(second)
        critic, history, terms = self._train(of_x(first), of_y(second))
        return FittedCritic(self._reported(Estimate.of(terms)), critic, history, of_x, of_y)

    @abstractmethod
    def _bound(self) -> Bound:
        """Returns the bound, or the value, that is reported."""

    def _objective(self) -> Callable[[Tensor], Tensor]:
        """Returns what a new training maximizes."""
        return self._validation()

    def _validation(self) -> Callable[[Tensor], Tensor]:
        """Returns the bound by which training stops."""
        bound = self._bound()
        return lambda scores: bound(scores, None)

    def _check(self, scores: Tensor) -> None:
        """Raises a ValueError if held-out scores, (N, N), are no basis for a value."""

    def _train(self, x: Tensor, y: Tensor) -> tuple[PairCritic, list[Progress], Tensor]:
        """Returns the critic, the checks and one term for each pair that was held out."""
        critic, history, blocks = train(
            x,
            y,
            partial(PAIR_CRITICS[self.critic], x.shape[1:], y.shape[1:], self.hidden),
            self._objective(),
            self._validation(),
            self.training,
            title=type(self).__name__,
        )
        terms = []
        for scores in blocks:
            self._check(scores)
            terms.append(pointwise_terms(self._bound(), scores))
        return critic, history, torch.cat(terms)
