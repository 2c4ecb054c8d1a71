"""MFABA: attribution along the path of an adversarial attack."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from captum_mi._checks import check_choice, check_positive, check_positive_number
from captum_mi._intervention.precision import at_least_single
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi.attr._base import Attributions, LayerMethod
from captum_mi.attr._captum import TargetType
from captum_mi.attr._scores import scores_and_gradients


class MFABA(LayerMethod):
    r"""More faithful and accelerated boundary-based attribution: what an attack has to change.

    From the layer's value an attack takes steps that lower the target's score F, and each element
    is credited with its share of the fall, to first order:

    .. math:: A = -\sum_t (z_{t+1} - z_t) \odot \frac{g_t + g_{t+1}}{2},
              \qquad \sum_i A_i \approx F(z_0) - F(z_T),

    with :math:`g_t` the gradient of F at :math:`z_t`. Signed, deterministic. With the left rule,
    :math:`g_t` alone as published, and sign steps every element is >= 0.

    Source: Zhu et al., "MFABA: A More Faithful and Accelerated Boundary-based Attribution Method
    for Deep Neural Networks", AAAI 2024, algorithm 1.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> MFABA(model, model[0]).attribute(torch.randn(5, 3), target=1).shape
        torch.Size([5, 4])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "MFABA"

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        n_steps: int = 10,
        step_size: float = 0.01,
        step: Literal["sign", "gradient"] = "sign",
        method: Literal["trapezoid", "left"] = "trapezoid",
        attribute_to_layer_input: bool = False,
    ) -> Attributions:
        """Attacks the target's score and credits the layer's elements with its fall.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            n_steps: steps of the attack.
            step_size: length of a step, in the layer's units: of each element for "sign", of the
                whole layer for "gradient".
            step: "sign", along the gradient's sign (the paper's smooth variant), or "gradient",
                along its direction (the sharp one).
            method: quadrature of each step: "trapezoid" (error of second order in ``step_size``) or
                "left" (as published).
            attribute_to_layer_input: explain the layer's input instead of its output.

        Returns:
            the layer's shape, signed, in the units of the model's output (float32 for
            half-precision layers): a tensor, a tuple for a layer with several tensors, a list for
            a list of layers.

        Raises:
            ValueError: if an argument is out of range, the layer does not fire exactly once, or a
                NaN turns up.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        check_positive("n_steps", n_steps)
        check_positive_number("step_size", step_size)
        check_choice("step", step, ("sign", "gradient"))
        check_choice("method", method, ("trapezoid", "left"))

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            latent = tuple(at_least_single(part) for part in suffix.latent)
            total = tuple(torch.zeros_like(part) for part in latent)
            _, gradients = scores_and_gradients(suffix, latent, target)
            for i in range(n_steps):
                moves = _downhill(gradients, step_size, step)
                latent = tuple(part + move for part, move in zip(latent, moves, strict=True))
                before = gradients
                if method == "trapezoid" or i < n_steps - 1:
                    _, gradients = scores_and_gradients(suffix, latent, target)
                weights = (
                    before
                    if method == "left"
                    else tuple((a + b) / 2 for a, b in zip(before, gradients, strict=True))
                )
                total = tuple(
                    whole - move * weight
                    for whole, move, weight in zip(total, moves, weights, strict=True)
                )
            return total

        return self.attribute_layers(
            explain, inputs, target, additional_forward_args, at_input=attribute_to_layer_input
        )


def _downhill(gradients: tuple[Tensor, ...], step_size: float, step: str) -> tuple[Tensor, ...]:
    """Returns one step against the gradient, for each row by itself."""
    if step == "sign":
        return tuple(-step_size * part.sign() for part in gradients)
    largest = torch.stack([part.flatten(1).abs().amax(1) for part in gradients]).amax(0)
    largest = largest.where(largest > 0, 1.0)  # squares of small gradients would underflow
    units = tuple(part / largest.reshape(-1, *[1] * (part.ndim - 1)) for part in gradients)
    squares = torch.stack([part.flatten(1).square().sum(1) for part in units]).sum(0)
    length = squares.sqrt().clamp(min=1.0)  # at least 1, but for a gradient of zero
    return tuple(-step_size * part / length.reshape(-1, *[1] * (part.ndim - 1)) for part in units)
