"""Fast Integrated Gradients: input times gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum._utils.typing import TargetType
from captum.attr._utils.attribution import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_mi._nested import at_least_single
from captum_mi._suffix import LayerSuffix
from captum_mi.attr._layers import explain_layers
from captum_mi.attr._scores import scores_and_gradients
from captum_mi.attr.attention import Attention, explain_attention


class FastIG(LayerAttribution):  # type: ignore[misc]
    r"""Fast Integrated Gradients: the layer's value times the score's gradient, in one pass.

    .. math:: A = z \odot \nabla F(z)

    On a network that is non-negatively homogeneous behind the layer (ReLU, no biases) this equals
    Integrated Gradients from the zero latent, exactly, and sums to F(z). On others it is its
    one-step approximation. Signed, deterministic.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the layer, or a list of layers, each explained on its own.
        attention: take the attention probabilities inside the layer, the last of several, instead
            of its output, as the NIB paper's table does; the heads' mean for the pooled token (of
            the tower's last block; below it, the mean over all tokens).

    Source: Hesse et al., "Fast Axiomatic Attribution for Neural Networks", NeurIPS 2021, eq. 4.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> FastIG(model, model[0]).attribute(torch.randn(5, 3), target=1).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        *,
        attention: bool = False,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        LayerAttribution.__init__(self, forward_func, layer)
        self.attention = attention

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Fast Integrated Gradients"

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,  # noqa: ANN401
        *,
        attribute_to_layer_input: bool = False,
    ) -> Any:  # noqa: ANN401
        """Multiplies the layer's value by the score's gradient.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            attribute_to_layer_input: explain the layer's input instead of its output.

        Returns:
            the layer's shape, signed, in the units of the model's output (float32 for
            half-precision layers): a tensor, a tuple for a layer with several tensors, a list for
            a list of layers. Of attention (B, T, 1), one score for each token.

        Raises:
            ValueError: if the layer does not fire exactly once, or a NaN turns up.
            AssertionError: if ``target`` does not fit the output (as Captum raises).
        """
        if self.attention:
            return explain_attention(self, _products, inputs, target, additional_forward_args)

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            _, gradients = scores_and_gradients(suffix, suffix.latent, target)
            return tuple(
                at_least_single(part) * gradient
                for part, gradient in zip(suffix.latent, gradients, strict=True)
            )

        return explain_layers(
            self,
            explain,
            inputs,
            target,
            additional_forward_args,
            at_input=attribute_to_layer_input,
        )


def _products(attention: Attention) -> Tensor:
    """The heads' mean of the last attention times its gradient, (B, T, T)."""
    return (attention.probabilities[-1] * attention.gradients[-1]).mean(1)
