"""Narrowing information bottleneck: attribution along a path from an empty latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from captum.attr import GradientAttribution, IntegratedGradients
from torch import Tensor, nn

from captum_mi._checks import check_choice, check_positive
from captum_mi._intervention import nested
from captum_mi._intervention.arguments import as_tuple
from captum_mi._intervention.precision import at_least_single
from captum_mi._intervention.split import split_at, trace_layers
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi.attr._base import Attributions, LayerMethod
from captum_mi.attr._captum import (
    QUADRATURES,
    BaselineType,
    TargetType,
    first_point,
    unlogged_attribute,
)
from captum_mi.attr._scores import scores_and_gradients, target_scores
from captum_mi.attr.layer_statistics import LayerStatistics

LayerBaseline: TypeAlias = Tensor | float | LayerStatistics
LayerBaselines: TypeAlias = LayerBaseline | tuple[LayerBaseline, ...]


class NarrowingIB(LayerMethod, GradientAttribution):
    r"""Narrowing information bottleneck (NIB): what a layer says for, or against, the target.

    The layer's output z is narrowed to \\(\\lambda z\\); as the bottleneck's noise goes to zero,
    the information that element i gains along the way is

    .. math:: A_i = z_i \int_0^1 \frac{\partial F(\lambda z)}{\partial z_i} \, d\lambda,
              \qquad \sum_i A_i = F(z) - F(0),

    where F is the model behind the layer. Positive values speak for the target, negative ones
    against it. The method is deterministic, and the model in front of the layer runs once, whatever
    ``n_steps``.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the layer, or a list of layers; each of a list is narrowed on its own, the others
            untouched (with ``baselines`` all at once, as Captum does).
        device_ids: as in Captum; models under ``DataParallel`` on several devices are refused.
        multiply_by_inputs: multiply the mean gradient by z - start; False returns the gradient.

    Source: Zhu et al., "Narrowing Information Bottleneck Theory for Multimodal Image-Text
    Representations Interpretability", ICLR 2025, eq. 9 and 10. On a smooth model it is Integrated
    Gradients of the model behind the layer, from a zero latent. Behind a LayerNorm F jumps close to
    the zero latent, so that no practical ``n_steps`` reaches F(z) - F(0), and steps ever nearer to
    it keep adding to the map; ``return_convergence_delta`` tells how much is missing. There start
    from an input that says nothing, by ``baselines`` (``models.blank_pixels``,
    ``models.blank_ids``), or from the layer's mean, by ``layer_baselines``; their path is
    smooth, and the sum is F(z) - F(start) up to the error of the quadrature.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> NarrowingIB(model, model[0]).attribute(torch.randn(5, 3), target=1).shape
        torch.Size([5, 4])
    """

    remedy = (
        "if the model is not smooth at the start of the path, use a `method` that does not evaluate"
        " it ('riemann_right', 'gausslegendre') or other `layer_baselines`, and a half-precision"
        " model may need float32"
    )

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Narrowing Information Bottleneck"

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        LayerMethod.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self._multiply_by_inputs = multiply_by_inputs

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: object = None,
        n_steps: int = 10,
        method: str | None = None,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        layer_baselines: LayerBaselines | list[LayerBaselines] | None = None,
    ) -> Attributions:
        """Attributes the target's score to the layer.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            baselines: inputs whose latent is where the path starts, as in Captum's
                ``LayerIntegratedGradients``, which this then equals, also in that the layers of a
                list are moved together. Default: the path starts at the zero latent.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``. A tensor with B rows is
                repeated with the batch; anything else is passed on as it is.
            n_steps: points of the quadrature, at least 2 ("gausslegendre": 1).
            method: Captum's name of the quadrature: "riemann_middle", "gausslegendre" (Captum's
                default; better where the model is very smooth), "riemann_right" (the paper's, its
                error falls as 1 / n_steps), "riemann_left" or "riemann_trapezoid". The last two
                evaluate the start of the path and need a model that is smooth there; the weights
                of Captum's trapezoid sum to 1 - 1 / n_steps. Default: "riemann_middle" with
                baselines, "riemann_right" without.
            internal_batch_size: rows that run through the model behind the layer at once; fewer
                than B count as B. Changes memory, not numbers.
            return_convergence_delta: return also the sum of the attributions minus F(z) - F(start),
                for each row.
            attribute_to_layer_input: explain the layer's input instead of its output.
            grad_kwargs: further arguments of ``torch.autograd.grad``.
            layer_baselines: the latent where the path starts: a number, a tensor of the layer's
                shape or with one row, or ``LayerStatistics``, whose mean it is; a tuple of these
                for a layer with several tensors, a list for a list of layers. Default: zero.

        Returns:
            the layer's shape, signed, in the units of the model's output (float32 for
            half-precision layers): a tensor, a tuple for a layer with several tensors, a list of
            these for a list of layers. A layer that packs its single row without a batch axis,
            (L, D), gets one: (1, L, D). With ``return_convergence_delta`` a pair of this and (B,)
            differences, a list of them for a list of layers that are each narrowed on their own.

        Raises:
            ValueError: if an argument is out of range, both baselines are given, the layer does not
                fire exactly once, or a NaN turns up in the layer or in its gradient.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        if method is None:
            informed = baselines is not None or layer_baselines is not None
            method = "riemann_middle" if informed else "riemann_right"
        _check_quadrature(method, n_steps)
        if internal_batch_size is not None:
            check_positive("internal_batch_size", internal_batch_size)
        if baselines is not None and layer_baselines is not None:
            raise ValueError(
                "`baselines` (inputs) and `layer_baselines` (latents) exclude each other; give one"
                " of them"
            )
        run: dict[str, Any] = {
            "additional_forward_args": additional_forward_args,
            "at_input": attribute_to_layer_input,
        }
        if baselines is not None:
            others = _baseline_inputs(inputs, baselines)
            # Before the inputs: what the model keeps of its last run is then theirs.
            start_traces = trace_layers(self.forward_func, self.layers, others, **run)[2]
            suffixes = split_at(self.forward_func, self.layers, inputs, jointly=True, **run)
            starts = [suffixes[0].latent_in(start_traces)]
        else:
            if layer_baselines is None:
                run["move"] = _to_first_point(method, n_steps)
            suffixes = split_at(self.forward_func, self.layers, inputs, **run)
            starts = self._starts(suffixes, layer_baselines)
        rest = iter(starts)
        deltas: list[Tensor] = []

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            start = next(rest)
            attributions = _integrate(
                suffix,
                start,
                target,
                n_steps,
                method,
                internal_batch_size,
                grad_kwargs,
                multiply_by_inputs=self._multiply_by_inputs,
            )
            if return_convergence_delta:
                deltas.append(_convergence_delta(suffix, start, target, attributions))
            return attributions

        attributions = self.attribute_suffixes(explain, suffixes, target)
        if not return_convergence_delta:
            return attributions
        one_each = isinstance(self.layer, list) and baselines is None
        return attributions, deltas if one_each else deltas[0]

    def _starts(
        self,
        suffixes: list[LayerSuffix],
        layer_baselines: LayerBaselines | list[LayerBaselines] | None,
    ) -> list[tuple[Tensor, ...]]:
        """Returns the latent where each layer's path starts."""
        if not isinstance(layer_baselines, list):
            if layer_baselines is not None and len(suffixes) > 1:
                raise ValueError(
                    "`layer_baselines` must be a list with one entry for each of the"
                    f" {len(suffixes)} layers, got {type(layer_baselines).__name__}"
                )
            layer_baselines = [0.0 if layer_baselines is None else layer_baselines] * len(suffixes)
        if len(layer_baselines) != len(suffixes):
            raise ValueError(
                f"`layer_baselines` must have one entry for each of the {len(suffixes)} layers, "
                f"got {len(layer_baselines)}"
            )
        return [
            _start(suffix, start) for suffix, start in zip(suffixes, layer_baselines, strict=True)
        ]

    def has_convergence_delta(self) -> bool:
        """Returns True: ``return_convergence_delta`` is understood."""
        return True

    def compute_convergence_delta(
        self,
        attributions: Attributions,
        start_point: BaselineType,
        end_point: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
    ) -> Tensor:
        """Returns the sum of the attributions minus F(end point) - F(start point), for each row.

        Args:
            attributions: what :meth:`attribute` returned with ``baselines``.
            start_point: those ``baselines``.
            end_point: the inputs.
            target: the output that was explained.
            additional_forward_args: further arguments of ``forward_func``.

        Returns:
            (B,) differences.

        Raises:
            ValueError: without a start point: the path then began at a latent, which has no input.
        """
        if start_point is None:
            raise ValueError(
                "`start_point` must be the `baselines` of attribute, got None: a path from a latent"
                " starts at no input; call attribute with return_convergence_delta=True"
            )
        delta: Tensor = super().compute_convergence_delta(
            attributions, start_point, end_point, target, additional_forward_args
        )
        return delta

    @property
    def multiplies_by_inputs(self) -> bool:
        """True if attributions are z - start times the mean gradient, not the gradient alone."""
        return self._multiply_by_inputs


def _check_quadrature(method: str, n_steps: int) -> None:
    check_positive("n_steps", n_steps)
    check_choice("method", method, QUADRATURES)
    if n_steps < 2 and method != "gausslegendre":
        raise ValueError(
            f"`n_steps` must be at least 2 for `method` {method!r}, got {n_steps}; FastIG is the"
            " rule of one step"
        )


def _to_first_point(method: str, n_steps: int) -> Callable[[Tensor], Tensor]:
    """Returns what moves a latent to the first point of its path from zero."""
    alpha = first_point(method, n_steps)
    return lambda latent: alpha * at_least_single(latent)


def _baseline_inputs(
    inputs: Tensor | tuple[Tensor, ...], baselines: BaselineType
) -> tuple[Tensor, ...]:
    """Spreads baselines, numbers or single rows too, to the shape of the inputs."""
    given = baselines if isinstance(baselines, tuple) else (baselines,)
    return _spread("baselines", given, as_tuple(inputs), "inputs")


def _start(suffix: LayerSuffix, start: LayerBaselines) -> tuple[Tensor, ...]:
    """Spreads the start of the path over the layer's tensors."""
    given = start if isinstance(start, tuple) else (start,) * len(suffix.latent)
    latents = [part.mean[None] if isinstance(part, LayerStatistics) else part for part in given]
    return _spread("layer_baselines", latents, suffix.latent, f"tensors of layer {suffix.name}")


def _spread(
    argument: str, values: Sequence[Tensor | float], tensors: tuple[Tensor, ...], owner: str
) -> tuple[Tensor, ...]:
    """Spreads numbers, or tensors of one row, to the shapes of the tensors."""
    if len(values) != len(tensors):
        raise ValueError(
            f"`{argument}` must have one entry for each of the {len(tensors)} {owner}, got"
            f" {len(values)}"
        )
    spread = []
    for value, own in zip(values, tensors, strict=True):
        tensor = torch.as_tensor(value, dtype=own.dtype, device=own.device)
        if tensor.ndim and tensor.shape not in (own.shape, (1, *own.shape[1:])):
            raise ValueError(
                f"`{argument}` must be numbers or have the shape {tuple(own.shape)} of the {owner},"
                f" or one row of it, got {tuple(tensor.shape)}"
            )
        spread.append(tensor.detach().expand_as(own))
    return tuple(spread)


def _integrate(
    suffix: LayerSuffix,
    start: tuple[Tensor, ...],
    target: TargetType,
    n_steps: int,
    method: str,
    internal_batch_size: int | None,
    grad_kwargs: dict[str, Any] | None,
    *,
    multiply_by_inputs: bool,
) -> tuple[Tensor, ...]:
    """Returns Captum's Integrated Gradients of the suffix from ``start`` to its own latent."""

    def gradients(
        forward_fn: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        target_ind: TargetType = None,
        additional_forward_args: object = None,
    ) -> tuple[Tensor, ...]:
        return scores_and_gradients(suffix, inputs, target_ind, grad_kwargs)[1]

    integrated_gradients = IntegratedGradients(suffix, multiply_by_inputs)
    integrated_gradients.gradient_func = gradients
    attributions: tuple[Tensor, ...] = unlogged_attribute(integrated_gradients)(
        nested.map_tensors(at_least_single, suffix.latent),
        baselines=nested.map_tensors(at_least_single, start),
        target=target,
        n_steps=n_steps,
        method=method,
        internal_batch_size=internal_batch_size,
    )
    return tuple(tensor.detach() for tensor in attributions)


def _convergence_delta(
    suffix: LayerSuffix,
    start: tuple[Tensor, ...],
    target: TargetType,
    attributions: tuple[Tensor, ...],
) -> Tensor:
    """Returns the sum of the attributions minus F(z) - F(start), (B,)."""
    end_score = target_scores(suffix(*suffix.latent), target)
    start_score = target_scores(suffix(*start), target)
    total = torch.stack([tensor.flatten(1).sum(1) for tensor in attributions]).sum(0)
    delta: Tensor = total - (end_score - start_score)
    return delta
