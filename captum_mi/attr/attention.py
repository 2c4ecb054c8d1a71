"""Attribution by attention: Chefer et al.'s rollout, and the saliency of attention."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.common import _format_outputs
from captum._utils.typing import TargetType
from captum.attr._utils.attribution import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_mi._intervention.attention import attention_probabilities
from captum_mi._intervention.hooks import module_name
from captum_mi._intervention.suffix import advise_on_scores, check_output
from captum_mi._intervention.trace import detached_copy, warn_if_training
from captum_mi.attr._degenerate import check_finite, warn_if_degenerate
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
    forward_func: Callable[..., Any],
    layer: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: TargetType,
    additional_forward_args: Any = None,  # noqa: ANN401
) -> Attention:
    """Runs the model once, forward and back, and returns the attention inside a layer.

    Raises:
        TypeError: if the layer is no module.
        ValueError: if there is no self-attention in the layer, or it holds NaN.
        AssertionError: if ``target`` does not fit the output.
    """
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"`layer` must be a module or a list of modules, got {type(layer).__name__}; take a"
            " module by its name with model.get_submodule(name)"
        )
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    if additional_forward_args is not None and not isinstance(additional_forward_args, tuple):
        additional_forward_args = (additional_forward_args,)
    name = module_name(forward_func, layer)
    for module in layer.modules():
        warn_if_training(module, forward_func)
    with torch.inference_mode(mode=False), torch.enable_grad():
        with attention_probabilities(layer) as found, advise_on_scores(forward_func):
            output = forward_func(*detached_copy((*inputs, *(additional_forward_args or ()))))
        check_output(output, inputs)
        _check_attention(found, name, batch=len(output))
        scores = target_scores(output, target)
        gradients = torch.autograd.grad(scores.sum(), found, materialize_grads=True)
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


class AttentionAttribution(LayerAttribution):
    """Relevance of tokens read off the attention inside a layer. Channels are reduced to one."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        LayerAttribution.__init__(self, forward_func, layer, device_ids)

    @abstractmethod
    def relevance(self, attention: Attention) -> Tensor:
        """Returns the relevance of token j for token i, (B, T, T)."""

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
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
        several = isinstance(self.layer, list)
        results = []
        for layer in self.layer if several else [self.layer]:
            attention = attend(self.forward_func, layer, inputs, target, additional_forward_args)
            name = module_name(self.forward_func, layer)
            check_finite(attention.gradients, name)
            found = (attention.read(self.relevance(attention)),)
            warn_if_degenerate(found, name)
            results.append(found)
        return _format_outputs(several, results)


class GenericAttention(AttentionAttribution):
    r"""Generic attention explainability: relevance rolled out over the attention of all blocks.

    .. math:: R \leftarrow R + \bar A_l R, \qquad
              \bar A_l = \mathrm{mean}_h \, \mathrm{ReLU}(\nabla A_l \odot A_l),

    from R = I through the layer's attentions, in their order; the result is the row of the pooled
    token, without the identity. >= 0. One score for each token, (B, T, 1). Give every block up to
    the last one: with others behind the layer no token is pooled yet, and the rows' mean is taken.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: one module that holds the attentions: an encoder, its blocks (``models.blocks``), or
            one block. A Python list of blocks is refused: wrap it, ``nn.ModuleList(blocks)``.
        device_ids: accepted as by Captum's layer methods, and not needed.
        start_layer: the first attention that takes part; negative counts from the last. 0 is the
            paper's rollout, -1 the last one alone (the authors' CLIP notebook, the NIB paper's
            table).

    Raises:
        TypeError: if the layer is a list.

    Source: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", ICCV 2021, eq. 5 and 6.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> GenericAttention(similarity, blocks(clip)).attribute(pixels, target=0).shape
        torch.Size([1, 65, 1])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        device_ids: list[int] | None = None,
        *,
        start_layer: int = 0,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        if isinstance(layer, list):
            raise TypeError(
                "`layer` must be one module, whose attentions are rolled out together, got a list"
                f" of {len(layer)}; give nn.ModuleList(blocks), or explain each layer on its own"
            )
        super().__init__(forward_func, layer, device_ids)
        self.start_layer = start_layer

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Generic Attention Explainability"

    def relevance(self, attention: Attention) -> Tensor:
        """Returns the rollout without the identity, (B, T, T)."""
        count = len(attention.probabilities)
        if not -count <= self.start_layer < count:
            raise ValueError(
                f"`start_layer` must be {-count} to {count - 1}, the layer has {count} attentions,"
                f" got {self.start_layer}"
            )
        parts = zip(
            attention.probabilities[self.start_layer :],
            attention.gradients[self.start_layer :],
            strict=True,
        )
        rolled = torch.zeros_like(attention.probabilities[0][:, 0])
        for probabilities, gradients in parts:
            mean = (probabilities * gradients).relu().mean(1)
            rolled = rolled + mean + mean @ rolled
        return rolled


class AttentionSaliency(AttentionAttribution):
    r"""Saliency of attention: :math:`\mathrm{mean}_h \, |\nabla A|` of the pooled token. >= 0.

    Of several attentions in the layer the last one counts, which should be the tower's last: with
    others behind it no token is pooled yet, and the mean over all tokens is taken. It is what the
    NIB paper's table calls saliency map (SM); Simonyan's saliency of the input is Captum's
    ``Saliency``. One score for each token, (B, T, 1).

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the block whose attention is read, or what holds it; or a list of these, each read on
            its own.
        device_ids: accepted as by Captum's layer methods, and not needed.

    Source: Zhu et al., "Narrowing Information Bottleneck Theory for Multimodal Image-Text
    Representations Interpretability", ICLR 2025, baseline "SM", after Simonyan et al., "Deep Inside
    Convolutional Networks", 2014.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> AttentionSaliency(similarity, blocks(clip)[-1]).attribute(pixels, target=0).shape
        torch.Size([1, 65, 1])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Attention Saliency"

    def relevance(self, attention: Attention) -> Tensor:
        """Returns the heads' mean absolute gradient, (B, T, T)."""
        return attention.gradients[-1].abs().mean(1)
