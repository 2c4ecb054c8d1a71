"""Attribution by the attention inside a layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_mi._intervention.arguments import as_tuple, check_layer, model_arguments
from captum_mi._intervention.attention import attention_probabilities
from captum_mi._intervention.hooks import module_name
from captum_mi._intervention.nested import detached_copy
from captum_mi._intervention.split import advise_on_scores, check_output
from captum_mi._intervention.trace import warn_if_training
from captum_mi.attr._base import Attributions, LayerMethod, check_finite
from captum_mi.attr._captum import TargetType
from captum_mi.attr._scores import target_scores


@dataclass(frozen=True)
class Attention:
    """The attention of a layer's blocks and the score's gradient by it.

    Attributes:
        probabilities: one (B, heads, T, T) per attention, in the order in which they ran.
        gradients: the score's gradient by each.
    """

    probabilities: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]

    def read(self, relevance: Tensor) -> Tensor:
        """Reads a relevance of token j for token i, (B, T, T), off the tokens that are pooled.

        These are the queries of the last attention that the score depends on: CLS or the end of the
        text; every token of a tower that pools them all, or of a block with others behind it.
        (B, T, 1), their mean.
        """
        pooled = self.gradients[-1].abs().amax(dim=(1, 3)) > 0
        weights = pooled / pooled.sum(1, keepdim=True).clamp(min=1)
        return torch.einsum("bi,bij->bj", weights.to(relevance), relevance).unsqueeze(-1)


def attend(
    forward_func: Callable[..., Tensor],
    layer: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: TargetType,
    additional_forward_args: object = None,
) -> Attention:
    """Runs the model once, forward and back, and returns the attention inside a layer.

    Raises:
        TypeError: if the layer is no module.
        ValueError: if there is no self-attention in the layer, or a NaN turns up.
        AssertionError: if ``target`` does not fit the output.
    """
    check_layer(layer)
    args = model_arguments(inputs, additional_forward_args)
    name = module_name(forward_func, layer)
    for module in layer.modules():
        warn_if_training(module, forward_func)
    with torch.inference_mode(mode=False), torch.enable_grad():
        with attention_probabilities(layer) as found, advise_on_scores(forward_func):
            found_output = forward_func(*detached_copy(args))
        output = check_output(found_output, as_tuple(inputs))
        _check_attention(found, name, batch=len(output))
        scores = target_scores(output, target)
        gradients = torch.autograd.grad(scores.sum(), found, materialize_grads=True)
    check_finite(gradients, name)
    return Attention(tuple(part.detach() for part in found), tuple(gradients))


def _check_attention(found: list[Tensor], name: str, *, batch: int) -> None:
    if not found:
        raise ValueError(
            f"layer {name} ran no attention that can be read; give a block of a transformer, or"
            " the list of them, whose attention is PyTorch's scaled_dot_product_attention"
        )
    tokens = found[0].shape[-1]
    for part in found:
        if part.ndim != 4 or len(part) != batch or part.shape[-2:] != (tokens, tokens):
            raise ValueError(
                f"layer {name} must attend among one set of tokens, (B, heads, T, T) with"
                f" {batch} rows, got {[tuple(part.shape) for part in found]}; give the blocks of"
                " one encoder, built with batch_first=True"
            )
        if not part.isfinite().all():
            raise ValueError(
                f"layer {name} holds NaN or infinity for these inputs; check the inputs and the"
                " model's precision"
            )


class AttentionMethod(LayerMethod):
    """Relevance of tokens read off the attention inside a layer. Channels are reduced to one."""

    @abstractmethod
    def relevance(self, attention: Attention) -> Tensor:
        """Returns the relevance of token j for token i, (B, T, T)."""

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
    ) -> Attributions:
        """Attributes the target's score to the tokens.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.

        Returns:
            (B, T, 1), one score for each token (float32 for half-precision models), or a list of
            these for a list of layers.

        Raises:
            ValueError: if there is no self-attention in the layer, or a NaN turns up.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        results = []
        for layer in self.layers:
            attention = attend(self.forward_func, layer, inputs, target, additional_forward_args)
            found = attention.read(self.relevance(attention))
            results.append(self.checked((found,), module_name(self.forward_func, layer)))
        return self.formatted(results)
