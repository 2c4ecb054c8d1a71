"""Noise bottlenecks: M2IB on image-text models, the per-sample IBA on classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, logsigmoid, pad

from captum_mi._checks import check_choice, check_positive, check_positive_number
from captum_mi._intervention.precision import at_least_single
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi.attr._base import Attributions, LayerMethod, check_finite, warn_if_degenerate
from captum_mi.attr._captum import TargetType, expand_target
from captum_mi.attr._scores import target_scores
from captum_mi.attr.layer_statistics import LayerStatistics

Objective = Literal["score", "log_softmax"]
INITIAL_ALPHA = 5.0
MIN_STD = 0.01
MIN_ACTIVE = 0.01


class Bottleneck:
    r"""The noise in front of a suffix: :math:`t = \lambda z + (1 - \lambda) \epsilon`.

    ``alpha`` with :math:`\lambda = \sigma(\alpha)` says how much of each element passes;
    :math:`\epsilon` is Gaussian with the prior's mean and deviation, standard normal without one.

    Args:
        latent: (B, ...), the layer's value.
        prior: the layer's statistics.
        smoothing: standard deviation, in elements of the map, of the Gaussian that smooths lambda.
    """

    def __init__(
        self,
        latent: Tensor,
        prior: LayerStatistics | None = None,
        smoothing: float | None = None,
    ) -> None:
        """Prepares the normalized latent and the smoothing kernel."""
        self.latent = at_least_single(latent)
        self.mean = self.latent.new_zeros(())
        self.std = self.latent.new_ones(())
        self.active: Tensor | None = None
        if prior is not None:
            self.mean = prior.mean.to(self.latent)
            self.std = prior.std.to(self.latent).clamp(min=MIN_STD)
            self.active = (prior.active > MIN_ACTIVE).to(self.latent)
        self.kernel = None if smoothing is None else _gaussian(smoothing).to(self.latent)

    def pass_and_stop(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Returns lambda and 1 - lambda, each to its own full precision."""
        return self._smooth(alpha.sigmoid()), self._smooth((-alpha).sigmoid())

    def capacity(self, alpha: Tensor) -> Tensor:
        r"""Returns the information that passes, nats per element, >= 0, of the latent's shape.

        .. math:: KL = -\frac12 \left( 1 + \log v - \lambda^2 r^2 - v \right),
                  \quad v = (1 - \lambda)^2, \quad r = (z - \mu) / \sigma
        """
        through, stopped = self.pass_and_stop(alpha)
        if self.kernel is None:
            log_stopped = logsigmoid(-alpha)
        else:
            log_stopped = stopped.clamp(min=torch.finfo(stopped.dtype).tiny).log()
        normalized = (self.latent - self.mean) / self.std
        nats = -0.5 * (1 + 2 * log_stopped - (through * normalized) ** 2 - stopped**2)
        nats = nats.clamp(min=0)
        return nats if self.active is None else nats * self.active

    def noisy(self, alpha: Tensor, noise: Tensor) -> Tensor:
        """Returns the latent after the bottleneck.

        Args:
            alpha: (B, ...).
            noise: (copies, 1, ...), standard normal.

        Returns:
            (copies * B, ...), copy by copy.
        """
        through, stopped = self.pass_and_stop(alpha)
        mixed = through * self.latent + stopped * (self.mean + self.std * noise)
        if self.active is not None:
            mixed = mixed * self.active
        return mixed.flatten(0, 1)

    def _smooth(self, values: Tensor) -> Tensor:
        if self.kernel is None:
            return values
        channels, margin = values.shape[1], self.kernel.shape[-1] // 2
        padded = pad(values, (margin,) * 4, mode="reflect")
        kernel = self.kernel.expand(channels, 1, -1, -1)
        return conv2d(padded, kernel, groups=channels)


def _gaussian(sigma: float) -> Tensor:
    """Returns a (k, k) kernel of sum one, k = 2 round(2 sigma) + 1."""
    reach = round(2 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()


class MultimodalIB(LayerMethod):
    r"""Noise bottleneck: how many nats of each element of a layer the target needs.

    Each element z of the layer's output is mixed with noise, :math:`t = \lambda z + (1 - \lambda)
    \epsilon`, and :math:`\lambda = \sigma(\alpha)` is optimized, for each row by itself:

    .. math:: \min_\alpha \; \beta \, \overline{KL}(\alpha) - F(t)

    keeps the score F of the target while the information that passes shrinks. Without a prior this
    is M2IB: noise N(0, 1), the raw score. With fitted statistics, a smoothing and
    ``objective="log_softmax"`` it is the per-sample IBA. Only the model behind the layer runs in
    the optimization. Rows do not influence each other.

    Source: Wang et al., "Visual Explanations of Image-Text Representations via Multi-Modal
    Information Bottleneck Attribution", NeurIPS 2023; Schulz et al., "Restricting the Flow:
    Information Bottlenecks for Attribution", ICLR 2020, eq. 5 to 7.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> MultimodalIB(model, model[0]).attribute(torch.randn(5, 3), target=1).shape
        torch.Size([5, 4])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Multimodal Information Bottleneck"

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        beta: float = 0.1,
        n_steps: int = 10,
        n_samples: int = 10,
        learning_rate: float = 1.0,
        objective: Objective = "score",
        prior: LayerStatistics | None = None,
        smoothing: float | None = None,
        attribute_to_layer_input: bool = False,
        internal_batch_size: int | None = None,
        seed: int = 0,
    ) -> Attributions:
        """Optimizes the bottleneck and returns what passes it.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to keep, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            beta: weight of the mean information against the score (M2IB: 0.1, IBA: 10).
            n_steps: states of alpha, the first one the open bottleneck; Adam makes n_steps - 1
                updates between them. (The published code makes one more, which it never reads.)
            n_samples: noise draws in each step.
            learning_rate: of Adam.
            objective: "score", the selected output, or "log_softmax", the target's log-probability.
            prior: the layer's statistics; None is N(0, 1).
            smoothing: standard deviation, in elements, of the Gaussian that smooths lambda over the
                map of a convolution layer (IBA: 1); None leaves it rough.
            attribute_to_layer_input: explain the layer's input instead of its output.
            internal_batch_size: rows that run through the model behind the layer at once; fewer
                than B count as B. Changes memory, not numbers.
            seed: seed of the noise, which every row shares.

        Returns:
            nats per element, >= 0, in the layer's shape (float32 for half-precision layers): a
            tensor, a tuple for a layer with several tensors, a list for a list of layers.

        Raises:
            ValueError: if an argument is out of range, the statistics are those of another shape,
                the layer does not fire exactly once, or a NaN turns up.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        check_positive("n_steps", n_steps)
        check_positive("n_samples", n_samples)
        check_positive_number("beta", beta)
        check_positive_number("learning_rate", learning_rate)
        check_choice("objective", objective, ("score", "log_softmax"))
        if smoothing is not None:
            check_positive_number("smoothing", smoothing)
        if internal_batch_size is not None:
            check_positive("internal_batch_size", internal_batch_size)
        scores = _Scores(target, objective)

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            _check_fit(suffix, prior, smoothing)
            bottlenecks = [Bottleneck(part, prior, smoothing) for part in suffix.latent]
            with torch.enable_grad():
                alphas = _optimize(
                    suffix,
                    bottlenecks,
                    scores,
                    beta=beta,
                    updates=n_steps - 1,
                    n_samples=n_samples,
                    learning_rate=learning_rate,
                    rows_at_once=internal_batch_size,
                    seed=seed,
                )
            return tuple(
                bottleneck.capacity(alpha)
                for bottleneck, alpha in zip(bottlenecks, alphas, strict=True)
            )

        return self.attribute_layers(
            explain,
            inputs,
            target,
            additional_forward_args,
            at_input=attribute_to_layer_input,
            check=partial(scores, copies=1),
        )

    def checked(self, found: Sequence[Tensor], layer_name: str) -> tuple[Tensor, ...]:
        """Returns the nats of a layer if they are finite; the optimization warned of gradients."""
        check_finite(found, layer_name)
        return tuple(found)


class _Scores:
    """The objective's value for each row, of an output whose rows are copies of the batch."""

    def __init__(self, target: TargetType, objective: Objective) -> None:
        self._target = target
        self._objective = objective

    def __call__(self, output: Tensor, copies: int) -> Tensor:
        if self._objective == "log_softmax":
            if output.ndim != 2:
                raise ValueError(
                    "`objective` 'log_softmax' needs an output (B, C), one logit per class, got"
                    f" {tuple(output.shape)}; use 'score'"
                )
            output = at_least_single(output).log_softmax(dim=-1)
        return target_scores(output, expand_target(self._target, copies))


def _optimize(
    suffix: LayerSuffix,
    bottlenecks: list[Bottleneck],
    scores: _Scores,
    *,
    beta: float,
    updates: int,
    n_samples: int,
    learning_rate: float,
    rows_at_once: int | None,
    seed: int,
) -> list[Tensor]:
    """Returns alpha of each bottleneck after Adam's updates."""
    alphas = [
        torch.full_like(bottleneck.latent, INITIAL_ALPHA, requires_grad=True)
        for bottleneck in bottlenecks
    ]
    optimizer = torch.optim.Adam(alphas, lr=learning_rate)
    generator = torch.Generator(alphas[0].device).manual_seed(seed)
    batch = len(alphas[0])
    at_once = n_samples if rows_at_once is None else max(1, rows_at_once // batch)
    for update in range(updates):
        # Noise without the batch in its shape: a row meets the same noise in any batch.
        noises = [
            torch.randn(
                (n_samples, 1, *alpha.shape[1:]),
                generator=generator,
                device=alpha.device,
                dtype=alpha.dtype,
            )
            for alpha in alphas
        ]
        from_scores = [torch.zeros_like(alpha) for alpha in alphas]
        for first in range(0, n_samples, at_once):
            noisy = [
                bottleneck.noisy(alpha, noise[first : first + at_once])
                for bottleneck, alpha, noise in zip(bottlenecks, alphas, noises, strict=True)
            ]
            output = suffix(*noisy)
            score = scores(output, copies=len(noisy[0]) // batch).sum() / n_samples
            parts = torch.autograd.grad(score, alphas, materialize_grads=True)
            from_scores = [whole + part for whole, part in zip(from_scores, parts, strict=True)]
        if update == 0:
            warn_if_degenerate(tuple(from_scores), suffix.name)
        # Summed over the rows, so that each row's gradient is its own.
        nats = [
            bottleneck.capacity(alpha).flatten(1).mean(1).sum()
            for bottleneck, alpha in zip(bottlenecks, alphas, strict=True)
        ]
        from_nats = torch.autograd.grad(nats, alphas)
        gradients = tuple(
            beta * cost - gain for cost, gain in zip(from_nats, from_scores, strict=True)
        )
        check_finite(gradients, suffix.name)
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        optimizer.step()
    return [alpha.detach() for alpha in alphas]


def _check_fit(suffix: LayerSuffix, prior: LayerStatistics | None, smoothing: float | None) -> None:
    """Refuses statistics and a smoothing that do not fit the layer."""
    for part in suffix.latent:
        if prior is not None and prior.mean.shape != part.shape[1:]:
            raise ValueError(
                f"`prior` has statistics of shape {tuple(prior.mean.shape)}, but layer"
                f" {suffix.name} has {tuple(part.shape[1:])}; fit them on this layer"
            )
        if smoothing is None:
            continue
        if part.ndim != 4 or round(2 * smoothing) >= min(part.shape[2:]):
            raise ValueError(
                f"`smoothing` {smoothing} needs maps (B, C, h, w) larger than"
                f" {round(2 * smoothing)}, but layer {suffix.name} has {tuple(part.shape)}; use"
                " None"
            )
