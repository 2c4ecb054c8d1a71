"""Fast Integrated Gradients: input times gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from captum_mi._intervention.precision import at_least_single
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi.attr._base import Attributions, LayerMethod
from captum_mi.attr._captum import TargetType
from captum_mi.attr._scores import scores_and_gradients


class FastIG(LayerMethod):
    r"""Fast Integrated Gradients: the layer's value times the score's gradient, in one pass.

    .. math:: A = z \odot \nabla F(z)

    On a network that is non-negatively homogeneous behind the layer (ReLU, no biases) this equals
    Integrated Gradients from the zero latent, exactly, and sums to F(z). On others it is its
    one-step approximation. Signed, deterministic. (The NIB paper's table takes the attention of a
    block in the place of z.)

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the layer, or a list of layers, each explained on its own.
        device_ids: accepted as by Captum's layer methods, and not needed.
        multiply_by_inputs: False gives the gradient alone.

    Source: Hesse et al., "Fast Axiomatic Attribution for Neural Networks", NeurIPS 2021, eq. 4.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> FastIG(model, model[0]).attribute(torch.randn(5, 3), target=1).shape
        torch.Size([5, 4])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Fast Integrated Gradients"

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        super().__init__(forward_func, layer, device_ids)
        self._multiply_by_inputs = multiply_by_inputs

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Attributions:
        """Multiplies the layer's value by the score's gradient.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            attribute_to_layer_input: explain the layer's input instead of its output.
            grad_kwargs: further arguments of ``torch.autograd.grad``.

        Returns:
            the layer's shape, signed, in the units of the model's output (float32 for
            half-precision layers): a tensor, a tuple for a layer with several tensors, a list for
            a list of layers.

        Raises:
            ValueError: if the layer does not fire exactly once, or a NaN turns up.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            _, gradients = scores_and_gradients(suffix, suffix.latent, target, grad_kwargs)
            if not self.multiplies_by_inputs:
                return gradients
            return tuple(
                at_least_single(part) * gradient
                for part, gradient in zip(suffix.latent, gradients, strict=True)
            )

        return self.attribute_layers(
            explain, inputs, target, additional_forward_args, at_input=attribute_to_layer_input
        )

    @property
    def multiplies_by_inputs(self) -> bool:
        """True if the gradient is multiplied by the layer's value."""
        return self._multiply_by_inputs
